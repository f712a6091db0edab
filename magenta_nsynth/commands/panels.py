"""The panels of figures: of each item its picture, its curves, its reconstruction."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.commands.pictured import Companions, Item
from magenta_nsynth.embeddings.arrays import load_array
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.plotting.colors import RAINBOW, colormap
from magenta_nsynth.plotting.drawing import make_panel
from magenta_nsynth.plotting.panel import Panel, check_curves

__all__ = ["PanelMaker", "Shown"]


class Shown(NamedTuple):
    """A cell of a figure: its panel, what plays there on a page, what it is called."""

    panel: Panel
    audio: np.ndarray | None
    caption: str


class PanelMaker:
    """Makes panels; what can't be made is noted, and says so in its place.

    Attributes:
      per_item: panels of an item, 2 where reconstructions go beside the originals.
    """

    def __init__(
        self,
        transform: Mapping[str, Any] | None = None,
        colors: str = RAINBOW,
        encoder: WaveNet | None = None,
        embeddings_path: str = "",
        reconstructions_path: str = "",
        sample_length: int = 0,
        keep_audio: bool = False,
    ) -> None:
        """Finds what there is.

        Args:
          transform: arguments of `rainbowgram`.
          colors: a colour map of matplotlib's.
          encoder: draws its embeddings as curves.
          embeddings_path: draws embeddings from .npy files in its place.
          reconstructions_path: where sounds are that go beside the originals.
          sample_length: of them at most so many samples are used; 0 uses all.
          keep_audio: gives each cell its sound, for a page.

        Raises:
          InputError: something that isn't there or can't be used.
        """
        colormap(colors)
        self._options: dict[str, Any] = {"colormap": colors, **(transform or {})}
        # What is wrong with the transform shows before anything is read.
        make_panel("", np.zeros(4096, np.float32), **self._options)
        self._sample_length, self._keep_audio = sample_length, keep_audio
        self._encoder, self._embeddings, self._reconstructions = encoder, None, None
        if encoder is not None:
            self._options["embedding_hop_length"] = encoder.config.ae_hop_length
        if embeddings_path:
            self._embeddings = Companions(
                embeddings_path, [".npy"], "--embeddings_path"
            )
        if reconstructions_path:
            self._reconstructions = Companions(
                reconstructions_path, AUDIO_EXTENSIONS, "--reconstructions_path"
            )
        self.per_item = 1 if self._reconstructions is None else 2
        self._failures: dict[str, list[str]] = {}

    def of(self, item: Item) -> list[Shown]:
        """The `per_item` cells of an item."""
        if self._reconstructions is None:
            return [self._cell(item.name, item.name, item.load, self._curves(item))]

        def load_again() -> tuple[np.ndarray, None]:
            return read_audio(self._reconstructions.of(item), self._sample_length), None

        def load() -> tuple[np.ndarray, None]:
            audio, _ = item.load()
            if audio is None:
                raise InputError(
                    f"{item.path}: is an embedding; give the sound that its "
                    "reconstruction goes beside."
                )
            return audio, None

        name, encode = item.name, self._encoder and self._encode
        return [
            self._cell(name, f"{name}: original", load, self._curves(item)),
            self._cell(name, f"{name}: reconstruction", load_again, encode),
        ]

    def cell(self, name: str, audio: np.ndarray, encoding: np.ndarray | None) -> Shown:
        """The cell of a sound that is at hand."""
        curves = None if encoding is None else (lambda _: encoding)
        return self._cell(name, name, lambda: (audio, None), curves)

    def _curves(self, item: Item) -> Callable[[np.ndarray], np.ndarray] | None:
        if self._embeddings is not None:
            return lambda _: load_array(self._embeddings.of(item))
        return self._encoder and self._encode

    def _encode(self, audio: np.ndarray) -> np.ndarray:
        # Whole frames, without a word: the picture shows the rest.
        num_samples = len(audio) // self._encoder.config.ae_hop_length
        num_samples *= self._encoder.config.ae_hop_length
        return self._encoder.encode(audio[: num_samples or None])

    def _cell(
        self,
        name: str,
        caption: str,
        load: Callable[[], tuple[np.ndarray | None, np.ndarray | None]],
        curves: Callable[[np.ndarray], np.ndarray] | None,
    ) -> Shown:
        try:
            audio, encoding = load()
            if audio is not None and curves is not None:
                encoding = self._curves_or_none(name, audio, curves)
            panel = make_panel(name, audio, encoding, **self._options)
        except NSynthError as error:
            return Shown(Panel(name, message=self._note(name, error)), None, caption)
        return Shown(panel, audio if self._keep_audio else None, caption)

    def _curves_or_none(
        self, name: str, audio: np.ndarray, curves: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray | None:
        """Curves; a picture without them is better than none."""
        try:
            return check_curves(curves(audio), name)
        except NSynthError as error:
            self._note(name, error)
            return None

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Notes an `NSynthError` about a sound in place of raising it."""
        try:
            yield
        except NSynthError as error:
            self._note(name, error)

    def _note(self, name: str, error: NSynthError) -> str:
        message = str(error) if name in str(error) else f"{name}: {error}"
        self._failures.setdefault(name, []).append(message)
        return message

    def report(self, num_sounds: int) -> int:
        """Logs what was noted; the exit status of a run over so many sounds."""
        for message in itertools.chain(*self._failures.values()):
            logging.error("%s", message)
        if self._failures:
            logging.error(
                "Something is missing of %d of %d sounds; the others are done.",
                *(len(self._failures), num_sounds),
            )
        return 1 if self._failures else 0
