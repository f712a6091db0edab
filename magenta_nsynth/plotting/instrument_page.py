"""The page that plays an instrument: one file, which needs no server and no network."""

import base64
import dataclasses
import html
import importlib.resources
import io
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from magenta_nsynth.formatting import readable
from magenta_nsynth.plotting.backend import imsave

__all__ = ["PagePoint", "PageSound", "instrument_page"]

_QUALITY = 80  # of the pictures, which are JPEG


@dataclasses.dataclass(frozen=True)
class PageSound:
    """A sound of the page.

    Attributes:
      pitch: its MIDI pitch.
      wav: a WAV file.
      tune: the cents to play it higher.
      loop: the seconds of the start and the end of what is repeated, or None.
      seconds: its length.
      picture: uint8 [bins, frames, 3], the highest bin first.
    """

    pitch: int
    wav: bytes
    tune: float
    loop: tuple[float, float] | None
    seconds: float
    picture: np.ndarray


@dataclasses.dataclass(frozen=True)
class PagePoint:
    """A point of the pad.

    Attributes:
      x: from the left, 0 to 1.
      y: from the top, 0 to 1.
      weights: of the sources.
      sounds: the number of the sound for each of the page's pitches.
    """

    x: float
    y: float
    weights: Sequence[float]
    sounds: Sequence[int]


def instrument_page(
    names: Sequence[str],
    pitches: Sequence[int],
    points: Sequence[PagePoint],
    sounds: Sequence[PageSound],
    controllers: Mapping[str, int],
) -> str:
    """The text of the page.

    Args:
      names: of the sources.
      pitches: ascending.
      points: row by row, from the top left.
      sounds: each sound once.
      controllers: the MIDI controllers "across" and "down".
    """
    shown = [readable(name).replace("_", " ") for name in names]
    data = {
        "names": shown,
        "pitches": list(pitches),
        "points": [dataclasses.asdict(point) for point in points],
        "sounds": [_sound(sound) for sound in sounds],
        "controllers": dict(controllers),
    }
    folder = importlib.resources.files(__package__)
    template = (folder / "instrument.html").read_text(encoding="utf-8")
    # "<" could end the script that holds the data.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return string.Template(template).substitute(
        title=html.escape(" \u00d7 ".join(shown)),
        data=text,
        script=(folder / "instrument.js").read_text(encoding="utf-8"),
    )


def _sound(sound: PageSound) -> dict[str, Any]:
    return {
        "pitch": sound.pitch,
        "tune": sound.tune,
        "loop": sound.loop,
        "seconds": sound.seconds,
        "wav": base64.b64encode(sound.wav).decode("ascii"),
        "picture": base64.b64encode(_jpeg(sound.picture)).decode("ascii"),
    }


def _jpeg(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    imsave(content, picture, format="jpg", pil_kwargs={"quality": _QUALITY})
    return content.getvalue()
