"""A data set in, sharded embeddings out: the original's, each once, whatever happens.

Networks and notes are tiny, so everything but the slow tests runs in this process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import types

import numpy as np
import pytest
import tensorflow as tf
import tfrecords
from binaries import command, environment, names
from commands import export as export_of
from commands import save_embeddings
from scipy.io import wavfile

from magenta_nsynth import api
from magenta_nsynth.api import WaveNet, load_model
from magenta_nsynth.audio.resample import resample
from magenta_nsynth.commands.export_embeddings import export_embeddings
from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.embeddings.exported import Embeddings, open_embeddings
from magenta_nsynth.embeddings.npy_csv import NpyCsvWriter
from magenta_nsynth.embeddings.shards import FORMATS
from magenta_nsynth.errors import InputError
from magenta_nsynth.notes import dataset_clips
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.opening import open_clips
from magenta_nsynth.schema import Note, parse_note_str
from magenta_nsynth.weights.engine import new_autoencoder, save_weights

IDS = [
    "a/b.c",
    "bass_synthetic_033-022-050",
    "é ü/日本",
    'with "quotes", commas',
    "e",
    "f",
]


@pytest.fixture(scope="module")
def clips(golden_tiny):
    """Six clips: the two golden ones, and others of several lengths."""
    noise = np.random.default_rng(5).uniform(-1, 1, [4, 4096]).astype(np.float32)
    return [*golden_tiny["audio"], noise[0], noise[1][:600], noise[2], noise[3][:2048]]


@pytest.fixture(scope="module")
def records(clips, tmp_path_factory):
    """A TFRecord of them."""
    path = tmp_path_factory.mktemp("records") / "notes.tfrecord"
    notes = [
        note_to_example(Note(name, clip, **parse_note_str(name)))
        for name, clip in zip(IDS, clips, strict=True)
    ]
    return tfrecords.write(path, notes)


@pytest.fixture(scope="module")
def load_once():
    """`load_model`, but each checkpoint is loaded and compiled once."""
    models = {}

    def load(checkpoint_path, model="", **options):
        key = str(checkpoint_path), model, *sorted(options.items(), key=str)
        if key not in models:
            models[key] = load_model(checkpoint_path, model, **options)
        return models[key]

    return load


@pytest.fixture
def run(tiny_checkpoint, records, tmp_path, monkeypatch, load_once):
    """Exports the records, or something else, to tmp_path/out; the exit status."""
    monkeypatch.setattr(api, "load_model", load_once)

    def export(out="out", workers=(None, None), save_path=None, **options):
        options = {
            "checkpoint": {"checkpoint_path": tiny_checkpoint},
            "paths": [records],
            "out": tmp_path / out if save_path is None else save_path,
            "notes_per_shard": 4,
            "batch_size": 3,
            **options,
        }
        return export_embeddings(export_of(**options), *workers)

    return export


def content(folder):
    return {name: (folder / name).read_bytes() for name in names(folder)}


def check_originals(folder, golden_tiny, weights="raw"):
    scale = np.abs(golden_tiny["raw_encoding"]).max()
    notes = list(open_embeddings(folder))
    for note, reference in zip(notes, golden_tiny[f"{weights}_encoding"], strict=False):
        assert note.embedding.dtype == np.float32
        assert np.abs(note.embedding - reference).max() < 2e-5 * scale
    return notes


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_holds_the_originals_embeddings(run, tmp_path, golden_tiny, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    assert run(format=form) == 0
    notes = check_originals(tmp_path / "out", golden_tiny)
    assert [note.note_str for note in notes] == IDS
    assert notes[1][1:6] == (22, 50, "bass", "synthetic", ())
    assert notes[0][1:6] == (-1, -1, "", "", ())
    assert [len(note.embedding) for note in notes] == [12, 12, 8, 1, 8, 4]
    assert [note.num_samples for note in notes] == [6144, 6144, 4096, 512, 4096, 2048]
    again = content(tmp_path / "out")
    assert run("again", format=form) == 0
    assert content(tmp_path / "again") == again


def test_parquet_is_read_by_pandas(run, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert run(format="parquet") == 0
    table = pandas.read_parquet(tmp_path / "out/embeddings-00000-of-00002.parquet")
    assert table.note_str.tolist() == IDS[:4]
    assert table.pitch.isna().tolist() == [True, False, True, True]
    npy = tmp_path / "npy"
    assert run("npy") == 0
    rows = np.load(npy / "embeddings-00000-of-00002.npy")
    assert np.array_equal(np.concatenate(table.embedding.tolist()), rows.ravel())


def test_a_missing_extra_is_one_line(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"magenta-nsynth\[parquet\]"):
        run(format="parquet")


def test_the_baselines_z(baseline_checkpoint, tmp_path, run, clips):
    from magenta_nsynth.api import Baseline

    checkpoint = {"checkpoint_path": baseline_checkpoint}
    assert run(checkpoint=checkpoint) == 0
    notes = list(open_embeddings(tmp_path / "out"))
    z = Baseline(baseline_checkpoint).encode(clips)
    for note, expected in zip(notes, z, strict=True):
        assert np.array_equal(note.embedding, expected)


def test_averaged_weights_and_bfloat16(run, tmp_path, golden_tiny, tiny_checkpoint):
    checkpoint = {"checkpoint_path": tiny_checkpoint, "use_ema": True}
    assert run(checkpoint=checkpoint) == 0
    check_originals(tmp_path / "out", golden_tiny, "ema")
    assert run("half", bfloat16=True) == 0
    [half, *_] = open_embeddings(tmp_path / "half")
    error = np.abs(half.embedding - golden_tiny["raw_encoding"][0])
    assert half.embedding.dtype == np.float32
    assert 1e-5 < error.max() / np.abs(golden_tiny["raw_encoding"]).max() < 0.05


def test_a_file_saved_alone_and_exported_is_the_same(run, tmp_path, tiny_checkpoint):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(5):
        noise = np.random.default_rng(i).uniform(-1, 1, 1024).astype(np.float32)
        wavfile.write(folder / f"{i}.wav", 16_000, noise)
    assert run(paths=[folder], notes_per_shard=5, batch_size=5) == 0
    save_embeddings(
        WaveNet(tiny_checkpoint),
        [folder],
        tmp_path / "saved",
        sample_length=0,
        batch_size=5,
    )
    for note in open_embeddings(tmp_path / "out"):
        saved = np.load(tmp_path / "saved" / f"{note.note_str}_embeddings.npy")
        assert np.array_equal(note.embedding, saved)


def test_a_batch_lies_within_one_shard(run, monkeypatch):
    """On GPUs; this one only decides about batches."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: ["a GPU"])
    sizes = []
    encode = WaveNet.encode_prepared

    def spy(self, prepared):
        sizes.append(len(prepared))
        return encode(self, prepared)

    monkeypatch.setattr(WaveNet, "encode_prepared", spy)
    assert run() == 0
    assert sizes == [3, 1, 2]


