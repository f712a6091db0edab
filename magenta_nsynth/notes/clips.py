"""Sounds with what is known of them, from files: what is encoded note by note."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.data.writing import fingerprint
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source, expand, open_file
from magenta_nsynth.notes.json_wav import plan_folder
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.sound_labels import SoundLabels
from magenta_nsynth.notes.unread import UnreadNote, in_order, stat_print

__all__ = [
    "Clip",
    "ClipSet",
    "Clips",
    "JsonWavClips",
    "SoundClips",
    "file_name",
    "load_clips",
    "read_list",
]

_SAMPLES_AHEAD = 64 * 64_000  # of files that are read before they are asked for


class Clip(NamedTuple):
    """A sound, and what is known of its note.

    Attributes:
      where: its file, and in a TFRecord its record, for messages.
      audio: [t] float32 at 16 kHz.
      labels: those fields of `schema.Note` that are known; "note_str" is its id.
      name: of files that are made of it, without an extension: a path below the folder
        that they go to.
    """

    where: str
    audio: np.ndarray
    labels: dict[str, Any]
    name: str


class ClipSet(NamedTuple):
    """Clips that lie in one set of files, such as the shards of TFRecords.

    Attributes:
      path: of the first file.
      name: of a file that is made of all of them, without an extension.
      numbers: of the clips, int64 [n], ascending.
    """

    path: str
    name: str
    numbers: np.ndarray


class Clips(Protocol):
    """Clips by number, from 0 on, in an order that is the same every time.

    Attributes:
      num_clips: how many there are, including those that can't be read.
      files: the file of each clip; empty where they are not files of their own.
      sets: of the notes of data sets, the sets that they lie in.
      lost: what could not even be counted, a line each.
      identity: which clips these are, as JSON values.
    """

    num_clips: int
    files: Sequence[Source]
    sets: Sequence[ClipSet]
    lost: list[str]
    identity: dict[str, Any]

    def fingerprint(self, first: int, end: int) -> str:
        """What changes when one of the clips from `first` to `end` - 1 does."""
        ...

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """Reads clips, ahead of what is asked for.

        Args:
          numbers: int64 [n], ascending.
          sample_length: cuts each to this many samples; 0 takes all.
          quiet: does not log what is cut.

        Yields:
          For each number the clip, or the error that says where it lies and why it
          can't be used.
        """
        ...


def file_name(name: str) -> str:
    """A note's id as a file's name: ids may hold slashes."""
    return name.replace("/", "_").replace("\\", "_").replace("\0", "_")


class SoundClips:
    """A clip per sound file; its id is the file's place below the folder given."""

    def __init__(
        self, sources: Sequence[Source], rules: NameRules | None = None
    ) -> None:
        """Looks at the files' names.

        Args:
          sources: of `find_sources` or `read_list`.
          rules: how pitches are read from names; None is by default.

        Raises:
          InputError: two files with one id.
        """
        self.files = sources
        self.sets: list[ClipSet] = []
        self.labels = SoundLabels(sources, rules)
        self.num_clips = len(sources)
        self.lost: list[str] = []
        ids: dict[str, str] = {}
        for source in sources:
            other = ids.setdefault(sound_id(source), source.path)
            if other != source.path:
                in_two_folders = os.path.dirname(other) != os.path.dirname(source.path)
                also = ", or give the folder above them with --recursive"
                raise InputError(
                    f"{other} and {source.path} would both have the id "
                    f"{sound_id(source)}; rename one{also * in_two_folders}."
                )
        self.identity = {"kind": "audio", "ids": fingerprint(ids)}
        if rules not in (None, NameRules()):
            self.identity["names"] = dataclasses.asdict(rules)

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`: of sizes and dates."""
        return fingerprint(stat_print(s.path) for s in self.files[first:end])

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        del quiet  # nothing is said of files that are cut
        sources = (self.files[number] for number in numbers)
        for source, audio in load_clips(sources, sample_length):
            if isinstance(audio, NSynthError):
                yield audio
            else:
                labels = {
                    **self.labels.of(source).fields,
                    "note_str": sound_id(source),
                }
                name = os.path.join(source.subfolder, source.stem)
                yield Clip(source.path, audio, labels, name)


class JsonWavClips:
    """The notes of NSynth's JSON/WAV form, a folder with examples.json and audio/."""

    def __init__(self, folder: str, skip_corrupt: bool = False) -> None:
        """Reads examples.json.

        Args:
          folder: the folder.
          skip_corrupt: leaves out WAV files that it does not name.

        Raises:
          InputError: it can't be used; without skip_corrupt, a WAV file without entry.
        """
        self._items, self.lost = plan_folder(folder)
        if self.lost and not skip_corrupt:
            raise InputError(
                f"{self.lost[0]} Remove it, or leave it out by --skip_corrupt."
            )
        self.num_clips = len(self._items)
        self.files = [Source(item.path, "") for item in self._items]
        name = os.path.basename(os.path.abspath(folder))
        self.sets = [ClipSet(folder, name, np.arange(self.num_clips))]
        ids = fingerprint(item.note.note_str for item in self._items)
        self.identity = {"kind": "jsonwav", "ids": ids}

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`: of labels, sizes and dates."""
        items = self._items[first:end]
        return fingerprint((i.note, stat_print(i.path), i.problem) for i in items)

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        del quiet  # nothing is said of files that are cut
        items = (self._items[number] for number in numbers)
        for item, audio in load_clips(items, sample_length):
            if isinstance(audio, NSynthError):
                yield audio
            else:
                name = file_name(item.note.note_str)
                yield Clip(item.path, audio, vars(item.note), name)


def sound_id(source: Source) -> str:
    """A sound's id: its path below the folder that was given, without extension."""
    return "/".join([*source.subfolder.split(os.sep), source.stem]).lstrip("/")


