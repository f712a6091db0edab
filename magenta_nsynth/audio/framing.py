"""Cutting audio to whole frames of the embedding."""

import numpy as np
from absl import logging

from magenta_nsynth.errors import AudioError

__all__ = ["trim_to_frames"]


def trim_to_frames(
    audio: np.ndarray, hop_length: int, name: str = "audio"
) -> np.ndarray:
    """Drops the samples at the end that do not fill a frame, and logs how many.

    Differs from NSynth, which drops them in silence and makes an empty embedding of
    less than one frame.

    Args:
      audio: [n] or [n, ...], any dtype.
      hop_length: samples per frame.
      name: what to call the audio in messages, as a rule its file.

    Returns:
      [n // hop_length * hop_length, ...], a view of `audio`.

    Raises:
      AudioError: there is not one whole frame.
    """
    num_samples = len(audio)
    num_kept = num_samples // hop_length * hop_length
    if not num_kept:
        raise AudioError(
            f"{name}: {num_samples} samples at 16 kHz are too few; "
            f"at least {hop_length} (one frame) are needed."
        )
    if num_kept < num_samples:
        logging.info(
            "%s: the last %d of %d samples do not fill a frame of %d and are dropped.",
            name,
            num_samples - num_kept,
            num_samples,
            hop_length,
        )
    return audio[:num_kept]
