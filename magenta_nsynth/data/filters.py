"""Which notes to read: by family, source, pitch, velocity and quality."""

import dataclasses
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from magenta_nsynth.errors import InputError
from magenta_nsynth.options import option
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES

if TYPE_CHECKING:  # --help must not import NumPy
    import numpy as np

__all__ = ["NoteFilter"]

_MAX_MIDI = 127  # of pitches and velocities


def _velocities(words: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise InputError(
            f"--velocities={','.join(words)}: give integers from 0 to {_MAX_MIDI}, "
            "separated by commas."
        ) from None


@dataclasses.dataclass(frozen=True)
class NoteFilter:
    """Which notes to read.

    An empty field admits every note. A note whose label is unknown (-1) does not pass
    a filter on that label.

    Attributes:
      families: names or indices in `FAMILIES`; the note is of one of them.
      sources: names or indices in `SOURCES`; the note is of one of them.
      min_pitch: MIDI, inclusive.
      max_pitch: MIDI, inclusive.
      velocities: 0 to 127; the note has one of them.
      qualities: names or indices in `QUALITIES`; the note has all of them.
      without_qualities: likewise; the note has none of them.

    Raises:
      InputError: an unknown name or index, or an empty range of pitches.

    Examples:
      >>> from magenta_nsynth.data.reading import NoteFilter
      >>> NoteFilter(families=["bass", "flute"], min_pitch=60).families
      (0, 2)
      >>> NoteFilter(sources="acustic")
      Traceback (most recent call last):
      ...
      magenta_nsynth.errors.InputError: sources: there is no 'acustic'; use acoustic,
      electronic or synthetic (or 0 to 2).
    """

    families: Iterable[str | int] = option(
        (), "Use only notes of these families (bass, flute ...), separated by commas."
    )
    sources: Iterable[str | int] = option(
        (), "Use only notes of these sources (acoustic, electronic, synthetic)."
    )
    min_pitch: int | None = option(None, "Use no note below this MIDI pitch.")
    max_pitch: int | None = option(None, "Use no note above this MIDI pitch.")
    velocities: Iterable[int] = option(
        (), "Use only notes of these velocities.", parse=_velocities
    )
    qualities: Iterable[str | int] = option(
        (), "Use only notes that have all of these qualities (bright, percussive ...)."
    )
    without_qualities: Iterable[str | int] = ()

    def __post_init__(self) -> None:
        """Turns names into numbers and refuses impossible filters."""
        for field, known in (
            ("families", FAMILIES),
            ("sources", SOURCES),
            ("qualities", QUALITIES),
            ("without_qualities", QUALITIES),
        ):
            numbers = tuple(
                _number(value, field, known) for value in _values(getattr(self, field))
            )
            object.__setattr__(self, field, numbers)
        velocities = tuple(
            _midi(value, "velocities") for value in _values(self.velocities)
        )
        object.__setattr__(self, "velocities", velocities)
        for field in ("min_pitch", "max_pitch"):
            if getattr(self, field) is not None:
                _midi(getattr(self, field), field)
        low, high = self.pitch_range
        if low > high:
            raise InputError(f"min_pitch={low} is above max_pitch={high}; swap them.")
        both = {*self.qualities} & {*self.without_qualities}
        if both:
            names = ", ".join(n for i, n in enumerate(QUALITIES) if i in both)
            raise InputError(
                f"A note can't both have and lack a quality ({names}); remove it from "
                "qualities or from without_qualities."
            )

    @property
    def pitch_range(self) -> tuple[int, int]:
        """The lowest and the highest MIDI pitch that pass."""
        low = 0 if self.min_pitch is None else self.min_pitch
        return low, _MAX_MIDI if self.max_pitch is None else self.max_pitch

    @property
    def features(self) -> tuple[str, ...]:
        """The features that the filter needs; () if every note passes."""
        asked = {
            "instrument_family": self.families,
            "instrument_source": self.sources,
            "pitch": self.min_pitch is not None or self.max_pitch is not None,
            "velocity": self.velocities,
            "qualities": self.qualities or self.without_qualities,
        }
        return tuple(name for name, value in asked.items() if value)

    def admits(self, values: Mapping[str, "np.ndarray"]) -> "np.ndarray":
        """Tells which notes pass.

        Args:
          values: int64 [n] for each of `features`; [n, 10] for qualities.

        Returns:
          bool [n].
        """
        import numpy as np

        parts = []
        for name in self.features:
            value = values[name]
            if name == "pitch":
                low, high = self.pitch_range
                parts.append((value >= low) & (value <= high))
            elif name == "qualities":
                present = np.array(list(self.qualities), int)
                absent = np.array(list(self.without_qualities), int)
                parts.append((value[:, present] == 1).all(axis=1))
                parts.append((value[:, absent] == 0).all(axis=1))
            else:
                wanted = {
                    "instrument_family": self.families,
                    "instrument_source": self.sources,
                    "velocity": self.velocities,
                }[name]
                parts.append(np.isin(value, list(wanted)))
        return np.logical_and.reduce(parts)


def _values(given: Iterable | str | int) -> list:
    """The values as a list, also if a single one was given."""
    return [given] if isinstance(given, (str, int, numbers.Integral)) else list(given)


def _number(value: str | int, field: str, known: tuple[str, ...]) -> int:
    if isinstance(value, str) and value.lower() in known:
        return known.index(value.lower())
    if isinstance(value, (int, numbers.Integral)) and 0 <= value < len(known):
        return int(value)
    raise InputError(
        f"{field}: there is no {value!r}; use {', '.join(known[:-1])} or {known[-1]} "
        f"(or 0 to {len(known) - 1})."
    )


def _midi(value: int, field: str) -> int:
    if isinstance(value, (int, numbers.Integral)) and 0 <= value <= _MAX_MIDI:
        return int(value)
    raise InputError(f"{field}: {value!r} is not an integer from 0 to {_MAX_MIDI}.")
