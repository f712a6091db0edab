"""Pictures of sounds, notes or embeddings: a figure, a file each, or a circle."""

import dataclasses
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import read_audio
from magenta_nsynth.audio.loudness import sum_signals
from magenta_nsynth.commands.common import (
    check_arguments,
    generated_name,
    make_folder,
    writing,
)
from magenta_nsynth.commands.generate import embed
from magenta_nsynth.commands.picture_labels import (
    labelled,
    labelled_alone,
    listed,
)
from magenta_nsynth.commands.picture_options import (
    Additions,
    PictureOutput,
    RainbowgramOptions,
)
from magenta_nsynth.commands.picture_panels import (
    PanelMaker,
    Subject,
    Subjects,
    find_subjects,
)
from magenta_nsynth.commands.picture_sounds import (
    claimed_folder,
    generate_missing,
    reconstruct,
    settings_of,
)
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.embeddings.embedding import save_array
from magenta_nsynth.embeddings.files import Embedding
from magenta_nsynth.embeddings.interpolation import mix
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, refuse_collisions
from magenta_nsynth.formatting import counted
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.parallel import in_processes
from magenta_nsynth.plotting.figure import check_figure, write_figure
from magenta_nsynth.plotting.options import Look, grid_of
from magenta_nsynth.plotting.page import check_page_folder, write_page
from magenta_nsynth.plotting.panel import Panel
from magenta_nsynth.progress import Progress
from magenta_nsynth.stores import remote, storage

__all__ = ["Circle", "draw_each", "draw_one_figure", "draw_rainbowgrams"]

_ROWS = ("Sounds and their sums", "Generated from embeddings and their means")
# What a picture is of one sound, and of two neighbours.
_ABOVE = ("original", "sum of the signals")
_BELOW = ("reconstruction", "mean of the embeddings")