# Sources.


def write_wavs(folder, clips, ids=IDS):
    for name, clip in zip(ids, clips, strict=True):
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, 16_000, clip)


def test_sounds_have_their_place_as_id(run, tmp_path, clips, golden_tiny):
    ids = ["b", "c", "sub/a", "sub/d", "é ü/日本", "x/y/z"]
    write_wavs(tmp_path / "sounds", clips, ids)
    assert run(paths=[tmp_path / "sounds"], recursive=True) == 0
    found = {note.note_str: note for note in open_embeddings(tmp_path / "out")}
    assert set(found) == set(ids)
    reference = golden_tiny["raw_encoding"][0]
    scale = np.abs(reference).max()
    assert np.abs(found["b"].embedding - reference).max() < 2e-5 * scale
    # What was written among the sounds is none of them.
    assert run("sounds/out", paths=[tmp_path / "sounds"], recursive=True) == 0
    assert run("sounds/out", paths=[tmp_path / "sounds"], recursive=True) == 0


def test_two_sounds_of_one_id_are_refused(run, tmp_path, clips):
    write_wavs(tmp_path / "one", clips[:1], ["a"])
    write_wavs(tmp_path / "two", clips[:1], ["a"])
    advice = "rename one, or give the folder above them with --recursive"
    with pytest.raises(InputError, match=f"would both have the id a; {advice}"):
        run(paths=[tmp_path / "one", tmp_path / "two"])
    shutil.copy(tmp_path / "one" / "a.wav", tmp_path / "one" / "a.flac")
    with pytest.raises(InputError, match=r"have the id a; rename one\.$"):
        run(paths=[tmp_path / "one"])
    assert not (tmp_path / "out").exists()


def test_a_list_of_sounds(run, tmp_path, clips, golden_tiny):
    write_wavs(tmp_path / "sounds", clips)
    lines = [f"sounds/{name}.wav" for name in IDS]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([*lines[:3], "", *lines[3:]]), encoding="utf-8")
    assert run(paths=[listed]) == 0
    notes = check_originals(tmp_path / "out", golden_tiny)
    assert [note.note_str for note in notes] == [f"sounds/{name}" for name in IDS]
    listed.write_text("sounds/a.wav\nnotes.pdf\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: 'notes\.pdf'"):
        run("other", paths=[listed])


def test_json_wav(run, tmp_path, clips, golden_tiny):
    folder = tmp_path / "nsynth-test"
    ids = [f"bass_synthetic_033-02{i}-050" for i in range(6)]
    write_wavs(folder / "audio", clips, ids)
    entry = {"velocity": 50, "instrument_family": 0, "instrument_source": 2}
    entries = {
        name: {**entry, "pitch": 20 + i, "qualities": [1] + [0] * 9}
        for i, name in enumerate(ids)
    }
    (folder / "examples.json").write_text(json.dumps(entries), encoding="utf-8")
    assert run(paths=[folder]) == 0
    notes = check_originals(tmp_path / "out", golden_tiny)
    assert [note.pitch for note in notes] == list(range(20, 26))
    assert notes[0].qualities == ("bright",)


