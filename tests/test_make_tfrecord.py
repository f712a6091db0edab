"""NSynth's JSON/WAV form and one's own sounds into TFRecords, and back."""

import errno
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tracemalloc

import hostile_tar as hostile
import numpy as np
import pytest
import tensorflow as tf
from binaries import command, environment, error_line, names, run, run_and_signal
from commands import make_tfrecord
from scipy.io import wavfile

from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.errors import InputError
from magenta_nsynth.notes import archive
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.schema import Note

RNG = np.random.default_rng(0)
SHARD = "notes.tfrecord-00000-of-00001"
INTS = ["pitch", "velocity", "instrument_family", "instrument_source"]
NUMBERS = ["note", "instrument", "sample_rate"]
STRINGS = [
    f"{name}_str"
    for name in ("note", "instrument", "instrument_family", "instrument_source")
]


def noise(num_samples=64_000):
    return RNG.integers(-32768, 32768, num_samples).astype(np.int16)


def read(*paths, length=64_000):
    """The notes of TFRecord files, as NSynth's own reader takes them, in order."""
    spec = {name: tf.io.FixedLenFeature([1], tf.int64) for name in INTS + NUMBERS}
    spec |= {name: tf.io.FixedLenFeature([], tf.string) for name in STRINGS}
    spec["audio"] = tf.io.FixedLenFeature([length], tf.float32)
    spec["qualities"] = tf.io.FixedLenFeature([10], tf.int64)
    spec["qualities_str"] = tf.io.VarLenFeature(tf.string)
    notes = []
    for record in tf.data.TFRecordDataset([str(path) for path in paths]):
        note = tf.io.parse_single_example(record, spec)
        note["qualities_str"] = tf.sparse.to_dense(note["qualities_str"])
        notes.append({name: value.numpy() for name, value in note.items()})
    return notes


def dates(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("notes.tf*")}


def by_name(folder, **options):
    notes = read(*sorted(folder.glob("*.tfrecord-*")), **options)
    return {note["note_str"].decode(): note for note in notes}


