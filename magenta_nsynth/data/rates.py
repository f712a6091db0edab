"""Resampling audio to 16 kHz in a graph.

Uses the filter of `audio.resample`, but not in Python: the threads with which a dataset
reads ahead must not wait for Python's lock, which the thread that ends them may hold.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.resample import BETA, CUTOFF, HALF_LENGTH
from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["at_16_khz"]

# Bounds the memory: an output sample takes some hundred inputs, each with a weight.
_WEIGHTS_AT_ONCE, _OUTPUTS_AT_ONCE = 256, 1024
_DIVISORS = [d for d in range(1, SAMPLE_RATE + 1) if SAMPLE_RATE % d == 0]


@tf.autograph.experimental.do_not_convert
def at_16_khz(
    audio: tf.Tensor, rate: tf.Tensor, start: tf.Tensor, length: tf.Tensor
) -> tf.Tensor:
    """A piece of a sound, resampled to 16 kHz.

    Args:
      audio: [n] float32, at `rate`.
      rate: scalar int64, Hz.
      start: scalar int64, the piece's first sample, counted at 16 kHz.
      length: scalar int64, the piece's samples, at 16 kHz.

    Returns:
      [length] float32; the samples unchanged if `rate` is 16 kHz.
    """
    return tf.cond(
        tf.equal(rate, SAMPLE_RATE),
        lambda: tf.slice(audio, [start], [length]),
        lambda: _resampled(audio, rate, start, length),
    )


# Traced once, not for every dataset; not inlined, or every dataset optimizes it again.
@tf.function(
    autograph=False,
    experimental_attributes={"_noinline": True},
    input_signature=[
        tf.TensorSpec([None], tf.float32),
        *[tf.TensorSpec([], tf.int64)] * 3,
    ],
)
def _resampled(
    audio: tf.Tensor, rate: tf.Tensor, start: tf.Tensor, length: tf.Tensor
) -> tf.Tensor:
    # Every `up`-th output has the same weights.
    divisors = tf.constant(_DIVISORS, tf.int64)
    common = tf.reduce_max(tf.where(rate % divisors == 0, divisors, 1))
    up, down = SAMPLE_RATE // common, rate // common
    num_rows = tf.minimum(up, length)
    stretch = tf.maximum(tf.cast(rate, tf.float64) / SAMPLE_RATE, 1.0)
    reach = tf.cast(tf.math.ceil(HALF_LENGTH * stretch), tf.int64) + 1
    taps = tf.range(-reach, reach + 1)
    padded = tf.pad(audio, [[reach, reach + 1]])
    last = tf.size(audio, tf.int64)

    def weights(rows: tf.Tensor) -> tf.Tensor:
        rest = tf.cast((start + rows) * down % up, tf.float64) / tf.cast(up, tf.float64)
        offsets = tf.cast(taps, tf.float64) - rest[:, tf.newaxis]
        return tf.cast(_filter(offsets / stretch) / stretch, tf.float32)

    def outputs(numbers: tf.Tensor) -> tf.Tensor:
        places = tf.minimum((start + numbers) * down // up, last)
        inputs = tf.gather(padded, places[:, tf.newaxis] + taps + reach)
        return tf.reduce_sum(inputs * tf.gather(bank, numbers % num_rows), axis=1)

    bank = _in_parts(weights, num_rows, _WEIGHTS_AT_ONCE)
    bank = tf.reshape(bank, [-1, tf.size(taps)])
    sound = _in_parts(outputs, length, _OUTPUTS_AT_ONCE)
    return tf.reshape(sound, [-1])[:length]


def _in_parts(
    function: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor, size: int
) -> tf.Tensor:
    """`function` of the numbers from 0 to `count` (or a few more), `size` at a time."""
    return tf.map_fn(
        lambda first: function(first + tf.range(size, dtype=tf.int64)),
        tf.range(0, count, size, dtype=tf.int64),
        fn_output_signature=tf.float32,
        parallel_iterations=1,
    )


def _filter(offsets: tf.Tensor) -> tf.Tensor:
    """The filter at offsets in samples of the slower rate, [...] float64."""
    root = BETA * tf.sqrt(tf.nn.relu(1 - tf.square(offsets / HALF_LENGTH)))
    window = tf.math.bessel_i0e(root) * tf.exp(root) / float(np.i0(BETA))
    angle = np.pi * CUTOFF * offsets
    sinc = tf.where(tf.abs(angle) < 1e-9, tf.ones_like(angle), tf.sin(angle) / angle)
    is_inside = tf.abs(offsets) <= HALF_LENGTH
    return tf.where(is_inside, CUTOFF * sinc * window / _gain(), tf.zeros_like(window))


@functools.cache
def _gain() -> float:
    """The filter's gain for a constant; dividing by it keeps constants unchanged."""
    steps = 64  # per sample; the number makes no difference
    offsets = np.arange(-HALF_LENGTH * steps, HALF_LENGTH * steps + 1) / steps
    window = np.kaiser(len(offsets), BETA)
    return float(np.sum(CUTOFF * np.sinc(CUTOFF * offsets) * window) / steps)
