"""How a figure looks, as options. Nothing here imports NumPy or matplotlib."""

import dataclasses
import math
from collections.abc import Sequence

from magenta_nsynth.errors import InputError
from magenta_nsynth.options import option

__all__ = ["AXES", "FORMATS", "Look", "grid_of"]

AXES = ("none", "notes", "hz")
FORMATS = (".png", ".svg", ".pdf")


@dataclasses.dataclass(frozen=True)
class Look:
    """How a figure looks."""

    axis: str = option(
        "none",
        "The axes of the pictures: none, as in the original, or seconds and either the "
        "names of notes or frequencies.",
        choices=AXES,
    )
    dpi: int = option(150, "Pixels per inch.")
    height: float = option(1.9, "The height of a picture, in inches.")
    font: str = option("", "The font family; by default matplotlib's.")
    title: str = option("", "The title of the figure.")
    titles: Sequence[str] = option((), "A title for each picture, separated by commas.")
    row_labels: Sequence[str] = option((), "A label for each row, separated by commas.")
    column_labels: Sequence[str] = option(
        (), "A label for each column, separated by commas."
    )
    own_width: bool = option(
        False,
        "Stretch each picture to the width of its cell. By default all have one time "
        "scale, and shorter sounds end earlier.",
    )

    def check(self, num_panels: int, rows: int, columns: int) -> None:
        """Raises InputError unless so many pictures can be drawn in a grid."""
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
                    f"{what.capitalize()}: {len(labels)} were given, but {wanted} are "
                    "needed."
                )


def grid_of(count: int, rows: int = 0, columns: int = 0) -> tuple[int, int]:
    """The rows and columns of a grid for `count` pictures.

    Args:
      count: how many pictures there are.
      rows: of the grid; 0 takes as many as the columns need.
      columns: of the grid; 0 takes as many as the rows need, or makes it square.

    Raises:
      InputError: a negative number.
    """
    if rows < 0 or columns < 0:
        raise InputError(f"A grid of {rows} x {columns}: give numbers of 1 and more.")
    if not columns:
        columns = -(-count // rows) if rows else math.ceil(math.sqrt(count))
    return rows or -(-count // columns), columns