class FakeTFDS(types.ModuleType):
    """TensorFlow Datasets, as far as a prepared `nsynth` is concerned."""

    def __init__(self, clips):
        super().__init__("tensorflow_datasets")
        self.clips = clips
        self.rate = 16_000

    def ReadConfig(self, **options):
        assert options == {"interleave_cycle_length": 1}

    def builder(self, name):
        if name != "nsynth/full":
            raise ValueError("no such data set\nand more")
        splits = {"test": types.SimpleNamespace(num_examples=len(self.clips))}
        features = {"audio": types.SimpleNamespace(sample_rate=self.rate)}
        info = types.SimpleNamespace(
            full_name="nsynth/full:2.3.3", splits=splits, features=features
        )
        return types.SimpleNamespace(info=info, as_dataset=self.data)

    def data(self, split, shuffle_files, read_config):
        assert (split, shuffle_files) == ("test", False)
        notes = [
            {
                "id": name,
                "audio": clip,
                "pitch": 22,
                "velocity": 50,
                "instrument": {"family": 0, "source": 2, "label": 7},
                "qualities": {q: q == "dark" for q in dataset_clips.QUALITIES},
            }
            for name, clip in zip(IDS, self.clips, strict=False)
        ]
        spec = tf.nest.map_structure(
            lambda value: tf.TensorSpec(
                [None] if isinstance(value, np.ndarray) else [],
                tf.as_dtype(np.asarray(value).dtype),
            ),
            notes[0],
        )
        return tf.data.Dataset.from_generator(lambda: notes, output_signature=spec)


def test_tensorflow_datasets(run, tmp_path, clips, golden_tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", FakeTFDS(clips))
    source = {"paths": ["tfds:nsynth/full@test"]}
    assert run(**source) == 0
    notes = check_originals(tmp_path / "out", golden_tiny)
    assert [note.note_str for note in notes] == IDS
    assert notes[0][1:6] == (22, 50, "bass", "synthetic", ("dark",))
    os.remove(tmp_path / "out/embeddings-00001-of-00002.npy")
    assert run(**source) == 0  # from the middle on
    assert [note.note_str for note in open_embeddings(tmp_path / "out")] == IDS
    with pytest.raises(InputError, match="no such data set"):
        run(paths=["tfds:nsynth/none@test"])
    sys.modules["tensorflow_datasets"].rate = 8_000
    slow = list(dataset_clips.TFDSClips(*source["paths"]).read(np.arange(1), 0))
    assert np.array_equal(slow[0].audio, resample(clips[0], 8_000))
    loud = FakeTFDS([clip * 32_000 for clip in clips])
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", loud)
    bad = list(dataset_clips.TFDSClips(*source["paths"]).read(np.arange(1), 0))
    assert "note 0 (a/b.c): samples reach" in str(bad[0])
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match="pip install tensorflow-datasets"):
        run(**source)


def test_a_bad_sound_may_be_mended_and_a_used_one_not_changed(run, tmp_path, clips):
    folder = tmp_path / "sounds"
    write_wavs(folder, clips[2:], ["a", "b", "c", "d"])
    good = (folder / "c.wav").read_bytes()
    (folder / "c.wav").write_text("no sound", encoding="utf-8")
    options = {"paths": [folder], "notes_per_shard": 2}
    assert run(**options) == 1
    (folder / "c.wav").write_bytes(good)
    assert run(**options) == 0
    assert [n.note_str for n in open_embeddings(tmp_path / "out")] == list("abcd")
    write_wavs(folder, clips[:1], ["a"])
    with pytest.raises(InputError, match=r"00000-of-00002.*have changed since"):
        run(**options)
    os.remove(tmp_path / "out/embeddings-00000-of-00002.npy")
    assert run(**options) == 0
    assert len(open_embeddings(tmp_path / "out").find("a").embedding) == 12


