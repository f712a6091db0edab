"""The batches of a training run, with noise and for several devices on request."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from magenta_nsynth.audio.mu_law import inverse_mu_law, mu_law
from magenta_nsynth.config import NUM_CLASSES
from magenta_nsynth.data.reading import NoteIndex, training_batches
from magenta_nsynth.training.options import Steps
from magenta_nsynth.training.recipes import Recipe

__all__ = [
    "distribute",
    "noisy_past",
    "run_batches",
    "shortened",
    "with_noisy_past",
    "with_shortened_notes",
]

_HALF = NUM_CLASSES // 2


def run_batches(
    notes: NoteIndex,
    recipe: Recipe,
    steps: Steps,
    first_batch: int = 0,
    strategy: tf.distribute.Strategy | None = None,
) -> Iterator[Any]:
    """The batches of a training run, from one of them on.

    Args:
      notes: the notes to train on.
      recipe: the run's.
      steps: its options; here the seed, the noise and the shortest note count.
      first_batch: the number of the first batch, which is the global step.
      strategy: divides each batch among its replicas; None for a single device.

    Yields:
      What `Trainer.train_step` takes.
    """

    def dataset(shard: tuple[int, int]) -> tf.data.Dataset:
        batches = training_batches(
            notes,
            recipe.crop_length,
            recipe.batch_size,
            steps.seed,
            first_batch=first_batch,
            shard=shard,
            features=recipe.features,
            needs_pitch=recipe.needs_pitch,
        ).map(recipe.batch)
        if steps.past_noise:
            return with_noisy_past(
                batches, steps.past_noise, steps.seed, first_batch, shard
            )
        if steps.shortest_note:
            return with_shortened_notes(
                batches, steps.shortest_note, steps.seed, first_batch, shard
            )
        return batches

    if strategy is None:
        return iter(dataset((0, 1)))
    return distribute(strategy, dataset, recipe.batch_size)


def distribute(
    strategy: tf.distribute.Strategy,
    dataset: Callable[[tuple[int, int]], tf.data.Dataset],
    batch_size: int,
) -> Iterator[Any]:
    """Divides batches among the replicas of a strategy.

    Args:
      strategy: the strategy.
      dataset: makes, for (index, number of input pipelines), the dataset of that
        pipeline's rows of each batch, in order.
      batch_size: rows per batch, on all replicas together.

    Yields:
      What `Trainer.train_step` takes.
    """
    per_replica = batch_size // strategy.num_replicas_in_sync

    def of_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = (context.input_pipeline_id, context.num_input_pipelines)
        return dataset(shard).rebatch(per_replica)

    return iter(strategy.distribute_datasets_from_function(of_pipeline))


def noisy_past(
    audio: tf.Tensor, levels: float, seed: int, position: tf.Tensor
) -> tf.Tensor:
    """Adds Gaussian noise to companded clips, whose quantisation steps are equal.

    The strength differs from clip to clip, so the decoder keeps seeing clean pasts as
    well as the errors that it makes when it hears itself.

    Args:
      audio: [b, t] float32 in [-1, 1].
      levels: the greatest standard deviation, in steps of mu-law. Each clip's is drawn
        between 0 and this.
      seed: 0 to 2**32 - 1.
      position: int64 scalar, 0 or more. Each position has other noise.

    Returns:
      [b, t] float32 in (-1, 1), values of mu-law.
    """
    seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), position]))
    strengths = tf.random.stateless_uniform(
        [tf.shape(audio)[0], 1], seeds[0], maxval=levels
    )
    noise = strengths * tf.random.stateless_normal(tf.shape(audio), seeds[1])
    noisy = tf.round(mu_law(audio) + noise)
    return inverse_mu_law(tf.clip_by_value(noisy, -_HALF, _HALF - 1))


def with_noisy_past(
    batches: tf.data.Dataset,
    levels: float,
    seed: int,
    first_batch: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Adds the decoder's noisy past to batches of audio.

    Args:
      batches: [b / n, t] float32 in [-1, 1], starting with batch `first_batch`.
      levels: as for `noisy_past`.
      seed: likewise. The noise depends on it, the batch's number and the row alone.
      first_batch: the number of the first batch.
      shard: (i, n), as for `training_batches`. Together the parts have the noise of
        (0, 1).

    Returns:
      Dicts of "audio", unchanged, and "past", of the same shape and type.
    """
    part, num_parts = shard

    def add(position: tf.Tensor, audio: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(audio)[0]
        whole = noisy_past(tf.tile(audio, [num_parts, 1]), levels, seed, position)
        return {"audio": audio, "past": whole[part * rows : (part + 1) * rows]}

    return batches.enumerate(first_batch).map(add)


def shortened(
    audio: tf.Tensor, shortest: int, seed: int, position: tf.Tensor
) -> tf.Tensor:
    """Silences the end of about half of the clips.

    To the baseline a short clip is one with a silent end, because its spectrogram is
    filled up. The notes of the dataset are all of 4 s: whatever is silent for so long
    has decayed, and is decoded as such.

    Args:
      audio: [b, t] float32.
      shortest: what is left has at least this many samples.
      seed: 0 to 2**32 - 1.
      position: int64 scalar, 0 or more. Each position has other lengths.

    Returns:
      [b, t] float32.
    """
    seeds = tf.stack([tf.constant(seed, tf.int64), position])
    total = tf.cast(tf.shape(audio)[1], tf.float32)
    # In the upper half of the draws nothing is cut.
    share = 2 * tf.random.stateless_uniform([tf.shape(audio)[0], 1], seeds)
    lengths = shortest + share * tf.maximum(total - shortest, 0.0)
    times = tf.range(tf.shape(audio)[1], dtype=tf.int32)
    return tf.where(times[None] < tf.cast(lengths, tf.int32), audio, 0.0)


def with_shortened_notes(
    batches: tf.data.Dataset,
    shortest: int,
    seed: int,
    first_batch: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Shortens notes of the baseline's batches.

    Args:
      batches: dicts of "audio" [b / n, t] and others, starting with batch
        `first_batch`.
      shortest: as for `shortened`.
      seed: likewise. The lengths depend on it, the batch's number and the row alone.
      first_batch: the number of the first batch.
      shard: as for `with_noisy_past`.

    Returns:
      Dicts of the same features.
    """
    part, num_parts = shard

    def shorten(position: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        rows = tf.shape(batch["audio"])[0]
        # As if all the batch were here: each row has a length of its own.
        whole = tf.tile(batch["audio"], [num_parts, 1])
        audio = shortened(whole, shortest, seed, position)
        return {**batch, "audio": audio[part * rows : (part + 1) * rows]}

    return batches.enumerate(first_batch).map(shorten)
