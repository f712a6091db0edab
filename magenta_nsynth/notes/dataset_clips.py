"""The notes of TFRecords and of TensorFlow Datasets as clips."""

import collections
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.audio.loudness import level_problem
from magenta_nsynth.audio.resample import resample
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.data.examples import LabelReader, advice, read_examples
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.index import NoteIndex, find_notes
from magenta_nsynth.data.records import NoteTable
from magenta_nsynth.data.writing import fingerprint
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source
from magenta_nsynth.notes.clips import Clip, ClipSet, file_name
from magenta_nsynth.schema import QUALITIES

__all__ = ["PREFIX", "RecordClips", "TFDSClips", "read_notes_as_clips"]

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


PREFIX = "tfds:"
_NAME = re.compile(rf"{PREFIX}(?P<name>[^@]+)@(?P<split>.+)")


class TFDSClips:
    """The notes of a split of a dataset that TensorFlow Datasets has prepared."""

    def __init__(self, path: str) -> None:
        """Opens a dataset that was prepared before; downloads nothing.

        Args:
          path: "tfds:<name>@<split>", such as "tfds:nsynth/full@test".

        Raises:
          InputError: the path has another form, the package is not installed, or the
            dataset was not prepared.
        """
        match = _NAME.fullmatch(path)
        if match is None:
            raise InputError(
                f"{path}: name a dataset and its split, such as "
                f"{PREFIX}nsynth/full@test."
            )
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise InputError(
                f"{path}: TensorFlow Datasets can't be imported ({error}); pip install "
                "tensorflow-datasets, or give TFRecord files."
            ) from None
        try:
            builder = tfds.builder(match["name"])
            info = builder.info.splits[match["split"]]
            # One file after the other, so that the order is always the same.
            self._data = builder.as_dataset(
                split=match["split"],
                shuffle_files=False,
                read_config=tfds.ReadConfig(interleave_cycle_length=1),
            )
        except Exception as error:  # it raises a dozen kinds, none of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{path}: TensorFlow Datasets can't open it ({reason[:200]}); prepare "
                "it first with `tfds build nsynth`, and set TFDS_DATA_DIR if it is "
                "not in the default folder."
            ) from None
        self._rate = _rate_of(builder.info)
        self._has_logged = False
        self.num_clips = int(info.num_examples)
        self.lost: list[str] = []
        self.files: Sequence[Source] = ()
        name = file_name(path.removeprefix(PREFIX))
        self.sets: Sequence[ClipSet] = [ClipSet(path, name, np.arange(self.num_clips))]
        self._path = path
        self.identity: dict[str, Any] = {
            "kind": "tfds",
            "name": builder.info.full_name,
            "split": match["split"],
        }

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`; "", since the name has the dataset's version."""
        del first, end
        return ""

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        del quiet
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
            if not len(run):
                continue
            part = self._data.skip(int(run[0])).take(len(run))
            for number, values in zip(run, part.as_numpy_iterator(), strict=True):
                yield self._clip(int(number), values, sample_length)

    def _clip(
        self, number: int, values: dict[str, Any], sample_length: int
    ) -> Clip | NSynthError:
        name = values.get("id", b"").decode("utf-8", "surrogateescape")
        name = name or f"{self._path.removeprefix(PREFIX)}-{number}"
        where = f"{self._path}, note {number} ({name})"
        labels = _labels(values)
        missing = [label for label, value in labels.items() if value is None]
        if missing and not self._has_logged:
            self._has_logged = True
            logging.info(
                "%s: has no %s, nor have the others.", where, ", ".join(missing)
            )
        audio = np.asarray(values.get("audio", ()))
        if audio.dtype.kind != "f" or audio.ndim != 1 or not len(audio):
            return InputError(
                f"{where}: its audio is {audio.dtype} of {list(audio.shape)}, not "
                "floats in [-1, 1] of [time]; leave it out with --skip_corrupt."
            )
        if problem := level_problem(float(np.abs(audio).max())):
            return InputError(f"{where}: {problem}; leave it out with --skip_corrupt.")
        audio = resample(audio.astype(np.float32), self._rate)
        known = {label: v for label, v in labels.items() if v is not None}
        audio = audio[: sample_length or None]
        return Clip(where, audio, {"note_str": name, **known}, file_name(name))


def _rate_of(info: Any) -> int:
    """The sample rate of a dataset's audio; 16,000 if it does not say."""
    try:
        return int(info.features["audio"].sample_rate or SAMPLE_RATE)
    except (AttributeError, KeyError, TypeError):
        return SAMPLE_RATE


def _labels(values: dict[str, Any]) -> dict[str, Any]:
    """The labels; None for one that the dataset does not have."""

    def number(*path: str) -> int | None:
        value: Any = values
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else int(value)

    qualities = tuple(number("qualities", quality) for quality in QUALITIES)
    return {
        "pitch": number("pitch"),
        "velocity": number("velocity"),
        "instrument_family": number("instrument", "family"),
        "instrument_source": number("instrument", "source"),
        "qualities": None if None in qualities else qualities,
    }