def test_folders_say_the_family(run, tmp_path, clips):
    write_wavs(tmp_path / "sounds", clips[2:3], ["synth lead/moog/x_C4"])
    assert run(paths=[tmp_path / "sounds"], recursive=True) == 0
    [note] = open_embeddings(tmp_path / "out")
    assert note[:4] == ("synth lead/moog/x_C4", 60, -1, "synth_lead")
    # By another rule it is another export.
    options = {"paths": [tmp_path / "sounds"], "recursive": True}
    rules = NameRules(middle_c="C3")
    with pytest.raises(InputError, match="belongs to an export with"):
        run(**options, rules=rules)
    assert run("other", **options, rules=rules) == 0
    [note] = open_embeddings(tmp_path / "other")
    assert note.pitch == 72


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paths": ["nowhere"]}, "nowhere: does not exist"),
        ({"paths": []}, "Nothing to read"),
        ({"save_path": ""}, "--save_path"),
        ({"notes_per_shard": 0}, "--notes_per_shard"),
        ({"batch_size": 0}, "--batch_size"),
        ({"sample_length": 511}, "--sample_length=511"),
        ({"format": "csv"}, "--format=csv"),
        ({"recursive": True}, "--recursive"),
        ({"rules": NameRules("midi")}, "--pitch_from_name=midi is for the names"),
        ({"workers": (0, None)}, "go together"),
        ({"workers": (3, 3)}, "--shard_index=3"),
    ],
)
def test_wrong_arguments_are_refused_before_work(run, tmp_path, options, words):
    with pytest.raises(InputError) as error:
        run(**options)
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_list_is_one_source(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("\ufeffx.wav\n./x.wav\ny.wav\n", encoding="utf-8")
    with pytest.raises(InputError, match="one data set or list at a time"):
        open_clips(Inputs([tmp_path / "*.txt"]))
    with pytest.raises(InputError, match=r"c\.txt: does not exist"):
        open_clips(Inputs([tmp_path / "c.txt"]))
    # A mark in front and a file twice, as editors and people write them.
    assert open_clips(Inputs([tmp_path / "[a].txt"])).num_clips == 2


def test_what_it_is_read_as_goes_before_its_name(run, tmp_path, records):
    shutil.copy(records, tmp_path / "notes.txt")
    assert run(paths=[tmp_path / "notes.txt"], read_as="tfrecord") == 0


def test_its_own_shards_are_no_source(run, tmp_path, records):
    (tmp_path / "out").mkdir()
    shutil.copy(records, tmp_path / "out/mine.tfrecord")
    options = {
        "paths": [tmp_path / "**/*.tfrecord"],
        "format": "tfrecord",
    }
    for _ in range(2):
        assert run(**options) == 0
        assert open_embeddings(tmp_path / "out").names() == IDS
    with pytest.raises(InputError, match="is also the folder to write to"):
        run(paths=[tmp_path / "out"], format="tfrecord")


# Going on.


class Stopped(BaseException):
    pass


def test_however_broken_off_the_end_is_the_same(run, tmp_path, monkeypatch):
    """Stopped at every file that appears, as a kill would: nothing is tidied up."""
    assert run("whole") == 0
    whole = content(tmp_path / "whole")
    replace, unlink = os.replace, os.unlink
    count = 0

    def stopping_replace(source, target):
        nonlocal count
        count -= 1
        if count == 0:
            raise Stopped
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopping_replace)
    monkeypatch.setattr(os, "unlink", lambda *_: None)
    for at in range(1, 9):
        count = at
        with pytest.raises(Stopped):
            run(f"stopped{at}")
        assert content(tmp_path / f"stopped{at}") != whole
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "unlink", unlink)
    for at in range(1, 9):
        assert run(f"stopped{at}") == 0
        assert content(tmp_path / f"stopped{at}") == whole, at


def test_whole_shards_are_kept_and_changed_ones_made_anew(run, tmp_path):
    assert run() == 0
    out, before = tmp_path / "out", content(tmp_path / "out")
    kept = out / "embeddings-00000-of-00002.npy"
    changed = out / "embeddings-00001-of-00002.npy"
    time = kept.stat().st_mtime_ns
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    with pytest.raises(InputError, match=r"00001-of-00002\.npy: damaged"):
        open_embeddings(out).verify()
    assert run() == 0
    assert content(out) == before
    assert kept.stat().st_mtime_ns == time
    open_embeddings(out).verify()


@pytest.mark.parametrize(
    "part", ['{"made_of": "x", "files": 1}', '{"files": {}}', "[", "{}"]
)
def test_damaged_parts_are_made_anew(run, tmp_path, part):
    assert run() == 0
    before = content(tmp_path / "out")
    (tmp_path / "out/parts/00001.json").write_text(part, encoding="utf-8")
    assert run() == 0
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    "change",
    [
        {"num_notes": 3},
        {"num_rows": "19"},
        {"skipped": ["one"]},
        {"skipped": 1},
        {"files": {"../x": {"bytes": 1, "sha256": ""}}},
        {"shard": 0},
    ],
)
def test_a_changed_part_is_not_believed(run, tmp_path, change):
    assert run() == 0
    out, before = tmp_path / "out", content(tmp_path / "out")
    part, manifest = out / "parts/00001.json", out / "manifest.json"
    part.write_text(json.dumps(json.loads(part.read_text()) | change))
    said = json.loads(manifest.read_text())
    said["shards"][1] |= change
    manifest.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        open_embeddings(out)
    assert run() == 0
    assert content(out) == before


@pytest.mark.parametrize("lost", ["shards", "num_latent", "num_rows"])
def test_a_manifest_that_lacks_something_is_not_complete(run, tmp_path, lost):
    assert run() == 0
    manifest = tmp_path / "out/manifest.json"
    said = json.loads(manifest.read_text())
    if lost == "shards":
        shard = said["shards"].pop()
        said["num_notes"] -= shard["num_notes"]
        said["num_rows"] -= shard["num_rows"]
    else:
        del said[lost]
    manifest.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        open_embeddings(tmp_path / "out")


