"""WAV files for samplers: 16 bits, with the note and the loop in a smpl chunk."""

import os
import pathlib
import struct

import numpy as np

from magenta_nsynth.audio.looping import Loop
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.files import atomic_path

__all__ = ["sample_bytes", "to_16_bits", "write_sample"]

_FULL = 32768
_PCM = 1  # WAVE's number of this sample format


def to_16_bits(audio: np.ndarray) -> np.ndarray:
    """Rounds audio [t] in [-1, 1) to int16, as `write_audio` does."""
    return np.clip(np.round(audio * _FULL), -_FULL, _FULL - 1).astype("<i2")


def sample_bytes(audio: np.ndarray, pitch: int, loop: Loop | None = None) -> bytes:
    """A mono WAV file of 16 bits at 16 kHz.

    Args:
      audio: [t] float in [-1, 1).
      pitch: the MIDI note at which a sampler plays it unchanged.
      loop: what a sampler repeats while the note is held.
    """
    samples = to_16_bits(audio).tobytes()
    form = struct.pack(
        "<HHIIHH", _PCM, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16
    )  # one channel, two bytes a frame
    loops = b""
    if loop is not None:
        # Its id, forwards, the first and the last sample, no fraction, without end.
        loops = struct.pack("<6I", 0, 0, loop.start, loop.end - 1, 0, 0)
    nanoseconds = round(1e9 / SAMPLE_RATE)
    note = struct.pack("<9I", 0, 0, nanoseconds, pitch, 0, 0, 0, len(loops) // 24, 0)
    chunks = ((b"fmt ", form), (b"data", samples), (b"smpl", note + loops))
    content = b"".join(
        name + struct.pack("<I", len(part)) + part for name, part in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WAVE" + content


def write_sample(
    path: str | os.PathLike, audio: np.ndarray, pitch: int, loop: Loop | None = None
) -> None:
    """Writes what `sample_bytes` makes; readers never see it half-written.

    Raises:
      OSError: it can't be written.
    """
    with atomic_path(path) as temporary:
        pathlib.Path(temporary).write_bytes(sample_bytes(audio, pitch, loop))
