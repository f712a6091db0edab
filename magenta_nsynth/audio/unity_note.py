"""Reads a sound file's unity note, at which a sampler plays the sound unchanged."""

import os
import struct
from typing import BinaryIO

from magenta_nsynth.audio.containers import iff_chunks
from magenta_nsynth.stores import storage

__all__ = ["unity_note"]

# By the file's bytes 0 to 3 and 8 to 11: the byte order of its lengths, the chunk with
# the note, the note's offset in the chunk, and its format.
_FORMS = {
    (b"RIFF", b"WAVE"): ("<", b"smpl", 12, "<I"),
    (b"RF64", b"WAVE"): ("<", b"smpl", 12, "<I"),
    (b"BW64", b"WAVE"): ("<", b"smpl", 12, "<I"),
    (b"RIFX", b"WAVE"): (">", b"smpl", 12, ">I"),
    (b"FORM", b"AIFF"): (">", b"INST", 0, "B"),
    (b"FORM", b"AIFC"): (">", b"INST", 0, "B"),
}


def unity_note(path: str | os.PathLike) -> int:
    """The MIDI note in a WAV file's smpl chunk or in an AIFF file's INST chunk.

    Many programs write 60 into every file, so 60 may mean nothing.

    Returns:
      0 to 127; -1 if there is no such chunk, or the file can't be read.
    """
    try:
        with storage.open_binary(path) as file:
            return _find(file)
    except OSError:
        return -1


def _find(file: BinaryIO) -> int:
    head = file.read(12)
    form = _FORMS.get((head[:4], head[8:12]))
    if form is None:
        return -1
    byte_order, wanted, offset, spelt = form
    for name, start, length in iff_chunks(file, byte_order):
        if name == wanted:
            size = struct.calcsize(spelt)
            file.seek(start + offset)
            content = file.read(size)
            if length < offset + size or len(content) < size:
                return -1
            [note] = struct.unpack(spelt, content)
            return note if note <= 127 else -1
    return -1
