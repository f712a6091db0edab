"""How each model was trained when it was published. No TensorFlow is needed here."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from magenta_nsynth.errors import InputError

if TYPE_CHECKING:  # --help does without
    import numpy as np

__all__ = ["AVERAGE_DECAY", "RECIPES", "Recipe", "Schedule", "average_decay"]

AVERAGE_DECAY = 0.9999  # of a WaveNet's averaged weights, per step


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate that is constant between steps.

    Attributes:
      rates: (first step, learning rate) pairs in ascending order, starting at step 0.
        A rate applies to the update that turns global step `first step` into the next
        one. (Keras' PiecewiseConstantDecay switches one step later.)

    Raises:
      InputError: steps that don't start at 0 or don't ascend, or a rate that isn't
        positive and finite.
    """

    rates: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        """Checks the steps and rates."""
        steps = [step for step, _ in self.rates]
        if not steps or steps[0] != 0 or steps != sorted(set(steps)):
            raise InputError(
                f"The learning rate's steps must start at 0 and ascend, not {steps}."
            )
        for _, rate in self.rates:
            if not 0 < rate < math.inf:
                raise InputError(f"A learning rate must be above 0, not {rate}.")

    def __call__(self, step: int) -> "np.float32":
        """The learning rate of the update made at global step `step`."""
        import numpy as np

        return np.float32([rate for first, rate in self.rates if first <= step][-1])

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Reads one rate, "2e-3", or step:rate pairs, "0:2e-3,5000:6e-4".

        Raises:
          InputError: text of another form, or as for the class.
        """
        rates = []
        for part in text.split(","):
            step, colon, rate = part.rpartition(":")
            try:
                rates.append((int(step) if colon else 0, float(rate)))
            except ValueError:
                raise InputError(
                    f"Invalid learning rate {text!r}: give one number, or step:rate "
                    "pairs such as 0:2e-3,5000:6e-4."
                ) from None
        return cls(tuple(rates))


def average_decay(step: int, highest: float = AVERAGE_DECAY) -> "np.float32":
    """The share of the old average that remains after the update to global step `step`.

    Source: TensorFlow 1's moving average with num_updates, in float32.
    """
    import numpy as np

    one, ten, count = np.array([1, 10, step], np.float32)
    return min(np.float32(highest), (one + count) / (ten + count))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
      batch_size: notes per step, on all devices together.
      crop_length: samples of each note.
      num_steps: the global step to stop at.
      schedule: the learning rate.
      features: the features of a note that the loss depends on.
      is_likelihood: whether the loss is in nats per sample.
    """

    batch_size: int
    crop_length: int
    num_steps: int
    schedule: Schedule
    features: tuple[str, ...]
    is_likelihood: bool

    @property
    def needs_pitch(self) -> bool:
        """Whether only notes of known pitch can be used."""
        return "pitch" in self.features

    def batch(self, values: dict[str, Any]) -> Any:
        """The argument of the model's loss, from the features of a batch by name."""
        if self.features == ("audio",):
            return values["audio"]
        return {name: values[name] for name in self.features}

    def losses(self, loss: float) -> dict[str, float]:
        """The loss in each of its units, by its name in summaries."""
        if self.is_likelihood:
            return {"loss_nats": loss, "loss_bits": loss / math.log(2)}
        return {"loss": loss}

    def describe(self, loss: float) -> str:
        """The loss in words, in each of its units."""
        if self.is_likelihood:
            return f"{loss:.4f} nats ({loss / math.log(2):.4f} bits) per sample"
        return f"loss {loss:.6f}"


RECIPES = {
    # Source: NSynth, h512_bo16. The batch size is the original's default, not the
    # paper's 32; the schedule's last two steps lie beyond the 200,000.
    "wavenet": Recipe(
        batch_size=1,
        crop_length=6144,
        num_steps=200_000,
        schedule=Schedule(
            (
                (0, 2e-4),
                (90_000, 4e-4 / 3),
                (120_000, 6e-5),
                (150_000, 4e-5),
                (180_000, 2e-5),
                (210_000, 6e-6),
                (240_000, 2e-6),
            )
        ),
        features=("audio",),
        is_likelihood=True,
    ),
    # Source: NSynth, baseline/models/ae.py; the released checkpoint's step.
    "baseline": Recipe(
        batch_size=8,
        crop_length=64_000,
        num_steps=351_648,
        schedule=Schedule(((0, 1e-4),)),
        features=("audio", "pitch"),
        is_likelihood=False,
    ),
}
