"""Which sounds an instrument consists of, where they are played, and their files."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from magenta_nsynth.commands.generate import UNFINISHED
from magenta_nsynth.commands.instrument_sources import Corner, Note
from magenta_nsynth.embeddings.interpolation import grid_weights
from magenta_nsynth.stores import remote, storage

__all__ = ["UNPROCESSED", "Plan", "Point", "Sound", "make_plan"]

UNPROCESSED = "unprocessed"  # the folder of the sounds as they were generated
_DIGITS = 6  # of a weight


class Point(NamedTuple):
    """A point of the grid.

    Attributes:
      row: from the top.
      column: from the left.
    """

    row: int
    column: int

    @property
    def name(self) -> str:
        """What the names of its files start with."""
        return f"r{self.row}c{self.column}"


@dataclasses.dataclass(frozen=True)
class Sound:
    """A mix at one pitch. Points with the same mix share it.

    Attributes:
      point: the first of its points.
      pitch: what it is to sound at.
      parts: the sources with a weight above 0, and that weight.
      request: all that its samples depend on, as JSON values.
    """

    point: Point
    pitch: int
    parts: Sequence[tuple[Note, float]]
    request: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its finished file, without extension."""
        return f"{self.point.name}_{self.pitch:03}"

    @functools.cached_property
    def key(self) -> str:
        """Tells sounds apart, from run to run, whatever the size of the grid."""
        text = json.dumps(self.request, sort_keys=True)
        return f"{self.pitch:03}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def unprocessed(self, folder: str) -> str:
        """The path of its file as it was generated."""
        return storage.join(folder, UNPROCESSED, f"{self.key}.wav")

    def is_made(self, folder: str, look: remote.Look) -> bool:
        """Whether that file is complete.

        Args:
          folder: the instrument's.
          look: how a store is asked; `remote.listing()` for many sounds.
        """
        path = self.unprocessed(folder)
        is_file = storage.isfile(path, look)
        return is_file and not storage.exists(path + UNFINISHED, look)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sounds of an instrument, or of its corners.

    Attributes:
      names: of the sources.
      cells: the rows and columns of the whole grid.
      pitches: ascending.
      weights: [rows, columns, sources], of the whole grid.
      places: the sound of each point and pitch, by point.
    """

    names: Sequence[str]
    cells: tuple[int, int]
    pitches: Sequence[int]
    weights: np.ndarray
    places: Mapping[Point, Mapping[int, Sound]]

    @property
    def sounds(self) -> list[Sound]:
        """Each sound once, those of the corners first."""
        points = sorted(self.places, key=lambda point: not self.is_corner(point))
        by_key: dict[str, Sound] = {}
        for point in points:
            for sound in self.places[point].values():
                by_key.setdefault(sound.key, sound)
        return list(by_key.values())

    def is_corner(self, point: Point) -> bool:
        """Whether a point is one of the four corners."""
        rows, columns = self.cells
        return point.row in (0, rows - 1) and point.column in (0, columns - 1)

    def corners(self) -> "Plan":
        """The corners alone, as an instrument of their own."""
        places = {
            point: sounds
            for point, sounds in self.places.items()
            if self.is_corner(point)
        }
        return dataclasses.replace(self, places=places)


def make_plan(
    corners: Sequence[Corner],
    cells: tuple[int, int],
    notes: Mapping[int, Sequence[Note]],
    facts: Mapping[str, Any],
) -> Plan:
    """Plans an instrument.

    Args:
      corners: the sources.
      cells: the rows and columns of the grid.
      notes: by pitch, ascending, that of each source.
      facts: what the samples of all sounds depend on, as JSON values.
    """
    weights = np.round(_weights(cells, len(corners)), _DIGITS)
    points = [Point(*place) for place in itertools.product(*map(range, cells))]
    digests = {pitch: [note.digest for note in its] for pitch, its in notes.items()}
    made: dict[str, Sound] = {}

    def sound_at(point: Point, pitch: int) -> Sound:
        shares = weights[point].tolist()
        heard = [number for number, share in enumerate(shares) if share > 0]
        parts = [(notes[pitch][number], shares[number]) for number in heard]
        request = {
            **facts,
            "pitch": pitch,
            "parts": [[digests[pitch][number], shares[number]] for number in heard],
        }
        sound = Sound(point, pitch, parts, request)
        return made.setdefault(sound.key, sound)

    # Corners first: a sound has the name of the first of its points.
    plan = Plan([c.name for c in corners], cells, list(notes), weights, {})
    first = sorted(points, key=lambda point: not plan.is_corner(point))
    places = {p: {pitch: sound_at(p, pitch) for pitch in notes} for p in first}
    return dataclasses.replace(plan, places={p: places[p] for p in points})


def _weights(cells: tuple[int, int], count: int) -> np.ndarray:
    """Those of `grid_weights`; a single source is everywhere the same."""
    return np.ones([*cells, 1]) if count == 1 else grid_weights(*cells, count)
