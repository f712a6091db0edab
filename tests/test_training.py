"""Training steps against the original's trace, and what a training leaves behind."""

import os

import numpy as np
import pytest
import recipe
import tensorflow as tf
from conftest import save_tf1
from notes import SMALL

from magenta_nsynth.audio.mu_law import class_labels, mu_law
from magenta_nsynth.config import SpectralConfig
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.models.spectral import SpectralAutoencoder
from magenta_nsynth.models.wavenet import WaveNetAutoencoder, negative_log_likelihood
from magenta_nsynth.plotting.rainbowgrams import rainbowgram_image
from magenta_nsynth.training.batches import detuned_past, noisy_past, with_past
from magenta_nsynth.training.evaluation import WaveNetEvaluator
from magenta_nsynth.training.folder import TrainingFolder, checkpoints_in
from magenta_nsynth.training.options import Steps
from magenta_nsynth.training.recipes import RECIPES, Schedule, average_decay
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import Trainer
from magenta_nsynth.weights import engine, tables
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.paths import resolve_checkpoint
from magenta_nsynth.weights.summary import summarize
from magenta_nsynth.weights.training_state import TrainingState

SCHEDULE = RECIPES["wavenet"].schedule


@pytest.fixture(scope="module")
def trace(data):
    return dict(np.load(data / "wavenet_tiny" / "train_trace.npz"))


@pytest.fixture(scope="module")
def start(tmp_path_factory, tiny_checkpoint):
    """The raw weights that the trace starts from, written by TensorFlow itself."""
    prefix = str(tmp_path_factory.mktemp("start") / "model.ckpt-0")
    names = [
        name
        for name in Checkpoint(tiny_checkpoint).shapes
        if not name.endswith(("/Adam", "/Adam_1", "Average", "_power", "_step"))
    ]
    assert len(names) == 374
    shapes = Checkpoint(tiny_checkpoint).shapes
    tensors = {name: recipe.weights(name, shapes[name], 0.8) for name in names}
    save_tf1(prefix, {**tensors, "global_step": np.int32(0)})
    return prefix


@pytest.fixture(scope="module")
def small_start(tmp_path_factory):
    """As `start`, of four layers, for what is not compared with the original."""
    prefix = str(tmp_path_factory.mktemp("small") / "model.ckpt-0")
    rows = tables.table(SMALL)
    tensors = {row.name: recipe.weights(row.name, row.shape, 0.8) for row in rows}
    save_tf1(prefix, {**tensors, "global_step": np.int32(0)})
    return prefix


def new_trainer(start, num_towers=1, **options):
    config = engine.read_config(Checkpoint(start))
    trainer = Trainer(WaveNetAutoencoder(config), num_towers, **options)
    trainer.state.restore(start)
    return trainer


@pytest.mark.parametrize("num_towers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_five_steps_are_the_originals(
    tmp_path, start, trace, tiny_checkpoint, num_towers
):
    trainer = new_trainer(start, num_towers)
    losses, norms = [], []
    for batch, rate in zip(trace["batches"], trace["lrs"], strict=True):
        step = int(trainer.state.global_step.numpy())
        assert SCHEDULE(step) == np.float32(rate)
        result = trainer.train_step(tf.constant(batch), SCHEDULE(step))
        losses.append(result.loss)
        norms.append(result.norm)
    np.testing.assert_allclose(losses, trace["losses"], rtol=0, atol=2e-5)
    first_norm = np.sqrt((trace["gnorm"][~trace["gnone"]].astype(float) ** 2).sum())
    np.testing.assert_allclose(norms[0], first_norm, rtol=1e-4)

    trainer.state.save(tmp_path / "model.ckpt-5")
    wanted, got = Checkpoint(tiny_checkpoint), Checkpoint(tmp_path / "model.ckpt-5")
    assert got.shapes == wanted.shapes
    assert len(got.shapes) == 1495
    assert got.dtypes == wanted.dtypes
    values = dict(got.read(got.shapes))
    for name, golden in wanted.read(wanted.shapes):
        if name in ("beta1_power", "beta2_power", "global_step"):
            assert values[name] == golden, name
            continue
        slot = name.endswith(("/Adam", "/Adam_1"))
        limit = 1e-4 * np.abs(golden).max() if slot else 5e-6
        assert np.abs(values[name] - golden).max() <= limit, name


