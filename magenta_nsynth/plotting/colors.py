"""Which colour a number has."""

import difflib

import matplotlib
import numpy as np
from matplotlib.colors import Colormap

from magenta_nsynth.errors import InputError

__all__ = ["RAINBOW", "color_of", "colormap", "curve_colors"]

RAINBOW = "rainbow"  # matplotlib's, as in the original


def colormap(name: str) -> Colormap:
    """One of matplotlib's colour maps.

    Raises:
      InputError: there is none of that name.
    """
    if name not in matplotlib.colormaps:
        like = difflib.get_close_matches(name, list(matplotlib.colormaps), 3)
        hint = f" Near it: {', '.join(like)}." if like else ""
        raise InputError(
            f"{name!r} is not a colour map of matplotlib's; take {RAINBOW}, hsv, "
            f"twilight or another.{hint}"
        )
    return matplotlib.colormaps[name]


def color_of(
    magnitude: np.ndarray, phase: np.ndarray, colormap_name: str = RAINBOW
) -> np.ndarray:
    """The picture of a rainbowgram.

    Args:
      magnitude: [..., bins, frames] in [0, 1]; 0 is black.
      phase: of the same shape, in [-1, 1]: the ends of the colour map.
      colormap_name: one of matplotlib's.

    Returns:
      uint8 [..., bins, frames, 3]: RGB. Low bins first, as they came.

    Raises:
      InputError: another colour map.

    Source: NSynth's rainbowgrams, which lay black of opacity 1 - magnitude over the
    colours; this is what is seen then.
    """
    colors = colormap(colormap_name)(np.clip((np.asarray(phase) + 1) / 2, 0, 1))
    shades = colors[..., :3] * np.clip(np.asarray(magnitude), 0, 1)[..., None]
    return np.round(shades * 255).astype(np.uint8)


def curve_colors(num_channels: int) -> np.ndarray:
    """[num_channels, 4] RGBA: a colour for each channel of an embedding."""
    if num_channels <= 20:
        return matplotlib.colormaps["tab20"](np.arange(num_channels))
    return matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, num_channels))
