"""The notes of TFRecords as clips; reading continues after a bad record."""

import collections
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.data.checks import advice
from magenta_nsynth.data.examples import LabelReader, read_examples
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.index import NoteIndex, find_notes
from magenta_nsynth.data.runs import NoteTable
from magenta_nsynth.data.writing import fingerprint
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source
from magenta_nsynth.notes.clips import Clip, ClipSet, file_name

__all__ = ["RecordClips", "read_notes_as_clips"]

_LABELS = (
    "note_str",
    "pitch",
    "velocity",
    "instrument_family",
    "instrument_source",
    "qualities",
)

_SHARD = re.compile(r"-(\d+)-of-(\d+)(\.gz)?$")


def _read_clips(
    table: NoteTable,
    notes: np.ndarray,
    demand: Demand,
    labels: LabelReader,
    sample_length: int = 0,
    quiet: bool = False,
) -> Iterator[Clip | NSynthError]:
    """Reads records as clips.

    Args:
      table: all notes.
      notes: int64 [n] positions in `table`, ascending.
      demand: what each record must have.
      labels: reads the labels.
      sample_length: cuts the audio to this many samples, and logs it; 0 takes all.
      quiet: does not log it.

    Yields:
      For each note, the clip, or why it can't be used.
    """
    for place, example in read_examples(table, notes, demand):
        note = int(notes[place])
        where = table.where(note)
        if isinstance(example, str):
            yield InputError(f"{where}: {example}; {advice(example)}.")
            continue
        file, record = int(table.file[note]), int(table.record[note])
        known = labels.of(example, file, record, where)
        where = f"{table.files[file]}, record {record}"
        if "note_str" in known:
            where += f" ({known['note_str']})"
        audio = example.audio()
        if 0 < sample_length < len(audio):
            if not quiet:
                logging.info(
                    "%s: %d samples are cut to %d.", where, len(audio), sample_length
                )
            audio = audio[:sample_length]
        yield Clip(where, audio, known, file_name(known.get("note_str", "")))


def read_notes_as_clips(
    index: NoteIndex,
    demand: Demand,
    names: Sequence[str] = _LABELS,
    sample_length: int = 0,
    quiet: bool = False,
) -> Iterator[Clip]:
    """All notes of an index as clips.

    Args:
      index: the notes.
      demand: what each record must have.
      names: the labels to read.
      sample_length: cuts the audio to this many samples, and logs it; 0 takes all.
      quiet: does not log it.

    Raises:
      InputError: a record can't be used.
    """
    table = index.demanding(demand).table
    labels = LabelReader(table.files, names, index.reported)
    notes = np.arange(len(table.file))
    for clip in _read_clips(table, notes, demand, labels, sample_length, quiet):
        if isinstance(clip, NSynthError):
            raise clip
        yield clip


class RecordClips:
    """A clip per record of TFRecord files."""

    def __init__(
        self, paths: Sequence[str], min_samples: int, skip_corrupt: bool = False
    ) -> None:
        """Finds the records; reads none.

        Args:
          paths: from `find_records`.
          min_samples: a note with fewer samples can't be used.
          skip_corrupt: keeps the reachable part of a damaged file.

        Raises:
          InputError: a file can't be used.
        """
        self._table, _, self.lost = find_notes(list(paths), skip_corrupt)
        self._demand = Demand(("audio",), min_samples)
        self._labels = LabelReader(self._table.files, _LABELS, set())
        self.num_clips = len(self._table.file)
        self.files: Sequence[Source] = ()
        self.sets: Sequence[ClipSet] = list(self._sets(paths))
        names = [os.path.basename(path) for path in self._table.files]
        places = (self._table.file.tobytes(), self._table.record.tobytes())
        self.identity: dict[str, Any] = {
            "kind": "tfrecord",
            "ids": fingerprint([names, *places]),
        }

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`, from the records' checksums."""
        return fingerprint(self._table.crc[first:end].tolist())

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        return _read_clips(
            self._table, numbers, self._demand, self._labels, sample_length, quiet
        )

    def _sets(self, paths: Sequence[str]) -> Iterator[ClipSet]:
        """The clips of each set of shards; if a set is incomplete, of each shard."""
        shards = [_SHARD.search(path) for path in paths]
        stems = [
            path[: shard.start()] if shard else path
            for path, shard in zip(paths, shards, strict=True)
        ]
        counts = collections.Counter(stems)
        files_of: dict[tuple[str, str], list[int]] = {}
        for i, (path, shard, stem) in enumerate(zip(paths, shards, stems, strict=True)):
            number = ""
            if shard is not None and counts[stem] != int(shard[2]):
                number = f"-{shard[1]}-of-{shard[2]}"
                stem = path
            files_of.setdefault((stem, number), []).append(i)
        for (_, number), files in files_of.items():
            first = paths[files[0]]
            name = os.path.basename(first).partition(".tfrecord")[0] + number
            numbers = np.flatnonzero(np.isin(self._table.file, files))
            yield ClipSet(first, name, numbers)