def test_gradients_are_the_originals(start, trace):
    trainer = new_trainer(start)
    _, *gradients = trainer.gradients(tf.constant(trace["batches"][0]))
    rows = engine.plan(trainer.model, tables.table(trainer.model.config))
    names = [
        row.name
        for (row, _), changes in zip(rows, trainer.state.has_gradient, strict=True)
        if changes
    ]
    got = dict(zip(names, gradients, strict=True))
    without = set(trace["gnames"][trace["gnone"]])
    assert set(names) == set(trace["gnames"]) - without
    assert without == {"res_30/W", "res_30/biases"}
    for name, norm in zip(trace["gnames"], trace["gnorm"], strict=True):
        if name not in without:
            np.testing.assert_allclose(np.linalg.norm(got[name]), norm, rtol=1e-4)
    whole = [key for key in trace if key.startswith("grad0:")]
    assert len(whole) == 5
    for key in whole:
        golden = trace[key]
        difference = np.abs(got[key.removeprefix("grad0:")].numpy() - golden).max()
        assert difference <= 1e-4 * np.abs(golden).max(), key


def state_of(trainer):
    state = trainer.state
    parts = [*state.variables, *state.averages]
    parts += [v for v in (*state.first_moments, *state.second_moments) if v is not None]
    parts += [state.beta1_power, state.beta2_power, state.global_step]
    return [part.numpy() for part in parts]


