"""What users give as a sound, as clips."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from magenta_nsynth.audio import load_audio
from magenta_nsynth.audio.level import level_problem
from magenta_nsynth.errors import InputError

__all__ = ["as_clips"]

Check = Callable[[np.ndarray, str], np.ndarray]


def as_clips(
    sounds: Any, sample_length: int, check: Check
) -> tuple[list[np.ndarray], Callable[[list], Any]]:
    """Sounds in any of their forms as a list of clips.

    Args:
      sounds: a file's path; an array [t], [b, t] or [b, t, 1] of floats in [-1, 1] at
        16 kHz; or a list of paths and arrays [t], of any lengths.
      sample_length: cuts each to so many samples; 0 takes all.
      check: makes of a clip and its name what the model can use of it, or raises.

    Returns:
      [t] float32 each; and what makes of a list of results one of the form of
      `sounds`: the one result, an array of all, or a list.

    Raises:
      InputError: another shape or dtype, or values that aren't finite or are far
        beyond [-1, 1].
      AudioError: a file that can't be read. And what `check` raises.
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
        return [_clip(sounds, sample_length, check)], lambda results: results[0]
    array = np.asarray(sounds)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 1:
        return [_clip(array, sample_length, check)], lambda results: results[0]
    if array.ndim == 2 and len(array):
        return [_clip(row, sample_length, check) for row in array], np.stack
    raise InputError(
        f"Audio has shape [time], [batch, time] or [batch, time, 1], not "
        f"{list(array.shape)}; mix several channels to one first."
    )


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
    with np.errstate(over="ignore"):  # what a float32 can't hold becomes infinite
        audio = audio[: sample_length or None].astype(np.float32)
    if problem := level_problem(float(np.abs(audio).max(initial=0))):
        raise InputError(f"{name}: {problem}.")
    return check(audio, name)


def _is_numbers(values: Sequence[Any]) -> bool:
    """Whether a list is itself one clip, as in encode([0.0, 0.1, ...])."""
    return bool(values) and np.isscalar(values[0]) and not isinstance(values[0], str)
