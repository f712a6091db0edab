"""Where everything in a figure is."""

from collections.abc import Sequence
from typing import NamedTuple

from magenta_nsynth.errors import InputError
from magenta_nsynth.plotting.labels import fit_labels
from magenta_nsynth.plotting.look import Look
from magenta_nsynth.plotting.panel import Panel, value_limits

__all__ = ["Layout", "Words", "lay_out"]

# Inches, but for shares of a picture's height.
_SECONDS_PER_SQUARE = 4.0  # a note's picture is square; a longer one is wider
_NARROWEST, _WIDEST = 0.5, 6.0  # share
_CURVES = 0.45  # share
_MARGIN, _GAP, _SMALL_GAP = 0.1, 0.08, 0.04
_TICKS_LEFT, _TICKS_BELOW, _TICKS_RIGHT = 0.3, 0.2, 0.15
_LINE = 1.3 / 72  # of a line, per point of its size
_LEAST_HEIGHT = 0.3
_MOST_PIXELS = 30_000  # of a side; matplotlib ends at 65,536


class Words(NamedTuple):
    """Labels of one kind: their lines, their size in points, the room they take."""

    texts: list[str]
    size: float
    room: float


class Layout(NamedTuple):
    """A figure's measures, in inches from its upper left corner.

    Attributes:
      width: of the figure.
      height: of the figure.
      left: of the first cell.
      top: of the first cell.
      step: from a cell to the next, (right, down).
      cell_width: of a picture.
      picture: its height; 0 where there is none.
      curves: their height; 0 where there are none.
      curves_top: where they begin below a picture's top.
      seconds: (first, last) of a common scale of time.
      values: (lowest, highest) of all curves.
      heading: the title over all.
      titles: over the pictures.
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
    heading: Words
    titles: Words
    rows: Words
    columns: Words


def lay_out(panels: Sequence[Panel], rows: int, columns: int, look: Look) -> Layout:
    """The layout of panels in a grid; pictures get smaller where there are very many.

    Raises:
      InputError: the figure would be too large all the same.
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
                f"than {_MOST_PIXELS} pixels a side; give a grid nearer to a square, "
                "fewer sounds, a lower dpi, or a file to each sound."
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
    # Alone they are as high as a picture.
    curves = (height * _CURVES if has_pictures else height) if has_curves else 0.0
    curves_top = picture + (_SMALL_GAP if picture and curves else 0.0)
    body = curves_top + curves

    size = 9 * min(1.0, height / 1.2)
    titles = _words(look.titles, cell_width, size)
    row_words = _words(look.row_labels, body, size)
    column_words = _words(look.column_labels, cell_width, size)
    step = (
        cell_width + _GAP + (_TICKS_LEFT if has_axis else 0.0),
        titles.room + body + _GAP + (_TICKS_BELOW if has_axis else 0.0),
    )
    left = _MARGIN + row_words.room + (_TICKS_LEFT if has_axis else 0.0)
    width = left + (columns - 1) * step[0] + cell_width + _MARGIN
    width += _TICKS_RIGHT if has_axis else 0.0
    heading = _words([look.title] if look.title else [], width - 2 * _MARGIN, 12, 3)
    top = _MARGIN + heading.room + titles.room
    total = top - titles.room + rows * step[1] - _GAP + column_words.room + _MARGIN
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
        rows=row_words,
        columns=column_words,
    )


def _words(labels: Sequence[str], width: float, size: float, lines: int = 2) -> Words:
    """Labels that fit a width, and how high they stand with what parts them."""
    if not any(labels):
        return Words([], size, 0.0)
    texts, size = fit_labels(labels, width, max(size, 5.0), lines)
    count = max(text.count("\n") + 1 for text in texts)
    return Words(texts, size, count * size * _LINE + _SMALL_GAP)
