"""The stepwise decoder as one compiled loop that runs on the device."""

from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import NUM_CLASSES, WaveNetConfig
from magenta_nsynth.models.wavenet import WaveNetDecoder

__all__ = ["CompiledEngine", "compiled_engines"]

# The matrix libraries round a product of one row differently from a product of several;
# without AVX-512 this also applies to two and three rows. With at least four rows a
# clip's samples do not depend on its batch. Four rows take no longer than one.
_MIN_ROWS = 4


def compiled_engines(
    decoder: WaveNetDecoder, batch_size: int, levels: np.ndarray, temperature: float
) -> list["CompiledEngine"]:
    """One engine per GPU, or one on the processor if there is no GPU.

    The arguments are those of `CompiledEngine`, for the whole batch.

    Returns:
      Engines with equal numbers of clips, together batch_size or slightly more.
    """
    devices = tf.config.list_logical_devices("GPU")[:batch_size]
    names = [device.name for device in devices] or [None]
    engines = []
    for name in names:
        with tf.device(name):
            share = -(-batch_size // len(names))
            engines.append(CompiledEngine(decoder, share, levels, temperature, name))
    return engines


class CompiledEngine:
    """Draws samples in a `tf.function` loop, without Python in the loop.

    A layer with dilation d looks back by multiples of d. So the contribution of its
    past taps to the next d steps is already known. It is computed every d steps in one
    product, which reads these weights, two thirds of all, once for d samples.
    """

    def __init__(
        self,
        decoder: WaveNetDecoder,
        batch_size: int,
        levels: np.ndarray,
        temperature: float,
        device: str | None = None,
    ) -> None:
        """Copies the decoder's weights into the form that the loop reads.

        Args:
          decoder: the decoder with its weights.
          batch_size: clips drawn side by side.
          levels: [256] float32, the network's input for each class.
          temperature: divides the logits; 0 takes the likeliest class.
          device: TensorFlow's name of the device; None lets TensorFlow choose.
        """
        self.config = config = decoder.config
        self.batch_size = batch_size
        self._device = device
        self._temperature = temperature
        self._rows = max(batch_size, _MIN_ROWS)
        self._weights = _LoopWeights(decoder)
        self._pasts = [
            _Past(dilation, self._rows, config, self._weights)
            for dilation in sorted(set(config.dilations))
            if config.filter_length > 1
        ]
        # The network's last inputs, oldest first: zeros before the first sample.
        self._inputs = tf.Variable(tf.zeros([self._rows, config.filter_length]))
        self._levels = tf.constant(levels)
        self._draw = tf.function(
            self._draw_block,
            input_signature=[
                tf.TensorSpec([None, self._rows, config.ae_bottleneck_width]),
                tf.TensorSpec([None, self._rows], tf.float64),
                tf.TensorSpec([], tf.int64),
            ],
        )

    def reset(self) -> None:
        """Forgets the past."""
        for past in self._pasts:
            past.reset()
        self._inputs.assign(tf.zeros_like(self._inputs))

    def draw(
        self, encoding: np.ndarray, uniforms: np.ndarray, start: int
    ) -> np.ndarray:
        """Draws the next samples; arguments and result are `StepwiseDecoder`'s."""
        padding = (0, self._rows - self.batch_size)
        with tf.device(self._device):
            classes = self._draw(
                np.pad(encoding, [(0, 0), padding, (0, 0)]),
                np.pad(uniforms, [(0, 0), padding]),
                np.int64(start),
            )
        return classes.numpy()[:, : self.batch_size]

    def _draw_block(
        self, encoding: tf.Tensor, uniforms: tf.Tensor, start: tf.Tensor
    ) -> tf.Tensor:
        """`draw` for all rows, the padded ones included."""
        hop, count = self.config.ae_hop_length, tf.shape(uniforms)[0]
        layer_conditions = tf.einsum("fbz,lzc->flbc", encoding, self._weights.cond)
        layer_conditions += self._weights.gate_bias
        negated = -layer_conditions
        out_conditions = encoding @ self._weights.cond_out + self._weights.out_bias

        def step(i: tf.Tensor, inputs: tf.Tensor, classes: tf.TensorArray) -> Any:
            now = start + tf.cast(i, tf.int64)
            frame = now // hop - start // hop
            logits = self._logits(inputs, now, negated[frame], out_conditions[frame])
            drawn = self._sample(logits, uniforms[i])
            newest = tf.gather(self._levels, drawn)[:, None]
            inputs = tf.concat([inputs[:, 1:], newest], axis=1)
            return i + 1, inputs, classes.write(i, drawn)

        classes = tf.TensorArray(tf.int32, count, element_shape=[self._rows])
        state = (tf.constant(0), self._inputs.read_value(), classes)
        _, inputs, classes = tf.while_loop(
            lambda i, *_: i < count, step, state, maximum_iterations=count
        )
        self._inputs.assign(inputs)
        return classes.stack()

    def _logits(
        self,
        inputs: tf.Tensor,
        now: tf.Tensor,
        negated_conditions: tf.Tensor,
        out_condition: tf.Tensor,
    ) -> tf.Tensor:
        """One step of the network: [rows, filter_length] -> [rows, 256].

        In sums of several tensors all additions but one are written as subtractions.
        TensorFlow merges a chain of additions into one sum, in the order in which its
        parts happen to be ready. Its last bit, and so sooner or later a draw, would
        vary from run to run.
        """
        w, config = self._weights, self.config
        from_past = {}
        for past in self._pasts:
            from_past.update(past.contributions(now))
        l = inputs @ w.start + w.start_bias  # noqa: E741
        negated_s = -(l @ w.skip_start + w.skip_start_bias)
        layer_inputs = []
        for i, negated in enumerate(tf.unstack(negated_conditions)):
            layer_inputs.append(l)
            d = l @ w.newest_tap[i]
            if i in from_past:
                d += from_past[i]
            gate, value = tf.split(d - negated, 2, axis=1)
            d = tf.sigmoid(gate) * tf.tanh(value)
            outputs = tf.nn.bias_add(d @ w.outputs[i], w.outputs_bias[i])
            residual, skip = tf.split(outputs, [config.width, config.skip_width], 1)
            l = l + residual  # noqa: E741
            negated_s = negated_s - skip
        for past in self._pasts:
            past.push(now, layer_inputs)
        s = tf.nn.relu(tf.nn.relu(-negated_s) @ w.out + out_condition)
        return s @ w.logits + w.logits_bias

    def _sample(self, logits: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """The first class whose cumulative probability reaches the uniform."""
        # If it is so small that the quotients would overflow, also the likeliest class.
        if self._temperature < 1e-30:
            return tf.argmax(logits, axis=1, output_type=tf.int32)
        if self._temperature != 1:
            logits = logits / self._temperature
        cumulative = tf.cumsum(tf.nn.softmax(logits), axis=1)
        # Compared in float64, as in NumPy; otherwise draws differ. If the sum ends
        # below 1, the uniform may exceed it, hence the minimum.
        below = tf.cast(cumulative, tf.float64) < uniforms[:, None]
        drawn = tf.reduce_sum(tf.cast(below, tf.int32), axis=1)
        return tf.minimum(drawn, NUM_CLASSES - 1)


class _LoopWeights:
    """A decoder's weights in the form that the loop multiplies with, [in, out]."""

    def __init__(self, decoder: WaveNetDecoder) -> None:
        def matrix(layer: Any) -> tf.Tensor:
            kernel = tf.cast(layer.kernel.value, tf.float32)
            # A copy on this engine's device, which may be another GPU.
            return tf.identity(tf.reshape(kernel, [-1, kernel.shape[-1]]))

        def bias(layer: Any) -> tf.Tensor:
            return tf.identity(tf.cast(layer.bias.value, tf.float32))

        pairs = list(zip(decoder.dilatedconv, decoder.cond_map, strict=True))
        outputs = list(zip(decoder.res, decoder.skip, strict=True))
        self.start, self.start_bias = matrix(decoder.startconv), bias(decoder.startconv)
        self.skip_start = matrix(decoder.skip_start)
        self.skip_start_bias = bias(decoder.skip_start)
        # By layer and tap, oldest first. The newest tap is for the current step.
        taps = [tf.unstack(tf.cast(d.kernel.value, tf.float32)) for d, _ in pairs]
        self.past_taps = [kernels[:-1] for kernels in taps]
        self.newest_tap = [kernels[-1] for kernels in taps]
        self.cond = tf.stack([matrix(cond) for _, cond in pairs])
        self.gate_bias = tf.stack([bias(d) + bias(c) for d, c in pairs])[:, None]
        self.outputs = [
            tf.concat([matrix(res), matrix(skip)], axis=1) for res, skip in outputs
        ]
        self.outputs_bias = [
            tf.concat([bias(res), bias(skip)], axis=0) for res, skip in outputs
        ]
        self.out = matrix(decoder.out1)
        self.cond_out = matrix(decoder.cond_map_out1)
        self.out_bias = bias(decoder.out1) + bias(decoder.cond_map_out1)
        self.logits, self.logits_bias = matrix(decoder.logits), bias(decoder.logits)


class _Past:
    """The past of all layers with one dilation, and its share in the steps ahead."""

    def __init__(
        self, dilation: int, rows: int, config: WaveNetConfig, weights: _LoopWeights
    ) -> None:
        self._dilation = dilation
        self._layers = [i for i, d in enumerate(config.dilations) if d == dilation]
        self._weights = [weights.past_taps[i] for i in self._layers]
        self._num_taps = config.filter_length - 1
        shape = [len(self._layers), rows]
        # The layers' inputs in the last dilation * taps steps, in a ring.
        self._ring = tf.Variable(
            tf.zeros([dilation * self._num_taps, *shape, config.width])
        )
        # Their share in the sums of the current `dilation` steps.
        self._ahead = tf.Variable(tf.zeros([dilation, *shape, 2 * config.width]))

    def reset(self) -> None:
        """Forgets the inputs. The share is computed again at step 0."""
        self._ring.assign(tf.zeros_like(self._ring))

    def contributions(self, now: tf.Tensor) -> dict[int, tf.Tensor]:
        """The past taps' share in step `now`, [rows, 2 * width] by layer."""
        place = now % self._dilation
        if self._dilation == 1:
            self._look_ahead(now)
        else:
            tf.cond(place == 0, lambda: self._look_ahead(now), lambda: False)
        shares = tf.unstack(tf.gather(self._ahead, place), num=len(self._layers))
        return dict(zip(self._layers, shares, strict=True))

    def _look_ahead(self, now: tf.Tensor) -> bool:
        """Computes the share in the next `dilation` steps."""
        d = self._dilation
        # At a multiple of d the ring, read from here, holds the taps one after the
        # other, oldest first: each tap's d inputs are for the d steps ahead.
        rows = (now + tf.range(d * self._num_taps, dtype=tf.int64)) % (
            d * self._num_taps
        )
        past = tf.gather(self._ring, rows)
        shares = []
        for layer, kernels in enumerate(self._weights):
            # One product per tap instead of one for all. With longer rows the matrix
            # library changes the order of its sums at some number of rows, and a
            # clip's samples would depend on its batch.
            taps = tf.reshape(past[:, layer], [self._num_taps, -1, past.shape[3]])
            products = [
                tap @ w for tap, w in zip(tf.unstack(taps), kernels, strict=True)
            ]
            shares.append(tf.reshape(tf.add_n(products), [d, *self._ahead.shape[2:]]))
        self._ahead.assign(tf.stack(shares, axis=1))
        return True

    def push(self, now: tf.Tensor, layer_inputs: list[tf.Tensor]) -> None:
        """Replaces the oldest inputs by the layers' inputs of step `now`."""
        newest = tf.stack([layer_inputs[i] for i in self._layers])
        row = now % (self._dilation * self._num_taps)
        self._ring.scatter_update(tf.IndexedSlices(newest[None], row[None]))