ENTRY = {
    "note": 7, "note_str": "", "instrument": 33, "pitch": 22, "velocity": 50,
    "instrument_str": "bass_synthetic_033", "instrument_family": 0,
    "instrument_family_str": "bass", "instrument_source": 2,
    "instrument_source_str": "synthetic", "sample_rate": 16000,
    "qualities": [0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
    "qualities_str": ["dark", "tempo-synced"],
}  # fmt: skip


@pytest.fixture
def nsynth(tmp_path):
    """A JSON/WAV folder of 7 notes, in another order than the alphabet's."""
    folder = tmp_path / "nsynth-x"
    (folder / "audio").mkdir(parents=True)
    entries = {}
    for number in (3, 0, 6, 1, 5, 2, 4):
        name = f"bass_synthetic_033-02{number}-050"
        entries[name] = ENTRY | {"note": number, "note_str": name, "pitch": 20 + number}
        wavfile.write(folder / "audio" / f"{name}.wav", 16_000, noise())
    (folder / "examples.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def labels(folder):
    return json.loads((folder / "examples.json").read_text(encoding="utf-8"))


def pack(folder, path, json_last=False):
    """A .tar.gz of a JSON/WAV folder with the WAV files in the order of the JSON."""
    members = [f"audio/{name}.wav" for name in labels(folder)]
    members.insert(len(members) if json_last else 0, "examples.json")
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for member in members:
            tar.add(folder / member, f"{folder.name}/{member}")
    return path


def test_the_full_schema(nsynth, tmp_path):
    assert make_tfrecord([nsynth], tmp_path / "out") == 0
    notes = read(tmp_path / "out" / SHARD)
    entries = labels(nsynth)
    assert [note["note_str"].decode() for note in notes] == list(entries)
    for note, entry in zip(notes, entries.values(), strict=True):
        _, samples = wavfile.read(nsynth / "audio" / f"{entry['note_str']}.wav")
        assert (note.pop("audio") == samples / np.float32(32768)).all()
        assert list(note.pop("qualities")) == entry["qualities"]
        assert [q.decode() for q in note.pop("qualities_str")] == [
            "dark",
            "tempo-synced",
        ]
        for name in STRINGS:
            assert note.pop(name).decode() == entry[name]
        assert {name: int(value[0]) for name, value in note.items()} == {
            name: entry[name] for name in INTS + NUMBERS
        }


def test_audio_is_written_as_protobuf_writes_it():
    for length in (0, 1, 31, 32, 64_000):
        audio = RNG.standard_normal(length).astype(np.float32)
        example = tf.train.Example.FromString(note_to_example(Note("x", audio)))
        written = example.features.feature["audio"].SerializeToString()
        wanted = tf.train.Feature(float_list=tf.train.FloatList(value=audio))
        assert written == wanted.SerializeToString()


@pytest.mark.parametrize("form", ["folder", "json first", "json last"])
def test_wav_to_tfrecord_to_wav_is_the_same_to_the_byte(nsynth, tmp_path, form, caplog):
    source = nsynth
    if form != "folder":
        source = pack(nsynth, tmp_path / "x.jsonwav.tar.gz", form == "json last")
    with caplog.at_level("INFO", logger="absl"):
        assert make_tfrecord([source], tmp_path / "records", num_shards=3) == 0
        assert make_tfrecord([tmp_path / "records"], tmp_path / "back") == 0
    assert "7 notes as 16-bit WAV, without loss" in caplog.text
    assert labels(tmp_path / "back") == labels(nsynth)
    assert list(labels(tmp_path / "back")) == list(labels(nsynth))
    wavs = sorted((nsynth / "audio").iterdir())
    assert names(tmp_path / "back" / "audio") == [wav.name for wav in wavs]
    for wav in wavs:
        back = tmp_path / "back" / "audio" / wav.name
        assert back.read_bytes() == wav.read_bytes()


def test_all_ways_give_the_same_bytes(nsynth, tmp_path):
    sources = [nsynth, pack(nsynth, tmp_path / "a.tgz"), tmp_path / "b.tar.gz"]
    pack(nsynth, sources[2], json_last=True)
    made = []
    for i, source in enumerate(sources):
        out = tmp_path / str(i)
        assert make_tfrecord([source], out, num_shards=2, num_threads=1 + i) == 0
        made.append([path.read_bytes() for path in sorted(out.glob("*-of-00002"))])
    assert len(made[0]) == 2 and made[0] == made[1] == made[2]


def note(name="a", audio=None, **fields):
    audio = np.zeros(10, np.float32) if audio is None else audio
    return note_to_example(Note(name, np.asarray(audio, np.float32), **fields))


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_rounding_is_said_and_float_loses_nothing(tmp_path, caplog):
    audio = np.float32([0.1, -0.25, 1.5, 1e-30, 32767 / 32768])
    source = write_records(
        tmp_path / "x.tfrecord", [note("odd", audio), note("even", [0.5, -1.0])]
    )
    assert make_tfrecord([source], tmp_path / "16") == 0
    assert "1 of 2 notes" in caplog.text and "odd" in caplog.text
    assert "rounded, and 1 clipped" in caplog.text and "--float" in caplog.text
    rate, samples = wavfile.read(tmp_path / "16" / "audio" / "odd.wav")
    assert rate == 16_000 and samples.dtype == np.int16
    assert list(samples) == [3277, -8192, 32767, 0, 32767]
    caplog.clear()
    assert make_tfrecord([source], tmp_path / "float", as_float=True) == 0
    _, samples = wavfile.read(tmp_path / "float" / "audio" / "odd.wav")
    assert samples.dtype == np.float32 and (samples == audio).all()
    assert "rounded" not in caplog.text


def test_going_back_continues_and_mends(nsynth, tmp_path, monkeypatch):
    make_tfrecord([nsynth], tmp_path / "records")
    back = tmp_path / "back"
    make_tfrecord([tmp_path / "records"], back)
    wavs = sorted((back / "audio").iterdir())
    wavs[0].write_bytes(wavs[0].read_bytes()[:1000])
    wavs[1].unlink()
    content = wavs[2].read_bytes()
    wavs[2].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    dates = {wav: wav.stat().st_mtime_ns for wav in wavs[3:]}
    (back / "examples.json").unlink()
    (back / "audio" / ".writing-x.wav").touch()
    assert make_tfrecord([tmp_path / "records"], back) == 0
    assert dates == {wav: wav.stat().st_mtime_ns for wav in wavs[3:]}
    for wav in wavs:
        assert wav.read_bytes() == (nsynth / "audio" / wav.name).read_bytes()
    assert not (back / "audio" / ".writing-x.wav").exists()
    with pytest.raises(InputError, match="--overwrite"):
        make_tfrecord([tmp_path / "records"], back, as_float=True)
    assert (
        make_tfrecord([tmp_path / "records"], back, as_float=True, overwrite=True) == 0
    )
    assert wavfile.read(wavs[0])[1].dtype == np.float32


def test_bad_records_are_named_and_the_others_written(tmp_path, caplog):
    records = [note(name) for name in ("a", "b", "../c", "a", "d")]
    records += [b"no example", note("nan", [np.nan]), note("e")]
    source = write_records(tmp_path / "x.tfrecord", records)
    content = bytearray(source.read_bytes())
    content[len(records[0]) + 16 + 50] ^= 1  # in b
    source.write_bytes(content)
    assert make_tfrecord([source], tmp_path / "out") == 1
    assert names(tmp_path / "out" / "audio") == ["a.wav", "d.wav", "e.wav"]
    assert list(labels(tmp_path / "out")) == ["a", "d", "e"]
    for words in (
        f"{source}, record 1 (from 0): damaged",
        "record 2 (from 0): the note_str '../c' can't be",
        "record 3 (from 0): the note a is there twice",
        "record 5 (from 0): not a tf.Example",
        "record 6 (from 0): has NaN or infinite samples",
        "5 of 8 files failed",
    ):
        assert words in caplog.text


def test_hidden_folders_beside_tfrecords_are_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    write_records(tmp_path / "in" / "x.tfrecord", [note("a")])
    (tmp_path / "in" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "in" / "__MACOSX").mkdir()
    assert make_tfrecord([tmp_path / "in"], tmp_path / "out") == 0
    assert list(labels(tmp_path / "out")) == ["a"]


def test_a_missing_shard_is_named(nsynth, tmp_path):
    make_tfrecord([nsynth], tmp_path / "out", num_shards=3)
    (tmp_path / "out" / "notes.tfrecord-00001-of-00003").unlink()
    with pytest.raises(InputError, match="00001-of-00003: missing"):
        make_tfrecord([tmp_path / "out"], tmp_path / "back")
    assert make_tfrecord([tmp_path / "out" / "*-of-00003"], tmp_path / "back") == 0


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"

    def write(name, samples=64_000, rate=16_000):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio = noise(samples) if isinstance(samples, int) else samples
        wavfile.write(path, rate, audio)
        return path

    write.folder = folder
    return write


def test_own_sounds_by_folder_and_name(sounds, tmp_path, data, caplog):
    sounds("bass/piano C2.wav")
    sounds("Synth-Lead/moog/F#3.WAV")
    sounds("drums/kick.wav")
    sounds("bass/guitar_acoustic_007-060-100.wav")
    shutil.copy(
        data / "audio_stereo_44k.flac", sounds.folder / "bass" / "f_midi40.flac"
    )
    with caplog.at_level("INFO", logger="absl"):
        assert make_tfrecord([sounds.folder], tmp_path / "out") == 0
    notes = by_name(tmp_path / "out")
    rows = {
        name: [int(note[key][0]) for key in (*INTS, "note", "instrument")]
        for name, note in notes.items()
    }
    assert rows == {
        "Synth-Lead_moog_F#3": [54, -1, 9, -1, 0, 0],
        "bass_f_midi40": [40, -1, 0, -1, 1, 1],
        "bass_piano C2": [36, -1, 0, -1, 2, 1],
        "drums_kick": [-1, -1, -1, -1, 3, 2],
        "guitar_acoustic_007-060-100": [60, 100, 3, 0, 4, 3],
    }
    assert list(rows) == sorted(rows)
    assert notes["drums_kick"]["instrument_family_str"] == b"unknown"
    assert notes["Synth-Lead_moog_F#3"]["instrument_str"] == b"Synth-Lead_moog"
    assert (
        notes["guitar_acoustic_007-060-100"]["instrument_str"] == b"guitar_acoustic_007"
    )
    [said] = [m for m in caplog.messages if "no known family" in m]
    assert "1 of 5" in said and "kick.wav" in said and "synth_lead, vocal" in said
    # 0.3 s of a 440 Hz tone in stereo at 44.1 kHz, the rest is zeros.
    audio = notes["bass_f_midi40"]["audio"]
    assert np.abs(audio[:4800]).max() > 0.1 and not audio[4800:].any()
    spectrum = np.abs(np.fft.rfft(audio[:4800] * np.hanning(4800)))
    assert abs(spectrum.argmax() * 16_000 / 4800 - 440) < 4


def test_it_says_where_pitch_and_family_come_from(sounds, tmp_path, caplog):
    sounds("bass/Hammond B3.wav")
    sounds("bass/long C2.wav", 120_000)  # two notes
    sounds("bass/x_midi40.wav")
    sounds("guitar_acoustic_007-060-100.wav")
    sounds("recording-012-003.wav")
    for number in (64, 65):
        sounds(f"reed/sax_{number}.wav")
    chunk = struct.pack("<4sI9I", b"smpl", 36, 0, 0, 62_500, 67, *[0] * 5)
    with open(sounds("bass/sampled.wav"), "ab") as file:
        file.write(chunk)
    (sounds.folder / "left.csv").write_text("file,pitch,family\nbass/x_midi40.wav,C3,")
    caplog.set_level("INFO")
    assert make_tfrecord([sounds.folder], tmp_path / "out") == 0
    notes = by_name(tmp_path / "out")
    assert {name: int(note["pitch"][0]) for name, note in notes.items()} == {
        "bass_Hammond B3": -1,
        "bass_long C2_000": 36,
        "bass_long C2_001": 36,
        "bass_sampled": 67,
        "bass_x_midi40": 40,
        "guitar_acoustic_007-060-100": 60,
        "reed_sax_64": 64,
        "reed_sax_65": 65,
        "sounds_recording-012-003": -1,
    }
    assert (
        "The pitch of 9 notes: 2 by note name (long "
        "C2.wav: 36); 2 by MIDI number at the end of the name (sax_64.wav: 64); 1 by "
        "unity note of its smpl or INST chunk (sampled.wav: 67); 1 by midi or pitch "
        "with a number (x_midi40.wav: 40); 1 by NSynth's name "
        "(guitar_acoustic_007-060-100.wav: 60); 2 not known (Hammond B3.wav)."
    ) in caplog.messages
    assert (
        "The family of 9 notes: 7 by folder (bass/Hammond B3.wav: bass); 1 by NSynth's "
        "name (sounds/guitar_acoustic_007-060-100.wav: guitar); 1 not known "
        "(sounds/recording-012-003.wav)."
    ) in caplog.messages
    assert "2 of 8 files have no known pitch" in caplog.text
    caplog.clear()
    csv = sounds.folder / "left.csv"
    rules = NameRules("none", "C3")
    assert make_tfrecord([sounds.folder], tmp_path / "1", csv=csv, rules=rules) == 0
    assert [note["pitch"] for note in by_name(tmp_path / "1").values()] == [60]
    assert "The pitch of 1 notes: 1 by CSV (x_midi40.wav: 60)." in caplog.messages
    assert "1 by folder (bass/x_midi40.wav: bass)" in caplog.text


def test_unity_notes_that_say_nothing(sounds, tmp_path, caplog):
    def sampled(name, note):
        with open(sounds(name, 100), "ab") as file:
            file.write(struct.pack("<4sI9I", b"smpl", 36, *[0] * 3, note, *[0] * 5))

    def pitches():
        assert make_tfrecord([sounds.folder], tmp_path / "out", overwrite=True) == 0
        return [int(n["pitch"][0]) for n in by_name(tmp_path / "out").values()]

    caplog.set_level("INFO")
    sampled("a.wav", 60)
    assert pitches() == [60]
    sampled("b.wav", 60)
    sampled("c.wav", 0)
    assert pitches() == [-1, -1, -1]
    assert "2 not known: all unity notes are 60, a common default" in (caplog.text)
    sampled("d.wav", 61)
    assert pitches() == [60, 60, -1, 61]
    assert "--middle_c" not in caplog.text
    # The name goes before; here it has another middle C.
    for name in ("C3", "F3"):
        sampled(f"keys/piano {name}.wav", 60 if name == "C3" else 65)
    assert pitches()[:2] == [48, 53]
    assert "2 files are 12 semitones above the notes" in caplog.text
    assert "with --middle_c=C3 they agree" in caplog.text


def test_long_sounds_are_cut_and_short_ones_filled_up(sounds, tmp_path, caplog):
    lengths = {"a": 40_000, "b": 64_000, "c": 150_000, "d": 64_000 + 15_999, "e": 1}
    samples = {k: np.arange(1, v + 1, dtype=np.int32) for k, v in lengths.items()}
    for name, values in samples.items():
        sounds(f"bass/{name}.wav", values.astype(np.float32) / 2**18)
    with caplog.at_level("INFO", logger="absl"):
        assert make_tfrecord([sounds.folder], tmp_path / "out") == 0
    notes = by_name(tmp_path / "out")
    pieces = ["c_000", "c_001", "c_002"]
    assert list(notes) == [f"bass_{name}" for name in ("a", "b", *pieces, "d", "e")]

    def content(name):
        return list((notes[f"bass_{name}"]["audio"] * 2**18).astype(int))

    assert content("a") == [*samples["a"], *[0] * 24_000]
    assert content("b") == list(samples["b"])
    assert content("c_000") + content("c_001") == list(samples["c"][:128_000])
    assert content("c_002") == [*samples["c"][128_000:], *[0] * 42_000]
    assert content("d") == list(samples["d"][:64_000])
    assert "The end of 1 of 5 files, less than 1 s, is left out" in caplog.text
    assert "d.wav" in caplog.text

    options = {"note_seconds": 2.5, "pad": False}
    assert make_tfrecord([sounds.folder], tmp_path / "short", **options) == 0
    short = by_name(tmp_path / "short", length=40_000)
    wanted = ["a", "b", "c_000", "c_001", "c_002", "d"]
    assert list(short) == [f"bass_{name}" for name in wanted]
    with pytest.raises(InputError, match=r"e\.wav: shorter than a note"):
        make_tfrecord([sounds.folder / "bass/e.wav"], tmp_path / "e", **options)

    assert make_tfrecord([sounds.folder], tmp_path / "whole", note_seconds=0) == 0
    for record in tf.data.TFRecordDataset(str(tmp_path / "whole" / SHARD)):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        [name] = feature["note_str"].bytes_list.value
        audio = feature["audio"].float_list.value
        assert len(audio) == lengths.pop(name.decode()[-1])
    assert not lengths


def test_labels_from_a_csv(sounds, tmp_path):
    for name in ("one", "zwö", "three", "four"):
        sounds(f"deep/{name}.wav")
    rows = [
        "\ufefffile;Pitch;velocity;family;source;instrument;qualities;note_str",
        "deep/one.wav;60;100;Synth Lead;Acoustic;moog;bright tempo-synced;first",
        '"deep\\zwö.wav";F#3;;;;;;',
        "",
        "deep/three.wav;;;4;;;;",
    ]
    table = tmp_path / "labels.csv"
    table.write_text("\r\n".join(rows[:-1]), encoding="utf-8")
    assert make_tfrecord([sounds.folder], tmp_path / "out", csv=table) == 0
    notes = by_name(tmp_path / "out")
    assert {
        name: [int(note[key][0]) for key in INTS] for name, note in notes.items()
    } == {"deep_zwö": [54, -1, -1, -1], "first": [60, 100, 9, 0]}
    assert notes["first"]["instrument_str"] == b"moog"
    assert list(notes["first"]["qualities"]) == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1 must name"),
        ("name,pitch\na.wav,1", "line 1 must name"),
        ("file,picth\na.wav,1", "picth"),
        ("file,pitch\na.wav,128", "line 2: pitch '128'"),
        ("file,pitch\na.wav,1\n\na.wav,H4", "line 4: pitch 'H4'"),
        ("file,velocity\na.wav,-1", "line 2: velocity '-1'"),
        ("file,family\na.wav,drums", "synth_lead"),
        ("file,source\na.wav,bass", "acoustic, electronic, synthetic"),
        ("file,qualities\na.wav,bright loud", "tempo-synced"),
        ("file,pitch\n,4", "line 2: the cell under 'file'"),
        ("file\nb.wav", "line 2: b.wav is not in"),
        ("file\na.wav,2", "line 2: 2 cells under 1 columns"),
        ("file", "names no files"),
        ("file,note_str\na.wav,x\na.wav,x", "line 2 and .*line 3 would both"),
    ],
)
def test_bad_csv_files_name_the_line(sounds, tmp_path, text, words):
    sounds("a.wav", 100)
    table = tmp_path / "labels.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as error:
        make_tfrecord([sounds.folder], tmp_path / "out", csv=table)
    assert str(table) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_two_notes_of_one_name_are_refused_before_work(sounds, tmp_path, data):
    sounds("bass/a.wav", 100)
    sounds("flute/a.wav", 100)  # another folder is another instrument
    assert make_tfrecord([sounds.folder], tmp_path / "fine") == 0
    shutil.copy(data / "audio_mono_16k.flac", sounds.folder / "bass" / "a.flac")
    words = r"a\.flac and .*a\.wav would both .* rename one, or put them in different"
    with pytest.raises(InputError, match=words):
        make_tfrecord([sounds.folder], tmp_path / "out")
    (sounds.folder / "bass" / "a.flac").unlink()
    for folder in ("one", "two"):
        sounds(f"{folder}/bass_synthetic_033-022-050.wav", 100)
    words = r"would both be the note bass_synthetic_033-022-050; rename one\.$"
    with pytest.raises(InputError, match=words):
        make_tfrecord([sounds.folder], tmp_path / "out")
    paths = [sounds(f"{place}/piano/C4.wav", 100).parent for place in "xy"]
    with pytest.raises(InputError, match=r"piano_C4; rename one, or its folder\.$"):
        make_tfrecord(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_files_are_reported_and_the_others_done(sounds, tmp_path, data, caplog):
    for i in range(6):
        sounds(f"bass/{i}.wav")
    whole = (sounds.folder / "bass/1.wav").read_bytes()
    (sounds.folder / "bass/1.wav").write_bytes(whole[:5000])
    (sounds.folder / "bass/3x.mp3").write_text("hello", encoding="utf-8")
    sounds("bass/long.wav", np.full(200_000, np.nan, np.float32))
    out = tmp_path / "out"
    for attempt in range(2):  # the second finds the shards there
        caplog.clear()
        assert make_tfrecord([sounds.folder], out, num_shards=3) == 1
        errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert len(errors) == 4, attempt
        words = ("1.wav: truncated", "3x.mp3: damaged", "long.wav: has NaN", "3 of 8")
        assert all(map(str.__contains__, errors, words))
        assert list(by_name(out)) == [f"bass_{i}" for i in (0, 2, 3, 4, 5)]
    before = dates(out)
    (sounds.folder / "bass/1.wav").write_bytes(whole)
    assert make_tfrecord([sounds.folder], out, num_shards=3) == 1
    after = dates(out)
    assert [name for name in before if before[name] != after[name]] == [
        "notes.tfrecord-00000-of-00003"
    ]
    assert list(by_name(out)) == [f"bass_{i}" for i in range(6)]


def test_bad_entries_are_named_and_the_others_done(nsynth, tmp_path, caplog):
    entries = labels(nsynth)
    first, second, third, fourth, *_, last = entries
    del entries[first]["velocity"]
    entries[second]["qualities"] = [0] * 9
    entries[third]["pitch"] = "22"
    del entries[last]
    (nsynth / "examples.json").write_text(json.dumps(entries), encoding="utf-8")
    (nsynth / "audio" / f"{fourth}.wav").unlink()
    packed = tmp_path / "x.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        tar.add(nsynth, "x")
    for i, source in enumerate([nsynth, packed]):
        caplog.clear()
        assert make_tfrecord([source], tmp_path / str(i)) == 1
        assert len(by_name(tmp_path / str(i))) == 2
        for words in (
            f"'{first}' lacks velocity",
            f"'{second}' has qualities that are not 10",
            f"'{third}' has pitch '22'",
            fourth,
            last,
        ):
            assert words in caplog.text
        assert caplog.text.count(str(source)) >= 5


@pytest.mark.parametrize("cut", [0.02, 0.5, 0.9999])
def test_a_cut_archive_keeps_what_is_finished(nsynth, tmp_path, cut):
    path = pack(nsynth, tmp_path / "x.tar.gz")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"x\.tar\.gz: damaged or cut off"):
        make_tfrecord([path], out, num_shards=7)
    there = sorted(p.name for p in out.glob("notes.tfrecord-*"))
    assert len(there) == {0.02: 0, 0.5: 2, 0.9999: 5}[cut]
    assert not [name for name in names(out) if name.startswith(".")]
    path.write_bytes(content)
    assert make_tfrecord([path], out, num_shards=7) == 0
    assert make_tfrecord([nsynth], tmp_path / "folder", num_shards=7) == 0
    for made in (tmp_path / "folder").glob("*.tfrecord-*"):
        assert made.read_bytes() == (out / made.name).read_bytes()


