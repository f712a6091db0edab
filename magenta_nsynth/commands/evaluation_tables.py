"""What nsynth_evaluate measured, as a table and as JSON."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from magenta_nsynth.schema import FAMILIES
from magenta_nsynth.training.evaluation import NoteLosses
from magenta_nsynth.training.recipes import Recipe
from magenta_nsynth.training.reconstruction import (
    CONSTANT,
    RECONSTRUCTION,
    Reconstructions,
)

__all__ = ["Measured", "table"]

_ALL, _UNKNOWN = "all", "unknown"


class _Column(NamedTuple):
    """A column of the table of reconstructions.

    Attributes:
      title: its first line.
      figure: the name in `Reconstructions.figures`.
      form: how its numbers are shown, for str.format.
    """

    title: str
    figure: str
    form: str


_COLUMNS = (
    _Column("in tune", "in_tune", "{:.1%}"),
    _Column("of clear", "clear_in_tune", "{:.1%}"),
    _Column("octave", "octave_off", "{:.1%}"),
    _Column("no pitch", "no_pitch", "{:.1%}"),
    _Column("cents", "cents_off", "{:.0f}"),
    _Column("level dB", "level_db", "{:.1f}"),
    _Column("spec dB", "spectral_db", "{:.1f}"),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of notes, all in the same order.

    Attributes:
      recipe: the model's.
      losses: of each note.
      yardsticks: the losses [n] of linear predictors, by their order.
      sounds: the reconstructions, if there are any.
    """

    recipe: Recipe
    losses: NoteLosses
    yardsticks: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    sounds: Reconstructions | None = None

    def groups(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields each family's name and the numbers of its notes; "all" comes last."""
        families = self.losses.families
        names = np.array([*FAMILIES, _UNKNOWN])
        is_unknown = (families < 0) | (families >= len(FAMILIES))
        labels = names[np.where(is_unknown, -1, families)]
        for name in names:
            if name in labels:
                yield str(name), np.flatnonzero(labels == name)
        yield _ALL, np.arange(len(families))

    def mean_losses(self, losses: np.ndarray) -> dict[str, float]:
        """The mean of losses [n], in each of its units."""
        return self.recipe.losses(float(losses.mean(dtype=np.float64)))

    def to_json(self) -> dict[str, Any]:
        """All figures, as JSON values; a number that does not exist is null."""
        result: dict[str, Any] = {
            "families": {name: self._of(notes) for name, notes in self.groups()}
        }
        if self.sounds is not None:
            result["constant_pitch"] = self.sounds.constant_pitch
            result["notes"] = [
                {
                    **self.sounds.note(i),
                    "family": self._family(i),
                    **self.recipe.losses(float(loss)),
                }
                for i, loss in enumerate(self.losses.losses)
            ]
        return result

    def _family(self, note: int) -> str:
        index = int(self.losses.families[note])
        return FAMILIES[index] if 0 <= index < len(FAMILIES) else _UNKNOWN

    def _of(self, notes: np.ndarray) -> dict[str, Any]:
        """The figures of some notes together."""
        values: dict[str, Any] = {
            "notes": len(notes),
            **self.mean_losses(self.losses.losses[notes]),
        }
        if self.yardsticks:
            values["linear_predictor"] = {
                str(order): self.mean_losses(losses[notes])
                for order, losses in self.yardsticks.items()
            }
        if self.sounds is not None:
            for kind in self.sounds.kinds:
                values[kind] = self.sounds.figures(kind, notes.tolist())
        return values


def table(measured: Measured) -> str:
    """The lines to print: per family the mean loss in each unit, and the sounds.

    Args:
      measured: what to show.
    """
    if measured.sounds is None:
        return _table_of_losses(measured)
    return _table_of_sounds(measured, measured.sounds)


def _table_of_losses(measured: Measured) -> str:
    units = [name.removeprefix("loss_") for name in measured.recipe.losses(0.0)]
    lines = [f"{'family':<12} {'notes':>7}" + "".join(f" {u:>8}" for u in units)]
    losses = measured.losses.losses
    rows = [(name, losses[notes]) for name, notes in measured.groups()]
    rows += [(_linear(order), values) for order, values in measured.yardsticks.items()]
    for name, values in rows:
        lines.append(f"{name:<12} {len(values):>7}{_loss_cells(measured, values)}")
    return "\n".join(lines)


def _table_of_sounds(measured: Measured, sounds: Reconstructions) -> str:
    units = [name.removeprefix("loss_") for name in measured.recipe.losses(0.0)]
    titles = "".join(f" {column.title:>8}" for column in _COLUMNS)
    losses = "".join(f" {unit:>8}" for unit in units)
    lines = [f"{'family':<10} {'notes':>5} {'sound':<14}{titles}{losses}"]
    for name, notes in measured.groups():
        for kind in sounds.kinds:
            values = sounds.figures(kind, notes.tolist())
            label = f"{kind} {sounds.constant_pitch}" if kind == CONSTANT else kind
            line = f"{name:<10} {len(notes):>5} {label:<14}{_sound_cells(values)}"
            if kind == RECONSTRUCTION:
                line += _loss_cells(measured, measured.losses.losses[notes])
            lines.append(line)
    blank = _sound_cells(dict.fromkeys(column.figure for column in _COLUMNS))
    for order, losses_of in measured.yardsticks.items():
        start = f"{_ALL:<10} {len(losses_of):>5} {_linear(order):<14}"
        lines.append(start + blank + _loss_cells(measured, losses_of))
    return "\n".join(lines)


def _linear(order: int) -> str:
    return f"linear {order}"


def _sound_cells(figures: Mapping[str, float | None]) -> str:
    cells = []
    for column in _COLUMNS:
        value = figures[column.figure]
        cells.append("-" if value is None else column.form.format(value))
    return "".join(f" {cell:>8}" for cell in cells)


def _loss_cells(measured: Measured, losses: np.ndarray) -> str:
    digits = 4 if measured.recipe.is_likelihood else 6
    means = measured.mean_losses(losses).values()
    return "".join(f" {mean:>8.{digits}f}" for mean in means)
