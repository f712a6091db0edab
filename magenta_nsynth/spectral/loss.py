"""The frequency-weighted loss between spectrograms."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["frequency_weights", "spectral_loss"]


def frequency_weights(
    n_fft: int = 1024, coefficient: float = 10.0, cutoff_hz: float = 4000.0
) -> np.ndarray:
    """The weight of each bin in `spectral_loss`, for spectrograms without the top bin.

    Args:
      n_fft: samples per frame.
      coefficient: the weight of the lowest bin.
      cutoff_hz: the weight falls linearly to 1 up to here, and stays 1 above.

    Returns:
      float32 [1, n_fft / 2, 1].

    Source: NSynth, frequency_weighted_cost_mask, at 16 kHz.

    Examples:
      >>> from magenta_nsynth.spectral import frequency_weights
      >>> frequency_weights(8, cutoff_hz=6000.0).ravel().tolist()
      [10.0, 5.5, 1.0, 1.0]
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
      spec: float32 [b, bins, frames, 1 or 2] from `specgram`: the magnitude, and
        optionally the phase in half turns.
      reconstruction: of the same shape.
      weights: [1, bins, 1] from `frequency_weights`.
      dphase: True if the phase is a change of phase: its loss is the weighted mean
        squared error. False: its loss is 1 - mean(weights * cos(pi * error)).

    Returns:
      float32 [b]: the weighted mean squared error of the magnitude, plus the loss of
      the phase. The mean over clips is the loss of the batch.

    Source: NSynth, compute_mse_loss.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.spectral import frequency_weights, spectral_loss
      >>> spec, weights = np.ones([2, 4, 3, 1], np.float32), frequency_weights(8)
      >>> spectral_loss(spec, spec, weights).numpy().tolist()
      [0.0, 0.0]
    """
    error = tf.cast(spec, tf.float32) - tf.cast(reconstruction, tf.float32)
    loss = tf.reduce_mean(weights * error[..., 0] ** 2, axis=[1, 2])
    if error.shape[-1] == 1:
        return loss
    phase = error[..., 1]
    if dphase:
        return loss + tf.reduce_mean(weights * phase**2, axis=[1, 2])
    return loss + 1 - tf.reduce_mean(weights * tf.cos(phase * math.pi), axis=[1, 2])