def test_a_damaged_archive_shows_by_its_checksum(nsynth, tmp_path):
    path = pack(nsynth, tmp_path / "x.tar.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tar\.gz: damaged.*CRC"):
        make_tfrecord([path], tmp_path / "out")


def test_a_finished_archive_is_not_read_again(nsynth, tmp_path, monkeypatch):
    path = pack(nsynth, tmp_path / "x.tar.gz")
    assert make_tfrecord([path], tmp_path / "out") == 0
    monkeypatch.setattr(archive, "_files", None)
    assert make_tfrecord([path], tmp_path / "out") == 0


def test_other_options_or_another_source_are_noticed(nsynth, sounds, tmp_path):
    out = tmp_path / "out"
    sounds("bass/a.wav", 70_000)
    make_tfrecord([sounds.folder], out)
    before = (out / SHARD).read_bytes()
    for source, options, words in (
        (sounds.folder, {"note_seconds": 1}, "note_length"),
        (sounds.folder, {"num_shards": 1}, "num_shards"),
        (nsynth, {}, "source"),
    ):
        with pytest.raises(InputError, match=rf"{words}.*--overwrite"):
            make_tfrecord([source], out, **options)
    assert (out / SHARD).read_bytes() == before
    assert make_tfrecord([nsynth], out, name="others") == 0
    assert make_tfrecord([nsynth], out, overwrite=True, num_shards=2) == 0
    assert names(out) == [
        "notes.manifest.json",
        "notes.tfrecord-00000-of-00002",
        "notes.tfrecord-00001-of-00002",
        "others.manifest.json",
        "others.tfrecord-00000-of-00001",
    ]
    (out / "notes.manifest.json").unlink()
    with pytest.raises(InputError, match="which says how it was made"):
        make_tfrecord([nsynth], out, num_shards=2)


