"""Training and evaluating the baseline, as a user does it."""

import dataclasses
import re

import binaries
import numpy as np
import pytest
import tensorflow as tf
import tfrecords
from notes import make_notes

from magenta_nsynth.commands.evaluation_tables import Measured, table
from magenta_nsynth.commands.options import Network
from magenta_nsynth.commands.train import train as run_training
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.reading import open_notes, read_notes
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.models.spectral import SpectralAutoencoder
from magenta_nsynth.schema import Note
from magenta_nsynth.training.batches import shortened, with_shortened_notes
from magenta_nsynth.training.evaluation import NoteLosses, SpectralEvaluator
from magenta_nsynth.training.options import NetworkShape, Saving, Steps, TrainingNotes
from magenta_nsynth.training.recipes import RECIPES
from magenta_nsynth.training.trainer import Trainer
from magenta_nsynth.weights import engine
from magenta_nsynth.weights.checkpoint import Checkpoint

SMALL = ["--width=1", "--num_latent=8"]
# A quarter of a second: 16 frames of the 256, and all else as long as ever.
FLAGS = ["--crop_length=4096", "--batch_size=3", "--learning_rate=1e-3"]


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    return make_notes(tmp_path_factory.mktemp("notes") / "train.tfrecord", count=7)


def train(notes, logdir, *flags):
    words = [f"--train_path={notes}", f"--logdir={logdir}", *FLAGS]
    return binaries.run("nsynth_train", "--model=baseline", *words, *flags)


@pytest.fixture(scope="module")
def whole(notes, tmp_path_factory):
    """A training of 6 steps in one go."""
    logdir = tmp_path_factory.mktemp("whole") / "logdir"
    extra = ["--num_steps=6", f"--eval_path={notes}", "--eval_steps=4"]
    result = train(notes, logdir, *SMALL, *extra, "--save_summaries_secs=0")
    assert result.returncode == 0, result.stderr
    return logdir, result.stderr


def tensors_of(path):
    checkpoint = Checkpoint(path)
    return dict(checkpoint.read(checkpoint.shapes))


def test_what_a_training_leaves(whole):
    logdir, said = whole
    assert "From step 0 to 6: 7 notes, 3 crops of 4096 samples a step." in said
    assert re.search(r"Step 4: loss 0\.\d{6} on 7 notes", said)
    assert re.search(r"loss 0\.\d{5} +6/6 steps", said)
    checkpoint = Checkpoint(logdir)
    assert (checkpoint.model, checkpoint.step) == ("baseline", 6)
    assert len(checkpoint.shapes) == 180
    assert checkpoint.dtypes["global_step"] == np.int64
    config = engine.read_config(checkpoint)
    assert (config.width, config.num_latent) == (1, 8)
    first = tensors_of(logdir / "model.ckpt-0")
    last = tensors_of(logdir)
    moved = [name for name in last if np.any(last[name] != first[name])]
    # A rectifier that is never crossed, or a pitch that never comes, aside.
    assert len(moved) > 170


def test_summaries(whole):
    logdir, _ = whole
    [events] = logdir.glob("events*")
    scalars, images, sounds = {}, {}, set()
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            tensor = tf.make_ndarray(value.tensor)
            if tensor.ndim == 0:
                scalars.setdefault(value.tag, {})[event.step] = float(tensor)
            elif tensor.ndim == 1:  # width, height, then PNGs
                images.setdefault(value.tag, []).append(tensor)
            else:  # WAVs with labels
                sounds.add(value.tag)
    assert list(scalars["train/loss"]) == [1, 2, 3, 4, 5, 6]
    assert list(scalars["eval/loss"]) == [0, 4, 6]
    assert min(scalars["train/gradient_norm"].values()) > 0
    assert sounds == {"sound/original", "sound/reconstruction"}
    views = ["original", "reconstruction", "difference", "halfway_to_the_next"]
    views += ["pitch_up_2", "pitch_down_2"]
    assert set(images) == {
        *(f"spectrogram/{view}" for view in views),
        "rainbowgram/original",
        "rainbowgram/reconstruction",
    }
    for pictures in images.values():
        assert len(pictures) == 3  # measurements
        assert len(pictures[0]) == 2 + 3  # notes
    original = tf.io.decode_png(images["spectrogram/original"][0][2]).numpy()
    assert original.shape == (512, 17, 1)
    # Notes sound low: the lower half of the picture is the brighter one.
    assert original[256:].mean() > original[:256].mean() + 10


