"""What nsynth_evaluate measures besides the loss: sounds, and a yardstick."""

import json
import math

import binaries
import numpy as np
import pytest
import scipy.signal
import scipy.stats
import tensorflow as tf
from binaries import ROOT
from notes import SMALL, SMALL_FLAGS, make_notes

from magenta_nsynth import load_model
from magenta_nsynth.audio import load_audio
from magenta_nsynth.commands.evaluation_tables import Measured, table
from magenta_nsynth.commands.reconstruct import reconstruct_notes
from magenta_nsynth.data.reading import open_notes
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.errors import InputError
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.schema import Note, parse_note_str
from magenta_nsynth.training.evaluation import NoteLosses
from magenta_nsynth.training.recipes import RECIPES
from magenta_nsynth.training.reconstruction import Reconstructions
from magenta_nsynth.training.yardstick import linear_predictor_nll
from magenta_nsynth.weights import engine

TIME = np.arange(8000) / 16_000


def tone(pitch, length=8000):
    hz = 440 * 2 ** ((pitch - 69) / 12)
    parts = [np.sin(2 * np.pi * hz * n * TIME + n) / n for n in range(1, 6)]
    return (0.2 * np.sum(parts, axis=0)[:length]).astype(np.float32)


def clip(pitch, family=0, played=None):
    labels = {"pitch": pitch, "instrument_family": family, "note_str": f"note {pitch}"}
    return Clip("", tone(pitch if played is None else played), labels, "")


@pytest.fixture(scope="module")
def sounds():
    """Of each kind one: in tune, an octave low, others' pitches, noise, unclear."""
    result = Reconstructions()
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    result.add(clip(60), 0.5 * tone(60.4))
    result.add(clip(60), tone(48))
    result.add(clip(64), tone(66))
    result.add(clip(67, family=2), noise)
    result.add(clip(55, family=2, played=57.5), tone(55))
    result.add(clip(-1, family=99, played=61), tone(60))
    return result


def test_shares_of_reconstructions(sounds):
    figures = sounds.figures("reconstruction")
    assert figures["in_tune"] == pytest.approx(2 / 5)  # one note has no pitch
    assert figures["clear_in_tune"] == pytest.approx(1 / 4)
    assert figures["octave_off"] == pytest.approx(1 / 5)
    assert figures["no_pitch"] == pytest.approx(1 / 5)
    assert figures["cents_off"] == pytest.approx(np.median([40, 1200, 200, 0]), abs=1)
    assert figures["level_db"] > 1 and figures["spectral_db"] > 5

    family = sounds.figures("reconstruction", [3, 4])
    assert (family["in_tune"], family["no_pitch"]) == (0.5, 0.5)
    assert family["clear_in_tune"] == 0
    unknown = sounds.figures("reconstruction", [5])
    assert unknown["in_tune"] is None and unknown["cents_off"] is None
    assert unknown["level_db"] < 1


def test_what_reconstructions_are_compared_with(sounds):
    original = sounds.figures("original")
    assert original["in_tune"] == pytest.approx(4 / 5)
    assert original["clear_in_tune"] == 1
    assert original["level_db"] == original["spectral_db"] == 0
    noise = sounds.figures("noise")
    assert noise["no_pitch"] == 1 and noise["cents_off"] is None
    assert noise["level_db"] < 1 and noise["spectral_db"] > 20
    assert sounds.constant_pitch == 60
    constant = sounds.figures("constant")
    assert constant["in_tune"] == pytest.approx(2 / 5)
    assert constant["clear_in_tune"] == pytest.approx(2 / 4)
    assert constant["cents_off"] == 400
    assert constant["level_db"] is None
    assert "6 reconstructions, 40 % in tune, level" in sounds.describe()


def test_notes_without_any_pitch():
    result = Reconstructions()
    result.add(clip(-1, played=60), tone(60))
    assert result.constant_pitch is None
    assert result.kinds == ("original", "reconstruction", "noise")
    assert "in tune" not in result.describe()
    assert result.note(0)["pitch"] is None
    assert result.note(0)["original"]["cents_off"] is None