@pytest.mark.parametrize("manifest", ['{"made_of": [1]}', "{}", "["])
def test_a_damaged_manifest_is_one_line(run, tmp_path, manifest):
    assert run() == 0
    path = tmp_path / "out/manifest.json"
    path.write_text(manifest, encoding="utf-8")
    for use in (run, lambda: open_embeddings(tmp_path / "out")):
        with pytest.raises(InputError, match=r"manifest\.json|is there already"):
            use()
    path.write_text('{"made_of": {}, "complete": true}', encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        open_embeddings(tmp_path / "out")


def test_another_export_is_refused(run, tmp_path, tiny_checkpoint, records, clips):
    assert run() == 0
    before = content(tmp_path / "out")
    averaged = {"checkpoint_path": tiny_checkpoint, "use_ema": True}
    more = tfrecords.write(
        tmp_path / "more.tfrecord", [note_to_example(Note("x", clips[0]))] * 6
    )
    for words, options in {
        "weights, raw or averaged": {"checkpoint": averaged},
        "--batch_size": {"batch_size": 2},
        "--sample_length": {"sample_length": 2048},
        "--notes_per_shard": {"notes_per_shard": 3},
        "--format": {"format": "tfrecord"},
        "--bfloat16": {"bfloat16": True},
        "other notes": {"paths": [more]},
        "another number of notes": {"paths": [records, more]},
    }.items():
        with pytest.raises(InputError) as error:
            run(**options)
        assert words in str(error.value) and "give another --save_path" in str(
            error.value
        )
    assert content(tmp_path / "out") == before


def test_a_checkpoint_is_known_by_its_weights(run, tmp_path, tiny_checkpoint):
    """Not by where it lies."""
    assert run() == 0
    before = content(tmp_path / "out")
    (tmp_path / "moved").mkdir()
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(tiny_checkpoint + ending, tmp_path / f"moved/other{ending}")
    os.remove(tmp_path / "out/parts/00001.json")
    checkpoint = {"checkpoint_path": tmp_path / "moved/other"}
    assert run(checkpoint=checkpoint) == 0
    assert content(tmp_path / "out") == before
    reader = tf.train.load_checkpoint(tiny_checkpoint)
    tensors = {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}
    bias = "ae_bottleneck/biases"
    tensors[bias] = tensors[bias] + np.float32(1e-3)
    order = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "moved/changed"),
        tensor_names=order,
        shape_and_slices=[""] * len(order),
        tensors=[tf.constant(tensors[name]) for name in order],
    )
    with pytest.raises(InputError, match="with other weights"):
        run(checkpoint={"checkpoint_path": tmp_path / "moved/changed"})


def test_a_checkpoint_without_a_step(run, tmp_path):
    config = WaveNetConfig(width=4, skip_width=4, ae_width=4, num_layers=1)
    save_weights(new_autoencoder(config), tmp_path / "weights")
    assert run(checkpoint={"checkpoint_path": tmp_path / "weights"}) == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))
    assert manifest["step"] is None and manifest["complete"]


@pytest.mark.slow  # two programs
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_the_number_of_cores_changes_no_byte(tmp_path):
    """With the convolutions whose sums depend on how many threads share them."""
    config = WaveNetConfig(width=4, skip_width=4, num_layers=1)
    prefix = tmp_path / "weights/model.ckpt-1"
    save_weights(new_autoencoder(config), prefix)
    (tmp_path / "notes").mkdir()
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, [4, 6000]).astype(np.float32)
    write_wavs(tmp_path / "notes", noise, "abcd")
    plain = {"ONEDNN_MAX_CPU_ISA": "AVX2", "TF_ENABLE_ONEDNN_OPTS": "0"}
    cores = sorted(os.sched_getaffinity(0))
    for count in {1, len(cores)}:
        subprocess.run(
            command(
                "nsynth_export_embeddings",
                f"--source_path={tmp_path / 'notes'}",
                f"--checkpoint_path={prefix}",
                f"--save_path={tmp_path / str(count)}",
            ),
            env={**environment(), **plain},
            preexec_fn=lambda count=count: os.sched_setaffinity(0, cores[:count]),
            check=True,
        )
    assert content(tmp_path / "1") == content(tmp_path / str(len(cores)))


