"""Writing WAV files."""

import os
from typing import Literal

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.files import atomic_path, expand

__all__ = ["save_audio", "write_audio"]


def save_audio(
    path: str | os.PathLike,
    audio: np.ndarray,
    bit_depth: Literal["float", 16] = "float",
    rate: int = SAMPLE_RATE,
) -> None:
    """Writes a mono WAV file; a reader never sees it half-written.

    Args:
      path: the file to write. Its folder is created where it is missing.
      audio: [n] float, meant to be in [-1, 1).
      bit_depth: "float" writes float32 samples as they are, the original's format.
        16 writes 16-bit integers, rounded; samples beyond [-1, 1) are clipped.
      rate: samples per second, for the header. Nothing is resampled.

    Raises:
      InputError: another shape or bit depth, or nothing to write.
      AudioError: NaN or infinite samples, or the file can't be written.
    """
    write_audio(expand(path), audio, bit_depth, rate)


def write_audio(
    path: str | os.PathLike,
    audio: np.ndarray,
    bit_depth: Literal["float", 16] = "float",
    rate: int = SAMPLE_RATE,
) -> None:
    """As `save_audio`, to a path that nobody typed: a "$" in it is left alone."""
    # Here, not above: it takes half a second that not every caller needs.
    from scipy.io import wavfile

    audio = np.asarray(audio)
    if audio.ndim != 1 or not audio.size or audio.dtype.kind != "f":
        raise InputError(
            f"{path}: audio must be [n] floating-point samples, "
            f"not {audio.dtype} of shape {list(audio.shape)}."
        )
    if bit_depth not in ("float", 16):
        raise InputError(f"bit_depth must be 'float' or 16, not {bit_depth!r}.")
    if not np.isfinite(audio).all():
        raise AudioError(f"{path}: not written, the audio has NaN or infinite samples.")
    if bit_depth == 16:
        samples = np.clip(np.round(audio * 32768.0), -32768, 32767).astype(np.int16)
    else:
        samples = audio.astype(np.float32)
    try:
        with atomic_path(path) as temporary:
            wavfile.write(temporary, rate, samples)
    except OSError as error:
        reason = error.strerror or error
        raise AudioError(f"{path}: can't be written ({reason}).") from error
