"""Levels: of samples, of mixes, and how loud a sound is."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.errors import InputError

__all__ = [
    "MAX_LEVEL",
    "clipping_scale",
    "level_problem",
    "loudness_scale",
    "match_loudness",
    "normalized_weights",
    "rms",
    "sum_signals",
]

# Full scale is 1. Floating-point sound may exceed it by a few dB. Beyond 18 dB the
# samples are integers that were never scaled, or damaged.
MAX_LEVEL = 8.0

_INTEGER_BITS = (8, 16, 24, 32)


def level_problem(peak: float) -> str:
    """Describes what is wrong with sound of this peak, and what to do.

    Args:
      peak: the largest magnitude of its samples; NaN if one of them is NaN.

    Returns:
      Words that follow the sound's name in a message; "" if nothing is wrong.
    """
    if not math.isfinite(peak):
        return "has NaN or infinite samples"
    if peak <= MAX_LEVEL:
        return ""
    for bits in _INTEGER_BITS:
        full = 2 ** (bits - 1)
        if peak <= full:
            return (
                f"samples reach {peak:.6g}; they look like {bits}-bit integers in "
                f"floating-point form: divide by {full}"
            )
    return (
        f"samples reach {peak:.6g}, where full scale is 1; they are not sound, or "
        "have another number format"
    )


_MOST_GAIN = 100.0  # 40 dB


def normalized_weights(
    weights: Sequence[float] | np.ndarray | None, count: int
) -> np.ndarray:
    """Divides weights by their sum.

    Args:
      weights: `count` finite numbers whose sum is not 0, or [count, n], which change
        over time. They may be below 0. None weights all equally.
      count: how many sounds or embeddings are mixed.

    Returns:
      float64 [count] or [count, n]; the sum over the first axis is 1.

    Raises:
      InputError: another number of weights, or weights that can't be used.
    """
    if weights is None:
        weights = np.ones(count)
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(())
    if values.ndim not in (1, 2) or len(values) != count or not values.size:
        raise InputError(
            f"Weights {_shown(weights)}: {count} sources need {count} numbers."
        )
    if not np.isfinite(values).all():
        raise InputError(f"Weights must be finite numbers, not {_shown(weights)}.")
    total = values.sum(axis=0)
    if (abs(total) <= 1e-6 * abs(values).sum(axis=0)).any():
        raise InputError(
            f"The weights {_shown(weights)} sum to 0, and they have to be divided by "
            "their sum; use others."
        )
    return values / total


def _shown(weights: Any) -> str:
    if not np.ndim(weights):
        return repr(weights)
    if np.ndim(weights) > 1:
        return f"of shape {list(np.shape(weights))}"
    return ", ".join(f"{w:g}" if isinstance(w, float) else str(w) for w in weights)


def sum_signals(
    sounds: Sequence[np.ndarray],
    weights: Sequence[float] | np.ndarray | None = None,
    prevent_clipping: bool = True,
) -> np.ndarray:
    """The weighted sum of signals, to compare with a mix of their embeddings.

    Args:
      sounds: one or more, each [t] float. All are cut to the shortest.
      weights: as in `normalized_weights`; [count, t] change over time.
      prevent_clipping: scales the sum to a peak of 1 if its peak is above 1.

    Returns:
      [t] float32; with equal weights, the mean of the signals.

    Raises:
      InputError: weights or sounds that can't be used.

    Examples:
      >>> sum_signals([np.array([0.5, -0.5]), np.array([0.0, 1.0])])
      array([0.25, 0.25], dtype=float32)
    """
    clips = [_checked(sound, f"sound {i}") for i, sound in enumerate(sounds)]
    if not clips:
        raise InputError("There are no sounds to sum.")
    shares = normalized_weights(weights, len(clips))
    length = min(map(len, clips))
    if shares.ndim == 2 and shares.shape[1] < length:
        raise InputError(
            f"The weights are for {shares.shape[1]} samples, and the sounds have "
            f"{length}."
        )
    shares = shares[..., None] if shares.ndim == 1 else shares[:, :length]
    total = np.zeros(length)
    for clip, share in zip(clips, shares, strict=True):
        total += share * clip[:length]
    scale = clipping_scale(total) if prevent_clipping else 1.0
    if scale < 1:
        logging.info("The sum is scaled by %.3f to prevent clipping.", scale)
    return (total * scale).astype(np.float32)


def clipping_scale(audio: np.ndarray) -> float:
    """The factor that keeps audio [t] from clipping; 1 if it does not clip."""
    peak = float(np.abs(audio).max(initial=0))
    return 1 / peak if peak > 1 else 1.0


def rms(audio: np.ndarray) -> float:
    """The root mean square of audio [t]; 0 for an empty array."""
    if not len(audio):
        return 0.0
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))


def match_loudness(
    audio: np.ndarray,
    sources: Sequence[np.ndarray],
    weights: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """Scales a mix to the weighted mean RMS of its sources.

    The result never clips: if its peak would be above 1, it is scaled to a peak of 1.
    The gain is limited to 40 dB, since anything quieter is the noise of silence. In
    both cases a log line says how far below its sources the result stays.

    Args:
      audio: [t] float.
      sources: the sounds that were mixed, each [t] float, of any length.
      weights: as in `normalized_weights`; their absolute values are used.

    Returns:
      [t] float32.

    Raises:
      InputError: weights or sounds that can't be used.

    Examples:
      >>> match_loudness(np.full(3, 0.1), [np.full(5, 0.5), np.full(5, 0.3)])
      array([0.4, 0.4, 0.4], dtype=float32)
    """
    levels = [rms(_checked(s, f"source {i}")) for i, s in enumerate(sources)]
    scale = loudness_scale(_checked(audio, "the audio"), levels, weights)
    return (audio * scale).astype(np.float32)


def loudness_scale(
    audio: np.ndarray,
    levels: Sequence[float],
    weights: Sequence[float] | np.ndarray | None = None,
    name: str = "The audio",
) -> float:
    """The factor that `match_loudness` multiplies by.

    Args:
      audio: [t] float.
      levels: the RMS of each source.
      weights: as in `match_loudness`.
      name: what a log line calls the audio.
    """
    shares = np.abs(normalized_weights(weights, len(levels)))
    shares = shares.mean(axis=1) if shares.ndim == 2 else shares
    wanted = float(np.dot(shares / shares.sum(), levels))
    level = rms(audio)
    if not level:
        return 1.0
    scale = wanted / level
    limit, reason = 1 / float(np.abs(audio).max()), "it would clip if it were louder"
    if limit > _MOST_GAIN:
        limit, reason = _MOST_GAIN, "more gain would make the noise of silence audible"
    if scale <= limit:
        return scale
    logging.info(
        "%s stays %.1f dB below the loudness of its sources: %s.",
        *(name, 20 * np.log10(scale / limit), reason),
    )
    return limit


def _checked(audio: np.ndarray, name: str) -> np.ndarray:
    audio = np.asarray(audio)
    if audio.ndim != 1 or not len(audio) or audio.dtype.kind != "f":
        raise InputError(
            f"{name}: expected floats of shape [time], not {audio.dtype} of "
            f"{list(audio.shape)}."
        )
    if not np.isfinite(audio).all():
        raise InputError(f"{name}: holds NaN or infinite values.")
    return audio