def assert_same_bits(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("num_towers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_step_is_the_same_to_the_bit_every_time(small_start, num_towers):
    audio = tf.constant(recipe.clips(2048, 5, batch=3))
    states = []
    trainer = new_trainer(small_start, num_towers)
    for _ in range(6):
        trainer.state.restore(small_start)
        for _ in range(2):
            trainer.train_step(audio, 1e-3)
        states.append(state_of(trainer))
    for state in states[1:]:
        assert_same_bits(states[0], state)


def test_the_noisy_past_is_the_decoders_alone(small_start):
    audio = tf.constant(recipe.clips(1024, 5))
    batch = {
        "audio": audio,
        "past": noisy_past(audio, 90.0, 1, tf.constant(0, tf.int64)),
    }
    trainer = new_trainer(small_start, num_towers=2)
    model = trainer.model
    clean = float(model.negative_log_likelihood(audio))
    logits = model.decoder(batch["past"], model.encoder(audio))
    expected = float(negative_log_likelihood(audio, logits))
    assert abs(expected - clean) > 1e-3  # far more than rounding
    assert trainer.train_step(batch, 1e-3).loss == pytest.approx(expected, abs=1e-5)


def test_noise_has_the_strength_asked_for():
    audio = tf.random.stateless_uniform([400, 512], [1, 2], -0.5, 0.5)
    position = tf.constant(7, tf.int64)
    noisy = noisy_past(audio, 6.0, 2**32 - 1, position)
    noise = (mu_law(noisy) - mu_law(audio)).numpy()
    strengths = noise.std(axis=1)
    assert abs(noise.mean()) < 0.05
    assert 5.7 < strengths.max() < 6.5 and strengths.min() < 0.5
    assert strengths.mean() == pytest.approx(3, abs=0.3)
    assert np.array_equal(noisy, noisy_past(audio, 6.0, 2**32 - 1, position))
    assert not np.array_equal(noisy, noisy_past(audio, 6.0, 2**32 - 1, position + 1))
    assert not np.array_equal(noisy, noisy_past(audio, 6.0, 2**32 - 2, position))
    loud = noisy_past(tf.ones([2, 512]), 6.0, 0, position).numpy()
    assert np.abs(loud).max() < 1 and len(np.unique(loud)) > 3


def test_the_past_of_a_batch_is_a_function_of_its_number_and_row():
    batches = [recipe.clips(512, seed, batch=4) for seed in range(3)]
    steps = Steps(past_noise=5.0, past_detune=0.7, seed=3)

    def changed(first, shard):
        part, count = shard
        rows = slice(part * 4 // count, (part + 1) * 4 // count)
        own = tf.data.Dataset.from_tensor_slices(np.stack(batches[first:])[:, rows])
        return list(with_past(own, steps, first, shard).as_numpy_iterator())

    whole = changed(0, (0, 1))
    assert_same_bits([batch["audio"] for batch in whole], batches)
    halves = [changed(0, (part, 2)) for part in range(2)]
    for name in ("past", "weights"):
        assert_same_bits([whole[2][name]], [changed(2, (0, 1))[0][name]])
        assert not np.array_equal(whole[0][name], whole[1][name])
        for i, batch in enumerate(whole):
            parts = [half[i][name] for half in halves]
            assert_same_bits([batch[name]], [np.concatenate(parts)])
    for batch in whole:
        assert batch["weights"].mean() == pytest.approx(1, abs=1e-6)
        assert len(np.unique(batch["weights"])) == 2


def test_a_detuned_beginning_runs_into_the_true_sound():
    times = np.arange(4096)

    def tone(at):
        return (0.5 * np.sin(0.11 * at + 1) + 0.2 * np.cos(0.05 * at)).astype("f4")

    audio = tf.constant(np.tile(tone(times), [200, 1]))
    past, counts = detuned_past(audio, 0.6, 2**32 - 1, tf.constant(5, tf.int64))
    past, counts = past.numpy(), counts.numpy()
    whole = counts.all(axis=1)
    assert 0.3 < whole.mean() < 0.5
    begins = np.argmax(counts, axis=1)
    assert (counts == (times >= begins[:, None])).all()
    begins = begins[~whole]
    assert 0.15 * 4096 - 1 < begins.min() < 900 and 2400 < begins.max() < 0.65 * 4096
    assert_same_bits([past[counts]], [audio.numpy()[counts]])

    def difference(factor, row, begin):
        before = times[begin - 500 : begin]
        at = begin + factor * (before - begin)
        heard = (at >= 8) & (at < 4088)  # what needs nothing from beyond the clip
        return np.abs(tone(at) - past[row, before])[heard].max()

    intervals = []
    for row, begin in zip(np.flatnonzero(~whole)[:25], begins[:25], strict=True):
        grid = np.linspace(-12, 12, 2401)
        errors = [difference(2 ** (s / 12), row, begin) for s in grid]
        assert min(errors) < 0.012, row
        intervals.append(grid[np.argmin(errors)])
    large = np.abs(intervals) > 2.01
    assert 0.05 < large.mean() < 0.5 and np.abs(intervals).max() <= 12
    assert min(intervals) < -0.5 and max(intervals) > 0.5
    loud, _ = detuned_past(tf.sign(audio), 1.0, 0, tf.constant(0, tf.int64))
    assert np.abs(loud).max() <= 1


def test_beyond_its_ends_a_detuned_clip_is_silent():
    audio = tf.ones([300, 1024])
    past, counts = detuned_past(audio, 1.0, 0, tf.constant(0, tf.int64))
    starts = past.numpy()[:, 0]
    assert (np.abs(starts) < 1e-6).any() and not counts.numpy()[:, 0].any()


def test_samples_that_do_not_count_have_no_part_in_the_loss(small_start):
    audio = recipe.clips(1024, 5, batch=4)
    own = tf.data.Dataset.from_tensors(audio)
    steps = Steps(past_detune=0.8, seed=1)
    batch = next(iter(with_past(own, steps)))
    trainer = new_trainer(small_start, num_towers=2)
    model = trainer.model
    logits = model.decoder(batch["past"], model.encoder(audio)).numpy()
    labels = class_labels(mu_law(audio)).numpy()
    chances = logits - np.log(np.exp(logits.astype(float)).sum(-1, keepdims=True))
    counts = batch["weights"].numpy() > 0
    expected = -np.take_along_axis(chances, labels[..., None], -1)[..., 0][counts]
    result = trainer.train_step(batch, 1e-3)
    assert result.loss == pytest.approx(expected.mean(), abs=1e-5)
    assert result.pitch_loss is None


def pitched_batch():
    pitches = tf.constant([40, 60, 61, 127], tf.int64)
    return {"audio": tf.constant(recipe.clips(1024, 5, batch=4)), "pitch": pitches}


def with_random_head(trainer):
    random = np.random.default_rng(1)
    for variable in trainer.state.pitch_head:
        variable.assign(random.normal(size=variable.shape))
    return trainer


def test_the_pitch_heads_gradient_is_numpys(small_start):
    batch = pitched_batch()
    trainer = with_random_head(new_trainer(small_start, pitch_weight=0.3))
    z = trainer.model.encoder(batch["audio"]).numpy().astype(float)
    kernel, bias = (variable.numpy() for variable in trainer.state.pitch_head)
    logits = z @ kernel[0] + bias
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth = np.eye(128)[batch["pitch"].numpy()][:, None]
    pitch_loss = -np.log((shares * truth).sum(-1)).mean()
    d = 0.3 * (shares - truth) / (z.shape[0] * z.shape[1])
    loss, *gradients, got = trainer.gradients(batch)
    assert float(loss) == float(trainer.model.training_loss(batch)[0])
    assert float(got) == pytest.approx(pitch_loss, rel=1e-5)
    np.testing.assert_allclose(
        gradients[-2][0], np.einsum("bfk,bfj->kj", z, d), atol=1e-6
    )
    np.testing.assert_allclose(gradients[-1], d.sum((0, 1)), atol=1e-6)
    # To the encoder's last bias comes what comes to z.
    plain = new_trainer(small_start)
    rows = [row.name for row in tables.table(plain.model.config)]
    rows = [r for r in rows if r not in tables.names_without_gradient(SMALL)]
    at = rows.index("ae_bottleneck/biases")
    more = gradients[at] - plain.gradients(batch)[1 + at]
    # A difference of float32 sums, some 10 times as large.
    np.testing.assert_allclose(more, (d @ kernel[0].T).sum((0, 1)), atol=3e-5)


def test_towers_train_the_pitch_head_as_one(small_start):
    batch = pitched_batch()
    trainers = [
        with_random_head(new_trainer(small_start, n, pitch_weight=0.3)) for n in (1, 2)
    ]
    one, two = (trainer.train_step(batch, 1e-3) for trainer in trainers)
    assert two == pytest.approx(one, abs=1e-4)
    assert one.pitch_loss > 1
    for name in ("first_moments", "averages"):
        a, b = (getattr(trainer.state, name)[-2] for trainer in trainers)
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_pitch_head_is_part_of_the_checkpoint(tmp_path, small_start, caplog):
    caplog.set_level("INFO", "absl")
    batch = pitched_batch()
    through = new_trainer(small_start, decay=0.5, pitch_weight=0.3)
    assert "no pitch head" in caplog.text
    for step in range(4):
        through.train_step(batch, 1e-2)
        if step == 1:
            through.state.save(tmp_path / "model.ckpt-2")
    caplog.clear()
    again = new_trainer(tmp_path / "model.ckpt-2", decay=0.5, pitch_weight=0.3)
    assert "pitch head" not in caplog.text
    for _ in range(2):
        again.train_step(batch, 1e-2)
    assert_same_bits(state_of(through), state_of(again))
    assert np.abs(again.state.pitch_head[0]).max() > 1e-3

    # Those who only want the model's weights don't mind it, and leave it out.
    prefix = tmp_path / "model.ckpt-2"
    holds = set(Checkpoint(prefix).shapes)
    assert {"pitch_head/W", "pitch_head/biases/Adam_1"} <= holds
    assert "pitch head (8)" in summarize(prefix)
    engine.verify_in_full(prefix, "wavenet")
    raw = engine.load_autoencoder(prefix)
    averaged = engine.load_autoencoder(prefix, use_ema=True)
    assert len(raw.variables) == len(averaged.variables) == len(tables.table(SMALL))
    stripped = engine.strip_checkpoint(prefix, tmp_path / "b", keep_averages=True)
    assert not any("pitch_head" in name for name in Checkpoint(stripped).shapes)
    without = new_trainer(prefix)
    assert "left out" in caplog.text
    without.state.save(tmp_path / "c" / "model.ckpt-2")
    saved = set(Checkpoint(tmp_path / "c" / "model.ckpt-2").shapes)
    assert holds - saved == {name for name in holds if "pitch_head" in name}


def test_half_a_pitch_head_is_refused(tmp_path, small_start):
    state = new_trainer(small_start, pitch_weight=1.0).state
    for variable in state.pitch_head:
        variable.assign(tf.ones_like(variable))
    state.save(tmp_path / "model.ckpt-0")
    checkpoint = Checkpoint(tmp_path / "model.ckpt-0")
    tensors = dict(checkpoint.read(checkpoint.shapes))
    state.restore(small_start)
    assert not any(variable.numpy().any() for variable in state.pitch_head)
    del tensors["pitch_head/W/Adam"]
    save_tf1(str(tmp_path / "model.ckpt-1"), tensors)
    with pytest.raises(CheckpointError, match="pitch_head/W/Adam is missing"):
        state.restore(str(tmp_path / "model.ckpt-1"))
    tensors["pitch_tail/W"] = tensors["pitch_head/W"]
    save_tf1(str(tmp_path / "model.ckpt-2"), tensors)
    with pytest.raises(CheckpointError, match="not the model's: pitch_tail/W"):
        engine.load_autoencoder(tmp_path / "model.ckpt-2")
    with pytest.raises(InputError, match="for the WaveNet"):
        TrainingState(SpectralAutoencoder(SpectralConfig(width=1)), True)


def test_resuming_is_the_same_to_the_bit(tmp_path, small_start):
    audio = [tf.constant(recipe.clips(1024, seed)) for seed in range(6)]
    through = new_trainer(small_start, decay=0.5)
    for i, batch in enumerate(audio):
        through.train_step(batch, 1e-3)
        if i == 2:
            through.state.save(tmp_path / "model.ckpt-3")
    resumed = new_trainer(str(tmp_path / "model.ckpt-3"), decay=0.5)
    for batch in audio[3:]:
        resumed.train_step(batch, 1e-3)
    assert_same_bits(state_of(through), state_of(resumed))


def test_raw_weights_alone_start_adam_and_averages_anew(small_start, caplog):
    trainer = Trainer(WaveNetAutoencoder(engine.read_config(Checkpoint(small_start))))
    caplog.set_level("INFO", "absl")
    trainer.state.restore(small_start)
    state = trainer.state
    assert "Adam" in caplog.text and "no averages" in caplog.text
    for average, variable in zip(state.averages, state.variables, strict=True):
        np.testing.assert_array_equal(average.numpy(), variable.numpy())
    assert state.beta1_power.numpy() == np.float32(0.9)
    assert state.beta2_power.numpy() == np.float32(0.999)
    assert all(not m.numpy().any() for m in state.first_moments if m is not None)


def test_weights_without_a_step_count_from_0(tmp_path, small_start):
    checkpoint = Checkpoint(small_start)
    tensors = dict(checkpoint.read(checkpoint.shapes))
    del tensors["global_step"]
    save_tf1(str(tmp_path / "model.ckpt"), tensors)
    assert new_trainer(str(tmp_path)).state.global_step.numpy() == 0


def test_restoring_replaces_what_an_earlier_training_left(small_start):
    trainer = new_trainer(small_start)
    state = trainer.state
    fresh = state_of(trainer)
    moments = [*state.first_moments, *state.second_moments]
    moments = [moment for moment in moments if moment is not None]
    for variable in (*state.variables, *state.averages, *moments, state.beta1_power):
        variable.assign(tf.ones_like(variable) / 3)
    state.global_step.assign(5)
    state.restore(small_start)
    assert_same_bits(state_of(trainer), fresh)


def test_beta_powers_that_are_missing_follow_from_the_step(tmp_path, tiny_checkpoint):
    checkpoint = Checkpoint(tiny_checkpoint)
    tensors = dict(checkpoint.read(checkpoint.shapes))
    powers = [tensors.pop("beta1_power"), tensors.pop("beta2_power")]
    save_tf1(str(tmp_path / "model.ckpt-5"), tensors)
    state = new_trainer(str(tmp_path / "model.ckpt-5")).state
    assert [state.beta1_power.numpy(), state.beta2_power.numpy()] == powers
    tensors["global_step"] = np.int32(200_000)
    save_tf1(str(tmp_path / "model.ckpt-200000"), tensors)
    state.restore(str(tmp_path / "model.ckpt-200000"))
    assert state.beta1_power.numpy() < 1e-37 and state.beta2_power.numpy() < 1e-37


def test_half_a_training_checkpoint_is_refused(tmp_path, small_state):
    small_state.save(tmp_path / "model.ckpt-4")
    checkpoint = Checkpoint(tmp_path / "model.ckpt-4")
    tensors = dict(checkpoint.read(checkpoint.shapes))
    del tensors["skip_3/W/Adam_1"]
    save_tf1(str(tmp_path / "model.ckpt-5"), tensors)
    with pytest.raises(CheckpointError, match="skip_3/W/Adam_1 is missing"):
        new_trainer(str(tmp_path / "model.ckpt-5"))


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 2e-4), (89_999, 2e-4), (90_000, 4e-4 / 3), (119_999, 4e-4 / 3),
        (120_000, 6e-5), (149_999, 6e-5), (150_000, 4e-5), (179_999, 4e-5),
        (180_000, 2e-5), (209_999, 2e-5), (210_000, 6e-6), (239_999, 6e-6),
        (240_000, 2e-6), (10**6, 2e-6),
    ],
)  # fmt: skip
def test_the_schedule_at_its_boundaries(step, rate):
    assert SCHEDULE(step) == np.float32(rate)


