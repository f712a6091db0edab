"""The stepwise decoder on processors, with TensorFlow Lite's packed products."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from magenta_nsynth.config import NUM_CLASSES, WaveNetConfig
from magenta_nsynth.generation.lite_graph import LiteGraph, open_model
from magenta_nsynth.models.wavenet import WaveNetDecoder

__all__ = ["PackedEngine", "num_cores", "packed_engines", "sample"]

# From this number of clips on, a core is faster with its own clips and weights.
_CLIPS_OF_A_CORE = 64
_CLIPS_OF_A_TEAM = 8  # likewise for a team of cores that share each product
# A product of this many rows runs at about the processor's full speed.
_LOOK_AHEAD_ROWS = 256
_SKIPS = 10  # layers whose skips are computed in one product
_TEAM = 4  # threads per product: more of them would wait for memory
_WORTH_A_TRIAL = 0.002  # seconds per step
_FIRST_INTERVAL, _LAST_INTERVAL = 64, 16384  # steps between trials

_Weights = tuple[np.ndarray, np.ndarray]  # a kernel [in, out] and a bias [out]


def packed_engines(
    decoder: WaveNetDecoder,
    batch_size: int,
    levels: np.ndarray,
    temperature: float,
    precision: str,
) -> list["PackedEngine"]:
    """The engines that draw a batch on this processor, side by side.

    If there are enough clips, each core draws its own and waits for no other core.
    Otherwise cores share each product, so its weights are read only once. Such an
    engine measures whether one thread or several are faster: several are faster on an
    idle machine, but many times slower on a busy one.

    Args:
      decoder: the decoder with its weights.
      batch_size: clips drawn side by side.
      levels: [256] float32, the network's input for each class.
      temperature: divides the logits; 0 takes the likeliest class.
      precision: one of `PRECISIONS`.

    Returns:
      Engines with equal numbers of clips, together batch_size or slightly more.
    """
    cores = num_cores()
    team = min(cores, _TEAM)
    if batch_size >= cores * _CLIPS_OF_A_CORE:
        count, threads = cores, {1}
    else:
        count = max(1, min(cores // team, batch_size // _CLIPS_OF_A_TEAM))
        threads = {1, team}
    models = _Models(decoder, -(-batch_size // count), precision)
    return [
        PackedEngine(models, sorted(threads), levels, temperature) for _ in range(count)
    ]


class _Models:
    """The step and the looks ahead as TensorFlow Lite models, for `rows` clips.

    A layer with dilation d looks back by multiples of d. So the contribution of its
    past taps and its condition to the next steps, up to d of them, is already known. It
    is computed ahead in one product over several steps, which reads these weights, two
    thirds of all, once for all of them. With a dilation of 1 there is only one such
    step, and the past taps are part of the step's own product.

    Attributes:
      config: the decoder's.
      rows: the number of clips.
      past_channels: channels of the past taps in the rows of `past`.
      chunks: the number of steps that each layer looks ahead; 0 if its past is part of
        the step.
      step: the model of one step.
      inputs: the number of the step's tensor for the last samples. So are the next.
      condition: for the row of the embedding.
      past: for each layer, for past taps and condition, or for a share from a look.
      layer_inputs: an output for each layer.
      logits: an output.
      looks: for each dilation (layers, steps, model, inputs, outputs).
    """

    def __init__(self, decoder: WaveNetDecoder, rows: int, precision: str) -> None:
        self.config = config = decoder.config
        self.rows = rows
        self._int8 = precision == "int8"
        self.past_channels = (config.filter_length - 1) * config.width
        most = 1  # a power of 2 that divides the hop: no look passes a frame's end
        while config.ae_hop_length % (2 * most) == 0 and (
            2 * most * rows <= _LOOK_AHEAD_ROWS
        ):
            most *= 2
        # Whether a layer looks ahead must not depend on `rows`, because the order of
        # the sums depends on it.
        self.chunks = [min(d, most) if d > 1 else 0 for d in config.dilations]
        self._past_channels_in = self.past_channels + config.ae_bottleneck_width
        past_taps, newest_taps = _split_taps(decoder)
        self.step = self._write_step(decoder, past_taps, newest_taps)
        self.looks: list[tuple[list[int], int, bytes, list[int], list[int]]] = []
        for dilation in sorted(set(config.dilations)):
            layers = [i for i, d in enumerate(config.dilations) if d == dilation]
            if self.chunks[layers[0]]:
                self.looks.append(self._write_look(layers, past_taps))

    def _write_step(
        self,
        decoder: WaveNetDecoder,
        past_taps: list[_Weights],
        newest_taps: list[np.ndarray],
    ) -> bytes:
        config, graph = self.config, LiteGraph()
        self.inputs = graph.input(self.rows, config.filter_length)
        self.condition = graph.input(self.rows, config.ae_bottleneck_width)
        self.past: list[int] = []
        self.layer_inputs: list[int] = []
        l = graph.dense(self.inputs, *_weights(decoder.startconv))  # noqa: E741
        s = graph.dense(l, *_weights(decoder.skip_start))
        gated: list[int] = []
        for i, chunk in enumerate(self.chunks):
            self.layer_inputs.append(graph.output(l))
            if chunk:
                past = share = graph.input(self.rows, 2 * config.width)
            else:
                past = graph.input(self.rows, self._past_channels_in)
                share = self._share(graph, past, past_taps[i]) if self._int8 else None
            if share is None:
                kernel, bias = past_taps[i]
                kernel = np.concatenate([kernel, newest_taps[i]])
                d = graph.dense(graph.concatenate([past, l]), kernel, bias, "clip")
            else:
                d = self._dense(graph, l, newest_taps[i])
                d = graph.add(d, share, "clip")
            self.past.append(past)
            d = _gate(graph, d)
            gated.append(d)
            if len(gated) == _SKIPS or i + 1 == config.num_layers:
                skips = [_weights(k) for k in decoder.skip[i + 1 - len(gated) : i + 1]]
                kernel = _GATED * np.concatenate([kernel for kernel, _ in skips])
                bias = np.sum([bias for _, bias in skips], axis=0)
                skip = self._dense(graph, graph.concatenate(gated), kernel, bias)
                s = graph.add(s, skip)
                gated = []
            if i + 1 < config.num_layers:  # nothing uses the last residual
                kernel, bias = _weights(decoder.res[i])
                residual = self._dense(graph, d, _GATED * kernel, bias)
                l = graph.add(l, residual)  # noqa: E741
        kernel, bias = _join(decoder.out1, decoder.cond_map_out1)
        s = graph.concatenate([graph.relu(s), self.condition])
        s = graph.dense(s, kernel, bias, "relu")
        self.logits = graph.output(graph.dense(s, *_weights(decoder.logits)))
        return graph.write()

    def _write_look(
        self, layers: list[int], past_taps: list[_Weights]
    ) -> tuple[list[int], int, bytes, list[int], list[int]]:
        graph, steps = LiteGraph(), self.chunks[layers[0]]
        inputs = [
            graph.input(steps * self.rows, self._past_channels_in) for _ in layers
        ]
        outputs = [
            graph.output(self._share(graph, x, past_taps[i]))
            for x, i in zip(inputs, layers, strict=True)
        ]
        return layers, steps, graph.write(), inputs, outputs

    def _share(self, graph: LiteGraph, x: int, weights: _Weights) -> int:
        """The contribution of past taps and condition, from rows of `past`."""
        if not self._int8:
            return graph.dense(x, *weights)
        # Each with its own range: together they cost ten times as much in the loss.
        (kernel, bias), taps = weights, self.past_channels
        condition = graph.channels(x, taps, self.config.ae_bottleneck_width)
        condition = graph.dense(condition, kernel[taps:], bias)
        if not taps:
            return condition
        past = graph.channels(x, 0, taps)
        return graph.add(condition, self._dense(graph, past, kernel[:taps]))

    def _dense(
        self,
        graph: LiteGraph,
        x: int,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
    ) -> int:
        """A product whose weights are kept with the engine's precision."""
        return graph.dense(x, kernel, bias, int8=self._int8)


