"""The batches of a training run, changed on request, and for several devices."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.mu_law import inverse_mu_law, mu_law
from magenta_nsynth.config import NUM_CLASSES
from magenta_nsynth.data.reading import NoteIndex, training_batches
from magenta_nsynth.training.options import Steps
from magenta_nsynth.training.recipes import Recipe

__all__ = [
    "detuned_past",
    "distribute",
    "noisy_past",
    "run_batches",
    "shortened",
    "with_past",
    "with_shortened_notes",
]

_HALF = NUM_CLASSES // 2
_REACH = 8  # of the sinc that resamples, in samples to either side


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
      steps: its options; here the seed, the past and the shortest note count, and
        whether the pitch is needed.
      first_batch: the number of the first batch, which is the global step.
      strategy: divides each batch among its replicas; None for a single device.

    Yields:
      What `Trainer.train_step` takes.
    """
    recipe = steps.with_labels(recipe)

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
        if steps.past_noise or steps.past_detune:
            return with_past(batches, steps, first_batch, shard)
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


def detuned_past(
    audio: tf.Tensor, share: float, seed: int, position: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Detunes the beginning of some clips, up to a moment at which they sound true.

    What comes before that moment has the wrong pitch, so only the embedding says what
    the pitch must be after it. If the loss counts from there on, the decoder learns to
    return to the embedding's pitch.

    Args:
      audio: [b, t] float32 in [-1, 1].
      share: the share of clips that are detuned, 0 to 1. Of these, three in four are
        detuned by up to 2 semitones, the others by up to an octave, up or down. The
        moment is between 15 and 65 % of the clip.
      seed: 0 to 2**32 - 1.
      position: int64 scalar, 0 or more. Each position has other draws, and each row.

    Returns:
      [b, t] float32 in [-1, 1], the past; and [b, t] bool, the samples that count: all
      of a clip that isn't detuned.
    """
    rows, length = tf.shape(audio)[0], tf.shape(audio)[1]
    # The first two seeds are those of `noisy_past`.
    seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), position]), 3)
    draws = tf.random.stateless_uniform([rows, 4, 1], seeds[2])
    chosen, is_small, interval, moment = tf.unstack(draws, axis=1)
    semitones = tf.where(is_small < 0.75, 2.0, 12.0) * (2 * interval - 1)
    times = tf.range(length, dtype=tf.float32)
    begin = tf.floor(tf.cast(length, tf.float32) * (0.15 + 0.5 * moment))
    begin = tf.where(chosen < share, begin, 0.0)
    # At the moment itself the detuned sound is the true one, so there is no click.
    detuned = _at_times(audio, begin + 2 ** (semitones / 12) * (times - begin))
    past = tf.where(times < begin, tf.clip_by_value(detuned, -1.0, 1.0), audio)
    return past, times >= begin


def _at_times(audio: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """Interpolates clips by a windowed sinc; beyond their ends they are silent.

    Args:
      audio: [b, t] float32.
      times: [b, n] float32, in samples.

    Returns:
      [b, n] float32. Above the old rate, what has no place in it is aliased.
    """
    length = tf.shape(audio)[1]
    taps = tf.range(1 - _REACH, 1 + _REACH, dtype=tf.float32)
    sources = tf.floor(times)[..., None] + taps
    apart = times[..., None] - sources
    angle = np.pi * apart
    sinc = tf.math.divide_no_nan(tf.sin(angle), angle)
    sinc = tf.where(apart == 0, 1.0, sinc)
    weights = sinc * tf.square(tf.cos(angle / (2 * _REACH)))
    inside = (sources >= 0) & (sources < tf.cast(length, tf.float32))
    indices = tf.clip_by_value(tf.cast(sources, tf.int32), 0, length - 1)
    values = tf.gather(audio, indices, batch_dims=1)
    return tf.reduce_sum(tf.where(inside, weights * values, 0.0), axis=-1)


def with_past(
    batches: tf.data.Dataset,
    steps: Steps,
    first_batch: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Adds the decoder's past, detuned and noisy, to a WaveNet's batches.

    Args:
      batches: audio [b / n, t] float32 in [-1, 1], or dicts of that as "audio" and
        others, starting with batch `first_batch`.
      steps: how to change the past. The draws depend on its seed, the batch's number
        and the row alone.
      first_batch: the number of the first batch.
      shard: (i, n), as for `training_batches`. Together the parts have the past of
        (0, 1).

    Returns:
      Dicts of the same features and "past", of audio's shape and type. If clips are
      detuned, also "weights", likewise: of each sample in the loss. They are 0 before
      the moment that counts, and else all the same; the mean over the whole batch is 1.
    """

    def past(position: tf.Tensor, audio: tf.Tensor) -> dict[str, tf.Tensor]:
        values = {}
        if steps.past_detune:
            audio, counts = detuned_past(audio, steps.past_detune, steps.seed, position)
            weights = tf.cast(counts, tf.float32)
            values["weights"] = weights / tf.reduce_mean(weights)
        if steps.past_noise:
            audio = noisy_past(audio, steps.past_noise, steps.seed, position)
        return {**values, "past": audio}

    return _with_whole_batches(batches, past, first_batch, shard)


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
      shard: as for `with_past`.

    Returns:
      Dicts of the same features.
    """

    def shorten(position: tf.Tensor, audio: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"audio": shortened(audio, shortest, seed, position)}

    return _with_whole_batches(batches, shorten, first_batch, shard)


def _with_whole_batches(
    batches: tf.data.Dataset,
    change: Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
    first_batch: int,
    shard: tuple[int, int],
) -> tf.data.Dataset:
    """Adds features to a shard of each batch, of draws that the whole batch has.

    Args:
      batches: as for `with_past`.
      change: makes the features, by name, from a batch's number and its audio.
      first_batch: the number of the first batch.
      shard: as for `with_past`.

    Returns:
      Dicts of the batches' features and the new ones.
    """
    part, num_parts = shard

    def add(position: tf.Tensor, batch: Any) -> dict[str, tf.Tensor]:
        values = batch if isinstance(batch, dict) else {"audio": batch}
        rows = tf.shape(values["audio"])[0]
        # As if all the batch were here: each row has draws of its own.
        whole = change(position, tf.tile(values["audio"], [num_parts, 1]))
        own = slice(part * rows, (part + 1) * rows)
        return {**values, **{name: value[own] for name, value in whole.items()}}

    return batches.enumerate(first_batch).map(add)
