"""Outputs of an earlier version are read, continued and replaced by this one.

tests/data/earlier/ has them; its README says how they were made.
"""

import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from binaries import names, run

import magenta_nsynth
from magenta_nsynth.embeddings.exported import open_embeddings
from magenta_nsynth.errors import InputError

DATE = 1_600_000_000  # of the sources when the outputs were made
NOTES = [f"bass_acoustic_001-{pitch:03}-100" for pitch in range(40, 45)]
WAVENET = "--checkpoint_path=training/model.ckpt-3"
EXPORT = (
    "--source_path=notes.tfrecord",
    WAVENET,
    "--notes_per_shard=2",
    "--batch_size=2",
    "--save_path=export_half",
)
MISSING = "embeddings-00001-of-00003.npy"


@pytest.fixture
def earlier(tmp_path, data):
    """A copy of everything, all of one date."""
    folder = tmp_path / "earlier"
    shutil.copytree(data / "earlier", folder)
    for path in folder.rglob("*"):
        os.utime(path, (DATE, DATE))
    return folder


def nsynth(binary, folder, *flags):
    """Runs a binary in a folder, as the earlier version was run."""
    result = run(f"nsynth_{binary}", *flags, cwd=str(folder))
    assert result.returncode == 0, result.stderr
    return result


def content(folder):
    """The bytes of every file in a folder but the locks, by name."""
    return {
        name: (folder / name).read_bytes()
        for name in names(folder)
        if not name.endswith(".lock")
    }


def written(folder):
    """The files in a folder that are not of the earlier run any more."""
    found = {name for name in names(folder) if not name.endswith(".lock")}
    return {name for name in found if (folder / name).stat().st_mtime != DATE}


