"""Runs: neighbouring records of one file, read in one go from where the first lies."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

__all__ = ["NoteTable", "Runs", "plan_runs", "read_records", "read_run"]

# Bytes read at once. A record of 4 s has 256 kB, so not much more than it is read.
_BUFFER = 1 << 18
# Read ahead of whoever takes records one by one.
_RECORDS_AT_ONCE, _BYTES_AT_ONCE = 64, 16 << 20


class NoteTable(NamedTuple):
    """Where the notes of a data set lie, in the order of the files.

    Attributes:
      files: the paths.
      compressions: of each file, "" or "GZIP".
      file: int64 [n], each note's number in `files`.
      record: int64 [n], its record's number in its file, from 0.
      offset: int64 [n], the byte its record starts at (of the unpacked content).
      size: int64 [n], its record's bytes of data.
      crc: int64 [n], the checksum of those.
      segment: int64 [n], notes of one number have nothing damaged between them.
    """

    files: tuple[str, ...]
    compressions: tuple[str, ...]
    file: np.ndarray
    record: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc: np.ndarray
    segment: np.ndarray

    def select(self, notes: np.ndarray) -> "NoteTable":
        """The table of these notes alone: positions, or a bool for each note."""
        return self._replace(
            **{
                name: getattr(self, name)[notes]
                for name in ("file", "record", "offset", "size", "crc", "segment")
            }
        )

    def where(self, note: int) -> str:
        """A note's file and record, for people."""
        return f"{self.files[self.file[note]]}, record {self.record[note]} (from 0)"


class Runs(NamedTuple):
    """How to read some notes.

    Attributes:
      rows: int64 [r, 4], for each run its file, its byte offset, and the part of
        `slots` that is its own: start and length, in records.
      slots: int64 [t], for each record the note's place among those that were asked
        for; -1 is passed over.
    """

    rows: np.ndarray
    slots: np.ndarray


def plan_runs(table: NoteTable, notes: np.ndarray, max_records: int = 0) -> Runs:
    """The runs that hold `notes`.

    Plain files are entered wherever a note lies, so that nothing else is read. GZIP
    can only be read from its start, so there runs are as long as can be, over notes
    that nobody asked for.

    Args:
      table: where all notes lie.
      notes: int64 [k] positions in `table`, ascending; k > 0.
      max_records: the longest run of a plain file; 0 is no limit.
    """
    chosen = table.select(notes)
    gzip = np.array([bool(name) for name in table.compressions])[chosen.file]
    steps = np.diff(chosen.record)
    # A gap ends a run; the numbers go down or skip damage where the segment changes.
    ends = (np.diff(chosen.segment) != 0) | (~gzip[1:] & (steps != 1))
    first = np.flatnonzero(np.concatenate([[True], ends]))
    if max_records:
        first = _split(first, len(notes), gzip, max_records)
    last = np.append(first[1:], len(notes)) - 1
    lengths = chosen.record[last] - chosen.record[first] + 1
    starts = np.cumsum(lengths) - lengths
    run_of = np.repeat(np.arange(len(first)), last - first + 1)
    slots = np.full(lengths.sum(), -1, np.int64)
    within = chosen.record - chosen.record[first][run_of]
    slots[starts[run_of] + within] = np.arange(len(notes))
    rows = np.stack([chosen.file[first], chosen.offset[first], starts, lengths], axis=1)
    return Runs(rows, slots)


def _split(first: np.ndarray, total: int, gzip: np.ndarray, most: int) -> np.ndarray:
    """Starts of runs, so that none in a plain file has more than `most` notes."""
    lengths = np.diff(np.append(first, total))
    within = np.arange(total) - np.repeat(first, lengths)
    return np.flatnonzero((within == 0) | (~gzip & (within % most == 0)))


def read_run(table: NoteTable, row: tf.Tensor, slots: tf.Tensor) -> tf.data.Dataset:
    """One run's records, for use within a function of another data set.

    Args:
      table: where all notes lie.
      row: int64 [4], of `Runs.rows`.
      slots: `Runs.slots`.

    Returns:
      (slot int64, serialized string) for each note of the run that was asked for.
    """
    file, offset, start, length = tf.unstack(row)
    names = [
        name.encode("utf-8", "surrogateescape") for name in table.files
    ]  # not all are UTF-8
    # TFRecordDataset itself has no way to say where to begin. This operation can't be
    # the outermost one: TensorFlow (2.17, 2.21) forgets the offset in copying it.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.gather(names, [file]),
        compression_type=tf.gather(list(table.compressions), file),
        buffer_size=_BUFFER,
        byte_offsets=offset[tf.newaxis],
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    # A file that was cut while in use gives empty records, which are refused later.
    nothing = tf.data.Dataset.from_tensors(b"").repeat()
    # Nothing beyond the run is read, where a length may be damaged: one of terabytes
    # ends the process. `take` would say this, but crashes TensorFlow (2.17) with a
    # tensor; and `zip` asks all of its inputs once more at the end of the first.
    own = slots[start : start + length]
    records = tf.data.Dataset.choose_from_datasets(
        [records.concatenate(nothing)],
        tf.data.Dataset.from_tensor_slices(tf.zeros_like(own)),
        stop_on_empty_dataset=False,
    )
    pairs = tf.data.Dataset.zip((tf.data.Dataset.from_tensor_slices(own), records))
    return pairs.filter(lambda slot, _: slot >= 0) if any(table.compressions) else pairs


def read_records(
    table: NoteTable, notes: np.ndarray
) -> Iterator[tuple[int, bytes, str]]:
    """Reads records one after the other; one that can't be read is passed over.

    Args:
      table: where all notes lie.
      notes: int64 [n] positions in `table`, ascending.

    Yields:
      (place among the n, the record's bytes, ""), or instead of the bytes why they
      can't be read, in words.
    """
    largest = int(table.size[notes].max(initial=1))
    batch_size = min(_RECORDS_AT_ONCE, max(1, _BYTES_AT_ONCE // largest))
    done = 0
    careful_until = 0  # up to here, record by record
    while done < len(notes):
        careful = done < careful_until
        until = careful_until if careful else len(notes)
        batches = _in_batches(table, notes[done:until], 1 if careful else batch_size)
        try:
            for batch in batches:
                for serialized in batch.numpy():
                    yield done, serialized, ""
                    done += 1
        except tf.errors.OpError as error:
            if not careful and batch_size > 1:
                careful_until = min(done + batch_size, len(notes))
                continue
            yield done, b"", _words(error)
            done += 1


def _in_batches(
    table: NoteTable, notes: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    runs = plan_runs(table, notes)
    slots = tf.constant(runs.slots)
    return (
        tf.data.Dataset.from_tensor_slices(runs.rows)
        .flat_map(lambda row: read_run(table, row, slots))
        .map(lambda _, serialized: serialized)
        .batch(batch_size)
        .prefetch(1)
    )


def _words(error: Exception) -> str:
    if isinstance(error, tf.errors.NotFoundError):
        return "the file is not there any more"
    if isinstance(error, tf.errors.DataLossError):
        if "truncated" in str(error):
            return "the file was cut in it, or changed while in use"
        return "damaged, its checksum is wrong"
    return f"it can't be read ({type(error).__name__})"
