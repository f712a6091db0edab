"""Noise on what a WaveNet's decoder sees of the past, in training."""

import tensorflow as tf

from magenta_nsynth.audio.mu_law import inverse_mu_law, mu_law
from magenta_nsynth.config import NUM_CLASSES

__all__ = ["noisy_past", "with_noisy_past"]

_HALF = NUM_CLASSES // 2


def noisy_past(
    audio: tf.Tensor, levels: float, seed: int, position: tf.Tensor
) -> tf.Tensor:
    """Adds Gaussian noise to companded sounds, where mu-law's steps are equal.

    Each clip has noise of its own strength, so that the clean past stays among what
    the decoder knows, as do the errors that it makes when it hears itself.

    Args:
      audio: [b, t] float32 in [-1, 1].
      levels: the greatest standard deviation, in steps of mu-law; each clip's is drawn
        between 0 and that.
      seed: 0 to 2**32 - 1.
      position: int64 scalar, 0 or more; other positions have other noise.

    Returns:
      [b, t] float32 in (-1, 1), of mu-law's values.
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
      batches: of [b / n, t] float32 in [-1, 1], from `first_batch` on.
      levels: as in `noisy_past`.
      seed: likewise; noise is a function of it, the batch's number, and the row.
      first_batch: the number of the first one.
      shard: (i, n), as in `training_batches`; together the parts have the noise of
        (0, 1).

    Returns:
      Dicts of "audio", as it was, and "past", likewise.
    """
    part, num_parts = shard

    def add(position: tf.Tensor, audio: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(audio)[0]
        whole = noisy_past(tf.tile(audio, [num_parts, 1]), levels, seed, position)
        return {"audio": audio, "past": whole[part * rows : (part + 1) * rows]}

    return batches.enumerate(first_batch).map(add)
