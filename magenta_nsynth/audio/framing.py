"""Cuts audio to whole frames of the embedding."""

import numpy as np
from absl import logging

from magenta_nsynth.errors import AudioError

__all__ = ["trim_to_frames"]


def trim_to_frames(
    audio: np.ndarray, hop_length: int, name: str = "audio"
) -> np.ndarray:
    """Drops the samples at the end that don't fill a frame, and logs how many.

    Args:
      audio: [n] or [n, ...], any dtype.
      hop_length: samples per frame.
      name: the name of the audio in messages, such as its path.

    Returns:
      [n // hop_length * hop_length, ...], a view of `audio`.

    Raises:
      AudioError: less than one frame.

    Differs from NSynth, which drops the samples silently, and makes an empty embedding
    from less than one frame.
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
            "%s: dropping the last %d of %d samples, which don't fill a frame of %d.",
            name,
            num_samples - num_kept,
            num_samples,
            hop_length,
        )
    return audio[:num_kept]
