"""What TensorBoard shows of a training."""

import os

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["Summaries"]


class Summaries:
    """Writes scalars and sounds to event files in a folder.

    A full disk or the like ends the summaries, not the training.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._writer = tf.summary.create_file_writer(os.fspath(folder))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes numbers by name, such as {"train/loss": 2.1}."""
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
        self._writer.flush()

    def sounds(self, step: int, sounds: dict[str, np.ndarray]) -> None:
        """Writes sounds by name: [b, t] float32 in [-1, 1] at 16 kHz."""
        with self._writer.as_default():
            for name, audio in sounds.items():
                audio = np.clip(audio, -1, 1)[..., None]
                tf.summary.audio(
                    name, audio, SAMPLE_RATE, step=step, max_outputs=len(audio)
                )
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
