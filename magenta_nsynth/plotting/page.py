"""A web page of pictures that play: one folder that needs no server and no network.

The page's own files are listed in a record beside it; other files are never touched.
"""

import contextlib
import html
import importlib.resources
import os
import pathlib
import re
import string
from collections.abc import Iterable, Iterator, Sequence

from magenta_nsynth.audio import write_audio
from magenta_nsynth.disk import only_writer, remove
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, read_json, write_json
from magenta_nsynth.formatting import readable
from magenta_nsynth.plotting.backend import (
    Figure,
    FigureCanvasAgg,
    imsave,
    plain_style,
)
from magenta_nsynth.plotting.panel import Panel, draw_curves, value_limits
from magenta_nsynth.stores import storage

__all__ = ["check_page_folder", "write_page"]

_PAGE = "index.html"
_NARROW_COLUMNS = 2  # on a phone
_ADVICE = (
    "<p>Click a picture to hear it. With the keyboard: Tab to a picture, Space or "
    "Enter plays and pauses, the arrow keys move.</p>"
)
_RECORD = ".nsynth_page.json"  # the files beside the page
_ABOUT = "What nsynth_rainbowgram --html wrote here, and may replace and remove again."
_NAME = r"(?:pictures|sounds)/\d+_[A-Za-z0-9_-]*\.(?:png|wav)"
_PATIENCE = 10.0  # seconds to wait for another program that writes into the folder
# In every page of ours; those of versions without a record have only the second one.
_MARKS = (
    '<meta name="generator" content="nsynth_rainbowgram">',
    ":root { --columns: ",
)


def write_page(
    folder: str | os.PathLike,
    panels: Sequence[Panel],
    columns: int,
    title: str,
    own_width: bool = False,
) -> str:
    """Writes index.html, and pictures/ and sounds/ beside it.

    Args:
      folder: to write to; created if missing. The page is written last.
      panels: the pictures, row by row, with their captions and sounds.
      columns: of the page if there is room; a phone shows two.
      title: of the page.
      own_width: stretches each picture to the width of its cell. Otherwise all have one
        time scale, and shorter sounds end earlier.

    Returns:
      The path of index.html.

    Raises:
      InputError: a file in the way was not written by an earlier run.
      OSError: a file can't be written.
      AudioError: a sound can't be written.
    """
    folder = os.fspath(folder)
    storage.makedirs(folder)
    stems = []
    for i, panel in enumerate(panels):
        # The number makes names unique, the words tell people what is in the file.
        words = re.sub(r"[^A-Za-z0-9-]+", "_", panel.caption or panel.name)[:60]
        stems.append(f"{i + 1:0{len(str(len(panels)))}}_{words}")
    files = [_files_of(*pair) for pair in zip(panels, stems, strict=True)]
    with _writing_page(folder, {name for own in files for name in own.values()}):
        cells = _write_panels(folder, panels, files, columns, own_width)
        page = _page(cells, panels, columns, title)
        with atomic_path(storage.join(folder, _PAGE)) as temporary:
            pathlib.Path(temporary).write_text(page, encoding="utf-8")
    return storage.join(folder, _PAGE)


def _files_of(panel: Panel, stem: str) -> dict[str, str]:
    """The files of a panel beside the page: {kind: path from the folder}."""
    files: dict[str, str] = {}
    if panel.message:
        return files
    if panel.image is not None:
        files["image"] = f"pictures/{stem}.png"
    if panel.curves is not None:
        files["curves"] = f"pictures/{stem}_embedding.png"
    if panel.audio is not None:
        files["sound"] = f"sounds/{stem}.wav"
    return files


def _write_panels(
    folder: str,
    panels: Sequence[Panel],
    files: Sequence[dict[str, str]],
    columns: int,
    own_width: bool,
) -> list[str]:
    """Writes the files beside the page; returns the cells of the page."""
    limits = value_limits(panels)
    longest = max((panel.end - panel.start for panel in panels), default=0.0)
    cells = []
    for i, (panel, own) in enumerate(zip(panels, files, strict=True)):
        order = _narrow_order(i, len(panels), columns)
        content = _write_panel(folder, panel, own, limits)
        length = panel.end - panel.start
        share = 1.0 if own_width or not length else length / longest
        style = f"--narrow-order: {order}; --share: {share:.4g}"
        cells.append(f'<li style="{style}">{content}</li>')
    return cells


def _page(
    cells: Sequence[str], panels: Sequence[Panel], columns: int, title: str
) -> str:
    """The text of the page."""
    template = importlib.resources.files(__package__) / "page.html"
    return string.Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(readable(title)),
        advice=_ADVICE if any(panel.audio is not None for panel in panels) else "",
        columns=columns,
        narrow_columns=min(columns, _NARROW_COLUMNS),
        cells="\n".join(cells),
    )


