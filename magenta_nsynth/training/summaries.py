"""What TensorBoard shows of a training."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["Summaries", "rainbowgram_summary"]


def rainbowgram_summary(
    name: str, audio: Any, step: int | None = None, max_outputs: int = 3, **options: Any
) -> None:
    """Writes rainbowgrams of clips for TensorBoard, as tf.summary.image does images.

    To be called where a tf.summary writer is the default, in a Keras callback, say, and
    not in a tf.function.

    Args:
      name: of the pictures.
      audio: [t] or [b, t] floats in [-1, 1] at 16 kHz.
      step: of the training; None is tf.summary's own.
      max_outputs: the first so many clips are shown.
      **options: of `rainbowgram_image`.

    Raises:
      InputError: as `rainbowgram_image`.
    """
    # Here, not above: who writes no pictures needs no matplotlib.
    from magenta_nsynth.plotting.rainbowgrams import rainbowgram_image

    audio = np.atleast_2d(np.asarray(audio))[:max_outputs]
    images = rainbowgram_image(audio, **options)
    tf.summary.image(name, images, step=step, max_outputs=max_outputs)


class Summaries:
    """Writes scalars, sounds and pictures to event files in a folder.

    A full disk, a missing TensorBoard or the like ends the summaries, which is logged,
    not the training.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = os.fspath(folder)
        self._writer: tf.summary.SummaryWriter | None = None
        self._failed = False

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes numbers by name, such as {"train/loss": 2.1}."""
        self._write(tf.summary.scalar, step, values)

    def sounds(self, step: int, sounds: dict[str, np.ndarray]) -> None:
        """Writes sounds by name, and their rainbowgrams as pictures.

        Args:
          step: of the training.
          sounds: [b, t] float32 in [-1, 1] at 16 kHz.
        """
        write = functools.partial(
            tf.summary.audio, sample_rate=SAMPLE_RATE, max_outputs=sys.maxsize
        )
        clipped = {name: np.clip(a, -1, 1)[..., None] for name, a in sounds.items()}
        self._write(write, step, clipped)
        write = functools.partial(rainbowgram_summary, max_outputs=sys.maxsize)
        named = {f"rainbowgram/{n.split('/')[-1]}": a for n, a in sounds.items()}
        self._write(write, step, named)

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Writes pictures by name: [b, height, width, 1 or 3] in [0, 1]."""
        write = functools.partial(tf.summary.image, max_outputs=sys.maxsize)
        self._write(write, step, images)

    def _write(self, write: Callable[..., Any], step: int, values: dict) -> None:
        if self._failed:
            return
        try:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(self._folder)
            with self._writer.as_default():
                for name, value in values.items():
                    write(name, value, step=step)
            self._writer.flush()
        except (tf.errors.OpError, ImportError) as error:
            self._failed = True
            reason = str(error).splitlines()[0]
            logging.error("No more summaries, they can't be written: %s", reason)