class Circle:
    """Sounds around a circle, and between neighbours their sums and means.

    The columns are the first sound, the first and second, the second, and so on to the
    last and first, and the first again (two sounds: a line). The upper row shows the
    mean of the signals, the lower what is generated from the mean of the embeddings.

    Source: the figure of NSynth's announcement.
    """

    def __init__(self, subjects: Subjects) -> None:
        """Takes two sounds or more, in order.

        Raises:
          InputError: too few, or others than sound files.
        """
        self._sounds: list[Subject] = []
        if subjects.are_files:
            self._sounds = [s for s in subjects.subjects if not s.source.is_npy]
        if len(self._sounds) < max(2, subjects.number):
            raise InputError("--circle needs two sound files or more.")
        self._columns = _columns(len(self._sounds))
        self._names = [
            " + ".join(self._sounds[i].name for i in members)
            for members in self._columns
        ]

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns."""
        return len(_ROWS), len(self._columns)

    @property
    def heading(self) -> str:
        """The heading of a page, unless the user gives another."""
        return f"Between {listed([sound.name for sound in self._sounds])}"

    def labelled(self, look: Look) -> Look:
        """A look with the labels of the circle, unless it has others."""
        return dataclasses.replace(
            look,
            row_labels=look.row_labels or _ROWS,
            column_labels=look.column_labels or self._names,
        )

    def panels(
        self,
        model: WaveNet,
        maker: PanelMaker,
        folder: str,
        generation: Generation,
    ) -> tuple[list[Panel], int]:
        """Makes the sounds and their panels, row by row.

        Args:
          model: the opened checkpoint.
          maker: of the panels.
          folder: for generated sounds; those that are finished are used again.
          generation: how.

        Returns:
          The panels; and 0, or 1 if a sound could not be generated, which is logged.

        Raises:
          NSynthError: a sound can't be used.
          InputError: as `claimed_folder`.
        """
        make_folder(folder, "--sounds_path")
        check_arguments(model, folder, 0, generation.batch_size)
        clips = [subject.load_sound() for subject in self._sounds]
        sounds = [embed(model, clip) for clip in clips]
        rows = [mix([sounds[i].rows for i in members]) for members in self._columns]
        sums = [
            sum_signals([clips[i].audio[: sounds[i].num_samples] for i in members])
            for members in self._columns
        ]
        generated, status = self._generate(model, folder, rows, generation)
        panels = [
            maker.sound(name, audio)
            for name, audio in zip(self._names, sums, strict=True)
        ]
        panels += [
            maker.sound(name, audio, z)
            for name, audio, z in zip(self._names, generated, rows, strict=True)
        ]
        kinds = [
            row[len(members) - 1]
            for row, members in itertools.product((_ABOVE, _BELOW), self._columns)
        ]
        return [
            dataclasses.replace(panel, caption=f"{panel.name}: {kind}")
            for panel, kind in zip(panels, kinds, strict=True)
        ], status

    def _generate(
        self,
        model: WaveNet,
        folder: str,
        rows: Sequence[np.ndarray],
        generation: Generation,
    ) -> tuple[list[np.ndarray], int]:
        """The sound of each column, and the exit status; equal columns share one."""
        mixes = {}  # by the name of its file
        stems = []
        for name, members, z in zip(self._names, self._columns, rows, strict=True):
            # The numbers tell apart sounds of one name, and shortened names.
            number = "+".join(str(i + 1) for i in members)
            words = re.sub(r"[^\w+.-]+", "_", name.replace(" + ", "+"))[:60]
            stems.append(f"{number}_{words}_embeddings")
            mixes[stems[-1]] = z
        checksums = {
            generated_name(s): zlib.crc32(z.tobytes()) for s, z in mixes.items()
        }
        settings = settings_of(model, generation)
        paths = {s: storage.join(expand(folder), generated_name(s)) for s in mixes}
        with claimed_folder(folder, settings, checksums):
            embeddings = {}
            for stem, z in mixes.items():
                where = storage.join(expand(folder), f"{stem}.npy")
                with writing(where):
                    save_array(where, z)
                num_samples = model.config.num_samples(len(z))
                embedding = Embedding(stem, where, z, num_samples)
                embeddings[paths[stem]] = lambda embedding=embedding: embedding
            status = generate_missing(model, embeddings, generation)
        return [read_audio(paths[stem]) for stem in stems], status


def _columns(count: int) -> list[tuple[int, ...]]:
    """The sounds of each column: one, or two neighbours."""
    if count == 2:
        return [(0,), (0, 1), (1,)]
    columns: list[tuple[int, ...]] = []
    for i in range(count):
        columns += [(i,), (i, (i + 1) % count)]
    return [*columns, (0,)]


_MANY = 200  # pictures that take a while to draw
_WORTH_PROCESSES = 8  # files; fewer are drawn faster than processes start


def draw_rainbowgrams(
    model: WaveNet | None,
    inputs: Inputs,
    note_filter: NoteFilter,
    output: PictureOutput,
    options: RainbowgramOptions,
    look: Look,
    additions: Additions,
    generation: Generation,
) -> int:
    """Draws sounds, notes of TFRecords or embeddings.

    Args:
      model: the opened checkpoint, if `additions` need one.
      inputs: what to read.
      note_filter: which notes of TFRecords to draw.
      output: where pictures go.
      options: how sounds are drawn.
      look: of the figures.
      additions: what is drawn beside and below the sounds.
      generation: how sounds are generated.

    Returns:
      0, or 1 if something could not be drawn; that is logged, the rest is done.

    Raises:
      InputError: nothing to read, options that don't go together, or a place that
        can't be written to.
    """
    sounds_path = additions.sounds_path or output.default_sounds_path
    written = [path for path in (output.save_path, output.html, sounds_path) if path]
    subjects = find_subjects(inputs, note_filter, written)
    if additions.generates and not additions.circle and model is not None:
        if output.is_figure:  # a page in the way shows before hours of work
            _make_place(output)
        reconstruct(model, subjects, sounds_path, inputs.sample_length, generation)
        additions = dataclasses.replace(additions, reconstructions_path=sounds_path)
    maker = PanelMaker(
        options, additions, model, inputs.sample_length, keep_audio=bool(output.html)
    )
    if additions.circle and model is not None:
        circle = Circle(subjects)
        look = circle.labelled(look)
        rows, columns = circle.grid
        check_figure(rows * columns, rows, columns, look)  # before hours of work
        _make_place(output)
        panels, status = circle.panels(model, maker, sounds_path, generation)
        _write(output, panels, circle.grid, look, look.title or circle.heading)
        return max(status, maker.report(len(panels)))
    draw = draw_one_figure if output.is_figure else draw_each
    return draw(subjects, maker, output, look)


def draw_one_figure(
    subjects: Subjects, maker: PanelMaker, output: PictureOutput, look: Look
) -> int:
    """Draws all subjects in one figure, and a page that plays them.

    Args:
      subjects: of `find_subjects`.
      maker: of their panels.
      output: where they go. A grid that it does not give is as large as needed;
        reconstructions stand beside their originals.
      look: of the figure. Labels that it does not give are those of pairs, or names.

    Returns:
      0, or 1 if something could not be drawn; that is logged, the rest is drawn. If
      nothing could, no figure is written.

    Raises:
      InputError: a grid or labels that don't fit, or a place that can't be written to.
    """
    per_subject = maker.per_subject
    count = subjects.number * per_subject
    rows, columns = output.grid_size
    if per_subject == 2 and not columns:
        columns = -(-count // rows) if rows else 2
    rows, columns = grid_of(count, rows, columns)
    if columns % per_subject:
        raise InputError(
            f"A grid of {columns} columns separates originals from their "
            "reconstructions; give an even number."
        )
    check_figure(count, rows, columns, look)
    _make_place(output)
    panels: list[Panel] = []
    with Progress(subjects.number, "sounds") as progress:
        for subject in subjects.subjects:
            panels += maker.of(subject)
            progress.advance()
    if not all(panel.message for panel in panels):
        names = [panel.name for panel in panels]
        look, captions, heading = labelled(
            look, names, columns, per_subject, output.names
        )
        panels = [
            dataclasses.replace(panel, caption=caption)
            for panel, caption in zip(panels, captions, strict=True)
        ]
        _write(output, panels, (rows, columns), look, heading)
    return maker.report(subjects.number)


def _make_place(output: PictureOutput) -> None:
    """Makes the folders of a figure and a page, before their content is made.

    Raises:
      InputError: one can't be written to, or contains a page that is not ours.
    """
    if output.save_path:
        make_folder(os.path.dirname(expand(output.save_path)) or ".")
    if output.html:
        make_folder(output.html, "--html")
        check_page_folder(expand(output.html))


def _write(
    output: PictureOutput,
    panels: Sequence[Panel],
    grid: tuple[int, int],
    look: Look,
    heading: str,
) -> None:
    """Writes the figure and the page, if they have a path.

    Args:
      output: where they go.
      panels: what they show.
      grid: the rows and columns.
      look: of the figure.
      heading: of the page.

    Raises:
      InputError: one can't be written, or is too large.
    """
    if output.save_path:
        if len(panels) > _MANY:
            logging.info("Drawing %d pictures.", len(panels))
        path = expand(output.save_path)
        with writing(path):
            write_figure(path, panels, *grid, look)
        logging.info("%s: %d x %d pictures.", output.save_path, *grid)
    if output.html:
        folder = expand(output.html)
        page = write_page(folder, panels, grid[1], heading, look.own_width)
        logging.info("%s: open it in a browser.", page)


def draw_each(
    subjects: Subjects, maker: PanelMaker, output: PictureOutput, look: Look
) -> int:
    """Draws each subject in a file of its own, `<name>.png`.

    Args:
      subjects: of `find_subjects`.
      maker: of their panels.
      output: the folder and format of the files.
      look: of the figures.

    Returns:
      0, or 1 if some failed; those are logged, the others done.

    Raises:
      InputError: two subjects with one output, or a place that can't be written to.
    """
    num_workers = output.num_workers or os.cpu_count() or 1
    if subjects.number < _WORTH_PROCESSES:
        num_workers = 1
    folder = expand(output.save_path)

    def path_of(subject: Subject) -> str:
        name = f"{subject.name}.{output.format}"
        return storage.join(folder, subject.source.mirrored, name)

    if subjects.are_files:
        files = list(subjects.subjects)
        refuse_collisions([s.source for s in files], map(path_of, files))
    make_folder(output.save_path)
    num_written = 0
    with Progress(subjects.number, "sounds") as progress:
        todo = _to_do(subjects, path_of, maker, output.skip_existing, progress)

        def calls() -> Iterator[tuple[str, tuple]]:
            for subject, path in todo:
                panels = maker.of(subject)
                if any(panel.message for panel in panels):
                    progress.advance()
                    continue
                own_look = labelled_alone(
                    look, subject.name, maker.per_subject, output.names
                )
                yield path, (path, panels, 1, len(panels), own_look)

        for path, result in in_processes(write_figure, calls(), num_workers):
            with maker.noting(path), writing(path):
                result()
                num_written += 1
            progress.advance()
    status = maker.report(subjects.number)
    logging.info("Written: %s in %s.", counted(num_written, "picture"), folder)
    return status


def _to_do(
    subjects: Subjects,
    path_of: Callable[[Subject], str],
    maker: PanelMaker,
    skip_existing: bool,
    progress: Progress,
) -> Iterator[tuple[Subject, str]]:
    """Subjects and their files, without those that are done; makes the folders."""
    taken: set[str] = set()
    look = remote.listing()
    num_done = 0
    for subject in subjects.subjects:
        path = path_of(subject)
        can_be_drawn = False
        if path in taken:
            with maker.noting(path):
                raise InputError(f"{path}: another note has the same name; not drawn.")
        elif skip_existing and storage.exists(path, look):
            num_done += 1
        else:
            with maker.noting(path), writing(path):
                can_be_drawn = True
        taken.add(path)
        if can_be_drawn:
            yield subject, path
        else:
            progress.advance()
    if num_done:
        logging.info("%d of %d are done already.", num_done, subjects.number)
