"""Records that others wrote: with other features, rates, types and levels."""

import csv
import dataclasses
import itertools
import json
import shutil
import sys

import binaries
import numpy as np
import pytest
import tensorflow as tf
import tfrecords
from commands import export, make_tfrecord, save_embeddings
from scipy.io import wavfile
from tfrecords import example

from magenta_nsynth import api
from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.audio.loudness import MAX_LEVEL, level_problem
from magenta_nsynth.audio.resample import resample
from magenta_nsynth.commands.evaluation_tables import Measured, table
from magenta_nsynth.commands.export_embeddings import export_embeddings
from magenta_nsynth.commands.picture_panels import find_subjects
from magenta_nsynth.data.rates import at_16_khz
from magenta_nsynth.data.reading import (
    NoteFilter,
    iterate,
    open_notes,
    read_notes,
    training_batches,
)
from magenta_nsynth.errors import InputError
from magenta_nsynth.notes.dataset_clips import RecordClips
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.schema import QUALITIES
from magenta_nsynth.training.evaluation import evaluate_notes
from magenta_nsynth.training.recipes import RECIPES


def tone(number=0, rate=16_000, seconds=0.125):
    times = np.arange(int(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * (440 + 40 * number) * times)).astype(np.float32)


def tfds(number):
    """As TensorFlow Datasets' NSynth is serialized."""
    return example(
        audio=tone(number),
        id=b"bass_synthetic_033-022-%03d" % number,
        pitch=22,
        velocity=number,
        instrument__label=7,
        instrument__family=0,
        instrument__source=2,
        **{f"qualities__{name}": int(name == "dark") for name in QUALITIES},
    )


def ddsp(number):
    curve = np.ones(25, np.float32)
    return example(
        audio=tone(number), f0_hz=curve, f0_confidence=curve, loudness_db=curve
    )


KINDS = {
    "ddsp": ddsp,
    "tfds": tfds,
    "pitched": lambda number: example(audio=tone(number), pitch=60 + number),
    "alone": lambda number: example(audio=tone(number)),
    # Of other types than NSynth's: as good as missing.
    "others": lambda number: example(
        audio=tone(number), pitch=np.float32([60]), note_str=number, velocity=b"loud"
    ),
}


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return WaveNet(tiny_checkpoint)


@pytest.fixture
def opened_once(model, monkeypatch):
    """An export takes the model that is open."""
    monkeypatch.setattr(api, "load_model", lambda *_, **__: model)


@pytest.fixture(scope="module")
def baseline(baseline_checkpoint):
    return Baseline(baseline_checkpoint)


def evaluated(path):
    """What evaluation makes of the notes, with a loss that costs nothing."""
    recipe = dataclasses.replace(RECIPES["wavenet"], crop_length=512, batch_size=2)
    return evaluate_notes(lambda audio: audio.mean(axis=1), open_notes(path), recipe)


def clips_of(*paths, min_samples=1):
    source = RecordClips([str(path) for path in paths], min_samples)
    return list(source.read(np.arange(source.num_clips), 0))


