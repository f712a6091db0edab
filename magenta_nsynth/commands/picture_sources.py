"""What pictures are drawn of: sounds, notes of TFRecords and embeddings, in order."""

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from magenta_nsynth.audio import read_audio
from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.index import open_notes
from magenta_nsynth.embeddings.files import Embedding, FrameFiles
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import Source, find_sources
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.opening import find_sounds_or_npy, open_clips, recognise
from magenta_nsynth.notes.record_clips import read_notes_as_clips
from magenta_nsynth.options import refuse_changed

__all__ = ["Companions", "Subject", "Subjects", "find_subjects", "read_embedding"]


class Subject(NamedTuple):
    """What one picture is drawn of.

    Attributes:
      name: a file's name without its extension, or a note's id.
      source: the file; its path is "" for a note of a TFRecord.
      load: reads it; raises an `NSynthError` if that fails.
    """

    name: str
    source: Source
    load: Callable[[], Clip | Embedding]

    def load_sound(self) -> Clip:
        """Loads what has to be a sound; raises InputError for an embedding."""
        loaded = self.load()
        if isinstance(loaded, Embedding):
            raise InputError(f"{self.source.path}: is an embedding; give the sound.")
        return loaded


class Subjects(NamedTuple):
    """The subjects of pictures.

    Attributes:
      number: how many there are.
      subjects: those of files; notes can be read only once, in order.
      are_files: whether each is a file of its own.
    """

    number: int
    subjects: Iterable[Subject]
    are_files: bool


def find_subjects(
    inputs: Inputs, note_filter: NoteFilter, left_out: Sequence[str] = ()
) -> Subjects:
    """For each path its sounds or the notes of its TFRecords, else its .npy files.

    Args:
      inputs: what to read.
      note_filter: which notes of TFRecords to read.
      left_out: folders that are not descended into.

    Raises:
      InputError: nothing there, several kinds, or a TFRecord that can't be used.
    """
    kind, paths = recognise(inputs)
    if kind == "tfrecord":
        refuse_changed(
            inputs,
            "is for folders of sounds; leave it out. TFRecords are found by a quoted "
            "glob, such as 'data/**/*.tfrecord*'.",
            "recursive",
        )
        return _notes(paths, inputs, note_filter)
    if inputs.skip_corrupt or note_filter.features:
        raise InputError(
            "--skip_corrupt and the options that select notes are for TFRecords; leave "
            "them out."
        )
    if kind == "audio":
        sources: Sequence[Source] = find_sounds_or_npy(inputs, left_out)
    else:
        sources = open_clips(inputs).files
        if not sources:
            raise InputError(f"{paths[0]}: give sound files, TFRecords or .npy files.")
    if inputs.limit:
        sources = sources[: inputs.limit]
    subjects = [_subject(source, inputs.sample_length) for source in sources]
    return Subjects(len(subjects), subjects, are_files=True)


def _subject(source: Source, sample_length: int) -> Subject:
    def load_sound() -> Clip:
        audio = read_audio(source.path, sample_length)
        return Clip(source.path, audio, {}, source.stem)

    if source.is_npy:
        name = source.stem.removesuffix("_embeddings")
        return Subject(name, source, lambda: read_embedding(source.path, name))
    return Subject(source.stem, source, load_sound)


def read_embedding(path: str, name: str) -> Embedding:
    """The embedding of a .npy file, [frames, channels] of any number of channels.

    Raises:
      InputError: it can't be read, or is not of that form.
    """
    [embedding] = FrameFiles(WaveNetConfig(), None).read(path, name, 0)
    return embedding


def _same(clip: Clip) -> Clip:
    return clip


def _notes(paths: list[str], inputs: Inputs, note_filter: NoteFilter) -> Subjects:
    chosen = note_filter if note_filter.features else None
    index = open_notes(paths, chosen, inputs.skip_corrupt)
    clips: Iterable[Clip] = read_notes_as_clips(
        index, Demand(("audio",)), ("note_str",), inputs.sample_length, quiet=True
    )
    count = index.num_notes
    if inputs.limit:
        clips, count = itertools.islice(clips, inputs.limit), min(count, inputs.limit)

    def subjects() -> Iterator[Subject]:
        for clip in clips:
            name = clip.labels["note_str"].encode("utf-8", "surrogateescape")
            # Characters that can't be in the name of a file.
            name = re.sub(r"[/\\\0]", "_", name.decode("utf-8", "replace"))
            yield Subject(name, Source("", ""), functools.partial(_same, clip))

    return Subjects(count, subjects(), are_files=False)


class Companions:
    """Files that belong to sounds by their names: embeddings or reconstructions.

    Args:
      path: a file, folder or glob; the folders below it are searched too.
      extensions: of the files.
      flag: the option that named the path, for messages.
    """

    def __init__(
        self, path: str | os.PathLike, extensions: Sequence[str], flag: str
    ) -> None:
        self._path, self._flag = path, flag
        self._found: dict[tuple[str, str], str] = {}
        for source in find_sources([path], extensions, recursive=True, quiet=True):
            self._found.setdefault((source.subfolder, source.stem), source.path)

    def of(self, subject: Subject) -> str:
        """The path of a subject's companion.

        Raises:
          InputError: there is none.
        """
        name, source = subject.name, subject.source
        # What the tools write for a sound is preferred to a file of the same name.
        made = (f"gen_{name}", f"gen_{name}_embeddings", f"{name}_embeddings", name)
        own = os.path.abspath(source.path or os.sep)
        for folder in (source.mirrored, ""):
            for stem in made:
                path = self._found.get((folder, stem))
                if path and os.path.abspath(path) != own:
                    return path
        raise InputError(
            f"{source.path or name}: found no file for it in {self._flag}="
            f"{self._path}, such as {made[0]}.wav or {made[2]}.npy."
        )
