"""Training batches: crops of notes in a shuffled order that a step's number decides."""

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
from magenta_nsynth.data.runs import plan_runs, read_run
from magenta_nsynth.errors import InputError

__all__ = ["Window", "block_starts", "training_batches", "windows"]


class Window(NamedTuple):
    """Some notes of the stream.

    Attributes:
      position: that of its first note in the endless stream of notes.
      notes: int64 [w], positions in the table of notes, in the stream's order.
      uniforms: float64 [w] in [0, 1), which choose each note's crop.
    """

    position: int
    notes: np.ndarray
    uniforms: np.ndarray


def block_starts(file: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The blocks: of one file, none longer than that file's `most`.

    Args:
      file: int64 [n], each note's file, ascending.
      most: int64 [files].

    Returns:
      int64 [blocks + 1]: their first notes, and n.
    """
    first_of_file = np.searchsorted(file, np.arange(len(most)))
    within = np.arange(len(file)) - first_of_file[file]
    return np.append(np.flatnonzero(within % most[file] == 0), len(file))


def windows(
    starts: np.ndarray, window_notes: int, seed: int, first: int = 0
) -> Iterator[Window]:
    """The windows of all epochs, without end.

    Args:
      starts: what `block_starts` gives.
      window_notes: about how many notes a window has.
      seed: another one is another order.
      first: windows that lie wholly before this position are left out.
    """
    num_notes, sizes = int(starts[-1]), np.diff(starts)
    num_windows = max(1, round(num_notes / window_notes))
    epoch = first // num_notes
    while True:
        order = np.argsort(np.random.default_rng([seed, epoch]).random(len(sizes)))
        before = np.cumsum(sizes[order]) - sizes[order]
        # A block goes where it begins. Windows of one size: no tiny one at the end.
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


# Some windows are held at once: being read, put in order, cut into batches.
_WINDOW_NOTES, _WINDOW_BYTES = 2048, 64 << 20
_BLOCKS_PER_WINDOW, _BLOCK_NOTES = 64, 32


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
    """Endless batches of random crops, in an order that seed and position alone decide.

    Every epoch has each note once, at a random place. Notes are shuffled within and
    across files: blocks of up to 32 neighbours are, and then all notes within windows
    of about 2,048 (fewer if crops are long, so that a window takes 64 MB). GZIP files
    can't be entered in the middle: a window reads all that lies before its part of
    the file, so keep those to some thousand notes.

    Source: NSynth, reader.py; differs: repeatable, and batches go on across epochs.

    Args:
      index: the notes.
      crop_length: samples of each crop.
      batch_size: of all shards together.
      seed: 0 or more. Another seed is another order, with other crops.
      first_batch: begins there, with the batches that a run from 0 would have from
        there on; what lies before is not read.
      shard: (i, n), this worker's number and how many there are: the i-th of n equal
        parts of the rows of each batch. Together they are the batches of (0, 1).
      features: None for audio alone, or the names of features of one value or of
        ten; "file" and "record" say where a note is.
      needs_pitch: a note whose pitch is not known (-1) is an error, as a damaged one.

    Returns:
      Audio, float32 [batch_size / n, crop_length] in [-1, 1] at 16 kHz; with
      `features` a dict of those: [b], qualities [b, 10], audio as said.

    Raises:
      InputError: an argument can't be used. While iterating, TensorFlow's errors:
        `iterate` or `NoteIndex.errors` makes InputErrors of them, which name a record
        that is damaged, lacks a feature or is shorter than the crop.
    """
    names = ("audio",) if features is None else feature_names(features)
    check_number(crop_length, "crop_length", 1)
    check_number(batch_size, "batch_size", 1)
    check_number(seed, "seed", 0)
    check_number(first_batch, "first_batch", 0)
    shard_number, num_shards = checked_shard(shard)
    if batch_size % num_shards:
        raise InputError(
            f"batch_size={batch_size} can't be shared out among {num_shards} workers; "
            "give a multiple of their number."
        )
    if "qualities_str" in names:
        raise InputError("qualities_str has no fixed size; ask for qualities.")
    demand = Demand(names, crop_length, needs_pitch=needs_pitch)
    index = index.demanding(demand)
    table = index.table
    rows = batch_size // num_shards
    window_notes = min(_WINDOW_NOTES, max(1, _WINDOW_BYTES // (4 * crop_length)))
    block_notes = min(_BLOCK_NOTES, -(-window_notes // _BLOCKS_PER_WINDOW))
    most = [window_notes if name else block_notes for name in table.compressions]
    starts = block_starts(table.file, np.array(most))

    def plans() -> Iterator[tuple[np.ndarray, ...]]:
        """For each window what this worker reads of it."""
        first = first_batch * batch_size
        for window in windows(starts, window_notes, seed, first):
            positions = window.position + np.arange(len(window.notes))
            own = positions % batch_size // rows == shard_number
            own &= positions >= first
            notes = window.notes[own]
            if not len(notes):
                continue
            # Read in the order of the files; `slots` leads back to the stream's.
            order = np.argsort(notes)
            runs = plan_runs(table, notes[order], block_notes)
            slots = np.where(runs.slots < 0, -1, order[runs.slots])
            places = np.stack([table.file[notes], table.record[notes]], axis=1)
            yield runs.rows, slots, places, window.uniforms[own]

    def read_window(
        runs: tf.Tensor, slots: tf.Tensor, places: tf.Tensor, uniforms: tf.Tensor
    ) -> tf.data.Dataset:
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
            tf.data.Dataset.from_tensor_slices(runs)
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
        .flat_map(read_window)
        # The next window is read while this one is used. No more than that: reading two
        # at once took 400 MB more and was no faster.
        .prefetch(1)
        .rebatch(rows, drop_remainder=True)
    )
    if features is None:
        dataset = dataset.map(lambda values: values["audio"])
    return dataset.prefetch(2)
