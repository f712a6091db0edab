"""Writes WAV files."""

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
    """Writes a mono WAV file. Readers never see it half-written.

    Args:
      path: the file to write, .wav or without an extension. Its folder is created if
        necessary.
      audio: [n] float, normally in [-1, 1).
      bit_depth: "float" writes float32 samples unchanged, as the original does. 16
        writes rounded 16-bit integers, and clips samples outside [-1, 1).
      rate: the rate in Hz, for the header. Nothing is resampled.

    Raises:
      InputError: another shape, bit depth or extension, or no samples.
      AudioError: NaN or infinite samples, or the file can't be written.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> sine = 0.5 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000))
      >>> nsynth.save_audio("sine.wav", sine, bit_depth=16)
      >>> nsynth.load_audio("sine.wav").shape
      (16000,)
    """
    path = expand(path)
    stem, extension = os.path.splitext(path)
    if extension.lower() not in ("", ".wav"):
        raise InputError(
            f"{path}: only WAV files are written; name it {stem}.wav, and convert it "
            "with another program, such as ffmpeg."
        )
    write_audio(path, audio, bit_depth, rate)


def write_audio(
    path: str | os.PathLike,
    audio: np.ndarray,
    bit_depth: Literal["float", 16] = "float",
    rate: int = SAMPLE_RATE,
) -> None:
    """As `save_audio`, but without expanding "~" and "$NAME" in the path."""
    # Imported here because it takes half a second, and not every caller needs it.
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
        raise AudioError(f"{path}: can't be written ({reason}).") from None
