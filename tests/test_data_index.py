"""Opening data sets: finding files, walking them, damage, filters."""

import bz2
import gzip
import lzma
import sys
import tracemalloc
import zlib

import binaries
import numpy as np
import pytest
import tensorflow as tf
from tfrecords import (
    change,
    examples,
    first_group,
    flip,
    header,
    note,
    starts,
    without,
    write,
)

from magenta_nsynth.data.reading import NoteFilter, iterate, open_notes, read_notes
from magenta_nsynth.data.records import MAX_RECORD_BYTES, find_records, read_layout
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.errors import InputError
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES


def numbers(index):
    """Which notes an index leads to, by reading them."""
    dataset = read_notes(index, ["note"], batch_size=16)
    return [int(i) for batch in iterate(dataset, index) for i in batch["note"]]


def test_files_folders_and_globs(tmp_path, monkeypatch):
    names = [
        "a.tfrecord",
        "b.TFRECORDS",
        "c.tfrecord-00000-of-00002",
        "c.tfrecord-00001-of-00002",
        "d.tfrecord.gz",
    ]
    for name in [*names, ".e.tfrecord", "readme.txt", "plain"]:
        (tmp_path / name).touch()
    (tmp_path / "sub.tfrecord").mkdir()
    (tmp_path / "odd[1].tfrecord").touch()
    all_names = sorted([*names, "odd[1].tfrecord"])
    assert find_records([tmp_path]) == [str(tmp_path / name) for name in all_names]
    assert find_records(f"{tmp_path}/c.*") == [str(tmp_path / n) for n in names[2:4]]
    assert find_records(f"{tmp_path}/odd[1].tfrecord")[0].endswith("odd[1].tfrecord")
    assert find_records([tmp_path / "plain"]) == [str(tmp_path / "plain")]
    monkeypatch.chdir(tmp_path)
    twice = find_records(["d.tfrecord.gz", "*.gz", tmp_path / "d.tfrecord.gz"])
    assert twice == ["d.tfrecord.gz"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("*.tfrecord", r"\*\.tfrecord: matches nothing; give"),
        ("none.tfrecord", r"none\.tfrecord: does not exist; give"),
        (".", r"contains no TFRecord file"),
        ("", "Nothing to read"),
    ],
)
def test_nothing_to_read(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=words):
        open_notes(path)
    with pytest.raises(InputError):
        open_notes([])


@pytest.mark.parametrize("packed", [False, True])
def test_every_record_has_its_place(tmp_path, packed):
    records = [b"", b"a", *examples(range(5)), b"x" * 100_000]
    # The name does not decide.
    path = write(tmp_path / ("x.tfrecord" if packed else "x.gz"), records, packed)
    layout = read_layout(path)
    assert layout.compression == ("GZIP" if packed else "")
    assert layout.offset.tolist() == starts(records)[:-1]
    assert layout.size.tolist() == [len(record) for record in records]
    assert layout.record.tolist() == list(range(8))
    assert (layout.num_lost, layout.damage) == (0, [])


