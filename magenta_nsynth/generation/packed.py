"""The stepwise decoder on processors, with TensorFlow Lite's packed products."""

import functools
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

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
_CLEARLY = 1.1  # times as slow
_TRIAL_STEPS = 4  # the first of them warms up
_FIRST_INTERVAL, _LAST_INTERVAL = 16, 16384  # steps between trials

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
      precision: of the layers' weights, one of `PRECISIONS`.

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
    """The decoder as TensorFlow Lite models, for `rows` clips.

    A layer with dilation d looks back by multiples of d. So the contribution of its
    past taps to the next steps, up to d of them, is already known. It is computed ahead
    in one product over several steps, which reads these weights, two thirds of all,
    once for all of them. With a dilation of 1 there is only one such step, and the past
    taps are part of the step's own product.

    Attributes:
      config: the decoder's.
      rows: the number of clips.
      chunks: the number of steps that each layer looks ahead; 0 if its past is part of
        the step.
      step: the model of one step.
      inputs: the number of the step's tensor for the last samples. So are the next.
      condition: for the row of the embedding.
      past: for each layer, for the past taps of one that does not look ahead, or None.
      shares: for each layer, for what the embedding and a look add to its sums.
      layer_inputs: an output for each layer.
      logits: an output.
      conditions: what the embedding adds, for all layers: a model of one input and
        one output.
      looks: one for each dilation.
    """

    def __init__(self, decoder: WaveNetDecoder, rows: int, precision: str) -> None:
        self.config = config = decoder.config
        self.rows = rows
        self._int8 = precision == "int8"
        self._scale = _Scale(1, 1, 1) if self._int8 else _EXACT_SCALE
        most = 1  # a power of 2, as dilations are
        while 2 * most * rows <= _LOOK_AHEAD_ROWS:
            most *= 2
        # Whether a layer looks ahead must not depend on `rows`, because the order of
        # the sums depends on it.
        has_past = config.filter_length > 1
        self.chunks = [
            min(d, most) if d > 1 and has_past else 0 for d in config.dilations
        ]
        layers = [
            _Layer.of(dilated, condition, self._scale)
            for dilated, condition in zip(
                decoder.dilatedconv, decoder.cond_map, strict=True
            )
        ]
        self.step = self._write_step(decoder, layers)
        self.conditions = self._write_conditions(layers)
        self.looks: list[_Look] = []
        for dilation in sorted(set(config.dilations)):
            numbers = [i for i, d in enumerate(config.dilations) if d == dilation]
            if self.chunks[numbers[0]]:
                self.looks.append(self._write_look(numbers, layers))

    def _write_step(self, decoder: WaveNetDecoder, layers: list["_Layer"]) -> bytes:
        config, graph = self.config, LiteGraph()
        self.inputs = graph.input(self.rows, config.filter_length)
        self.condition = graph.input(self.rows, config.ae_bottleneck_width)
        self.past: list[int | None] = []
        self.shares: list[int] = []
        self.layer_inputs: list[int] = []
        l = graph.dense(self.inputs, *_weights(decoder.startconv))  # noqa: E741
        s = graph.dense(l, *_weights(decoder.skip_start))
        gated: list[int] = []
        for i, layer in enumerate(layers):
            self.layer_inputs.append(graph.output(l))
            d = self._gate(graph, self._sums(graph, i, layer, l))
            gated.append(d)
            if len(gated) == _SKIPS or i + 1 == config.num_layers:
                skips = [_weights(k) for k in decoder.skip[i + 1 - len(gated) : i + 1]]
                kernel = self._scale.gated * np.concatenate([k for k, _ in skips])
                bias = np.sum([bias for _, bias in skips], axis=0)
                # Never in 8 bits: half of what they cost the loss was here.
                s = graph.add(s, graph.dense(graph.concatenate(gated), kernel, bias))
                gated = []
            if i + 1 < config.num_layers:  # nothing uses the last residual
                kernel, bias = _weights(decoder.res[i])
                kernel = self._scale.gated * kernel
                l = graph.add(l, graph.dense(d, kernel, bias, int8=self._int8))  # noqa: E741
        kernel, bias = _join(decoder.out1, decoder.cond_map_out1)
        s = graph.concatenate([graph.relu(s), self.condition])
        s = graph.dense(s, kernel, bias, "relu")
        self.logits = graph.output(graph.dense(s, *_weights(decoder.logits)))
        return graph.write()

    def _sums(self, graph: LiteGraph, number: int, layer: "_Layer", x: int) -> int:
        """A layer's sums [rows, 2 * width], ready for `_gate`."""
        kernel, past = layer.newest, None
        if not self.chunks[number] and len(layer.past):
            past = graph.input(self.rows, len(layer.past))
            x = graph.concatenate([past, x])
            kernel = np.concatenate([layer.past, layer.newest])
        share = graph.input(self.rows, 2 * self.config.width)
        self.past.append(past)
        self.shares.append(share)
        # The first layer's input is little more than the last samples, in which 8 bits
        # are missed most.
        sums = graph.dense(x, kernel, layer.bias, int8=self._int8 and number > 0)
        return graph.add(sums, share, "none" if self._int8 else "clip")

    def _gate(self, graph: LiteGraph, sums: int) -> int:
        if not self._int8:
            return _gate(graph, sums)
        gate, value = graph.halves(sums)
        return graph.multiply(graph.sigmoid(gate), graph.tanh(value))

    def _write_conditions(self, layers: list["_Layer"]) -> tuple[bytes, int, int]:
        graph = LiteGraph()
        embedding = graph.input(self.rows, self.config.ae_bottleneck_width)
        kernel = np.concatenate([layer.condition for layer in layers], axis=1)
        output = graph.output(graph.dense(embedding, kernel))
        return graph.write(), embedding, output

    def _write_look(self, numbers: list[int], layers: list["_Layer"]) -> "_Look":
        graph, steps = LiteGraph(), self.chunks[numbers[0]]
        kernels = [layers[i].past for i in numbers]
        inputs = [graph.input(steps * self.rows, len(kernel)) for kernel in kernels]
        outputs = [
            graph.output(graph.dense(x, kernel, int8=self._int8))
            for x, kernel in zip(inputs, kernels, strict=True)
        ]
        return _Look(numbers, steps, graph.write(), inputs, outputs)


