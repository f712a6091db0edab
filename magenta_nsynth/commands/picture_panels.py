"""What pictures show: sounds, notes or embeddings, each with its panel."""

import contextlib
import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.commands.picture_options import Additions, RainbowgramOptions
from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.index import open_notes
from magenta_nsynth.embeddings.files import Embedding, FrameFiles
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import ARRAY_EXTENSIONS, Source, find_sources
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.dataset_clips import read_notes_as_clips
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.opening import find_sounds_or_npy, open_clips, recognise
from magenta_nsynth.options import refuse_changed
from magenta_nsynth.plotting.panel import Panel, check_curves
from magenta_nsynth.plotting.rainbowgrams import make_panel
from magenta_nsynth.stores import storage

__all__ = [
    "Companions",
    "PanelMaker",
    "Subject",
    "Subjects",
    "find_subjects",
    "read_embedding",
]


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
        own = storage.abspath(source.path or os.sep)
        for folder in (source.mirrored, ""):
            for stem in made:
                path = self._found.get((folder, stem))
                if path and storage.abspath(path) != own:
                    return path
        raise InputError(
            f"{source.path or name}: found no file for it in {self._flag}="
            f"{self._path}, such as {made[0]}.wav or {made[2]}.npy."
        )


class PanelMaker:
    """Makes panels. One that can't be made is recorded and shows the error instead.

    Attributes:
      per_subject: panels of a subject; 2 if reconstructions stand beside originals.
    """

    def __init__(
        self,
        options: RainbowgramOptions,
        additions: Additions,
        model: WaveNet | None = None,
        sample_length: int = 0,
        keep_audio: bool = False,
    ) -> None:
        """Finds the files that belong to the sounds.

        Args:
          options: how sounds are drawn.
          additions: which embeddings and reconstructions are drawn; sounds that are
            generated have to be in its `reconstructions_path`.
          model: computes embeddings, if `additions` asks for it.
          sample_length: cuts reconstructions to this many samples; 0 uses all.
          keep_audio: gives each panel its sound, for a page.

        Raises:
          InputError: missing files, or options that can't be used.
        """
        self._options = dataclasses.asdict(options)
        # Wrong options are found before anything is read.
        make_panel("", np.zeros(4096, np.float32), **self._options)
        self._model = model if additions.encodes else None
        if model is not None:
            self._options["embedding_hop_length"] = model.config.ae_hop_length
        self._embeddings = self._reconstructions = None
        if path := additions.embeddings_path:
            self._embeddings = Companions(path, ARRAY_EXTENSIONS, "--embeddings_path")
        if path := additions.reconstructions_path:
            flag = "--reconstructions_path"
            self._reconstructions = Companions(path, AUDIO_EXTENSIONS, flag)
        self._sample_length, self._keep_audio = sample_length, keep_audio
        self.per_subject = 1 if self._reconstructions is None else 2
        self._failures: list[tuple[str, str]] = []  # names and messages

    def of(self, subject: Subject) -> list[Panel]:
        """The panels of a subject, `per_subject` of them."""
        name = subject.name
        if self._reconstructions is None:
            return [self._try(name, lambda: self._original(subject))]
        return [
            self._try(name, lambda: self._original(subject)),
            self._try(name, lambda: self._reconstruction(subject)),
        ]

    def sound(
        self, name: str, audio: np.ndarray, rows: np.ndarray | None = None
    ) -> Panel:
        """The panel of a sound that is there already.

        Args:
          name: of the sound.
          audio: [t] float32.
          rows: its embedding, which is drawn if embeddings are computed; None computes
            it.
        """

        def find_rows() -> np.ndarray | None:
            if self._model is None:
                return None
            return self._encode(audio) if rows is None else rows

        return self._try(
            name, lambda: self._panel(name, audio, self._rows(name, find_rows))
        )

    def _original(self, subject: Subject) -> Panel:
        loaded = subject.load()
        if not isinstance(loaded, Embedding):
            rows = self._rows(
                subject.name, lambda: self._find_rows(subject, loaded.audio)
            )
            return self._panel(subject.name, loaded.audio, rows)
        if self._reconstructions is not None:
            raise InputError(
                f"{subject.source.path}: is an embedding, and has no picture to stand "
                "beside the reconstruction; give the sound."
            )
        return self._panel(subject.name, None, loaded.rows)

    def _reconstruction(self, subject: Subject) -> Panel:
        assert self._reconstructions is not None
        audio = read_audio(self._reconstructions.of(subject), self._sample_length)
        rows = self._rows(subject.name, lambda: self._encode(audio))
        return self._panel(subject.name, audio, rows)

    def _panel(
        self, name: str, audio: np.ndarray | None, rows: np.ndarray | None
    ) -> Panel:
        panel = make_panel(name, audio, rows, **self._options)
        return dataclasses.replace(panel, audio=audio) if self._keep_audio else panel

    def _find_rows(self, subject: Subject, audio: np.ndarray) -> np.ndarray | None:
        if self._embeddings is not None:
            return read_embedding(self._embeddings.of(subject), subject.name).rows
        return self._encode(audio)

    def _encode(self, audio: np.ndarray) -> np.ndarray | None:
        if self._model is None:
            return None
        # Whole frames, without a message about the rest: the picture shows it.
        hop_length = self._model.config.ae_hop_length
        num_samples = len(audio) // hop_length * hop_length
        clip = self._model.check_clip(audio[: num_samples or None], "the audio")
        return self._model.encode_prepared([self._model.prepare(clip)])[0]

    def _rows(
        self, name: str, find: Callable[[], np.ndarray | None]
    ) -> np.ndarray | None:
        """An embedding to draw; a picture without curves is better than none."""
        with self.noting(name):
            rows = find()
            return None if rows is None else check_curves(rows, name)
        return None

    def _try(self, name: str, make: Callable[[], Panel]) -> Panel:
        try:
            return make()
        except NSynthError as error:
            return Panel(name, message=self._note(name, error))

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Records an `NSynthError` about a sound instead of raising it."""
        try:
            yield
        except NSynthError as error:
            self._note(name, error)

    def _note(self, name: str, error: NSynthError) -> str:
        message = str(error) if name in str(error) else f"{name}: {error}"
        self._failures.append((name, message))
        return message

    def report(self, num_sounds: int) -> int:
        """Logs what failed; the exit status of a run over so many sounds."""
        for _, message in self._failures:
            logging.error("%s", message)
        names = {name for name, _ in self._failures}
        if names:
            logging.error(
                "Something is missing of %d of %d sounds; the others are done.",
                *(len(names), num_sounds),
            )
        return 1 if names else 0
