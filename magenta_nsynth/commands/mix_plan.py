"""Which mixes to make, and what to call them."""

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from magenta_nsynth.audio.mixing import normalized_weights
from magenta_nsynth.embeddings.mixing import (
    crossfade_weights,
    grid_weights,
    line_weights,
)
from magenta_nsynth.errors import InputError

__all__ = ["Mix", "plan_mixes"]

_MOST_MIXES = 10_000
# A file's name has room for 255 bytes, of which "gen_", "_embeddings.wav" and
# ".unfinished" take 30.
_NAMES_BYTES = 120
_WEIGHTS_BYTES = 60
_MOST_NAMED = 6


class Mix(NamedTuple):
    """One mix of the sources.

    Attributes:
      name: of its files, before their endings.
      weights: of each source, that sum to 1; None in a crossfade.
      place: {"step": 0}, {"row": 0, "column": 0}, or {} of a single mix.
    """

    name: str
    weights: np.ndarray | None
    place: dict[str, int]

    @property
    def heaviest(self) -> int:
        """The source that weighs most; of equal ones the first."""
        return 0 if self.weights is None else int(np.argmax(np.abs(self.weights)))


def plan_mixes(
    names: Sequence[str],
    weights: Sequence[float] | None = None,
    steps: int | None = None,
    grid: tuple[int, int] | None = None,
    method: str = "linear",
    stretch: float = 1.0,
    crossfade: tuple[float, float] | None = None,
) -> list[Mix]:
    """The mixes that the flags ask for.

    Args:
      names: of the sources.
      weights: of one mix; None is all equal.
      steps: on the line between two sources.
      grid: its rows and columns, for two to four sources in its corners.
      method: of all mixes, for their names.
      stretch: likewise.
      crossfade: the start and end of one, as parts of the length.

    Raises:
      InputError: what doesn't go together.
    """
    count = len(names)
    _check(count, weights, steps, grid, method, stretch, crossfade)
    # A backslash is a folder's elsewhere, and in names of the baseline's sounds.
    head = _names_text([name.replace("\\", "_") for name in names])
    tail = "" if method == "linear" else f"_{method}"
    if crossfade is not None:
        tail = f"_crossfade{crossfade[0]:g}-{crossfade[1]:g}{tail}"
    if stretch != 1:
        tail += f"_stretch{stretch:g}"
    if count == 1:
        return [Mix(head + tail, np.ones(1), {})]
    if crossfade is not None:
        return [Mix(head + tail, None, {})]
    cells, places, marks = _cells(count, weights, steps, grid)
    return [
        Mix(f"{head}{mark}_{text}{tail}", cell, place)
        for cell, place, mark, text in zip(
            cells, places, marks, _weight_texts(cells), strict=True
        )
    ]


def _check(
    count: int,
    weights: Sequence[float] | None,
    steps: int | None,
    grid: tuple[int, int] | None,
    method: str,
    stretch: float,
    crossfade: tuple[float, float] | None,
) -> None:
    """Raises InputError for what doesn't go together; see `plan_mixes`."""
    given = {
        "--weights": weights is not None,
        "--steps": steps is not None,
        "--grid": grid is not None,
        "--crossfade": crossfade is not None,
    }
    asked = [flag for flag, is_given in given.items() if is_given]
    if len(asked) > 1:
        raise InputError(
            f"{' and '.join(asked)} each say what to mix; give one of them at a time."
        )
    if count == 1 and (asked or stretch == 1 or method != "linear"):
        raise InputError(
            "There is one source, and a mix needs two: repeat --source_path. (One can "
            "be stretched: --stretch=2.)"
        )
    if steps is not None and count != 2:
        raise InputError(f"--steps goes from one source to another, not {count}.")
    if grid is not None and count not in (2, 3, 4):
        raise InputError(
            f"--grid has 2 to 4 corners, a source in each, and there are {count}."
        )
    if crossfade is not None and count != 2:
        raise InputError(f"--crossfade goes from one source to another, not {count}.")
    if crossfade is not None:
        crossfade_weights(2, *crossfade)  # refuses what is none


def _cells(
    count: int,
    weights: Sequence[float] | None,
    steps: int | None,
    grid: tuple[int, int] | None,
) -> tuple[np.ndarray, list[dict[str, int]], list[str]]:
    """The weights [mixes, count], the places, and what of them a name says."""
    number = steps or 1 if grid is None else max(grid[0], 1) * max(grid[1], 1)
    if number > _MOST_MIXES:
        raise InputError(f"{number} mixes are asked for; {_MOST_MIXES} are the most.")
    if steps is not None:
        cells = line_weights(steps)
        return cells, [{"step": i} for i in range(steps)], [""] * steps
    if grid is not None:
        rows, columns = grid
        cells = grid_weights(rows, columns, count).reshape(-1, count)
        places = [{"row": r, "column": c} for r in range(rows) for c in range(columns)]
        # Of two sources the rows are alike, and yet files of their own.
        digits = len(str(rows - 1)), len(str(columns - 1))
        marks = [
            f"_r{p['row']:0{digits[0]}}c{p['column']:0{digits[1]}}" for p in places
        ]
        return cells, places, marks
    return normalized_weights(weights, count)[None], [{}], [""]


def _names_text(names: Sequence[str]) -> str:
    """All names, or as much of them as there is room for and a sum that tells them."""
    text = "+".join(names)
    digest = _digest(text)
    if len(names) > _MOST_NAMED:
        names = [*names[:2], f"{len(names) - 2}_more"]
    elif len(os.fsencode(text)) <= _NAMES_BYTES:
        return text
    room = (_NAMES_BYTES - len(digest)) // len(names) - 1
    return f"{'+'.join(_cut(name, room) for name in names)}~{digest}"


def _weight_texts(cells: np.ndarray) -> list[str]:
    """Weights as names say them, with as many digits as tell them apart."""
    different = len(np.unique(cells, axis=0))
    for digits in (3, 6, 17):
        texts = [_weights_text(cell, digits) for cell in cells]
        if len(set(texts)) == different:
            break
    return texts


def _weights_text(weights: np.ndarray, digits: int) -> str:
    text = "_".join(f"{weight + 0.0:.{digits}g}" for weight in weights)
    if len(text) <= _WEIGHTS_BYTES:
        return text
    return "equal" if len(set(weights)) == 1 else f"weights~{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _cut(text: str, most: int) -> str:
    """The beginning of a text, whole letters of it, in so many bytes."""
    while len(os.fsencode(text)) > most:
        text = text[:-1]
    return text