def test_the_table_of_sounds(sounds):
    losses = NoteLosses(np.float32([1, 2, 3, 4, 5, 6]), np.array(sounds.families), None)
    yardsticks = {16: np.full(6, 2.0), 64: np.full(6, 1.0)}
    measured = Measured(RECIPES["wavenet"], losses, yardsticks, sounds)
    header, *rows = table(measured).splitlines()
    assert header.split()[:5] == ["family", "notes", "sound", "in", "tune"]
    words = [row.split() for row in rows]
    kinds = ["original", "reconstruction", "noise", "constant"]
    assert [row[0] for row in words] == [
        *["bass"] * 4, *["flute"] * 4, *["unknown"] * 4, *["all"] * 6,
    ]  # fmt: skip
    assert [row[2] for row in words] == [*kinds * 4, "linear", "linear"]
    made = words[13]
    assert made[:6] == ["all", "6", "reconstruction", "40.0%", "25.0%", "20.0%"]
    assert made[-2:] == ["3.5000", f"{3.5 / math.log(2):.4f}"]
    assert words[15][3:5] == ["60", "40.0%"]
    assert words[16][3] == "16" and words[16][-2] == "2.0000"
    assert words[17][3] == "64" and words[17][-2] == "1.0000"
    assert len({len(row) for row in rows if " constant " in row}) == 1

    plain = table(Measured(RECIPES["wavenet"], losses, yardsticks)).splitlines()
    assert [line.split()[:3] for line in plain[-3:]] == [
        ["all", "6", "3.5000"], ["linear", "16", "6"], ["linear", "64", "6"],
    ]  # fmt: skip


def test_the_figures_as_json(sounds):
    losses = NoteLosses(np.float32([1, 2, 3, 4, 5, 6]), np.array(sounds.families), None)
    measured = Measured(RECIPES["wavenet"], losses, {16: np.arange(6.0)}, sounds)
    content = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert list(content["families"]) == ["bass", "flute", "unknown", "all"]
    flute = content["families"]["flute"]
    assert flute["notes"] == 2 and flute["loss_nats"] == 4.5
    assert flute["linear_predictor"]["16"]["loss_nats"] == 3.5
    assert flute["reconstruction"]["in_tune"] == 0.5
    assert content["constant_pitch"] == 60
    second = content["notes"][1]
    assert (second["note"], second["family"], second["pitch"]) == (
        "note 60",
        "bass",
        60,
    )
    assert second["loss_nats"] == 2
    assert second["reconstruction"]["cents_off"] == pytest.approx(-1200, abs=1)
    assert content["notes"][3]["reconstruction"]["hz"] is None


def test_evenly_spaced_notes(tmp_path):
    notes = open_notes(make_notes(tmp_path / "n.tfrecord", 10, 600))
    assert notes.spread(10) is notes and notes.spread(99) is notes
    assert notes.spread(4).table.record.tolist() == [0, 2, 5, 7]
    assert notes.spread(1).num_notes == 1


# A linear predictor.


def test_the_yardstick_of_a_process_whose_loss_is_known():
    random = np.random.default_rng(0)
    draws = scipy.stats.t(5).rvs(30_000, random_state=random) * 0.004
    audio = scipy.signal.lfilter([1], [1, -1.6, 0.9], draws)
    audio = np.clip(audio, -0.9, 0.9)
    # Its entropy, less the logarithm of the classes' widths.
    density = scipy.stats.t(5).logpdf(draws / 0.004) - math.log(0.004)
    width = 2 * math.log(256) / 256 * (np.abs(audio) + 1 / 255)
    known = -(density + np.log(width)).mean()
    assert linear_predictor_nll(audio, 2) == pytest.approx(known, abs=0.15)
    assert linear_predictor_nll(audio, 1) > known + 0.5
    assert linear_predictor_nll(audio, 40) == pytest.approx(known, abs=0.15)


def test_the_yardstick_is_that_of_another_program():
    """Values of a separate implementation, which tries three widths."""
    path = ROOT / "checkpoints" / "notes" / "flute_acoustic_073-060-100.wav"
    centre = load_audio(str(path))[25_856 : 25_856 + 12_288]
    for order, expected in ((2, 3.00), (16, 2.48), (64, 1.58)):
        assert linear_predictor_nll(centre, order) == pytest.approx(expected, abs=0.03)


