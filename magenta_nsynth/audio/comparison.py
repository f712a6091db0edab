"""How far a sound is from its original: in level over time, and in spectrum.

NumPy alone.
"""

import numpy as np

from magenta_nsynth.errors import InputError

__all__ = ["level_difference", "noise_like", "spectral_distance"]

_FRAME = 512  # samples whose level is compared
_LEVEL_FLOOR = 1e-6  # a mean square, -60 dB: what is quieter is silence
_FFT_SIZES = (2048, 1024, 512, 256, 128)
_SPECTRAL_RANGE = 1e-4  # -80 dB below the original's loudest bin


def level_difference(audio: np.ndarray, original: np.ndarray) -> float:
    """The mean difference of levels over time, in decibels.

    Levels are those of frames of 512 samples; below -60 dB of full scale counts as
    -60 dB.

    Args:
      audio: [t] finite floats in [-1, 1], t >= 1.
      original: of the same shape.

    Returns:
      The mean of the differences' absolute values, 0 or more.

    Raises:
      InputError: another shape.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.comparison import level_difference
      >>> round(level_difference(np.full(2048, 0.05), np.full(2048, 0.5)), 2)
      20.0
    """
    _check(audio, original)
    return float(np.abs(_levels(audio) - _levels(original)).mean())


def _levels(audio: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(_mean_squares(audio), _LEVEL_FLOOR))


def _mean_squares(audio: np.ndarray) -> np.ndarray:
    """The mean square of each frame; the last one may be shorter."""
    starts = np.arange(0, len(audio), _FRAME)
    sums = np.add.reduceat(np.square(audio, dtype=np.float64), starts)
    return sums / np.minimum(_FRAME, len(audio) - starts)


def spectral_distance(audio: np.ndarray, original: np.ndarray) -> float:
    """The log-spectral distance, as a mean over resolutions, in decibels.

    At each resolution (FFTs of 2,048, 1,024, 512, 256 and 128 samples) it is the mean
    over frames of the root mean square of the bins' differences in decibels. Bins more
    than 80 dB below the original's loudest count as 80 dB below it.

    Args:
      audio: [t] finite floats, t >= 1.
      original: of the same shape.

    Returns:
      0 or more. White noise with the envelope of a note is some 30 from it.

    Raises:
      InputError: another shape.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.comparison import spectral_distance
      >>> audio = np.random.default_rng(0).standard_normal(8000)
      >>> 19 < spectral_distance(audio / 10, audio) <= 20
      True
    """
    _check(audio, original)
    distances = []
    for size in _FFT_SIZES:
        wanted, got = _magnitudes(original, size), _magnitudes(audio, size)
        floor = max(float(wanted.max()) * _SPECTRAL_RANGE, 1e-9)
        ratios = np.maximum(got, floor) / np.maximum(wanted, floor)
        of_frames = np.sqrt(np.mean(np.square(20 * np.log10(ratios)), axis=1))
        distances.append(of_frames.mean())
    return float(np.mean(distances))


def _magnitudes(audio: np.ndarray, size: int) -> np.ndarray:
    """Magnitudes [frames, bins] of Hann windows that overlap by three quarters."""
    padded = np.pad(np.asarray(audio, np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 4]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return np.abs(np.fft.rfft(frames * window))


def noise_like(original: np.ndarray, seed: int = 0) -> np.ndarray:
    """White noise with the envelope of a sound: the most trivial reconstruction.

    Args:
      original: [t] finite floats, t >= 1.
      seed: of the noise.

    Returns:
      [t] float32 whose level follows that of `original` from frame to frame of 512
      samples.

    Raises:
      InputError: another shape.
    """
    _check(original, original)
    noise = np.random.default_rng(seed).standard_normal(len(original))
    levels = np.sqrt(_mean_squares(original))
    centres = (np.arange(len(levels)) + 0.5) * _FRAME
    envelope = np.interp(np.arange(len(original)), centres, levels)
    return (noise * envelope).astype(np.float32)


def _check(audio: np.ndarray, original: np.ndarray) -> None:
    if audio.ndim != 1 or not len(audio) or audio.shape != original.shape:
        raise InputError(
            "Two sounds of the same shape [time] can be compared, not "
            f"{list(audio.shape)} and {list(original.shape)}."
        )
