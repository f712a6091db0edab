"""Sounds, notes or embeddings in, pictures out: one figure, or a file to each."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from absl import logging

from magenta_nsynth.commands.common import make_folder, writing
from magenta_nsynth.commands.panels import PanelMaker, Shown
from magenta_nsynth.commands.pictured import Item, Items
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import Source, expand, refuse_collisions
from magenta_nsynth.parallel import in_processes
from magenta_nsynth.plotting.figure import check_figure, write_figure
from magenta_nsynth.plotting.look import Look, grid_of
from magenta_nsynth.plotting.page import write_page
from magenta_nsynth.plotting.page_folder import check_page_folder
from magenta_nsynth.progress import Progress

__all__ = [
    "draw_each",
    "draw_one_figure",
    "finish_figure",
    "make_place",
]

_PAIR = ("Original", "Reconstruction")
_MANY = 200  # pictures whose drawing takes a while
_WORTH_PROCESSES = 8  # files; for fewer their start takes longer than the drawing


def make_place(save_path: str, page_path: str) -> None:
    """Makes the folders of a figure and a page, before what goes there is made.

    Raises:
      InputError: one can't be written to, or holds somebody else's page.
    """
    if save_path:
        make_folder(os.path.dirname(expand(save_path)) or ".")
    if page_path:
        make_folder(page_path, "--html")
        check_page_folder(expand(page_path))


def draw_one_figure(
    items: Items,
    maker: PanelMaker,
    save_path: str,
    rows: int = 0,
    columns: int = 0,
    look: Look | None = None,
    names: bool | None = None,
    page_path: str = "",
) -> int:
    """Draws all items in one figure, and a page that plays them.

    Args:
      items: of `find_items`.
      maker: of their panels.
      save_path: the figure's, or "".
      rows: of the grid; 0 takes as many as are needed.
      columns: of the grid, likewise; reconstructions stand beside their originals.
      look: of the figure; labels that it doesn't say are those of pairs, or names.
      names: whether names stand over pictures; None where nothing else says them.
      page_path: the page's folder, or "".

    Returns:
      0, or 1 if something could not be drawn; that is logged, the others are there. If
      it is all, no figure is written.

    Raises:
      InputError: what doesn't fit, or can't be written.
    """
    look = look or Look()
    per_item = maker.per_item
    count = items.count * per_item
    if per_item == 2 and not columns:
        columns = -(-count // rows) if rows else 2
    rows, columns = grid_of(count, rows, columns)
    if columns % per_item:
        raise InputError(
            f"A grid of {columns} columns parts originals from their reconstructions; "
            "take an even number."
        )
    check_figure(count, rows, columns, look)
    make_place(save_path, page_path)
    cells: list[Shown] = []
    with Progress(items.count, "sounds") as progress:
        for item in items.items:
            cells += maker.of(item)
            progress.advance()
    if all(cell.panel.message for cell in cells):
        return maker.report(items.count)
    captions = _captions(look, cells, columns)
    look = _labelled(look, cells, columns, per_item, names)
    cells = [
        cell._replace(caption=caption)
        for cell, caption in zip(cells, captions, strict=True)
    ]
    finish_figure(cells, save_path, rows, columns, look, page_path)
    return maker.report(items.count)


def _captions(look: Look, cells: Sequence[Shown], columns: int) -> list[str]:
    """What a page calls each cell: what the figure has in titles and labels."""
    captions = list(look.titles) or [cell.caption for cell in cells]
    for labels, number in ((look.row_labels, 0), (look.column_labels, 1)):
        if labels:
            captions = [
                f"{caption} - {labels[divmod(i, columns)[number]]}"
                for i, caption in enumerate(captions)
            ]
    return captions


def _labelled(
    look: Look, cells: Sequence[Shown], columns: int, per_item: int, names: bool | None
) -> Look:
    """The look with what nothing says yet: pairs, and names where there is room."""
    has_labels = bool(look.row_labels or look.column_labels)
    if per_item == 2 and not look.column_labels:
        look = dataclasses.replace(look, column_labels=_PAIR * (columns // 2))
    if look.titles or names is False:
        return look
    titles = [cell.panel.name for cell in cells]
    if names is None and per_item == 2 and columns == 2 and not look.row_labels:
        return dataclasses.replace(look, row_labels=titles[::2])
    if names is None and (has_labels or len(cells) == 1):
        return look
    return dataclasses.replace(look, titles=titles)


def finish_figure(
    cells: Sequence[Shown],
    save_path: str,
    rows: int,
    columns: int,
    look: Look,
    page_path: str,
) -> None:
    """Writes the figure of cells, and its page, where they have a path.

    Raises:
      InputError: it can't be written, or is too large.
    """
    panels = [cell.panel for cell in cells]
    if save_path:
        if len(panels) > _MANY:
            logging.info("Drawing %d pictures.", len(panels))
        path = expand(save_path)
        with writing(path):
            write_figure(path, panels, rows, columns, look)
        logging.info("%s: %d x %d pictures.", save_path, rows, columns)
    if page_path:
        folder = expand(page_path)
        page = write_page(
            folder,
            panels,
            [cell.audio for cell in cells],
            [cell.caption for cell in cells],
            columns,
            look.title or os.path.basename(os.path.abspath(folder)),
        )
        logging.info("%s: open it in a browser.", page)


def draw_each(
    items: Items,
    maker: PanelMaker,
    save_path: str,
    look: Look | None = None,
    names: bool | None = None,
    file_format: str = "png",
    skip_existing: bool = False,
    num_workers: int = 1,
) -> int:
    """Draws each item in a file of its own, `<name>.png`.

    Args:
      items: of `find_items`.
      maker: of their panels.
      save_path: the folder to write to.
      look: of the figures.
      names: whether the name stands over the picture.
      file_format: "png", "svg" or "pdf".
      skip_existing: leaves out what is there.
      num_workers: processes that draw, beside this one that reads.

    Returns:
      0, or 1 if some failed; those are logged, the others done.

    Raises:
      InputError: two items with one output, a place that can't be written.
    """
    look = look or Look()
    folder = expand(save_path)
    if items.count < _WORTH_PROCESSES:
        num_workers = 1

    def output_of(item: Item) -> str:
        return os.path.join(folder, item.subfolder, f"{item.name}.{file_format}")

    if not items.are_notes:
        sources = [Source(item.path, item.subfolder) for item in items.items]
        refuse_collisions(sources, map(output_of, items.items))
    make_folder(save_path)
    with Progress(items.count, "sounds") as progress:
        todo = _to_do(items, output_of, maker, skip_existing, progress)

        def calls() -> Iterator[tuple[str, tuple]]:
            for item, output in todo:
                cells = maker.of(item)
                if any(cell.panel.message for cell in cells):
                    progress.advance()
                    continue
                panels = [cell.panel for cell in cells]
                its_look = dataclasses.replace(
                    look,
                    titles=[panel.name for panel in panels] if names else (),
                    column_labels=_PAIR if maker.per_item == 2 else (),
                )
                yield output, (output, panels, 1, len(cells), its_look)

        for output, result in in_processes(write_figure, calls(), num_workers):
            with maker.noting(output), writing(output):
                result()
            progress.advance()
    return maker.report(items.count)


def _to_do(
    items: Items,
    output_of: Callable[[Item], str],
    maker: PanelMaker,
    skip_existing: bool,
    progress: Progress,
) -> Iterator[tuple[Item, str]]:
    """Items and where they go, without those that are done; folders are made."""
    taken: set[str] = set()
    num_done = 0
    for item in items.items:
        output = output_of(item)
        if skip_existing and os.path.exists(output) and output not in taken:
            num_done += 1
            progress.advance()
        elif output in taken:
            with maker.noting(output):
                raise InputError(
                    f"{output}: another note has the same name; not drawn."
                )
            progress.advance()
        else:
            has_folder = False
            with maker.noting(output), writing(output):
                has_folder = True
            if has_folder:
                yield item, output
            else:
                progress.advance()
        taken.add(output)
    if num_done:
        logging.info("%d of %d were there already.", num_done, items.count)
