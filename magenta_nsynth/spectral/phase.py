"""Phases: a spectrum's own, and estimates for magnitudes without one."""

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

# Added to a spectrum before it is divided by its magnitude. Where that is 0 the phase
# becomes 0; elsewhere it is far below a float's last bit. Its square isn't denormal.
_TINY = 1e-18


def angle(spectrum: tf.Tensor) -> tf.Tensor:
    """The phase in radians, in (-pi, pi]; 0 where the spectrum is 0."""
    is_zero = tf.equal(spectrum, 0)  # atan2 gives pi for -0
    return tf.where(is_zero, 0.0, tf.math.angle(spectrum))


def polar(magnitude: tf.Tensor, phase: tf.Tensor) -> tf.Tensor:
    """The complex64 spectrum with this magnitude and phase, in radians."""
    return tf.complex(magnitude * tf.cos(phase), magnitude * tf.sin(phase))


def griffin_lim(
    magnitude: Any,
    hop_length: int | None = None,
    num_iters: int = 1000,
    phase: Any = None,
    seed: int | None = None,
    length: int | None = None,
) -> tf.Tensor:
    """Estimates a sound from a magnitude: Griffin and Lim's iteration, no momentum.

    n iterations are n inverse transforms with n - 1 forward transforms between them.

    Args:
      magnitude: floats [bins, frames] or [b, bins, frames]: |X|, linear, not negative.
      hop_length: samples between frames; None means n_fft / 2 = bins - 1.
      num_iters: 1 or more. More than 100 improve the sound only slightly.
      phase: the phase to start from, radians in the shape of `magnitude`. None draws
        it from U[0, pi), as the original does.
      seed: seeds that draw. A clip's phase does not depend on its batch.
      length: as in `istft`.

    Returns:
      float32 [b, length], without b for a magnitude without; not normalised.

    Raises:
      InputError: another rank, too few frames, or a phase of another shape.

    Source: NSynth, griffin_lim (Griffin and Lim 1984).

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> audio = np.sin(np.arange(4096)).astype(np.float32)
      >>> magnitude = nsynth.specgram(audio, log_mag=False, mag_only=True)[..., 0]
      >>> nsynth.griffin_lim(magnitude, num_iters=10, seed=0).shape[0]
      4096
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
            f"hop_length={hop_length} it needs at least {least}."
        )
    check_length(length, num_frames, n_fft, hop_length)
    if num_frames is None:
        num_frames = tf.shape(magnitude)[2]
    if phase is None:
        phase = _random_phase(magnitude, seed)
    phase, _ = as_batch(phase, tf.float32, 2, "the phase")
    if not phase.shape.is_compatible_with(magnitude.shape):
        raise InputError(
            f"The phase has shape {phase.shape}, the magnitude {magnitude.shape}."
        )
    between = (num_frames - 1) * hop_length
    # Between two transforms the sound must give as many frames, and be reflectable.
    inner = tf.maximum(between, min_samples(n_fft))
    if length is not None:
        inner = tf.maximum(inner, length)
    magnitude = tf.transpose(magnitude, [0, 2, 1])
    spectrum = polar(magnitude, tf.transpose(phase, [0, 2, 1]))
    count = tf.constant(num_iters, tf.int32)
    spectrum = _iterate(spectrum, magnitude, n_fft, hop_length, count, inner)
    return unbatch(frames_istft(spectrum, hop_length, length))


@tf.function(reduce_retracing=True, autograph=False)
def _iterate(
    spectrum: tf.Tensor,
    magnitude: tf.Tensor,
    n_fft: int,
    hop_length: int,
    num_iters: tf.Tensor,
    length: tf.Tensor,
) -> tf.Tensor:
    """All but the last inverse transform, of [b, frames, bins].

    `n_fft` is an argument so that each size has its own trace: TensorFlow forgets the
    number of bins when a trace is called with several.
    """
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
    # The algorithm is named because the default depends on the device.
    phase = tf.random.stateless_uniform(shape[1:], [seed, 0], 0, math.pi, alg="philox")
    return tf.broadcast_to(phase, shape)
