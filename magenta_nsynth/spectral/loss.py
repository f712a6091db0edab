"""The loss between spectrograms, weighted by frequency."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["frequency_weights", "spectral_loss"]


def frequency_weights(
    n_fft: int = 1024, coefficient: float = 10.0, cutoff_hz: float = 4000.0
) -> np.ndarray:
    """How much each bin of a spectrogram without its top bin counts.

    Args:
      n_fft: samples of a frame.
      coefficient: the weight of the lowest bin.
      cutoff_hz: from here on bins weigh 1; below, the weight falls linearly to 1.

    Returns:
      float32 [1, n_fft / 2, 1].

    Source: NSynth, frequency_weighted_cost_mask, at 16 kHz.
    """
    num_bins = n_fft // 2
    hz = np.arange(num_bins) * SAMPLE_RATE / n_fft
    num_below = int(np.count_nonzero(hz < cutoff_hz))
    weights = np.ones(num_bins, np.float32)
    weights[:num_below] = np.linspace(coefficient, 1.0, num_below)
    return weights[None, :, None]


def spectral_loss(
    spec: Any, reconstruction: Any, weights: Any, dphase: bool = True
) -> tf.Tensor:
    """The loss of each clip.

    Args:
      spec: float32 [b, bins, frames, 1 or 2], magnitude and perhaps phase in half
        turns, as `specgram` makes them.
      reconstruction: of the same shape.
      weights: [1, bins, 1], of `frequency_weights`.
      dphase: whether a phase is a difference of phases, whose error is squared; False
        takes 1 - mean(weights * cos(pi * error)).

    Returns:
      float32 [b], the weighted mean of squares of the magnitude's error, plus the
      phase's loss. Its mean is the batch's loss.

    Source: NSynth, compute_mse_loss.
    """
    error = tf.cast(spec, tf.float32) - tf.cast(reconstruction, tf.float32)
    loss = tf.reduce_mean(weights * error[..., 0] ** 2, axis=[1, 2])
    if error.shape[-1] == 1:
        return loss
    phase = error[..., 1]
    if dphase:
        return loss + tf.reduce_mean(weights * phase**2, axis=[1, 2])
    return loss + 1 - tf.reduce_mean(weights * tf.cos(phase * math.pi), axis=[1, 2])
