"""The stepwise decoder on processors, with TensorFlow Lite's packed products."""

import math
import os
import time
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

    The tensors that hold something of all layers have `rows` rows for each. Layers of
    one dilation follow one another, in the order of `groups`.

    Attributes:
      config: the decoder's.
      rows: the number of clips.
      groups: the layers of each dilation.
      step: the model of one step.
      inputs: the number of the step's tensor for the last samples. So are the next.
      condition: for the row of the embedding.
      past: for the past taps of each layer that does not look ahead, by layer.
      shares: for what the embedding and the looks add to the sums of all layers.
      layer_inputs: an output, of all layers.
      logits: an output.
      conditions: what the embedding adds, for all layers: a model of one input and
        one output.
    """

    def __init__(self, decoder: WaveNetDecoder, rows: int, precision: str) -> None:
        self.config = config = decoder.config
        self.rows = rows
        self._int8 = precision == "int8"
        self._scale = _Scale(1, 1, 1) if self._int8 else _EXACT_SCALE
        layers = [
            _Layer.of(dilated, condition, self._scale)
            for dilated, condition in zip(
                decoder.dilatedconv, decoder.cond_map, strict=True
            )
        ]
        most = 1  # a power of 2, as dilations are
        # The embedding has to stay the same up to the last step of a look.
        while (
            2 * most * rows <= _LOOK_AHEAD_ROWS
            and config.ae_hop_length % (2 * most) == 0
        ):
            most *= 2
        self.groups: list[_Group] = []
        for dilation in sorted(set(config.dilations)):
            numbers = [i for i, d in enumerate(config.dilations) if d == dilation]
            look = None
            # Whether a layer looks ahead must not depend on `rows`, because the order
            # of the sums depends on it.
            if dilation > 1 and config.filter_length > 1:
                pasts = [layers[i].past for i in numbers]
                look = self._write_look(pasts, min(dilation, most))
            first = sum(len(group.layers) for group in self.groups)
            self.groups.append(_Group(numbers, dilation, first, look))
        self._order = [i for group in self.groups for i in group.layers]
        self.step = self._write_step(decoder, layers)
        self.conditions = self._write_conditions(layers)

    def _write_step(self, decoder: WaveNetDecoder, layers: list["_Layer"]) -> bytes:
        config, graph = self.config, LiteGraph()
        self.inputs = graph.input(self.rows, config.filter_length)
        self.condition = graph.input(self.rows, config.ae_bottleneck_width)
        self.shares = graph.input(config.num_layers * self.rows, 2 * config.width)
        pieces = graph.split(self.shares, config.num_layers, axis=0)
        shares = dict(zip(self._order, pieces, strict=True))
        looking = {i for group in self.groups if group.look for i in group.layers}
        self.past: dict[int, int] = {}
        inputs: list[int] = []
        l = graph.dense(self.inputs, *_weights(decoder.startconv))  # noqa: E741
        s = graph.dense(l, *_weights(decoder.skip_start))
        gated: list[int] = []
        for i, layer in enumerate(layers):
            inputs.append(l)
            sums = self._sums(graph, i, layer, l, i in looking)
            sums = graph.add(sums, shares[i], "none" if self._int8 else "clip")
            d = self._gate(graph, sums)
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
        all_inputs = graph.concatenate([inputs[i] for i in self._order], axis=0)
        self.layer_inputs = graph.output(all_inputs)
        return graph.write()

    def _sums(
        self, graph: LiteGraph, number: int, layer: "_Layer", x: int, has_look: bool
    ) -> int:
        """A layer's sums [rows, 2 * width] of its own taps, or the newest one alone."""
        kernel = layer.newest
        if not has_look and len(layer.past):
            self.past[number] = graph.input(self.rows, len(layer.past))
            x = graph.concatenate([self.past[number], x])
            kernel = np.concatenate([layer.past, layer.newest])
        # The first layer's input is little more than the last samples, in which 8 bits
        # are missed most.
        return graph.dense(x, kernel, layer.bias, int8=self._int8 and number > 0)

    def _gate(self, graph: LiteGraph, sums: int) -> int:
        if not self._int8:
            return _gate(graph, sums)
        gate, value = graph.split(sums, 2)
        return graph.multiply(graph.sigmoid(gate), graph.tanh(value))

    def _write_conditions(self, layers: list["_Layer"]) -> tuple[bytes, int, int]:
        graph = LiteGraph()
        embedding = graph.input(self.rows, self.config.ae_bottleneck_width)
        kernels = [layers[i].condition for i in self._order]
        kernel = np.concatenate(kernels, axis=1)
        output = graph.output(graph.dense(embedding, kernel))
        return graph.write(), embedding, output

    def _write_look(self, pasts: list[np.ndarray], steps: int) -> "_Look":
        """The model of the past taps' kernels of some layers."""
        graph = LiteGraph()
        inputs = [graph.input(steps * self.rows, len(past)) for past in pasts]
        outputs = [
            graph.output(graph.dense(x, past, int8=self._int8))
            for x, past in zip(inputs, pasts, strict=True)
        ]
        return _Look(steps, graph.write(), inputs, outputs)