def test_stopping_and_going_on_makes_the_same_weights(tmp_path, notes, whole):
    logdir = tmp_path / "logdir"
    assert train(notes, logdir, *SMALL, "--num_steps=2").returncode == 0
    # The model is the folder's own now.
    words = [f"--train_path={notes}", f"--logdir={logdir}", *FLAGS]
    result = binaries.run("nsynth_train", *words, "--num_steps=6")
    assert result.returncode == 0, result.stderr
    one, other = tensors_of(whole[0]), tensors_of(logdir)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def of_classes(given):
    """The arguments of `train`, of the options by name."""
    for cls in (Network, NetworkShape, TrainingNotes, NoteFilter, Steps, Saving):
        names = {field.name for field in dataclasses.fields(cls)} & given.keys()
        yield cls(**{name: given[name] for name in names})


def test_other_models_and_numbers_are_refused(tmp_path, notes, whole, tiny_checkpoint):
    trained, new = str(whole[0]), str(tmp_path / "logdir")
    for given, words in (
        ({"logdir": trained, "model": "wavenet"}, "pass one of a WaveNet"),
        ({"checkpoint_path": tiny_checkpoint}, "pass one of the spectral baseline"),
        ({"ae_width": 3}, "--ae_width is for the WaveNet"),
        ({"logdir": trained, "num_stages": 3}, "--num_stages is for the WaveNet"),
        (
            {"checkpoint_path": tiny_checkpoint, "model": "", "num_latent": 3},
            "--num_latent is for the baseline",
        ),
        ({"past_noise": 1.0}, "--past_noise is for the WaveNet"),
        ({"past_detune": 0.5}, "--past_detune is for the WaveNet"),
        ({"past_octaves": 0.5}, "--past_octaves is for the WaveNet"),
        ({"pitch_weight": 0.2}, "--pitch_weight is for the WaveNet"),
        ({"batch_size": 1}, "--batch_size must be 2 or more for the baseline"),
        ({"crop_length": 512}, "513 to 65535"),
        ({"crop_length": 65_536}, "513 to 65535"),
        ({"logdir": trained, "width": 2}, "width is 1 there and 2 was"),
        ({"logdir": trained, "num_steps": 6}, "--num_steps=6 is reached"),
    ):
        given = {"train_path": [notes], "logdir": new, "model": "baseline", **given}
        with pytest.raises(NSynthError, match=words):
            run_training(*of_classes(given))
    words = [f"--train_path={notes}", f"--logdir={new}", "--config=h512_bo16"]
    result = binaries.run("nsynth_train", "--model=baseline", *words)
    line = binaries.error_line(result)
    assert "--config=h512_bo16 is for --model=wavenet, not for --model=baseline" in line


def test_a_note_without_pitch_is_named_or_left_out(tmp_path):
    known = tfrecords.examples([1], length=4096)
    unknown = [note_to_example(Note("unknown", tfrecords.audio(0, 4096)))]
    path = tfrecords.write(tmp_path / "a.tfrecord", [*known, *unknown])
    given = [*SMALL, "--num_steps=1"]
    result = train(path, tmp_path / "logdir", *given)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert f"{path}, record 1 (from 0): its pitch is not known (-1)" in line
    assert "--csv" in line and "--skip_corrupt" in line
    result = train(path, tmp_path / "left_out", *given, "--skip_corrupt")
    assert result.returncode == 0, result.stderr
    assert "Left out 1 damaged notes" in result.stderr
    index = open_notes([path])
    with pytest.raises(InputError, match="record 1"), index.errors():
        list(read_notes(index, ("audio", "pitch"), needs_pitch=True))
    assert len(list(read_notes(index, ("audio", "pitch")))) == 2
    with pytest.raises(InputError, match="ask for the feature pitch"):
        read_notes(index, ("audio",), needs_pitch=True)


