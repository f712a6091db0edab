"""FLAC, Ogg Vorbis and MP3 by tensorflow-io. Imported by `compressed` only."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_io as tfio

from magenta_nsynth.audio.sound import BLOCK_SAMPLES, Sound, pcm_to_float
from magenta_nsynth.errors import AudioError

__all__ = ["open_sound", "works"]


def works() -> bool:
    """Whether tensorflow-io's ops fit the installed TensorFlow; importing it tells not.

    Beside another TensorFlow than it was built for it imports, and its first op
    raises NotImplementedError.
    """
    try:
        tfio.audio.decode_flac(b"", dtype=tf.int16)
    except NotImplementedError:
        return False
    except tf.errors.OpError:
        return True
    return True


def open_sound(path: str) -> Sound:
    """Reads a file's header; see `compressed.open_compressed`."""
    # AudioIOTensor and not decode_flac, decode_vorbis, decode_mp3: those do not tell
    # the rate, decode a whole file at once, and decode_vorbis ends the process on one
    # that is empty.
    try:
        with tf.device("cpu"):
            sound = tfio.audio.AudioIOTensor(path)
        rate, num_samples = int(sound.rate), int(sound.shape[0])
        num_channels = int(sound.shape[1])
    except tf.errors.OpError as error:
        raise _damaged(path) from error
    block_length = max(1, BLOCK_SAMPLES // num_channels)
    return Sound(rate, num_samples, _blocks(path, sound, num_samples, block_length))


def _blocks(
    path: str, sound: tfio.audio.AudioIOTensor, num_samples: int, block_length: int
) -> Iterator[np.ndarray]:
    for start in range(0, num_samples, block_length):
        stop = min(start + block_length, num_samples)
        try:
            with tf.device("cpu"):
                samples = sound[start:stop].numpy()
        except tf.errors.OpError as error:
            raise _damaged(path) from error
        if len(samples) < stop - start:
            raise _damaged(path)
        yield pcm_to_float(samples)


def _damaged(path: str) -> AudioError:
    return AudioError(f"{path}: damaged or truncated; copy or export it again.")
