"""Generated samples equal the original's; nothing but the seed decides them."""

import glob
import os

import numpy as np
import pytest
import recipe
import tensorflow as tf

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import load_audio
from magenta_nsynth.audio.mu_law import class_labels, class_values, mu_law
from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.errors import InputError
from magenta_nsynth.generation import packed, stepwise
from magenta_nsynth.generation.compiled import CompiledEngine
from magenta_nsynth.generation.lite_graph import LiteGraph, open_model
from magenta_nsynth.generation.stepwise import StepwiseDecoder
from magenta_nsynth.models.wavenet import WaveNetDecoder

ENGINES = pytest.mark.parametrize("engine", ["packed", "compiled"])
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL = os.path.join(REPOSITORY, "checkpoints")


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return WaveNet(tiny_checkpoint)


@pytest.fixture(scope="module")
def encoding(golden_tiny):
    return golden_tiny["raw_encoding"]


@ENGINES
@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_samples_equal_the_originals(tiny_checkpoint, golden_tiny, weights, engine):
    model = WaveNet(tiny_checkpoint, use_ema=weights == "ema")
    stepwise = StepwiseDecoder(model.decoder, 2, engine=engine)
    classes = stepwise.run(
        golden_tiny[f"{weights}_encoding"], golden_tiny[f"{weights}_free_uniforms"]
    )
    reference = golden_tiny[f"{weights}_free_audio"]
    np.testing.assert_array_equal(class_values()[classes], reference)


@pytest.fixture(scope="module")
def full_decoder(full_checkpoint):
    return WaveNet(full_checkpoint).decoder


