"""The constant-Q transform: bins at musical intervals, each with its own window."""

import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import C2_HZ, SAMPLE_RATE
from magenta_nsynth.errors import InputError
from magenta_nsynth.spectral.stft import as_batch

__all__ = ["cqt", "cqt_frequencies", "cqt_lengths"]


def cqt_frequencies(
    num_bins: int = 240, fmin: float = C2_HZ, bins_per_octave: int = 40
) -> np.ndarray:
    """The centre frequency of each bin in Hz, [num_bins] float64."""
    return fmin * 2.0 ** (np.arange(num_bins) / bins_per_octave)


def cqt_lengths(
    frequencies: Any,
    bins_per_octave: int = 40,
    filter_scale: float = 0.8,
    sample_rate: float = SAMPLE_RATE,
) -> np.ndarray:
    """The length of each bin's filter in samples: float64, not rounded.

    Source: librosa 0.10's wavelet_lengths: filter_scale * rate / (a f), where a is
    (r^2 - 1) / (r^2 + 1) for the ratio r of neighbouring bins.
    """
    ratio = 2.0 ** (2.0 / bins_per_octave)
    width = (ratio - 1) / (ratio + 1)
    return filter_scale * sample_rate / (width * np.asarray(frequencies, np.float64))


def cqt(
    audio: Any,
    hop_length: int = 256,
    fmin: float = C2_HZ,
    num_bins: int = 240,
    bins_per_octave: int = 40,
    filter_scale: float = 0.8,
    sample_rate: float = SAMPLE_RATE,
) -> tf.Tensor:
    """The constant-Q transform.

    Bin k is the correlation of the clip with a complex sine of frequency f_k = fmin *
    2^(k / bins_per_octave), under a Hann window of N_k samples (`cqt_lengths`) centred
    on the frame. It is normalised so that a sine of amplitude A peaks at A / 2 *
    sqrt(N_k): sines of equal amplitude fall by 3 dB per octave. The clip is reflected
    at its ends, repeatedly if it is shorter than a window.

    Args:
      audio: [t] or [b, t] floats, t >= 1.
      hop_length: samples between frames.
      fmin: the centre frequency of the lowest bin in Hz.
      num_bins: number of bins.
      bins_per_octave: bins per octave.
      filter_scale: scales the windows' length. Below 1 the resolution is finer in time
        and coarser in pitch.
      sample_rate: of the audio, in Hz.

    Returns:
      complex64 [b, num_bins, 1 + t // hop_length], without b for audio [t]. The phase
      of a steady sine advances by 2 pi f hop_length / sample_rate per frame.

    Raises:
      InputError: another rank or dtype, no samples, or bins above half the rate.

    Source: librosa 0.10.2's cqt, as NSynth's rainbowgrams call it. Differs: every bin
    is computed at the full rate; librosa halves the rate from octave to octave.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> audio = np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000))
      >>> spectrum = nsynth.cqt(audio.astype(np.float32))
      >>> tuple(spectrum.shape)
      (240, 63)
      >>> int(np.abs(spectrum)[:, 30].argmax())  # 110 bins of 30 cents above C2
      110
    """
    audio, unbatch = as_batch(audio, tf.float32, 1, "audio")
    if audio.shape[1] == 0:
        raise InputError("The audio has no samples.")
    for name, count in (
        ("hop_length", hop_length),
        ("num_bins", num_bins),
        ("bins_per_octave", bins_per_octave),
    ):
        if not isinstance(count, int | np.integer) or count < 1:
            raise InputError(f"{name} must be a whole number above 0, not {count}.")
    for name, value in (
        ("fmin", fmin),
        ("filter_scale", filter_scale),
        ("sample_rate", sample_rate),
    ):
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be above 0, not {value}.")
    frequencies = cqt_frequencies(num_bins, fmin, bins_per_octave)
    if frequencies[-1] > sample_rate / 2:
        raise InputError(
            f"The highest of {num_bins} bins is at {frequencies[-1]:.0f} Hz, above "
            f"half the rate of {sample_rate:g} Hz; use fewer bins or a lower fmin."
        )
    octaves = _filters(
        hop_length, fmin, num_bins, bins_per_octave, filter_scale, sample_rate
    )
    parts = [_octave(audio, hop_length, *octave) for octave in octaves]
    spectrum = tf.concat(parts, axis=2)
    return unbatch(tf.transpose(spectrum, [0, 2, 1]))


def _octave(
    audio: tf.Tensor, hop_length: int, filters: np.ndarray, before: int
) -> tf.Tensor:
    """The bins of one octave, [b, frames, bins].

    Args:
      audio: [b, t].
      hop_length: samples between frames.
      filters: [length, 2 * bins] float32, the real parts and then the imaginary parts.
        The length is a multiple of the hop.
      before: samples of the filters before their centre.
    """
    length = len(filters)
    num_frames = 1 + tf.shape(audio)[1] // hop_length
    padded = _reflected(audio, before, (num_frames - 1) * hop_length - before + length)
    # A convolution over hops, with a hop's samples as channels: frames are never
    # assembled.
    hops = tf.reshape(padded, [tf.shape(audio)[0], -1, hop_length])
    kernel = filters.reshape(length // hop_length, hop_length, -1)
    real, imaginary = tf.split(tf.nn.conv1d(hops, kernel, 1, "VALID"), 2, axis=2)
    return tf.complex(real, imaginary)


def _reflected(audio: tf.Tensor, before: int, end: tf.Tensor) -> tf.Tensor:
    """Samples -before to `end`, with the clip mirrored as often as necessary."""
    num_samples = tf.shape(audio)[1]
    period = tf.maximum(2 * (num_samples - 1), 1)
    places = tf.math.floormod(tf.range(-before, end), period)
    places = tf.minimum(places, period - places)
    return tf.gather(audio, tf.minimum(places, num_samples - 1), axis=1)


@functools.lru_cache(maxsize=8)
def _filters(
    hop_length: int,
    fmin: float,
    num_bins: int,
    bins_per_octave: int,
    filter_scale: float,
    sample_rate: float,
) -> list[tuple[np.ndarray, int]]:
    """The filters of each octave, and `before`, as `_octave` takes them."""
    frequencies = cqt_frequencies(num_bins, fmin, bins_per_octave)
    lengths = cqt_lengths(frequencies, bins_per_octave, filter_scale, sample_rate)
    octaves = []
    for first in range(0, num_bins, bins_per_octave):
        bins = range(first, min(first + bins_per_octave, num_bins))
        before = math.ceil(lengths[first] / 2)
        total = -(-2 * before // hop_length) * hop_length
        filters = np.zeros([total, 2, len(bins)])
        for column, k in enumerate(bins):
            places = np.arange(-lengths[k] // 2, lengths[k] // 2, dtype=np.float64)
            window = 0.5 - 0.5 * np.cos(
                2 * np.pi * np.arange(len(places)) / len(places)
            )
            window *= math.sqrt(lengths[k]) / max(window.sum(), 1e-9)
            angles = 2 * np.pi * frequencies[k] / sample_rate * places
            rows = places.astype(int) + before
            filters[rows, 0, column] = window * np.cos(angles)
            filters[rows, 1, column] = -window * np.sin(angles)
        octaves.append((filters.reshape(total, -1).astype(np.float32), before))
    return octaves