def test_shuffling_is_repeatable(nsynth, tmp_path):
    orders = []
    for i, seed in enumerate([None, 1, 1, 2]):
        make_tfrecord([nsynth], tmp_path / str(i), shuffle_seed=seed)
        orders.append(list(by_name(tmp_path / str(i))))
    assert orders[1] == orders[2] and orders[0] == list(labels(nsynth))
    assert len({tuple(order) for order in orders}) == 3
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(orders[0]))}


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(
    nsynth, tmp_path, monkeypatch
):
    write = tf.io.TFRecordWriter.write
    count = []

    def fill(writer, record):
        count.append(1)
        if len(count) > 4:
            raise tf.errors.ResourceExhaustedError(
                None, None, "x; No space left on device"
            )
        write(writer, record)

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", fill)
    out = tmp_path / "out"
    with pytest.raises(
        InputError, match=r"00002-of-00004: No space left.*free some space"
    ):
        make_tfrecord([nsynth], out, num_shards=4)
    assert names(out) == [
        "notes.manifest.json",
        "notes.tfrecord-00000-of-00004",
        "notes.tfrecord-00001-of-00004",
    ]
    monkeypatch.undo()
    assert make_tfrecord([nsynth], out, num_shards=4) == 0
    assert len(by_name(out)) == 7


