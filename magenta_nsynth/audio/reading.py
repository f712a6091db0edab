"""Reading sound files of any kind as mono at 16 kHz."""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

from magenta_nsynth.audio.compressed import open_compressed
from magenta_nsynth.audio.resample import resample_blocks, resampled_length
from magenta_nsynth.audio.sound import Sound
from magenta_nsynth.audio.wav import open_wav
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.files import expand

__all__ = ["AUDIO_EXTENSIONS", "load_audio", "read_audio"]

_COMPRESSED = {".flac": "FLAC", ".ogg": "Ogg Vorbis", ".mp3": "MP3"}
AUDIO_EXTENSIONS = (".wav", *_COMPRESSED)  # compared without regard to case

_MIN_RATE, _MAX_RATE = 1_000, 400_000  # Hz; beyond these a header is damaged


def load_audio(path: str | os.PathLike, sample_length: int = 0) -> np.ndarray:
    """Reads a sound file as mono at 16 kHz.

    Needs the memory of what it returns and a few MB. Integer samples are divided by
    their full range, channels are averaged, and a mono file at 16 kHz comes out
    exactly as it is.

    Differs from NSynth, which reads with librosa (another resampling filter) and cuts
    in silence.

    Args:
      path: a .wav, .flac, .ogg (Vorbis) or .mp3 file, the extension in any case. Only
        the last three need tensorflow-io or soundfile.
      sample_length: the samples at 16 kHz to keep; a longer file is cut, which is
        logged. 0 keeps all. Shorter files are not padded.

    Returns:
      [n] float32 at 16 kHz, n > 0, in [-1, 1] (floating-point files may go beyond).

    Raises:
      AudioError: the file is missing, unreadable, empty, damaged, of another format,
        or has NaN or infinite samples.
      InputError: sample_length is negative.
    """
    return read_audio(expand(path), sample_length)


def read_audio(path: str, sample_length: int = 0) -> np.ndarray:
    """As `load_audio`, of a path that nobody typed: a "$" in it is left alone."""
    if sample_length < 0:
        raise InputError(f"sample_length must be 0 or more, not {sample_length}.")
    sound = _open(path)
    if not _MIN_RATE <= sound.rate <= _MAX_RATE:
        raise AudioError(
            f"{path}: a rate of {sound.rate} Hz can't be used; convert the file to one "
            f"from {_MIN_RATE} to {_MAX_RATE} Hz."
        )
    if not sound.num_samples:
        raise AudioError(f"{path}: there are no samples in it; export it again.")
    num_samples = resampled_length(sound.num_samples, sound.rate)
    if 0 < sample_length < num_samples:
        logging.info(
            "%s: %d samples at 16 kHz are cut to %d.", path, num_samples, sample_length
        )
        num_samples = sample_length
    audio = np.empty(num_samples, np.float32)
    num_done = 0
    with contextlib.closing(sound.blocks):
        for block in resample_blocks(_mono(sound.blocks, path), sound.rate):
            kept = block[: num_samples - num_done]
            audio[num_done : num_done + len(kept)] = kept
            num_done += len(kept)
            if num_done == num_samples:
                break
    return audio


def _open(path: str) -> Sound:
    extension = pathlib.Path(path).suffix.lower()
    if extension == ".wav":
        return open_wav(path)
    if extension in _COMPRESSED:
        return open_compressed(path, _COMPRESSED[extension])
    raise AudioError(
        f"{path}: can't be read by its extension; give one of "
        f"{', '.join(AUDIO_EXTENSIONS)}."
    )


def _mono(blocks: Iterable[np.ndarray], path: str) -> Iterator[np.ndarray]:
    for block in blocks:
        # An overflow becomes infinite, which is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            mixed = block.mean(axis=1, dtype=np.float64).astype(np.float32)
        if not np.isfinite(mixed).all():
            raise AudioError(
                f"{path}: has NaN or infinite samples; export it again, as 16-bit WAV."
            )
        yield mixed
