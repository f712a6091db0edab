"""Writes summaries for TensorBoard."""

import functools
import glob
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import StoreError
from magenta_nsynth.mirror import staging_folder
from magenta_nsynth.stores import remote, storage

__all__ = ["Summaries", "rainbowgram_summary"]

_MOST_EVENTS = 4 << 20  # bytes of a file that is uploaded again with each addition


def rainbowgram_summary(
    name: str, audio: Any, step: int | None = None, max_outputs: int = 3, **options: Any
) -> None:
    """Writes rainbowgrams of clips for TensorBoard, as tf.summary.image does images.

    Call it where a tf.summary writer is the default, such as in a Keras callback, but
    not in a tf.function.

    Args:
      name: the name of the images.
      audio: [t] or [b, t] floats in [-1, 1] at 16 kHz.
      step: of the training. None is tf.summary's default step.
      max_outputs: shows at most this many clips, the first ones.
      **options: as for `rainbowgram_image`.

    Raises:
      InputError: as for `rainbowgram_image`.

    Examples:
      >>> import tempfile
      >>> import numpy as np
      >>> import tensorflow as tf
      >>> from magenta_nsynth import rainbowgram_summary
      >>> writer = tf.summary.create_file_writer(tempfile.mkdtemp())
      >>> with writer.as_default():
      ...     rainbowgram_summary("noise", np.random.uniform(-1, 1, 16_000), step=1)
    """
    # Imported here, because only images need matplotlib.
    from magenta_nsynth.plotting.rainbowgrams import rainbowgram_image

    audio = np.atleast_2d(np.asarray(audio))[:max_outputs]
    images = rainbowgram_image(audio, **options)
    tf.summary.image(name, images, step=step, max_outputs=max_outputs)


class Summaries:
    """Writes scalars, sounds and images to event files in a folder.

    If that fails, on a full disk or without TensorBoard, an error is logged, and
    nothing more is written. The training goes on.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = os.fspath(folder)
        self._local = self._folder
        if storage.is_remote(self._folder):
            self._local = tempfile.mkdtemp(dir=staging_folder())
        self._num_files = 0
        self._writer: tf.summary.SummaryWriter | None = None
        self._failed = False

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by name, such as {"train/loss": 2.1}."""
        self._write(tf.summary.scalar, step, values)

    def sounds(self, step: int, sounds: Mapping[str, np.ndarray]) -> None:
        """Writes sounds by name, and their rainbowgrams as images.

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

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes images by name: [b, height, width, 1 or 3] in [0, 1]."""
        write = functools.partial(tf.summary.image, max_outputs=sys.maxsize)
        self._write(write, step, images)

    def _write(
        self, write: Callable[..., Any], step: int, values: Mapping[str, Any]
    ) -> None:
        if self._failed:
            return
        try:
            if self._writer is None:
                suffix = f".{self._num_files}.v2" if self._num_files else ".v2"
                self._writer = tf.summary.create_file_writer(
                    self._local, filename_suffix=suffix
                )
                self._num_files += 1
            with self._writer.as_default():
                for name, value in values.items():
                    write(name, value, step=step)
            self._writer.flush()
            if self._local != self._folder:
                self._upload()
        except (tf.errors.OpError, ImportError, StoreError) as error:
            self._failed = True
            reason = str(error).splitlines()[0]
            logging.error("No more summaries; they can't be written: %s", reason)

    def _upload(self) -> None:
        """Copies the newest event file to the store; a large one is then finished."""
        paths = glob.glob(os.path.join(glob.escape(self._local), "events.*"))
        path = max(paths, key=os.path.getmtime)
        remote.upload(path, storage.join(self._folder, os.path.basename(path)))
        if os.path.getsize(path) > _MOST_EVENTS and self._writer is not None:
            self._writer.close()
            self._writer = None
            os.unlink(path)