def test_files_of_something_else_are_refused(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/embeddings-00000-of-00002.npy").touch()
    with pytest.raises(InputError, match="is there already"):
        run()
    assert names(tmp_path / "out") == [
        ".exporting.lock",
        "embeddings-00000-of-00002.npy",
    ]


# Several programs.

HOLDER = """
import fcntl, sys
with open(sys.argv[1], "ab") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, int(sys.argv[3]), int(sys.argv[2]))
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_programs_do_not_make_the_same_shards(run, tmp_path):
    (tmp_path / "out").mkdir()
    lock = tmp_path / "out/.exporting.lock"
    words = [sys.executable, "-c", HOLDER, str(lock), "1", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match="another program is writing these"):
            run()
        assert names(tmp_path / "out") == [".exporting.lock"]
        assert run(workers=(0, 2)) == 0  # the other shard is free
        with pytest.raises(InputError, match="another program"):
            run(workers=(1, 2))
        other.stdin.close()
    assert run() == 0


@pytest.mark.parametrize("count", [2, 3])
def test_a_job_arrays_result_is_that_of_one(run, tmp_path, caplog, count):
    assert run("whole") == 0
    for worker in reversed(range(count)):
        with caplog.at_level("INFO", logger="absl"):
            assert run(workers=(worker, count)) == 0
        if worker == count - 1:
            with pytest.raises(InputError, match="not complete"):
                open_embeddings(tmp_path / "out")
    assert ("none of them for worker" in caplog.text) == (count == 3)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_what_another_worker_made_and_lost_is_not_there(run, tmp_path):
    assert run(workers=(0, 2)) == 0
    os.unlink(tmp_path / "out/embeddings-00000-of-00002.csv")
    assert run(workers=(1, 2)) == 0
    with pytest.raises(InputError, match="not complete"):
        open_embeddings(tmp_path / "out")
    assert run(workers=(0, 2)) == 0
    assert open_embeddings(tmp_path / "out").names() == IDS


def test_beam_makes_the_same(run, tmp_path, tiny_checkpoint, records):
    pytest.importorskip("apache_beam")
    from magenta_nsynth.commands.export_beam import export_with_beam

    assert run("whole") == 0
    export = export_of(
        {"checkpoint_path": tiny_checkpoint},
        [records],
        tmp_path / "out",
        notes_per_shard=4,
        batch_size=3,
    )
    assert export_with_beam(export, "DirectRunner", []) == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    with pytest.raises(InputError, match="--runner=NoRunner"):
        os.remove(tmp_path / "out/parts/00000.json")
        export_with_beam(export, "NoRunner", [])


def test_what_a_beam_worker_says_is_shown(
    monkeypatch, tmp_path, tiny_checkpoint, records
):
    """A runner wraps a worker's error in its own, with its traceback as the text."""
    lines = "Traceback ...\nmagenta_nsynth.errors.StoreError: s3://a/b: refused.\nmore"

    def fail(**_):
        raise RuntimeError(lines)

    beam = types.SimpleNamespace(Pipeline=fail)
    options = types.SimpleNamespace(PipelineOptions=list)
    monkeypatch.setitem(sys.modules, "apache_beam", beam)
    name = "apache_beam.options.pipeline_options"
    monkeypatch.setitem(sys.modules, name, options)
    from magenta_nsynth.commands.export_beam import export_with_beam

    export = export_of({"checkpoint_path": tiny_checkpoint}, [records], tmp_path / "o")
    with pytest.raises(InputError, match=r"--runner=X failed: s3://a/b: refused\.$"):
        export_with_beam(export, "X", [])


def test_without_beam_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    from magenta_nsynth.commands.export_beam import export_with_beam

    with pytest.raises(InputError, match=r"magenta-nsynth\[beam\]"):
        export_with_beam(export_of({}, [], tmp_path), "DirectRunner", [])


# What can't be used.


@pytest.fixture
def damaged(records, tmp_path, clips):
    """The records with the third one damaged, and one of NaN behind them."""
    bad = note_to_example(Note("nan", np.full(1024, np.nan, np.float32)))
    good = [r.numpy() for r in tf.data.TFRecordDataset(records)]
    path = tmp_path / "damaged.tfrecord"
    tfrecords.write(path, [*good, bad, *good[:2]])
    tfrecords.flip(path, tfrecords.starts(good)[2] + 100)
    return path


def test_bad_records_are_named_and_left_out_only_by_a_flag(
    run, tmp_path, damaged, golden_tiny, caplog
):
    out = tmp_path / "out"
    assert run(paths=[damaged], notes_per_shard=2) == 1
    assert "damaged.tfrecord, record 2 (from 0): damaged" in caplog.text
    assert "damaged.tfrecord, record 6 (from 0): has NaN" in caplog.text
    assert "2 of 5 shards are not made" in caplog.text
    assert "--skip_corrupt" in caplog.text
    made = [n for n in names(out) if n.endswith(".npy")]
    assert [name[11:16] for name in made] == ["00000", "00002", "00004"]
    with pytest.raises(InputError, match="not complete"):
        open_embeddings(out)
    caplog.clear()
    assert run(paths=[damaged], notes_per_shard=2, skip_corrupt=True) == 2
    assert (
        "2 notes can't be used and are left out" in caplog.text
        and "record 2 (from 0)" in caplog.text
    )
    notes = check_originals(out, golden_tiny)
    assert [note.note_str for note in notes] == [*IDS[:2], *IDS[3:], *IDS[:2]]
    assert open_embeddings(out).manifest["num_skipped"] == 2
    assert not [name for name in names(out) if "problems" in name]
    assert run("at once", paths=[damaged], notes_per_shard=2, skip_corrupt=True) == 2
    assert content(tmp_path / "at once") == content(out)
    assert run(paths=[damaged], notes_per_shard=2) == 1  # not by that flag now


def test_a_torn_tail(run, tmp_path, records, caplog):
    torn = tmp_path / "torn.tfrecord"
    shutil.copy(records, torn)
    tfrecords.change(torn, lambda data: data[:-100])
    with pytest.raises(InputError, match=r"torn\.tfrecord, record 5 .*the file is cut"):
        run(paths=[torn])
    assert run(paths=[torn], skip_corrupt=True) == 2
    assert "torn.tfrecord, record 5" in caplog.text
    assert [note.note_str for note in open_embeddings(tmp_path / "out")] == IDS[:5]
    assert open_embeddings(tmp_path / "out").manifest["num_skipped"] == 1


def test_bad_sounds_in_between(run, tmp_path, clips, golden_tiny, caplog):
    folder = tmp_path / "sounds"
    write_wavs(folder, clips[:4], ["a", "c", "e", "g"])
    (folder / "b.wav").write_text("no sound", encoding="utf-8")
    wavfile.write(folder / "d.wav", 16_000, np.zeros(100, np.float32))
    (folder / "f.wav").mkdir()
    (folder / "h.wav").symlink_to("nowhere")
    assert run(paths=[folder]) == 1
    for words in ("b.wav: not a sound file", "d.wav: 100 samples"):
        assert words in caplog.text
    assert run(paths=[folder], skip_corrupt=True) == 2
    notes = check_originals(tmp_path / "out", golden_tiny)
    assert [note.note_str for note in notes] == ["a", "c", "e", "g"]


def test_of_many_remarks_some_are_shown(run, tmp_path, clips, caplog):
    notes = [note_to_example(Note(f"{i}", clips[3])) for i in range(30)]
    path = tfrecords.write(tmp_path / "many.tfrecord", notes)
    with caplog.at_level("INFO", logger="absl"):
        options = {"notes_per_shard": 30, "batch_size": 30, "sample_length": 512}
        assert run(paths=[path], **options) == 0
    cut = "600 samples are cut to 512"
    assert sum(cut in message for message in caplog.messages) == 20
    assert "And 10 more messages like these." in caplog.text


def test_a_full_disk_is_one_line_and_keeps_what_is_whole(run, tmp_path, monkeypatch):
    add, count = NpyCsvWriter.add, 0

    def fill(self, *arguments):
        nonlocal count
        count += 1
        if count == 6:
            raise OSError(28, "No space left on device")
        add(self, *arguments)

    monkeypatch.setattr(NpyCsvWriter, "add", fill)
    with pytest.raises(InputError) as error:
        run()
    assert "00001-of-00002" in str(error.value)
    assert "No space left on device; free some space and run again" in str(error.value)
    assert [n for n in names(tmp_path / "out") if n.endswith(".npy")] == [
        "embeddings-00000-of-00002.npy"
    ]
    assert run() == 0
    assert len(list(open_embeddings(tmp_path / "out"))) == 6


def test_where_nothing_can_be_written_is_said_before_work(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="give another --save_path"):
        run("file/below")


# Readers.


def test_neighbours_of_a_note(run, tmp_path):
    assert run() == 0
    notes = open_embeddings(tmp_path / "out")
    ids, means = notes.names(), notes.means()
    assert means.shape == (len(notes), 16) and means.dtype == np.float32
    i = ids.index("e")
    assert np.argsort(np.linalg.norm(means - means[i], axis=1))[0] == i
    found = notes.find("é ü/日本")
    assert isinstance(found.embedding, np.memmap) and found.embedding.shape == (8, 16)
    assert np.allclose(found.embedding.mean(axis=0), means[2], atol=1e-6)
    with pytest.raises(InputError, match="no note 'nobody'"):
        notes.find("nobody")


def test_lost_notes_are_not_passed_over(run, tmp_path):
    assert run() == 0
    table = tmp_path / "out/embeddings-00001-of-00002.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    for left in (0, 1, len(lines) - 1):
        table.write_text("".join(lines[:left]), encoding="utf-8")
        for read in (Embeddings.names, Embeddings.means):
            with pytest.raises(InputError, match=r"00001-of-00002\.npy: damaged"):
                read(open_embeddings(tmp_path / "out"))
    assert run("records", format="tfrecord") == 0
    path = tmp_path / "records/embeddings-00000-of-00002.tfrecord"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="has 0 notes instead of 4"):
        open_embeddings(tmp_path / "records").means()