# tanh(y) by the eighth convergent of Lambert's continued fraction, as polynomials in y
# squared whose coefficients are exact in float32. It is accurate for |y| up to 8.
_NUMERATOR = [2027025.0, 270270.0, 6930.0, 36.0]
_DENOMINATOR = [2027025.0, 945945.0, 51975.0, 630.0, 1.0]
_REACH = 8
# Factors on a layer's sums for the gate and for the value, and on their product. They
# are powers of two, so that the weights can be scaled without rounding.
_GATE, _VALUE = np.float32(1 / (4 * _REACH)), np.float32(1 / (2 * _REACH))
_GATED = np.float32(1 / 2)


def _gate(graph: LiteGraph, v: int) -> int:
    """2 * sigmoid(a) * tanh(b) for v = [a / 32, b / 16], which is clipped to -1..1.

    It consists of sums, products and quotients, which every processor rounds alike.
    TensorFlow Lite's own sigmoid and tanh are approximations that depend on the
    processor. sigmoid(a) is (1 + tanh(a / 2)) / 2, and tanh(2 y) is 2 t / (1 + t * t)
    where t = tanh(y). The largest error of tanh is 1.6e-7.
    """
    top = _DENOMINATOR[-1] * _REACH ** (2 * len(_DENOMINATOR) - 2)
    above = [c * _REACH ** (2 * k + 1) / top for k, c in enumerate(_NUMERATOR)]
    below = [c * _REACH ** (2 * k) / top for k, c in enumerate(_DENOMINATOR)]
    w = graph.multiply(v, v)
    t = graph.multiply(w, above[-1])
    for c in above[-2:0:-1]:
        t = graph.multiply(graph.add(t, c), w)
    t = graph.multiply(graph.add(t, above[0]), v)
    q = graph.add(w, below[-2])
    for c in below[-3::-1]:
        q = graph.add(graph.multiply(q, w), c)
    t = graph.divide(t, q)
    t = graph.divide(graph.add(t, t), graph.add(graph.multiply(t, t), 1.0))
    gate, value = graph.halves(t)
    return graph.multiply(graph.add(gate, 1.0), value)


