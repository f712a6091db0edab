"""Reading WAV files block by block, in memory that does not grow with the file.

SciPy decodes the samples. It reads a whole file at a time, though, 24-bit files at
7 bytes a sample, and does not mind where a file ends early. So the few numbers that
say where the samples lie are read here, and SciPy is given one block at a time.
"""

import io
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from magenta_nsynth.audio.sound import BLOCK_SAMPLES, Sound, check_kind, pcm_to_float
from magenta_nsynth.errors import AudioError

__all__ = ["open_wav"]

# Lengths that programs write when they cannot know: ffmpeg and sox into a pipe.
_UNKNOWN_LENGTHS = (0xFFFFFFFF, 0x7FFFF000)


class _Layout(NamedTuple):
    byte_order: str  # "<" or ">", as in struct
    fmt: bytes  # the content of the "fmt " chunk
    rate: int
    frame_bytes: int  # one sample of every channel
    block_frames: int
    offset: int  # of the first sample in the file
    num_samples: int  # per channel


def open_wav(path: str) -> Sound:
    """Reads a WAV file's header.

    Args:
      path: a RIFF, RIFX or RF64 file with 8 to 64-bit integers or 32 or 64-bit
        floats, WAVE_FORMAT_EXTENSIBLE or not, with any number of channels.

    Returns:
      The sound. Iterating over its blocks raises AudioError for an encoding that
      can't be read (ADPCM, A-law ...).

    Raises:
      AudioError: the file can't be read, is not a WAV file, is truncated, or its
        header contradicts itself.
    """
    check_kind(path, "WAV")
    with open(path, "rb") as file:
        layout = _read_layout(file, path)
    return Sound(layout.rate, layout.num_samples, _blocks(path, layout))


def _read_layout(file: BinaryIO, path: str) -> _Layout:
    num_bytes = os.fstat(file.fileno()).st_size
    byte_order = ">" if file.read(12)[:4] == b"RIFX" else "<"
    fmt = b""
    long_length = 0
    # The length of the RIFF chunk itself is not looked at: it is often wrong.
    while True:
        header = file.read(8)
        if len(header) < 8:
            raise _truncated(path, "it ends before its samples start")
        name, length = struct.unpack(f"{byte_order}4sI", header)
        start = file.tell()
        if name == b"data":
            break
        if name == b"fmt ":
            fmt = file.read(min(length, 1024))
        elif name == b"ds64":  # where RF64 keeps lengths beyond 4 GB
            long_length = int.from_bytes(file.read(16)[8:], "little")
        file.seek(start + length + length % 2)
    if length == 0xFFFFFFFF and long_length:
        length = long_length
    available = num_bytes - start
    if length in _UNKNOWN_LENGTHS:
        length = min(length, available)
    if length > available:
        raise _truncated(
            path, f"{length} bytes of samples are announced, {available} are there"
        )
    rate, frame_bytes, num_channels = _parse_fmt(fmt, byte_order, path)
    block_frames = max(1, BLOCK_SAMPLES // num_channels)
    num_samples = length // frame_bytes
    return _Layout(byte_order, fmt, rate, frame_bytes, block_frames, start, num_samples)


def _truncated(path: str, what: str) -> AudioError:
    return AudioError(f"{path}: truncated: {what}; copy or export it again.")


def _parse_fmt(fmt: bytes, byte_order: str, path: str) -> tuple[int, int, int]:
    """The rate, the bytes per frame and the number of channels."""
    if len(fmt) < 16:
        raise AudioError(f"{path}: no whole 'fmt ' chunk; export it again as WAV.")
    fields = struct.unpack(f"{byte_order}HHIIHH", fmt[:16])
    _, num_channels, rate, _, frame_bytes, num_bits = fields
    sample_bytes, rest = divmod(frame_bytes, num_channels or 1)
    # SciPy trusts these; eight bits or fewer in a wider container would be misread.
    if (
        not num_channels
        or rest
        or not 1 <= num_bits <= 8 * sample_bytes <= 64
        or (num_bits <= 8 and sample_bytes != 1)
    ):
        raise AudioError(
            f"{path}: {num_channels} channels of {num_bits}-bit samples in "
            f"{frame_bytes} bytes can't be read; export it again as 16-bit WAV."
        )
    return rate, frame_bytes, num_channels


def _blocks(path: str, layout: _Layout) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        file.seek(layout.offset)
        num_left = layout.num_samples
        while num_left:
            num_frames = min(num_left, layout.block_frames)
            raw = file.read(num_frames * layout.frame_bytes)
            if len(raw) < num_frames * layout.frame_bytes:
                raise _truncated(path, "it became shorter while it was read")
            samples = _decode(layout, raw, path)
            yield pcm_to_float(samples.reshape(num_frames, -1))
            num_left -= num_frames


def _decode(layout: _Layout, raw: bytes, path: str) -> np.ndarray:
    """The samples in `raw`, decoded by SciPy as a small file of their own."""
    from scipy.io import wavfile

    def chunk(name: bytes, content: bytes) -> bytes:
        length = struct.pack(f"{layout.byte_order}I", len(content))
        return name + length + content + b"\0" * (len(content) % 2)

    content = b"WAVE" + chunk(b"fmt ", layout.fmt) + chunk(b"data", raw)
    magic = b"RIFX" if layout.byte_order == ">" else b"RIFF"
    try:
        _, samples = wavfile.read(io.BytesIO(chunk(magic, content)))
    except (ValueError, struct.error) as error:
        raise AudioError(
            f"{path}: can't be read ({error}); export it again as 16-bit WAV."
        ) from error
    return samples