def test_gzip_files_may_be_joined(tmp_path):
    one = write(tmp_path / "1", examples(range(3)), packed=True)
    two = write(tmp_path / "2", examples(range(3, 5)), packed=True)
    with open(tmp_path / "both", "wb") as both:
        for path in (one, two):
            with open(path, "rb") as file:
                both.write(file.read())
    assert numbers(open_notes(tmp_path / "both")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_file_is_named(tmp_path, packed):
    whole = write(tmp_path / "a.tfrecord", examples(range(3)))
    empty = write(tmp_path / "b.tfrecord", [], packed)
    for paths in ([empty], [whole, empty], tmp_path):
        with pytest.raises(InputError, match=r"b\.tfrecord: empty, .*no record"):
            open_notes(paths)
    index = open_notes(tmp_path, skip_corrupt=True)
    assert (numbers(index), index.num_skipped) == ([0, 1, 2], 0)
    with pytest.raises(InputError, match=r"b\.tfrecord: no record"):
        open_notes(empty, skip_corrupt=True)


def test_what_is_no_tfrecord_file(tmp_path):
    (tmp_path / "a.tfrecord").write_text("note_str,pitch\n" * 10, encoding="utf-8")
    with pytest.raises(
        InputError, match=r"a\.tfrecord, record 0 .*not a TFRecord file"
    ):
        open_notes(tmp_path)
    with pytest.raises(InputError, match="no record that can be read"):
        open_notes(tmp_path, skip_corrupt=True)
    (tmp_path / "b.tfrecord").mkdir()
    with pytest.raises(InputError, match=r"b\.tfrecord: contains no TFRecord file"):
        open_notes(tmp_path / "b.tfrecord")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("at", [-1, -5, -1000, 13, 11, 1])
def test_a_cut_file_names_record_and_byte(tmp_path, at, packed):
    """In the checksum, the data, the header: from its end or its beginning."""
    records = examples(range(6))
    first = write(tmp_path / "a.tfrecord", examples([7]))
    cut = write(tmp_path / "b.tfrecord", records, packed)
    begin = starts(records)[5]
    change(cut, lambda content: content[:at] if at < 0 else content[: begin + at])
    with pytest.raises(InputError) as error:
        open_notes([first, cut])
    assert f"{cut}, record 5 (from 0), byte {begin:,}: the file is cut" in str(
        error.value
    )
    assert "--skip_corrupt" in str(error.value)
    index = open_notes([first, cut], skip_corrupt=True)
    assert (numbers(index), index.num_skipped) == ([7, 0, 1, 2, 3, 4], 1)


def test_a_cut_gzip_stream(tmp_path):
    path = tmp_path / "a.gz"
    records = examples(range(20))
    write(path, records, packed=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a\.gz, record \d+ .*the GZIP file is cut"):
        open_notes(path)
    index = open_notes(path, skip_corrupt=True)
    assert index.num_skipped == 1 and 3 < index.num_notes < 17
    assert numbers(index) == list(range(index.num_notes))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("at", [0, 5, 7, 9])
def test_a_damaged_length_costs_one_record(tmp_path, at, packed):
    records = examples(range(6))
    path = write(tmp_path / "a.tfrecord", records, packed)
    flip(path, starts(records)[2] + at)
    with pytest.raises(InputError, match=r"a\.tfrecord, record 2 .*length is damaged"):
        open_notes(path)
    index = open_notes(path, skip_corrupt=True)
    assert (numbers(index), index.num_skipped) == ([0, 1, 3, 4, 5], 1)
    assert index.table.record.tolist() == [0, 1, 3, 4, 5]


def test_a_search_behind_damage_sees_every_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("magenta_nsynth.data.records._CHUNK", 64)
    for extra in range(70):
        records = [b"a" * (100 + extra), b"b" * 10, b"c"]
        path = write(tmp_path / "a", records)
        flip(path, 3)
        layout = read_layout(path, skip_corrupt=True)
        assert layout.offset.tolist() == starts(records)[1:3]
    monkeypatch.setattr("magenta_nsynth.data.records._SEARCHED", 64)
    assert not len(read_layout(path, skip_corrupt=True).offset)


def test_opening_reads_no_data(tmp_path):
    records = examples(range(6))
    path = write(tmp_path / "a.tfrecord", records)
    flip(path, starts(records)[2] + 100)
    assert open_notes(path).num_notes == 6


def damaged(tmp_path, packed):
    """One file with a record of every kind of damage, and what is said of each."""
    good = examples(range(20))
    wrong_type = tf.train.Example.FromString(good[5])
    wrong_type.features.feature["pitch"].float_list.value.append(1.0)
    many = tf.train.Example.FromString(good[6])
    many.features.feature["pitch"].int64_list.value.append(1)
    records = {
        3: (b"\xff\xfe no example", "not a tf.Example"),
        4: (without(good[4], "audio"), "the feature audio is missing"),
        5: (wrong_type.SerializeToString(), "the feature pitch is a float_list"),
        6: (many.SerializeToString(), "the feature pitch has 2 values, not 1"),
        9: (without(good[9], "pitch"), "the feature pitch is missing"),
        10: (b"", "there is nothing in it"),
        11: (note_to_example(note(11, 99)), "its audio has 99 samples, 100 are"),
        19: (note_to_example(note(19, 0)), "its audio has 0 samples, 100 are"),
    }
    for number, (record, _) in records.items():
        good[number] = record
    path = write(tmp_path / "a.tfrecord", good, packed)
    said = {number: words for number, (_, words) in records.items()}
    for number in (7, 14):
        flip(path, starts(good)[number] + 200)
        said[number] = "damaged, its checksum is wrong"
    return path, said


@pytest.mark.parametrize("packed", [False, True])
def test_skip_corrupt_counts_every_kind(tmp_path, packed, caplog, monkeypatch):
    monkeypatch.setattr("magenta_nsynth.data.index._LOGGED", 100)
    path, said = damaged(tmp_path, packed)
    seen = []
    index = open_notes(
        path,
        skip_corrupt=True,
        features=["audio", "pitch"],
        min_samples=100,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert index.num_skipped == len(said)
    assert numbers(index) == [i for i in range(20) if i not in said]
    for number, words in said.items():
        assert f"{path}, record {number} (from 0): {words}" in caplog.text
    assert "10 of 20 records are left out" in caplog.text
    assert seen[-1][1] == 20 and seen[-1][0] >= 18
    # With filters: the damaged ones are no less.
    some = NoteFilter(max_pitch=12)
    index = open_notes(path, some, True, features=["audio"], min_samples=100)
    assert index.num_skipped == len(said)
    assert numbers(index) == [i for i in range(13) if i not in said]


def test_all_damaged(tmp_path):
    path = write(tmp_path / "a.tfrecord", [b"\xff\xfe", b"\xff\xff"])
    with pytest.raises(InputError, match="none of its 2 records can be used"):
        open_notes(path, skip_corrupt=True)


def chosen(test):
    return [number for number in range(300) if test(note(number, 1))]


FILTERS = [
    ({"families": ["bass", 10]}, lambda n: n.instrument_family in (0, 10)),
    ({"families": "synth_lead"}, lambda n: n.instrument_family == 9),
    ({"sources": ("synthetic",)}, lambda n: n.instrument_source == 2),
    ({"min_pitch": 60}, lambda n: n.pitch >= 60),
    ({"max_pitch": 0}, lambda n: n.pitch == 0),
    ({"min_pitch": 24, "max_pitch": 84}, lambda n: 24 <= n.pitch <= 84),
    ({"velocities": [25, 127]}, lambda n: n.velocity in (25, 127)),
    (
        {"qualities": ["dark", 0], "without_qualities": "distortion"},
        lambda n: n.qualities[:3] == (1, 1, 0),
    ),
    (
        {"families": range(5), "sources": [0, 1], "velocities": 50, "min_pitch": 9},
        lambda n: (
            n.instrument_family < 5
            and n.instrument_source < 2
            and n.velocity == 50
            and n.pitch > 8
        ),
    ),
    ({}, lambda n: True),
]


@pytest.fixture(scope="module")
def three_hundred(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    write(folder / "a.tfrecord", examples(range(200), length=1))
    write(folder / "b.tfrecord", examples(range(200, 300), length=1), packed=True)
    return folder


@pytest.mark.parametrize(("fields", "test"), FILTERS)
def test_filters(three_hundred, fields, test):
    index = open_notes(three_hundred, NoteFilter(**fields))
    assert 0 < index.num_notes == len(chosen(test))
    assert numbers(index) == chosen(test)
    assert index.num_skipped == 0


def test_a_filter_that_nothing_passes(three_hundred):
    with pytest.raises(InputError, match=r"none of the 300 notes passes the filters"):
        open_notes(three_hundred, NoteFilter(families=[0], sources=[1], min_pitch=127))


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"families": ["violin"]}, FAMILIES),
        ({"families": [11]}, FAMILIES),
        ({"sources": [-1]}, SOURCES),
        ({"qualities": ["tempo"]}, QUALITIES),
        ({"without_qualities": "dull"}, QUALITIES),
        ({"velocities": [128]}, ["velocities: 128"]),
        ({"velocities": ["loud"]}, ["velocities: 'loud'"]),
        ({"min_pitch": -1}, ["min_pitch: -1"]),
        ({"min_pitch": 61, "max_pitch": 60}, ["min_pitch=61 is above max_pitch=60"]),
        ({"qualities": [1], "without_qualities": ["dark"]}, ["lack a quality (dark)"]),
    ],
)
def test_filters_that_make_no_sense(fields, known):
    with pytest.raises(InputError) as error:
        NoteFilter(**fields)
    assert all(word in str(error.value) for word in known)


