"""The options of nsynth_instrument. Nothing here imports NumPy or TensorFlow."""

import dataclasses
from collections.abc import Sequence

from magenta_nsynth.commands.options import parse_grid
from magenta_nsynth.errors import InputError
from magenta_nsynth.notes.naming import pitch_number
from magenta_nsynth.options import option
from magenta_nsynth.schema import UNKNOWN

__all__ = ["Finishing", "Shape"]

_HIGHEST_PITCH = 127
_MOST_CELLS = 128  # rows or columns: a controller has no more values


def _parse_pitches(words: Sequence[str] | None) -> tuple[int, ...] | None:
    """The MIDI numbers of a list of numbers and note names, ascending."""
    if words is None:
        return None
    pitches = {
        int(word) if word.strip().isdecimal() else pitch_number(word.strip())
        for word in words
    }
    if not pitches or min(pitches) == UNKNOWN or max(pitches) > _HIGHEST_PITCH:
        raise InputError(
            f"--pitches={','.join(words)}: give MIDI numbers from 0 to 127 or note "
            "names, separated by commas, such as 48,60,72 or C3,C4,C5."
        )
    return tuple(sorted(pitches))


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the instrument consists of."""

    grid: str = option(
        "3x3",
        "The rows x columns of mixes, with the sources in the corners: top left, top "
        "right, bottom left, bottom right. With three sources, the last corner is the "
        "mean of the second and the third; two are the left and the right edge.",
    )
    pitches: Sequence[int] | None = option(
        None,
        "The notes to generate: MIDI numbers or note names (C4 is 60), separated by "
        "commas. By default those of the sources. A pitch that a source lacks is made "
        "of its nearest.",
        parse=_parse_pitches,
    )
    seconds: float | None = option(
        None,
        "The length of each sound. Longer sources are cut, shorter ones are continued "
        "by silence. By default that of the longest source, at most 4.",
        low=0.2,
        high=60,
    )
    nsynth_super: bool = option(
        False,
        "Also write nsynth_super/, the files that open-nsynth-super's device reads. "
        "The grid must be square.",
    )

    @property
    def cells(self) -> tuple[int, int]:
        """The rows and columns of the grid.

        Raises:
          InputError: the grid is not of this form, too large, or not square where it
            has to be.
        """
        cells = parse_grid(self.grid)
        if cells is None:
            raise InputError("--grid: give rows x columns, such as 3x3.")
        if max(cells) > _MOST_CELLS:
            raise InputError(
                f"--grid={self.grid}: give at most {_MOST_CELLS} rows and columns, as "
                "many as a MIDI controller has values."
            )
        if self.nsynth_super and cells[0] != cells[1]:
            raise InputError(
                f"--grid={self.grid}: open-nsynth-super's grid has as many rows as "
                "columns; give such a grid, or leave --nsynth_super out."
            )
        return cells


@dataclasses.dataclass(frozen=True)
class Finishing:
    """What is done to the generated sounds. They are kept unprocessed too."""

    remove_offset: bool = option(True, "Remove the constant part (DC) and slow drifts.")
    remove_clicks: bool = option(True, "Replace single samples that stand out.")
    trim: bool = option(True, "Cut off what precedes the onset.")
    fade: bool = option(True, "Fade the ends: 3 ms in, 15 ms out.")
    match_loudness: bool = option(
        True, "Make all sounds equally loud (ITU-R BS.1770), and none of them clip."
    )
    loop: bool = option(
        True, "Find a part to repeat while a note is held, and make it seamless."
    )
    tune: bool = option(
        True,
        "Measure each sound's fundamental, and play the sound at its pitch where it "
        "is less than 100 cents off.",
    )
