"""The data sets: random crops to train on, every note once to evaluate."""

import collections
import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tfrecords import (
    audio,
    examples,
    first_group,
    flip,
    note,
    number_and_start,
    starts,
    without,
    write,
)

from magenta_nsynth.data import crops
from magenta_nsynth.data.crops import block_starts, windows
from magenta_nsynth.data.reading import (
    NoteFilter,
    iterate,
    open_notes,
    read_notes,
    training_batches,
)
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.errors import InputError

LENGTHS = [100 + 37 * i % 250 for i in range(150)]  # of one's own: all kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """150 notes of many lengths in four files, one of them GZIP."""
    folder = tmp_path_factory.mktemp("notes")
    records = [note_to_example(note(i, LENGTHS[i])) for i in range(150)]
    for k, (start, end) in enumerate([(0, 60), (60, 61), (61, 110), (110, 150)]):
        write(folder / f"{k}.tfrecord", records[start:end], packed=k == 2)
    return folder


@pytest.fixture(scope="module")
def index(folder):
    return open_notes(folder)


@pytest.fixture
def small_windows(monkeypatch):
    """So that 150 notes are many windows of many blocks."""
    monkeypatch.setattr(crops, "_WINDOW_NOTES", 32)
    monkeypatch.setattr(crops, "_BLOCKS_PER_WINDOW", 8)


def take(index, count, *arguments, **options):
    """The first `count` batches, [count, b, crop] or a list."""
    dataset = training_batches(index, *arguments, **options)
    batches = [
        batch.numpy() for batch in itertools.islice(iterate(dataset, index), count)
    ]
    return np.array(batches)


def test_every_epoch_has_every_note_once(index, small_windows):
    batches = take(index, 50, 80, 12, seed=1)
    assert batches.shape == (50, 12, 80) and batches.dtype == np.float32
    notes, begins = number_and_start(batches.reshape(-1, 80))
    assert np.all(begins + 80 <= np.array(LENGTHS)[notes])
    epochs = notes.reshape(4, 150)
    for epoch in epochs:
        assert sorted(epoch) == list(range(150))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    again = begins.reshape(4, 150)[:, 0]
    assert len(set(again)) > 1


def test_crops_begin_anywhere(tmp_path):
    index = open_notes(write(tmp_path / "a", examples(range(20), length=13)))
    _, begins = number_and_start(take(index, 60, 10, 20, seed=0).reshape(-1, 10))
    counts = collections.Counter(begins.tolist())
    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) < 1.3 * min(counts.values())
    # And as long as a note is, there is one place alone.
    assert set(number_and_start(take(index, 3, 13, 20)[0])[1]) == {0}


def test_notes_are_shuffled_within_files_and_across(index, small_windows):
    notes, _ = number_and_start(take(index, 1, 50, 150, seed=2)[0])
    assert abs(np.corrcoef(notes, np.arange(150))[0, 1]) < 0.4
    assert np.mean(np.abs(np.diff(notes)) == 1) < 0.1
    # Of the plain files (a GZIP file is read in larger pieces), in one window.
    assert {0, 3} <= set(np.digitize(notes[:32], [60, 61, 110]))


@pytest.mark.parametrize("seed", [0, 2**40])
def test_a_stream_goes_on_where_it_was_left(index, small_windows, seed):
    whole = take(index, 40, 60, 12, seed=seed)
    for first in (1, 13, 26):
        resumed = take(index, 40 - first, 60, 12, seed=seed, first_batch=first)
        assert np.array_equal(whole[first:], resumed)
    assert np.array_equal(whole, take(index, 40, 60, 12, seed=seed))
    assert not np.array_equal(whole[:5], take(index, 5, 60, 12, seed=seed + 1))
    far = take(index, 2, 60, 12, seed=seed, first_batch=10**9)
    assert far.shape == (2, 12, 60)


