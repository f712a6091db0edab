"""Runs: neighbouring records of one file, read in one go from where the first lies."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

__all__ = ["NoteTable", "Runs", "plan_runs", "read_run"]

# Bytes read at once. A record of 4 s has 256 kB, so not much more than it is read.
_BUFFER = 1 << 18


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
    # The slots come first, so that their end is noticed before a record beyond the run
    # is read, which may be damaged. (`take` with a tensor here crashes TensorFlow.)
    own = tf.data.Dataset.from_tensor_slices(slots[start : start + length])
    pairs = tf.data.Dataset.zip((own, records.concatenate(nothing)))
    return pairs.filter(lambda slot, _: slot >= 0) if any(table.compressions) else pairs