class _Look(NamedTuple):
    """What the past taps of some layers add to the next steps, as a model."""

    steps: int
    model: bytes
    inputs: list[int]
    outputs: list[int]


class _Group(NamedTuple):
    """The layers of one dilation.

    Attributes:
      layers: their numbers.
      dilation: theirs.
      first: how many layers are in the groups before.
      look: what their past adds; None if it is part of the step.
    """

    layers: list[int]
    dilation: int
    first: int
    look: _Look | None


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
    gate, value = graph.split(t, 2)
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
        self.past = {layer: tensor(number) for layer, number in models.past.items()}
        self.shares = tensor(models.shares)
        self.layer_inputs = tensor(models.layer_inputs)
        self.logits = tensor(models.logits)
        self.run = self._step.invoke
        self.looks = [
            _OpenLook(group.look, num_threads) if group.look else None
            for group in models.groups
        ]


class _OpenLook:
    """The model of a look, with its tensors as those of `_Network`."""

    def __init__(self, look: _Look, num_threads: int) -> None:
        model = open_model(look.model, num_threads)
        self.inputs = [model.tensor(number) for number in look.inputs]
        self.outputs = [model.tensor(number) for number in look.outputs]
        self.run = model.invoke


class _Memory:
    """What the layers of a group remember, and what they know of the steps ahead.

    Attributes:
      group: the layers.
      steps: how many steps they look ahead; 1 if they don't.
      part: where they are among all layers.
      shares: [steps, layers, rows, 2 * width], what the embedding and the last look add
        to their sums.
      recent: [steps, layers, rows, width], their inputs since the last look.
    """

    def __init__(self, group: _Group, rows: int, config: WaveNetConfig) -> None:
        self.group = group
        self.steps = group.look.steps if group.look else 1
        count, width = len(group.layers), config.width
        self.part = slice(group.first, group.first + count)
        self._num_taps = config.filter_length - 1
        self.shares = np.zeros([self.steps, count, rows, 2 * width], np.float32)
        self.recent = np.zeros([self.steps, count, rows, width], np.float32)
        # Their inputs in the last dilation * taps steps, in a ring.
        size = self._num_taps * group.dilation
        self._ring = np.zeros([size, count, rows, width], np.float32)

    def keep(self, now: int) -> None:
        """Replaces the oldest inputs by `recent`, those of the steps before `now`."""
        if now and self._num_taps:
            start = (now - self.steps) % len(self._ring)
            self._ring[start : start + self.steps] = self.recent

    def past(self, x: np.ndarray, number: int, now: int) -> None:
        """Fills in the past taps of a layer, for the steps from `now` on.

        Args:
          x: [steps * rows, taps * width]; overwritten.
          number: the layer's, in the group.
          now: the first step.
        """
        size, _, rows, width = self._ring.shape
        x = x.reshape(self.steps, rows, self._num_taps * width)
        for tap in range(self._num_taps):
            start = (now + tap * self.group.dilation) % size
            taps = slice(tap * width, (tap + 1) * width)
            x[:, :, taps] = self._ring[start : start + self.steps, number]


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
        self._thread_counts = thread_counts
        self._contest = _Contest(len(thread_counts))
        self._way = self._contest.way
        self._network = _Network(models, thread_counts[self._way])
        self._conditions_model = open_model(models.conditions[0], 1)
        self._levels = levels
        self._temperature = temperature
        self.reset()

    def reset(self) -> None:
        """Forgets the past."""
        config = self._config
        # The network's last inputs, oldest first: zeros before the first sample.
        self._inputs = np.zeros([self._rows, config.filter_length], np.float32)
        self._memories = [
            _Memory(group, self._rows, config) for group in self._models.groups
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
        for memory in self._memories:
            if not memory.group.look:
                memory.shares[:] = self._conditions[memory.part]

    def _look_ahead(self, now: int) -> None:
        """Computes the past taps' shares in the steps ahead, where they are due."""
        for memory, look in zip(self._memories, self._network.looks, strict=True):
            if now % memory.steps:
                continue
            memory.keep(now)
            if look:
                for number, inputs in enumerate(look.inputs):
                    memory.past(inputs(), number, now)
                look.run()
                conditions = self._conditions[memory.part]
                for number, outputs in enumerate(look.outputs):
                    shares = memory.shares[:, number]
                    ahead = outputs().reshape(shares.shape)
                    np.add(ahead, conditions[number], out=shares)

    def _set_inputs(self, now: int) -> None:
        network = self._network
        network.inputs()[:] = self._inputs
        network.condition()[:] = self._embedding
        shares = self._by_layer(network.shares())
        for memory in self._memories:
            shares[memory.part] = memory.shares[now % memory.steps]
            if network.past and not memory.group.look:
                for number, layer in enumerate(memory.group.layers):
                    memory.past(network.past[layer](), number, now)

    def _keep(self, now: int) -> None:
        """Remembers the layers' inputs of step `now`."""
        layer_inputs = self._by_layer(self._network.layer_inputs())
        for memory in self._memories:
            memory.recent[now % memory.steps] = layer_inputs[memory.part]

    def _by_layer(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(self._config.num_layers, self._rows, -1)


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