def test_the_yardstick_of_odd_sounds():
    # 0, which silence decodes to, is the edge of two classes.
    assert linear_predictor_nll(np.zeros(64), 8) == pytest.approx(math.log(2))
    full = np.tile([1.0, -1.0], 100)
    assert linear_predictor_nll(full, 2) == pytest.approx(0, abs=1e-3)
    # A clipped sine: beyond full scale all is the last class.
    clipped = np.clip(1.5 * np.sin(np.arange(4000) / 7), -1, 1)
    assert linear_predictor_nll(clipped, 16) < 0.9
    for order in (0, 33):
        with pytest.raises(InputError, match=f"order {order}"):
            linear_predictor_nll(np.zeros(64), order)


# The command.


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Six notes of two families; the last one is short."""
    path = tmp_path_factory.mktemp("tones") / "tones.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, pitch in enumerate([60, 64, 67, 60, 62, 60]):
            name = f"{'bass' if i < 4 else 'flute'}_acoustic_{i:03}-{pitch:03}-100"
            audio = tone(pitch, 8000 if i < 5 else 7300)
            writer.write(note_to_example(Note(name, audio, **parse_note_str(name))))
    return path


@pytest.fixture(scope="module")
def wavenet(tmp_path_factory):
    tf.keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("wavenet")
    engine.save_weights(WaveNetAutoencoder(SMALL), folder / "model.ckpt-7", 7)
    return folder


def test_a_note_that_is_too_short_for_the_predictor(wavenet, tones):
    words = [f"--checkpoint_path={wavenet}", f"--source_path={tones}"]
    words += ["--linear_predictor=3700", "--sample_length=0"]
    result = binaries.run("nsynth_evaluate", *words)
    assert result.returncode == 1
    assert "record 5 (from 0): its audio has 7,300 samples, 7,400" in result.stderr
    result = binaries.run("nsynth_evaluate", *words, "--skip_corrupt")
    assert result.stdout.splitlines()[-1].split()[:3] == ["linear", "3700", "5"]


def test_what_is_reconstructed(wavenet, tones):
    model = load_model(wavenet)
    options = Generation(batch_size=4, seed=3, temperature=0.5)
    result = reconstruct_notes(model, open_notes(str(tones)), options, 7500, 512)
    assert len(result.names) == 6 and result.names[0].startswith("bass_acoustic_000")
    note, made = result.first[1]
    assert len(note) == len(made) == 7168  # 14 frames
    np.testing.assert_array_equal(note, tone(64, 7168))
    expected = model.generate(model.encode(note), seed=3, temperature=0.5)
    np.testing.assert_array_equal(made, expected)
    assert result.figures("original")["in_tune"] == 1


def events_of(folder):
    """The scalars of the event files in a folder by name and step, and other names."""
    scalars, others = {}, set()
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                tensor = tf.make_ndarray(value.tensor)
                if tensor.shape == ():
                    scalars.setdefault(value.tag, {})[event.step] = float(tensor)
                else:
                    others.add(value.tag)
    return scalars, others


def test_the_command_for_a_wavenet(wavenet, tones, tmp_path):
    words = [f"--checkpoint_path={wavenet}", f"--source_path={tones}"]
    words += ["--reconstruct", "--sample_length=2048", "--limit=3", "--batch_size=2"]
    words += ["--linear_predictor=4,16", f"--save_path={tmp_path / 'new' / 'f.json'}"]
    result = binaries.run("nsynth_evaluate", *words, f"--logdir={tmp_path / 'shown'}")
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:3] for row in rows[-6:]] == [
        ["all", "3", "original"], ["all", "3", "reconstruction"], ["all", "3", "noise"],
        ["all", "3", "constant"], ["all", "3", "linear"], ["all", "3", "linear"],
    ]  # fmt: skip
    assert rows[-6][3] == "100.0%"
    assert rows[-3][3:5] == ["60", "33.3%"]
    content = json.loads((tmp_path / "new" / "f.json").read_text())
    assert content["checkpoint"] == str(wavenet / "model.ckpt-7")
    assert (content["step"], content["temperature"], content["seed"]) == (7, 1.0, 0)
    assert [note["pitch"] for note in content["notes"]] == [60, 67, 62]
    total = content["families"]["all"]
    assert f"{total['loss_nats']:.4f}" == rows[-5][-2]
    assert f"{total['reconstruction']['level_db']:.1f}" == rows[-5][-4]
    assert f"{total['linear_predictor']['16']['loss_nats']:.4f}" == rows[-1][-2]

    scalars, others = events_of(tmp_path / "shown")
    assert scalars["reconstruct/original/in_tune"] == {7: 1.0}
    assert scalars["reconstruct/reconstruction/level_db"][7] == pytest.approx(
        total["reconstruction"]["level_db"], rel=1e-6
    )
    assert "reconstruct/generated_reconstruction" in others

    # The loss is that of the same notes without reconstructions.
    plain = [words[0], words[1], *words[3:5], f"--save_path={tmp_path}"]
    result = binaries.run("nsynth_evaluate", *plain)
    assert result.stdout.splitlines()[-1].split() == ["all", "3", *rows[-5][-2:]]
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["families"]["all"]["loss_nats"] == total["loss_nats"]
    assert "notes" not in content and "seed" not in content


def test_the_command_for_the_baseline(baseline_start, tones, tmp_path):
    words = [f"--checkpoint_path={baseline_start}", f"--source_path={tones}"]
    words += ["--reconstruct", "--sample_length=0", "--griffin_lim_iterations=3"]
    result = binaries.run("nsynth_evaluate", *words, f"--save_path={tmp_path}")
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[-4][:4] == ["all", "6", "original", "100.0%"]
    assert rows[-3][2] == "reconstruction" and rows[-3][-1].count(".") == 1
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["griffin_lim_iterations"] == 3 and "temperature" not in content
    assert len(content["notes"]) == 6
    line = binaries.error_line(
        binaries.run("nsynth_evaluate", *words, "--linear_predictor=16")
    )
    assert "--linear_predictor is for the WaveNet" in line


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--temperature=0.5"], "--temperature does nothing without --reconstruct"),
        (["--seed=4"], "--seed does nothing without --reconstruct"),
        (["--reconstruct", "--griffin_lim_iterations=5"], "is for the baseline"),
        (["--linear_predictor=16,x"], "--linear_predictor=16,x: give numbers"),
        (["--linear_predictor=0"], "--linear_predictor=0: give numbers"),
        (
            ["--linear_predictor=600", "--sample_length=1024"],
            "needs 1200 samples or more of each note",
        ),
        (["--save_path=/dev/null/f.json"], "/dev/null: can't be written to"),
    ],
)
def test_what_the_command_refuses(wavenet, tones, flags, expected):
    words = [f"--checkpoint_path={wavenet}", f"--source_path={tones}", *flags]
    line = binaries.error_line(binaries.run("nsynth_evaluate", *words))
    assert expected in line, line


# During training.


def train(notes, logdir, *flags):
    words = [f"--train_path={notes}", f"--logdir={logdir}", "--crop_length=1024"]
    words += ["--num_steps=5", "--batch_size=2", *SMALL_FLAGS, *flags]
    return binaries.run("nsynth_train", *words)


def test_training_with_reconstructions(tones, tmp_path):
    plain = train(tones, tmp_path / "plain", f"--eval_path={tones}")
    flags = [f"--eval_path={tones}", "--reconstruct_steps=3"]
    result = train(tones, tmp_path / "logdir", *flags)
    assert plain.returncode == result.returncode == 0, result.stderr
    for step in (3, 5):
        assert f"Step {step}: 6 reconstructions, " in result.stderr
    scalars, others = events_of(tmp_path / "logdir")
    assert scalars["reconstruct/original/in_tune"] == {3: 1.0, 5: 1.0}
    assert set(scalars["reconstruct/reconstruction/spectral_db"]) == {3, 5}
    assert "reconstruct/generated_original" in others
    # It is the averaged weights of the checkpoint that are heard.
    words = [f"--checkpoint_path={tmp_path / 'logdir'}", f"--source_path={tones}"]
    words += ["--use_ema", "--reconstruct", f"--save_path={tmp_path}"]
    assert binaries.run("nsynth_evaluate", *words).returncode == 0
    families = json.loads((tmp_path / "evaluation.json").read_text())["families"]
    assert scalars["reconstruct/reconstruction/spectral_db"][5] == pytest.approx(
        families["all"]["reconstruction"]["spectral_db"], rel=1e-3
    )
    # And nothing about the training itself has changed.
    for name in ("model.ckpt-5.data-00000-of-00001", "model.ckpt-5.index"):
        made, expected = tmp_path / "logdir" / name, tmp_path / "plain" / name
        assert made.read_bytes() == expected.read_bytes()


def test_reconstructions_in_training_need_notes(tones, tmp_path):
    line = binaries.error_line(train(tones, tmp_path / "l", "--reconstruct_steps=3"))
    assert "--reconstruct_steps needs --eval_path" in line
