"""The panels of figures: for each sound its picture, curves and reconstruction."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.commands.picture_options import Additions, RainbowgramOptions
from magenta_nsynth.commands.picture_sources import (
    Companions,
    Subject,
    read_embedding,
)
from magenta_nsynth.embeddings.files import Embedding
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import ARRAY_EXTENSIONS
from magenta_nsynth.plotting.panel import Panel, check_curves
from magenta_nsynth.plotting.rainbowgrams import make_panel

__all__ = ["PanelMaker"]


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
        original = self._try(name, lambda: self._original(subject))
        again = self._try(name, lambda: self._reconstruction(subject))
        return [
            dataclasses.replace(original, caption=f"{name}: original"),
            dataclasses.replace(again, caption=f"{name}: reconstruction"),
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
