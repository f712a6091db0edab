"""Converts sounds and embeddings in any form that users pass to lists."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from magenta_nsynth.audio import load_audio
from magenta_nsynth.audio.loudness import level_problem
from magenta_nsynth.errors import InputError

__all__ = ["as_clips", "as_embeddings"]

_MOST_CHANNELS = 8
# Of integers, as in WAV files, where those of 8 bits have no sign.
_OFFSETS_AND_SCALES = {
    "uint8": (np.float64(2**7), 2**7),
    "int8": (np.float64(0), 2**7),
    "int16": (np.float64(0), 2**15),
    "int32": (np.float64(0), 2**31),
}

Check = Callable[[np.ndarray, str], np.ndarray]
Pack = Callable[[list[np.ndarray]], Any]


def as_clips(
    sounds: Any, sample_length: int, check: Check
) -> tuple[list[np.ndarray], Pack]:
    """Converts sounds in any form to a list of clips.

    Args:
      sounds: a path; an array [t], [t, 1], [b, t] or [b, t, 1] at 16 kHz of floats in
        [-1, 1], or of 8-, 16- or 32-bit integers, which are divided by their full
        range; or a list of paths and arrays [t] of any lengths. An array is whatever
        `np.asarray` takes: a tensor on the CPU, a column of a table.
      sample_length: cuts each sound to this many samples; 0 keeps all.
      check: returns the usable part of a clip, given its name, or raises.

    Returns:
      The clips, [t] float32 each; and a function that converts a list of results to the
      form of `sounds`: the only result, an array of all results, or the list.

    Raises:
      InputError: another shape or dtype, several channels, or values that aren't
        finite or are far beyond [-1, 1].
      AudioError: a file that can't be read. Also what `check` raises.
    """
    if sample_length < 0:
        raise InputError(f"sample_length must be 0 or more, not {sample_length}.")
    if isinstance(sounds, str | os.PathLike):
        return [_clip(sounds, sample_length, check)], _only
    if isinstance(sounds, list | tuple) and not all(map(_is_number, sounds[:2])):
        _refuse_pair(sounds)
    elif not isinstance(sounds, list | tuple) or sounds:
        array = _as_array(sounds, "the audio")
        if array.ndim != 1 or array.dtype.kind not in "OU":
            return _clips_of_array(array, sample_length, check)
        sounds = array.tolist()  # a column of paths
    if not sounds:
        raise InputError("An empty list of sounds was given.")
    return [
        _clip(sound, sample_length, check, f"sound {i}")
        for i, sound in enumerate(sounds)
    ], list


def _clips_of_array(
    array: np.ndarray, sample_length: int, check: Check
) -> tuple[list[np.ndarray], Pack]:
    """As `as_clips`, for an array."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    # Nobody's clips have as few samples as this: the second axis is that of channels.
    is_one = array.ndim == 2 and 0 < array.shape[1] <= _MOST_CHANNELS
    if array.ndim == 1 or is_one:
        return [_clip(array, sample_length, check)], _only
    if array.ndim == 2 and len(array):
        return [_clip(row, sample_length, check) for row in array], np.stack
    raise InputError(
        f"Audio must have shape [time], [batch, time] or [batch, time, 1], not "
        f"{list(array.shape)}; mix several channels to one first, with "
        "audio.mean(axis=-1) if the last axis is theirs."
    )


def _refuse_pair(sounds: Sequence[Any]) -> None:
    """Raises InputError for a rate and samples, as SciPy's and librosa's readers give.

    Args:
      sounds: what was given as a list of sounds.
    """
    if len(sounds) == 2 and any(map(_is_number, sounds)):
        raise InputError(
            "A pair of a rate and samples was given, as scipy.io.wavfile.read and "
            "librosa.load return it: pass the samples alone, at 16 kHz, or the path "
            "of the file, which is then resampled and mixed to mono."
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
        names = [f"{name} {i}" for i in range(len(values))]
        arrays = map(_as_array, values, names)
        return [check(*pair) for pair in zip(arrays, names, strict=True)], list
    array = _as_array(values, name)
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
    audio = _as_array(sound, name)
    if audio.ndim == 2 and audio.shape[1] == 1:
        audio = audio[:, 0]
    if audio.ndim == 2 and 1 < audio.shape[1] <= _MOST_CHANNELS:
        raise InputError(
            f"{name}: the last axis of {list(audio.shape)} looks like "
            f"{audio.shape[1]} channels; mix them to one first, with "
            "audio.mean(axis=1)."
        )
    if audio.ndim != 1:
        raise InputError(
            f"{name}: expected samples of shape [time], not {list(audio.shape)}."
        )
    audio = _as_floats(audio[: sample_length or None], name)
    if problem := level_problem(float(np.abs(audio).max(initial=0))):
        raise InputError(f"{name}: {problem}.")
    return check(audio, name)


def _as_array(values: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except Exception as error:  # a tensor on another device, rows of several lengths
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{name}: {type(values).__name__} can't be converted to a NumPy array "
            f"({reason})."
        ) from None
    if not array.ndim:
        raise InputError(
            f"{name}: expected a path or an array, not {type(values).__name__}."
        )
    # NumPy itself has no such type, and doesn't count it among the floats.
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _as_floats(audio: np.ndarray, name: str) -> np.ndarray:
    """Samples [t] as float32; integers are divided by their full range."""
    if audio.dtype.name in _OFFSETS_AND_SCALES:
        offset, scale = _OFFSETS_AND_SCALES[audio.dtype.name]
        return ((audio - offset) / scale).astype(np.float32)
    if audio.dtype.kind != "f":
        raise InputError(
            f"{name}: expected floats in [-1, 1], or 8-, 16- or 32-bit integers, not "
            f"{audio.dtype}."
        )
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite
        return audio.astype(np.float32)


def _is_number(value: Any) -> bool:
    return np.isscalar(value) and not isinstance(value, str | bytes)