@pytest.mark.parametrize("count", [2, 3])
def test_shards_are_the_parts_of_each_batch(index, small_windows, count):
    whole = take(index, 30, 60, 12, seed=3, first_batch=4)
    parts = [
        take(index, 30, 60, 12, seed=3, first_batch=4, shard=(i, count))
        for i in range(count)
    ]
    assert parts[0].shape == (30, 12 // count, 60)
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_few_notes_make_large_batches(tmp_path):
    index = open_notes(write(tmp_path / "a", examples(range(20))))
    notes, begins = number_and_start(take(index, 5, 100, 32, seed=4).reshape(-1, 100))
    for epoch in notes.reshape(8, 20):
        assert sorted(epoch) == list(range(20))
    assert len(set(zip(notes, begins, strict=True))) > 140  # other crops each time
    one = open_notes(write(tmp_path / "b", examples([7])))
    assert set(number_and_start(take(one, 2, 100, 3).reshape(-1, 100))[0]) == {7}


def test_filters_and_crops(folder, small_windows):
    index = open_notes(folder, NoteFilter(families=[3], min_pitch=20))
    wanted = [i for i in range(150) if i % 11 == 3 and i % 128 >= 20]
    notes, _ = number_and_start(take(index, len(wanted), 50, 3).reshape(-1, 50))
    assert sorted(notes) == sorted(wanted * 3)


def test_labels_and_ids_beside_the_crops(index, folder, small_windows):
    names = ["pitch", "audio", "note_str", "qualities", "file", "record"]
    dataset = training_batches(index, 70, 8, seed=5, features=names)
    plain = take(index, 20, 70, 8, seed=5)
    for batch, crop in zip(iterate(dataset, index), plain, strict=False):
        assert list(batch) == names
        assert np.array_equal(batch["audio"], crop)
        for row, number in enumerate(number_and_start(crop)[0]):
            expected = note(number)
            assert batch["pitch"][row] == expected.pitch
            assert batch["note_str"][row].numpy().decode() == expected.note_str
            assert tuple(batch["qualities"][row].numpy()) == expected.qualities
            k = int(np.digitize(number, [60, 61, 110]))
            assert batch["file"][row].numpy().decode() == str(folder / f"{k}.tfrecord")
            assert batch["record"][row] == number - [0, 60, 61, 110][k]


def test_what_lies_before_the_first_batch_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_WINDOW_NOTES", 8)
    records = examples(range(64))
    path = write(tmp_path / "a.tfrecord", records)
    index = open_notes(path)
    order, _ = number_and_start(take(index, 64, 100, 1, seed=6)[:, 0])
    flip(path, starts(records)[order[20]] + 200)
    after = take(index, 43, 100, 1, seed=6, first_batch=21)
    assert number_and_start(after[:, 0])[0].tolist() == order[21:].tolist()
    with pytest.raises(InputError, match=f"record {order[20]} "):
        take(index, 44, 100, 1, seed=6, first_batch=20)


def test_nothing_beyond_a_run_is_read(tmp_path):
    """A shard reads its own notes: not the damaged one that follows them."""
    records = examples(range(4))
    path = write(tmp_path / "a.tfrecord", records)
    index = open_notes(path)
    flip(path, starts(records)[2] + 200)
    read = iterate(read_notes(index, ["note"], shard=(0, 2)), index)
    assert [int(one["note"]) for one in read] == [0, 1]


def test_what_is_between_the_chosen_notes_is_not_read(tmp_path):
    records = examples(range(22))
    path = write(tmp_path / "a.tfrecord", records)
    index = open_notes(path, NoteFilter(families=[1, 3]))
    for number in (0, 2, 4, 15):
        flip(path, starts(records)[number] + 200)
    read = [int(one["note"]) for one in iterate(read_notes(index, ["note"]), index)]
    assert read == [1, 3, 12, 14]
    assert sorted(number_and_start(take(index, 1, 100, 4)[0])[0]) == read


def test_windows_cover_the_epoch_and_hold_what_they_should():
    file = np.repeat([0, 1, 2], [1000, 1, 700])
    first = block_starts(file, np.array([32, 32, 300]))
    assert first.tolist()[:3] == [0, 32, 64] and first.tolist()[-4:] == [
        1001,
        1301,
        1601,
        1701,
    ]
    seen = list(
        itertools.takewhile(lambda w: w.position < 1701, windows(first, 400, 1))
    )
    assert [w.position for w in seen] == np.cumsum(
        [0] + [len(w.notes) for w in seen[:-1]]
    ).tolist()
    assert sorted(np.concatenate([w.notes for w in seen])) == list(range(1701))
    assert all(200 < len(w.notes) < 800 for w in seen)
    assert all(0 <= u < 1 for w in seen for u in w.uniforms)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop_length": 0}, "crop_length"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"first_batch": -1}, "first_batch"),
        ({"batch_size": 10, "shard": (0, 4)}, "multiple"),
        ({"shard": (2, 2)}, "shard"),
        ({"features": ["loudness"]}, "loudness.*use one of audio"),
        ({"features": ["qualities_str"]}, "ask for qualities"),
    ],
)
def test_wrong_arguments(index, options, words):
    options = {"crop_length": 50, "batch_size": 4, "seed": 0} | options
    with pytest.raises(InputError, match=words):
        training_batches(index, **options)


