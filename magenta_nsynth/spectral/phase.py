"""Phases: of a spectrum, and for magnitudes that have none."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.errors import InputError
from magenta_nsynth.spectral.stft import (
    as_batch,
    check_length,
    check_sizes,
    frames_istft,
    frames_stft,
    min_samples,
)

__all__ = ["angle", "griffin_lim", "polar"]

# Added to a spectrum before it is divided by its magnitude: where that is 0 the phase
# is 0, and elsewhere it is far below a float's last bit. Its square is no denormal.
_TINY = 1e-18


def angle(spectrum: tf.Tensor) -> tf.Tensor:
    """The phase in radians, (-pi, pi]; 0 where there is nothing."""
    is_zero = tf.equal(spectrum, 0)  # atan2 gives pi for -0
    return tf.where(is_zero, 0.0, tf.math.angle(spectrum))


def polar(magnitude: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """The spectrum of a magnitude and a phase in radians: complex64."""
    return tf.complex(magnitude * tf.cos(phase), magnitude * tf.sin(phase))


def griffin_lim(
    magnitude: Any,
    hop_length: int | None = None,
    num_iters: int = 1000,
    phase: Any = None,
    seed: int | None = None,
    length: int | None = None,
) -> tf.Tensor:
    """A sound with about this spectrum: Griffin and Lim's iteration, without momentum.

    n iterations are n inverse transforms and n - 1 forward ones between them.

    Args:
      magnitude: floats [bins, frames] or [b, bins, frames], 0 or more: |X|, linear.
      hop_length: samples between frames; None is n_fft / 2 = bins - 1.
      num_iters: 1 or more. 100 are nearly as good as many more.
      phase: floats like `magnitude`, radians, to start with; None draws it from
        U[0, pi), as the original does.
      seed: of that draw; None is fresh. A clip's phase does not depend on its batch.
      length: as in `istft`.

    Returns:
      float32 [b, length], without b for a magnitude without; not normalised.

    Raises:
      InputError: another rank, too few frames, a phase of another shape.

    Source: NSynth, griffin_lim (Griffin and Lim 1984).
    """
    magnitude, unbatch = as_batch(magnitude, tf.float32, 2, "the magnitude")
    if magnitude.shape[1] is None or magnitude.shape[1] < 2:
        raise InputError(f"The magnitude has {magnitude.shape[1]} bins, not 2 or more.")
    n_fft = 2 * (magnitude.shape[1] - 1)
    hop_length = check_sizes(n_fft, hop_length)
    whole = isinstance(num_iters, int | np.integer)
    if not whole or not 1 <= num_iters < 2**31:
        raise InputError(
            f"num_iters must be a whole number from 1 to {2**31 - 1}, not {num_iters}."
        )
    least = max(2, 1 + min_samples(n_fft) // hop_length)
    num_frames = magnitude.shape[2]
    if num_frames is not None and num_frames < least:
        raise InputError(
            f"The magnitude has {num_frames} frames; with n_fft={n_fft} and "
            f"hop_length={hop_length} it needs {least} at least."
        )
    check_length(length, num_frames, n_fft, hop_length)
    if num_frames is None:
        num_frames = tf.shape(magnitude)[2]
    if phase is None:
        phase = _random_phase(magnitude, seed)
    phase, _ = as_batch(phase, tf.float32, 2, "the phase")
    if not phase.shape.is_compatible_with(magnitude.shape):
        raise InputError(
            f"The phase is of shape {phase.shape}, the magnitude {magnitude.shape}."
        )
    between = (num_frames - 1) * hop_length
    # What is transformed again has to give as many frames, and be reflectable.
    inner = tf.maximum(between, min_samples(n_fft))
    if length is not None:
        inner = tf.maximum(inner, length)
    magnitude = tf.transpose(magnitude, [0, 2, 1])
    spectrum = polar(magnitude, tf.transpose(phase, [0, 2, 1]))

    spectrum = _iterate(
        spectrum, magnitude, hop_length, tf.constant(num_iters, tf.int32), inner
    )
    return unbatch(frames_istft(spectrum, hop_length, length))


@tf.function(reduce_retracing=True, autograph=False)
def _iterate(
    spectrum: tf.Tensor,
    magnitude: tf.Tensor,
    hop_length: int,
    num_iters: tf.Tensor,
    length: tf.Tensor,
) -> tf.Tensor:
    """All but the last inverse: `spectrum` and `magnitude` are [b, frames, bins]."""
    n_fft = 2 * (magnitude.shape[2] - 1)
    num_frames = tf.shape(magnitude)[1]

    def turn(i: tf.Tensor, spectrum: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        audio = frames_istft(spectrum, hop_length, length)
        found = frames_stft(audio, n_fft, hop_length)[:, :num_frames]
        real, imaginary = tf.math.real(found) + _TINY, tf.math.imag(found)
        scale = magnitude * tf.math.rsqrt(real * real + imaginary * imaginary)
        again = tf.complex(real * scale, imaginary * scale)
        return i + 1, tf.ensure_shape(again, magnitude.shape)

    start = (tf.constant(1), spectrum)
    return tf.while_loop(lambda i, _: i < num_iters, turn, start)[1]


def _random_phase(magnitude: tf.Tensor, seed: int | None) -> tf.Tensor:
    shape = tf.shape(magnitude)
    if seed is None:
        return tf.random.uniform(shape, 0, math.pi)
    # The algorithm named: the default is another one on other devices.
    phase = tf.random.stateless_uniform(shape[1:], [seed, 0], 0, math.pi, alg="philox")
    return tf.broadcast_to(phase, shape)