def test_a_full_disk_ends_going_back(nsynth, tmp_path, monkeypatch):
    make_tfrecord([nsynth], tmp_path / "records")

    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(wavfile, "write", fill)
    with pytest.raises(InputError, match=r"\.wav: No space left.*free some space"):
        make_tfrecord([tmp_path / "records"], tmp_path / "back")
    assert names(tmp_path / "back") == [".made_from.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paths": []}, "--source_path"),
        ({"paths": ["nowhere"]}, "nowhere: does not exist"),
        ({"paths": ["nest"]}, "folder down; give --source_path=nest/nsynth"),
        ({"paths": ["nsynth-x", "sounds"]}, "different kinds"),
        ({"paths": ["nsynth-x", "nsynth-x"]}, "one data set at a time"),
        ({"paths": ["empty"]}, "empty: no .aif, "),
        ({"paths": ["empty"], "read_as": "jsonwav"}, "examples.json: can't"),
        ({"paths": ["x.tar"]}, "x.tar: not a .tar or .tar.gz archive"),
        ({"paths": ["mixed"]}, "--read_as=tfrecord or --read_as=audio"),
        ({"paths": ["bad"]}, "no valid JSON"),
        ({"paths": ["x.tfrecord"]}, "x.tfrecord"),
        ({"out": ""}, "--save_path"),
        ({"out": "x.tar"}, "must be a folder"),
        ({"csv": "x.csv"}, "--csv can't be used with a JSON/WAV folder"),
        ({"as_float": True}, "--float can't be used with a JSON/WAV folder"),
        ({"rules": NameRules("midi")}, "--pitch_from_name can't be used with a JSON"),
        ({"rules": NameRules(middle_c="C5")}, "--middle_c can't be used with a JSON"),
        ({"note_seconds": -1, "paths": ["sounds"]}, "--note_seconds=-1"),
        ({"note_seconds": 1e-9, "paths": ["sounds"]}, "--note_seconds=1e-09"),
        ({"num_shards": 0}, "--num_shards=0"),
        ({"num_shards": 8}, "more than the 7 notes"),
        ({"name": "a/b"}, "--name=a/b"),
    ],
)
def test_wrong_arguments_are_refused(
    nsynth, sounds, tmp_path, monkeypatch, options, words
):
    sounds("bass/a.wav", 100)
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "mixed", "bad/audio"):
        pathlib.Path(name).mkdir(parents=True)
    for name in ("x.tar", "mixed/a.tfrecord", "mixed/a.wav"):
        pathlib.Path(name).touch()
    shutil.copytree(nsynth, "nest/nsynth")
    pathlib.Path("bad/examples.json").write_text("{", encoding="utf-8")
    pathlib.Path("x.tfrecord").write_text("hello" * 10, encoding="utf-8")
    options = {"paths": ["nsynth-x"], "out": "out"} | options
    if options["paths"] == ["x.tfrecord"]:
        assert make_tfrecord(**options) == 1
        return
    with pytest.raises(InputError) as error:
        make_tfrecord(**options)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not list(pathlib.Path().glob("out/*.tfrecord*"))


