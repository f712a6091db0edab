"""Cuts audio to whole frames of the embedding."""

import numpy as np
from absl import logging

from magenta_nsynth.errors import AudioError

__all__ = ["trim_to_frames"]


def trim_to_frames(
    audio: np.ndarray, hop_length: int, name: str = "audio"
) -> np.ndarray:
    """Drops the samples at the end that don't fill a frame.

    The first time it is logged as INFO, and after that as DEBUG: in a folder most
    sounds have such samples.

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
        dropped = (name, num_samples - num_kept, num_samples, hop_length)
        logging.log_first_n(
            logging.INFO,
            "%s: dropping the last %d of %d samples, which don't fill a frame of %d "
            "(likewise in other sounds, without a message).",
            1,
            *dropped,
        )
        logging.debug("%s: dropping %d of %d samples; a frame has %d.", *dropped)
    return audio[:num_kept]