@pytest.mark.parametrize(
    "engine", ["packed", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_full_width_samples_equal_the_originals(full_decoder, golden_full, engine):
    uniforms = golden_full["free_uniforms"]
    stepwise = StepwiseDecoder(full_decoder, uniforms.shape[1], engine=engine)
    classes = stepwise.run(golden_full["encoding"], uniforms[:256])
    np.testing.assert_array_equal(class_values()[classes], golden_full["free_audio"])


def test_seed_gives_the_originals_draws(model, encoding, golden_tiny):
    """At batch 1, np.random.seed(42) and one np.random.rand(1) per sample."""
    draws = np.random.RandomState(42).rand(700, 1)
    # That is how the stored draws were made, at batch 2.
    reference = golden_tiny["raw_free_uniforms"]
    np.testing.assert_array_equal(np.random.RandomState(42).rand(2048, 2), reference)
    seeded = model.generate(encoding[0], num_samples=700, seed=42)
    drawn = model.generate(encoding[0], num_samples=700, uniforms=draws)
    np.testing.assert_array_equal(seeded, drawn)
    other = model.generate(encoding[0], num_samples=700, seed=43)
    assert (seeded != other).any()


def test_without_a_seed_every_clip_is_another(model, encoding):
    twice = np.stack([encoding[0], encoding[0]])
    first, second = model.generate(twice, num_samples=200)
    again = model.generate(twice, num_samples=200)
    assert (first != second).any() and (first != again[0]).any()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_clip_does_not_depend_on_its_batch(model, encoding, precision):
    alone = model.generate(encoding[0, :6], seed=3, precision=precision)
    for others in (1, 4):
        batch = [encoding[0, :6], *[encoding[1][: 5 - i] for i in range(others)]]
        together = model.generate(batch, seed=3, precision=precision)
        np.testing.assert_array_equal(together[0], alone)
        assert [len(clip) for clip in together] == [512 * len(z) for z in batch]


@ENGINES
def test_blocks_do_not_show(model, encoding, golden_tiny, engine):
    engine = StepwiseDecoder(model.decoder, 2, engine=engine)
    uniforms = golden_tiny["raw_free_uniforms"][:1100]
    parts, done = [], 0
    for count in (1, 2, 500, 10, 587):  # across a frame, and several in one
        parts.append(engine.run(encoding, uniforms[done : done + count]))
        done += count
    assert engine.position == 1100
    audio = class_values()[np.concatenate(parts, axis=1)]
    np.testing.assert_array_equal(audio, golden_tiny["raw_free_audio"][:, :1100])
    engine.reset()
    again = class_values()[engine.run(encoding, uniforms[:300])]
    np.testing.assert_array_equal(again, golden_tiny["raw_free_audio"][:, :300])


def random_decoder(config):
    """A decoder of random weights; its biases too, which start at zero."""
    decoder = WaveNetDecoder(config)
    rng = np.random.default_rng(0)
    for variable in decoder.variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    return decoder


def test_processors_have_an_engine_of_their_own(monkeypatch):
    """Each core one of its own, or several share one, by how many clips there are."""
    decoder = random_decoder(WaveNetConfig(width=6, skip_width=5, num_layers=2))
    for cores, clips, expected in [
        (2, 1, [1]),
        (2, 32, [32]),
        (2, 128, [64, 64]),
        (16, 8, [8]),
        (16, 36, [9, 9, 9, 9]),
        (3, 193, [65, 65, 65]),
    ]:
        monkeypatch.setattr(packed, "num_cores", lambda cores=cores: cores)
        engines = StepwiseDecoder(decoder, clips)._engines
        assert all(isinstance(engine, packed.PackedEngine) for engine in engines)
        assert [engine.batch_size for engine in engines] == expected


def test_clips_are_shared_between_gpus(model, encoding, golden_tiny, monkeypatch):
    """Three clips on two devices, which are the processor twice for want of GPUs."""
    processor = tf.config.list_logical_devices("CPU")[:1]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: processor * 2)
    batch = np.concatenate([encoding, encoding[:1]])
    uniforms = golden_tiny["raw_free_uniforms"][:200]
    uniforms = np.concatenate([uniforms, uniforms[:, :1]], axis=1)
    stepwise = StepwiseDecoder(model.decoder, 3)
    assert all(isinstance(e, CompiledEngine) for e in stepwise._engines)
    assert [engine.batch_size for engine in stepwise._engines] == [2, 2]
    audio = class_values()[stepwise.run(batch, uniforms)]
    reference = golden_tiny["raw_free_audio"][:, :200]
    np.testing.assert_array_equal(audio, np.concatenate([reference, reference[:1]]))


@ENGINES
def test_temperature(model, encoding, engine):
    def generate(stepwise, seed):
        stepwise.reset()
        uniforms = np.random.default_rng(seed).uniform(size=[600, 1])
        return class_values()[stepwise.run(encoding[:1], uniforms)]

    coldest = StepwiseDecoder(model.decoder, 1, 0, engine)
    greedy = generate(coldest, seed=1)
    np.testing.assert_array_equal(greedy, generate(coldest, seed=2))
    cold = StepwiseDecoder(model.decoder, 1, 1e-300, engine)
    np.testing.assert_array_equal(greedy, generate(cold, seed=2))
    # The likeliest class of the teacher-forced network, fed with the result.
    logits = model.decoder(np.pad(greedy, [(0, 0), (0, 424)]), encoding[:1, :2])
    expected = class_values()[logits.numpy()[:, :600].argmax(axis=2)]
    np.testing.assert_array_equal(greedy, expected)


@ENGINES
def test_half_temperature_squares_the_probabilities(model, encoding, engine):
    """The first sample, whose probabilities a single step gives, over many draws."""
    logits = model.decoder(np.zeros([1, 512], np.float32), encoding[:1, :1])[0, 0]
    expected = np.exp(2 * logits.numpy().astype(np.float64))
    cumulative = np.cumsum(expected / expected.sum())
    many = 200
    uniforms = np.linspace(0.001, 0.999, many)
    stepwise = StepwiseDecoder(model.decoder, many, 0.5, engine)
    classes = stepwise.run(np.repeat(encoding[:1], many, axis=0), uniforms[None])[:, 0]
    assert (np.abs(classes - np.searchsorted(cumulative, uniforms)) <= 1).all()
    assert (classes == np.searchsorted(cumulative, uniforms)).mean() > 0.98


def test_a_uniform_beyond_the_last_sum_gives_the_last_class(model):
    rows = 200
    logits = np.random.default_rng(0).normal(size=[rows, 256]).astype(np.float32)
    uniforms = np.full(rows, np.nextafter(1, 0))
    sums = tf.cumsum(tf.nn.softmax(logits), axis=1).numpy()[:, -1]
    assert (sums.astype(np.float64) < uniforms).any()  # which is class 256 elsewhere
    engine = StepwiseDecoder(model.decoder, rows, engine="compiled")._engines[0]
    drawn = engine._sample(tf.constant(logits), tf.constant(uniforms)).numpy()
    assert drawn.max() == packed.sample(logits, uniforms, 1.0).max() == 255
    zeros = np.zeros(rows)
    assert not engine._sample(tf.constant(logits), tf.constant(zeros)).numpy().any()
    assert not packed.sample(logits, zeros, 1.0).any()


def compiled_logits(decoder, encoding, uniforms):
    """The first clip's, after every draw of a block."""
    engine = StepwiseDecoder(decoder, uniforms.shape[1], engine="compiled")._engines[0]
    seen = []

    def sample(logits, _):
        tf.py_function(lambda x: seen.append(x.numpy()[0]), [logits], [])
        return tf.fill([engine._rows], 200)

    engine._sample = sample
    engine.draw(encoding, uniforms, 0)
    return np.stack(seen)


def packed_logits(decoder, encoding, uniforms, monkeypatch, precision="float32"):
    seen = []

    def sample(logits, u, _):
        if u[0] == 0:  # the lane of the first clip
            seen.append(logits[0].copy())
        return np.full(len(logits), 200)

    with monkeypatch.context() as patch:
        patch.setattr(packed, "sample", sample)
        stepwise = StepwiseDecoder(
            decoder, uniforms.shape[1], engine="packed", precision=precision
        )
        stepwise._draw(encoding, uniforms)
    return np.stack(seen)


@pytest.mark.parametrize(
    "engine", ["packed", "int8", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_full_width_logits_do_not_depend_on_the_batch(engine, monkeypatch):
    """To the bit: one that differs turns a draw, once in some 100,000 samples.

    Eleven layers have every dilation, and more skips than one product takes.
    """
    decoder = WaveNetDecoder(WaveNetConfig(num_layers=11))
    for variable in decoder.variables:
        variable.assign(recipe.weights(variable.path, variable.shape, 0.8))
    first = np.random.default_rng(0).normal(size=[1, 1, 16]).astype(np.float32)
    results = []
    # 129 on one core are so many that it looks ahead by single steps.
    for batch_size in (1, 2, 5, 17, *([129] if engine != "compiled" else [])):
        monkeypatch.setattr(packed, "num_cores", lambda size=batch_size: 1 + size % 3)
        others = np.random.default_rng(batch_size).normal(size=[1, batch_size, 16])
        encoding = np.concatenate([first, others[:, 1:].astype(np.float32)], axis=1)
        uniforms = np.ones([6, batch_size])
        uniforms[:, 0] = 0
        if engine == "compiled":
            logits = compiled_logits(decoder, encoding, uniforms)
        else:
            precision = "int8" if engine == "int8" else "float32"
            logits = packed_logits(decoder, encoding, uniforms, monkeypatch, precision)
        results.append(logits)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_8_bit_weights_have_a_scale_for_each_output():
    """Also for outputs a million times smaller than others, and for zeros."""
    rng = np.random.default_rng(0)
    kernel = rng.uniform(-1, 1, [64, 5]).astype(np.float32)
    kernel *= np.float32([1, 1e-6, 1e3, 0, 1])
    x = rng.normal(size=[3, 64]).astype(np.float32) * np.float32([[1], [1e-3], [1e3]])
    graph = LiteGraph()
    given = graph.input(3, 64)
    result = graph.output(graph.dense(given, kernel, int8=True))
    model = open_model(graph.write(), 1)
    model.set_tensor(given, x)
    model.invoke()
    found, expected = model.get_tensor(result), x.astype(np.float64) @ kernel
    largest = np.abs(x).max(axis=1, keepdims=True) * np.abs(kernel).max(axis=0)
    errors = np.abs(found - expected) / np.maximum(largest, 1e-30)
    assert 0.001 < errors[:, [0, 1, 2, 4]].max() < 0.05  # of sums of 64 products
    assert (found[:, 3] == 0).all()


def test_8_bits_cost_little_of_the_loss(monkeypatch):
    """Along the notes of the small network. With logits in 8 bits it would be more."""
    model = WaveNet(os.path.join(SMALL, "small"))
    notes = sorted(glob.glob(os.path.join(SMALL, "notes", "*.wav")))
    audio = np.stack([load_audio(note)[:1024] for note in notes])
    classes = class_labels(mu_law(audio)).numpy()
    z = np.stack(model.encode(list(audio)))
    seen = []

    def follow(logits, uniforms, temperature):
        del uniforms, temperature
        seen.append(logits.copy())
        return classes[:, len(seen) - 1]

    monkeypatch.setattr(packed, "sample", follow)
    decoder = StepwiseDecoder(model.decoder, len(audio), precision="int8")
    decoder.run(z, np.zeros(classes.T.shape))
    exact = tf.nn.log_softmax(model.decoder(audio, z))
    rounded = tf.nn.log_softmax(np.stack(seen, axis=1))
    losses = [-tf.gather(p, classes, batch_dims=2) for p in (exact, rounded)]
    assert -0.01 < tf.reduce_mean(losses[1] - losses[0]) < 0.01
    divergence = tf.reduce_sum(tf.exp(exact) * (exact - rounded), axis=2)
    assert 1e-5 < tf.reduce_mean(divergence) < 0.01


def test_8_bits_repeat_under_a_seed(tiny_checkpoint, model, encoding):
    arguments = {"encoding": encoding[0], "num_samples": 700, "seed": 3}
    first = model.generate(**arguments, precision="int8")
    again = WaveNet(tiny_checkpoint).generate(**arguments, precision="int8")
    np.testing.assert_array_equal(first, again)
    exact = model.generate(**arguments)
    assert (first != exact).any() and (first == exact).mean() > 0.5
    blocks = model.stream([encoding[0]], 700, seed=3, precision="int8")
    np.testing.assert_array_equal(np.concatenate(list(blocks), axis=1)[0], first)


def test_8_bits_run_on_the_processor(model, monkeypatch, caplog):
    """Even beside a GPU; and in float32, with a warning, without TensorFlow Lite."""
    processor = tf.config.list_logical_devices("CPU")[:1]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: processor)
    engine = StepwiseDecoder(model.decoder, 1, precision="int8")._engines[0]
    assert isinstance(engine, packed.PackedEngine)
    only_compiled = {("compiled", "float32"): stepwise.compiled_engines}
    monkeypatch.setattr(stepwise, "_ENGINES", only_compiled)
    with caplog.at_level("WARNING", logger="absl"):
        engine = StepwiseDecoder(model.decoder, 1, precision="int8")._engines[0]
    assert isinstance(engine, CompiledEngine)
    assert "without TensorFlow Lite" in caplog.text and "not in int8" in caplog.text
    with pytest.raises(InputError, match="no engine 'compiled' with int8"):
        StepwiseDecoder(model.decoder, 1, engine="compiled", precision="int8")


def test_the_weights_may_be_packed_again_at_any_step(
    model, encoding, golden_tiny, monkeypatch
):
    def note(self, seconds):
        steps[0] += 1
        self.way = int(steps[0] % 20 < 7)

    steps = [0]
    monkeypatch.setattr(packed._Contest, "note", note)
    models = packed._Models(model.decoder, 2, "float32")
    engine = packed.PackedEngine(models, [1, 1], stepwise.input_levels(True), 1.0)
    uniforms = golden_tiny["raw_free_uniforms"][:300]
    classes = engine.draw(encoding.transpose(1, 0, 2), uniforms, 0).T
    reference = golden_tiny["raw_free_audio"][:, :300]
    np.testing.assert_array_equal(class_values()[classes], reference)


def test_the_faster_way_is_found_and_left_again():
    def take(contest, steps, *seconds):
        ways = []
        for _ in range(steps):
            ways.append(contest.way)
            contest.note(seconds[contest.way])
        return sum(ways)  # steps in the second way

    contest = packed._Contest(2)
    assert take(contest, 16, 0.010, 0.006) == 0
    take(contest, 10, 0.010, 0.006)
    assert take(contest, 50, 0.010, 0.006) >= 50 - packed._TRIAL_STEPS
    take(contest, 10, 0.010, 1.0)  # the machine is busy from now on
    assert take(contest, 50, 0.010, 1.0) <= packed._TRIAL_STEPS
    assert 0 < take(contest, 20_000, 0.010, 1.0) <= 6 * packed._TRIAL_STEPS
    assert take(packed._Contest(1), 500, 0.010) == 0  # there is no other way
    assert take(packed._Contest(2), 500, 0.001, 0.0001) == 0  # not worth a trial


def test_the_packed_gate_is_sigmoid_times_tanh():
    """Against float64, and far into where both are flat."""
    rng = np.random.default_rng(0)
    a, b = (
        np.float32(np.linspace(-40, 40, 200_001)),
        np.float32(rng.normal(size=200_001)),
    )
    for gate, value in [(a, b), (b, a)]:
        graph = LiteGraph()
        sums = graph.input(1, 2 * a.size)
        result = graph.output(packed._gate(graph, graph.add(sums, 0.0, "clip")))
        model = open_model(graph.write(), 1)
        model.set_tensor(sums, np.concatenate([gate / 32, value / 16])[None])
        model.invoke()
        gate, value = gate.astype(np.float64), value.astype(np.float64)
        expected = 2 * np.tanh(value) / (1 + np.exp(-gate))
        assert np.abs(model.get_tensor(result)[0] - expected).max() < 5e-7


def check_random_decoder(config, num_frames, engine):
    """A decoder of random weights draws what its teacher-forced self would."""
    decoder = random_decoder(config)
    shape = [1, num_frames, config.ae_bottleneck_width]
    encoding = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    check_against_teacher_forcing(decoder, encoding, engine)


@ENGINES
@pytest.mark.parametrize("filter_length", [1, 2, 4])
def test_other_filters_agree_with_the_teacher_forced_model(filter_length, engine):
    config = WaveNetConfig(
        width=6,
        skip_width=5,
        num_layers=4,
        num_stages=3,
        filter_length=filter_length,
        ae_bottleneck_width=3,
        ae_hop_length=32,
    )
    check_random_decoder(config, 3, engine)


@pytest.mark.parametrize("hop", [4, 25])
def test_other_hops_agree_with_the_teacher_forced_model(hop):
    """The packed engine looks ahead past the ends of frames."""
    config = WaveNetConfig(
        width=6, skip_width=5, num_layers=5, num_stages=5, ae_hop_length=hop
    )
    check_random_decoder(config, 5, "packed")


def check_against_teacher_forcing(decoder, encoding, engine):
    """What is drawn is what the whole network, fed with the result, would draw."""
    count = decoder.config.num_samples(encoding.shape[1])
    uniforms = np.random.default_rng(2).uniform(size=[count, 1])
    classes = StepwiseDecoder(decoder, 1, engine=engine).run(encoding, uniforms)
    audio = class_values()[classes]
    probabilities = tf.nn.softmax(decoder(audio, encoding)).numpy()[0]
    expected = [
        np.searchsorted(np.cumsum(p), u[0])
        for p, u in zip(probabilities, uniforms, strict=True)
    ]
    np.testing.assert_array_equal(classes[0], expected)
    assert len(np.unique(classes)) > 10


@ENGINES
def test_linear_input_is_fed_back_linearly(engine):
    config = WaveNetConfig(
        width=6, skip_width=5, num_layers=3, ae_hop_length=32, rescale_inputs=False
    )
    check_random_decoder(config, 2, engine)


def test_progress_is_called_and_may_stop_it(model, encoding):
    seen = []
    model.generate(encoding[0], 900, seed=0, progress=lambda *state: seen.append(state))
    done = [done for done, _ in seen]
    assert done == sorted(done) and len(done) > 1
    assert seen[-1] == (900, 900)

    def stop(done, total):
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        model.generate(encoding[0], seed=0, progress=stop)


def test_stream_yields_the_same_in_blocks(model, encoding, golden_tiny):
    uniforms = golden_tiny["raw_free_uniforms"]
    blocks = list(model.stream(list(encoding), 2048, uniforms=uniforms))
    assert len(blocks) > 1
    np.testing.assert_array_equal(
        np.concatenate(blocks, axis=1), golden_tiny["raw_free_audio"]
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((12, 15), r"\[frames, 16\]"),
        ((0, 16), r"\[frames, 16\]"),
        ((16,), r"\[frames, 16\]"),
        ((1, 2, 12, 16), r"\[frames, 16\]"),
    ],
)
def test_other_shapes_are_refused(model, shape, message):
    with pytest.raises(InputError, match=message):
        model.generate(np.zeros(shape))


def test_bad_values_are_refused(model, encoding):
    huge = np.full([4, 16], 1e300)
    bad = encoding[0].copy()
    bad[3, 3] = np.nan
    for arguments, message in [
        ({"encoding": bad}, "finite"),
        ({"encoding": huge}, "finite"),
        ({"encoding": encoding[0], "num_samples": 0}, "num_samples"),
        ({"encoding": encoding[0], "num_samples": 12 * 512 + 1}, "num_samples"),
        ({"encoding": encoding[0], "temperature": -1}, "temperature"),
        ({"encoding": encoding[0], "temperature": np.nan}, "temperature"),
        ({"encoding": encoding[0], "precision": "int4"}, "float32 or int8"),
        ({"encoding": []}, "empty"),
    ]:
        with pytest.raises(InputError, match=message):
            model.generate(**arguments)
