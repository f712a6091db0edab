"""Clips: sounds with their labels, from sound files or the JSON/WAV form."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.data.writing import fingerprint
from magenta_nsynth.errors import InputError, NSynthError, StoreError
from magenta_nsynth.files import Source, expand, open_file
from magenta_nsynth.notes.json_wav import plan_folder
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.sound_labels import SoundLabels
from magenta_nsynth.notes.unread import UnreadNote, file_stamp
from magenta_nsynth.parallel import in_order
from magenta_nsynth.stores import remote, storage

__all__ = [
    "Clip",
    "ClipSet",
    "Clips",
    "JsonWavClips",
    "SoundClips",
    "file_name",
    "read_list",
]

_SAMPLES_AHEAD = 64 * 64_000  # read before they are asked for

File = TypeVar("File", Source, UnreadNote)


class Clip(NamedTuple):
    """A sound and its labels.

    Attributes:
      where: its file, and its record in a TFRecord, for messages.
      audio: [t] float32 at 16 kHz.
      labels: the known fields of `schema.Note`; "note_str" is its id.
      name: for files made from it, without an extension: a path below the output
        folder.
    """

    where: str
    audio: np.ndarray
    labels: dict[str, Any]
    name: str


class ClipSet(NamedTuple):
    """The clips of one set of files, such as the shards of a TFRecord.

    Attributes:
      path: the first file.
      name: for a file made from all of them, without an extension.
      numbers: int64 [n], the clips' numbers, ascending.
    """

    path: str
    name: str
    numbers: np.ndarray


class Clips(Protocol):
    """Clips by number from 0, in an order that is always the same.

    Attributes:
      num_clips: how many there are, including those that can't be read.
      files: the file of each clip; empty if clips have no files of their own.
      sets: the sets of files of a dataset; empty for separate sounds.
      lost: a message for each part of the input that could not even be counted.
      identity: which clips these are, as JSON values.
    """

    num_clips: int
    files: Sequence[Source]
    sets: Sequence[ClipSet]
    lost: list[str]
    identity: dict[str, Any]

    def fingerprint(self, first: int, end: int) -> str:
        """A text that changes when one of the clips from `first` to `end` - 1 does."""
        ...

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """Reads clips, ahead of what is asked for.

        Args:
          numbers: int64 [n], ascending.
          sample_length: cuts each clip to this many samples; 0 takes all.
          quiet: does not log which records of a TFRecord are cut.

        Yields:
          For each number, the clip, or an error that says where it is and why it can't
          be used.
        """
        ...


def file_name(name: str) -> str:
    """A note's id as a file name: ids may contain slashes."""
    return name.replace("/", "_").replace("\\", "_").replace("\0", "_")


