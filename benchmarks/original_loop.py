"""The generation loop that NSynth shipped, as a yardstick for ours.

It is a graph in a TF1 session that generates one sample per call: the host feeds the
previous sample and the frame's embedding, fetches 256 probabilities, and draws a class.
Each layer keeps its past in FIFO queues, and slices its taps from the kernel at every
step. This module is not meant to be fast; it is only for timing and checking:

    python benchmarks/original_loop.py --batch_sizes 1,8,32
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import H512_BO16, NUM_CLASSES, WaveNetConfig
from magenta_nsynth.errors import InputError

__all__ = ["OriginalLoop", "random_weights"]

tf1 = tf.compat.v1
HALF = NUM_CLASSES // 2
MU = NUM_CLASSES - 1


def _conv_shapes(config: WaveNetConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields (TF1 scope, kernel shape) for each decoder convolution in use."""
    width, skip, code = config.width, config.skip_width, config.ae_bottleneck_width
    yield "startconv", (1, config.filter_length, 1, width)
    yield "skip_start", (1, 1, width, skip)
    for layer in range(1, config.num_layers + 1):
        yield f"dilatedconv_{layer}", (1, config.filter_length, width, 2 * width)
        yield f"cond_map_{layer}", (1, 1, code, 2 * width)
        yield f"skip_{layer}", (1, 1, width, skip)
        if layer < config.num_layers:  # nothing reads the last residual
            yield f"res_{layer}", (1, 1, width, width)
    yield "out1", (1, 1, skip, skip)
    yield "cond_map_out1", (1, 1, code, skip)
    yield "logits", (1, 1, skip, NUM_CLASSES)