def load_clips(
    files: Iterable[Source | UnreadNote], sample_length: int
) -> Iterator[tuple[Any, np.ndarray | NSynthError]]:
    """Reads sound files, several at a time and ahead of what is asked for.

    Args:
      files: what has a `path`, and may have a `problem` that is known already.
      sample_length: cuts each to so many samples; 0 takes all.

    Yields:
      (file, its audio [t] float32 or why it can't be read), in order.
    """
    return in_order(
        lambda file: read_audio(file.path, sample_length),
        files,
        os.cpu_count() or 1,
        cost=lambda file: _most_samples(file.path, sample_length),
        skip=lambda file: getattr(file, "problem", ""),
        most_samples=_SAMPLES_AHEAD,
    )


def _most_samples(path: str, sample_length: int) -> int:
    try:
        size = os.path.getsize(path)  # a compressed sample may take less than a byte
    except (OSError, ValueError):
        return 0
    return min(2 * size, sample_length) if sample_length else 2 * size


def read_list(path: str | os.PathLike) -> list[Source]:
    """The sounds that a text file lists, one a line.

    A relative path is one from the list's own folder, and is, without its extension,
    the sound's id. Empty lines are passed over, and so is a file that was listed above.

    Raises:
      InputError: it can't be read, lists nothing, or a line that is no sound file.
    """
    path = expand(path)
    try:
        with open_file(path) as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
            lines = text.splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; give a text file that names a sound a line."
        ) from None
    folder = os.path.dirname(path)
    sources: dict[str, Source] = {}  # by the file's one path
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not line.lower().endswith(AUDIO_EXTENSIONS):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not one of "
                f"{', '.join(AUDIO_EXTENSIONS)}; mend the line."
            )
        source = Source(os.path.join(folder, line), os.path.dirname(line))
        sources.setdefault(os.path.realpath(source.path), source)
    if not sources:
        raise InputError(f"{path}: names no sound file; give one a line.")
    return list(sources.values())
