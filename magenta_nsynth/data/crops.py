"""Endless batches of random crops, to train on."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.features import Demand, feature_names
from magenta_nsynth.data.index import NoteIndex
from magenta_nsynth.data.pipeline import (
    Features,
    check_number,
    checked_shard,
    parallel_calls,
    parse_note,
)
from magenta_nsynth.data.runs import plan_runs, read_run
from magenta_nsynth.data.windows import block_starts, windows
from magenta_nsynth.errors import InputError

__all__ = ["training_batches"]

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
