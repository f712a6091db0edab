"""Converts sounds and embeddings in any form that users pass to lists."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from magenta_nsynth.audio import load_audio
from magenta_nsynth.audio.loudness import level_problem
from magenta_nsynth.errors import InputError

__all__ = ["as_clips", "as_embeddings"]

Check = Callable[[np.ndarray, str], np.ndarray]
Pack = Callable[[list[np.ndarray]], Any]


def as_clips(
    sounds: Any, sample_length: int, check: Check
) -> tuple[list[np.ndarray], Pack]:
    """Converts sounds in any form to a list of clips.

    Args:
      sounds: a path; an array [t], [b, t] or [b, t, 1] of floats in [-1, 1] at 16 kHz;
        or a list of paths and arrays [t] of any lengths.
      sample_length: cuts each sound to this many samples; 0 keeps all.
      check: returns the usable part of a clip, given its name, or raises.

    Returns:
      The clips, [t] float32 each; and a function that converts a list of results to the
      form of `sounds`: the only result, an array of all results, or the list.

    Raises:
      InputError: another shape or dtype, or values that aren't finite or are far
        beyond [-1, 1].
      AudioError: a file that can't be read. Also what `check` raises.
    """
    if sample_length < 0:
        raise InputError(f"sample_length must be 0 or more, not {sample_length}.")
    if isinstance(sounds, list | tuple) and not _is_numbers(sounds):
        if not sounds:
            raise InputError("An empty list of sounds was given.")
        return [
            _clip(sound, sample_length, check, f"sound {i}")
            for i, sound in enumerate(sounds)
        ], list
    if isinstance(sounds, str | os.PathLike):
        return [_clip(sounds, sample_length, check)], _only
    array = np.asarray(sounds)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 1:
        return [_clip(array, sample_length, check)], _only
    if array.ndim == 2 and len(array):
        return [_clip(row, sample_length, check) for row in array], np.stack
    raise InputError(
        f"Audio must have shape [time], [batch, time] or [batch, time, 1], not "
        f"{list(array.shape)}; mix several channels to one first."
    )


def as_embeddings(
    values: Any, name: str, check: Check
) -> tuple[list[np.ndarray], Pack]:
    """Converts embeddings in any form to a list.

    Args:
      values: an array [rows, n] or [b, rows, n], or a list of the former.
      name: the embeddings' name in errors.
      check: returns an embedding [rows, n] float32, given its name, or raises.

    Returns:
      The embeddings, and a function as from `as_clips`.

    Raises:
      InputError: an empty list. Also what `check` raises.
    """
    if isinstance(values, list | tuple):
        if not values:
            raise InputError(f"{name}: an empty list was given.")
        return [check(value, f"{name} {i}") for i, value in enumerate(values)], list
    array = np.asarray(values)
    if array.ndim == 3 and len(array):
        return [check(value, name) for value in array], np.stack
    return [check(array, name)], _only


def _only(results: list[np.ndarray]) -> np.ndarray:
    return results[0]


def _clip(
    sound: Any, sample_length: int, check: Check, name: str = "the audio"
) -> np.ndarray:
    if isinstance(sound, str | os.PathLike):
        return check(load_audio(sound, sample_length), os.fspath(sound))
    audio = np.asarray(sound)
    if audio.ndim == 2 and audio.shape[1] == 1:
        audio = audio[:, 0]
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise InputError(
            f"{name}: expected floats in [-1, 1] of shape [time], not "
            f"{audio.dtype} of {list(audio.shape)}; divide 16-bit integers by "
            "32768 and mix channels to one."
        )
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite
        audio = audio[: sample_length or None].astype(np.float32)
    if problem := level_problem(float(np.abs(audio).max(initial=0))):
        raise InputError(f"{name}: {problem}.")
    return check(audio, name)


def _is_numbers(values: Sequence[Any]) -> bool:
    """Whether a list is itself a clip, as in encode([0.0, 0.1, ...])."""
    return bool(values) and np.isscalar(values[0]) and not isinstance(values[0], str)
