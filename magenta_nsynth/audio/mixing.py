"""Sums of signals, and their loudness, to compare mixed embeddings with."""

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
    """Scales weights so that they sum to 1.

    Args:
      weights: `count` finite numbers that don't sum to 0. A negative weight moves away
        from its source. Or [count, n], for n points in time. None means equal weights.
      count: the number of sources.

    Returns:
      float64 [count] or [count, n].

    Raises:
      InputError: another number of weights, or weights that aren't finite or sum to 0.
    """
    if weights is None:
        weights = np.ones(count)
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(())
    if values.ndim not in (1, 2) or len(values) != count or not values.size:
        raise InputError(
            f"Weights {_shown(weights)}: {count} sources need {count} weights, one "
            "number each."
        )
    if not np.isfinite(values).all():
        raise InputError(f"Weights must be finite numbers, not {_shown(weights)}.")
    total = values.sum(axis=0)
    if (abs(total) <= 1e-6 * abs(values).sum(axis=0)).any():
        raise InputError(
            f"The weights {_shown(weights)} sum to 0, so they can't be normalised; "
            "give others."
        )
    return values / total


def _shown(weights: Sequence[float] | np.ndarray) -> str:
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
    """The weighted mean of signals, to compare a mix of their embeddings with.

    Args:
      sounds: [t] float each. All are cut to the shortest.
      weights: one number per sound, scaled to sum to 1; None means equal weights.
        [count, t] change over time.
      prevent_clipping: scales the result to a peak of 1 if it is louder.

    Returns:
      [t] float32.

    Raises:
      InputError: weights or sounds that can't be used.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> nsynth.sum_signals([np.zeros(2), np.full(3, 0.8)], weights=[3, 1]).tolist()
      [0.20000000298023224, 0.20000000298023224]
    """
    clips = [_checked(sound, f"sound {i}") for i, sound in enumerate(sounds)]
    if not clips:
        raise InputError("There are no sounds to sum.")
    shares = normalized_weights(weights, len(clips))
    length = min(map(len, clips))
    if shares.ndim == 2 and shares.shape[1] < length:
        raise InputError(
            f"There are weights for {shares.shape[1]} of {length} samples; give one "
            "for each."
        )
    shares = shares[..., None] if shares.ndim == 1 else shares[:, :length]
    total = np.zeros(length)
    for clip, share in zip(clips, shares, strict=True):
        total += share * clip[:length]
    scale = clipping_scale(total) if prevent_clipping else 1.0
    if scale < 1:
        logging.info("Scaling the sum of the signals by %.3f to avoid clipping.", scale)
    return (total * scale).astype(np.float32)


def clipping_scale(audio: np.ndarray) -> float:
    """The factor that keeps audio [t] from clipping; 1 if it doesn't clip."""
    peak = float(np.abs(audio).max(initial=0))
    return 1 / peak if peak > 1 else 1.0


def rms(audio: np.ndarray) -> float:
    """The root mean square of audio [t]; 0 for empty audio."""
    if not len(audio):
        return 0.0
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))


def match_loudness(
    audio: np.ndarray,
    sources: Sequence[np.ndarray],
    weights: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """Scales audio to the weighted mean RMS of the sounds that it is a mix of.

    The result never clips: its peak is at most 1. Nor is audio amplified by more than
    40 dB, because anything that quiet is noise. In either case a log line says how much
    quieter than its sources it is.

    Args:
      audio: [t] float.
      sources: [t] float each, of any lengths.
      weights: as for `sum_signals`; only their magnitudes count.

    Returns:
      [t] float32.

    Raises:
      InputError: weights or sounds that can't be used.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> quiet, loud = np.full(4, 0.25), np.full(4, 0.75)
      >>> nsynth.match_loudness(np.full(2, 0.1), [quiet, loud]).tolist()
      [0.5, 0.5]
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
    """The factor that `match_loudness` applies.

    Args:
      audio: [t] float.
      levels: the RMS of each source.
      weights: as for `match_loudness`.
      name: the name of the audio in the log.
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
        limit, reason = _MOST_GAIN, "its noise would be audible"
    if scale <= limit:
        return scale
    logging.info(
        "%s is %.1f dB quieter than its sources: any louder, %s.",
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