def test_a_schedule_in_words():
    assert Schedule.parse("2e-3").rates == ((0, 2e-3),)
    schedule = Schedule.parse("0:2e-3,5000:6e-4")
    assert [schedule(4999), schedule(5000)] == [np.float32(2e-3), np.float32(6e-4)]
    for text in ("", "fast", "0:1e-3,x:2", "5:1e-3", "0:1,0:2", "0:-1", "0:inf", "0:0"):
        with pytest.raises(InputError):
            Schedule.parse(text)


def test_the_averages_decay_grows_with_the_steps():
    assert average_decay(1) == np.float32(2) / np.float32(11)
    assert average_decay(80_000) == np.float32(80_001) / np.float32(80_010)
    assert average_decay(10**6) == np.float32(0.9999)
    assert average_decay(10**6, 0.99) == np.float32(0.99)


def test_losses_of_clips_are_those_of_the_model(small_start):
    model = new_trainer(small_start).model
    audio = recipe.clips(1024, 9, batch=4)
    each = [float(model.negative_log_likelihood(clip[None])) for clip in audio]
    for num_towers in (1, 2, 3):
        losses = WaveNetEvaluator(model, num_towers)(audio)
        np.testing.assert_allclose(losses, each, atol=1e-6)


def test_a_reconstruction_is_the_likeliest_sample(small_start):
    model = new_trainer(small_start).model
    audio = recipe.clips(512, 9)
    again = WaveNetEvaluator(model).reconstruct(audio)
    classes = np.argmax(model(audio), axis=-1)
    np.testing.assert_array_equal(class_labels(mu_law(again)).numpy(), classes)