class SoundClips:
    """A clip per sound file. Its id is the file's path below the folder given."""

    def __init__(
        self, sources: Sequence[Source], rules: NameRules | None = None
    ) -> None:
        """Reads the labels from the files' names; reads no audio.

        Args:
          sources: from `find_sources` or `read_list`.
          rules: how pitches are read from names; None is the default.

        Raises:
          InputError: two files have the same id.
        """
        self.files = sources
        self._look = remote.listing()
        self.sets: Sequence[ClipSet] = ()
        self.labels = SoundLabels(sources, rules)
        self.num_clips = len(sources)
        self.lost: list[str] = []
        ids: dict[str, str] = {}
        for source in sources:
            other = ids.setdefault(_sound_id(source), source.path)
            if other != source.path:
                in_two_folders = os.path.dirname(other) != os.path.dirname(source.path)
                also = ", or give the folder above them with --recursive"
                raise InputError(
                    f"{other} and {source.path} would both have the id "
                    f"{_sound_id(source)}; rename one{also * in_two_folders}."
                )
        self.identity: dict[str, Any] = {"kind": "audio", "ids": fingerprint(ids)}
        if rules not in (None, NameRules()):
            self.identity["names"] = dataclasses.asdict(rules)

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`, from sizes and dates."""
        files = self.files[first:end]
        return fingerprint(file_stamp(source.path, self._look) for source in files)

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        del quiet  # nothing is logged about files that are cut
        sources = (self.files[number] for number in numbers)
        return _read_files(sources, sample_length, self._clip, self._look)

    def _clip(self, source: Source, audio: np.ndarray) -> Clip:
        labels = {**self.labels.of(source).fields, "note_str": _sound_id(source)}
        name = storage.join(source.mirrored, source.stem)
        return Clip(source.path, audio, labels, name)


class JsonWavClips:
    """The notes of NSynth's JSON/WAV form, a folder with examples.json and audio/."""

    def __init__(self, folder: str, skip_corrupt: bool = False) -> None:
        """Reads examples.json.

        Args:
          folder: the folder.
          skip_corrupt: leaves out WAV files that it does not name.

        Raises:
          InputError: it can't be used; or, without skip_corrupt, a WAV file has no
            entry.
        """
        self._notes, self.lost = plan_folder(folder)
        self._look = remote.listing()
        if self.lost and not skip_corrupt:
            raise InputError(
                f"{self.lost[0]} Remove it, or leave it out with --skip_corrupt."
            )
        self.num_clips = len(self._notes)
        self.files: Sequence[Source] = [Source(note.path, "") for note in self._notes]
        name = os.path.basename(storage.abspath(folder))
        self.sets: Sequence[ClipSet] = [
            ClipSet(folder, name, np.arange(self.num_clips))
        ]
        ids = fingerprint(unread.note.note_str for unread in self._notes)
        self.identity: dict[str, Any] = {"kind": "jsonwav", "ids": ids}

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`, from labels, sizes and dates."""
        return fingerprint(
            (unread.note, unread.stamp, unread.problem)
            for unread in self._notes[first:end]
        )

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        del quiet  # nothing is logged about files that are cut
        notes = (self._notes[number] for number in numbers)
        return _read_files(notes, sample_length, _json_wav_clip, self._look)


def _json_wav_clip(unread: UnreadNote, audio: np.ndarray) -> Clip:
    name = file_name(unread.note.note_str)
    return Clip(unread.path, audio, vars(unread.note), name)


def _sound_id(source: Source) -> str:
    """A sound's id: its path below the folder that was given, without extension."""
    return "/".join([*source.subfolder.split(os.sep), source.stem]).lstrip("/")


def _read_files(
    files: Iterable[File],
    sample_length: int,
    clip: Callable[[File, np.ndarray], Clip],
    look: remote.Look,
) -> Iterator[Clip | NSynthError]:
    """Reads sound files, several at a time and ahead of what is asked for.

    Args:
      files: the files, or notes of which a problem may be known already.
      sample_length: cuts each to this many samples; 0 takes all.
      clip: makes the clip from a file and its audio, [t] float32.
      look: how a store is asked for the files' sizes.

    Yields:
      For each file, the clip, or why it can't be read.
    """
    for file, audio in in_order(
        lambda file: read_audio(file.path, sample_length),
        files,
        os.cpu_count() or 1,
        cost=lambda file: _most_samples(file.path, sample_length, look),
        skip=lambda file: file.problem if isinstance(file, UnreadNote) else "",
        most_samples=_SAMPLES_AHEAD,
    ):
        yield audio if isinstance(audio, NSynthError) else clip(file, audio)


def _most_samples(path: str, sample_length: int, look: remote.Look) -> int:
    try:  # a compressed sample may take less than a byte
        size = storage.getsize(path, look)
    except StoreError:
        raise
    except (OSError, ValueError):
        return 0
    return min(2 * size, sample_length) if sample_length else 2 * size


def read_list(path: str | os.PathLike) -> list[Source]:
    """The sounds that a text file lists, one per line.

    A relative path starts at the list's own folder; without its extension, it is the
    sound's id. Empty lines and duplicates are ignored.

    Raises:
      InputError: the list can't be read, is empty, or has a line that is no sound file.
    """
    path = expand(path)
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
            lines = text.splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; give a text file with one sound per line."
        ) from None
    folder = os.path.dirname(path)
    sources: dict[str, Source] = {}  # by real path
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if storage.is_remote(line):
            line = storage.from_url(line)
        if not line.lower().endswith(AUDIO_EXTENSIONS):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not one of "
                f"{', '.join(AUDIO_EXTENSIONS)}; correct the line."
            )
        source = Source(storage.resolve(folder, line), os.path.dirname(line))
        sources.setdefault(storage.realpath(source.path), source)
    if not sources:
        raise InputError(f"{path}: names no sound file; give one per line.")
    return list(sources.values())
