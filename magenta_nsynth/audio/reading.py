"""Reading sound files of any kind as mono at 16 kHz."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

from magenta_nsynth.audio.decoding import AUDIO_EXTENSIONS, Block, decode
from magenta_nsynth.audio.level import MAX_LEVEL, level_problem
from magenta_nsynth.audio.resample import (
    MAX_RATE,
    MIN_RATE,
    resample_blocks,
    resampled_length,
)
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.files import expand

__all__ = ["AUDIO_EXTENSIONS", "audio_length", "load_audio", "read_audio"]


def load_audio(path: str | os.PathLike, sample_length: int = 0) -> np.ndarray:
    """Reads a sound file as mono at 16 kHz.

    Needs twice the memory of what it returns, and a few MB. Integer samples are divided
    by their full range, channels are averaged, and a mono file at 16 kHz comes out
    exactly as it is.

    Differs from NSynth, which reads with librosa (another resampling filter) and cuts
    in silence.

    Args:
      path: a sound file: WAV, AIFF, FLAC, Ogg (Vorbis, Opus), MP3 and others. The
        content says which, not the extension.
      sample_length: the samples at 16 kHz to keep; a longer file is cut, which is
        logged, and what lies behind is not looked at. 0 keeps all. Shorter files are
        not padded.

    Returns:
      [n] float32 at 16 kHz, n > 0, in [-1, 1] (floating-point files may go beyond).

    Raises:
      AudioError: the file is missing, unreadable, empty, damaged, cut, of another
        format, or has samples that are NaN, infinite or far beyond 1.
      InputError: sample_length is negative.
    """
    return read_audio(expand(path), sample_length)


def read_audio(path: str, sample_length: int = 0) -> np.ndarray:
    """As `load_audio`, of a path that nobody typed: a "$" in it is left alone."""
    if sample_length < 0:
        raise InputError(f"sample_length must be 0 or more, not {sample_length}.")
    pieces, num_samples = [], 0
    with contextlib.closing(decode(path)) as blocks:
        rate, mono = _mono(blocks, path)
        for piece in resample_blocks(mono, rate):
            pieces.append(piece)
            num_samples += len(piece)
            # One more than wanted: whether the file ends here, only its end tells.
            if 0 < sample_length < num_samples:
                break
    audio = np.concatenate(pieces)
    if 0 < sample_length < num_samples:
        logging.info(
            "%s: longer than %d samples at 16 kHz, and cut to them.",
            *(path, sample_length),
        )
        return audio[:sample_length].copy()
    return audio


def audio_length(path: str | os.PathLike) -> int:
    """The samples at 16 kHz that `load_audio` would return, found by decoding.

    Headers are not believed: of some MP3 files the length is known at the end only.

    Raises:
      AudioError: as of `load_audio`.
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
            f"{path}: a rate of {first.rate} Hz can't be used; convert the file to one "
            f"from {MIN_RATE} to {MAX_RATE} Hz."
        )
    return first.rate, _mixed(itertools.chain([first], blocks), path)


def _mixed(blocks: Iterable[Block], path: str) -> Iterator[np.ndarray]:
    for block in blocks:
        # Before mixing: channels of opposite signs would hide it.
        peak = float(np.abs(block.samples).max())
        if problem := level_problem(peak):
            joint = ", or" if peak > MAX_LEVEL else ";"
            raise AudioError(f"{path}: {problem}{joint} export it again as 16-bit WAV.")
        yield block.samples.mean(axis=1, dtype=np.float64).astype(np.float32)