def test_damaged_records_of_a_shard_are_one_line(run, tmp_path):
    assert run(format="tfrecord") == 0
    path = tmp_path / "out/embeddings-00000-of-00002.tfrecord"
    whole = path.read_bytes()
    notes = open_embeddings(tmp_path / "out")
    # Not an example, whose bytes TensorFlow's message quotes.
    tfrecords.write(path, [b"\xff\xfe\x80" * 9])
    with pytest.raises(InputError, match=r"00000-of-00002\.tfrecord: damaged"):
        notes.names()
    # Another length, which TensorFlow need not see.
    path.write_bytes(b"\xff" * 6 + whole[6:])
    with pytest.raises(InputError, match=r"00000-of-00002\.tfrecord, record 0"):
        notes.names()


def test_a_table_that_was_changed_is_one_line(run, tmp_path):
    assert run() == 0
    notes = open_embeddings(tmp_path / "out")
    table = tmp_path / "out/embeddings-00000-of-00002.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    for line in ("a\n", "a,60,100,,,,9999,-3\n", "a,x,100,,,,9999,3\n"):
        table.write_text("".join([lines[0], line, *lines[2:]]), encoding="utf-8")
        with pytest.raises(InputError, match=r"00000-of-00002\.csv, line 2"):
            notes.names()
    for array in (np.float32(1), np.zeros(9, np.float32), np.zeros([9, 16], "U1")):
        np.save(table.with_suffix(".npy"), array)
        with pytest.raises(InputError, match="not rows of float32"):
            notes.names()