def test_what_is_not_known_passes_no_filter(tmp_path):
    unknown = {"pitch": -1, "velocity": -1, "instrument_family": -1}
    path = write(tmp_path / "a", [note_to_example(note(0, **unknown)), *examples([11])])
    for fields in ({"max_pitch": 100}, {"families": [0]}, {"velocities": range(128)}):
        assert numbers(open_notes(path, NoteFilter(**fields))) == [11]


def test_a_filter_needs_its_feature_alone(tmp_path):
    records = examples(range(4))
    records[2] = without(first_group(records[2]), "velocity", "audio")
    path = write(tmp_path / "a.tfrecord", records)
    assert open_notes(path, NoteFilter(max_pitch=2)).num_notes == 3
    words = r"a\.tfrecord, record 2 .*the feature velocity is missing"
    with pytest.raises(InputError, match=words):
        open_notes(path, NoteFilter(velocities=range(128)))


def test_gzip_is_not_taken_for_a_length(tmp_path):
    """A first record of 0x088b1f bytes begins with GZIP's mark."""
    path = write(tmp_path / "a", [b"x" * 0x088B1F])
    layout = read_layout(path)
    assert layout.compression == "" and layout.size.tolist() == [0x088B1F]
    with open(tmp_path / "b", "wb") as file, open(path, "rb") as whole:
        file.write(gzip.compress(whole.read()))
    assert read_layout(str(tmp_path / "b")).size.tolist() == [0x088B1F]
    assert np.array_equal(layout.offset, [0])