@pytest.mark.slow
def test_two_devices_are_one(tmp_path, notes):
    """Each normalises by its own half, and both keep the mean of what they see."""
    program = tmp_path / "program.py"
    program.write_text(
        """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
import keras, numpy as np, recipe
from magenta_nsynth.config import SpectralConfig
from magenta_nsynth.models.spectral import SpectralAutoencoder
from magenta_nsynth.training.batches import distribute
from magenta_nsynth.training.trainer import Trainer
audio = recipe.clips(4096, 1, 4)
batch = {"audio": audio, "pitch": np.array([60, 61, 62, 63])}
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
def make(strategy=None):
    keras.utils.set_random_seed(0)
    model = SpectralAutoencoder(SpectralConfig(width=1, num_latent=8))
    return Trainer(model, strategy=strategy)
with strategy.scope():
    both = make(strategy)
batches = distribute(
    strategy, lambda shard: tf.data.Dataset.from_tensors(batch).unbatch().batch(4), 4
)
loss, norm, _ = both.train_step(next(batches), 1e-3)
halves = [make() for _ in range(2)]
losses, means = [], []
for i, half in enumerate(halves):
    part = {k: tf.constant(v[2 * i : 2 * i + 2]) for k, v in batch.items()}
    losses.append(half.train_step(part, 1e-3)[0])
    means.append([v.numpy() for v in half.model.moving_averages])
assert abs(np.mean(losses) - loss) < 1e-6, (losses, loss)
for got, one, other in zip(both.model.moving_averages, *means):
    for copy in strategy.experimental_local_results(got.value):
        mean = (one + other) / 2
        np.testing.assert_allclose(copy.numpy(), mean, rtol=1e-4, atol=1e-6)
print("the same")
"""
    )
    environment = binaries.environment(binaries.ROOT / "tests")
    result = binaries.finish(binaries.command(program), env=environment)
    assert result.stdout.endswith("the same\n"), result.stderr


def test_evaluate_prints_a_table(tmp_path, notes, whole):
    given = [f"--checkpoint_path={whole[0]}", f"--source_path={notes}"]
    given += ["--sample_length=4096", f"--logdir={tmp_path / 'shown'}"]
    result = binaries.run("nsynth_evaluate", *given)
    assert result.returncode == 0, result.stderr
    header, bass, everything = result.stdout.splitlines()
    assert header.split() == ["family", "notes", "loss"]
    assert bass.split()[:2] == ["bass", "7"]
    loss = float(everything.split()[2])
    assert f"Step 6: loss {loss:.6f} on 7" in whole[1]
    assert list((tmp_path / "shown").glob("events*"))
    short = make_notes(tmp_path / "short.tfrecord", 2, 512)
    line = binaries.error_line(
        binaries.run(
            "nsynth_evaluate", given[0], f"--source_path={short}", "--sample_length=0"
        )
    )
    assert "record 0 (from 0): its audio has 512 samples, 513 are asked for" in line
    whole_notes = binaries.run("nsynth_evaluate", *given[:2], "--sample_length=0")
    assert whole_notes.stdout == result.stdout  # they are of 4096 samples
    line = binaries.error_line(
        binaries.run("nsynth_evaluate", *given[:2], "--sample_length=512")
    )
    assert "513 or more" in line


def test_shortened_notes():
    audio = tf.ones([200, 4000])
    position = tf.constant(5, tf.int64)
    short = shortened(audio, 1000, 2**32 - 1, position).numpy()
    lengths = short.sum(axis=1).astype(int)
    for clip, length in zip(short, lengths, strict=True):
        assert clip[:length].all() and not clip[length:].any()
    assert 1000 <= lengths.min() < 1200 and lengths.max() == 4000
    assert 0.4 < np.mean(lengths == 4000) < 0.6
    assert np.median(lengths[lengths < 4000]) == pytest.approx(2500, abs=400)
    again = shortened(audio, 1000, 2**32 - 1, position)
    assert np.array_equal(short, again)
    for other in ((7, position), (2**32 - 1, position + 1)):
        assert not np.array_equal(short, shortened(audio, 1000, *other))
    whole = shortened(audio[:, :900], 1000, 0, position)
    assert np.array_equal(whole, audio[:, :900])


