"""Reads sound files of any kind as mono, at 16 kHz unless told otherwise."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

from magenta_nsynth.audio.decoding import AUDIO_EXTENSIONS, Block, decode
from magenta_nsynth.audio.loudness import MAX_LEVEL, level_problem
from magenta_nsynth.audio.resample import (
    MAX_RATE,
    MIN_RATE,
    resample_blocks,
    resampled_length,
)
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import expand

__all__ = ["AUDIO_EXTENSIONS", "audio_length", "load_audio", "read_audio"]


def load_audio(
    path: str | os.PathLike, sample_length: int = 0, sr: int | None = SAMPLE_RATE
) -> np.ndarray:
    """Reads a sound file as mono, at the networks' 16 kHz or another rate.

    Integer samples are divided by their full range, and channels are averaged. The
    samples of a mono file at `sr` are unchanged. Takes twice the memory of the result,
    plus a few MB.

    Args:
      path: a sound file: WAV, AIFF, FLAC, Ogg (Vorbis, Opus), MP3 and others. The
        format is recognised by the content, not by the extension.
      sample_length: the number of samples at `sr` to keep. A longer file is cut, with a
        log line; the rest is not checked. 0 keeps all. Shorter files are not padded.
      sr: the rate in Hz to resample to; None keeps the file's own.

    Returns:
      [n] float32 at `sr`, n > 0, in [-1, 1]; floating-point files may exceed this.

    Raises:
      AudioError: the file is missing, unreadable, empty, damaged, truncated, of another
        format, or has samples that are NaN, infinite or far beyond 1.
      InputError: sample_length is negative, or sr is no rate from 1 to 400 kHz.

    Differs from NSynth, which reads with librosa, whose resampling filter is another,
    and cuts silently.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> path = "checkpoints/notes/flute_acoustic_073-060-100.wav"
      >>> audio = nsynth.load_audio(path, sample_length=16_000)
      >>> audio.shape, str(audio.dtype)
      ((16000,), 'float32')
      >>> nsynth.load_audio(path, sr=44_100).shape
      (176400,)
    """
    try:
        return read_audio(expand(path), sample_length, sr)
    except NSynthError as error:  # says all that there is to say, so in few lines
        raise error.with_traceback(None) from None


def read_audio(
    path: str, sample_length: int = 0, sr: int | None = SAMPLE_RATE
) -> np.ndarray:
    """As `load_audio`, but without expanding "~" and "$NAME" in the path."""
    if sample_length < 0:
        raise InputError(f"sample_length must be 0 or more, not {sample_length}.")
    if sr is not None and not (
        isinstance(sr, int | np.integer) and MIN_RATE <= sr <= MAX_RATE
    ):
        raise InputError(
            f"sr must be a whole number from {MIN_RATE} to {MAX_RATE} Hz, not {sr}."
        )
    pieces, num_samples = [], 0
    with contextlib.closing(decode(path)) as blocks:
        own_rate, mono = _mono(blocks, path)
        rate = own_rate if sr is None else int(sr)
        for piece in resample_blocks(mono, own_rate, rate):
            pieces.append(piece)
            num_samples += len(piece)
            # One more than requested, to know whether the file ends here.
            if 0 < sample_length < num_samples:
                break
    audio = np.concatenate(pieces)
    if 0 < sample_length < num_samples:
        logging.info(
            "%s: longer than %d samples at %g kHz; the rest is cut off.",
            *(path, sample_length, rate / 1000),
        )
        return audio[:sample_length].copy()
    return audio


def audio_length(path: str | os.PathLike) -> int:
    """The number of samples that `load_audio` would return.

    The whole file is decoded, because headers can be wrong, and some MP3 files have
    none.

    Raises:
      AudioError: as for `load_audio`.
    """
    with contextlib.closing(decode(os.fspath(path))) as blocks:
        first = next(blocks)
        num_samples = len(first.samples) + sum(len(block.samples) for block in blocks)
    return resampled_length(num_samples, first.rate)


def _mono(blocks: Iterator[Block], path: str) -> tuple[int, Iterator[np.ndarray]]:
    """The rate of a file, and its samples as [n] float32 blocks."""
    first = next(blocks)
    if not MIN_RATE <= first.rate <= MAX_RATE:
        raise AudioError(
            f"{path}: a rate of {first.rate} Hz can't be used; convert the file to "
            f"{MIN_RATE} to {MAX_RATE} Hz."
        )
    return first.rate, _mixed(itertools.chain([first], blocks), path)


def _mixed(blocks: Iterable[Block], path: str) -> Iterator[np.ndarray]:
    for block in blocks:
        # Before mixing, where channels of opposite signs could hide it.
        peak = float(np.abs(block.samples).max())
        if problem := level_problem(peak):
            joint = ", or" if MAX_LEVEL < peak < np.inf else ";"
            raise AudioError(f"{path}: {problem}{joint} export it again as 16-bit WAV.")
        yield block.samples.mean(axis=1, dtype=np.float64).astype(np.float32)
