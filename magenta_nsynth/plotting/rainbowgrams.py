"""Pictures of sounds and embeddings, each by one call. Needs TensorFlow."""

import dataclasses
from typing import Any

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import InputError
from magenta_nsynth.plotting.backend import Axes, matplotlib
from magenta_nsynth.plotting.options import AXES
from magenta_nsynth.plotting.panel import Panel, check_curves, draw_curves, draw_image
from magenta_nsynth.spectral import rainbowgram
from magenta_nsynth.spectral.rainbowgram import HOP_LENGTH, Rainbowgram

__all__ = [
    "color_of",
    "draw_embedding",
    "draw_rainbowgram",
    "make_panel",
    "rainbowgram_image",
]

_COLORMAP = "rainbow"  # matplotlib's, as in the original


def make_panel(
    name: str,
    audio: np.ndarray | None = None,
    encoding: np.ndarray | None = None,
    colormap: str = _COLORMAP,
    embedding_hop_length: int = 512,
    hop_length: int = HOP_LENGTH,
    sample_rate: float = SAMPLE_RATE,
    **options: Any,
) -> Panel:
    """What a figure shows of a sound, of its embedding, or of both.

    Args:
      name: of the sound.
      audio: [t] floats in [-1, 1], or None.
      encoding: [frames, channels], or None.
      colormap: one of matplotlib's.
      embedding_hop_length: samples per frame of the encoding.
      hop_length: samples between the picture's columns.
      sample_rate: of the audio, in Hz.
      **options: other options of `rainbowgram`.

    Raises:
      InputError: a shape, colour map or option that can't be used.
    """
    panel = Panel(name)
    if audio is not None:
        gram = rainbowgram(
            _checked(audio, name),
            hop_length=hop_length,
            sample_rate=sample_rate,
            **options,
        )
        panel = _pictured(name, gram, colormap, hop_length / sample_rate)
    if encoding is None:
        return panel
    return dataclasses.replace(
        panel,
        curves=check_curves(encoding, name),
        seconds_per_row=embedding_hop_length / sample_rate,
    )


def draw_rainbowgram(
    ax: Axes,
    audio: np.ndarray,
    axis: str = "none",
    colormap: str = _COLORMAP,
    hop_length: int = HOP_LENGTH,
    sample_rate: float = SAMPLE_RATE,
    **options: Any,
) -> Rainbowgram:
    """Draws the rainbowgram of a sound on a matplotlib axis.

    Args:
      ax: what to draw on. Time goes to the right in seconds, bins go up.
      audio: [t] floats in [-1, 1].
      axis: labels of the axes: "none", "notes" or "hz".
      colormap: one of matplotlib's.
      hop_length: samples between the picture's columns.
      sample_rate: of the audio, in Hz.
      **options: other options of `rainbowgram`.

    Returns:
      The numbers that were drawn.

    Raises:
      InputError: a shape, colour map or option that can't be used.
    """
    _check_axis(axis)
    name = "the audio"
    gram = rainbowgram(
        _checked(audio, name), hop_length=hop_length, sample_rate=sample_rate, **options
    )
    draw_image(ax, _pictured(name, gram, colormap, hop_length / sample_rate), axis)
    return gram


def draw_embedding(
    ax: Axes,
    encoding: np.ndarray,
    axis: str = "none",
    hop_length: int = 512,
    sample_rate: float = SAMPLE_RATE,
) -> None:
    """Draws the channels of an embedding over time on a matplotlib axis.

    Args:
      ax: what to draw on.
      encoding: [frames, channels], with at most 64 channels.
      axis: "none", or "notes" or "hz" to label seconds and values.
      hop_length: samples per frame.
      sample_rate: of the sound, in Hz.

    Raises:
      InputError: another shape, or values that aren't finite.
    """
    _check_axis(axis)
    if not hop_length > 0 or not sample_rate > 0:
        raise InputError("hop_length and sample_rate must be above 0.")
    curves = check_curves(encoding)
    panel = Panel("", curves=curves, seconds_per_row=hop_length / sample_rate)
    draw_curves(ax, panel, axis)


def rainbowgram_image(
    audio: np.ndarray, colormap: str = _COLORMAP, **options: Any
) -> np.ndarray:
    """Rainbowgrams as plain images, for TensorBoard or a web page.

    Args:
      audio: [t] or [b, t] floats in [-1, 1].
      colormap: one of matplotlib's.
      **options: of `rainbowgram`.

    Returns:
      uint8 [bins, frames, 3] or [b, bins, frames, 3]: RGB. The highest bin comes
      first, as images are stored.

    Raises:
      InputError: as `rainbowgram`, or another colour map.
    """
    name = "the audio"
    image = _colored(name, rainbowgram(_checked(audio, name), **options), colormap)
    return image[..., ::-1, :, :]


def color_of(
    magnitude: np.ndarray, phase: np.ndarray, colormap: str = _COLORMAP
) -> np.ndarray:
    """The picture of a rainbowgram.

    Args:
      magnitude: [..., bins, frames] in [0, 1]; 0 is black.
      phase: of the same shape, in [-1, 1]: the ends of the colour map.
      colormap: one of matplotlib's.

    Returns:
      uint8 [..., bins, frames, 3]: RGB, the bins in the same order.

    Raises:
      InputError: another colour map.

    Source: NSynth's rainbowgrams, which lay black with an opacity of 1 - magnitude
    over the colours; the result is the same.
    """
    if colormap not in matplotlib.colormaps:
        raise InputError(f"{colormap!r} is not one of matplotlib's colour maps.")
    colors = matplotlib.colormaps[colormap](np.clip((np.asarray(phase) + 1) / 2, 0, 1))
    shades = colors[..., :3] * np.clip(np.asarray(magnitude), 0, 1)[..., None]
    return np.round(shades * 255).astype(np.uint8)


def _pictured(
    name: str, gram: Rainbowgram, colormap: str, seconds_per_frame: float
) -> Panel:
    if len(gram.magnitude.shape) != 2:
        raise InputError(
            f"{name}: a picture shows one clip [t], not {len(gram.magnitude)}."
        )
    return Panel(
        name,
        image=_colored(name, gram, colormap),
        frequencies=gram.frequencies,
        seconds_per_frame=seconds_per_frame,
    )


def _colored(name: str, gram: Rainbowgram, colormap: str) -> np.ndarray:
    magnitude, phase = gram.magnitude.numpy(), gram.phase.numpy()
    if not (np.isfinite(magnitude).all() and np.isfinite(phase).all()):
        raise InputError(f"{name}: too loud to be drawn; scale it to [-1, 1].")
    return color_of(magnitude, phase, colormap)


def _checked(audio: Any, name: str) -> np.ndarray:
    try:
        audio = np.asarray(audio)
    except ValueError:
        audio = np.empty(0, object)  # a list of several lengths
    if audio.dtype.kind in "iu":
        raise InputError(
            f"{name}: is {audio.dtype}; divide by {2 ** (8 * audio.itemsize - 1)} for "
            "floats in [-1, 1]."
        )
    if audio.dtype.kind != "f" or not np.isfinite(audio).all():
        raise InputError(f"{name}: audio must be an array of finite floats.")
    return audio


def _check_axis(axis: str) -> None:
    if axis not in AXES:
        raise InputError(f"axis must be {', '.join(AXES)}, not {axis!r}.")
