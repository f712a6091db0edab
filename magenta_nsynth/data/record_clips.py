"""The notes of TFRecords as clips: one that can't be used does not end the reading."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.data.clips import Clip
from magenta_nsynth.data.explaining import DATA_ERRORS, advice
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.index import NoteIndex, find_notes
from magenta_nsynth.data.inspection import inspect
from magenta_nsynth.data.reading import read_notes
from magenta_nsynth.data.writing import fingerprint
from magenta_nsynth.errors import InputError, NSynthError

__all__ = ["LABELS", "RecordClips", "clip_of"]

LABELS = (
    "note_str",
    "pitch",
    "velocity",
    "instrument_family",
    "instrument_source",
    "qualities",
)
_FEATURES = ("audio", *LABELS, "file", "record")
# Records that are read one by one, once one of them can't be used.
_INSPECTED = 512


def clip_of(values: dict[str, Any], sample_length: int, quiet: bool = False) -> Clip:
    """A clip from a note's features, as `read_notes` gives them with its place.

    Args:
      values: tensors by name.
      sample_length: cuts the audio to so many samples, which is logged; 0 takes all.
      quiet: leaves that out.
    """
    labels = {name: values[name].numpy() for name in LABELS}
    labels["note_str"] = labels["note_str"].decode("utf-8", "surrogateescape")
    file = os.fsdecode(values["file"].numpy())
    where = f"{file}, record {values['record']} ({labels['note_str']})"
    audio = values["audio"].numpy()
    if 0 < sample_length < len(audio):
        if not quiet:
            logging.info(
                "%s: %d samples are cut to %d.", where, len(audio), sample_length
            )
        audio = audio[:sample_length]
    return Clip(where, audio, labels)


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
        self._demand = Demand(_FEATURES, min_samples)
        self.num_clips = len(self._table.file)
        names = [os.path.basename(path) for path in self._table.files]
        places = (self._table.file.tobytes(), self._table.record.tobytes())
        self.identity = {"kind": "tfrecord", "ids": fingerprint([names, *places])}

    def fingerprint(self, first: int, end: int) -> str:
        """As `ClipSource.fingerprint`: of the records' checksums, which are known."""
        return fingerprint(self._table.crc[first:end].tolist())

    def read(
        self, numbers: np.ndarray, sample_length: int
    ) -> Iterator[Clip | NSynthError]:
        """As `ClipSource.read`."""
        bad: dict[int, str] = {}
        done = 0
        while done < len(numbers):
            stream = self._stream([n for n in numbers[done:] if n not in bad], bad)
            try:
                for number in numbers[done:].tolist():
                    if number in bad:
                        clip = self._error(number, bad[number])
                    else:
                        clip = clip_of(next(stream), sample_length)
                    done += 1
                    yield clip
            except DATA_ERRORS as error:
                left = [n for n in numbers[done:].tolist() if n not in bad]
                # As a rule it is the next one. Else one that lies after it.
                for some in (left[:_INSPECTED], left):
                    found = inspect(self._table, np.array(some), self._demand)
                    if found.problems:
                        break
                else:
                    raise InputError(
                        f"{self._table.where(left[0])}: can't be read "
                        f"({type(error).__name__}); try again."
                    ) from error
                bad.update({some[i]: words for i, words in found.problems.items()})

    def _stream(self, numbers: list[int], bad: dict[int, str]) -> Iterator[Any]:
        if not numbers:
            return iter(())
        damaged = np.zeros(self.num_clips, bool)
        damaged[list(bad)] = True
        # No run goes across a damaged record.
        table = self._table._replace(
            segment=self._table.segment + np.cumsum(damaged)
        ).select(np.array(numbers))
        least = self._demand.min_samples
        return iter(read_notes(NoteIndex(table), _FEATURES, min_samples=least))

    def _error(self, number: int, words: str) -> NSynthError:
        return InputError(f"{self._table.where(number)}: {words}; {advice(words)}.")
