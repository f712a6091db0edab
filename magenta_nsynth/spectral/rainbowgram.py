"""The values of a rainbowgram: each bin's loudness and change of phase."""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import C2_HZ, SAMPLE_RATE
from magenta_nsynth.errors import InputError
from magenta_nsynth.spectral.cqt import cqt, cqt_frequencies
from magenta_nsynth.spectral.phase import angle
from magenta_nsynth.spectral.specgram import log_magnitude, phase_difference, wrap
from magenta_nsynth.spectral.stft import as_batch, stft

__all__ = ["HOP_LENGTH", "PEAK_DB", "Rainbowgram", "rainbowgram"]

HOP_LENGTH = 256  # samples between frames
PEAK_DB = 70.0  # range of the magnitude below the loudest value


class Rainbowgram(NamedTuple):
    """The result of `rainbowgram`.

    Attributes:
      magnitude: float32 [b, bins, frames] in [0, 1], without b for audio [t]; low bins
        first. Silence is 0.
      phase: of the same shape, in [-1, 1] half turns per frame.
      frequencies: float64 [bins], the centre frequencies in Hz.
    """

    magnitude: tf.Tensor
    phase: tf.Tensor
    frequencies: np.ndarray


def rainbowgram(
    audio: Any,
    hop_length: int = HOP_LENGTH,
    peak_db: float = PEAK_DB,
    transform: str = "cqt",
    demodulate: bool = False,
    fmin: float = C2_HZ,
    num_bins: int = 240,
    bins_per_octave: int = 40,
    filter_scale: float = 0.8,
    n_fft: int = 1024,
    sample_rate: float = SAMPLE_RATE,
) -> Rainbowgram:
    """The rainbowgram. Each clip is scaled by its own loudest value.

    Args:
      audio: [t] or [b, t] floats; t > n_fft / 2 for the STFT.
      hop_length: samples between frames.
      peak_db: the range in decibels that magnitudes 0 to 1 cover.
      transform: "cqt", or "stft" for bins of equal width.
      demodulate: subtracts from each bin's phase what a sine at its centre frequency
        would turn by, so that a steady partial keeps one colour.
      fmin: as in `cqt`.
      num_bins: as in `cqt`.
      bins_per_octave: as in `cqt`.
      filter_scale: as in `cqt`.
      n_fft: as in `stft`.
      sample_rate: of the audio, in Hz.

    Returns:
      A `Rainbowgram` of 1 + t // hop_length frames.

    Raises:
      InputError: as for `cqt` or `stft`, or an unknown transform or invalid range.

    Source: NSynth's rainbowgrams. Differs: the change of phase is computed without
    unwrapping, which only rounds differently; silence is 0, not 1.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> audio = np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000))
      >>> magnitude, phase, frequencies = nsynth.rainbowgram(audio)
      >>> tuple(magnitude.shape), float(magnitude.numpy().max())
      ((240, 63), 1.0)
    """
    if transform not in ("cqt", "stft"):
        raise InputError(f"transform must be cqt or stft, not {transform!r}.")
    if not 0 < peak_db < math.inf:
        raise InputError(f"peak_db must be above 0, not {peak_db}.")
    audio, unbatch = as_batch(audio, tf.float32, 1, "audio")
    if transform == "cqt":
        frequencies = cqt_frequencies(num_bins, fmin, bins_per_octave)
        spectrum = cqt(
            audio,
            hop_length,
            fmin,
            num_bins,
            bins_per_octave,
            filter_scale,
            sample_rate,
        )
    else:
        frequencies = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
        spectrum = stft(audio, n_fft, hop_length)
    magnitude = log_magnitude(spectrum, peak_db)
    is_silent = tf.reduce_all(tf.equal(magnitude, 1), axis=[1, 2], keepdims=True)
    magnitude = tf.where(is_silent, 0.0, magnitude)
    phase = phase_difference(angle(spectrum) / math.pi)
    if demodulate:
        turns = 2 * frequencies * hop_length / sample_rate
        turns = tf.constant(turns - 2 * np.round(turns / 2), tf.float32)
        phase = wrap(phase - turns[:, None])
    return Rainbowgram(unbatch(magnitude), unbatch(phase), frequencies)
