"""A circle of sounds: what lies between neighbours, as in NSynth's announcement."""

import dataclasses
import os
import re
import zlib
from collections.abc import Sequence

import numpy as np

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
from magenta_nsynth.commands.picture_panels import PanelMaker
from magenta_nsynth.commands.picture_sounds import (
    claimed_folder,
    generate_missing,
    settings_of,
)
from magenta_nsynth.commands.picture_sources import Subject, Subjects
from magenta_nsynth.embeddings.arrays import save_array
from magenta_nsynth.embeddings.files import Embedding
from magenta_nsynth.embeddings.interpolation import mix
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.plotting.options import Look
from magenta_nsynth.plotting.panel import Panel

__all__ = ["Circle"]

_ROWS = ("Sum of the signals", "Mean of the embeddings")


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
        return [
            dataclasses.replace(panel, caption=f"{panel.name}: {row.lower()}")
            for panel, row in zip(panels, np.repeat(_ROWS, len(rows)), strict=True)
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
        paths = {s: os.path.join(expand(folder), generated_name(s)) for s in mixes}
        with claimed_folder(folder, settings, checksums):
            embeddings = {}
            for stem, z in mixes.items():
                where = os.path.join(expand(folder), f"{stem}.npy")
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