def _narrow_order(number: int, count: int, columns: int) -> int:
    """A panel's place on a phone, where two rows are shown as two columns."""
    if columns <= _NARROW_COLUMNS or count != 2 * columns:
        return number
    row, column = divmod(number, columns)
    return 2 * column + row


def _write_panel(
    folder: str,
    panel: Panel,
    files: dict[str, str],
    limits: tuple[float, float],
) -> str:
    """Writes a panel's files; returns its part of the page."""
    name = html.escape(readable(panel.caption or panel.name), quote=True)
    head = f'<figure><figcaption title="{name}"><span>{name}</span></figcaption>'
    if panel.message:
        message = html.escape(readable(panel.message))
        return f'{head}<div class="shown failed">{message}</div></figure>'
    pictures = []
    if panel.image is not None:
        path = files["image"]
        with atomic_path(storage.join(folder, path)) as temporary:
            imsave(temporary, panel.image[::-1], format="png")
        pictures.append(f'<img src="{path}" alt="Rainbowgram of {name}">')
    if panel.curves is not None:
        path = files["curves"]
        _write_curves(storage.join(folder, path), panel, limits)
        pictures.append(f'<img class="curves" src="{path}" alt="Embedding of {name}">')
    shown = "".join(pictures)
    if panel.audio is None:
        return f'{head}<div class="shown">{shown}</div></figure>'
    path = files["sound"]
    write_audio(storage.join(folder, path), panel.audio, 16)
    return (
        f'{head}<button type="button" class="shown" aria-pressed="false" '
        f'aria-label="Play {name}">{shown}<span class="line"></span></button>'
        f'<audio controls preload="metadata" src="{path}" aria-label="{name}"></audio>'
        "</figure>"
    )


def _write_curves(path: str, panel: Panel, limits: tuple[float, float]) -> None:
    """Draws curves from edge to edge, so that they line up with the picture above."""
    with plain_style():
        figure = Figure(figsize=(4, 1.2), dpi=150)
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, 1))
        draw_curves(ax, panel)
        ax.set_axis_off()
        ax.set_xlim(panel.start, panel.end)
        ax.set_ylim(*limits)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", transparent=True)


def check_page_folder(folder: str | os.PathLike) -> set[str]:
    """The files that earlier runs wrote beside their page in a folder.

    Returns:
      Their paths from the folder, such as "sounds/1_flute.wav". Some may be missing.

    Raises:
      InputError: the folder has an index.html that is not ours, or a record that can't
        be read.
    """
    folder = os.fspath(folder)
    referenced = _files_of_page(storage.join(folder, _PAGE))
    path = storage.join(folder, _RECORD)
    if not storage.lexists(path):
        return referenced
    files = (read_json(path) or {}).get("files")
    if not isinstance(files, list) or not all(
        isinstance(name, str) and re.fullmatch(_NAME, name) for name in files
    ):
        raise InputError(
            f"{path}: damaged, so it does not say which files in this folder belong to "
            "the page; give another --html, or remove this file."
        )
    return set(files)


def _files_of_page(path: str) -> set[str]:
    """The files that our page refers to; none if there is no page."""
    if not storage.lexists(path):
        return set()
    text = ""
    if storage.isfile(path):
        try:
            with storage.open_binary(path) as file:
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            raise InputError(f"{path}: can't be read ({error.strerror}).") from None
    if not any(mark in text for mark in _MARKS):
        raise _foreign(path)
    return set(re.findall(f'src="({_NAME})"', text))


def _foreign(path: str) -> InputError:
    return InputError(
        f"{path}: already exists and is not from nsynth_rainbowgram; give another "
        "--html."
    )


@contextlib.contextmanager
def _writing_page(folder: str, names: Iterable[str]) -> Iterator[None]:
    """A page and these files beside it are written in the block; then old ones go.

    Args:
      folder: exists.
      names: of the files, from the folder.

    Raises:
      InputError: as `check_page_folder`, or one of the files is not ours.
    """
    names = set(names)
    with only_writer(folder, "--html", _PATIENCE):
        old = check_page_folder(folder)
        for name in sorted(names - old):
            path = storage.join(folder, name)
            if storage.lexists(path):
                raise _foreign(path)
        # Before the files, so that a killed run leaves none that nobody owns.
        _write_record(folder, old | names)
        yield
        remove(*(storage.join(folder, name) for name in old - names))
        _write_record(folder, names)


def _write_record(folder: str, names: set[str]) -> None:
    content = {"about": _ABOUT, "files": sorted(names)}
    write_json(storage.join(folder, _RECORD), content)
