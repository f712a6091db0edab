"""Matplotlib, which the other modules import from here, and its settings."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

from magenta_nsynth.errors import InputError


@contextlib.contextmanager
def _whatever_the_backend() -> Iterator[None]:
    """Lets matplotlib be imported in the block, whatever MPLBACKEND says.

    The import fails if that names a backend which is not installed, and every notebook
    passes its own on to the commands that it starts. Figures need no backend. One that
    is installed stays the backend of pyplot.
    """
    if "matplotlib" in sys.modules:
        yield
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            sys.modules["matplotlib"].rcParams["backend"] = backend


with _whatever_the_backend():
    import matplotlib
    import matplotlib.style
    from matplotlib import font_manager
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imsave
    from matplotlib.textpath import text_to_path
    from matplotlib.ticker import MaxNLocator

__all__ = [
    "Axes",
    "Figure",
    "FigureCanvasAgg",
    "MaxNLocator",
    "font_manager",
    "imsave",
    "matplotlib",
    "plain_style",
    "text_to_path",
]

_DEFAULT_FONT = "DejaVu Sans"  # comes with matplotlib


@contextlib.contextmanager
def plain_style(font: str = "") -> Iterator[None]:
    """Uses matplotlib's defaults in the block, whatever the user's settings are.

    Args:
      font: a font family, or "" for matplotlib's own.

    Raises:
      InputError: the font is not installed.
    """
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    if font and font not in installed | font_manager.font_family_aliases:
        raise InputError(f"No font {font!r} is installed; give another --font.")
    # Characters that a font lacks are taken from the next family.
    wide = sorted(name for name in installed if "CJK" in name or "Unicode" in name)
    families = [name for name in (font, _DEFAULT_FONT, *wide[:3]) if name]
    with matplotlib.style.context("default"), warnings.catch_warnings():
        # If no font has a character, the figure shows a box.
        warnings.filterwarnings("ignore", "Glyph")
        matplotlib.rcParams["font.family"] = families
        matplotlib.rcParams["text.parse_math"] = False  # a "$" in a name is just that
        matplotlib.rcParams["svg.hashsalt"] = "nsynth"  # makes files reproducible
        yield
