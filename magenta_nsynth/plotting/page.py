"""A web page of pictures that play: one folder, no server, nothing from outside."""

import html
import importlib.resources
import os
import pathlib
import re
import string
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from magenta_nsynth.audio import write_audio
from magenta_nsynth.files import atomic_path
from magenta_nsynth.plotting.axes import draw_curves
from magenta_nsynth.plotting.labels import plain_style
from magenta_nsynth.plotting.panel import Panel, value_limits

__all__ = ["write_page"]

_NARROW_COLUMNS = 2  # on a phone
_ADVICE = (
    "<p>Click a picture to hear it. With the keyboard: Tab to a picture, Space or "
    "Enter plays and pauses, the arrow keys move.</p>"
)
# What `write_page` writes beside the page, and nothing else.
_OWN = re.compile(r"\d+_[A-Za-z0-9_-]*\.(png|wav)")


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
      OSError: something can't be written.
      AudioError: a sound can't be.
    """
    folder = pathlib.Path(folder)
    limits = value_limits(panels)
    cells = []
    for i, (panel, sound, caption) in enumerate(
        zip(panels, sounds, captions, strict=True)
    ):
        # The number keeps names apart, the rest is for who looks into the folder.
        words = re.sub(r"[^A-Za-z0-9-]+", "_", caption)[:60]
        stem = f"{i + 1:0{len(str(len(panels)))}}_{words}"
        order = _narrow_order(i, len(panels), columns)
        content = _write_cell(folder, stem, panel, sound, caption, limits)
        cells.append(f'<li style="--narrow-order: {order}">{content}</li>')
    template = importlib.resources.files(__package__) / "page.html"
    page = string.Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        advice=_ADVICE if any(sound is not None for sound in sounds) else "",
        columns=columns,
        narrow_columns=min(columns, _NARROW_COLUMNS),
        cells="\n".join(cells),
    )
    path = folder / "index.html"
    with atomic_path(path) as temporary:
        pathlib.Path(temporary).write_text(page, encoding="utf-8")
    _remove_others(folder, page)
    return str(path)


def _narrow_order(number: int, count: int, columns: int) -> int:
    """A cell's place on a phone, whose two columns keep two rows side by side."""
    if columns <= _NARROW_COLUMNS or count != 2 * columns:
        return number
    row, column = divmod(number, columns)
    return 2 * column + row


def _remove_others(folder: pathlib.Path, page: str) -> None:
    """Removes what an earlier page had, that was larger or of other names."""
    for name in ("pictures", "sounds"):
        if not (folder / name).is_dir():
            continue
        for path in (folder / name).iterdir():
            if _OWN.fullmatch(path.name) and f"{name}/{path.name}" not in page:
                path.unlink()


def _write_cell(
    folder: pathlib.Path,
    stem: str,
    panel: Panel,
    sound: np.ndarray | None,
    caption: str,
    limits: tuple[float, float],
) -> str:
    name = html.escape(caption, quote=True)
    head = f'<figure><figcaption title="{name}"><span>{name}</span></figcaption>'
    if panel.message:
        message = html.escape(panel.message)
        return f'{head}<div class="shown failed">{message}</div></figure>'
    pictures = []
    if panel.image is not None:
        path = f"pictures/{stem}.png"
        with atomic_path(folder / path) as temporary:
            imsave(temporary, panel.image[::-1], format="png")
        pictures.append(f'<img src="{path}" alt="Rainbowgram of {name}">')
    if panel.curves is not None:
        path = f"pictures/{stem}_embedding.png"
        _write_curves(folder / path, panel, limits)
        pictures.append(f'<img class="curves" src="{path}" alt="Embedding of {name}">')
    shown = "".join(pictures)
    if sound is None:
        return f'{head}<div class="shown">{shown}</div></figure>'
    path = f"sounds/{stem}.wav"
    write_audio(folder / path, sound, 16)
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
