"""The baseline through the commands: z of sounds and TFRecords, and back."""

import csv
import errno
import os
import pathlib

import binaries
import numpy as np
import pytest
import recipe
import tfrecords
from commands import generate, save_embeddings
from scipy.io import wavfile

from magenta_nsynth.api import Baseline, load_baseline
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.errors import InputError
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.schema import Note, parse_note_str


@pytest.fixture(scope="module")
def model(baseline_start):
    return load_baseline(baseline_start)


@pytest.fixture(scope="module")
def golden(data):
    return dict(np.load(data / "baseline_tiny" / "inference.npz"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def write_wav(path, audio, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, audio)
    return path


def clip(length=3000, seed=0):
    return recipe.clips(length, seed=seed, batch=1)[0]


def examples(count, length=64_000, **fields):
    """Notes with a name, a pitch and labels of their own."""
    made = []
    for i, audio in enumerate(recipe.clips(length, seed=9, batch=count)):
        name = f"organ_electronic_{i:03}-{40 + i:03}-075"
        qualities = tuple(int(k in (i % 10, 9)) for k in range(10))
        labels = {**parse_note_str(name), "qualities": qualities, **fields}
        made.append(note_to_example(Note(name, audio, **labels)))
    return made


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_wav(path):
    rate, audio = wavfile.read(path)
    assert rate == 16_000
    assert np.isfinite(audio).all()
    return audio


def assert_z(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_z_of_sounds_are_the_originals(model, folder, tmp_path, golden):
    for name, audio in zip(("a-060-100", "b"), golden["audio"], strict=True):
        write_wav(folder / "organ" / f"{name}.wav", audio)
    assert save_embeddings(model, [folder / "organ"], tmp_path / "out") == 0
    assert binaries.names(tmp_path / "out") == [
        "a-060-100_z.csv",
        "a-060-100_z.npy",
        "b_z.csv",
        "b_z.npy",
    ]
    for name, z in zip(("a-060-100", "b"), golden["z"], strict=True):
        saved = np.load(tmp_path / "out" / f"{name}_z.npy")
        assert (saved.shape, saved.dtype) == ((1, 124), np.float32)
        assert_z(saved, z[0])
    [row] = read_csv(tmp_path / "out" / "a-060-100_z.csv")
    assert row == {
        "note_str": "a-060-100",
        "pitch": "60",
        "velocity": "100",
        "instrument_family": "organ",
        "instrument_source": "",
        "qualities": "",
        "num_samples": "64000",
        "rows": "1",
    }
    [row] = read_csv(tmp_path / "out" / "b_z.csv")
    assert (row["note_str"], row["pitch"]) == ("b", "")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_every_note_of_a_tfrecord(model, folder, tmp_path, batch_size):
    records = examples(7)
    path = tfrecords.write(folder / "nsynth-test.tfrecord", records)
    assert save_embeddings(model, [path], tmp_path / "out", batch_size=batch_size) == 0
    z = np.load(tmp_path / "out" / "nsynth-test_z.npy")
    assert (z.shape, z.dtype) == ((7, 124), np.float32)
    wanted = model.encode(recipe.clips(64_000, seed=9, batch=7))[:, 0]
    assert_z(z, wanted)
    rows = read_csv(tmp_path / "out" / "nsynth-test_z.csv")
    assert [row["note_str"] for row in rows] == [
        f"organ_electronic_{i:03}-{40 + i:03}-075" for i in range(7)
    ]
    assert [int(row["pitch"]) for row in rows] == list(range(40, 47))
    assert {row["velocity"] for row in rows} == {"75"}
    assert {row["instrument_family"] for row in rows} == {"organ"}
    assert {row["instrument_source"] for row in rows} == {"electronic"}
    assert rows[0]["qualities"] == "bright tempo-synced"
    assert rows[1]["qualities"] == "dark tempo-synced"
    assert {row["num_samples"] for row in rows} == {"64000"}


def test_the_first_group_of_features_is_enough(model, folder, tmp_path):
    records = [tfrecords.first_group(record) for record in examples(2)]
    path = tfrecords.write(folder / "a.tfrecord", records)
    assert save_embeddings(model, [path], tmp_path / "out") == 0
    assert len(np.load(tmp_path / "out" / "a_z.npy")) == 2


def test_shards_of_a_set_go_into_one_file(model, folder, tmp_path):
    records = examples(5, 2000)
    for i in range(2):
        tfrecords.write(folder / f"n.tfrecord-0000{i}-of-00002", records[i * 3 :][:3])
    assert save_embeddings(model, [folder], tmp_path / "all") == 0
    assert binaries.names(tmp_path / "all") == ["n_z.csv", "n_z.npy"]
    z = np.load(tmp_path / "all" / "n_z.npy")
    assert len(z) == 5
    one = folder / "n.tfrecord-00001-of-00002"
    assert save_embeddings(model, [one], tmp_path / "one") == 0
    saved = np.load(tmp_path / "one" / "n-00001-of-00002_z.npy")
    assert_z(saved, z[3:])


def test_two_sets_of_one_name_are_refused(model, folder, tmp_path):
    for name in ("a", "b"):
        (folder / name).mkdir()
        tfrecords.write(folder / name / "n.tfrecord", examples(1, 600))
    paths = [folder / "a", folder / "b"]
    with pytest.raises(InputError, match="would both be written to"):
        save_embeddings(model, paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_notes_of_all_lengths(model, folder, tmp_path):
    lengths = [513, 30_000, 70_000, 64_000]
    records = [
        note_to_example(Note(f"n{i}", clip(n, i))) for i, n in enumerate(lengths)
    ]
    path = tfrecords.write(folder / "a.tfrecord", records)
    assert save_embeddings(model, [path], tmp_path / "out", sample_length=0) == 0
    z = np.load(tmp_path / "out" / "a_z.npy")
    assert len(z) == 5
    rows = read_csv(tmp_path / "out" / "a_z.csv")
    assert [int(row["rows"]) for row in rows] == [1, 1, 2, 1]
    assert [int(row["num_samples"]) for row in rows] == lengths
    assert_z(z[2:4], model.encode(clip(70_000, 2)))
    assert {row["pitch"] for row in rows} == {""}
    # And back: each as long as it was, of z alone.
    sounds = tmp_path / "sounds"
    options = {"pitch": 60, "num_iters": 1, "sample_length": 0}
    assert generate(model, [tmp_path / "out"], sounds, **options) == 0
    for i, length in enumerate(lengths):
        assert len(read_wav(sounds / f"gen_n{i}.wav")) == length


def test_a_damaged_record_is_named_or_left_out(model, folder, tmp_path, caplog):
    records = examples(4, 2000)
    path = tfrecords.write(folder / "a.tfrecord", records)
    tfrecords.flip(path, tfrecords.starts(records)[2] + 500)
    other = tfrecords.write(folder / "b.tfrecord", records[:1])
    assert save_embeddings(model, [path, other], tmp_path / "out") == 1
    assert f"{path}" in caplog.text
    assert "record 2" in caplog.text
    assert binaries.names(tmp_path / "out") == ["b_z.csv", "b_z.npy"]
    assert save_embeddings(model, [path], tmp_path / "out", skip_corrupt=True) == 0
    assert len(np.load(tmp_path / "out" / "a_z.npy")) == 3


def test_a_short_note_is_named_or_left_out(model, folder, tmp_path, caplog):
    records = [*examples(1, 512), *examples(2, 600)[1:]]
    path = tfrecords.write(folder / "a.tfrecord", records)
    assert save_embeddings(model, [path], tmp_path / "out") == 1
    assert "record 0 (from 0): its audio has 512 samples, 513 are asked" in caplog.text
    assert "--skip_corrupt" in caplog.text
    assert not (tmp_path / "out" / "a_z.npy").exists()
    assert save_embeddings(model, [path], tmp_path / "out", skip_corrupt=True) == 0
    assert len(np.load(tmp_path / "out" / "a_z.npy")) == 1


@pytest.mark.parametrize("job", [save_embeddings, generate])
def test_bad_sounds_are_named_and_the_others_done(model, folder, tmp_path, caplog, job):
    write_wav(folder / "one_C4.wav", clip(1))
    write_wav(folder / "few_C4.wav", clip(512))
    bad = clip(900)
    bad[5] = np.nan
    write_wav(folder / "nan_C4.wav", bad)
    (folder / "empty_C4.wav").write_bytes(b"")
    (folder / "text_C4.wav").write_bytes(b"no sound at all" * 9)
    write_wav(folder / "good_C4.wav", np.stack([clip(900), clip(900, 1)], axis=1))
    assert job(model, [folder], tmp_path / "out") == 1
    for words in (
        "one_C4.wav: 1 samples at 16 kHz are too few; the baseline needs at least 513",
        "few_C4.wav: 512 samples at 16 kHz are too few",
        "nan_C4.wav: has NaN",
        "empty_C4.wav: the file is empty",
        "text_C4.wav: not a sound file",
        "5 of 6 files failed",
    ):
        assert words in caplog.text
    written = binaries.names(tmp_path / "out")
    assert written == (
        ["good_C4_z.csv", "good_C4_z.npy"]
        if job is save_embeddings
        else ["gen_good_C4.wav"]
    )


def test_stereo_and_other_rates(model, folder, tmp_path):
    mono = clip(8000)
    write_wav(folder / "stereo_C4.wav", np.stack([mono, mono], axis=1))
    write_wav(folder / "mono_C4.wav", mono)
    write_wav(folder / "fast_C4.wav", np.repeat(mono, 3), 48_000)
    assert save_embeddings(model, [folder], tmp_path / "z") == 0
    z = {path.stem: np.load(path) for path in (tmp_path / "z").glob("*.npy")}
    np.testing.assert_allclose(z["stereo_C4_z"], z["mono_C4_z"], atol=1e-5)
    assert generate(model, [folder], tmp_path / "g", num_iters=1) == 0
    for name in ("stereo", "mono", "fast"):
        assert len(read_wav(tmp_path / "g" / f"gen_{name}_C4.wav")) == 8000


def test_skip_existing(model, folder, tmp_path):
    write_wav(folder / "a_C4.wav", clip())
    write_wav(folder / "b_C4.wav", clip(seed=1))
    for job, name in ((save_embeddings, "a_C4_z.npy"), (generate, "gen_a_C4.wav")):
        out = tmp_path / job.__name__
        out.mkdir()
        (out / name).write_bytes(b"mine")
        options = {} if job is save_embeddings else {"num_iters": 1}
        assert job(model, [folder], out, skip_existing=True, **options) == 0
        assert (out / name).read_bytes() == b"mine"
        assert (out / name.replace("a_", "b_")).exists()


def test_folders_are_mirrored(model, folder, tmp_path):
    write_wav(folder / "x" / "y" / "a_C4.wav", clip())
    assert save_embeddings(model, [folder], tmp_path / "z", recursive=True) == 0
    assert (tmp_path / "z" / "x" / "y" / "a_C4_z.npy").exists()
    given = {"recursive": True, "num_iters": 1}
    assert generate(model, [tmp_path / "z"], tmp_path / "g", **given) == 0
    assert len(read_wav(tmp_path / "g" / "x" / "y" / "gen_a_C4.wav")) == 3000


@pytest.mark.parametrize("where", ["header", "rows"])
def test_a_full_disk_leaves_nothing_half_written(
    model, folder, tmp_path, monkeypatch, where
):
    import magenta_nsynth.embeddings.npy_csv as npy_csv

    path = tfrecords.write(folder / "a.tfrecord", examples(3, 600))
    name = "_write_header" if where == "header" else "add"

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(npy_csv.NpyCsvWriter, name, fail)
    with pytest.raises(OSError, match="No space") as error:
        save_embeddings(model, [path], tmp_path / "out")
    assert error.value.filename == str(tmp_path / "out" / "a_z.npy")
    assert binaries.names(tmp_path / "out") == []


def test_sound_to_sound_at_its_own_pitch(model, folder, tmp_path):
    """By the name, a record's label or the CSV beside z: the same sound."""
    audio = clip(64_000, 4)
    write_wav(folder / "n-043-075.wav", audio)
    note = Note("n-043-075", audio, pitch=43)
    record = tfrecords.write(tmp_path / "r.tfrecord", [note_to_example(note)])
    assert save_embeddings(model, [record], tmp_path / "z") == 0
    options = {"num_iters": 3, "seed": 1, "normalize": True}
    wanted = model.reconstruct(audio, 43, num_iters=3, seed=1)
    wanted = wanted / np.abs(wanted).max()
    for i, source in enumerate((folder, record, tmp_path / "z")):
        out = tmp_path / f"out{i}"
        assert generate(model, [source], out, **options) == 0
        sound = read_wav(out / "gen_n-043-075.wav")
        assert sound.shape == (64_000,)
        np.testing.assert_allclose(sound, wanted, rtol=0, atol=1e-4)


def test_the_pitch_can_be_changed(model, folder, tmp_path, caplog):
    audio = clip(4000, 4)
    write_wav(folder / "n-126-075.wav", audio)
    caplog.set_level("INFO")
    for options, pitch in (
        ({"pitch_shift": -2}, 124),
        ({"pitch": 0}, 0),
        ({"pitch": 127}, 127),
        ({"pitch": 60, "pitch_shift": 3}, 63),
        ({"pitch_shift": 2}, 127),
    ):
        out = tmp_path / str(options)
        given = {**options, "num_iters": 2, "seed": 0}
        assert generate(model, [folder], out, **given) == 0
        wanted = model.reconstruct(audio, pitch, num_iters=2, seed=0)
        np.testing.assert_allclose(
            read_wav(out / "gen_n-126-075.wav"), wanted, rtol=0, atol=1e-5
        )
    assert "pitch 128 is out of range, 127 is made" in caplog.text


def test_an_unknown_pitch_is_asked_for(model, folder, tmp_path, caplog):
    write_wav(folder / "nameless.wav", clip())
    write_wav(folder / "tuned_A3.wav", clip())
    assert generate(model, [folder], tmp_path / "out", num_iters=1) == 1
    assert "nameless.wav: its pitch is not known; give --pitch (MIDI" in caplog.text
    assert "flute_midi60.wav" in caplog.text
    assert binaries.names(tmp_path / "out") == ["gen_tuned_A3.wav"]
    caplog.clear()
    np.save(tmp_path / "z.npy", np.zeros(124, np.float32))
    assert generate(model, [tmp_path / "z.npy"], tmp_path / "out") == 1
    assert "z.npy: its pitch is not known" in caplog.text
    assert ".csv that nsynth_save_embeddings wrote" in caplog.text
    caplog.clear()
    record = [note_to_example(Note("unpitched", clip()))]
    path = tfrecords.write(tmp_path / "r.tfrecord", record)
    assert generate(model, [path], tmp_path / "out") == 1
    assert "record 0 (unpitched): its pitch is not known" in caplog.text
    assert "nsynth_make_tfrecord --csv" in caplog.text


def test_the_rules_for_names(model, folder, tmp_path, caplog):
    for name in ("Hammond B3", "organ C3", "guitar_64"):
        write_wav(folder / f"{name}.wav", clip())
    caplog.set_level("INFO")

    def pitches(**options):
        assert save_embeddings(model, [folder], tmp_path / "z", **options) == 0
        return {
            table.stem.removesuffix("_z"): row["pitch"]
            for table in sorted((tmp_path / "z").glob("*.csv"))
            for row in read_csv(table)
        }

    assert pitches() == {"Hammond B3": "", "guitar_64": "", "organ C3": "48"}
    assert (
        "pitches of 3 sounds: 1 by note name (organ C3.wav: 48); 2 not" in caplog.text
    )
    both = [NameRules("midi", "C3"), NameRules("note")]
    assert pitches(rules=both[0]) == {
        "Hammond B3": "",
        "guitar_64": "64",
        "organ C3": "60",
    }
    assert pitches(rules=both[1]) == {
        "Hammond B3": "59",
        "guitar_64": "",
        "organ C3": "48",
    }
    options = {"num_iters": 2, "seed": 0, "rules": both[0]}
    caplog.clear()
    assert generate(model, [folder], tmp_path / "out", **options) == 1
    assert "Hammond B3.wav: its pitch is not known" in caplog.text
    assert "--pitch_from_name" in caplog.text
    wanted = model.reconstruct(clip(), 60, num_iters=2, seed=0)
    sound = read_wav(tmp_path / "out" / "gen_organ C3.wav")
    np.testing.assert_allclose(sound, wanted, rtol=0, atol=1e-5)
    record = tfrecords.write(
        tmp_path / "r.tfrecord", [note_to_example(Note("a", clip()))]
    )
    for job, source in (
        (save_embeddings, record),
        (generate, record),
        (generate, tmp_path / "z"),
    ):
        with pytest.raises(InputError, match="--pitch_from_name=note is for the names"):
            job(model, [source], tmp_path / "none", rules=both[1])


def test_z_without_a_csv(model, tmp_path):
    """As the original saves it: a row for each note, and nothing beside it."""
    z = np.random.default_rng(0).normal(size=[11, 124]).astype(np.float32)
    np.save(tmp_path / "nsynth-test_z.npy", z)
    options = {"pitch": 60, "num_iters": 2, "seed": 3, "sample_length": 2000}
    path = tmp_path / "nsynth-test_z.npy"
    assert generate(model, [path], tmp_path / "out", **options) == 0
    assert binaries.names(tmp_path / "out") == [
        f"gen_nsynth-test_z_{i:02}.wav" for i in range(11)
    ]
    wanted = model.generate(z[5:6], 60, 2000, 2, 3)
    sound = read_wav(tmp_path / "out" / "gen_nsynth-test_z_05.wav")
    np.testing.assert_allclose(sound, wanted, rtol=0, atol=1e-4)
    np.save(tmp_path / "one.npy", z[0])
    assert (
        generate(model, [tmp_path / "one.npy"], tmp_path / "out", pitch=60, num_iters=1)
        == 0
    )
    assert len(read_wav(tmp_path / "out" / "gen_one.wav")) == 64_000


def test_halfway_between_two_notes(model, folder, tmp_path):
    one, other, third = clip(4000, 1), clip(3000, 2) / 2, clip(3500, 3)
    write_wav(folder / "a_C4.wav", one)
    write_wav(folder / "b_D4.wav", other)
    write_wav(folder / "c.wav", third)
    options = {"num_iters": 4, "seed": 0}
    out = tmp_path / "out"
    assert generate(model, [folder], out, halfway=True, **options) == 0
    assert binaries.names(out) == ["gen_a_C4_b_D4.wav", "gen_b_D4_c.wav"]
    z = (model.encode(one) + model.encode(other)) / 2
    peak = (np.abs(one).max() + np.abs(other).max()) / 2
    wanted = model.generate(z, 60, 3000, **options, peak=peak)
    sound = read_wav(out / "gen_a_C4_b_D4.wav")
    np.testing.assert_allclose(sound, wanted, rtol=0, atol=1e-4)
    # With the phase of the two together, and from z.
    given = {"halfway": True, "pitch": 50}
    paths = [folder / "a_C4.wav", folder / "b_D4.wav"]
    assert generate(model, paths, out, phase="source", **given) == 0
    phase = model.phase((one[:3000] + other) / 2)
    wanted = model.generate(z, 50, 3000, phase=phase, peak=peak)
    sound = read_wav(out / "gen_a_C4_b_D4.wav")
    np.testing.assert_allclose(sound, wanted, rtol=0, atol=1e-4)
    assert save_embeddings(model, paths, tmp_path / "z") == 0
    assert generate(model, [tmp_path / "z"], out, **given, **options) == 0
    wanted = model.generate(z, 50, 3000, **options)
    sound = read_wav(out / "gen_a_C4_b_D4.wav")
    np.testing.assert_allclose(sound, wanted, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="--halfway needs two or more inputs"):
        generate(model, paths[:1], out, halfway=True)


def test_a_bad_neighbour_spoils_its_pairs_alone(model, folder, tmp_path, caplog):
    for name in "abcde":
        write_wav(folder / f"{name}_C4.wav", clip(1000, ord(name)))
    (folder / "c_C4.wav").write_bytes(b"")
    given = {"halfway": True, "num_iters": 1, "batch_size": 1}
    assert generate(model, [folder], tmp_path / "out", **given) == 1
    assert binaries.names(tmp_path / "out") == [
        "gen_a_C4_b_C4.wav",
        "gen_d_C4_e_C4.wav",
    ]


def test_silence_stays_silence(model, folder, tmp_path):
    write_wav(folder / "nothing_C4.wav", np.zeros(64_000, np.float32))
    write_wav(folder / "click_C4.wav", np.eye(1, 1600, 800, np.float32)[0])
    for phase in ("griffin_lim", "source"):
        for normalize in (False, True):
            out = tmp_path / f"{phase}{normalize}"
            given = {"phase": phase, "normalize": normalize}
            if phase == "griffin_lim":
                given["num_iters"] = 2
            assert generate(model, [folder], out, **given) == 0
            silent = read_wav(out / "gen_nothing_C4.wav")
            assert silent.shape == (64_000,)
            assert not np.any(silent)
            click = read_wav(out / "gen_click_C4.wav")
            np.testing.assert_allclose(np.abs(click).max(), 1, rtol=1e-5)


def test_ids_that_are_no_file_names(model, tmp_path):
    notes = [Note("a/b é", clip(600), pitch=1), Note("a:b", clip(600), pitch=2)]
    path = tfrecords.write(tmp_path / "r.tfrecord", map(note_to_example, notes))
    assert generate(model, [path], tmp_path / "out", num_iters=1) == 0
    assert binaries.names(tmp_path / "out") == ["gen_a:b.wav", "gen_a_b é.wav"]


def test_ids_that_are_not_unique_get_numbers(model, tmp_path):
    notes = [Note(name, clip(600, i), pitch=60) for i, name in enumerate("aba")]
    path = tfrecords.write(tmp_path / "r.tfrecord", map(note_to_example, notes))
    assert save_embeddings(model, [path], tmp_path / "z") == 0
    for source, out in ((path, tmp_path / "a"), (tmp_path / "z", tmp_path / "b")):
        given = {"num_iters": 2, "seed": 1, "normalize": True}
        assert generate(model, [source], out, **given) == 0
        assert binaries.names(out) == [
            "gen_a_0.wav",
            "gen_a_2.wav",
            "gen_b.wav",
        ]
        wanted = model.reconstruct(notes[2].audio, 60, num_iters=2, seed=1)
        np.testing.assert_allclose(
            read_wav(out / "gen_a_2.wav"),
            wanted / np.abs(wanted).max(),
            atol=1e-4,
        )


def test_records_left_out_do_not_shift_the_names(model, tmp_path, caplog):
    records = examples(4, 2000)
    records[1] = tfrecords.without(records[1], "audio")
    path = tfrecords.write(tmp_path / "r.tfrecord", records)
    other = tfrecords.write(tmp_path / "s.tfrecord", examples(5, 600)[4:])
    given = {"num_iters": 2, "seed": 1}
    # As a whole, with a line that says so; the other set is done.
    assert generate(model, [path, other], tmp_path / "a", **given) == 1
    assert binaries.names(tmp_path / "a") == ["gen_organ_electronic_004-044-075.wav"]
    assert "record 1 (from 0): the feature audio is missing" in caplog.text
    assert "1 of 2 files failed" in caplog.text
    paths, out = [path, other], tmp_path / "b"
    assert generate(model, paths, out, skip_corrupt=True, **given) == 0
    assert len(binaries.names(out)) == 4
    for i, audio in enumerate(recipe.clips(2000, seed=9, batch=4)):
        name = f"gen_organ_electronic_{i:03}-{40 + i:03}-075.wav"
        assert (out / name).exists() == (i != 1)
        if i != 1:
            wanted = model.reconstruct(audio, 40 + i, **given)
            np.testing.assert_allclose(read_wav(out / name), wanted, atol=1e-5)


def test_a_sound_is_the_same_to_the_bit_in_every_batch(model, folder, tmp_path):
    for i in range(5):
        write_wav(folder / f"{i}_C4.wav", clip(3000 + 500 * (i % 3), i))
    sounds = []
    for batch_size in (1, 2, 5):
        out = tmp_path / str(batch_size)
        given = {"num_iters": 30, "seed": 2, "batch_size": batch_size}
        assert generate(model, [folder], out, **given) == 0
        sounds.append([read_wav(out / f"gen_{i}_C4.wav") for i in range(5)])
    for i in range(5):
        np.testing.assert_array_equal(sounds[0][i], sounds[1][i])
        np.testing.assert_array_equal(sounds[0][i], sounds[2][i])


def test_loud_and_wrong_samples(model, folder, tmp_path, caplog):
    write_wav(folder / "loud_C4.wav", clip(900) * np.float32(6))
    write_wav(folder / "mad_C4.wav", clip(900) * np.float32(1e35))
    write_wav(folder / "good_C4.wav", clip(900))
    assert save_embeddings(model, [folder], tmp_path / "z") == 1
    assert "mad_C4.wav: samples reach" in caplog.text
    loud = np.load(tmp_path / "z" / "loud_C4_z.npy")
    np.testing.assert_allclose(
        loud, np.load(tmp_path / "z" / "good_C4_z.npy"), atol=1e-4
    )
    given = {"num_iters": 1, "batch_size": 3}
    assert generate(model, [folder], tmp_path / "g", **given) == 1
    assert binaries.names(tmp_path / "g") == ["gen_good_C4.wav", "gen_loud_C4.wav"]


def test_what_fails_in_a_batch_is_told_and_the_rest_done(
    model, folder, tmp_path, caplog, monkeypatch
):
    make, calls = Baseline.sounds, []

    def fail_once(model, embeddings, options):
        calls.append(len(embeddings))
        if len(calls) == 1:
            raise InputError("no luck.")
        return make(model, embeddings, options)

    monkeypatch.setattr(Baseline, "sounds", fail_once)
    for name in "abc":
        write_wav(folder / f"{name}_C4.wav", clip(600))
    given = {"num_iters": 1, "batch_size": 2}
    assert generate(model, [folder], tmp_path / "out", **given) == 1
    assert calls == [2, 1]
    assert binaries.names(tmp_path / "out") == ["gen_c_C4.wav"]
    assert "gen_a_C4.wav: no luck." in caplog.text
    assert "2 of 3 files failed" in caplog.text


def test_one_bad_file_of_z_is_told_and_the_others_done(model, tmp_path, caplog):
    (tmp_path / "z").mkdir()
    for name, z in (("a", 124), ("wide", 1984)):
        np.save(tmp_path / "z" / f"{name}.npy", np.zeros(z, np.float32))
    (tmp_path / "z" / "bad.npy").write_bytes(b"no")
    given = {"num_iters": 1, "pitch": 60, "sample_length": 600}
    assert generate(model, [tmp_path / "z"], tmp_path / "out", **given) == 1
    assert binaries.names(tmp_path / "out") == ["gen_a.wav"]
    assert "bad.npy: not a .npy array" in caplog.text
    assert "wide.npy: expected z of shape [124]" in caplog.text
    assert "2 of 3 files failed" in caplog.text


def test_a_pitch_out_of_range_is_none(model, tmp_path, caplog):
    notes = [Note("n1", clip(600), pitch=200), Note("n2", clip(600), pitch=7)]
    path = tfrecords.write(tmp_path / "r.tfrecord", map(note_to_example, notes))
    assert save_embeddings(model, [path], tmp_path / "z") == 0
    assert [row["pitch"] for row in read_csv(tmp_path / "z" / "r_z.csv")] == ["", "7"]
    for source in (path, tmp_path / "z"):
        caplog.clear()
        assert generate(model, [source], tmp_path / "o", num_iters=1) == 1
        assert binaries.names(tmp_path / "o") == ["gen_n2.wav"]
        assert "its pitch is not known; give --pitch" in caplog.text


def test_cuts_are_said(model, tmp_path, caplog):
    caplog.set_level("INFO")
    note = note_to_example(Note("n1", clip(70_000), pitch=60))
    path = tfrecords.write(tmp_path / "r.tfrecord", [note])
    assert save_embeddings(model, [path], tmp_path / "z") == 0
    assert "record 0 (n1): 70000 samples are cut to 64000" in caplog.text
    assert save_embeddings(model, [path], tmp_path / "all", sample_length=0) == 0
    caplog.clear()
    assert generate(model, [tmp_path / "all"], tmp_path / "o", num_iters=1) == 0
    assert "r_z.npy: 70000 samples are cut to 64000" in caplog.text
    caplog.clear()
    assert generate(model, [path], tmp_path / "o", num_iters=1) == 0
    assert caplog.text.count("70000 samples are cut to 64000") == 1


def test_options_that_would_do_nothing(model, folder, tmp_path):
    write_wav(folder / "a_C4.wav", clip(600))
    path = tfrecords.write(tmp_path / "r.tfrecord", examples(1, 600))
    for job in (save_embeddings, generate):
        with pytest.raises(InputError, match="--skip_corrupt is for TFRecords"):
            job(model, [folder], tmp_path / "out", skip_corrupt=True)
        with pytest.raises(InputError, match="--recursive is for folders of sounds"):
            job(model, [path], tmp_path / "out", recursive=True)
        with pytest.raises(
            InputError, match=r"different kinds of input \(audio, tfrecord\)"
        ):
            job(model, [path, folder], tmp_path / "out")
    with pytest.raises(InputError, match="--seed does nothing with --phase=source"):
        generate(model, [folder], tmp_path / "o", seed=1, phase="source")
    tfrecords.write(folder / "r.tfrecord", examples(1, 600))
    with pytest.raises(InputError, match=r"holds TFRecords .* and other things"):
        save_embeddings(model, [folder], tmp_path / "out")


def test_output_below_the_records(model, folder):
    """What a run wrote doesn't make the folder another kind of thing."""
    tfrecords.write(folder / "r.tfrecord", examples(1, 600))
    for skip in (False, True):
        out = folder / "z"
        assert save_embeddings(model, [folder], out, skip_existing=skip) == 0
    assert save_embeddings(model, [folder], folder) == 0
    assert save_embeddings(model, [folder], folder, skip_existing=True) == 0


def test_names_that_are_not_utf_8(model, folder, tmp_path):
    name = os.fsencode(folder) + b"/caf\xe9_C4.wav"
    write_wav(folder / "a_C4.wav", clip(600))
    os.rename(folder / "a_C4.wav", name)
    assert save_embeddings(model, [folder], tmp_path / "z") == 0
    assert generate(model, [tmp_path / "z"], tmp_path / "g", num_iters=1) == 0
    [written] = os.listdir(os.fsencode(tmp_path / "g"))
    assert written == b"gen_caf\xe9_C4.wav"
    record = tfrecords.write(tmp_path / "r.tfrecord", examples(2, 600))
    moved = os.fsencode(tmp_path) + b"/caf\xe9.tfrecord"
    os.rename(record, moved)
    assert save_embeddings(model, [os.fsdecode(moved)], tmp_path / "r") == 0


def test_a_csv_from_a_spreadsheet(model, folder, tmp_path):
    write_wav(folder / "a_C4.wav", clip(600))
    assert save_embeddings(model, [folder], tmp_path / "z") == 0
    table = tmp_path / "z" / "a_C4_z.csv"
    text = table.read_text().replace(",", ";")
    table.write_text(text, encoding="utf-8-sig")
    assert generate(model, [tmp_path / "z"], tmp_path / "g", num_iters=1) == 0


def test_a_pair_is_never_of_two_runs(model, folder, tmp_path, monkeypatch):
    """Killed between the two files: the .npy that means done is not there."""
    import magenta_nsynth.files as files

    path = tfrecords.write(folder / "a.tfrecord", examples(2, 600))
    assert save_embeddings(model, [path], tmp_path / "out") == 0
    replace = os.replace

    def stop(source, target):
        replace(source, target)
        if str(target).endswith(".csv"):
            raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", stop)
    tfrecords.write(folder / "a.tfrecord", examples(3, 600))
    with pytest.raises(KeyboardInterrupt):
        save_embeddings(model, [path], tmp_path / "out")
    assert binaries.names(tmp_path / "out") == ["a_z.csv"]
    monkeypatch.undo()
    assert save_embeddings(model, [path], tmp_path / "out", skip_existing=True) == 0
    assert len(np.load(tmp_path / "out" / "a_z.npy")) == 3


def test_a_csv_of_another_file_is_refused(model, folder, tmp_path, caplog):
    write_wav(folder / "a_C4.wav", clip())
    assert save_embeddings(model, [folder], tmp_path / "z") == 0
    npy, table = tmp_path / "z" / "a_C4_z.npy", tmp_path / "z" / "a_C4_z.csv"
    np.save(npy, np.zeros([2, 124], np.float32))
    assert generate(model, [npy], tmp_path / "out") == 1
    assert "a_C4_z.csv: describes 1 rows, but " in caplog.text
    assert "a_C4_z.npy has 2; it belongs to another file" in caplog.text
    table.write_text("note_str,pitch\na,b\n")
    assert generate(model, [npy], tmp_path / "out") == 1
    assert "a_C4_z.csv, line 2: expected note_str, pitch" in caplog.text
    npy.write_bytes(b"\x93NUMPY")
    assert generate(model, [npy], tmp_path / "out") == 1
    assert "not a .npy array, or damaged" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pitch": 128}, "--pitch must be 0 to 127, not 128"),
        ({"pitch": -1}, "--pitch must be 0 to 127"),
        ({"pitch_shift": 200}, "--pitch_shift must be -127 to 127"),
        ({"num_iters": 0}, "--griffin_lim_iterations must be 1 or more"),
        ({"batch_size": 0}, "--batch_size must be 1 or more"),
        ({"sample_length": 512}, "less than the 513 samples"),
        ({"out": ""}, "Give --save_path"),
        ({"paths": ["nowhere"]}, "nowhere: does not exist"),
        ({"paths": []}, "Nothing to read"),
    ],
)
def test_bad_arguments_are_refused(model, folder, tmp_path, options, words):
    write_wav(folder / "a_C4.wav", clip())
    given = {"paths": [folder], "out": tmp_path / "out", **options}
    with pytest.raises(InputError, match=words):
        generate(model, **given)
    assert not (tmp_path / "out").exists()


def test_the_phase_of_z_is_not_known(model, folder, tmp_path, caplog):
    write_wav(folder / "a_C4.wav", clip())
    assert save_embeddings(model, [folder], tmp_path / "z") == 0
    given = {"phase": "source"}
    assert generate(model, [tmp_path / "z"], tmp_path / "out", **given) == 1
    assert "a_C4_z.npy: --phase=source takes the phase of a sound" in caplog.text


def test_the_binaries(baseline_checkpoint, tiny_checkpoint, folder, tmp_path):
    """Once as a user does it, with the errors that the flags alone can make."""
    write_wav(folder / "organ_C4.wav", clip(2000))
    where = [f"--source_path={folder}", f"--save_path={tmp_path / 'out'}"]
    checkpoint = f"--checkpoint_path={os.path.dirname(baseline_checkpoint)}"
    result = binaries.run("nsynth_save_embeddings", checkpoint, *where)
    assert result.returncode == 0, result.stderr
    assert np.load(tmp_path / "out" / "organ_C4_z.npy").shape == (1, 124)
    quick = ["--griffin_lim_iterations=2", "--bit_depth=16", "--seed=1"]
    result = binaries.run("nsynth_generate", checkpoint, *where, *quick)
    assert result.returncode == 0, result.stderr
    assert read_wav(tmp_path / "out" / "gen_organ_C4.wav").dtype == np.int16
    for name, flags, words in (
        ("nsynth_generate", ["--temperature=0.5"], "--temperature is for the WaveNet"),
        ("nsynth_generate", ["--precision=int8"], "--precision is for the WaveNet"),
        ("nsynth_generate", ["--use_ema"], "keeps no averaged weights"),
        ("nsynth_generate", ["--phase=source", *quick[:1]], "does nothing with"),
        ("nsynth_generate", ["--hop_length=256"], "no --hop_length"),
        ("nsynth_save_embeddings", ["--master=x"], "Set TF_CONFIG"),
        ("nsynth_save_embeddings", ["--model=wavenet"], "pass one of a WaveNet"),
    ):
        line = binaries.error_line(binaries.run(name, checkpoint, *where, *flags))
        assert words in line
    given = f"--checkpoint_path={tiny_checkpoint}"
    for name, flags, words in (
        ("nsynth_generate", ["--pitch=60"], "--pitch is for the baseline"),
        ("nsynth_generate", ["--model=baseline"], "of the spectral baseline"),
        ("nsynth_save_embeddings", ["--skip_corrupt"], "--skip_corrupt is for TFR"),
        ("nsynth_save_embeddings", ["--middle_c=C3"], "--middle_c is for the baseline"),
        ("nsynth_generate", ["--pitch_from_name=midi"], "is for the baseline"),
    ):
        line = binaries.error_line(binaries.run(name, given, *where, *flags))
        assert words in line


def test_the_csv_module_reads_what_is_written(model, tmp_path):
    """Names with commas, quotes and line breaks."""
    notes = [Note('a,"b"\nc', clip(600), pitch=1), Note("plain", clip(600), pitch=2)]
    path = tfrecords.write(tmp_path / "r.tfrecord", map(note_to_example, notes))
    assert save_embeddings(model, [path], tmp_path / "out") == 0
    rows = read_csv(tmp_path / "out" / "r_z.csv")
    assert [row["note_str"] for row in rows] == ['a,"b"\nc', "plain"]
    assert pathlib.Path(tmp_path / "out" / "r_z.npy").stat().st_size == 128 + 2 * 496
