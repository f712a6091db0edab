"""Where everything in a figure is, and its labels broken into lines that fit."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from magenta_nsynth.errors import InputError
from magenta_nsynth.formatting import readable
from magenta_nsynth.plotting.backend import font_manager, matplotlib, text_to_path
from magenta_nsynth.plotting.options import Look
from magenta_nsynth.plotting.panel import Panel, value_limits

__all__ = ["Labels", "Layout", "fit_labels", "lay_out"]

# Inches, except for shares of a picture's height.
_SECONDS_PER_SQUARE = 4.0  # a note's picture is square; a longer one is wider
_NARROWEST, _WIDEST = 0.5, 6.0  # share
_CURVES = 0.45  # share
_MARGIN, _GAP, _SMALL_GAP = 0.1, 0.08, 0.04
_TICKS_LEFT, _TICKS_BELOW, _TICKS_RIGHT = 0.3, 0.2, 0.15
_LINE = 1.3 / 72  # the height of a line, per point of its size
_LEAST_HEIGHT = 0.3
_MOST_PIXELS = 30_000  # of a side; matplotlib's own limit is 65,536

_LEAST_SIZE, _LEAST_SHARE = 5.0, 0.75  # in points; of the intended size
_POINTS = 72.0  # per inch


class Labels(NamedTuple):
    """Labels of one kind: their text, their size in points, the height they take."""

    texts: list[str]
    size: float
    room: float


class Layout(NamedTuple):
    """The measures of a figure, in inches from its upper left corner.

    Attributes:
      width: of the figure.
      height: of the figure.
      left: of the first cell.
      top: of the first cell.
      step: from one cell to the next, (right, down).
      cell_width: of a picture.
      picture: the height of a picture; 0 if there is none.
      curves: the height of the curves; 0 if there are none.
      curves_top: where the curves start, below the top of the picture.
      seconds: (first, last) of the common time scale.
      values: (lowest, highest) of all curves.
      heading: the title of the figure.
      titles: above the pictures.
      rows: labels at the left.
      columns: labels at the bottom.
    """

    width: float
    height: float
    left: float
    top: float
    step: tuple[float, float]
    cell_width: float
    picture: float
    curves: float
    curves_top: float
    seconds: tuple[float, float]
    values: tuple[float, float]
    heading: Labels
    titles: Labels
    rows: Labels
    columns: Labels


def lay_out(panels: Sequence[Panel], rows: int, columns: int, look: Look) -> Layout:
    """The layout of panels in a grid; very many pictures become smaller.

    Raises:
      InputError: the figure would still be too large.
    """
    height = look.height
    while True:
        layout = _lay_out(panels, rows, columns, look, height)
        excess = max(layout.width, layout.height) * look.dpi / _MOST_PIXELS
        if excess <= 1:
            return layout
        height *= max(0.5, min(0.95, 1 / excess))
        if height < min(_LEAST_HEIGHT, look.height):
            raise InputError(
                f"A figure of {rows} x {columns} pictures at {look.dpi} dpi has more "
                f"than {_MOST_PIXELS} pixels a side; give a grid that is closer to a "
                "square, fewer sounds, a lower dpi, or a folder for one file per sound."
            )


def _lay_out(
    panels: Sequence[Panel], rows: int, columns: int, look: Look, height: float
) -> Layout:
    has_axis = look.axis != "none"
    has_curves = any(p.curves is not None for p in panels)
    has_pictures = any(p.image is not None or p.message for p in panels)
    start, end = min(p.start for p in panels), max(p.end for p in panels)
    share = (end - start) / _SECONDS_PER_SQUARE
    cell_width = height * min(max(share, _NARROWEST), _WIDEST)
    picture = height if has_pictures else 0.0
    # Without pictures the curves get their height.
    curves = (height * _CURVES if has_pictures else height) if has_curves else 0.0
    curves_top = picture + (_SMALL_GAP if picture and curves else 0.0)
    body = curves_top + curves

    size = 9 * min(1.0, height / 1.2)
    titles = _labels(look.titles, cell_width, size)
    row_labels = _labels(look.row_labels, body, size)
    column_labels = _labels(look.column_labels, cell_width, size)
    step = (
        cell_width + _GAP + (_TICKS_LEFT if has_axis else 0.0),
        titles.room + body + _GAP + (_TICKS_BELOW if has_axis else 0.0),
    )
    left = _MARGIN + row_labels.room + (_TICKS_LEFT if has_axis else 0.0)
    width = left + (columns - 1) * step[0] + cell_width + _MARGIN
    width += _TICKS_RIGHT if has_axis else 0.0
    heading = _labels([look.title] if look.title else [], width - 2 * _MARGIN, 12, 3)
    top = _MARGIN + heading.room + titles.room
    total = top - titles.room + rows * step[1] - _GAP + column_labels.room + _MARGIN
    return Layout(
        width=width,
        height=total,
        left=left,
        top=top,
        step=step,
        cell_width=cell_width,
        picture=picture,
        curves=curves,
        curves_top=curves_top,
        seconds=(start, end),
        values=value_limits(panels),
        heading=heading,
        titles=titles,
        rows=row_labels,
        columns=column_labels,
    )


def _labels(texts: Sequence[str], width: float, size: float, lines: int = 2) -> Labels:
    """Labels that fit a width, and their height including the gap beside them."""
    if not any(texts):
        return Labels([], size, 0.0)
    fitted, size = fit_labels(texts, width, max(size, 5.0), lines)
    count = max(text.count("\n") + 1 for text in fitted)
    return Labels(fitted, size, count * size * _LINE + _SMALL_GAP)


def fit_labels(
    labels: Sequence[str], room: float, size: float, num_lines: int = 2
) -> tuple[list[str], float]:
    """Breaks labels into lines, then makes them smaller, and shortens them if needed.

    Args:
      labels: the words; all get one size.
      room: the width of a line, in inches.
      size: of the font, in points, if there is room.
      num_lines: the maximum number of lines per label.

    Returns:
      The labels with line breaks, and the size.
    """
    labels = [
        re.sub(r"[\x00-\x1f\x7f]+", " ", readable(str(label))) for label in labels
    ]
    least = max(_LEAST_SIZE, _LEAST_SHARE * size)
    while True:
        broken = [_break(label, room, size, num_lines) for label in labels]
        fitting = [text for text in broken if text is not None]
        if len(fitting) == len(broken):
            return fitting, size
        if size <= least:
            break
        size = max(least, size - 0.5)
    return [
        _break(label, room, size, num_lines) or _shorten(label, room, size, num_lines)
        for label in labels
    ], size


def _width(text: str, size: float) -> float:
    """The width of a line in inches."""
    return size * _width_per_point(text, tuple(matplotlib.rcParams["font.family"]))


@functools.lru_cache(maxsize=4096)
def _width_per_point(text: str, families: tuple[str, ...]) -> float:
    if not text:
        return 0.0
    font = font_manager.FontProperties(family=families, size=_POINTS)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return width / _POINTS**2


def _break(text: str, room: float, size: float, num_lines: int) -> str | None:
    """Lines that fit, broken after word separators; None if there are too many."""
    lines, line = [], ""
    for word in re.findall(r"[^\s_\-./]*[\s_\-./]*", text):
        if line and _width((line + word).rstrip(), size) > room:
            lines.append(line.rstrip())
            line = ""
        line += word
    lines.append(line.rstrip())
    if len(lines) > num_lines or any(_width(line, size) > room for line in lines):
        return None
    return "\n".join(lines)


def _shorten(text: str, room: float, size: float, num_lines: int) -> str:
    """As much of the start and the end of a text as fits."""
    fewest, most = 0, len(text)  # characters that fit, and that may fit
    best = "…"
    while fewest < most:
        kept = (fewest + most + 1) // 2
        shorter = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
        broken = _break(shorter, room, size, num_lines)
        if broken is None:
            most = kept - 1
        else:
            fewest, best = kept, broken
    return best