# Evaluation.


def test_every_note_in_order_with_its_middle(index):
    names = ["audio", "pitch", "note_str", "qualities", "velocity", "record"]
    dataset = read_notes(index, names, length=91, batch_size=32)
    batches = list(iterate(dataset, index))
    assert len(dataset) == 5 and len(batches[-1]["pitch"]) == 150 - 4 * 32
    assert dataset.element_spec["audio"].shape.as_list() == [None, 91]
    joined = {k: np.concatenate([b[k].numpy() for b in batches]) for k in names}
    for i in range(150):
        expected = note(i, LENGTHS[i])
        begin = (LENGTHS[i] - 91) // 2
        assert np.array_equal(joined["audio"][i], expected.audio[begin : begin + 91])
        assert joined["note_str"][i].decode() == expected.note_str
        assert joined["pitch"][i] == expected.pitch
        assert joined["velocity"][i] == expected.velocity
        assert tuple(joined["qualities"][i]) == expected.qualities
    assert joined["record"].tolist()[58:63] == [58, 59, 0, 0, 1]


def test_single_notes_of_any_length(index):
    for i, one in enumerate(iterate(read_notes(index, ["audio", "note"]), index)):
        assert one["note"] == i and one["note"].shape == []
        assert np.array_equal(one["audio"], audio(i, LENGTHS[i]))
    assert i == 149


def test_whole_notes_in_batches(tmp_path):
    whole = [note_to_example(note(i, 64_000)) for i in range(3)]
    path = write(tmp_path / "a.tfrecord", whole)
    index = open_notes(path)
    [batch] = iterate(read_notes(index, batch_size=4), index)
    assert np.array_equal(batch["audio"], [audio(i, 64_000) for i in range(3)])
    for length in (63_999, 64_001):
        write(path, [*whole, note_to_example(note(3, length))])
        index = open_notes(path)
        words = rf"a\.tfrecord, record 3 .*{length:,} samples, exactly 64,000"
        with pytest.raises(InputError, match=words):
            list(iterate(read_notes(index, batch_size=2), index))
        index = open_notes(path, skip_corrupt=True, num_samples=64_000)
        assert (index.num_notes, index.num_skipped) == (3, 1)


@pytest.mark.parametrize("count", [1, 7])
def test_shards_split_the_notes(index, count):
    read = []
    for i in range(count):
        dataset = read_notes(index, ["note"], batch_size=64, shard=(i, count))
        read += [int(n) for batch in dataset for n in batch["note"]]
    assert read == list(range(150))


def test_more_workers_than_notes(tmp_path):
    index = open_notes(write(tmp_path / "a", examples(range(2))))
    with pytest.raises(InputError, match="use fewer workers"):
        read_notes(index, shard=(0, 3))


