"""Training batches: random crops of notes, in an order that the step number decides."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.features import (
    Demand,
    Features,
    check_number,
    checked_shard,
    feature_names,
    parallel_calls,
    parse_note,
)
from magenta_nsynth.data.index import NoteIndex
from magenta_nsynth.data.records import NoteTable, plan_runs, read_run, run_rows
from magenta_nsynth.errors import InputError

__all__ = ["Window", "block_starts", "training_batches", "windows"]

# Several windows are in memory: one being read, one sorted, one cut into batches.
_WINDOW_NOTES, _WINDOW_BYTES = 2048, 64 << 20
_BLOCKS_PER_WINDOW, _BLOCK_NOTES = 64, 32


class Window(NamedTuple):
    """A part of the endless stream of notes.

    Attributes:
      position: its first note's position in the stream.
      notes: int64 [w], positions in the table of notes, in the stream's order.
      uniforms: float64 [w] in [0, 1), one to choose each note's crop.
    """

    position: int
    notes: np.ndarray
    uniforms: np.ndarray


def block_starts(file: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Divides the notes of each file into blocks of neighbours.

    Args:
      file: int64 [n], each note's file, ascending.
      most: int64 [files], the longest block of each file.

    Returns:
      int64 [blocks + 1], the first note of each block, and n.
    """
    first_of_file = np.searchsorted(file, np.arange(len(most)))
    within = np.arange(len(file)) - first_of_file[file]
    return np.append(np.flatnonzero(within % most[file] == 0), len(file))


def windows(
    starts: np.ndarray, window_notes: int, seed: int, first: int = 0
) -> Iterator[Window]:
    """The windows of all epochs, without end.

    Args:
      starts: from `block_starts`.
      window_notes: the approximate number of notes in a window.
      seed: decides the order.
      first: skips windows that end before this position.
    """
    num_notes, sizes = int(starts[-1]), np.diff(starts)
    num_windows = max(1, round(num_notes / window_notes))
    epoch = first // num_notes
    while True:
        order = np.argsort(np.random.default_rng([seed, epoch]).random(len(sizes)))
        before = np.cumsum(sizes[order]) - sizes[order]
        # A block belongs to the window it starts in. Equal windows: no tiny last one.
        window_of = before * num_windows // num_notes
        for number in np.unique(window_of):
            blocks = order[window_of == number]
            position = epoch * num_notes + int(before[window_of == number][0])
            if position + sizes[blocks].sum() <= first:
                continue
            notes = np.concatenate(
                [np.arange(starts[block], starts[block + 1]) for block in blocks]
            )
            random = np.random.default_rng([seed, epoch, int(number) + 1])
            shuffled = notes[np.argsort(random.random(len(notes)))]
            yield Window(position, shuffled, random.random(len(notes)))
        epoch += 1