def _weights(layer: Any) -> _Weights:
    """A convolution's kernel as [taps * in, out], and its bias."""
    kernel = np.asarray(layer.kernel, np.float32)
    return kernel.reshape(-1, kernel.shape[-1]), np.asarray(layer.bias, np.float32)


def _join(layer: Any, condition: Any) -> _Weights:
    """The weights for one product that computes a layer plus its condition."""
    (kernel, bias), (other, more) = _weights(layer), _weights(condition)
    return np.concatenate([kernel, other]), bias + more


def _split_taps(decoder: WaveNetDecoder) -> tuple[list[_Weights], list[np.ndarray]]:
    """Splits each layer's weights, scaled for `_gate`.

    Returns:
      For each layer the past taps, oldest first, with condition and bias; and for each
      layer the newest tap.
    """
    past, newest, width = [], [], decoder.config.width
    gate_scale = np.repeat([_GATE, _VALUE], width)
    for dilated, condition in zip(decoder.dilatedconv, decoder.cond_map, strict=True):
        kernel, bias = _join(dilated, condition)
        kernel, bias = kernel * gate_scale, bias * gate_scale
        last = (decoder.config.filter_length - 1) * width
        newest.append(kernel[last : last + width])
        past.append((np.delete(kernel, np.s_[last : last + width], axis=0), bias))
    return past, newest


class _Network:
    """The models, opened with a number of threads per product.

    Every tensor is a function that returns it as an array. The array must be released
    before the model runs again.
    """

    def __init__(self, models: _Models, num_threads: int) -> None:
        self._step = open_model(models.step, num_threads)
        tensor = self._step.tensor
        self.inputs, self.condition = tensor(models.inputs), tensor(models.condition)
        self.past = [tensor(number) for number in models.past]
        self.layer_inputs = [tensor(number) for number in models.layer_inputs]
        self.logits = tensor(models.logits)
        self.run = self._step.invoke
        self.looks = []
        for layers, steps, model, inputs, outputs in models.looks:
            look = open_model(model, num_threads)
            tensors = [
                (layer, look.tensor(x), look.tensor(y))
                for layer, x, y in zip(layers, inputs, outputs, strict=True)
            ]
            self.looks.append((steps, tensors, look.invoke))