def test_another_run_in_the_folder_is_refused(nsynth, tmp_path):
    from magenta_nsynth.data.writing import locked

    (tmp_path / "out").mkdir()
    with (
        locked(str(tmp_path / "out")),
        pytest.raises(InputError, match="another program is writing there"),
    ):
        make_tfrecord([nsynth], tmp_path / "out")
    assert make_tfrecord([nsynth], tmp_path / "out") == 0


def test_kill_and_resume(sounds, tmp_path, data):
    folder = sounds.folder / "bass"
    folder.mkdir(parents=True)
    for i in range(200):
        shutil.copy(data / "audio_stereo_44k.flac", folder / f"{i:03}.flac")
    out = tmp_path / "out"
    words = command(
        "nsynth_make_tfrecord",
        f"--source_path={sounds.folder}",
        f"--save_path={out}",
        "--num_shards=40",
        "--num_threads=1",
    )
    last = out / "notes.tfrecord-00039-of-00040"
    third = out / "notes.tfrecord-00002-of-00040"
    assert run_and_signal(words, third, signal.SIGKILL).returncode == -9
    done = dates(out)
    assert 3 <= len(done) < 40 and not last.exists()
    assert make_tfrecord([sounds.folder], out, num_shards=40) == 0
    assert done.items() <= dates(out).items()
    assert make_tfrecord([sounds.folder], tmp_path / "other", num_shards=40) == 0
    assert names(out) == names(tmp_path / "other")  # nothing of the kill is left
    for name in names(out):
        assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_the_binary(sounds, tmp_path):
    sounds("bass/a.wav", 100)
    (sounds.folder / "bass" / "b.wav").touch()
    flags = [f"--source_path={sounds.folder}", f"--save_path={tmp_path / 'out'}"]
    result = run("nsynth_make_tfrecord", *flags, "--note_seconds=0.5", "--log=ERROR")
    assert result.returncode == 1 and result.stdout == ""
    *_, bad, count = result.stderr.splitlines()
    assert bad.startswith("ERROR: ") and "b.wav: the file is empty" in bad
    assert count == "ERROR: 1 of 2 files failed; the others are done."
    assert list(by_name(tmp_path / "out", length=8000)) == ["bass_a"]
    assert "picth" in error_line(run("nsynth_make_tfrecord", *flags, "--picth=1"))


