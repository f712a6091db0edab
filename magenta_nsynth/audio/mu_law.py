"""8-bit mu-law: 256 classes of sample values, finer near silence."""

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import NUM_CLASSES

__all__ = ["class_labels", "class_values", "inverse_mu_law", "mu_law"]

_MU = NUM_CLASSES - 1
_HALF = NUM_CLASSES // 2
_PER_NEPER = np.float32(1) / np.float32(np.log(NUM_CLASSES))

# Bit m is set if the original decodes m (and -1 - m) to one float32 step less than the
# exact power; see `class_values`.
_ROUNDED_DOWN = 0xC1A0C1A0C1A0C1A0C1A0C1A0C1A0C1A


def mu_law(audio: tf.types.experimental.TensorLike) -> tf.Tensor:
    """Compands linear audio to whole numbers: 128 times the networks' input.

    Nothing is clamped: 1.0 gives 128, one more than the last class, and 1.5 gives 137.
    `class_labels` clamps.

    Args:
      audio: any shape, float, normally in [-1, 1].

    Returns:
      float32 of the same shape: whole numbers, -128 to 128 for audio in [-1, 1].

    Source: NSynth, mu_law.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> nsynth.mu_law([-1.0, -0.01, 0.0, 0.01, 1.0]).numpy().tolist()
      [-128.0, -30.0, 0.0, 29.0, 128.0]
    """
    audio = tf.cast(audio, tf.float32)
    # The last bit decides on which side of a step a sample falls. TensorFlow rewrites
    # graphs: division by a constant becomes multiplication, and log(1 + x) becomes
    # log1p. Written like this, eager code and graphs both give the same as the
    # original's graph. (XLA has its own logarithm, which differs at the steps' edges.)
    level = tf.math.log(_MU * tf.abs(audio) - (-1.0)) * _PER_NEPER
    return tf.floor(_HALF * (tf.sign(audio) * level))


def inverse_mu_law(quantized: tf.types.experimental.TensorLike) -> tf.Tensor:
    """The inverse of `mu_law`: linear audio, in the middle of each step.

    Args:
      quantized: any shape, integer or float; whole numbers, normally in -128..127.

    Returns:
      float32 of the same shape, in (-1, 1) for -128..127. 0 gives exactly 0.

    Source: NSynth, inv_mu_law.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> nsynth.inverse_mu_law([-128, 0, 127]).numpy()
      array([-0.978..., 0. , 0.978...], dtype=float32)
    """
    quantized = tf.cast(quantized, tf.float32)
    companded = (quantized + 0.5) / _HALF
    # The last bit of float32 powers depends on the TensorFlow release and on
    # compilation. The rounded float64 power is what the original computed.
    magnitude = tf.cast(tf.abs(companded), tf.float64)
    power = tf.cast(tf.pow(tf.constant(NUM_CLASSES, tf.float64), magnitude), tf.float32)
    audio = tf.sign(companded) / _MU * (power - 1.0)
    return tf.where(tf.equal(quantized, 0.0), quantized, audio)


def class_labels(quantized: tf.types.experimental.TensorLike) -> tf.Tensor:
    """The class that each sample belongs to.

    Args:
      quantized: any shape, from `mu_law`.

    Returns:
      int32 of the same shape, in 0..255.

    Differs from NSynth, whose label for 1.0 is 256. No network can predict this class,
    and it turns the loss into NaN on GPUs. Here labels are clamped.
    """
    labels = tf.cast(quantized, tf.int32) + _HALF
    return tf.clip_by_value(labels, 0, NUM_CLASSES - 1)


def class_values() -> np.ndarray:
    """The sample that each class decodes to.

    Returns:
      [256] float32 in (-1, 1), ascending. They are within one float32 step of
      `inverse_mu_law`.

    Source: NSynth, inv_mu_law_numpy. It computes float32 powers with NumPy, whose last
    bit depends on the processor. To be the same everywhere, these are the values from a
    processor with AVX-512, on which the reference outputs were made.
    """
    steps = np.arange(_HALF)
    power = np.power(float(NUM_CLASSES), (steps + 0.5) / _HALF).astype(np.float32)
    is_lower = [bool(_ROUNDED_DOWN >> int(step) & 1) for step in steps]
    power = np.where(is_lower, np.nextafter(power, np.float32(0)), power)
    positive = np.float32(1 / _MU) * (power - np.float32(1))
    values = np.concatenate([-positive[::-1], positive])
    values[_HALF] = 0.0
    return values
