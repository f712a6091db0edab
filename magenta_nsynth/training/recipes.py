"""How each model was trained as published, and what of a note it is trained on."""

import dataclasses
import math
from typing import Any

from magenta_nsynth.models.spectral import BATCH_NORM_DECAY
from magenta_nsynth.training.schedule import (
    AVERAGE_DECAY,
    BASELINE_SCHEDULE,
    WAVENET_SCHEDULE,
    Schedule,
)

__all__ = ["RECIPES", "Recipe"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model's published training.

    Attributes:
      batch_size: notes per step; the WaveNet's is the original's flag, not the paper's.
      crop_length: samples of each note.
      num_steps: the step of the released checkpoint.
      schedule: the learning rate.
      average_decay: a WaveNet's averages' highest, or that of the averages of the
        baseline's batch norms.
      features: of a note that the loss is made of.
      is_likelihood: whether the loss is in nats per sample.
    """

    batch_size: int
    crop_length: int
    num_steps: int
    schedule: Schedule
    average_decay: float
    features: tuple[str, ...]
    is_likelihood: bool

    @property
    def needs_pitch(self) -> bool:
        """Whether a note is of no use unless its pitch is known."""
        return "pitch" in self.features

    def batch(self, values: Any) -> Any:
        """What the model's loss takes, of the features of a batch by name."""
        if self.features == ("audio",):
            return values["audio"]
        return {name: values[name] for name in self.features}

    def losses(self, loss: float) -> dict[str, float]:
        """A loss under the names that summaries show, in each of its units."""
        if self.is_likelihood:
            return {"loss_nats": loss, "loss_bits": loss / math.log(2)}
        return {"loss": loss}


RECIPES = {
    "wavenet": Recipe(
        batch_size=1,
        crop_length=6144,
        num_steps=200_000,
        schedule=WAVENET_SCHEDULE,
        average_decay=AVERAGE_DECAY,
        features=("audio",),
        is_likelihood=True,
    ),
    "baseline": Recipe(
        batch_size=8,
        crop_length=64_000,
        num_steps=351_648,
        schedule=BASELINE_SCHEDULE,
        average_decay=BATCH_NORM_DECAY,
        features=("audio", "pitch"),
        is_likelihood=False,
    ),
}