@pytest.fixture
def small_state():
    return TrainingState(WaveNetAutoencoder(SMALL))


def steps_in(folder):
    return sorted(
        int(path.suffix.removeprefix(".ckpt-") or 0)
        for path in folder.glob("model.ckpt-*.index")
        for path in [path.with_suffix("")]
    )


def save_at(folder, state, *steps):
    for step in steps:
        state.global_step.assign(step)
        folder.save(state)


def test_the_newest_checkpoints_are_kept(tmp_path, small_state):
    folder = TrainingFolder(tmp_path, 2)
    save_at(folder, small_state, 1, 5, 20, 100)
    assert steps_in(tmp_path) == [20, 100]
    assert checkpoints_in(tmp_path)[0].step == 100
    folder.close()
    again = TrainingFolder(tmp_path, 2)  # knows what the one before wrote
    save_at(again, small_state, 101, 102)
    assert steps_in(tmp_path) == [101, 102]
    state = (tmp_path / "checkpoint").read_text()
    assert state.splitlines() == [
        'model_checkpoint_path: "model.ckpt-102"',
        'all_model_checkpoint_paths: "model.ckpt-101"',
        'all_model_checkpoint_paths: "model.ckpt-102"',
    ]
    assert tf.train.latest_checkpoint(str(tmp_path)).endswith("model.ckpt-102")
    again.close()
    everything = TrainingFolder(tmp_path, 0)
    save_at(everything, small_state, 103, 104, 105)
    assert steps_in(tmp_path) == [101, 102, 103, 104, 105]


