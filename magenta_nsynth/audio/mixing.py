"""Sums of signals, and loudness: what a mix of embeddings is compared with."""

from collections.abc import Sequence

import numpy as np
from absl import logging

from magenta_nsynth.errors import InputError

__all__ = [
    "clipping_scale",
    "loudness_scale",
    "match_loudness",
    "normalized_weights",
    "rms",
    "sum_signals",
]

_MOST_GAIN = 100.0  # 40 dB


def normalized_weights(
    weights: Sequence[float] | np.ndarray | None, count: int
) -> np.ndarray:
    """Weights that sum to 1.

    Args:
      weights: `count` finite numbers that do not sum to 0; below 0 they push away from
        what they belong to. Or [count, n], for each of n moments. None is all equal.
      count: of what is mixed.

    Returns:
      float64 [count] or [count, n].

    Raises:
      InputError: another number of them, or none that could be meant.
    """
    if weights is None:
        weights = np.ones(count)
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(())
    if values.ndim not in (1, 2) or len(values) != count or not values.size:
        raise InputError(
            f"Weights {_shown(weights)}: {count} sources need {count}, a number each."
        )
    if not np.isfinite(values).all():
        raise InputError(f"Weights must be finite numbers, not {_shown(weights)}.")
    total = values.sum(axis=0)
    if (abs(total) <= 1e-6 * abs(values).sum(axis=0)).any():
        raise InputError(
            f"The weights {_shown(weights)} sum to 0, so there is nothing to divide "
            "by; give others."
        )
    return values / total


def _shown(weights: object) -> str:
    if not np.ndim(weights):
        return repr(weights)
    if np.ndim(weights) > 1:
        return f"those of shape {list(np.shape(weights))}"
    return ", ".join(f"{w:g}" if isinstance(w, float) else str(w) for w in weights)


def sum_signals(
    sounds: Sequence[np.ndarray],
    weights: Sequence[float] | np.ndarray | None = None,
    prevent_clipping: bool = True,
) -> np.ndarray:
    """The weighted sum of signals, to compare a mix of their embeddings with.

    Args:
      sounds: [t] float each. All are cut to the shortest.
      weights: as in `normalized_weights`; [count, t] change over time.
      prevent_clipping: scales the sum to a peak of 1 if it is above that.

    Returns:
      [t] float32; with equal weights the mean of the signals.

    Raises:
      InputError: weights or sounds that can't be used.
    """
    clips = [_checked(sound, f"sound {i}") for i, sound in enumerate(sounds)]
    if not clips:
        raise InputError("There are no sounds to sum.")
    shares = normalized_weights(weights, len(clips))
    length = min(map(len, clips))
    if shares.ndim == 2 and shares.shape[1] < length:
        raise InputError(f"{shares.shape[1]} weights in time, for {length} samples.")
    shares = shares[..., None] if shares.ndim == 1 else shares[:, :length]
    total = np.zeros(length)
    for clip, share in zip(clips, shares, strict=True):
        total += share * clip[:length]
    scale = clipping_scale(total) if prevent_clipping else 1.0
    if scale < 1:
        logging.info("The sum of the signals is scaled by %.3f, not to clip.", scale)
    return (total * scale).astype(np.float32)


def clipping_scale(audio: np.ndarray) -> float:
    """What to multiply audio [t] by so that it doesn't clip; 1 where it doesn't."""
    peak = float(np.abs(audio).max(initial=0))
    return 1 / peak if peak > 1 else 1.0


def rms(audio: np.ndarray) -> float:
    """The root of the mean square of audio [t]; 0 of nothing."""
    return (
        float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
        if len(audio)
        else 0.0
    )


def match_loudness(
    audio: np.ndarray,
    sources: Sequence[np.ndarray],
    weights: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """Scales audio to the weighted mean RMS of the sounds that it was mixed of.

    It never clips: where the peak would go above 1 the audio is scaled to a peak of 1.
    Nor is it raised by more than 40 dB, for what is so quiet is the noise of silence.
    Either way a log line says how much quieter than its sources it stays.

    Args:
      audio: [t] float.
      sources: [t] float each, of any lengths.
      weights: as in `normalized_weights`. Their sizes count: one below 0 is no
        loudness below 0.

    Returns:
      [t] float32.

    Raises:
      InputError: weights or sounds that can't be used.
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
    """What `match_loudness` multiplies by.

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
    limit, reason = 1 / float(np.abs(audio).max()), "it would clip"
    if limit > _MOST_GAIN:
        limit, reason = _MOST_GAIN, "the noise of silence would be heard"
    if scale <= limit:
        return scale
    logging.info(
        "%s stays %.1f dB below the loudness of its sources: any louder %s.",
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