@pytest.mark.skipif(os.name == "nt", reason="its paths differ")
def test_relative_paths_and_one_family_folder(sounds, tmp_path, monkeypatch):
    sounds("guitar/E2.wav")
    monkeypatch.chdir(sounds.folder / "guitar")
    assert make_tfrecord(["."], tmp_path / "out") == 0
    [(name, note)] = by_name(tmp_path / "out").items()
    assert name == "guitar_E2"
    assert (note["instrument_family"], note["pitch"]) == (3, 40)


def in_archive(path, labels, *members):
    """A .tar.gz of an examples.json of such parts, and other members."""
    size = sum(part if isinstance(part, int) else len(part) for part in labels)
    parts = [hostile.header("x/examples.json", size), *labels, -size % 512]
    return hostile.write_zipped(path, *parts, *members, hostile.END)


def in_folder(folder, labels):
    (folder / "audio").mkdir(parents=True)
    (folder / "examples.json").write_bytes(labels)
    return folder


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (b"", "no valid JSON"),
        (b"[]", "no valid JSON"),
        (b"{} {}", "no valid JSON"),
        (b"{}", "names no notes"),
        (b" { } \n", "names no notes"),
        (b'{"a": {}', "no valid JSON"),
        (b'{"a": {},}', "no valid JSON"),
        (b'{"a" {}}', "no valid JSON"),
        (b"{1: {}}", "no valid JSON"),
        (b'{"a": {}} x', "something after its end"),
        (b'{"\xff": {}}', "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no valid JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "no valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b'{"a": [' + b"1," * 10_000 + b"1]}", "more than 16384 characters"),
        (b'{"' + b"a" * 200_000 + b'": 1}', "no valid JSON"),
    ],
)
def test_labels_that_are_refused(tmp_path, form, labels, words):
    if form == "folder":
        source = in_folder(tmp_path / "x", labels)
    else:
        source = in_archive(tmp_path / "x.tgz", [labels])
    with pytest.raises(InputError, match=words) as error:
        make_tfrecord([source], tmp_path / "out")
    assert "examples.json" in str(error.value) and "\n" not in str(error.value)


WRONG = {
    r"\u0000": {}, r"\ud800": {}, r"a\u0000b": {}, "": {}, "x" * 300: {},
    "a": [], "b": None, "c": "x", "d": {"pitch": [[]]}, "e": {"pitch": True},
    "f": {"pitch": 1e300}, "g": {"qualities": {"0": 1}}, "h": {"qualities": [[]] * 10},
    "i": {"instrument_str": r"\ud800"}, "j": {"instrument_str": ["x"]},
    "k": {"note": 2**70}, "l": {"note_str": {"a": "b"}}, "m": {"instrument": "7"},
}  # fmt: skip


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_entries_of_the_wrong_type(nsynth, tmp_path, form, caplog):
    entries = labels(nsynth)
    for name, entry in WRONG.items():
        if isinstance(entry, dict):
            entry = {k: v for k, v in ENTRY.items() if k != "note_str"} | entry
        entries[name] = entry
    text = json.dumps(entries).replace("\\\\u", "\\u")
    assert r'"\u0000"' in text and r'"\ud800"' in text
    (nsynth / "examples.json").write_text(text)
    source = nsynth
    if form == "archive":
        source = tmp_path / "x.tgz"
        with tarfile.open(source, "w:gz") as tar:
            tar.add(nsynth, "x")
    assert make_tfrecord([source], tmp_path / "out") == 1
    assert len(read(tmp_path / "out" / SHARD)) == 7
    lines = [line for line in caplog.messages if "the entry" in line]
    assert len(lines) == len(WRONG)
    assert all(f"{source}" in line and len(line) < 500 for line in lines)
    assert not any("\0" in line or "\n" in line for line in lines)


def test_an_archive_takes_no_more_memory_than_a_note(nsynth, tmp_path, caplog):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(nsynth / "audio", "x/audio")
    members = (tmp_path / "x.tar").read_bytes()
    entries = json.dumps(labels(nsynth) | {"zeros": ENTRY | {"note_str": "zeros"}})
    size = 100 << 20
    zeros = [hostile.header("x/audio/zeros.wav", size), size]
    source = in_archive(tmp_path / "x.tgz", [entries.encode()], *zeros, members)
    make_tfrecord([nsynth], tmp_path / "warm")
    tracemalloc.start()
    assert make_tfrecord([source], tmp_path / "out") == 1
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30e6
    assert "zeros.wav: 104857600 bytes are too many for a note" in caplog.text
    assert len(read(tmp_path / "out" / SHARD)) == 7