@pytest.mark.parametrize("kind", KINDS)
def test_audio_alone_is_enough(kind, model, baseline, opened_once, tmp_path, caplog):
    path = tfrecords.write(tmp_path / "x.tfrecord", [KINDS[kind](i) for i in range(3)])
    ids = [f"x-{i}" for i in range(3)]
    if kind == "tfds":
        ids = [f"bass_synthetic_033-022-{i:03}" for i in range(3)]
    outputs = sorted(f"{name}_embeddings.npy" for name in ids)
    encodings = model.encode([tone(i) for i in range(3)])
    with caplog.at_level("INFO", logger="absl"):
        assert save_embeddings(model, [path], tmp_path / "saved") == 0
    missing = [m for m in caplog.messages if " has no " in m]
    assert len(missing) == (kind != "tfds")
    if missing:
        assert f"{path}, record 0 (from 0): has no note_str," in missing[0]
        assert ("pitch" in missing[0]) == (kind != "pitched")
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == outputs
    for name, encoding in zip(ids, encodings, strict=True):
        saved = np.load(tmp_path / "saved" / f"{name}_embeddings.npy")
        np.testing.assert_allclose(saved, encoding, atol=1e-5)
    assert export_embeddings(export({}, [path], tmp_path / "exported")) == 0
    with open(tmp_path / "exported/embeddings-00000-of-00001.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["note_str"] for row in rows] == ids
    pitches = {"tfds": ["22"] * 3, "pitched": ["60", "61", "62"]}.get(kind, [""] * 3)
    assert [row["pitch"] for row in rows] == pitches
    if kind == "tfds":
        assert [row["velocity"] for row in rows] == ["0", "1", "2"]
        assert {row["instrument_family"] for row in rows} == {"bass"}
        assert {row["instrument_source"] for row in rows} == {"synthetic"}
        assert {row["qualities"] for row in rows} == {"dark"}
    assert save_embeddings(baseline, [path], tmp_path / "codes") == 0
    found = find_subjects(Inputs([path], sample_length=0), NoteFilter())
    assert [subject.name for subject in found.subjects] == ids
    assert evaluated(path).families.tolist() == [0 if kind == "tfds" else -1] * 3
    assert make_tfrecord([path], tmp_path / "json", as_float=True) == 0
    entries = json.loads((tmp_path / "json" / "examples.json").read_text())
    assert list(entries) == ids
    index = open_notes(path)
    assert next(iter(training_batches(index, 512, 4))).shape == (4, 512)


def test_evaluation_knows_the_families_that_there_are(tmp_path):
    path = tfrecords.write(tmp_path / "x.tfrecord", [tfds(0), ddsp(1), tfds(2)])
    result = evaluated(path)
    lines = table(Measured(RECIPES["wavenet"], result)).splitlines()
    rows = [line.split()[:2] for line in lines]
    assert rows == [["family", "notes"], ["bass", "2"], ["unknown", "1"], ["all", "3"]]
    bass = NoteFilter(families=["bass"], velocities=[2])
    assert open_notes(tfrecords.write(tmp_path / "y", [tfds(0), tfds(2)]), bass)
    with pytest.raises(
        InputError, match=r"record 1 .*instrument_family is missing; it"
    ):
        open_notes(path, bass)


def test_the_baseline_is_not_trained_without_pitch(tmp_path):
    path = tfrecords.write(tmp_path / "x.tfrecord", [tfds(0), ddsp(1)])
    index = open_notes(path)
    batches = training_batches(index, 512, 2, features=("audio", "pitch"))
    words = r"record 1 .*pitch is missing; it has audio, f0_confidence.*--csv"
    with pytest.raises(InputError, match=words):
        next(iterate(batches, index))


def test_ids_are_of_one_record_each(tmp_path):
    (tmp_path / "b").mkdir()
    records = [ddsp(i) for i in range(2)]
    first = tfrecords.write(tmp_path / "a.tfrecord-00000-of-00002", records)
    second = tfrecords.write(tmp_path / "a.tfrecord-00001-of-00002", records)
    names = [clip.labels["note_str"] for clip in clips_of(first, second)]
    assert names == [f"a-0000{i}-of-00002-{k}" for i in range(2) for k in range(2)]
    shutil.copy(first, tmp_path / "a.tfrecord")
    shutil.copy(first, tmp_path / "b" / "a.tfrecord.gz")
    paths = [tmp_path / "a.tfrecord", tmp_path / "b" / "a.tfrecord.gz"]
    names = [clip.labels["note_str"] for clip in clips_of(*paths)]
    assert names == ["a-0", "a-1", "b/a-0", "b/a-1"]
    shutil.copy(first, tmp_path / "a.tfrecords")
    paths = [tmp_path / "a.tfrecord", tmp_path / "a.tfrecords"]
    names = [clip.labels["note_str"] for clip in clips_of(*paths)]
    assert names == ["a.tfrecord-0", "a.tfrecord-1", "a.tfrecords-0", "a.tfrecords-1"]


def test_two_notes_of_one_name_and_what_is_there(model, tmp_path, caplog):
    records = [
        example(audio=tone(i), note_str=name)
        for i, name in enumerate([b"a/b", b"c", b"a_b"])
    ]
    path = tfrecords.write(tmp_path / "x.tfrecord", records)
    assert save_embeddings(model, [path], tmp_path / "out") == 1
    assert "x.tfrecord, record 2 (a_b): not saved, because" in caplog.text
    out = tmp_path / "out" / "a_b_embeddings.npy"
    np.testing.assert_allclose(np.load(out), model.encode(tone(0)), atol=1e-5)
    out.unlink()
    date = (tmp_path / "out" / "c_embeddings.npy").stat().st_mtime_ns
    assert save_embeddings(model, [path], tmp_path / "out", skip_existing=True) == 1
    assert out.exists()
    assert (tmp_path / "out" / "c_embeddings.npy").stat().st_mtime_ns == date


# Rates.


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_other_rates_are_resampled_everywhere(rate, model, baseline, tmp_path):
    sound = tone(0, rate)
    at_16k = resample(sound, rate)
    features = {"sample_rate": rate, "pitch": 69, "note_str": b"a"}
    path = tfrecords.write(tmp_path / "x.tfrecord", [example(audio=sound, **features)])
    right = tfrecords.write(tmp_path / "y.tfrecord", [example(audio=at_16k, pitch=69)])
    [clip], index, right_index = clips_of(path), open_notes(path), open_notes(right)
    assert np.array_equal(clip.audio, at_16k)
    [one] = iterate(read_notes(index), index)
    np.testing.assert_allclose(one["audio"], at_16k, atol=1e-5)
    [one] = iterate(read_notes(index, length=500, batch_size=1), index)
    start = (len(at_16k) - 500) // 2
    np.testing.assert_allclose(one["audio"][0], at_16k[start : start + 500], atol=1e-5)
    crops = [
        next(iter(training_batches(some, 700, 8, seed=3)))
        for some in (index, right_index)
    ]
    np.testing.assert_allclose(*crops, atol=1e-5)
    wanted = model.encode(at_16k)
    assert save_embeddings(model, [path], tmp_path / "saved") == 0
    saved = np.load(tmp_path / "saved" / "a_embeddings.npy")
    np.testing.assert_allclose(saved, wanted, atol=1e-5)
    assert save_embeddings(baseline, [path], tmp_path / "codes") == 0
    codes = np.load(tmp_path / "codes" / "x_z.npy")
    np.testing.assert_allclose(codes, baseline.encode(at_16k), atol=1e-4)
    found = find_subjects(Inputs([path], sample_length=0), NoteFilter())
    [subject] = found.subjects
    assert np.array_equal(subject.load().audio, at_16k)
    # Enough at 16 kHz, or just not.
    assert open_notes(path, skip_corrupt=True, min_samples=len(at_16k)).num_notes
    with pytest.raises(InputError, match="none of its 1 records"):
        open_notes(path, skip_corrupt=True, min_samples=len(at_16k) + 1)
    # JSON/WAV keeps what was there.
    assert make_tfrecord([path], tmp_path / "json", as_float=True) == 0
    found_rate, found = wavfile.read(tmp_path / "json" / "audio" / "a.wav")
    assert found_rate == rate and np.array_equal(found, sound)
    entries = json.loads((tmp_path / "json" / "examples.json").read_text())
    assert entries["a"]["sample_rate"] == rate


@pytest.mark.parametrize("rate", [1_000, 8_000, 22_050, 44_099, 48_000, 400_000])
def test_graphs_resample_as_python_does(rate):
    audio = np.random.default_rng(rate).uniform(-1, 1, rate // 4).astype(np.float32)
    wanted = resample(audio, rate)
    in_graph = tf.function(at_16_khz, reduce_retracing=True)
    for start, length in ((0, len(wanted)), (1_234, 777), (len(wanted) - 1, 1)):
        given = [tf.constant(value, tf.int64) for value in (rate, start, length)]
        piece = in_graph(audio, *given)
        # The other takes 44,099 Hz for a rate 0.05 cents away.
        tolerance = 2e-4 if rate == 44_099 else 1e-5
        np.testing.assert_allclose(
            piece, wanted[start : start + length], atol=tolerance
        )


# Slow: beside other programs TensorFlow's threads ended it once with another status.
@pytest.mark.slow
def test_a_program_ends_while_a_data_set_resamples(tmp_path):
    record = example(audio=tone(0, 44_100, 2), sample_rate=44_100)
    path = tfrecords.write(tmp_path / "x.tfrecord", [record] * 60)
    script = """
import sys
from magenta_nsynth.data.reading import open_notes, training_batches
batches = iter(training_batches(open_notes(sys.argv[1]), 6144, 1))
next(batches)
"""
    result = binaries.finish([sys.executable, "-c", script, path])
    assert result.returncode == 0, result.stderr


# What is no sound.

BAD = {
    "no rate": ({"sample_rate": 999}, "a sample_rate of 999 Hz can't be used"),
    "high rate": ({"sample_rate": 400_001}, "a sample_rate of 400001 Hz can't"),
    "negative rate": ({"sample_rate": -16_000}, "a sample_rate of -16000 Hz can't"),
    "rate 0": ({"sample_rate": 0}, "a sample_rate of 0 Hz can't"),
    "two rates": ({"sample_rate": [16_000, 8_000]}, "sample_rate has 2 values, not 1"),
    "float rate": ({"sample_rate": np.float32(44_100)}, "sample_rate is a float_list"),
    "int16 numbers": (
        {"audio": tone() * 32_000},
        "samples reach 16000; they look like 16-bit integers in floating-point form: "
        "divide by 32768",
    ),
    "far beyond": ({"audio": tone() * 1e38}, "where full scale is 1"),
    "NaN": ({"audio": np.append(tone(), np.nan)}, "has NaN or infinite samples"),
    "infinity": ({"audio": np.append(tone(), -np.inf)}, "has NaN or infinite samples"),
    "empty": ({"audio": np.zeros(0, np.float32)}, "its audio has 0 samples, 512 are"),
    "int64": (
        {"audio": (tone() * 32_000).astype(int)},
        "the feature audio is a int64_list (2,000 whole numbers up to 16,000; divide",
    ),
    "int16 bytes": (
        {"audio": (tone() * 32_000).astype("<i2").tobytes()},
        "the feature audio is a bytes_list (4,000 bytes, which look like 16-bit",
    ),
    "float64 bytes": (
        {"audio": tone().astype("<f8").tobytes()},
        "16,000 bytes, which look like float64 samples",
    ),
    "float32 bytes": (
        {"audio": tone().tobytes()},
        "8,000 bytes, which look like float32 samples",
    ),
    "a file": ({"audio": b"RIFF....WAVE" * 9}, "a bytes_list (a WAV file; decode it"),
}


def bad_record(kind):
    return example(**{"audio": tone(), "note_str": b"a", **BAD[kind][0]})


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_sound_is_refused(kind, tmp_path):
    """In Python, and by both graphs with the same words."""
    path = tfrecords.write(tmp_path / "x.tfrecord", [ddsp(0), bad_record(kind)])
    [_, error] = clips_of(path, min_samples=512)
    assert str(error).startswith(f"{path}, record 1 (from 0): ")
    assert BAD[kind][1] in str(error)
    index = open_notes(path, min_samples=512)
    for dataset in (
        training_batches(index, 512, 2),
        read_notes(index, min_samples=512),
    ):
        with pytest.raises(InputError) as raised:
            list(itertools.islice(iterate(dataset, index), 3))
        assert str(raised.value) == str(error)
    kept = open_notes(path, skip_corrupt=True, min_samples=512)
    assert (kept.num_notes, kept.num_skipped) == (1, 1)


@pytest.mark.parametrize("kind", ["negative rate", "int64", "empty"])
def test_evaluation_refuses_it(kind, tmp_path):
    path = tfrecords.write(tmp_path / "x.tfrecord", [ddsp(0), bad_record(kind)])
    [_, error] = clips_of(path, min_samples=512)
    with pytest.raises(InputError) as raised:
        evaluated(path)
    assert str(raised.value) == str(error)


def test_commands_leave_out_what_is_no_sound(model, tmp_path, caplog):
    records = [ddsp(0), *map(bad_record, BAD)]
    path = tfrecords.write(tmp_path / "x.tfrecord", records)
    assert save_embeddings(model, [path], tmp_path / "out") == 1
    for number, (_, words) in enumerate(BAD.values(), 1):
        [line] = [m for m in caplog.messages if f"record {number} (from 0)" in m]
        assert words in line
    assert save_embeddings(model, [path], tmp_path / "out", skip_corrupt=True) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x-0_embeddings.npy"]
    assert make_tfrecord([path], tmp_path / "json") == 1
    entries = json.loads((tmp_path / "json" / "examples.json").read_text())
    assert list(entries) == ["x-0"]


def test_some_overshoot_is_no_fault(model, tmp_path):
    loud = tone() * np.float32(2 * MAX_LEVEL)
    assert np.abs(loud).max() > 0.9 * MAX_LEVEL
    path = tfrecords.write(tmp_path / "x.tfrecord", [example(audio=loud)])
    [clip] = clips_of(path)
    assert np.array_equal(clip.audio, loud)
    assert np.isfinite(model.encode(loud)).all()
    with pytest.raises(InputError, match=r"the audio: samples reach 1.* 16-bit"):
        model.encode(tone() * 32_000)
    with pytest.raises(InputError, match="sound 1: samples reach"):
        model.nll([tone(), tone() * 17])


@pytest.mark.parametrize(
    ("peak", "words"),
    [
        (0, ""),
        (8, ""),
        (8.1, "divide by 128"),
        (32_768, "divide by 32768"),
        (8e6, "24-bit integers in floating-point form: divide by 8388608"),
        (2e9, "divide by 2147483648"),
        (1e30, "where full scale is 1"),
        (np.inf, "has NaN or infinite samples"),
        (np.nan, "has NaN or infinite samples"),
    ],
)
def test_levels(peak, words):
    assert words in level_problem(peak)
    assert bool(words) == bool(level_problem(peak))


# Bytes that are no text.


def test_text_that_is_no_utf_8(model, baseline, opened_once, tmp_path):
    records = [
        example(audio=tone(), note_str=b"a\xff\xfe"),
        example(audio=tone(1), zzzz=1),
    ]
    records[1] = records[1].replace(b"zzzz", b"\xff\xfe\xff\xfe")  # a feature's name
    path = tfrecords.write(tmp_path / "x.tfrecord", records)
    [clip, error] = clips_of(path)
    assert clip.labels["note_str"] == "a\udcff\udcfe"
    assert "record 1 (from 0): not a tf.Example" in str(error)
    assert save_embeddings(model, [path], tmp_path / "saved") == 1
    assert len(list((tmp_path / "saved").iterdir())) == 1
    assert save_embeddings(baseline, [path], tmp_path / "c", skip_corrupt=True) == 0
    assert make_tfrecord([path], tmp_path / "json") == 1
    for form in ("npy", "tfrecord"):
        options = {"skip_corrupt": True, "format": form}
        exported = export({}, [path], tmp_path / form, **options)
        assert export_embeddings(exported) == 2
