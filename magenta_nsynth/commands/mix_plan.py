"""Which mixes to make, and their names."""

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from magenta_nsynth.audio.loudness import normalized_weights
from magenta_nsynth.commands.mix_options import Mixing
from magenta_nsynth.embeddings.interpolation import (
    crossfade_weights,
    grid_weights,
    line_weights,
)
from magenta_nsynth.errors import InputError

__all__ = ["Mix", "plan_mixes"]

_MOST_MIXES = 10_000
# A file's name has room for 255 bytes; "gen_", "_embeddings.wav", ".unfinished" and
# what the options add take the rest.
_NAMES_BYTES = 120
_WEIGHTS_BYTES = 60
_MOST_NAMED = 6


class Mix(NamedTuple):
    """One mix of the sources.

    Attributes:
      name: what the names of its files start with.
      weights: of the sources, float64 [count], with a sum of 1. Those of a crossfade
        change over time; here they are equal.
      place: {"step": 0}, or {"row": 0, "column": 0}, or {} for a single mix.
      mixing: the method, the stretch and the crossfade.
    """

    name: str
    weights: np.ndarray
    place: dict[str, int]
    mixing: Mixing

    @property
    def heaviest(self) -> int:
        """The index of the source with the largest weight, the first of equals."""
        return int(np.argmax(np.abs(self.weights)))

    def weights_over(self, length: int) -> np.ndarray:
        """The weights of `length` frames or samples: [count], or [count, length]."""
        if self.mixing.crossfade is None:
            return self.weights
        start, end = self.mixing.crossfade
        return crossfade_weights(length, start, end)


def plan_mixes(names: Sequence[str], mixing: Mixing) -> list[Mix]:
    """The mixes that the options ask for.

    Args:
      names: one per source.
      mixing: the options, for which `Mixing.check` has raised nothing.

    Raises:
      InputError: the options are for another number of sources, or too many mixes.
    """
    count = len(names)
    _check_count(count, mixing)
    # On other systems a backslash separates folders; a note's id may contain one.
    head = _names_text([name.replace("\\", "_") for name in names])
    tail = "" if mixing.method == "linear" else f"_{mixing.method}"
    if mixing.crossfade is not None:
        start, end = mixing.crossfade
        crossfade_weights(2, start, end)  # raises InputError if they can't be used
        tail = f"_crossfade{start:g}-{end:g}{tail}"
    if mixing.stretch != 1:
        tail += f"_stretch{mixing.stretch:g}"
    if count == 1 or mixing.crossfade is not None:
        return [Mix(head + tail, np.full(count, 1 / count), {}, mixing)]
    weights, places = _weights_and_places(count, mixing)
    return [
        Mix(f"{head}{mark}_{text}{tail}", row, place, mixing)
        for row, place, mark, text in zip(
            weights, places, _marks(mixing, places), _weight_texts(weights), strict=True
        )
    ]


def _check_count(count: int, mixing: Mixing) -> None:
    """Raises InputError for options that are for another number of sources."""
    can_be_one = mixing.stretch != 1 and mixing.method == "linear" and not mixing.which
    if count == 1 and not can_be_one:
        raise InputError(
            "There is one source, and a mix needs two: repeat --source_path. (A single "
            "source can be stretched: --stretch=2.)"
        )
    for flag, value in (("steps", mixing.steps), ("crossfade", mixing.crossfade)):
        if value is not None and count != 2:
            raise InputError(f"--{flag} needs two sources, and there are {count}.")
    if mixing.cells is not None and count not in (2, 3, 4):
        raise InputError(
            f"--grid needs 2 to 4 sources, one per corner, and there are {count}."
        )


def _weights_and_places(
    count: int, mixing: Mixing
) -> tuple[np.ndarray, list[dict[str, int]]]:
    """The weights of all mixes, [mixes, count], and their places."""
    rows, columns = mixing.cells or (1, mixing.steps or 1)
    if rows * columns > _MOST_MIXES:
        raise InputError(
            f"These are {rows * columns} mixes, and at most {_MOST_MIXES} are made at "
            "a time; ask for fewer."
        )
    if mixing.steps is not None:
        return line_weights(mixing.steps), [{"step": i} for i in range(mixing.steps)]
    if mixing.cells is not None:
        places = [{"row": r, "column": c} for r in range(rows) for c in range(columns)]
        return grid_weights(rows, columns, count).reshape(-1, count), places
    return normalized_weights(mixing.weights, count)[None], [{}]


def _marks(mixing: Mixing, places: Sequence[dict[str, int]]) -> list[str]:
    """What the names say of the places: in a grid of two sources, rows are equal."""
    if mixing.cells is None:
        return [""] * len(places)
    digits = [len(str(size - 1)) for size in mixing.cells]
    return [
        f"_r{place['row']:0{digits[0]}}c{place['column']:0{digits[1]}}"
        for place in places
    ]


def _names_text(names: Sequence[str]) -> str:
    """The sources' names; if they are too long, shortened and with a checksum."""
    text = "+".join(names)
    digest = _digest(text)
    if len(names) > _MOST_NAMED:
        names = [*names[:2], f"{len(names) - 2}_more"]
    elif len(os.fsencode(text)) <= _NAMES_BYTES:
        return text
    room = (_NAMES_BYTES - len(digest)) // len(names) - 1
    return f"{'+'.join(_cut(name, room) for name in names)}~{digest}"


def _weight_texts(weights: np.ndarray) -> list[str]:
    """The weights [mixes, count] as text, with enough digits to tell them apart."""
    different = len(np.unique(weights, axis=0))
    for digits in (3, 6, 17):
        texts = [_weights_text(row, digits) for row in weights]
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
    """As many of a text's first characters as fit into this many bytes."""
    while len(os.fsencode(text)) > most:
        text = text[:-1]
    return text
