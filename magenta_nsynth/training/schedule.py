"""The learning rate and the average's decay, each a function of the step alone."""

import dataclasses

import numpy as np

from magenta_nsynth.errors import InputError

__all__ = [
    "AVERAGE_DECAY",
    "BASELINE_SCHEDULE",
    "WAVENET_SCHEDULE",
    "Schedule",
    "average_decay",
]

AVERAGE_DECAY = 0.9999


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate that is constant between steps.

    Attributes:
      rates: (first step, learning rate) pairs, the first from step 0, ascending. The
        update that is made when the global step is `first step` uses the new rate
        already; Keras' PiecewiseConstantDecay changes one step later.
    """

    rates: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        """Refuses what says no rate, or two, for some step."""
        steps = [step for step, _ in self.rates]
        if not steps or steps[0] != 0 or steps != sorted(set(steps)):
            raise InputError(
                f"The learning rate's steps have to start at 0 and ascend, not {steps}."
            )
        for _, rate in self.rates:
            if not 0 < rate < float("inf"):
                raise InputError(f"A learning rate must be above 0, not {rate}.")

    def __call__(self, step: int) -> np.float32:
        """The rate of the update that is made when the global step is `step`."""
        return np.float32([rate for first, rate in self.rates if first <= step][-1])

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Reads "2e-3", or "0:2e-3,5000:6e-4" with the steps from which rates hold.

        Raises:
          InputError: text of another form.
        """
        rates = []
        for part in text.split(","):
            step, colon, rate = part.rpartition(":")
            try:
                rates.append((int(step) if colon else 0, float(rate)))
            except ValueError:
                raise InputError(
                    f"The learning rate {text!r} can't be read: give one number, or "
                    "step:rate pairs such as 0:2e-3,5000:6e-4."
                ) from None
        return cls(tuple(rates))


# Source: NSynth, h512_bo16. The last two lie beyond its 200,000 steps.
WAVENET_SCHEDULE = Schedule(
    (
        (0, 2e-4),
        (90_000, 4e-4 / 3),
        (120_000, 6e-5),
        (150_000, 4e-5),
        (180_000, 2e-5),
        (210_000, 6e-6),
        (240_000, 2e-6),
    )
)

BASELINE_SCHEDULE = Schedule(((0, 1e-4),))  # Source: NSynth, baseline/models/ae.py


def average_decay(step: int, highest: float = AVERAGE_DECAY) -> np.float32:
    """How much of the old average is kept after the update to global step `step`.

    Source: TensorFlow 1's moving average with num_updates, in float32.
    """
    one, ten, step = np.float32([1, 10, step])
    return min(np.float32(highest), (one + step) / (ten + step))