def test_what_is_no_export_is_one_line(tmp_path):
    with pytest.raises(InputError, match="there is no export"):
        open_embeddings(tmp_path)


# The binary, killed.


@pytest.mark.slow
def test_twenty_kills(tiny_checkpoint, tmp_path, clips):
    notes = [note_to_example(Note(f"{i}", clips[i % 6])) for i in range(400)]
    source = tfrecords.write(tmp_path / "many.tfrecord", notes)

    def words(out):
        return command(
            "nsynth_export_embeddings",
            f"--source_path={source}",
            f"--save_path={tmp_path / out}",
            f"--checkpoint_path={tiny_checkpoint}",
            "--notes_per_shard=4",
            "--batch_size=3",
        )

    run_to_end = {"env": environment(), "check": True, "capture_output": True}
    subprocess.run(words("whole"), **run_to_end)
    random = np.random.default_rng(0)
    parts = tmp_path / "killed" / "parts"
    kills = 0
    for _ in range(20):
        before = len(list(parts.glob("*.json")))
        process = subprocess.Popen(words("killed"), env=environment(), stderr=-3)
        while process.poll() is None and len(list(parts.glob("*.json"))) == before:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 20
    subprocess.run(words("killed"), **run_to_end)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_the_binaries_flags_reach_the_job(tmp_path):
    """Its rooms below are stand-ins, so that nothing is loaded."""
    stub = textwrap.dedent("""
        import sys, types
        job = types.ModuleType("job")
        job.Export = lambda *a, **k: (a, k)
        job.export_embeddings = lambda e, i, n: print(e, i, n) or 2
        sys.modules["magenta_nsynth.commands.export_embeddings"] = job
        beam = types.ModuleType("beam")
        beam.export_with_beam = lambda e, r, o: print(r, o)
        sys.modules["magenta_nsynth.commands.export_beam"] = beam
        from magenta_nsynth import cli
        from magenta_nsynth.commands.options import Network
        from magenta_nsynth.notes.inputs import Inputs
        Network.check = Inputs.check = lambda self: None
        cli.load_tensorflow = lambda: None
        sys.argv = sys.argv[1:]
        import runpy
        runpy.run_path(sys.argv[0], run_name="__main__")
    """)

    def shown(*arguments):
        words = command("nsynth_export_embeddings", "--source_path=a", *arguments)
        words[1:1] = ["-c", stub]
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment(), cwd=tmp_path
        )
        return done.returncode, done.stdout + done.stderr

    flags = "--format=parquet --notes_per_shard=7 --bfloat16 --skip_corrupt --use_ema"
    flags += " --shard_index=1 --num_shards=3 --read_as=list --batch_size=2"
    status, text = shown(*flags.split(), "--save_path=o", "--checkpoint_path=c")
    assert status == 2 and text.endswith(" 1 3\n")
    for part in (
        "format='parquet'", "notes_per_shard=7", "bfloat16=True", "source_path=('a',)",
        "skip_corrupt=True", "use_ema=True", "read_as='list'", "'o'",
        "checkpoint_path='c'", "batch_size=2",
    ):  # fmt: skip
        assert part in text, part
    beam = ("--runner=DirectRunner", "--runner_option=--direct_num_workers=2")
    beam += ("--save_path=o",)
    assert shown(*beam) == (0, "DirectRunner ('--direct_num_workers=2',)\n")
    assert "--num_shards can't be used with" in shown(*beam, "--num_shards=2")[1]
    assert "needs --runner" in shown(beam[1])[1]


def test_an_export_of_version_0_1_is_read(run, tmp_path, golden_tiny):
    """Its parts have no checksums of what they say."""
    assert run() == 0
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    for part in manifest["shards"]:
        del part["checksum"]
    path.write_text(json.dumps(manifest))
    assert len(check_originals(tmp_path / "out", golden_tiny)) == len(IDS)
