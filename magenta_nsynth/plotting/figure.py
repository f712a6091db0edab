"""Figures of many sounds: a grid of pictures with curves under them and labels."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, expand
from magenta_nsynth.plotting.axes import draw_curves, draw_image, draw_message
from magenta_nsynth.plotting.labels import fit_labels, plain_style
from magenta_nsynth.plotting.layout import Layout, lay_out
from magenta_nsynth.plotting.look import Look, grid_of
from magenta_nsynth.plotting.panel import Panel

__all__ = [
    "FORMATS",
    "check_figure",
    "draw_figure",
    "is_one_figure",
    "save_figure",
    "write_figure",
]

FORMATS = (".png", ".svg", ".pdf")
_OTHERS = (".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".eps", ".html")
_A_NOTE = Panel("", image=np.zeros([1, 251, 3], np.uint8))


def is_one_figure(save_path: str, page_path: str = "") -> bool:
    """Whether --save_path names one figure (or there is none, but a page).

    Raises:
      InputError: no output, or a picture of another kind.
    """
    if not save_path and not page_path:
        raise InputError(
            "No --save_path given: name a figure (.png, .svg or .pdf), or a folder for "
            "a file to each sound."
        )
    if not save_path:
        return True
    ending = os.path.splitext(save_path)[1].lower()
    is_folder = os.path.isdir(expand(save_path)) or save_path.endswith(os.sep)
    if ending in _OTHERS and not is_folder:
        raise InputError(
            f"{save_path}: pictures are written as {', '.join(FORMATS)}; give one of "
            "those, or a folder."
        )
    if ending in FORMATS and not is_folder:
        return True
    if page_path:
        raise InputError(
            "--html goes with one figure; give --save_path=figure.png, or none."
        )
    return False


def check_figure(count: int, rows: int, columns: int, look: Look) -> None:
    """Raises InputError for what `draw_figure` of so many notes would refuse."""
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
      panels: of `make_panel`, one at least.
      rows: of the grid; 0 takes as many as the columns need.
      columns: of the grid; 0 takes as many as the rows need, or as make it square.
      look: labels, axes, size; None for the original's.

    Returns:
      A matplotlib figure, made without pyplot: nothing is shown, nothing kept.

    Raises:
      InputError: too few cells, labels of another number, a figure too large.
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
    """`draw_figure` and `save_figure` in one, for a process that does nothing else."""
    _save(draw_figure(panels, rows, columns, look), path, look)


def save_figure(
    figure: Figure, path: str | os.PathLike, look: Look | None = None
) -> None:
    """Writes a figure whole or not at all; the same figure gives the same bytes.

    Args:
      figure: of `draw_figure`.
      path: ends in .png, .svg or .pdf, which says the format.
      look: it was drawn with.

    Raises:
      InputError: another ending.
      OSError: it can't be written.
    """
    _save(figure, expand(path), look)


def _save(figure: Figure, path: str, look: Look | None) -> None:
    kind = pathlib.Path(path).suffix.lower()
    if kind not in FORMATS:
        raise InputError(f"{path}: give a name that ends in {', '.join(FORMATS)}.")
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with plain_style((look or Look()).font), atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind[1:], metadata=dates.get(kind))


def _place(
    figure: Figure, layout: Layout, x: float, y: float, width: float, height: float
) -> Axes:
    """An axis whose upper left corner is at (x, y), in inches from the figure's."""
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
    lowest = None
    if panel.image is not None or panel.message:
        lowest = _place(figure, layout, x, y, layout.cell_width, layout.picture)
        if panel.image is not None:
            draw_image(lowest, panel, look.axis)
            if not look.own_width:
                lowest.set_xlim(*layout.seconds)
        else:
            room = layout.cell_width * 0.9
            [words], size = fit_labels([panel.message], room, 7, num_lines=9)
            draw_message(lowest, words, size)
    if panel.curves is not None:
        if lowest is not None:
            lowest.tick_params(labelbottom=False)
        height = layout.curves_top + layout.curves
        if lowest is not None:
            y, height = y + layout.curves_top, layout.curves
        lowest = _place(figure, layout, x, y, layout.cell_width, height)
        draw_curves(lowest, panel, look.axis)
        lowest.set_ylim(*layout.values)
        if not look.own_width:
            lowest.set_xlim(*layout.seconds)


def _label_grid(figure: Figure, layout: Layout) -> None:
    if layout.heading.texts:
        y = layout.top - layout.titles.room - 0.07
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
    y = layout.height - 0.1 - layout.columns.room + 0.04
    for i, text in enumerate(layout.columns.texts):
        x = layout.left + i * layout.step[0] + layout.cell_width / 2
        _write(figure, x, y, text, layout.columns.size, "top")


def _write(
    figure: Figure, x: float, y: float, text: str, size: float, at: str = "baseline"
) -> None:
    """Lines centred on x whose last baseline, or whose top, is at y, in inches."""
    figure.text(
        x / figure.get_figwidth(),
        1 - y / figure.get_figheight(),
        text,
        size=size,
        ha="center",
        va=at,
        linespacing=1.1,
    )
