"""Reading NSynth's TFRecords: all that there is to call.

`open_notes` makes the index, `training_batches` and `read_notes` data sets of it, and
`iterate` goes through one and says which record it is that can't be used.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.crops import training_batches
from magenta_nsynth.data.features import (
    Demand,
    Features,
    check_number,
    checked_shard,
    feature_names,
    parallel_calls,
    parse_note,
    whole,
)
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.index import NoteIndex, open_notes
from magenta_nsynth.data.runs import plan_runs, read_run
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

NOTE_SAMPLES = 64_000  # of NSynth's own notes: 4 s

_BLOCK_NOTES, _SHUFFLED_BYTES = 8, 64 << 20  # of `read_notes` with a seed
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
    """Every note once, in the order of the files.

    Source: NSynth, reader.py; differs: the last batch is partial, not dropped.

    Args:
      index: the notes.
      features: the names of those to read; nothing else is parsed. "file" and
        "record" say where a note is.
      length: takes so many samples from the middle of the audio, from sample
        (n - length) // 2 of n on; None takes all.
      batch_size: None gives single notes. To batch whole audio all must be of 64,000
        samples.
      shard: (i, n), this worker's number and how many there are: the i-th of n parts
        of the notes, none in two of them.
      seed: shuffles, by blocks and then among some hundred; None keeps the order.
      needs_pitch: a note whose pitch is not known (-1) is an error, as a damaged one.
      min_samples: so is one with fewer samples.

    Returns:
      Dicts by feature: audio float32 [b, length or 64000] in [-1, 1] at 16 kHz,
      qualities int64 [b, 10], qualities_str a ragged string [b, None], else [b] int64
      or string (bytes). Without a batch size the same without its first dimension.

    Raises:
      InputError: an argument can't be used. While iterating as `training_batches`.
    """
    names = feature_names(features)
    shard_number, num_shards = checked_shard(shard)
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
    bounds = len(table.file) * np.arange(num_shards + 1) // num_shards
    notes = np.arange(*bounds[shard_number : shard_number + 2])
    if not len(notes):
        raise InputError(
            f"There is no note for worker {shard_number} of {num_shards}: "
            f"{len(table.file)} in all; use fewer workers."
        )
    places = tf.constant(np.stack([table.file[notes], table.record[notes]], axis=1))
    runs = plan_runs(table, notes, 0 if seed is None else _BLOCK_NOTES)
    rows, slots = runs.rows, tf.constant(runs.slots)
    if seed is not None:
        rows = rows[np.argsort(np.random.default_rng(seed).random(len(rows)))]

    def middle(num_samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (num_samples - length) // 2, tf.constant(length, tf.int64)

    piece = whole if length is None else middle

    def parse(slot: tf.Tensor, serialized: tf.Tensor) -> Features:
        values = parse_note(serialized, demand, places[slot], table.files, piece)
        if "audio" in values and (length or exact):
            values["audio"] = tf.ensure_shape(values["audio"], [length or exact])
        return values

    dataset = tf.data.Dataset.from_tensor_slices(rows).flat_map(
        lambda row: read_run(table, row, slots)
    )
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


def iterate(dataset: tf.data.Dataset, index: NoteIndex) -> Iterator[Any]:
    """The dataset's elements; a record that can't be used is an InputError.

    Args:
      dataset: of `training_batches` or `read_notes`, or made from one.
      index: the one it was made of.
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
    return {
        name: value.to_tensor()
        if isinstance(value, tf.RaggedTensor) and name != "qualities_str"
        else value
        for name, value in values.items()
    }