def test_shortened_notes_of_several_workers():
    batches = [
        {"audio": np.ones([4, 900], np.float32), "pitch": np.arange(4) + 10 * i}
        for i in range(3)
    ]

    def of(part, num_parts, first=0):
        rows = slice(4 // num_parts * part, 4 // num_parts * (part + 1))
        own = [{name: v[rows] for name, v in b.items()} for b in batches[first:]]
        dataset = tf.data.Dataset.from_generator(
            lambda: own,
            output_signature={
                "audio": tf.TensorSpec([None, 900]),
                "pitch": tf.TensorSpec([None], tf.int64),
            },
        )
        made = with_shortened_notes(dataset, 100, 3, first, (part, num_parts))
        return list(made.as_numpy_iterator())

    whole = of(0, 1)
    for i, (one, other) in enumerate(zip(of(0, 2), of(1, 2), strict=True)):
        for name, values in whole[i].items():
            np.testing.assert_array_equal(
                np.concatenate([one[name], other[name]]), values
            )
    np.testing.assert_array_equal(of(0, 1, 2)[0]["audio"], whole[2]["audio"])
    assert len({tuple(batch["audio"].sum(axis=1)) for batch in whole}) == 3
    assert whole[1]["pitch"].tolist() == [10, 11, 12, 13]


def test_training_with_shortened_notes(tmp_path, notes):
    words = [*SMALL, "--num_steps=2", "--seed=3"]
    result = train(notes, tmp_path / "short", *words, "--shortest_note=600")
    assert result.returncode == 0, result.stderr
    assert train(notes, tmp_path / "whole", *words).returncode == 0
    tensors = [tensors_of(tmp_path / name) for name in ("short", "whole")]
    names = [name for name in tensors[0] if name.endswith("weights")]
    assert names
    assert not all(np.array_equal(*(t[name] for t in tensors)) for name in names)
    for flags, expected in (
        (["--shortest_note=4096"], "--shortest_note=4096 must be below"),
        (["--shortest_note=-1"], "--shortest_note"),
    ):
        line = binaries.error_line(train(notes, tmp_path / "l", *SMALL, *flags))
        assert expected in line


def test_losses_are_the_originals(data, baseline_start):
    golden = dict(np.load(data / "baseline_tiny" / "inference.npz"))
    evaluator = SpectralEvaluator(engine.load_autoencoder(baseline_start))
    batch = {"audio": golden["audio"], "pitch": golden["pitch"]}
    losses = evaluator(batch)
    assert losses.shape == (2,)
    np.testing.assert_allclose(losses.mean(), golden["loss"], rtol=0, atol=2e-5)
    views = evaluator.views(batch)
    assert {view.shape for view in views.values()} == {(2, 512, 251, 1)}
    np.testing.assert_allclose(
        views["reconstruction"][:, ::8, ::8], golden["xhat"][:, :, :32], atol=1e-5
    )
    np.testing.assert_allclose(
        views["difference"],
        (golden["spectrogram"][:, :, :251] - views["reconstruction"] + 1) / 2,
        atol=1e-4,
    )
    model = engine.load_autoencoder(baseline_start)
    z = golden["z"]
    halfway = model.decoder((z + z[::-1]) / 2, golden["pitch"])[:, :, :251]
    np.testing.assert_allclose(views["halfway_to_the_next"], halfway, atol=1e-5)
    for name, shift in (("pitch_up_2", 2), ("pitch_down_2", -2)):
        shifted = model.decoder(z, golden["pitch"] + shift)[:, :, :251]
        np.testing.assert_allclose(views[name], shifted, atol=1e-5)
    # Pitches end at 0 and 127; longer notes are a mean over their windows.
    edge = evaluator.views({**batch, "pitch": np.array([0, 127])})
    np.testing.assert_allclose(
        edge["pitch_down_2"][0], edge["reconstruction"][0], atol=1e-6
    )
    long = {**batch, "audio": np.tile(golden["audio"], 2)}
    assert evaluator(long).shape == (2,)
    assert evaluator.views(long)["original"].shape == (2, 512, 256, 1)


def test_the_recipe():
    recipe = RECIPES["baseline"]
    assert [float(recipe.schedule(step)) for step in (0, 10**6)] == [
        pytest.approx(1e-4)
    ] * 2
    trainer = Trainer(SpectralAutoencoder())
    assert trainer.state.betas == (0.5, 0.999)
    assert recipe.describe(0.0123456) == "loss 0.012346"
    losses = NoteLosses(np.float32([0.25, 0.5]), np.array([0, 4]), None)
    lines = table(Measured(recipe, losses)).splitlines()
    assert [line.split() for line in lines] == [
        ["family", "notes", "loss"],
        ["bass", "1", "0.250000"],
        ["keyboard", "1", "0.500000"],
        ["all", "2", "0.375000"],
    ]
