"""What a figure shows of one sound, ready to be drawn."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from magenta_nsynth.errors import InputError

__all__ = ["Panel", "check_curves", "value_limits"]

_MAX_CURVES = 64  # more lines can't be told apart


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture, curves under it, or both. Plain arrays: other processes can draw it.

    Attributes:
      name: of the sound.
      image: uint8 [bins, frames, 3], the lowest bin first, or None.
      frequencies: float64 [bins], in Hz, or None.
      seconds_per_frame: between columns of the image.
      curves: float32 [frames, channels], an embedding, or None.
      seconds_per_row: that a frame of the curves lasts.
      message: what stands in the place of a picture that can't be made.
    """

    name: str
    image: np.ndarray | None = None
    frequencies: np.ndarray | None = None
    seconds_per_frame: float = 0.016
    curves: np.ndarray | None = None
    seconds_per_row: float = 0.032
    message: str = ""

    @property
    def start(self) -> float:
        """Where the picture begins, in seconds: its first frame is centred on 0."""
        return 0.0 if self.image is None else -self.seconds_per_frame / 2

    @property
    def end(self) -> float:
        """Where the picture or, without one, the curves end, in seconds."""
        if self.image is not None:
            return (self.image.shape[1] - 0.5) * self.seconds_per_frame
        return 0.0 if self.curves is None else len(self.curves) * self.seconds_per_row


def value_limits(panels: Iterable[Panel]) -> tuple[float, float]:
    """Between which values all curves lie, with some room; (-1, 1) without any."""
    values = [panel.curves for panel in panels if panel.curves is not None]
    low = min((float(v.min()) for v in values), default=0.0)
    high = max((float(v.max()) for v in values), default=0.0)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def check_curves(encoding: np.ndarray, name: str = "the embedding") -> np.ndarray:
    """An embedding as curves over time, [frames, channels] float32.

    Args:
      encoding: [frames, channels] or [1, frames, channels].
      name: what an error calls it.

    Raises:
      InputError: another shape, no frames, too many channels, NaN or infinity.
    """
    encoding = np.asarray(encoding)
    if encoding.ndim == 3 and len(encoding) == 1:
        encoding = encoding[0]
    if encoding.ndim != 2 or not encoding.size:
        raise InputError(
            f"{name}: curves come from one embedding [frames, channels], not from an "
            f"array of shape {list(encoding.shape)}."
        )
    if encoding.shape[1] > _MAX_CURVES:
        raise InputError(
            f"{name}: has {encoding.shape[1]} channels, and up to {_MAX_CURVES} can be "
            "told apart as curves. (The baseline's z does not run over time.)"
        )
    if encoding.dtype.kind in "fiu":
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            encoding = encoding.astype(np.float32)
        if np.isfinite(encoding).all():
            return encoding
    raise InputError(f"{name}: holds values that are no finite numbers.")