def random_weights(config: WaveNetConfig, seed: int) -> dict[str, np.ndarray]:
    """Returns weights that keep activations in a sensible range, for timing.

    Args:
      config: the model's shape.
      seed: seed of the random numbers.

    Returns:
      TF1 variable name -> float32 array, for each decoder tensor in use.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for scope, shape in _conv_shapes(config):
        limit = 0.8 * np.sqrt(3.0 / np.prod(shape[:-1]))
        kernel = limit * rng.uniform(-1.0, 1.0, shape)
        weights[f"{scope}/W"] = kernel.astype(np.float32)
        biases = rng.uniform(-0.05, 0.05, shape[-1:])
        weights[f"{scope}/biases"] = biases.astype(np.float32)
    return weights


class OriginalLoop:
    """A WaveNet decoder run the way NSynth ran it, one session call per sample.

    It has its own graph and session, so that a TensorFlow 2 process can use it beside
    other models.

    Source: NSynth, fastgen.synthesize. Differs: rewritten from its description; the
    uniforms are an argument; a drawn class is at most 255 (in the original, rounding
    can give 256); any widths, depth and filter length.
    """

    def __init__(
        self, config: WaveNetConfig, weights: dict[str, np.ndarray], batch_size: int
    ) -> None:
        """Builds the graph, loads the weights and fills the queues with silence.

        Args:
          config: the model's shape. Its inputs must be mu-law (rescale_inputs).
          weights: TF1 variable name -> array. Unused names are ignored.
          batch_size: clips generated side by side.

        Raises:
          InputError: a weight is missing or has another shape, or the configuration
            has linear inputs.
        """
        if not config.rescale_inputs:
            raise InputError("OriginalLoop needs rescale_inputs=True; got False.")
        self._config = config
        self._batch_size = batch_size
        self._variables: dict[str, tf1.Variable] = {}
        self._fill_ops: list[tf.Operation] = []
        self._reset_ops: list[tf.Operation] = []
        self._push_ops: list[tf.Operation] = []
        # As in the original: the first GPU, if any, for all operations it supports.
        options = tf1.ConfigProto(allow_soft_placement=True)
        options.gpu_options.allow_growth = True
        device = "/gpu:0" if tf.config.list_physical_devices("GPU") else None
        with tf.Graph().as_default() as graph, tf.device(device):
            self._add_variables()
            self._add_network()
        self._session = tf1.Session(graph=graph, config=options)
        self._load(weights)
        self._session.run(self._fill_ops)

    def close(self) -> None:
        """Frees the session and its copy of the weights."""
        self._session.close()

    def reset(self) -> None:
        """Resets the past to silence."""
        self._session.run(self._reset_ops)

    def step(
        self, audio: np.ndarray, encoding: np.ndarray, uniforms: np.ndarray
    ) -> np.ndarray:
        """Generates the next sample of each clip.

        Args:
          audio: [b, 1] float in [-1, 1], the previous samples (0 at the start).
          encoding: [b, ae_bottleneck_width] float, the embedding of the next sample's
            frame.
          uniforms: [b] float64 in [0, 1), one draw per clip.

        Returns:
          [b, 1] float32 in (-1, 1), the next samples.
        """
        probabilities, _ = self._session.run(
            [self._probabilities, self._push_ops],
            feed_dict={self._audio: audio, self._encoding: encoding},
        )
        cumulative = np.cumsum(probabilities, axis=1)
        drawn = [
            min(int(np.searchsorted(row, uniform)), NUM_CLASSES - 1)
            for row, uniform in zip(cumulative, uniforms, strict=True)
        ]
        return _decode(np.asarray(drawn)[:, np.newaxis] - HALF)

    def generate(self, encodings: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Generates clips from silence.

        Args:
          encodings: [b, frames, ae_bottleneck_width] float.
          uniforms: [b, n] float64 in [0, 1), n at most frames * ae_hop_length.

        Returns:
          [b, n] float32 in (-1, 1) at 16 kHz.

        Raises:
          InputError: more samples are requested than the frames represent.
        """
        num_samples = uniforms.shape[1]
        most = self._config.num_samples(encodings.shape[1])
        if num_samples > most:
            raise InputError(
                f"{encodings.shape[1]} frames represent {most} samples; "
                f"got uniforms for {num_samples}."
            )
        self.reset()
        audio = np.zeros([self._batch_size, num_samples], np.float32)
        last = np.zeros([self._batch_size, 1], np.float32)
        for n in range(num_samples):
            frame = n // self._config.ae_hop_length
            last = self.step(last, encodings[:, frame], uniforms[:, n])
            audio[:, n] = last[:, 0]
        return audio

    def _add_variables(self) -> None:
        for scope, shape in _conv_shapes(self._config):
            for part, part_shape in (("W", shape), ("biases", shape[-1:])):
                name = f"{scope}/{part}"
                self._variables[name] = tf1.get_variable(
                    name,
                    part_shape,
                    tf.float32,
                    tf1.zeros_initializer(),
                    use_resource=False,
                )

    def _load(self, weights: dict[str, np.ndarray]) -> None:
        for name, variable in self._variables.items():
            wanted = tuple(variable.shape.as_list())
            found = np.shape(weights[name]) if name in weights else None
            if found != wanted:
                raise InputError(f"{name}: need shape {wanted}, got {found}.")
            self._session.run(
                variable.initializer, {variable.initial_value: weights[name]}
            )

    def _add_network(self) -> None:
        config, batch_size = self._config, self._batch_size
        self._audio = tf1.placeholder(tf.float32, [batch_size, 1])
        self._encoding = tf1.placeholder(
            tf.float32, [batch_size, config.ae_bottleneck_width]
        )
        companded = tf.math.log1p(MU * tf.abs(self._audio)) / np.log1p(MU)
        quantized = tf.floor(HALF * tf.sign(self._audio) * companded)

        stream = self._dilated("startconv", quantized / HALF, 1)
        skip = self._pointwise("skip_start", stream)
        for layer, dilation in enumerate(config.dilations, start=1):
            both = self._dilated(f"dilatedconv_{layer}", stream, dilation)
            both += self._pointwise(f"cond_map_{layer}", self._encoding)
            gate, signal = both[:, : config.width], both[:, config.width :]
            gated = tf.sigmoid(gate) * tf.tanh(signal)
            skip += self._pointwise(f"skip_{layer}", gated)
            if layer < config.num_layers:
                stream += self._pointwise(f"res_{layer}", gated)
        hidden = self._pointwise("out1", tf.nn.relu(skip))
        hidden += self._pointwise("cond_map_out1", self._encoding)
        logits = self._pointwise("logits", tf.nn.relu(hidden))
        self._probabilities = tf.nn.softmax(logits)

    def _pointwise(self, scope: str, x: tf.Tensor) -> tf.Tensor:
        """A convolution with one tap: [b, in] to [b, out]."""
        kernel = self._variables[f"{scope}/W"][0, 0]
        return tf.nn.bias_add(x @ kernel, self._variables[f"{scope}/biases"])

    def _dilated(self, scope: str, x: tf.Tensor, dilation: int) -> tf.Tensor:
        """A causal convolution whose older taps come from a chain of delays."""
        kernel = self._variables[f"{scope}/W"]
        num_taps = int(kernel.shape[1])
        total = x @ kernel[0, num_taps - 1]
        for tap in reversed(range(num_taps - 1)):
            x = self._delay(x, dilation)
            total += x @ kernel[0, tap]
        return tf.nn.bias_add(total, self._variables[f"{scope}/biases"])

    def _delay(self, x: tf.Tensor, num_steps: int) -> tf.Tensor:
        """The value of `x` `num_steps` steps ago, from a queue that is always full."""
        queue = tf.queue.FIFOQueue(num_steps, [tf.float32], [x.shape])
        silence = tf.zeros([num_steps, *x.shape])
        self._fill_ops.append(queue.enqueue_many(silence))
        with tf.control_dependencies([queue.dequeue_many(num_steps)]):
            self._reset_ops.append(queue.enqueue_many(silence))
        past = queue.dequeue()
        self._push_ops.append(queue.enqueue(x))
        return past


