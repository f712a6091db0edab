"""What every reader of sound files returns, and the checks that all of them share."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from magenta_nsynth.errors import AudioError

__all__ = ["BLOCK_SAMPLES", "Sound", "check_kind", "pcm_to_float"]

# Samples decoded at a time, all channels together: enough that Python's own time does
# not count, few enough that a block's copies are a few MB.
BLOCK_SAMPLES = 2**18

_EXTENSIONS = {"WAV": ".wav", "FLAC": ".flac", "Ogg Vorbis": ".ogg", "MP3": ".mp3"}


class Sound(NamedTuple):
    """A sound file whose header has been read.

    Attributes:
      rate: samples per second.
      num_samples: samples per channel.
      blocks: the samples in order, [n, channels] float32 or float64, in [-1, 1] if
        the file is not floating point. Nothing is opened before the first block is
        asked for; the file is closed with the iterator.
    """

    rate: int
    num_samples: int
    blocks: Iterator[np.ndarray]


def check_kind(path: str, wanted: str) -> None:
    """Looks at the first bytes of a file before any decoder does.

    Decoders answer damage in many ways, up to ending the process.

    Args:
      path: the file.
      wanted: "WAV", "FLAC", "Ogg Vorbis" or "MP3".

    Raises:
      AudioError: the file can't be read, is empty, or is not of that kind.
    """
    try:
        # A folder or a pipe is refused unopened: opening a pipe waits for a writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError(f"{path}: not a file; give a sound file.")
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise AudioError(f"{path}: can't be read ({error.strerror}).") from error
    if not start:
        raise AudioError(f"{path}: the file is empty (0 bytes); copy it again.")
    kind = _kind(start)
    if kind == wanted:
        return
    if kind in _EXTENSIONS:
        raise AudioError(
            f"{path}: the content is {kind}, not {wanted}; "
            f"rename it to end in {_EXTENSIONS[kind]}."
        )
    found = kind or f"it starts with {start[:4]!r}"
    raise AudioError(
        f"{path}: not a {wanted} file ({found}); export it again as {wanted}."
    )


def _kind(start: bytes) -> str:
    """The kind of file that starts so; "" if it is none that is known."""
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        return "WAV"
    if start[:4] == b"fLaC":
        return "FLAC"
    if start[:4] == b"OggS":
        return "Ogg Vorbis" if start[28:35] == b"\x01vorbis" else "Ogg without Vorbis"
    # An ID3 tag, or the sync word of a frame in layer 3.
    is_frame = start[0] == 0xFF and start[1:2] and start[1] & 0xE6 == 0xE2
    return "MP3" if start[:3] == b"ID3" or is_frame else ""


def pcm_to_float(samples: np.ndarray) -> np.ndarray:
    """Scales integer samples by the power of two that is their full range.

    Args:
      samples: any shape; uint8 (silence is 128), signed integers, or floats.

    Returns:
      The same shape, in [-1, 1): float64 from integers, floats as they are.
    """
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype == np.uint8:
        return samples / 128.0 - 1.0
    return samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
