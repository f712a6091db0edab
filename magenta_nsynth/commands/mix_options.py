"""The options of nsynth_interpolate. Nothing here imports NumPy or TensorFlow."""

import dataclasses
from collections.abc import Sequence

from magenta_nsynth.commands.options import parse_grid, parse_numbers
from magenta_nsynth.errors import InputError
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.options import option, refuse_changed

__all__ = ["Mixing"]


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Which mixes to make, and what to write of each."""

    weights: Sequence[float] | None = option(
        None,
        "One number per source, separated by commas; they are divided by their sum. "
        "By default all sources weigh the same. Weights below 0 extrapolate: 1.5,-0.5.",
        parse=lambda words: parse_numbers("weights", words),
    )
    steps: int | None = option(
        None,
        "Make this many mixes on the line from one source to another, including both.",
        low=1,
    )
    grid: str = option(
        "",
        "Make a grid of rows x columns of mixes, such as 3x5, with 2 to 4 sources in "
        "its corners: top left, top right, bottom left, bottom right. With three, the "
        "last corner is the mean of the second and the third; two are the left and "
        "the right edge.",
    )
    crossfade: Sequence[float] | None = option(
        None,
        "Go from the first source to the second over time: 0,1 over the whole length, "
        "0.25,0.75 from a quarter to three quarters of it.",
        parse=lambda words: parse_numbers("crossfade", words, 2),
    )
    method: str = option(
        "linear",
        "linear is the weighted mean; spherical rotates each frame from one direction "
        "to the other and keeps its size.",
        choices=("linear", "spherical"),
    )
    stretch: float = option(
        1.0, "Make the mixes, or a single source, this many times as long; 0.01 to 100."
    )
    sum: bool = option(
        False, "Also write the same mix of the sounds themselves: sum_<mix>.wav."
    )
    generate: bool = option(
        False, "Generate the sound of each mix, as nsynth_generate does: gen_<mix>.wav."
    )
    match_loudness: bool = option(
        False,
        "Scale each generated sound to the weighted mean RMS of its sources, or less "
        "if it would clip.",
    )

    @property
    def cells(self) -> tuple[int, int] | None:
        """The rows and columns of the grid, if one is asked for."""
        return parse_grid(self.grid)

    @property
    def which(self) -> list[str]:
        """The given flags that say which mixes to make; there may be one at most."""
        flags = {
            "--weights": self.weights,
            "--steps": self.steps,
            "--grid": self.cells,
            "--crossfade": self.crossfade,
        }
        return [flag for flag, value in flags.items() if value is not None]

    def check(self, generation: Generation, has_checkpoint: bool) -> None:
        """Raises InputError for options that don't go together.

        Args:
          generation: how sounds are to be generated.
          has_checkpoint: whether there is a checkpoint to do that with.
        """
        if len(self.which) > 1:
            raise InputError(
                f"{' and '.join(self.which)} each say which mixes to make; give one of "
                "them."
            )
        if self.sum and self.stretch != 1:
            raise InputError(
                "--sum mixes the sounds as they are, without --stretch; give one of "
                "them."
            )
        if self.generate and not has_checkpoint:
            raise InputError(
                "--generate needs a checkpoint to make sounds with; give "
                "--checkpoint_path."
            )
        if self.generate and self.match_loudness and generation.normalize:
            raise InputError(
                "--match_loudness and --normalize each set the level of the sounds; "
                "give one of them."
            )
        self._refuse_useless(generation)

    def _refuse_useless(self, generation: Generation) -> None:
        """Raises InputError for options of sounds that are not asked for."""
        if self.generate:
            return
        reason = "does nothing without --generate; add that."
        refuse_changed(self, reason, "match_loudness")
        if not self.sum:
            both = "does nothing without --generate or --sum; add one."
            refuse_changed(generation, both, "bit_depth")
        refuse_changed(dataclasses.replace(generation, bit_depth="float"), reason)
