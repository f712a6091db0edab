"""The index of a data set: which notes there are, and where each of them lies."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from magenta_nsynth.data.checks import DATA_ERRORS, advice, explain, inspect
from magenta_nsynth.data.features import Demand, feature_names
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.records import Layout, find_records, read_layout
from magenta_nsynth.data.runs import NoteTable
from magenta_nsynth.errors import InputError

__all__ = ["NoteIndex", "find_notes", "open_notes", "table_of"]

_AUDIO = Demand(("audio",))
_SAID = 5  # damaged records that are named one by one; of the others, the number


@dataclasses.dataclass(frozen=True, eq=False)
class NoteIndex:
    """The notes of some TFRecord files; made by `open_notes`.

    Attributes:
      table: where each note lies, in the order of the files.
      skip_corrupt: whether records that can't be used are left out.
      num_skipped: how many were left out; a part of a file that was lost counts once.
      num_samples: int64 [num_notes], the length of each note's audio, where all were
        inspected (with skip_corrupt); else None.
      checked: what all notes are known to have, as `Demand.checks` says it.
      said: labels that some notes lack, which was said.
    """

    table: NoteTable
    skip_corrupt: bool = False
    num_skipped: int = 0
    num_samples: np.ndarray | None = None
    checked: frozenset[str] = frozenset()
    said: set[str] = dataclasses.field(default_factory=set)
    _demands: list[Demand] = dataclasses.field(default_factory=list)

    @property
    def num_notes(self) -> int:
        """How many notes there are to read."""
        return len(self.table.file)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files."""
        return self.table.files

    def demanding(self, demand: Demand) -> "NoteIndex":
        """The index for readers with this demand.

        Without skip_corrupt that is this index, and a record that does not meet the
        demand is an error once it is read. With it, those records are left out, for
        which all are inspected unless that was done before.

        Raises:
          InputError: none is left.
        """
        if demand not in self._demands:
            self._demands.append(demand)
        if not self.skip_corrupt:
            return self
        if not demand.checks <= self.checked or (
            "audio" in demand.parsed and self.num_samples is None
        ):
            return self._inspected(demand, None, None)
        if "audio" not in demand.parsed:
            return self
        problems = {
            int(note): words
            for note in range(self.num_notes)
            if (words := demand.sample_problem(int(self.num_samples[note])))
        }
        return self._without(problems)

    def _inspected(
        self,
        demand: Demand,
        filters: NoteFilter | None,
        progress: Callable[[int, int], None] | None,
    ) -> "NoteIndex":
        """The notes that meet a demand and pass the filters, by reading them all."""
        notes = np.arange(self.num_notes)
        found = inspect(self.table, notes, demand, not self.skip_corrupt, progress)
        if found.problems and not self.skip_corrupt:
            note, words = min(found.problems.items())
            raise InputError(f"{self.table.where(note)}: {words}; {advice(words)}.")
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
        """The index without damaged notes, which are counted, and those not kept."""
        bad = np.zeros(self.num_notes, bool)
        bad[list(problems)] = True
        for note, words in sorted(problems.items())[:_SAID]:
            logging.warning("%s: %s; left out.", self.table.where(note), words)
        if problems:
            logging.warning(
                "%d of %d records are left out since they can't be used.",
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
        # No run goes across a damaged record.
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
            "ask for less."
        )

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Around loops over the data sets: their errors become InputErrors.

        TensorFlow's errors don't say in which file, often not in which record. What
        else is raised in the block passes through.

        Raises:
          InputError: a record can't be used; the file, the record, what is wrong with
            it and what to do.
        """
        try:
            yield
        except DATA_ERRORS as error:
            message = explain(error, self.table, self._demands or [_AUDIO])
            if message is None:
                raise
            raise InputError(message) from error


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

    That takes some microseconds a note; GZIP is unpacked once for it. With filters or
    skip_corrupt all notes are read once (some thousands a second from memory).

    Args:
      paths: files, folders or globs, as for `find_records`.
      filters: which notes to read; None is all.
      skip_corrupt: leaves out and counts what else would be an error when it is read:
        damaged records, and those that don't have what the next four ask for.
      features: what readers will ask for.
      min_samples: the least number of samples of audio at 16 kHz that is of use.
      num_samples: the exact number, or None.
      needs_pitch: whether a pitch that is not known is of no use.
      progress: is called with the notes read and their number, where all are read.

    Raises:
      InputError: there is no such file, or no note in it, or none passes; a file is
        empty or cut; without skip_corrupt a record that is read for the filters is
        damaged.
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
    """Where the notes of TFRecord files lie; none of them is read.

    Args:
      paths: of `find_records`.
      skip_corrupt: keeps what can be reached of a damaged file, which is logged.

    Returns:
      The table; how many records can't be reached, at least; and each place where a
      file is damaged, in words.

    Raises:
      InputError: as `open_notes`, for a file.
    """
    layouts = [read_layout(path, skip_corrupt) for path in paths]
    damage = [words for layout in layouts for words in layout.damage]
    for message in damage[:_SAID]:
        logging.warning("%s; left out.", message)
    num_lost = sum(layout.num_lost for layout in layouts)
    table = table_of(paths, layouts)
    if not len(table.file):
        raise InputError(f"{_listed(tuple(paths))}: no record that can be read.")
    return table, num_lost, damage


def table_of(paths: Sequence[str], layouts: Sequence[Layout]) -> NoteTable:
    """The records of files that have been walked, in their order."""
    counts = [len(layout.record) for layout in layouts]
    columns = {
        name: np.concatenate([getattr(layout, name) for layout in layouts])
        for name in ("record", "offset", "size", "crc")
    }
    file = np.repeat(np.arange(len(paths)), counts)
    # Broken at a new file, and where a record could not be reached.
    broken = (np.diff(file) != 0) | (np.diff(columns["record"]) != 1)
    segment = np.concatenate([[0], np.cumsum(broken)])[: len(file)]
    compressions = tuple(layout.compression for layout in layouts)
    return NoteTable(tuple(paths), compressions, file, segment=segment, **columns)