def test_checkpoints_of_others_are_never_removed(tmp_path, small_state):
    """A released checkpoint has a state file that lists it, and no config.json."""
    small_state.global_step.assign(7)
    small_state.save(tmp_path / "model.ckpt-7")
    (tmp_path / "config.json").unlink()
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-7"\n'
        'all_model_checkpoint_paths: "model.ckpt-7"\n'
    )
    folder = TrainingFolder(tmp_path, 1)
    save_at(folder, small_state, 8, 9)
    assert steps_in(tmp_path) == [7, 9]
    folder.close()
    save_at(TrainingFolder(tmp_path, 1), small_state, 10)
    assert steps_in(tmp_path) == [7, 10]


def test_what_a_killed_writer_left_does_no_harm(tmp_path, small_state):
    folder = TrainingFolder(tmp_path, 2)
    save_at(folder, small_state, 1, 2)
    folder.close()
    # Killed while writing, and between the renaming of data and index.
    (tmp_path / ".writing-checkpoint-abc").mkdir()
    (tmp_path / ".writing-checkpoint-abc" / "model.ckpt-3.index").write_bytes(b"half")
    (tmp_path / ".writing-a-novel").mkdir()
    (tmp_path / "model.ckpt-3.data-00000-of-00001").write_bytes(b"whole")
    # Killed before the file `checkpoint` was written.
    state = 'model_checkpoint_path: "model.ckpt-1"\n'
    state += 'all_model_checkpoint_paths: "model.ckpt-1"\n'
    (tmp_path / "checkpoint").write_text(state)
    assert checkpoints_in(tmp_path)[0].step == 2
    folder = TrainingFolder(tmp_path, 2)
    assert [path.name for path in tmp_path.glob(".writing-*")] == [".writing-a-novel"]
    assert resolve_checkpoint(tmp_path).endswith("model.ckpt-2")
    save_at(folder, small_state, 3)
    assert checkpoints_in(tmp_path)[0].step == 3
    assert steps_in(tmp_path) == [2, 3]


