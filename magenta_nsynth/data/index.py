"""The index of a dataset: which notes it has, and where each of them is stored."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from magenta_nsynth.data.examples import DATA_ERRORS, advice, explain, inspect
from magenta_nsynth.data.features import Demand, feature_names
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.records import (
    Layout,
    NoteTable,
    find_records,
    read_layout,
    store_errors,
)
from magenta_nsynth.errors import InputError

__all__ = ["NoteIndex", "find_notes", "open_notes", "table_of"]

_AUDIO = Demand(("audio",))
_LOGGED = 5  # damaged records that are logged one by one


@dataclasses.dataclass(frozen=True, eq=False)
class NoteIndex:
    """The notes of some TFRecord files. Made by `open_notes`.

    Attributes:
      table: where each note is stored, in the order of the files.
      skip_corrupt: whether records that can't be used are left out.
      num_skipped: how many were left out; a lost part of a file counts once.
      num_samples: int64 [num_notes], the length of each note's audio at 16 kHz, if all
        were inspected (with skip_corrupt); else None.
      checked: what all notes are known to have, as in `Demand.checks`.
      reported: labels that were already logged as missing.
    """

    table: NoteTable
    skip_corrupt: bool = False
    num_skipped: int = 0
    num_samples: np.ndarray | None = None
    checked: frozenset[str] = frozenset()
    reported: set[str] = dataclasses.field(default_factory=set)
    _demands: list[Demand] = dataclasses.field(default_factory=list)

    @property
    def num_notes(self) -> int:
        """The number of notes."""
        return len(self.table.file)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files."""
        return self.table.files

    def spread(self, count: int) -> "NoteIndex":
        """The index of `count` of the notes, evenly spaced; of all if there are fewer.

        Args:
          count: 1 or more.
        """
        if count >= self.num_notes:
            return self
        chosen = np.arange(count) * self.num_notes // count
        lengths = None if self.num_samples is None else self.num_samples[chosen]
        table = self.table.select(chosen)
        return dataclasses.replace(self, table=table, num_samples=lengths)

    def demanding(self, demand: Demand) -> "NoteIndex":
        """The index for a reader with this demand.

        Without skip_corrupt this is the same index; a record that does not meet the
        demand raises an error when it is read. With skip_corrupt such records are left
        out; all records are inspected for that, unless they already were.

        Raises:
          InputError: no record is left.
        """
        if demand not in self._demands:
            self._demands.append(demand)
        if not self.skip_corrupt:
            return self
        needs_audio = "audio" in demand.parsed
        if not demand.checks <= self.checked or (
            needs_audio and self.num_samples is None
        ):
            return self._inspected(demand, None, None)
        if not needs_audio or self.num_samples is None:
            return self
        problems = {
            note: problem
            for note, num_samples in enumerate(self.num_samples.tolist())
            if (problem := demand.sample_problem(num_samples))
        }
        return self._without(problems)

    def _inspected(
        self,
        demand: Demand,
        filters: NoteFilter | None,
        progress: Callable[[int, int], None] | None,
    ) -> "NoteIndex":
        """Reads all notes and returns those that meet a demand and pass the filters."""
        notes = np.arange(self.num_notes)
        found = inspect(self.table, notes, demand, not self.skip_corrupt, progress)
        if found.problems and not self.skip_corrupt:
            note, problem = min(found.problems.items())
            raise InputError(f"{self.table.where(note)}: {problem}; {advice(problem)}.")
        result = dataclasses.replace(
            self,
            num_samples=found.num_samples if "audio" in demand.parsed else None,
            checked=demand.checks | self.checked,
        )
        keep = np.ones(self.num_notes, bool)
        if filters is not None and filters.features:
            keep = filters.admits(found.values)
        return result._without(found.problems, keep)

    def _without(
        self, problems: dict[int, str], keep: np.ndarray | None = None
    ) -> "NoteIndex":
        """The index of the notes to keep that have no problem; logs the problems."""
        bad = np.zeros(self.num_notes, bool)
        bad[list(problems)] = True
        for note, problem in sorted(problems.items())[:_LOGGED]:
            logging.warning("%s: %s; left out.", self.table.where(note), problem)
        if problems:
            logging.warning(
                "%d of %d records are left out because they can't be used.",
                len(problems),
                self.num_notes,
            )
        kept = ~bad if keep is None else ~bad & keep
        if not kept.any():
            raise InputError(
                f"{_listed(self.files)}: {self._nothing_left(len(problems))}"
            )
        if kept.all():
            return self
        # No run may cross a damaged record.
        table = self.table._replace(segment=self.table.segment + np.cumsum(bad))
        lengths = None if self.num_samples is None else self.num_samples[kept]
        return dataclasses.replace(
            self,
            table=table.select(kept),
            num_samples=lengths,
            num_skipped=self.num_skipped + len(problems),
        )

    def _nothing_left(self, num_bad: int) -> str:
        if num_bad == self.num_notes:
            return f"none of its {num_bad} records can be used."
        left = f", and {num_bad} can't be used" if num_bad else ""
        return (
            f"none of the {self.num_notes - num_bad} notes passes the filters{left}; "
            "relax the filters."
        )

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Wraps loops over the datasets: their errors become InputErrors.

        TensorFlow's own errors name no file, and often no record. Other exceptions
        raised in the block pass through.

        Raises:
          InputError: a record can't be used. The message says which, why and what to
            do.
        """
        try:
            with store_errors():
                yield
        except DATA_ERRORS as error:
            message = explain(error, self.table, self._demands or [_AUDIO])
            if message is None:
                raise
            raise InputError(message) from None


def _listed(files: tuple[str, ...]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{more}"


def open_notes(
    paths: Iterable[str | os.PathLike] | str | os.PathLike,
    filters: NoteFilter | None = None,
    skip_corrupt: bool = False,
    *,
    features: Iterable[str] = ("audio",),
    min_samples: int = 1,
    num_samples: int | None = None,
    needs_pitch: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> NoteIndex:
    """Opens TFRecord files of notes, plain or GZIP.

    This takes some microseconds per note; GZIP files are unpacked once. With filters or
    skip_corrupt, all notes are read once (some thousands per second from memory).

    Args:
      paths: files, folders or globs, as for `find_records`.
      filters: which notes to read; None reads all.
      skip_corrupt: leaves out and counts records that would raise an error when read:
        damaged ones, and those that lack what the next four arguments ask for.
      features: the features that readers will ask for.
      min_samples: the least number of samples at 16 kHz.
      num_samples: the exact number, or None.
      needs_pitch: whether the pitch must be known.
      progress: called with the number of notes read so far and in all, if all notes
        are read.

    Raises:
      InputError: no such file; a file is empty or truncated; no note in it, or none
        passes; or, without skip_corrupt, a record read for the filters is damaged.

    Examples:
      >>> import numpy as np
      >>> import tensorflow as tf
      >>> from magenta_nsynth.data.reading import NoteFilter, open_notes
      >>> from magenta_nsynth.data.writing import note_to_example
      >>> from magenta_nsynth.schema import Note
      >>> with tf.io.TFRecordWriter("notes.tfrecord") as writer:
      ...     for pitch in (60, 64, 67):
      ...         audio = np.zeros(16_000, np.float32)
      ...         writer.write(note_to_example(Note(f"note_{pitch}", audio, pitch)))
      >>> open_notes("notes.tfrecord", NoteFilter(min_pitch=62)).num_notes
      2
    """
    features = feature_names(features)
    table, num_lost, _ = find_notes(find_records(paths), skip_corrupt)
    index = NoteIndex(table, skip_corrupt, num_lost)
    labels = filters.features if filters else ()
    if skip_corrupt:
        demand = Demand(features, min_samples, num_samples, needs_pitch, labels)
        return index._inspected(demand, filters, progress)
    if labels:
        return index._inspected(Demand((), labels=labels), filters, progress)
    return index


def find_notes(
    paths: list[str], skip_corrupt: bool = False
) -> tuple[NoteTable, int, list[str]]:
    """Finds the notes of TFRecord files without reading them.

    Args:
      paths: from `find_records`.
      skip_corrupt: keeps the reachable part of a damaged file, with a warning.

    Returns:
      The table; the least number of records that can't be reached; and a message for
      each place where a file is damaged.

    Raises:
      InputError: a file can't be read, or no file has a record.
    """
    layouts = [read_layout(path, skip_corrupt) for path in paths]
    damage = [message for layout in layouts for message in layout.damage]
    for message in damage[:_LOGGED]:
        logging.warning("%s; left out.", message)
    num_lost = sum(layout.num_lost for layout in layouts)
    table = table_of(paths, layouts)
    if not len(table.file):
        raise InputError(
            f"{_listed(tuple(paths))}: no record that can be read; copy or download "
            "the file again."
        )
    return table, num_lost, damage


def table_of(paths: Sequence[str], layouts: Sequence[Layout]) -> NoteTable:
    """One table of the records of several files, in their order."""
    counts = [len(layout.record) for layout in layouts]
    columns = {
        name: np.concatenate([getattr(layout, name) for layout in layouts])
        for name in ("record", "offset", "size", "crc")
    }
    file = np.repeat(np.arange(len(paths)), counts)
    # A segment ends with its file, and before a record that can't be reached.
    ends = (np.diff(file) != 0) | (np.diff(columns["record"]) != 1)
    segment = np.concatenate([[0], np.cumsum(ends)])[: len(file)]
    return NoteTable(
        tuple(paths),
        tuple(layout.mirror for layout in layouts),
        tuple(layout.compression for layout in layouts),
        file,
        segment=segment,
        **columns,
    )
