"""From audio to pictures: one call each."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import InputError
from magenta_nsynth.plotting import axes
from magenta_nsynth.plotting.colors import RAINBOW, color_of
from magenta_nsynth.plotting.panel import Panel, check_curves
from magenta_nsynth.spectral import rainbowgram
from magenta_nsynth.spectral.rainbowgram import HOP_LENGTH, Rainbowgram

__all__ = ["draw_embedding", "draw_rainbowgram", "make_panel", "rainbowgram_image"]


def make_panel(
    name: str,
    audio: np.ndarray | None = None,
    encoding: np.ndarray | None = None,
    colormap: str = RAINBOW,
    embedding_hop_length: int = 512,
    **options: Any,
) -> Panel:
    """What a figure shows of a sound, of its embedding, or of both.

    Args:
      name: of the sound.
      audio: [t] floats in [-1, 1], or None.
      encoding: [frames, channels], or None.
      colormap: one of matplotlib's.
      embedding_hop_length: samples per frame of the encoding.
      **options: of `rainbowgram`.

    Raises:
      InputError: a shape, colour map or option that can't be used.
    """
    panel = Panel(name)
    if audio is not None:
        gram = rainbowgram(_checked(audio, name), **options)
        panel = _pictured(name, gram, colormap, options)
    if encoding is None:
        return panel
    rate = options.get("sample_rate", SAMPLE_RATE)
    return dataclasses.replace(
        panel,
        curves=check_curves(encoding, name),
        seconds_per_row=embedding_hop_length / rate,
    )


def draw_rainbowgram(
    ax: Axes,
    audio: np.ndarray,
    axis: str = "none",
    colormap: str = RAINBOW,
    **options: Any,
) -> Rainbowgram:
    """Draws the rainbowgram of a sound on a matplotlib axis.

    Args:
      ax: what to draw on. Seconds go to the right, bins up.
      audio: [t] floats in [-1, 1].
      axis: beside the picture: "none", "notes" or "hz".
      colormap: one of matplotlib's.
      **options: of `rainbowgram`.

    Returns:
      The numbers that were drawn.

    Raises:
      InputError: a shape, colour map or option that can't be used.
    """
    _check_axis(axis)
    gram = rainbowgram(_checked(audio, "the audio"), **options)
    axes.draw_image(ax, _pictured("the audio", gram, colormap, options), axis)
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
      encoding: [frames, channels], of 64 channels at most.
      axis: "none", or another of `draw_rainbowgram`'s to have seconds and values.
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
    axes.draw_curves(ax, panel, axis)


def rainbowgram_image(
    audio: np.ndarray, colormap: str = RAINBOW, **options: Any
) -> np.ndarray:
    """Rainbowgrams as plain images, for TensorBoard or a web page.

    Args:
      audio: [t] or [b, t] floats in [-1, 1].
      colormap: one of matplotlib's.
      **options: of `rainbowgram`.

    Returns:
      uint8 [bins, frames, 3] or [b, bins, frames, 3]: RGB, the highest bin first, as
      images are kept.

    Raises:
      InputError: as `rainbowgram`, or another colour map.
    """
    gram = rainbowgram(_checked(audio, "the audio"), **options)
    image = _colored("the audio", gram, colormap)
    return image[..., ::-1, :, :]


def _pictured(
    name: str, gram: Rainbowgram, colormap: str, options: dict[str, Any]
) -> Panel:
    if len(gram.magnitude.shape) != 2:
        raise InputError(
            f"{name}: a picture is of one clip [t], not of {len(gram.magnitude)}."
        )
    hop_length = options.get("hop_length", HOP_LENGTH)
    return Panel(
        name,
        image=_colored(name, gram, colormap),
        frequencies=gram.frequencies,
        seconds_per_frame=hop_length / options.get("sample_rate", SAMPLE_RATE),
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
    if axis not in axes.AXES:
        raise InputError(f"axis must be {', '.join(axes.AXES)}, not {axis!r}.")