def test_notes_in_another_order(index):
    def order(seed):
        dataset = read_notes(index, ["note"], seed=seed)
        return [int(one["note"]) for one in dataset]

    first = order(1)
    assert sorted(first) == list(range(150)) != first
    assert first == order(1) != order(2)


def test_the_second_group_of_features(index):
    names = ["instrument_str", "qualities_str", "instrument", "audio"]
    batch = next(iter(read_notes(index, names, length=50, batch_size=40)))
    for i in range(40):
        named = [name.decode() for name in batch["qualities_str"][i].numpy()]
        assert named == note(i).qualities_str
        assert batch["instrument_str"][i].numpy().decode() == note(i).instrument_str
    assert isinstance(batch["audio"], tf.Tensor) and batch["audio"].shape == [40, 50]
    one = next(iter(read_notes(index, ["qualities_str"], shard=(7, 150))))
    assert one["qualities_str"].numpy().tolist() == [b"bright", b"dark", b"distortion"]


def test_the_first_group_is_enough(tmp_path):
    records = [first_group(record) for record in examples(range(12))]
    path = write(tmp_path / "a.tfrecord", records, packed=True)
    index = open_notes(path, NoteFilter(max_pitch=50))
    names = ["audio", "note_str", "pitch", "qualities", "instrument_source"]
    [batch] = iterate(read_notes(index, names, 100, 16), index)
    assert batch["pitch"].numpy().tolist() == list(range(12))
    assert take(index, 2, 100, 8).shape == (2, 8, 100)
    for name in ("instrument_str", "sample_rate", "qualities_str"):
        index = open_notes(path)
        with pytest.raises(InputError, match=rf"a\.tfrecord, .*feature {name} is miss"):
            list(iterate(read_notes(index, [name]), index))


def test_only_what_is_asked_for_is_parsed(tmp_path):
    record = tf.train.Example.FromString(examples([3])[0])
    record.features.feature["pitch"].float_list.value.append(1.0)
    record.features.feature["velocity"].bytes_list.value.append(b"loud")
    record = without(record.SerializeToString(), "qualities", "note_str")
    index = open_notes(write(tmp_path / "a", [record]))
    assert take(index, 1, 100, 2).shape == (1, 2, 100)
    [one] = iterate(read_notes(index, ["audio", "note"]), index)
    assert one["note"] == 3


def spoilt(path, kind, packed):
    """A file of 30 notes of which number 17 is damaged; what is said of it."""
    records = examples(range(30))
    if kind == "no example":
        records[17], words = b"\xff\xfe" * 50, "not a tf.Example"
    elif kind == "no audio":
        records[17] = without(records[17], "audio")
        words = "the feature audio is missing"
    elif kind == "audio of integers":
        example = tf.train.Example.FromString(records[17])
        example.features.feature["audio"].int64_list.value.extend(range(300))
        records[17], words = (
            example.SerializeToString(),
            "the feature audio is a int64_list",
        )
    elif kind == "too short":
        records[17] = note_to_example(note(17, 199))
        words = "its audio has 199 samples, 200 are asked for"
    write(path, records, packed)
    if kind == "flipped":
        flip(path, starts(records)[17] + 600)
        words = "damaged, its checksum is wrong"
    return words


KINDS = ["no example", "no audio", "audio of integers", "too short", "flipped"]


@pytest.mark.parametrize(
    ("kind", "packed"), [*((kind, False) for kind in KINDS), ("flipped", True)]
)
def test_a_record_that_cannot_be_used_is_named(tmp_path, kind, packed):
    good = write(tmp_path / "a.tfrecord", examples(range(30)), packed)
    path = str(tmp_path / "b.tfrecord")
    words = spoilt(path, kind, packed)
    for read in (
        lambda index: take(index, 30, 200, 4),
        lambda index: list(iterate(read_notes(index, length=200), index)),
    ):
        index = open_notes([good, path])
        with pytest.raises(InputError) as error:
            read(index)
        message = str(error.value)
        assert f"{path}, record 17 (from 0): {words}" in message
        assert "--skip_corrupt" in message and "\n" not in message
    index = open_notes([good, path], skip_corrupt=True, min_samples=200)
    assert (index.num_notes, index.num_skipped) == (59, 1)
    notes, _ = number_and_start(take(index, 59, 200, 1, seed=1)[:, 0])
    left = [*range(30), *range(17), *range(18, 30)]
    assert sorted(notes) == sorted(left)
    read = iterate(read_notes(index, length=200), index)
    assert [number_and_start(one["audio"])[0] for one in read] == left