@pytest.mark.parametrize(
    "labels",
    [
        [b'{"a": [', b"[]," * 10_000_000],
        [b'{"a": 1', 100 << 20],
        [b'{"a": "', b"a" * (50 << 20)],
        [b'{"' + b"a" * (50 << 20)],
        [b'{"a": ' + b" " * (50 << 20)],
    ],
    ids=["lists", "zeros", "text", "name", "spaces"],
)
def test_labels_take_no_more_memory_than_an_entry(tmp_path, labels):
    source = in_archive(tmp_path / "x.tgz", labels)
    del labels
    tracemalloc.start()
    with pytest.raises(InputError, match="no valid JSON"):
        make_tfrecord([source], tmp_path / "out")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20e6


def test_pipes_hold_nothing_up(tmp_path):
    folder = in_folder(tmp_path / "x", b"")
    (folder / "examples.json").unlink()
    os.mkfifo(folder / "examples.json")
    os.mkfifo(tmp_path / "x.tgz")
    for source, kind in ((folder, "jsonwav"), (tmp_path / "x.tgz", None)):
        with pytest.raises(InputError, match="not a file"):
            make_tfrecord([source], tmp_path / "out", read_as=kind)


def test_notes_that_are_too_long(nsynth, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(archive, "_LONGEST_NOTE", 50_000)
    wav = next((nsynth / "audio").iterdir())
    wavfile.write(wav, 16_000, noise(49_999))
    assert make_tfrecord([pack(nsynth, tmp_path / "x.tgz")], tmp_path / "out") == 1
    assert caplog.text.count("too long for a note") == 6
    assert list(by_name(tmp_path / "out", length=49_999)) == [wav.stem]


def test_more_labels_than_anybody_has(tmp_path, monkeypatch):
    monkeypatch.setattr("magenta_nsynth.notes.json_wav._MOST_NOTES", 3)
    content = json.dumps(dict.fromkeys("abcd", ENTRY))
    with pytest.raises(InputError, match="more than 3 notes"):
        make_tfrecord([in_folder(tmp_path / "x", content.encode())], tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        '{"options": [], "num_notes": 1, "prints": ["a"], "done": {}}',
        '{"options": {}, "num_notes": "1", "prints": ["a"], "done": {}}',
        '{"options": {}, "num_notes": 1, "prints": [[]], "done": {}}',
        '{"options": {}, "num_notes": 1, "prints": [], "done": {}}',
        '{"options": {}, "num_notes": 1, "prints": ["a"], "done": {"0": 5}}',
        '{"options": {}, "num_notes": 1, "prints": ["a"], "done": {"0": {"a": 1}}}',
        '{"options": {}, "num_notes": 1, "prints": ["a"], "done": '
        '{"0": {"num_notes": 1, "failed": [{}]}}}',
        "[" * 100_000,
        "[]",
    ],
)
def test_a_manifest_of_the_wrong_type(nsynth, tmp_path, content):
    out, archive = tmp_path / "out", pack(nsynth, tmp_path / "x.tgz")
    for source in (nsynth, archive):
        assert make_tfrecord([source], out, overwrite=True) == 0
        (out / "notes.manifest.json").write_text(content)
        with pytest.raises(InputError, match=r"manifest\.json.* missing or damaged"):
            make_tfrecord([source], out)


def test_what_no_earlier_run_made_is_not_overwritten(nsynth, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    own = out / "notes.tfrecord-00007-of-00009"
    own.write_bytes(b"the user's")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=own.name):
            make_tfrecord([nsynth], out, overwrite=overwrite)
    assert own.read_bytes() == b"the user's"
    assert not list(out.glob("*.manifest.json"))


def test_names_with_variables_stay_as_they_are(tmp_path, monkeypatch):
    """In folders, in labels and in archives: nobody typed them."""
    monkeypatch.setenv("REL", "../..")
    source = write_records(tmp_path / "x.tfrecord", [note("$REL"), note("~")])
    assert make_tfrecord([source], tmp_path / "a/b/c") == 0
    assert names(tmp_path / "a/b/c/audio") == ["$REL.wav", "~.wav"]
    for form in ("folder", "archive"):
        back = tmp_path / "a/b/c"
        back = back if form == "folder" else pack(back, tmp_path / "x.tgz")
        assert make_tfrecord([back], tmp_path / form) == 0
        assert list(by_name(tmp_path / form, length=10)) == ["$REL", "~"]
    assert not names(tmp_path / "a/b").count("$REL.wav")


MEASURED = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav", "labels", "pax", "sparse"])
def test_hostile_archives_in_full(nsynth, tmp_path, kind):
    """3 GB of zeros in 3 MB, in each place; the program's memory is measured."""
    size = 3 << 30
    entries = (nsynth / "examples.json").read_bytes()
    members = {
        "wav": [hostile.header("x/audio/a.wav", size), size],
        "labels": [],
        "pax": [hostile.header("x", size, tarfile.XHDTYPE), size],
        "sparse": [hostile.sparse("x/audio/a.wav", 4 << 30)],
    }[kind]
    labels = [entries] if kind != "labels" else [b'{"a": [', size]
    source = in_archive(tmp_path / "x.tgz", labels, *members)
    flags = [f"--source_path={source}", f"--save_path={tmp_path / 'out'}"]
    words = [sys.executable, "-c", MEASURED, *command("nsynth_make_tfrecord", *flags)]
    result = subprocess.run(words, capture_output=True, text=True, env=environment())
    status, most = map(int, result.stdout.split()[-2:])
    assert status == 1 and "Traceback" not in result.stderr, result.stderr
    assert most < 1_000_000  # kB, of which TensorFlow takes 400,000