def test_another_programs_output_is_not_adopted(tmp_path, small_state):
    """As `nsynth_checkpoint strip` leaves it: config.json, and no list."""
    small_state.global_step.assign(7)
    small_state.save(tmp_path / "model.ckpt-7")
    data = tmp_path / "model.ckpt-9.data-00000-of-00001"
    data.write_bytes(b"being copied")
    save_at(TrainingFolder(tmp_path, 1), small_state, 8, 10)
    assert steps_in(tmp_path) == [7, 10]
    assert data.read_bytes() == b"being copied"


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, small_state, caplog):
    folder = TrainingFolder(tmp_path, 5)
    save_at(folder, small_state, 1, 2)
    data = tmp_path / "model.ckpt-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    assert checkpoints_in(tmp_path)[0].step == 1
    assert "model.ckpt-2" in caplog.text and "older one" in caplog.text
    save_at(folder, small_state, 2)  # reached again
    assert checkpoints_in(tmp_path)[0].step == 2
    for path in tmp_path.glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="can be read"):
        checkpoints_in(tmp_path)


def test_a_save_that_fails_leaves_all_as_it_was(tmp_path, small_state, monkeypatch):
    folder = TrainingFolder(tmp_path, 1)
    save_at(folder, small_state, 1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def full(**_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", full)
    with pytest.raises(CheckpointError, match="disk full"):
        save_at(folder, small_state, 2)
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
    assert not list(tmp_path.glob(".writing-*"))


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    first = TrainingFolder(tmp_path, 5)
    with pytest.raises(InputError, match="another program is training"):
        TrainingFolder(tmp_path, 5)
    first.close()
    TrainingFolder(tmp_path, 5).close()


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="--logdir"):
            TrainingFolder(path, 5)
    assert checkpoints_in(tmp_path / "nothing") == []
    assert os.listdir(tmp_path) == ["file"]


def test_summaries_that_fail_end_themselves_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    summaries = Summaries(tmp_path / "file" / "below")
    for step in (1, 2):
        summaries.scalars(step, {"loss": 1.0})
        summaries.sounds(step, {"sound": np.zeros([2, 512], np.float32)})
    assert caplog.text.count("No more summaries") == 1


def test_without_tensorboard_there_are_no_summaries(tmp_path, caplog, monkeypatch):
    def scalar(*_, **__):
        raise ImportError("TensorBoard is not installed")

    monkeypatch.setattr(tf.summary, "scalar", scalar)
    Summaries(tmp_path).scalars(0, {"loss": 1.0})
    assert "No more summaries" in caplog.text and "TensorBoard" in caplog.text


def test_sounds_have_rainbowgrams_in_the_summaries(tmp_path):
    audio = np.stack([recipe.clips(2048, seed=1)[0], np.zeros(2048)]).astype(np.float32)
    Summaries(tmp_path).sounds(3, {"original": audio})
    [events] = tmp_path.glob("events*")
    images = {}
    for record in tf.data.TFRecordDataset(str(events)):
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
            if value.tag == "rainbowgram/original":
                images = value.tensor.string_val[2:]  # after width and height
    shown = [tf.io.decode_png(image).numpy() for image in images]
    expected = rainbowgram_image(audio)
    assert expected[0].any() and not expected[1].any()
    np.testing.assert_array_equal(shown, expected)