class _Look(NamedTuple):
    """What the past taps of some layers add to the next steps, as a model."""

    layers: list[int]
    steps: int
    model: bytes
    inputs: list[int]
    outputs: list[int]


class _Layer(NamedTuple):
    """A layer's weights, [in, out] and [out], scaled for its gate.

    The kernels are for the past taps, oldest first, for the newest tap and for the
    embedding, whose bias is in the layer's.
    """

    past: np.ndarray
    newest: np.ndarray
    condition: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, dilated: Any, condition: Any, scale: "_Scale") -> "_Layer":
        """The weights of a dilated convolution and of its condition."""
        (kernel, bias), (other, more) = _weights(dilated), _weights(condition)
        width = kernel.shape[1] // 2
        factors = np.repeat(np.array([scale.gate, scale.value], np.float32), width)
        kernel, newest = kernel * factors, len(kernel) - width
        bias = (bias + more) * factors
        return cls(kernel[:newest], kernel[newest:], other * factors, bias)


class _Scale(NamedTuple):
    """Factors on a layer's sums for the gate and for the value, and on their product.

    They are powers of two, so that the weights can be scaled without rounding.
    """

    gate: float
    value: float
    gated: float


# tanh(y) by the eighth convergent of Lambert's continued fraction, as polynomials in y
# squared whose coefficients are exact in float32. It is accurate for |y| up to 8.
_NUMERATOR = [2027025.0, 270270.0, 6930.0, 36.0]
_DENOMINATOR = [2027025.0, 945945.0, 51975.0, 630.0, 1.0]
_REACH = 8
_EXACT_SCALE = _Scale(1 / (4 * _REACH), 1 / (2 * _REACH), 1 / 2)


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


