"""The loss of notes, each by itself."""

import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.mu_law import class_values
from magenta_nsynth.models.wavenet import WaveNetAutoencoder, clip_losses

__all__ = ["Evaluator"]


class Evaluator:
    """Teacher-forced losses of batches of clips.

    Args:
      model: the autoencoder.
      num_towers: as in `Trainer`; batches that can't be cut so are computed whole.
    """

    def __init__(self, model: WaveNetAutoencoder, num_towers: int = 1) -> None:
        self._model = model
        self._num_towers = num_towers
        self._tower = tf.function(self._losses)
        self._compiled = tf.function(self._losses_of_towers)

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """The loss of each clip.

        Args:
          audio: [b, t] float32 in [-1, 1] at 16 kHz, in whole frames.

        Returns:
          [b] float32: nats per sample. Divide by ln 2 for bits.
        """
        return self._compiled(tf.constant(audio, tf.float32)).numpy()

    def reconstruct(self, audio: np.ndarray) -> np.ndarray:
        """The likeliest value of each sample, given those before it and the encoding.

        Args:
          audio: [b, t] float32 in [-1, 1] at 16 kHz, in whole frames.

        Returns:
          [b, t] float32 in (-1, 1).
        """
        classes = tf.argmax(self._model(tf.constant(audio, tf.float32)), axis=-1)
        return class_values()[classes.numpy()]

    def _losses(self, audio: tf.Tensor) -> tf.Tensor:
        return clip_losses(audio, self._model(audio))

    def _losses_of_towers(self, audio: tf.Tensor) -> tf.Tensor:
        if audio.shape[0] % self._num_towers:
            return self._losses(audio)
        parts = tf.split(audio, self._num_towers)
        return tf.concat([self._tower(part) for part in parts], axis=0)
