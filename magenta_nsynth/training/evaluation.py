"""The loss of each note, and a model's reconstructions of notes."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.mu_law import class_values
from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.reading import NoteIndex
from magenta_nsynth.models.spectral import (
    SpectralAutoencoder,
    network_input,
    network_output,
    windows_of,
)
from magenta_nsynth.models.wavenet import WaveNetAutoencoder, clip_losses
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.dataset_clips import read_notes_as_clips
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import UNKNOWN
from magenta_nsynth.spectral import ispecgram
from magenta_nsynth.training.recipes import Recipe
from magenta_nsynth.training.summaries import Summaries

__all__ = [
    "Evaluator",
    "NoteLosses",
    "SpectralEvaluator",
    "WaveNetEvaluator",
    "evaluate_notes",
    "make_evaluator",
]

_SHOWN_NOTES = 3  # in summaries
_SHOWN_ITERATIONS = 60  # of Griffin-Lim, for the sounds in summaries
_FAMILY = "instrument_family"


@dataclasses.dataclass(frozen=True)
class NoteLosses:
    """The losses of notes.

    Attributes:
      losses: [n] floats, of each note.
      families: [n] int64, indices of `FAMILIES`.
      first: a batch of the first notes, 3 at most.
    """

    losses: np.ndarray
    families: np.ndarray
    first: Any

    @property
    def mean(self) -> float:
        """The mean loss."""
        return float(self.losses.mean())

    def summarise(self, summaries: Summaries, step: int, recipe: Recipe) -> None:
        """Writes the mean loss, in each of its units, to summaries."""
        losses = recipe.losses(self.mean).items()
        summaries.scalars(step, {f"eval/{name}": value for name, value in losses})


def evaluate_notes(
    losses_of: Callable[[Any], np.ndarray],
    notes: NoteIndex,
    recipe: Recipe,
    min_samples: int = 1,
) -> NoteLosses:
    """Computes the loss of the centre of every note.

    Source: NSynth's evaluation, which takes the centre of each note.

    Args:
      losses_of: computes the loss of each note, [b], from what `recipe.batch` returns;
        an evaluator does.
      notes: the notes.
      recipe: the model's, with the number of samples to use of each note, 0 for whole
        notes one at a time, and the number of notes side by side.
      min_samples: the shortest whole note that can be used.

    Raises:
      InputError: a note that is damaged, too short, or lacks what the loss needs.
    """
    length, batch_size = recipe.crop_length, recipe.batch_size
    losses: list[np.ndarray] = []
    families: list[int] = []
    first: dict[str, np.ndarray] = {}
    clips = _clips(notes, recipe, max(length, min_samples))
    with Progress(notes.num_notes, "notes", "evaluating") as progress:
        while group := list(itertools.islice(clips, batch_size if length else 1)):
            batch = {
                name: np.stack([_feature(clip, name, length) for clip in group])
                for name in recipe.features
            }
            first = first or {name: b[:_SHOWN_NOTES] for name, b in batch.items()}
            losses.append(losses_of(recipe.batch(batch)))
            families += [clip.labels.get(_FAMILY, UNKNOWN) for clip in group]
            progress.advance(len(group))
    return NoteLosses(np.concatenate(losses), np.array(families), recipe.batch(first))


def _clips(notes: NoteIndex, recipe: Recipe, min_samples: int) -> Iterator[Clip]:
    demand = Demand(recipe.features, min_samples, needs_pitch=recipe.needs_pitch)
    labels = [name for name in recipe.features if name != "audio"]
    return read_notes_as_clips(notes, demand, (*labels, _FAMILY))


def _feature(clip: Clip, name: str, length: int) -> np.ndarray:
    if name != "audio":
        return np.asarray(clip.labels[name])
    start = (len(clip.audio) - length) // 2
    return clip.audio[start : start + length] if length else clip.audio


class WaveNetEvaluator:
    """A WaveNet's teacher-forced losses of batches of clips.

    Args:
      model: the autoencoder.
      num_towers: as for `Trainer`: how many clips processors compute at once.
    """

    def __init__(self, model: WaveNetAutoencoder, num_towers: int = 1) -> None:
        self._model = model
        self._losses = tf.function(lambda clips: clip_losses(clips, model(clips)))
        self._pool = ThreadPoolExecutor(num_towers)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """The loss of each clip.

        Args:
          batch: [b, t] float32 in [-1, 1] at 16 kHz, in whole frames.

        Returns:
          [b] float32: nats per sample. Divide by ln 2 for bits.
        """
        # On processors one clip in a call. The layers' outputs of several take more
        # memory than the system hands out quickly, again and again.
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        parts = [batch] if on_gpu else np.split(batch, len(batch))
        losses = self._pool.map(
            lambda part: self._losses(tf.constant(part, tf.float32)).numpy(), parts
        )
        return np.concatenate(list(losses))

    def reconstruct(self, audio: np.ndarray) -> np.ndarray:
        """The likeliest value of each sample, given the encoding and those before it.

        Args:
          audio: [b, t] float32 in [-1, 1] at 16 kHz, in whole frames.

        Returns:
          [b, t] float32 in (-1, 1).
        """
        classes = tf.argmax(self._model(tf.constant(audio, tf.float32)), axis=-1)
        return class_values()[classes.numpy()]

    def show(self, summaries: Summaries, step: int, batch: np.ndarray) -> None:
        """Writes clips [b, t] and their reconstructions to summaries."""
        sounds = {"original": batch, "teacher_forced": self.reconstruct(batch)}
        summaries.sounds(step, sounds)


class SpectralEvaluator:
    """The baseline's losses of batches of notes, computed with its moving averages.

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
          [b] float32: weighted mean squares, which have no unit.
        """
        return self._losses(
            tf.constant(batch["audio"], tf.float32), tf.constant(batch["pitch"])
        ).numpy()

    def _losses_of(self, audio: tf.Tensor, pitch: tf.Tensor) -> tf.Tensor:
        spec = windows_of(network_input(audio, self._model.config))
        # The same number for each note; more than one for notes above 4.1 s.
        num_windows = tf.shape(spec)[0] // tf.shape(audio)[0]
        pitch = tf.repeat(tf.reshape(pitch, [-1]), num_windows)
        losses = self._model.clip_losses(spec, self._model(spec, pitch))
        return tf.reduce_mean(tf.reshape(losses, [-1, num_windows]), axis=1)

    def views(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """The spectrograms that the original's evaluation shows.

        Source: NSynth, eval_op.

        Args:
          batch: as for `__call__`.

        Returns:
          [b, 512, frames, 1] in [0, 1] by name: the original, the reconstruction, their
          difference (0.5 where there is none), the decoded mean of each note's z and
          the next one's, and z decoded 2 semitones higher and lower.
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
        """Writes the views of a batch as images, and its reconstructions as sounds."""
        views = self.views(batch)
        # With low frequencies at the bottom.
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


Evaluator = WaveNetEvaluator | SpectralEvaluator


def make_evaluator(
    model: WaveNetAutoencoder | SpectralAutoencoder, num_towers: int = 1
) -> Evaluator:
    """The evaluator of an autoencoder of either kind."""
    if isinstance(model, SpectralAutoencoder):
        return SpectralEvaluator(model)
    return WaveNetEvaluator(model, num_towers)
