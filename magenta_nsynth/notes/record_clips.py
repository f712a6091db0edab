"""The notes of TFRecords as clips: one that can't be used does not end the reading."""

import collections
import os
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from magenta_nsynth.data.checks import advice
from magenta_nsynth.data.examples import LabelReader, examine
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.index import NoteIndex, find_notes
from magenta_nsynth.data.runs import NoteTable, read_records
from magenta_nsynth.data.writing import fingerprint
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source
from magenta_nsynth.notes.clips import Clip, ClipSet, file_name

__all__ = ["LABELS", "RecordClips", "read_clips", "read_notes_as_clips"]

LABELS = (
    "note_str",
    "pitch",
    "velocity",
    "instrument_family",
    "instrument_source",
    "qualities",
)

_SHARD = re.compile(r"-(\d+)-of-(\d+)(\.gz)?$")


def read_clips(
    table: NoteTable,
    notes: np.ndarray,
    demand: Demand,
    labels: LabelReader,
    sample_length: int = 0,
    quiet: bool = False,
) -> Iterator[Clip | NSynthError]:
    """Reads records as clips, or says why they can't be used.

    Args:
      table: where all notes lie.
      notes: int64 [n] positions in `table`, ascending.
      demand: what a record must have.
      labels: reads what else is known of it.
      sample_length: cuts the audio to so many samples, which is logged; 0 takes all.
      quiet: leaves that out.
    """
    for place, serialized, words in read_records(table, notes):
        note = int(notes[place])
        where = table.where(note)
        example = None
        if not words:
            example, words = examine(serialized, demand)
        if example is None or words:
            yield InputError(f"{where}: {words}; {advice(words)}.")
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
    names: Sequence[str] = LABELS,
    sample_length: int = 0,
    quiet: bool = False,
) -> Iterator[Clip]:
    """All notes of an index as clips.

    Args:
      index: the notes.
      demand: what a record must have.
      names: of the labels that are of interest.
      sample_length: as in `read_clips`.
      quiet: likewise.

    Raises:
      InputError: a record that can't be used.
    """
    table = index.demanding(demand).table
    labels = LabelReader(table.files, names, index.said)
    notes = np.arange(len(table.file))
    clips = read_clips(table, notes, demand, labels, sample_length, quiet)
    return _or_raise(clips)


def _or_raise(clips: Iterable[Clip | NSynthError]) -> Iterator[Clip]:
    for clip in clips:
        if isinstance(clip, NSynthError):
            raise clip
        yield clip


class RecordClips:
    """A clip per record of TFRecord files."""

    def __init__(
        self, paths: Sequence[str], min_samples: int, skip_corrupt: bool = False
    ) -> None:
        """Walks the files; no record is read.

        Args:
          paths: of `find_records`.
          min_samples: a note with fewer can't be used.
          skip_corrupt: goes on with what can be reached of a damaged file.

        Raises:
          InputError: a file that can't be used.
        """
        self._table, _, self.lost = find_notes(list(paths), skip_corrupt)
        self._demand = Demand(("audio",), min_samples)
        self._labels = LabelReader(self._table.files, LABELS, set())
        self.num_clips = len(self._table.file)
        self.files: list[Source] = []
        self.sets = list(self._sets(paths))
        names = [os.path.basename(path) for path in self._table.files]
        places = (self._table.file.tobytes(), self._table.record.tobytes())
        self.identity = {"kind": "tfrecord", "ids": fingerprint([names, *places])}

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`: of the records' checksums, which are known."""
        return fingerprint(self._table.crc[first:end].tolist())

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        return read_clips(
            self._table, numbers, self._demand, self._labels, sample_length, quiet
        )

    def _sets(self, paths: Sequence[str]) -> Iterator[ClipSet]:
        """The clips of each set of shards; of an incomplete one, of each shard."""
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