class PackedEngine:
    """Draws some clips, and keeps their past.

    Each row of a product is summed by one thread, in an order that does not depend on
    the other rows. So samples depend neither on the batch nor on the threads.

    Attributes:
      batch_size: the number of clips.
    """

    def __init__(
        self,
        models: _Models,
        thread_counts: list[int],
        levels: np.ndarray,
        temperature: float,
    ) -> None:
        """Packs the weights, once for each number of threads.

        Args:
          models: for this number of clips; several engines may share them.
          thread_counts: threads per product; the fastest is found by measuring.
          levels: as for `packed_engines`.
          temperature: as for `packed_engines`.
        """
        self.batch_size = models.rows
        self._config: WaveNetConfig = models.config
        self._rows = models.rows
        self._num_taps = self._config.filter_length - 1
        self._past_channels = models.past_channels
        self._chunks = models.chunks
        self._networks = [_Network(models, count) for count in thread_counts]
        self._contest = _Contest(len(thread_counts))
        self._levels = levels
        self._temperature = temperature
        # The shares computed ahead, by layer: outputs of the network that did it.
        self._ahead: dict[int, Callable[[], np.ndarray]] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets the past."""
        config = self._config
        # The network's last inputs, oldest first: zeros before the first sample.
        self._inputs = np.zeros([self._rows, config.filter_length], np.float32)
        # Each layer's inputs in the last dilation * taps steps, in a ring.
        self._rings = [
            np.zeros([self._num_taps * d * self._rows, config.width], np.float32)
            for d in config.dilations
        ]

    def draw(
        self, encoding: np.ndarray, uniforms: np.ndarray, start: int
    ) -> np.ndarray:
        """Draws the next samples; arguments and result are `StepwiseDecoder`'s."""
        hop = self._config.ae_hop_length
        classes = np.empty(uniforms.shape, np.int32)
        for step, u in enumerate(uniforms):
            now = start + step
            way = self._contest.next()
            network = self._networks[way]
            condition = encoding[now // hop - start // hop]
            self._look_ahead(network, now, condition)
            self._set_inputs(network, now, condition)
            begin = time.perf_counter()
            network.run()
            self._contest.note(way, time.perf_counter() - begin)
            self._keep(network, now)
            drawn = sample(network.logits(), u, self._temperature)
            self._inputs[:, :-1] = self._inputs[:, 1:]
            self._inputs[:, -1] = self._levels[drawn]
            classes[step] = drawn
        return classes

    def _look_ahead(self, network: _Network, now: int, condition: np.ndarray) -> None:
        """Computes the past taps' shares in the steps ahead, where they are due."""
        for steps, tensors, run in network.looks:
            if now % steps == 0:
                for layer, inputs, outputs in tensors:
                    self._set_past(inputs(), layer, now, condition)
                    self._ahead[layer] = outputs
                run()

    def _set_inputs(self, network: _Network, now: int, condition: np.ndarray) -> None:
        network.inputs()[:] = self._inputs
        network.condition()[:] = condition
        for layer, steps in enumerate(self._chunks):
            if steps:
                row = now % steps * self._rows
                network.past[layer]()[:] = self._ahead[layer]()[row : row + self._rows]
            else:
                self._set_past(network.past[layer](), layer, now, condition)

    def _set_past(
        self, x: np.ndarray, layer: int, now: int, condition: np.ndarray
    ) -> None:
        """Fills in a layer's past taps and its condition, for the steps from `now` on.

        Args:
          x: [steps * rows, taps * width + bottleneck]; overwritten.
          layer: the layer's index.
          now: the first step.
          condition: [rows, bottleneck].
        """
        width, dilation = self._config.width, self._config.dilations[layer]
        ring = self._rings[layer]
        for tap in range(self._num_taps):
            row = (now + tap * dilation) * self._rows % len(ring)
            x[:, tap * width : (tap + 1) * width] = ring[row : row + len(x)]
        x = x.reshape(-1, self._rows, x.shape[1])
        x[:, :, self._past_channels :] = condition

    def _keep(self, network: _Network, now: int) -> None:
        """Replaces the oldest inputs by the layers' inputs of step `now`."""
        if self._num_taps:
            for ring, layer_input in zip(
                self._rings, network.layer_inputs, strict=True
            ):
                row = now * self._rows % len(ring)
                ring[row : row + self._rows] = layer_input()


def sample(logits: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
    """The first class whose cumulative probability reaches the uniform.

    Args:
      logits: [rows, 256] float32.
      uniforms: [rows] float64 in [0, 1).
      temperature: as for `packed_engines`.

    Returns:
      [rows] whole numbers in 0..255.
    """
    # If it is so small that the quotients would overflow, also the likeliest class.
    if temperature < 1e-30:
        return logits.argmax(axis=1)
    if temperature != 1:
        logits = logits / np.float32(temperature)
    # Rounded from float64, because NumPy's float32 exp depends on the processor.
    p = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    p = np.exp(p).astype(np.float32)
    p *= 1 / p.sum(axis=1, keepdims=True)
    # Summed in float32 and compared in float64; otherwise draws differ from the
    # original's. If the sum ends below 1, the uniform may exceed it, hence the minimum.
    below = p.cumsum(axis=1) < uniforms[:, None]
    return np.minimum(below.sum(axis=1), NUM_CLASSES - 1)


class _Contest:
    """Finds the fastest of several ways, and tries the slower ones now and then.

    A trial is one step. The interval between trials grows while they are lost: on a
    busy machine a step with several threads can take a second.
    """

    def __init__(self, count: int) -> None:
        self._seconds: list[float | None] = [None] * count
        self._interval = _FIRST_INTERVAL
        self._left = 2  # steps until the next trial; the first two only warm up

    def next(self) -> int:
        """The way to take in this step; at first, way 0."""
        tried = [s for s in self._seconds if s is not None]
        if not tried:
            return 0
        if self._left == 0 and min(tried) > _WORTH_A_TRIAL:
            untried = [i for i, s in enumerate(self._seconds) if s is None]
            return untried[0] if untried else self._seconds.index(max(tried))
        return self._seconds.index(min(tried))

    def note(self, number: int, seconds: float) -> None:
        """Records how long a step took."""
        if self._left:
            self._left -= 1
            before = self._seconds[number]
            if before is not None:
                seconds = 0.9 * before + 0.1 * seconds
            self._seconds[number] = seconds
            return
        self._seconds[number] = seconds
        won = self._seconds[number] == min(s for s in self._seconds if s is not None)
        self._interval = (
            _FIRST_INTERVAL if won else min(4 * self._interval, _LAST_INTERVAL)
        )
        self._left = self._interval


def num_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
