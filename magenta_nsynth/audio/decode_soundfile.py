"""FLAC, Ogg Vorbis and MP3 by soundfile. Imported by `compressed` only."""

from collections.abc import Iterator

import numpy as np
import soundfile

from magenta_nsynth.audio.sound import BLOCK_SAMPLES, Sound
from magenta_nsynth.errors import AudioError

__all__ = ["open_sound"]


class _Sequential(soundfile.SoundFile):
    """A file that is only read onwards.

    soundfile seeks to where it is after every read. In an MP3 that can land beside
    it, and the next block is then other samples than those that follow.
    """

    def seekable(self) -> bool:
        return False


def open_sound(path: str) -> Sound:
    """Reads a file's header; see `compressed.open_compressed`."""
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError as error:
        raise _damaged(path) from error
    block_length = max(1, BLOCK_SAMPLES // info.channels)
    return Sound(info.samplerate, info.frames, _blocks(path, info.frames, block_length))


def _blocks(path: str, num_samples: int, block_length: int) -> Iterator[np.ndarray]:
    try:
        with _Sequential(path) as file:
            for start in range(0, num_samples, block_length):
                wanted = min(block_length, num_samples - start)
                samples = file.read(wanted, dtype="float32", always_2d=True)
                # It stops without an error where an MP3 does.
                if len(samples) < wanted:
                    raise _damaged(path)
                yield samples
    except soundfile.SoundFileError as error:
        raise _damaged(path) from error


def _damaged(path: str) -> AudioError:
    return AudioError(f"{path}: damaged or truncated; copy or export it again.")