class _Network:
    """The models, opened with a number of threads per product.

    Every tensor is a function that returns it as an array. The array must be released
    before the model runs again.
    """

    def __init__(self, models: _Models, num_threads: int) -> None:
        self._step = open_model(models.step, num_threads)
        tensor = self._step.tensor
        self.inputs, self.condition = tensor(models.inputs), tensor(models.condition)
        self.past = [None if n is None else tensor(n) for n in models.past]
        self.shares = [tensor(number) for number in models.shares]
        self.layer_inputs = [tensor(number) for number in models.layer_inputs]
        self.logits = tensor(models.logits)
        self.run = self._step.invoke
        self.looks = []
        for look in models.looks:
            model = open_model(look.model, num_threads)
            tensors = [
                (layer, model.tensor(x), model.tensor(y))
                for layer, x, y in zip(
                    look.layers, look.inputs, look.outputs, strict=True
                )
            ]
            self.looks.append((look.steps, tensors, model.invoke))


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
        """Packs the weights.

        Args:
          models: for this number of clips; several engines may share them.
          thread_counts: threads per product, one or two possible numbers. The faster is
            found by measuring.
          levels: as for `packed_engines`.
          temperature: as for `packed_engines`.
        """
        self.batch_size = models.rows
        self._models = models
        self._config: WaveNetConfig = models.config
        self._rows = models.rows
        self._num_taps = self._config.filter_length - 1
        self._thread_counts = thread_counts
        self._contest = _Contest(len(thread_counts))
        self._way = self._contest.way
        self._network = _Network(models, thread_counts[self._way])
        self._conditions_model = open_model(models.conditions[0], 1)
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
            if step == 0 or now % hop == 0:
                self._set_conditions(encoding[now // hop - start // hop])
            if self._way != self._contest.way:
                self._reopen()
            self._look_ahead(now)
            self._set_inputs(now)
            begin = time.perf_counter()
            self._network.run()
            self._contest.note(time.perf_counter() - begin)
            self._keep(now)
            drawn = sample(self._network.logits(), u, self._temperature)
            self._inputs[:, :-1] = self._inputs[:, 1:]
            self._inputs[:, -1] = self._levels[drawn]
            classes[step] = drawn
        return classes

    def _reopen(self) -> None:
        """Packs the weights for the other number of threads, after freeing them."""
        for layer, outputs in self._ahead.items():
            self._ahead[layer] = functools.partial(np.asarray, outputs().copy())
        del self._network
        self._way = self._contest.way
        self._network = _Network(self._models, self._thread_counts[self._way])

    def _set_conditions(self, embedding: np.ndarray) -> None:
        """Computes what a frame [rows, bottleneck] adds to the layers' sums."""
        _, given, computed = self._models.conditions
        self._embedding = embedding
        self._conditions_model.set_tensor(given, np.ascontiguousarray(embedding))
        self._conditions_model.invoke()
        values = self._conditions_model.get_tensor(computed)
        by_layer = values.reshape(self._rows, self._config.num_layers, -1)
        self._conditions = np.ascontiguousarray(by_layer.transpose(1, 0, 2))

    def _look_ahead(self, now: int) -> None:
        """Computes the past taps' shares in the steps ahead, where they are due."""
        for steps, tensors, run in self._network.looks:
            if now % steps == 0:
                for layer, inputs, outputs in tensors:
                    self._set_past(inputs(), layer, now)
                    self._ahead[layer] = outputs
                run()

    def _set_inputs(self, now: int) -> None:
        network = self._network
        network.inputs()[:] = self._inputs
        network.condition()[:] = self._embedding
        for layer, steps in enumerate(self._models.chunks):
            share, condition = network.shares[layer](), self._conditions[layer]
            if steps:
                row = now % steps * self._rows
                ahead = self._ahead[layer]()[row : row + self._rows]
                np.add(ahead, condition, out=share)
                continue
            share[:] = condition
            past = network.past[layer]
            if past is not None:
                self._set_past(past(), layer, now)

    def _set_past(self, x: np.ndarray, layer: int, now: int) -> None:
        """Fills in a layer's past taps, for the steps from `now` on.

        Args:
          x: [steps * rows, taps * width]; overwritten.
          layer: the layer's index.
          now: the first step.
        """
        width, dilation = self._config.width, self._config.dilations[layer]
        ring = self._rings[layer]
        for tap in range(self._num_taps):
            row = (now + tap * dilation) * self._rows % len(ring)
            x[:, tap * width : (tap + 1) * width] = ring[row : row + len(x)]

    def _keep(self, now: int) -> None:
        """Replaces the oldest inputs by the layers' inputs of step `now`."""
        if self._num_taps:
            for ring, layer_input in zip(
                self._rings, self._network.layer_inputs, strict=True
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
    """Finds the faster of two ways, and tries the other one now and then.

    A trial is a few steps. The interval between trials grows while they are lost: to
    change takes time, and on a busy machine a step with several threads may take a
    second.

    Attributes:
      way: the one to take now, 0 or 1.
    """

    def __init__(self, count: int) -> None:
        self.way = 0
        self._count = count
        self._seconds = [math.inf, math.inf]  # a step's, in either way
        self._trial: list[float] | None = []  # its steps' so far, during a trial
        self._interval = self._left = _FIRST_INTERVAL  # steps until the next trial

    def note(self, seconds: float) -> None:
        """Records how long a step took, which may change the way."""
        way, other = self.way, 1 - self.way
        if self._trial is not None:
            self._trial.append(seconds)
            if len(self._trial) == _TRIAL_STEPS:
                self._end_trial(sum(self._trial[1:]) / (_TRIAL_STEPS - 1))
            return
        self._seconds[way] = 0.9 * self._seconds[way] + 0.1 * seconds
        self._left -= 1
        if self._seconds[way] > _CLEARLY * self._seconds[other]:
            self.way = other
        elif (
            self._left <= 0 and self._count > 1 and self._seconds[way] > _WORTH_A_TRIAL
        ):
            self.way, self._trial = other, []

    def _end_trial(self, seconds: float) -> None:
        other = 1 - self.way
        won = _CLEARLY * seconds < self._seconds[other]
        self._seconds[self.way], self._trial = seconds, None
        if won:
            self._interval = _FIRST_INTERVAL
        else:
            self.way = other
            self._interval = min(4 * self._interval, _LAST_INTERVAL)
        self._left = self._interval


def num_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
