"""Runs: neighbouring records of one file, read in one go from the first one's byte."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

__all__ = ["NoteTable", "Runs", "plan_runs", "read_records", "read_run"]

# Bytes read at once: about one record of 4 s, so that little more is read.
_BUFFER = 1 << 18
# Read ahead when records are taken one by one.
_RECORDS_AT_ONCE, _BYTES_AT_ONCE = 64, 16 << 20


class NoteTable(NamedTuple):
    """Where the notes of a dataset are stored, in the order of the files.

    Attributes:
      files: the paths.
      compressions: "" or "GZIP" for each file.
      file: int64 [n], the index of each note's file.
      record: int64 [n], the index of its record in the file.
      offset: int64 [n], the byte its record starts at (in the unpacked content).
      size: int64 [n], its record's bytes of data.
      crc: int64 [n], the checksum of those bytes.
      segment: int64 [n], equal for notes with no damage between them.
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
        """The table of these notes only: positions, or a bool for each note."""
        return self._replace(
            **{
                name: getattr(self, name)[notes]
                for name in ("file", "record", "offset", "size", "crc", "segment")
            }
        )

    def where(self, note: int) -> str:
        """A note's file and record, for messages."""
        return f"{self.files[self.file[note]]}, record {self.record[note]} (from 0)"


class Runs(NamedTuple):
    """How to read some notes.

    Attributes:
      rows: int64 [r, 4], for each run its file, its byte offset, and the start and
        length of its part of `slots`.
      slots: int64 [t], for each record the note's place among those asked for; -1 for
        a record to ignore.
    """

    rows: np.ndarray
    slots: np.ndarray


def plan_runs(table: NoteTable, notes: np.ndarray, max_records: int = 0) -> Runs:
    """The runs that contain `notes`.

    A run of a plain file starts at any note, so nothing else is read. GZIP can only be
    read from the start, so its runs are as long as possible and include notes that
    were not asked for.

    Args:
      table: all notes.
      notes: int64 [k] positions in `table`, ascending; k > 0.
      max_records: the longest run of a plain file; 0 is no limit.
    """
    chosen = table.select(notes)
    gzip = np.array([bool(name) for name in table.compressions])[chosen.file]
    steps = np.diff(chosen.record)
    # A gap ends a run, and so does damage or a new file (both change the segment).
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
    """Splits runs so that none of a plain file has more than `most` notes."""
    lengths = np.diff(np.append(first, total))
    within = np.arange(total) - np.repeat(first, lengths)
    return np.flatnonzero((within == 0) | (~gzip & (within % most == 0)))


def read_run(table: NoteTable, row: tf.Tensor, slots: tf.Tensor) -> tf.data.Dataset:
    """One run's records, for use in a function that another dataset maps.

    Args:
      table: all notes.
      row: int64 [4], from `Runs.rows`.
      slots: `Runs.slots`.

    Returns:
      (slot int64, serialized string) for each note of the run that was asked for.
    """
    file, offset, start, length = tf.unstack(row)
    names = [
        name.encode("utf-8", "surrogateescape") for name in table.files
    ]  # not all are UTF-8
    # TFRecordDataset itself can't start at an offset. This operation must not be the
    # outermost one: TensorFlow (2.17, 2.21) loses the offset when copying it.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.gather(names, [file]),
        compression_type=tf.gather(list(table.compressions), file),
        buffer_size=_BUFFER,
        byte_offsets=offset[tf.newaxis],
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    # A file truncated while in use gives empty records, which are refused later.
    nothing = tf.data.Dataset.from_tensors(b"").repeat()
    # Nothing beyond the run may be read: a damaged length of terabytes there would end
    # the process. `take` with a tensor crashes TensorFlow (2.17), and `zip` alone asks
    # each input for one more element at the end of the first.
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
    """Reads records one after the other, and continues after one that can't be read.

    Args:
      table: all notes.
      notes: int64 [n] positions in `table`, ascending.

    Yields:
      (place among the n, the record's bytes, ""), or (place, b"", why it can't be
      read).
    """
    largest = int(table.size[notes].max(initial=1))
    batch_size = min(_RECORDS_AT_ONCE, max(1, _BYTES_AT_ONCE // largest))
    done = 0
    careful_until = 0  # up to here, one record at a time
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
            yield done, b"", _problem(error)
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


def _problem(error: Exception) -> str:
    if isinstance(error, tf.errors.NotFoundError):
        return "the file no longer exists"
    if isinstance(error, tf.errors.DataLossError):
        if "truncated" in str(error):
            return "the file was truncated in it, or changed while in use"
        return "damaged, its checksum is wrong"
    return f"it can't be read ({type(error).__name__})"
