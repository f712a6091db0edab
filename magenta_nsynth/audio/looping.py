"""Loops for held notes: a steady part of a sound that repeats without a click."""

import math
from typing import NamedTuple

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["Loop", "add_loop", "seam_db"]

_SHORTEST = SAMPLE_RATE // 5  # shorter loops sound like a buzz
_FADE = 640  # samples, 40 ms: the crossfade before the end of the loop
_LEVEL_WINDOW = 1600  # samples, 100 ms
_SOUNDING_DB = 12.0  # below the loudest part, a sound is dying away
_STEADY_DB = 1.5  # the most that the levels at both ends may differ
_SLOPE_DB = 5.0  # the most that the level may rise or fall in a second
_NUM_ENDS = 12  # places that are tried for the end
_LENGTH_BONUS = 0.1  # of a loop of twice the length, as a share of likeness
_LEVEL_COST = 0.1  # of each decibel
# Samples on either side of the seam that are the same as at the start of the loop:
# what a player resamples there must not depend on the sound after the loop.
_SAME = 32
_QUIETEST_DB = -60.0  # sounds below are silence
_FLOOR = 1e-9


class Loop(NamedTuple):
    """The part of a sound that is repeated while a note is held.

    Attributes:
      start: its first sample.
      end: the sample after its last one.
    """

    start: int
    end: int


def add_loop(audio: np.ndarray) -> tuple[np.ndarray, Loop | None]:
    """Finds the best loop in the steady part of a sound, and makes it seamless.

    The last 40 ms of the loop change into what precedes its start, and what follows
    the loop changes back from what follows its start, with the power of both kept. So
    the end of the loop runs into its start, and the sound can also be played through.

    Args:
      audio: [t] float.

    Returns:
      The sound, float32 [t], changed within 40 ms of the end of the loop alone, and the
      loop; or the sound as it is and None where no part of it is steady for 0.2 s.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.looping import add_loop
      >>> tone = 0.5 * np.sin(2 * np.pi * 250 * np.arange(16_000) / 16_000)
      >>> _, loop = add_loop(tone)
      >>> (loop.end - loop.start) % 64  # whole periods
      0
      >>> add_loop(tone * np.exp(-np.arange(16_000) / 2000))[1] is None
      True
    """
    audio = np.asarray(audio, np.float32)
    loop = _best(audio)
    if loop is None:
        return audio, None
    return _crossfaded(audio, loop), loop


def _best(audio: np.ndarray) -> Loop | None:
    """The likeliest loop, or None."""
    level = _level_db(audio)
    sounding = np.flatnonzero(level > level.max(initial=-math.inf) - _SOUNDING_DB)
    if not len(sounding) or level.max() < _QUIETEST_DB:
        return None
    first = int(sounding[0]) + _LEVEL_WINDOW
    last = min(int(sounding[-1]) + _LEVEL_WINDOW // 2, len(audio) - _FADE)
    earliest = max(first, _FADE)
    best, best_score = None, -math.inf
    if earliest + _SHORTEST > last:
        return None
    for end in np.linspace(earliest + _SHORTEST, last, _NUM_ENDS).astype(int):
        starts = np.arange(earliest, end - _SHORTEST + 1)
        likeness = _likeness(audio, end, starts)
        lengths = end - starts
        change = np.abs(level[end - _LEVEL_WINDOW] - level[starts - _LEVEL_WINDOW])
        score = (
            likeness
            + _LENGTH_BONUS * np.log2(lengths / _SHORTEST)
            - _LEVEL_COST * change
        )
        allowed = np.minimum(_STEADY_DB, _SLOPE_DB * lengths / SAMPLE_RATE)
        score[change > allowed] = -math.inf
        place = int(np.argmax(score))
        if score[place] > best_score:
            best, best_score = Loop(int(starts[place]), int(end)), float(score[place])
    return best


def _level_db(audio: np.ndarray) -> np.ndarray:
    """The level of the 100 ms from each sample on, in dB; [t - 1600 + 1]."""
    sums = np.cumsum(np.pad(np.square(audio, dtype=np.float64), (1, 0)))
    means = (sums[_LEVEL_WINDOW:] - sums[:-_LEVEL_WINDOW]) / _LEVEL_WINDOW
    return 10 * np.log10(np.maximum(means, _FLOOR**2))


def _likeness(audio: np.ndarray, end: int, starts: np.ndarray) -> np.ndarray:
    """How like the 40 ms before each start are those before the end: at most 1."""
    from scipy import signal

    part = audio[end - _FADE : end].astype(np.float64)
    past = audio[starts[0] - _FADE : starts[-1]].astype(np.float64)
    products = signal.correlate(past, part, "valid", "fft")
    sums = np.cumsum(np.pad(np.square(past), (1, 0)))
    energies = np.maximum(sums[_FADE:] - sums[:-_FADE], _FLOOR)
    return products / np.sqrt(energies * max(np.dot(part, part), _FLOOR))


def _crossfaded(audio: np.ndarray, loop: Loop) -> np.ndarray:
    """The sound with the end of the loop running into its start."""
    start, end = loop
    result = audio.copy()
    result[end - _FADE : end] = _fade(
        audio[end - _FADE : end], audio[start - _FADE : start]
    )
    result[end : end + _FADE] = _fade(
        audio[end : end + _FADE][::-1], audio[start : start + _FADE][::-1]
    )[::-1]
    return result


def _fade(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From one signal [640] to another, which is there for the last samples."""
    size = math.sqrt(float(np.dot(one, one) * np.dot(other, other)))
    likeness = max(float(np.dot(one, other)) / size, 0.0) if size else 1.0
    angle = np.minimum(np.arange(_FADE) / (_FADE - _SAME), 1) * np.pi / 2
    fall, rise = np.cos(angle), np.sin(angle)
    # Alike signals add up, others add only their powers.
    return (fall * one + rise * other) / np.sqrt(1 + 2 * likeness * fall * rise)


def seam_db(audio: np.ndarray, loop: Loop) -> float:
    """How far the end of a loop is from running into its start, in decibels.

    Compares the samples before and after both.

    Args:
      audio: [t] float, as it is stored.
      loop: the loop.

    Returns:
      The largest difference, relative to the loop's peak; -180 if there is none. A
      loop above -60 dB may click.
    """
    around = np.arange(-_SAME + 1, _SAME - 1)
    there, back = (
        audio[place + around].astype(np.float64) for place in (loop.end, loop.start)
    )
    peak = float(np.abs(audio[loop.start : loop.end]).max(initial=0))
    error = float(np.abs(there - back).max())
    return 20 * math.log10(max(error / max(peak, _FLOOR), _FLOOR))
