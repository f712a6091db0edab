"""Figures of many sounds: a grid of pictures with curves below them and labels."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, expand
from magenta_nsynth.plotting.backend import Axes, Figure, FigureCanvasAgg, plain_style
from magenta_nsynth.plotting.options import FORMATS, Look, grid_of
from magenta_nsynth.plotting.panel import (
    Layout,
    Panel,
    draw_curves,
    draw_image,
    draw_message,
    fit_labels,
    lay_out,
)

__all__ = ["check_figure", "draw_figure", "save_figure", "write_figure"]

_A_NOTE = Panel("", image=np.zeros([1, 251, 3], np.uint8))


def check_figure(count: int, rows: int, columns: int, look: Look) -> None:
    """Raises InputError if `draw_figure` would refuse so many notes."""
    look.check(count, rows, columns)
    with plain_style(look.font):
        lay_out([_A_NOTE] * count, rows, columns, look)


def draw_figure(
    panels: Sequence[Panel],
    rows: int = 0,
    columns: int = 0,
    look: Look | None = None,
) -> Figure:
    """A figure of panels in a grid, row by row.

    Args:
      panels: of `make_panel`; at least one.
      rows: of the grid, as for `grid_of`.
      columns: of the grid, as for `grid_of`.
      look: labels, axes and size; None is the original's look.

    Returns:
      A matplotlib figure. It is made without pyplot, which neither shows nor keeps it.

    Raises:
      InputError: too few cells, the wrong number of labels, or a figure too large.
    """
    panels = list(panels)
    if not panels:
        raise InputError("There is nothing to draw.")
    look = look or Look()
    rows, columns = grid_of(len(panels), rows, columns)
    look.check(len(panels), rows, columns)
    with plain_style(look.font):
        layout = lay_out(panels, rows, columns, look)
        figure = Figure(figsize=(layout.width, layout.height), dpi=look.dpi)
        FigureCanvasAgg(figure)
        for i, panel in enumerate(panels):
            row, column = divmod(i, columns)
            x = layout.left + column * layout.step[0]
            y = layout.top + row * layout.step[1]
            _draw_panel(figure, layout, look, panel, x, y)
            if layout.titles.texts:
                x += layout.cell_width / 2
                _write(figure, x, y - 0.05, layout.titles.texts[i], layout.titles.size)
        _label_grid(figure, layout)
    return figure


def write_figure(
    path: str,
    panels: Sequence[Panel],
    rows: int = 0,
    columns: int = 0,
    look: Look | None = None,
) -> None:
    """Draws a figure and writes it to a file; the path is taken as it is."""
    _save(draw_figure(panels, rows, columns, look), path, look)


def save_figure(
    figure: Figure, path: str | os.PathLike, look: Look | None = None
) -> None:
    """Writes a figure whole or not at all. The same figure gives the same bytes.

    Args:
      figure: of `draw_figure`.
      path: its ending, .png, .svg or .pdf, decides the format.
      look: the look that it was drawn with.

    Raises:
      InputError: the path has another ending.
      OSError: it can't be written.
    """
    _save(figure, expand(path), look)


def _save(figure: Figure, path: str, look: Look | None) -> None:
    kind = pathlib.Path(path).suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"{path}: give a name ending in {', '.join(FORMATS)}.")
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with plain_style((look or Look()).font), atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind[1:], metadata=dates.get(kind))


def _place(
    figure: Figure, layout: Layout, x: float, y: float, width: float, height: float
) -> Axes:
    """An axis with its upper left corner at (x, y), in inches from the figure's."""
    return figure.add_axes(
        (
            x / layout.width,
            1 - (y + height) / layout.height,
            width / layout.width,
            height / layout.height,
        )
    )


def _draw_panel(
    figure: Figure, layout: Layout, look: Look, panel: Panel, x: float, y: float
) -> None:
    """Draws a panel with its upper left corner at (x, y), in inches."""
    above: Axes | None = None
    if panel.image is not None:
        above = _place(figure, layout, x, y, layout.cell_width, layout.picture)
        draw_image(above, panel, look.axis)
        if not look.own_width:
            above.set_xlim(*layout.seconds)
    elif panel.message:
        above = _place(figure, layout, x, y, layout.cell_width, layout.picture)
        room = layout.cell_width * 0.9
        [words], size = fit_labels([panel.message], room, 7, num_lines=9)
        draw_message(above, words, size)
    if panel.curves is None:
        return
    if above is not None:
        above.tick_params(labelbottom=False)
        y, height = y + layout.curves_top, layout.curves
    else:
        height = layout.curves_top + layout.curves
    below = _place(figure, layout, x, y, layout.cell_width, height)
    draw_curves(below, panel, look.axis)
    below.set_ylim(*layout.values)
    if not look.own_width:
        below.set_xlim(*layout.seconds)


def _label_grid(figure: Figure, layout: Layout) -> None:
    if layout.heading.texts:
        y = layout.top - layout.titles.room - layout.columns.room - 0.07
        [heading] = layout.heading.texts
        _write(figure, layout.width / 2, y, heading, layout.heading.size)
    body = layout.curves_top + layout.curves
    for i, text in enumerate(layout.rows.texts):
        y = layout.top + i * layout.step[1] + body / 2
        figure.text(
            (0.1 + (layout.rows.room - 0.04) / 2) / layout.width,
            1 - y / layout.height,
            text,
            size=layout.rows.size,
            rotation=90,
            ha="center",
            va="center",
            linespacing=1.1,
        )
    y = layout.top - layout.titles.room - 0.05
    for i, text in enumerate(layout.columns.texts):
        x = layout.left + i * layout.step[0] + layout.cell_width / 2
        _write(figure, x, y, text, layout.columns.size)


def _write(figure: Figure, x: float, y: float, text: str, size: float) -> None:
    """Writes lines centred on x, with their last baseline at y, in inches."""
    figure.text(
        x / figure.get_figwidth(),
        1 - y / figure.get_figheight(),
        text,
        size=size,
        ha="center",
        va="baseline",
        linespacing=1.1,
    )