LENGTHS = [2**28 + 1, 2**40, 2**63 - 1, 2**64 - 13, 2**64 - 1]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_can_not_be(tmp_path, length, packed):
    """Its checksum is right, so TensorFlow would make room for it, and die."""
    records = examples(range(6))
    path = write(tmp_path / "a.tfrecord", records, packed)
    first, end = starts(records)[2:4]
    damaged = header(length) + b"x" * 50
    change(path, lambda content: content[:first] + damaged + content[end:])
    words = rf"a\.tfrecord, record 2 .*too large for a note: {length:,} bytes"
    with pytest.raises(InputError, match=words):
        open_notes(path)
    index = open_notes(path, skip_corrupt=True)
    assert (numbers(index), index.num_skipped) == ([0, 1, 3, 4, 5], 1)
    # At the end, where reading ahead would meet it.
    change(path, lambda content: content + damaged)
    script = "import sys; from magenta_nsynth.data.reading import *; "
    script += "from magenta_nsynth.notes.dataset_clips import RecordClips; "
    script += "index = open_notes(sys.argv[1], skip_corrupt=True); "
    script += "print(len(list(read_notes(index)))); "
    script += "clips = RecordClips(sys.argv[1:], 1, True); "
    script += "print(len(list(clips.read(np.arange(clips.num_clips), 0)))); "
    script += "print(next(iter(training_batches(index, 9, 50))).shape)"
    if length == 2**40 and not packed:
        script = "import numpy as np; " + script
        result = binaries.finish([sys.executable, "-c", script, path])
        assert result.returncode == 0, result.stderr
        assert result.stdout.split("\n")[:3] == ["5", "5", "(50, 9)"]


@pytest.mark.parametrize(
    ("compress", "name"),
    [(zlib.compress, "ZLIB"), (bz2.compress, "bzip2"), (lzma.compress, "xz")],
)
def test_other_compressions_are_named(tmp_path, compress, name):
    path = write(tmp_path / "a.tfrecord", examples(range(3)))
    with open(path, "rb") as file:
        content = file.read()
    (tmp_path / "b.tfrecord").write_bytes(compress(content))
    with pytest.raises(
        InputError, match=rf"b\.tfrecord: compressed with {name}; unpack"
    ):
        open_notes(tmp_path / "b.tfrecord")
    (tmp_path / "c.tfrecord").write_bytes(b"x^2 is no TFRecord")
    with pytest.raises(InputError, match="this is not a TFRecord file"):
        open_notes(tmp_path / "c.tfrecord")


def test_what_one_record_may_take(tmp_path):
    """A GZIP file of some kB may say that it unpacks to gigabytes."""
    records, size = examples(range(3)), MAX_RECORD_BYTES + 1000
    with gzip.open(tmp_path / "a.tfrecord.gz", "wb", 1) as file:
        first = write(tmp_path / "first", records[:2])
        with open(first, "rb") as whole:
            file.write(whole.read())
        file.write(header(size))
        for _ in range(size // 1000):
            file.write(bytes(1000))
        file.write(bytes(size % 1000 + 4))
        file.write(header(len(records[2])))
    tracemalloc.start()
    layout = read_layout(str(tmp_path / "a.tfrecord.gz"), skip_corrupt=True)
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()
    assert (len(layout.record), layout.num_lost) == (2, 2)