def training_batches(
    index: NoteIndex,
    crop_length: int,
    batch_size: int,
    seed: int = 0,
    first_batch: int = 0,
    shard: tuple[int, int] = (0, 1),
    features: Iterable[str] | None = None,
    needs_pitch: bool = False,
) -> tf.data.Dataset:
    """Endless batches of random crops, in an order set by the seed alone.

    Each epoch has every note once, at a random place. Notes are shuffled within and
    across files: first blocks of up to 32 neighbours, then all notes within windows of
    about 2,048 (fewer for long crops, so that a window takes 64 MB). A GZIP file can
    only be read from its start: a window reads all of the file before its own part, so
    keep GZIP files to some thousand notes.

    Source: NSynth, reader.py; differs: repeatable, and batches may span two epochs.

    Args:
      index: the notes.
      crop_length: samples in each crop.
      batch_size: of all workers together.
      seed: 0 or more; decides the order and the crops.
      first_batch: starts with this batch of a run from 0, without reading what comes
        before it.
      shard: (i, n), this worker's index and the number of workers. Each gets the i-th
        of n equal parts of the rows of each batch; together, the batches of (0, 1).
      features: the names of features of a fixed size, "file" and "record" (where a
        note is) included. None gives the audio alone.
      needs_pitch: treats a note of unknown pitch (-1) as damaged.

    Returns:
      Audio, float32 [batch_size / n, crop_length] in [-1, 1] at 16 kHz. With
      `features`, a dict of those: audio likewise, qualities int64 [b, 10], others [b].

    Raises:
      InputError: an argument can't be used. Iterating raises TensorFlow's errors;
        `iterate` or `NoteIndex.errors` turns them into InputErrors that name the record
        that is damaged, lacks a feature or is shorter than the crop.

    Examples:
      >>> import numpy as np
      >>> import tensorflow as tf
      >>> from magenta_nsynth.data.reading import iterate, open_notes, training_batches
      >>> from magenta_nsynth.data.writing import note_to_example
      >>> from magenta_nsynth.schema import Note
      >>> with tf.io.TFRecordWriter("notes.tfrecord") as writer:
      ...     for pitch in (60, 64, 67):
      ...         audio = np.zeros(16_000, np.float32)
      ...         writer.write(note_to_example(Note(f"note_{pitch}", audio, pitch)))
      >>> index = open_notes("notes.tfrecord")
      >>> batches = training_batches(index, crop_length=6144, batch_size=2)
      >>> next(iterate(batches, index)).shape
      TensorShape([2, 6144])
    """
    names = ("audio",) if features is None else feature_names(features)
    check_number(crop_length, "crop_length", 1)
    check_number(batch_size, "batch_size", 1)
    check_number(seed, "seed", 0)
    check_number(first_batch, "first_batch", 0)
    shard_number, num_shards = checked_shard(shard)
    if batch_size % num_shards:
        raise InputError(
            f"batch_size={batch_size} can't be divided among {num_shards} workers; "
            "give a multiple of their number."
        )
    if "qualities_str" in names:
        raise InputError("qualities_str has no fixed size; ask for qualities.")
    demand = Demand(names, crop_length, needs_pitch=needs_pitch)
    table = index.demanding(demand).table
    rows = batch_size // num_shards
    window_notes = min(_WINDOW_NOTES, max(1, _WINDOW_BYTES // (4 * crop_length)))
    block_notes = min(_BLOCK_NOTES, -(-window_notes // _BLOCKS_PER_WINDOW))
    most = [window_notes if name else block_notes for name in table.compressions]
    starts = block_starts(table.file, np.array(most))

    def plans() -> Iterator[tuple[np.ndarray, ...]]:
        """For each window, what this worker reads of it."""
        first = first_batch * batch_size
        for window in windows(starts, window_notes, seed, first):
            positions = window.position + np.arange(len(window.notes))
            own = positions % batch_size // rows == shard_number
            own &= positions >= first
            if own.any():
                notes, uniforms = window.notes[own], window.uniforms[own]
                yield (*_plan_window(table, notes, block_notes), uniforms)

    dataset = (
        tf.data.Dataset.from_generator(
            plans,
            output_signature=(
                tf.TensorSpec([None, 4], tf.int64),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None, 2], tf.int64),
                tf.TensorSpec([None], tf.float64),
            ),
        )
        .flat_map(lambda *plan: _read_window(table, demand, crop_length, *plan))
        # Reads the next window while this one is used. Two windows ahead took 400 MB
        # more and were no faster.
        .prefetch(1)
        .rebatch(rows, drop_remainder=True)
    )
    if features is None:
        dataset = dataset.map(lambda values: values["audio"])
    return dataset.prefetch(2)


def _plan_window(
    table: NoteTable, notes: np.ndarray, block_notes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How to read the notes of a window, which are given in the stream's order.

    Returns:
      `Runs.rows`; `Runs.slots`, with places in the stream's order; and int64 [w, 2],
      the file and the record of each note.
    """
    order = np.argsort(notes)  # the order of the files
    runs = plan_runs(table, notes[order], block_notes)
    slots = np.where(runs.slots < 0, -1, order[runs.slots])
    places = np.stack([table.file[notes], table.record[notes]], axis=1)
    return runs.rows, slots, places


def _read_window(
    table: NoteTable,
    demand: Demand,
    crop_length: int,
    runs: tf.Tensor,
    slots: tf.Tensor,
    places: tf.Tensor,
    uniforms: tf.Tensor,
) -> tf.data.Dataset:
    """One element: all crops of a window, in the stream's order.

    Args:
      table: all notes.
      demand: what each note must have.
      crop_length: samples in each crop.
      runs: from `_plan_window`.
      slots: likewise.
      places: likewise.
      uniforms: float64 [w] in [0, 1), one to choose each note's crop.
    """

    def parse(slot: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, Features]:
        def crop(num_samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            starts = tf.cast(num_samples - crop_length + 1, tf.float64)
            start = tf.cast(tf.floor(uniforms[slot] * starts), tf.int64)
            return start, tf.constant(crop_length, tf.int64)

        values = parse_note(serialized, demand, places[slot], table.files, crop)
        if "audio" in values:
            values["audio"] = tf.ensure_shape(values["audio"], [crop_length])
        return slot, values

    def in_order(slot: tf.Tensor, values: Features) -> Features:
        order = tf.argsort(slot)
        return {name: tf.gather(value, order) for name, value in values.items()}

    calls = parallel_calls(table.size)
    return (
        run_rows(table, runs)
        .interleave(
            lambda row: read_run(table, row, slots),
            cycle_length=calls,
            num_parallel_calls=calls,
            deterministic=False,
        )
        .map(parse, num_parallel_calls=calls, deterministic=False)
        .batch(tf.size(uniforms, tf.int64))
        .map(in_order)
    )
