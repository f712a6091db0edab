"""The fundamental of a sound, by the YIN method, and how far it is from a pitch.

NumPy alone.
"""

import math
from typing import NamedTuple

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import InputError

__all__ = ["PitchTrack", "cents_off", "fundamental", "track_pitch"]

_LOWEST_HZ, _HIGHEST_HZ = 25.0, 4400.0  # MIDI 20 to 108
_WINDOW = 1024  # samples that are compared with later ones
_HOP = 256
_LONGEST = int(SAMPLE_RATE / _LOWEST_HZ)  # period, in samples
_FINER = 4  # differences per sample of lag
_THRESHOLD = 0.1  # of a dip that is deep enough, whatever others there are
_AS_DEEP = 0.9  # of a dip's depth, as a share of the deepest one's
_SAME_DIP = 1.25  # times its place is where a dip ends
_MOST_NOISE = 0.5  # in a frame with a fundamental, as a share of its energy
_RANGE_DB = 40.0  # quieter frames, compared with the loudest, do not count
_LEAST_SHARE = 0.3  # of frames that have to have a fundamental
_SILENCE = 1e-10  # the variance of a frame that is silent, -100 dB
_BLOCK = 64  # frames at once


class PitchTrack(NamedTuple):
    """The fundamental over time.

    Attributes:
      hz: float64 [frames], the likeliest fundamental. It means little where `noise` is
        large.
      noise: float64 [frames], 0 if the sound repeats exactly with that period; around
        1 for white noise.
      level_db: float64 [frames], decibels of the variance below full scale.
    """

    hz: np.ndarray
    noise: np.ndarray
    level_db: np.ndarray


def track_pitch(audio: np.ndarray) -> PitchTrack:
    """The fundamental of each frame, between 25 and 4,400 Hz.

    Args:
      audio: [t] finite floats at 16 kHz, t >= 1.

    Returns:
      A `PitchTrack` with a frame every 256 samples (16 ms). A frame compares 1,024
      samples with those up to 640 later.

    Raises:
      InputError: another shape.

    Source: A. de Cheveigne and H. Kawahara, "YIN, a fundamental frequency estimator for
    speech and music", 2002. Differs: dips that are nearly as deep as the deepest count
    too, so that noise does not lead to a multiple of the period; differences are
    interpolated to quarter samples, for high notes.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.pitch import track_pitch
      >>> audio = 0.5 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(8000))
      >>> track_pitch(audio).hz.round(1)[:3]
      array([440., 440., 440.])
    """
    audio = np.asarray(audio, np.float64)
    if audio.ndim != 1 or not len(audio):
        raise InputError(f"Audio must have shape [time], not {list(audio.shape)}.")
    size = _WINDOW + _LONGEST
    audio = np.pad(audio, (0, max(0, size - len(audio))))
    frames = np.lib.stride_tricks.sliding_window_view(audio, size)[::_HOP]
    parts = [_of_frames(frames[i : i + _BLOCK]) for i in range(0, len(frames), _BLOCK)]
    return PitchTrack(*map(np.concatenate, zip(*parts, strict=True)))


def _of_frames(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fundamental, noise and level of frames [n, window + longest]."""
    # A constant is silence, whatever its value.
    frames = frames - frames.mean(axis=1, keepdims=True)
    normalized = _normalized_differences(frames)
    first = int(SAMPLE_RATE / _HIGHEST_HZ * _FINER)
    lag, noise = _first_deep_dip(normalized, first)
    energy = np.mean(np.square(frames[:, :_WINDOW]), axis=1)
    level = 10 * np.log10(np.maximum(energy, _SILENCE))
    noise = np.where(energy > _SILENCE, noise, 1.0)
    return SAMPLE_RATE * _FINER / lag, noise, level


def _normalized_differences(frames: np.ndarray) -> np.ndarray:
    """YIN's function of the lag, in quarter samples: [n, 4 * longest]."""
    size = frames.shape[1]
    num_fft = 1 << (size + _WINDOW).bit_length()
    spectrum = np.fft.rfft(frames, num_fft)
    window = np.fft.rfft(frames[:, :_WINDOW], num_fft)
    # Zeros above the highest frequency interpolate between the lags.
    products = np.fft.irfft(spectrum * window.conj(), num_fft * _FINER) * _FINER
    num_lags = _LONGEST * _FINER
    sums = np.pad(np.cumsum(np.square(frames), axis=1), ((0, 0), (1, 0)))
    whole = sums[:, _WINDOW:] - sums[:, :-_WINDOW]  # of the window from each lag on
    lags = np.arange(num_lags) / _FINER
    below = lags.astype(int)
    energy = whole[:, below] + (whole[:, below + 1] - whole[:, below]) * (lags - below)
    differences = np.maximum(whole[:, :1] + energy - 2 * products[:, :num_lags], 0)
    mean = np.cumsum(differences, axis=1) / np.maximum(np.arange(num_lags), 1)
    return np.where(mean > 0, differences / np.where(mean > 0, mean, 1), 1.0)


def _first_deep_dip(values: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The place, interpolated, and the height of the first dip that is deep enough.

    Args:
      values: [n, lags].
      first: the shortest lag.
    """
    here = values[:, 1:-1]
    is_dip = (here <= values[:, :-2]) & (here < values[:, 2:])
    is_dip[:, : first - 1] = False
    depths = np.where(is_dip, 1 - here, 0.0)
    enough = np.minimum(_AS_DEEP * depths.max(axis=1), 1 - _THRESHOLD)
    place = np.argmax(is_dip & (depths >= enough[:, None]), axis=1)[:, None]
    # Noise makes several dips of one: the deepest of these counts.
    lags = np.arange(depths.shape[1])
    near = (lags >= place) & (lags <= _SAME_DIP * place)
    place = 1 + np.argmax(np.where(near, depths, -1.0), axis=1)
    place = np.maximum(place, first)  # there is no dip
    rows = np.arange(len(values))
    left, middle, right = (values[rows, place + i] for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 0, (left - right) / np.where(bend > 0, 2 * bend, 1), 0.0)
    return place + np.clip(shift, -1, 1), middle


def fundamental(audio: np.ndarray) -> float:
    """The fundamental of a note: the median of its frames that have one.

    Frames more than 40 dB below the loudest do not count.

    Args:
      audio: [t] finite floats at 16 kHz, t >= 1.

    Returns:
      Hz; NaN if less than 30 % of the frames have a fundamental.

    Raises:
      InputError: another shape.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.pitch import fundamental
      >>> time = np.arange(8000) / 16_000
      >>> partials = [np.sin(2 * np.pi * 220 * n * time) for n in (2, 3, 4)]
      >>> round(fundamental(np.sum(partials, axis=0)), 1)
      220.0
      >>> fundamental(np.zeros(8000))
      nan
    """
    track = track_pitch(audio)
    sounding = track.level_db > track.level_db.max() - _RANGE_DB
    has_pitch = sounding & (track.noise < _MOST_NOISE)
    if has_pitch.sum() < _LEAST_SHARE * sounding.sum():
        return math.nan
    return float(np.exp(np.median(np.log(track.hz[has_pitch]))))


def cents_off(hz: float, pitch: float) -> float:
    """How far a frequency is above a MIDI pitch, in cents; NaN for NaN.

    Examples:
      >>> from magenta_nsynth.audio.pitch import cents_off
      >>> cents_off(880.0, 69)
      1200.0
    """
    return 1200 * math.log2(hz / 440) + 100 * (69 - pitch)