def _decode(quantized: np.ndarray) -> np.ndarray:
    """Converts integers in [-128, 127] to float32 samples; 0 is exact silence."""
    level = (quantized.astype(np.float32) + 0.5) / HALF
    audio = np.sign(level) / MU * (float(NUM_CLASSES) ** np.abs(level) - 1.0)
    return np.where(quantized == 0, 0.0, audio).astype(np.float32)


def milliseconds_per_step(
    config: WaveNetConfig,
    weights: dict[str, np.ndarray],
    batch_size: int,
    num_chunks: int,
    steps_per_chunk: int,
) -> float:
    """Times `OriginalLoop.generate`, after one warm-up chunk.

    Returns:
      The median over the chunks, in milliseconds per step of the whole batch.
    """
    rng = np.random.default_rng(0)
    frames = -(-steps_per_chunk // config.ae_hop_length)
    encodings = rng.standard_normal([batch_size, frames, config.ae_bottleneck_width])
    loop = OriginalLoop(config, weights, batch_size)
    times = []
    for _ in range(num_chunks + 1):
        uniforms = rng.uniform(size=[batch_size, steps_per_chunk])
        start = time.perf_counter()
        loop.generate(encodings, uniforms)
        times.append((time.perf_counter() - start) * 1e3 / steps_per_chunk)
    loop.close()
    return statistics.median(times[1:])


def main() -> None:
    """Prints the time per step at each batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_sizes", default="1,8,32", help="separated by commas")
    parser.add_argument("--num_chunks", type=int, default=7)
    parser.add_argument("--steps_per_chunk", type=int, default=20)
    args = parser.parse_args()
    weights = random_weights(H512_BO16, seed=0)
    for batch_size in map(int, args.batch_sizes.split(",")):
        ms = milliseconds_per_step(
            H512_BO16, weights, batch_size, args.num_chunks, args.steps_per_chunk
        )
        rate = 1e3 * batch_size / ms
        print(f"batch {batch_size:3d}: {ms:7.2f} ms per step, {rate:6.1f} samples/s")


if __name__ == "__main__":
    main()
