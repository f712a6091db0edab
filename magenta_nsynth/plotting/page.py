"""A web page of pictures that play: one folder, no server, nothing from outside."""

import html
import importlib.resources
import os
import pathlib
import re
import string
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from magenta_nsynth.audio import write_audio
from magenta_nsynth.files import atomic_path
from magenta_nsynth.formatting import readable
from magenta_nsynth.plotting.axes import draw_curves
from magenta_nsynth.plotting.labels import plain_style
from magenta_nsynth.plotting.page_folder import PAGE, writing_page
from magenta_nsynth.plotting.panel import Panel, value_limits

__all__ = ["write_page"]

_NARROW_COLUMNS = 2  # on a phone
_ADVICE = (
    "<p>Click a picture to hear it. With the keyboard: Tab to a picture, Space or "
    "Enter plays and pauses, the arrow keys move.</p>"
)


class _Cell(NamedTuple):
    """A picture of the page; `stem` names its files."""

    stem: str
    panel: Panel
    sound: np.ndarray | None
    caption: str

    def files(self) -> Iterator[tuple[str, str]]:
        """What it has beside the page: (kind, path from the folder)."""
        if self.panel.message:
            return
        if self.panel.image is not None:
            yield "image", f"pictures/{self.stem}.png"
        if self.panel.curves is not None:
            yield "curves", f"pictures/{self.stem}_embedding.png"
        if self.sound is not None:
            yield "sound", f"sounds/{self.stem}.wav"


def write_page(
    folder: str | os.PathLike,
    panels: Sequence[Panel],
    sounds: Sequence[np.ndarray | None],
    captions: Sequence[str],
    columns: int,
    title: str,
) -> str:
    """Writes index.html, and beside it pictures/ and sounds/.

    Args:
      folder: to write to; made where it is missing. The page comes last.
      panels: the pictures, row by row.
      sounds: of each [t] float32 at 16 kHz, or None where there is none to play.
      captions: of each.
      columns: that the page has where there is room; two on a phone.
      title: of the page.

    Returns:
      The path of index.html.

    Raises:
      InputError: something in the folder that is in the way is not of an earlier page.
      OSError: something can't be written.
      AudioError: a sound can't be.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for i, (panel, sound, caption) in enumerate(
        zip(panels, sounds, captions, strict=True)
    ):
        # The number keeps names apart, the rest is for who looks into the folder.
        words = re.sub(r"[^A-Za-z0-9-]+", "_", caption)[:60]
        stem = f"{i + 1:0{len(str(len(panels)))}}_{words}"
        cells.append(_Cell(stem, panel, sound, caption))
    with writing_page(folder, [name for cell in cells for _, name in cell.files()]):
        page = _write_cells(folder, cells, columns, title)
        with atomic_path(folder / PAGE) as temporary:
            pathlib.Path(temporary).write_text(page, encoding="utf-8")
    return str(folder / PAGE)


def _write_cells(
    folder: pathlib.Path, cells: Sequence[_Cell], columns: int, title: str
) -> str:
    """Writes what lies beside the page; the page's text."""
    limits = value_limits(cell.panel for cell in cells)
    items = []
    for i, cell in enumerate(cells):
        order = _narrow_order(i, len(cells), columns)
        content = _write_cell(folder, cell, limits)
        items.append(f'<li style="--narrow-order: {order}">{content}</li>')
    template = importlib.resources.files(__package__) / "page.html"
    return string.Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(readable(title)),
        advice=_ADVICE if any(cell.sound is not None for cell in cells) else "",
        columns=columns,
        narrow_columns=min(columns, _NARROW_COLUMNS),
        cells="\n".join(items),
    )


def _narrow_order(number: int, count: int, columns: int) -> int:
    """A cell's place on a phone, whose two columns keep two rows side by side."""
    if columns <= _NARROW_COLUMNS or count != 2 * columns:
        return number
    row, column = divmod(number, columns)
    return 2 * column + row


def _write_cell(folder: pathlib.Path, cell: _Cell, limits: tuple[float, float]) -> str:
    panel, name = cell.panel, html.escape(readable(cell.caption), quote=True)
    head = f'<figure><figcaption title="{name}"><span>{name}</span></figcaption>'
    if panel.message:
        message = html.escape(readable(panel.message))
        return f'{head}<div class="shown failed">{message}</div></figure>'
    paths = dict(cell.files())
    pictures = []
    if path := paths.get("image"):
        with atomic_path(folder / path) as temporary:
            imsave(temporary, panel.image[::-1], format="png")
        pictures.append(f'<img src="{path}" alt="Rainbowgram of {name}">')
    if path := paths.get("curves"):
        _write_curves(folder / path, panel, limits)
        pictures.append(f'<img class="curves" src="{path}" alt="Embedding of {name}">')
    shown = "".join(pictures)
    if not (path := paths.get("sound")):
        return f'{head}<div class="shown">{shown}</div></figure>'
    write_audio(folder / path, cell.sound, 16)
    return (
        f'{head}<button type="button" class="shown" aria-pressed="false" '
        f'aria-label="Play {name}">{shown}<span class="line"></span></button>'
        f'<audio controls preload="metadata" src="{path}" aria-label="{name}"></audio>'
        "</figure>"
    )


def _write_curves(
    path: pathlib.Path, panel: Panel, limits: tuple[float, float]
) -> None:
    """The curves from edge to edge, so that they lie under the picture in time."""
    with plain_style():
        figure = Figure(figsize=(4, 1.2), dpi=150)
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, 1))
        draw_curves(ax, panel)
        ax.set_axis_off()
        ax.set_xlim(panel.start, panel.end)
        ax.set_ylim(*limits)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