def edit(path, old, new):
    """Replaces a text that a file has."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def to_this_version(manifest):
    """Puts this version and its TensorFlow into an export's manifest.

    Another version does not continue an export, since its numbers may differ.
    """
    software = json.loads(manifest.read_text(encoding="utf-8"))["made_of"]["software"]
    versions = {
        "magenta_nsynth": magenta_nsynth.__version__,
        "tensorflow": tf.__version__,
    }
    assert set(software) == set(versions)
    for name, version in versions.items():
        edit(manifest, f'"{name}": "{software[name]}"', f'"{name}": "{version}"')


@pytest.mark.parametrize("form", ["export", "export_tfrecord"])
def test_an_export_is_read(data, form):
    notes = list(open_embeddings(data / "earlier" / form))
    assert [note.note_str for note in notes] == NOTES
    labels = {note[2:7] for note in notes}
    assert labels == {(100, "bass", "acoustic", (), 1024)}
    assert [note.pitch for note in notes] == [40, 41, 42, 43, 44]
    shards = sorted((data / "earlier" / "export").glob("*.npy"))
    rows = np.concatenate([np.load(path) for path in shards])
    assert np.array_equal(np.concatenate([note.embedding for note in notes]), rows)
    assert rows.shape == (10, 4)


def test_a_half_made_export_is_continued(earlier):
    half, whole = earlier / "export_half", earlier / "export"
    with pytest.raises(InputError, match="not complete"):
        open_embeddings(half)
    for folder in (half, whole):
        to_this_version(folder / "manifest.json")
    nsynth("export_embeddings", earlier, *EXPORT)
    stem = pathlib.Path(MISSING).stem
    new = {MISSING, f"{stem}.csv", "parts/00001.json", "manifest.json"}
    assert written(half) == new
    expected, made = np.load(whole / MISSING), np.load(half / MISSING)
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()
    files, expected_files = content(half), content(whole)
    if not np.array_equal(made, expected):  # another processor's last bits
        files, expected_files = map(without_checksums, (files, expected_files))
    assert files == expected_files


def without_checksums(files):
    """The content of an export, but for the numbers of one shard and all checksums."""
    checksum = rb'"(sha256|checksum)": "\w+"'
    return {
        name: re.sub(checksum, b"", data)
        for name, data in files.items()
        if name != MISSING
    }


def test_half_made_tfrecords_are_continued(earlier):
    half = earlier / "records_half"
    [leftover] = half.glob(".writing-*-00001-of-00003")
    nsynth(
        "make_tfrecord", earlier, "--source_path=sounds", "--num_shards=3",
        "--note_seconds=0.032", "--save_path=records_half",
    )  # fmt: skip
    assert not leftover.exists()
    files = {f"notes.tfrecord-0000{i}-of-00003" for i in (1, 2)}
    assert written(half) == {*files, "notes.manifest.json"}
    assert content(half) == content(earlier / "records")


def test_half_made_json_wav_is_continued(earlier):
    half = earlier / "jsonwav_half"
    nsynth(
        "make_tfrecord", earlier, "--source_path=notes.tfrecord",
        "--save_path=jsonwav_half",
    )  # fmt: skip
    sounds = {f"audio/{NOTES[i]}.wav" for i in (2, 4)}
    assert written(half) - {".made_from.json"} == {*sounds, "examples.json"}
    assert content(half) == content(earlier / "jsonwav")


@pytest.mark.parametrize(
    ("folder", "sources", "ending"),
    [("mixes", "embeddings", "_embeddings.npy"), ("mixes_of_codes", "codes", "_z.npy")],
)
def test_mixes_are_continued(earlier, folder, sources, ending):
    mixes = earlier / folder
    whole = content(mixes)
    missing = {name for name in whole if "_0.5_0.5_" in name}
    for name in missing:
        (mixes / name).unlink()
    pair = [
        f"--source_path={sources}/{name}{ending}"
        for name in ("cello_midi50", "flute_midi60")
    ]
    flags = ("--steps=3", f"--save_path={folder}", "--skip_existing")
    nsynth("interpolate", earlier, *pair, *flags)
    assert written(mixes) == {*missing, "manifest.json"}
    edit(mixes / "manifest.json", magenta_nsynth.__version__, "0.2.0")
    assert content(mixes) == whole


def test_generated_mixes_are_not_made_anew(earlier):
    whole = content(earlier / "mixes_generated")
    nsynth(
        "interpolate", earlier, "--source_path=sounds/cello_midi50.wav",
        "--source_path=sounds/flute_midi60.wav", WAVENET, "--steps=3", "--generate",
        "--sum", "--match_loudness", "--seed=1", "--bit_depth=16",
        "--save_path=mixes_generated", "--skip_existing",
    )  # fmt: skip
    assert written(earlier / "mixes_generated") == set()
    assert content(earlier / "mixes_generated") == whole


def test_a_page_is_replaced(earlier):
    page = earlier / "page"
    mine = page / "sounds" / "mine.wav"
    mine.write_bytes(b"of the user")
    old = json.loads((page / ".nsynth_page.json").read_text())["files"]
    assert len(old) == 6 and set(old) < set(names(page))
    nsynth(
        "rainbowgram", earlier, "--source_path=sounds/organ_midi67.wav", "--html=page"
    )
    new = json.loads((page / ".nsynth_page.json").read_text())["files"]
    assert len(new) == 2
    assert {*new, "sounds/mine.wav", "index.html", ".nsynth_page.json"} == set(
        content(page)
    )
    assert mine.read_bytes() == b"of the user"
    assert "flute" not in (page / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def generated(earlier):
    """Makes the earlier folders of generated sounds those of the copied checkpoint."""
    checkpoint = earlier / "training" / "model.ckpt-3"
    for name in ("reconstructions", "circle"):
        settings = earlier / name / "settings.json"
        old = json.loads(settings.read_text(encoding="utf-8"))["checkpoint"]
        edit(settings, json.dumps(old), json.dumps(str(checkpoint)))
        os.utime(settings, (DATE, DATE))
    return earlier


def test_reconstructions_are_taken(generated):
    whole = content(generated / "reconstructions")
    nsynth(
        "rainbowgram", generated, "--source_path=sounds", "--reconstructions", WAVENET,
        "--seed=1", "--sounds_path=reconstructions", "--save_path=figure.png",
        "--dpi=50",
    )  # fmt: skip
    assert written(generated / "reconstructions") <= {"settings.json"}
    assert content(generated / "reconstructions") == whole


def test_the_sounds_of_a_circle_are_taken(generated):
    whole = content(generated / "circle")
    nsynth(
        "rainbowgram", generated, "--source_path=sounds/cello_midi50.wav",
        "--source_path=sounds/flute_midi60.wav", "--circle", WAVENET, "--seed=1",
        "--sounds_path=circle", "--save_path=figure.png", "--dpi=50",
    )  # fmt: skip
    made = content(generated / "circle")
    mixes = {name for name in whole if name.endswith(".npy")}
    assert len(mixes) == 3
    if any(made[name] != whole[name] for name in mixes):
        pytest.skip("this processor's embeddings differ in their last bits")
    assert written(generated / "circle") <= {*mixes, "settings.json"}
    assert made == whole


def test_a_training_is_continued(earlier):
    flags = """
        --train_path=notes.tfrecord --batch_size=2 --crop_length=512 --seed=3
        --learning_rate=1e-2 --average_decay=0.9 --num_checkpoints=1 --width=4
        --skip_width=4 --num_layers=3 --num_stages=3 --ae_width=4 --ae_num_layers=2
        --ae_num_stages=2 --ae_bottleneck_width=4 --logdir=training --num_steps=6
        --save_summaries_secs=0
    """
    nsynth("train", earlier, *flags.split())
    [events] = (earlier / "training").glob("events*")
    made = losses(events)
    expected = losses(earlier / "training_losses" / "events")
    assert list(made) == list(expected) == [4, 5, 6]
    for step, loss in expected.items():
        assert abs(made[step] - loss) < 1e-5, step


def losses(events):
    """The training's loss by step, of a file for TensorBoard."""
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            if value.tag == "train/loss_nats":
                found[event.step] = float(tf.make_ndarray(value.tensor))
    return found
