"""How a figure looks, and whether that can be drawn."""

import dataclasses
import math
from collections.abc import Sequence

from magenta_nsynth.errors import InputError
from magenta_nsynth.plotting.axes import AXES

__all__ = ["Look", "grid_of"]


@dataclasses.dataclass(frozen=True)
class Look:
    """How a figure looks.

    Attributes:
      axis: beside each picture: "none" as in the original, "notes" or "hz", which
        writes seconds below too.
      dpi: pixels per inch.
      height: of a picture, in inches.
      font: a font family's name, "" for matplotlib's own.
      title: over all.
      titles: over each picture; () for none.
      row_labels: at the left of each row; () for none.
      column_labels: under each column; () for none.
      own_width: stretches each picture to its cell. By default all have one scale of
        time, and a shorter sound ends earlier.
    """

    axis: str = "none"
    dpi: int = 150
    height: float = 1.9
    font: str = ""
    title: str = ""
    titles: Sequence[str] = ()
    row_labels: Sequence[str] = ()
    column_labels: Sequence[str] = ()
    own_width: bool = False

    def check(self, num_panels: int, rows: int, columns: int) -> None:
        """Raises InputError unless it can be drawn, of so many pictures in a grid."""
        if self.axis not in AXES:
            raise InputError(f"axis must be {', '.join(AXES)}, not {self.axis!r}.")
        if not 10 <= self.dpi <= 2400 or not 0.1 <= self.height <= 20:
            raise InputError(
                f"dpi={self.dpi} and height={self.height:g}: give 10 to 2400 pixels "
                "per inch and 0.1 to 20 inches."
            )
        if num_panels > rows * columns:
            raise InputError(
                f"{num_panels} pictures don't fit a grid of {rows} x {columns}; give "
                "it more rows or columns."
            )
        for what, labels, wanted in (
            ("titles", self.titles, num_panels),
            ("row labels", self.row_labels, rows),
            ("column labels", self.column_labels, columns),
        ):
            if labels and len(labels) != wanted:
                raise InputError(
                    f"{what.capitalize()}: {len(labels)} were given, and {wanted} are "
                    "needed."
                )


def grid_of(count: int, rows: int = 0, columns: int = 0) -> tuple[int, int]:
    """(rows, columns) for `count` pictures; 0 is what the other one leaves.

    Raises:
      InputError: a number below 0.
    """
    if rows < 0 or columns < 0:
        raise InputError(f"A grid of {rows} x {columns}: give numbers of 1 and more.")
    if not columns:
        columns = -(-count // rows) if rows else math.ceil(math.sqrt(count))
    return rows or -(-count // columns), columns
