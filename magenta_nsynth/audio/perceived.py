"""How loud a sound is to the ear, and gains that make sounds equally loud."""

import math
from collections.abc import Sequence

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["equal_gains", "perceived_loudness"]

# The two filters of ITU-R BS.1770: a shelf for the head, and a high pass. Their
# analogue corner (Hz) and quality, from which they are made for any rate.
_SHELF_HZ, _SHELF_Q, _SHELF_DB = 1681.974, 0.7071752, 3.999844
_PASS_HZ, _PASS_Q = 38.13547, 0.5003270
_BLOCK, _STEP = SAMPLE_RATE * 4 // 10, SAMPLE_RATE // 10
_SILENCE = -70.0  # LUFS
_GATE = -10.0  # quieter blocks, relative to the mean, do not count
_HIGHEST_PEAK = 0.89  # -1 dB
_QUIETEST = -26.0  # LUFS; sounds that clip there stay below
_NOISE = -50.0  # LUFS; what is quieter is the noise that a network makes of silence


def perceived_loudness(audio: np.ndarray) -> float:
    """The integrated loudness of a mono sound.

    Args:
      audio: [t] floats at 16 kHz, t >= 1.

    Returns:
      LUFS; minus infinity for silence. A sound shorter than 0.4 s is one block.

    Source: Recommendation ITU-R BS.1770-4.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.perceived import perceived_loudness
      >>> sine = np.sin(2 * np.pi * 997 * np.arange(32_000) / 16_000)
      >>> round(perceived_loudness(sine), 1)
      -3.0
    """
    from scipy import signal  # half a second

    weighted = np.asarray(audio, np.float64)
    for numerator, denominator in (_shelf(), _high_pass()):
        weighted = signal.lfilter(numerator, denominator, weighted)
    sums = np.cumsum(np.pad(np.square(weighted), (1, 0)))
    size = min(_BLOCK, len(weighted))
    starts = np.arange(0, len(weighted) - size + 1, _STEP)
    powers = (sums[starts + size] - sums[starts]) / size
    powers = powers[_decibels(powers) > _SILENCE]
    if not len(powers):
        return -math.inf
    loud = powers[_decibels(powers) > _decibels(powers.mean()) + _GATE]
    return float(_decibels(loud.mean()))


def _decibels(power: np.ndarray | float) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 1e-30)) - 0.691


def _shelf() -> tuple[np.ndarray, np.ndarray]:
    tangent = math.tan(math.pi * _SHELF_HZ / SAMPLE_RATE)
    high = 10 ** (_SHELF_DB / 20)
    middle = high**0.4996667741545416
    turn, square = tangent / _SHELF_Q, tangent * tangent
    numerator = [
        high + middle * turn + square,
        2 * (square - high),
        high - middle * turn + square,
    ]
    denominator = [1 + turn + square, 2 * (square - 1), 1 - turn + square]
    return np.array(numerator) / denominator[0], np.array(denominator) / denominator[0]


def _high_pass() -> tuple[np.ndarray, np.ndarray]:
    tangent = math.tan(math.pi * _PASS_HZ / SAMPLE_RATE)
    turn, square = tangent / _PASS_Q, tangent * tangent
    denominator = np.array([1 + turn + square, 2 * (square - 1), 1 - turn + square])
    return np.array([1.0, -2.0, 1.0]), denominator / denominator[0]


def equal_gains(sounds: Sequence[np.ndarray]) -> list[float]:
    """The factors that make sounds equally loud, as loud as none of them clips.

    Sounds with high peaks do not make all others quiet: the common loudness is -26
    LUFS at least, and those that would clip there are scaled to a peak of 0.89.

    Args:
      sounds: each [t] float at 16 kHz.

    Returns:
      A factor for each; 1 for sounds below -50 LUFS, which are the noise of silence.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.perceived import equal_gains
      >>> sine = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
      >>> [round(gain, 2) for gain in equal_gains([0.5 * sine, 0.1 * sine])]
      [1.78, 8.9]
    """
    levels = [perceived_loudness(sound) for sound in sounds]
    peaks = [float(np.abs(sound).max(initial=0)) for sound in sounds]
    highest = [
        20 * math.log10(_HIGHEST_PEAK / peak) + level
        for level, peak in zip(levels, peaks, strict=True)
        if level > _NOISE
    ]
    common = max(min(highest, default=_QUIETEST), _QUIETEST)
    return [
        min(10 ** ((common - level) / 20), _HIGHEST_PEAK / peak)
        if level > _NOISE
        else 1.0
        for level, peak in zip(levels, peaks, strict=True)
    ]
