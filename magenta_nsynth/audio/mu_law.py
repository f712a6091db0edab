"""8-bit mu-law: 256 classes of sample values, finer near silence."""

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import NUM_CLASSES

__all__ = ["class_labels", "class_values", "inverse_mu_law", "mu_law"]

_MU = NUM_CLASSES - 1
_HALF = NUM_CLASSES // 2
_PER_NEPER = np.float32(1) / np.float32(np.log(NUM_CLASSES))

# Bit m is set where the original's decoder gives m (and -1 - m) one float32 step
# less than the exact power would; see `class_values`.
_ROUNDED_DOWN = 0xC1A0C1A0C1A0C1A0C1A0C1A0C1A0C1A


def mu_law(audio: tf.types.experimental.TensorLike) -> tf.Tensor:
    """Compands linear audio to the integers that the networks are fed, times 128.

    Source: NSynth, mu_law. As there nothing is clamped: 1.0 gives 128, one more than
    has a class, and 1.5 gives 137. `class_labels` clamps.

    Args:
      audio: any shape, float; meant to be in [-1, 1].

    Returns:
      The same shape, float32: whole numbers, -128 to 128 for audio in [-1, 1].
    """
    audio = tf.cast(audio, tf.float32)
    # The last bit decides on which side of a step a sample falls, and TensorFlow
    # rewrites graphs: a quotient by a constant becomes a product, and log(1 + x)
    # log1p. Spelt so, eager code and graphs both give what the original's graph
    # gives. (XLA has a logarithm of its own; it differs on the steps' very edges.)
    level = tf.math.log(_MU * tf.abs(audio) - (-1.0)) * _PER_NEPER
    return tf.floor(_HALF * (tf.sign(audio) * level))


def inverse_mu_law(quantized: tf.types.experimental.TensorLike) -> tf.Tensor:
    """Expands what `mu_law` returns to linear audio, to the middle of each step.

    Source: NSynth, inv_mu_law; 0 decodes to exactly 0 as there.

    Args:
      quantized: any shape, integer or float; whole numbers, meant to be in -128..127.

    Returns:
      The same shape, float32, in (-1, 1) for -128..127.
    """
    quantized = tf.cast(quantized, tf.float32)
    companded = (quantized + 0.5) / _HALF
    # float32 powers differ in the last bit between TensorFlow releases, eager and
    # compiled code; the float64 power, rounded, is what the original got.
    magnitude = tf.cast(tf.abs(companded), tf.float64)
    power = tf.cast(tf.pow(tf.constant(NUM_CLASSES, tf.float64), magnitude), tf.float32)
    audio = tf.sign(companded) / _MU * (power - 1.0)
    return tf.where(tf.equal(quantized, 0.0), quantized, audio)


def class_labels(quantized: tf.types.experimental.TensorLike) -> tf.Tensor:
    """The class that each sample belongs to.

    Differs from NSynth: its label for 1.0 is 256, which no network can predict and
    which turns the loss into NaN on GPUs. Here labels are clamped.

    Args:
      quantized: any shape; what `mu_law` returns.

    Returns:
      The same shape, int32, in 0..255.
    """
    labels = tf.cast(quantized, tf.int32) + _HALF
    return tf.clip_by_value(labels, 0, NUM_CLASSES - 1)


def class_values() -> np.ndarray:
    """The sample that each class stands for.

    Source: NSynth, inv_mu_law_numpy. It takes float32 powers with NumPy, whose last
    bit depends on the processor, so the values are rebuilt here to be the same
    everywhere: those of a processor with AVX-512, on which the reference outputs
    were made. They are within one step of float32 of `inverse_mu_law`.

    Returns:
      [256] float32 in (-1, 1), ascending: class c decodes to the value at index c.
    """
    steps = np.arange(_HALF)
    power = np.power(float(NUM_CLASSES), (steps + 0.5) / _HALF).astype(np.float32)
    is_lower = [bool(_ROUNDED_DOWN >> int(step) & 1) for step in steps]
    power = np.where(is_lower, np.nextafter(power, np.float32(0)), power)
    positive = np.float32(1 / _MU) * (power - np.float32(1))
    values = np.concatenate([-positive[::-1], positive])
    values[_HALF] = 0.0
    return values
