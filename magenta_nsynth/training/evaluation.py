"""The loss of notes, each by itself, and what a model makes of them."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.mu_law import class_values
from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.models.spectral import (
    SpectralAutoencoder,
    network_input,
    network_output,
    windows_of,
)
from magenta_nsynth.models.wavenet import WaveNetAutoencoder, clip_losses
from magenta_nsynth.spectral import ispecgram
from magenta_nsynth.training.summaries import Summaries

__all__ = ["Evaluator", "SpectralEvaluator", "make_evaluator"]

_SHOWN_ITERATIONS = 60  # of Griffin-Lim, for what summaries let one hear


def make_evaluator(
    model: keras.Model, num_towers: int = 1
) -> "Evaluator | SpectralEvaluator":
    """The evaluator of an autoencoder of either kind."""
    if isinstance(model, SpectralAutoencoder):
        return SpectralEvaluator(model)
    return Evaluator(model, num_towers)


class Evaluator:
    """A WaveNet's teacher-forced losses of batches of clips.

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

    def show(self, summaries: Summaries, step: int, audio: np.ndarray) -> None:
        """Writes clips [b, t] and their reconstructions to the summaries."""
        sounds = {"original": audio, "teacher_forced": self.reconstruct(audio)}
        summaries.sounds(step, sounds)

    def _losses(self, audio: tf.Tensor) -> tf.Tensor:
        return clip_losses(audio, self._model(audio))

    def _losses_of_towers(self, audio: tf.Tensor) -> tf.Tensor:
        if audio.shape[0] % self._num_towers:
            return self._losses(audio)
        parts = tf.split(audio, self._num_towers)
        return tf.concat([self._tower(part) for part in parts], axis=0)


class SpectralEvaluator:
    """The baseline's losses of batches of notes, by its moving averages.

    Args:
      model: the autoencoder.
    """

    def __init__(self, model: SpectralAutoencoder) -> None:
        self._model = model
        self._losses = tf.function(self._losses_of, reduce_retracing=True)

    def __call__(self, batch: dict[str, Any]) -> np.ndarray:
        """The loss of each note.

        Args:
          batch: "audio" [b, t] float32 in [-1, 1] at 16 kHz, "pitch" [b] integers.

        Returns:
          [b] float32: weighted mean squares, without a unit.
        """
        return self._losses(
            tf.constant(batch["audio"], tf.float32), tf.constant(batch["pitch"])
        ).numpy()

    def _losses_of(self, audio: tf.Tensor, pitch: tf.Tensor) -> tf.Tensor:
        spec = windows_of(network_input(audio, self._model.config))
        # As many for each note, of which there are more than one from 4.1 s on.
        num_windows = tf.shape(spec)[0] // tf.shape(audio)[0]
        pitch = tf.repeat(tf.reshape(pitch, [-1]), num_windows)
        losses = self._model.clip_losses(spec, self._model(spec, pitch))
        return tf.reduce_mean(tf.reshape(losses, [-1, num_windows]), axis=1)

    def views(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """What the original's evaluation shows of a batch.

        Args:
          batch: as in `__call__`.

        Returns:
          [b, 512, frames, 1] in [0, 1] by name: the original, the reconstruction, their
          difference (half grey is none), the one halfway between each note's z and the
          next one's, and z at 2 semitones above and below.

        Source: NSynth, eval_op.
        """
        model = self._model
        audio = batch["audio"][:, : model.config.max_samples]
        spec = network_input(audio, model.config)
        num_frames = model.config.frames_of(audio.shape[1])
        pitch = np.asarray(batch["pitch"]).reshape(-1)
        z = model.encoder(spec)
        views = {
            "original": spec,
            "reconstruction": model.decoder(z, pitch),
            "halfway_to_the_next": model.decoder((z + tf.roll(z, -1, 0)) / 2, pitch),
        }
        for name, shift in (("pitch_up_2", 2), ("pitch_down_2", -2)):
            shifted = np.clip(pitch + shift, 0, NUM_PITCHES - 1)
            views[name] = model.decoder(z, shifted)
        views["difference"] = (spec - views["reconstruction"] + 1) / 2
        return {name: view[:, :, :num_frames].numpy() for name, view in views.items()}

    def show(self, summaries: Summaries, step: int, batch: dict[str, Any]) -> None:
        """Writes the views of a batch as images, and its reconstruction as sound."""
        views = self.views(batch)
        # Low frequencies at the bottom.
        pictures = {f"spectrogram/{name}": v[:, ::-1] for name, v in views.items()}
        summaries.images(step, pictures)
        spec = views["reconstruction"]
        sound = ispecgram(
            network_output(spec, spec.shape[2])[..., None],
            hop_length=self._model.config.hop_length,
            num_iters=_SHOWN_ITERATIONS,
            seed=0,
        )
        sounds = {"original": batch["audio"], "reconstruction": sound.numpy()}
        summaries.sounds(step, {f"sound/{name}": s for name, s in sounds.items()})
