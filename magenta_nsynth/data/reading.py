"""Reading NSynth's TFRecords: the public functions.

`open_notes` makes an index of the notes. `training_batches` and `read_notes` make
datasets from the index. `iterate` loops over one; its errors name the bad record.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.crops import training_batches
from magenta_nsynth.data.features import (
    Demand,
    Features,
    Piece,
    check_number,
    checked_shard,
    feature_names,
    parallel_calls,
    parse_note,
    whole,
)
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.index import NoteIndex, open_notes
from magenta_nsynth.data.records import plan_runs, read_run, run_rows
from magenta_nsynth.errors import InputError

__all__ = [
    "NOTE_SAMPLES",
    "NoteFilter",
    "NoteIndex",
    "iterate",
    "open_notes",
    "read_notes",
    "training_batches",
]

NOTE_SAMPLES = 64_000  # in each of NSynth's own notes: 4 s

_BLOCK_NOTES, _SHUFFLED_BYTES = 8, 64 << 20  # for `read_notes` with a seed
_END = object()


def read_notes(
    index: NoteIndex,
    features: Iterable[str] = ("audio",),
    length: int | None = None,
    batch_size: int | None = None,
    shard: tuple[int, int] = (0, 1),
    seed: int | None = None,
    needs_pitch: bool = False,
    min_samples: int = 1,
) -> tf.data.Dataset:
    """Reads every note once, in the order of the files.

    Source: NSynth, reader.py; differs: the last batch is partial, not dropped.

    Args:
      index: the notes.
      features: the names of the features to read; nothing else is parsed. "file" and
        "record" say where a note is.
      length: takes this many samples from the middle of the audio, starting at sample
        (n - length) // 2 of n; None takes all.
      batch_size: None gives single notes. Without `length`, batched audio must have
        exactly 64,000 samples.
      shard: (i, n), this worker's index and the number of workers. Each gets the i-th
        of n disjoint parts of the notes.
      seed: shuffles, first blocks and then among some hundred notes; None keeps the
        order.
      needs_pitch: treats a note of unknown pitch (-1) as damaged.
      min_samples: treats a note with fewer samples as damaged.

    Returns:
      Dicts by feature: audio float32 [b, length or 64000] in [-1, 1] at 16 kHz,
      qualities int64 [b, 10], qualities_str ragged string [b, None], others [b], int64
      or string (bytes). Without a batch size, the same without the first dimension.

    Raises:
      InputError: an argument can't be used. For errors while iterating, see
        `training_batches`.

    Examples:
      >>> import numpy as np
      >>> import tensorflow as tf
      >>> from magenta_nsynth.data.reading import iterate, open_notes, read_notes
      >>> from magenta_nsynth.data.writing import note_to_example
      >>> from magenta_nsynth.schema import Note
      >>> with tf.io.TFRecordWriter("notes.tfrecord") as writer:
      ...     for pitch in (60, 64, 67):
      ...         audio = np.zeros(16_000, np.float32)
      ...         writer.write(note_to_example(Note(f"note_{pitch}", audio, pitch)))
      >>> index = open_notes("notes.tfrecord")
      >>> for note in iterate(read_notes(index, ["audio", "pitch"]), index):
      ...     print(int(note["pitch"]), note["audio"].shape)
      60 (16000,)
      64 (16000,)
      67 (16000,)
    """
    names = feature_names(features)
    exact = None
    if length is not None:
        check_number(length, "length", 1)
    elif batch_size is not None and "audio" in names:
        exact = NOTE_SAMPLES
    if batch_size is not None:
        check_number(batch_size, "batch_size", 1)
    if seed is not None:
        check_number(seed, "seed", 0)
    demand = Demand(names, max(length or 1, min_samples), exact, needs_pitch)
    table = index.demanding(demand).table
    notes = _part(len(table.file), shard)
    places = tf.constant(np.stack([table.file[notes], table.record[notes]], axis=1))
    runs = plan_runs(table, notes, 0 if seed is None else _BLOCK_NOTES)
    rows, slots = runs.rows, tf.constant(runs.slots)
    if seed is not None:
        rows = rows[np.argsort(np.random.default_rng(seed).random(len(rows)))]
    piece = whole if length is None else _middle(length)

    def parse(slot: tf.Tensor, serialized: tf.Tensor) -> Features:
        values = parse_note(serialized, demand, places[slot], table.files, piece)
        if "audio" in values and (length or exact):
            values["audio"] = tf.ensure_shape(values["audio"], [length or exact])
        return values

    dataset = run_rows(table, rows).flat_map(lambda row: read_run(table, row, slots))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(notes)))
    if seed is not None:
        buffer = max(1, _SHUFFLED_BYTES // int(table.size[notes].max()))
        dataset = dataset.shuffle(buffer, seed, reshuffle_each_iteration=False)
    dataset = dataset.map(parse, parallel_calls(table.size), deterministic=True)
    if batch_size is not None and "qualities_str" in names:
        dataset = dataset.ragged_batch(batch_size).map(_all_but_names_dense)
    elif batch_size is not None:
        dataset = dataset.batch(batch_size)
    return dataset.prefetch(2)


def _part(num_notes: int, shard: tuple[int, int]) -> np.ndarray:
    """The notes that worker i of n reads, for `shard` (i, n); int64, at least one."""
    number, count = checked_shard(shard)
    bounds = num_notes * np.arange(count + 1) // count
    notes = np.arange(*bounds[number : number + 2])
    if not len(notes):
        raise InputError(
            f"There is no note for worker {number} of {count}, with only {num_notes} "
            "in all; use fewer workers."
        )
    return notes


def _middle(length: int) -> Piece:
    """The `Piece` of this many samples in the middle of the audio."""

    def middle(num_samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (num_samples - length) // 2, tf.constant(length, tf.int64)

    return middle


def iterate(dataset: tf.data.Dataset, index: NoteIndex) -> Iterator[Any]:
    """Yields a dataset's elements.

    Args:
      dataset: from `training_batches` or `read_notes`, or derived from one.
      index: the index it was made from.

    Raises:
      InputError: a record can't be used. The message says which, why and what to do.

    Examples:
      See `read_notes`.
    """
    with index.errors():
        iterator = iter(dataset)
    while True:
        with index.errors():
            element = next(iterator, _END)
        if element is _END:
            return
        yield element


def _all_but_names_dense(values: Features) -> Features:
    """Only qualities_str stays ragged."""
    return {
        name: value.to_tensor()
        if isinstance(value, tf.RaggedTensor) and name != "qualities_str"
        else value
        for name, value in values.items()
    }