def test_short_notes_are_left_out_of_crops_with_skip_corrupt(index, folder, caplog):
    wanted = [i for i, length in enumerate(LENGTHS) if length >= 200]
    skipping = open_notes(folder, skip_corrupt=True)
    assert (skipping.num_notes, skipping.num_skipped) == (150, 0)
    notes, _ = number_and_start(take(skipping, len(wanted), 200, 1)[:, 0])
    assert sorted(notes) == wanted
    assert f"{150 - len(wanted)} of 150 records are left out" in caplog.text
    with pytest.raises(InputError, match=r"record \d+ .* 200 are asked for"):
        take(index, 150, 200, 1)
    with pytest.raises(InputError, match="none of its 150 records can be used"):
        training_batches(skipping, 400, 1)


def test_a_file_that_changes_while_in_use(tmp_path):
    path = tmp_path / "a.tfrecord"
    write(path, examples(range(30)))
    content = path.read_bytes()
    for size in (len(content) // 2, 0):
        path.write_bytes(content)
        index = open_notes(path)
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"a\.tfrecord, record .*changed while in"):
            take(index, 8, 100, 4)
        with pytest.raises(InputError, match=r"a\.tfrecord, record .*changed while in"):
            list(iterate(read_notes(index), index))
    path.unlink()
    with pytest.raises(InputError, match=r"a\.tfrecord, .*no longer exists"):
        take(index, 8, 100, 4)


def test_other_errors_pass_through(tmp_path):
    index = open_notes(write(tmp_path / "a", [b"\xff\xfe"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="mine"), index.errors():
        tf.debugging.Assert(False, ["mine"])
    with pytest.raises(ZeroDivisionError), index.errors():
        _ = 1 // 0


def test_the_culprit_is_what_the_error_is_of(tmp_path):
    """Not what another reader of the same index asked for in vain."""
    records = examples(range(20))
    records[15] = b"\xff\xfe"
    index = open_notes(write(tmp_path / "a", records))
    dataset, other = (read_notes(index, length=length) for length in (1000, 100))
    with pytest.raises(InputError, match=r"record 0 .* 1,000 are asked for"):
        list(iterate(dataset, index))
    with pytest.raises(InputError, match=r"record 15 .*not a tf.Example"):
        list(iterate(other, index))


MEMORY = """
import sys
import tensorflow as tf
from magenta_nsynth.data.reading import *
# Not ru_maxrss, which starts from the peak of the process that started this one.
def peak():
    with open("/proc/self/status") as file:
        return next(int(s.split()[1]) for s in file if s.startswith("VmHWM")) / 1e3
index = open_notes(sys.argv[1])
for batch in training_batches(index, 6144, 32).take(1): pass
before = peak()
for batch in training_batches(index, 6144, 32).take(300): pass
for batch in read_notes(index, batch_size=16): pass
open_notes(sys.argv[1], NoteFilter(max_pitch=60))
print(before, peak())
"""


@pytest.mark.slow
def test_a_gigabyte_in_bounded_memory(tmp_path):
    path = tmp_path / "large.tfrecord"
    record = note_to_example(note(0, 64_000))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(4200):
            writer.write(record)
    assert path.stat().st_size > 1 << 30
    words = [sys.executable, "-c", MEMORY, str(path)]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    before, peak = map(float, result.stdout.split())
    assert peak < 1100 and peak - before < 300, result.stdout
