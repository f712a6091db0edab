"""The note that a sampler plays a sound at unchanged, as the sound's file says it."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["unity_note"]

# By the file's first four bytes and bytes 8 to 11: the byte order of its lengths, the
# chunk that holds the note, where in there it is, and its form.
_FORMS = {
    (b"RIFF", b"WAVE"): ("<", b"smpl", 12, "<I"),
    (b"RF64", b"WAVE"): ("<", b"smpl", 12, "<I"),
    (b"BW64", b"WAVE"): ("<", b"smpl", 12, "<I"),
    (b"RIFX", b"WAVE"): (">", b"smpl", 12, ">I"),
    (b"FORM", b"AIFF"): (">", b"INST", 0, "B"),
    (b"FORM", b"AIFC"): (">", b"INST", 0, "B"),
}
_MOST_CHUNKS = 1000


def unity_note(path: str | os.PathLike) -> int:
    """The MIDI note of a WAV file's smpl chunk, or of an AIFF file's INST chunk.

    Many programs write 60 for every sound, so the note may mean nothing. Only the
    chunks' headers are read.

    Returns:
      0 to 127; -1 where there is no such chunk, or the file can't be read.
    """
    try:
        with open(path, "rb") as file:
            return _find(file)
    except OSError:
        return -1


def _find(file: BinaryIO) -> int:
    head = file.read(12)
    form = _FORMS.get((head[:4], head[8:12]))
    if form is None:
        return -1
    byte_order, wanted, offset, spelt = form
    for name, start, length in _chunks(file, byte_order):
        if name == wanted:
            size = struct.calcsize(spelt)
            file.seek(start + offset)
            content = file.read(size)
            if length < offset + size or len(content) < size:
                return -1
            [note] = struct.unpack(spelt, content)
            return note if note <= 127 else -1
    return -1


def _chunks(file: BinaryIO, byte_order: str) -> Iterator[tuple[bytes, int, int]]:
    """(name, where the content starts, its length) of each chunk, as far as it goes.

    It ends at what can't be a chunk: behind a length that is not true there is no way
    to find the next one.
    """
    num_bytes = os.fstat(file.fileno()).st_size
    long_length, position = 0, 12
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if not _may_be_header(header):
            return
        name, length = struct.unpack(f"{byte_order}4sI", header)
        start = position + 8
        if name == b"ds64":  # where RF64 keeps lengths beyond 4 GB
            long_length = int.from_bytes(file.read(16)[8:], "little")
        if name == b"data" and length == 0xFFFFFFFF and long_length:
            length = long_length
        yield name, start, length
        position = start + length
        if position >= num_bytes:
            return
        if length % 2:
            # A byte of padding, a zero, which some programs forget.
            file.seek(position)
            position += not _may_be_header(file.read(8))


def _may_be_header(header: bytes) -> bool:
    return len(header) == 8 and all(0x20 <= byte <= 0x7E for byte in header[:4])
