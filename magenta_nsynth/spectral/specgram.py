"""NSynth's spectrograms: magnitudes and phases scaled for a network, and back."""

import math
from typing import Any

import tensorflow as tf

from magenta_nsynth.errors import InputError
from magenta_nsynth.spectral.phase import angle, griffin_lim, polar
from magenta_nsynth.spectral.stft import (
    as_batch,
    check_samples,
    check_sizes,
    istft,
    stft,
)

__all__ = [
    "ispecgram",
    "log_magnitude",
    "phase_difference",
    "specgram",
    "to_magnitude",
    "wrap",
]

_RANGE_DB = 120.0  # below the loudest value, that the logarithmic magnitude covers
_LEAST_MAGNITUDE = math.sqrt(1e-13)


def specgram(
    audio: Any,
    n_fft: int = 512,
    hop_length: int | None = None,
    mask: bool = True,
    log_mag: bool = True,
    re_im: bool = False,
    dphase: bool = True,
    mag_only: bool = False,
) -> tf.Tensor:
    """The spectrogram of clips, each scaled by itself.

    Args:
      audio: [t] or [b, t] floats; t from n_fft / 2 + 1 on. Finite.
      n_fft: samples of a frame, even.
      hop_length: samples between frames; None is n_fft / 2.
      mask: multiplies the phase by the magnitude; with `log_mag` alone.
      log_mag: magnitude in decibels below the loudest, -120..0 scaled to 0..1; False
        is |X| over the largest |X|.
      re_im: the real and the imaginary part in place of magnitude and phase; the other
        options then mean nothing.
      dphase: the difference of the phase from frame to frame (the first one as it is),
        in [-1, 1] half turns; False is the phase itself.
      mag_only: no phase.

    Returns:
      float32 [b, n_fft / 2 + 1, 1 + t // hop_length, channels], without b for audio
      [t]. Channels are magnitude in [0, 1] and phase in [-1, 1] (in half turns), the
      magnitude alone, or real and imaginary part. Silence has a magnitude of 1 where
      that is logarithmic, as in the original, and of 0 where it is linear.

    Raises:
      InputError: as `stft`.

    Source: NSynth, specgram; differs: batched, the difference of phases is not taken
    of their unwrapped sum (the same but for rounding), linear silence isn't NaN.
    """
    audio, unbatch = as_batch(audio, tf.float32, 1, "audio")
    hop_length = check_sizes(n_fft, hop_length)
    check_samples(audio.shape[1], n_fft)
    spec = _clip_by_clip(
        audio, n_fft, hop_length, mask, log_mag, re_im, dphase, mag_only
    )
    num_samples = audio.shape[1]
    num_frames = None if num_samples is None else 1 + num_samples // hop_length
    num_channels = 1 if mag_only and not re_im else 2
    shape = [audio.shape[0], n_fft // 2 + 1, num_frames, num_channels]
    return unbatch(tf.ensure_shape(spec, shape))


@tf.function(reduce_retracing=True, autograph=False)
def _clip_by_clip(
    audio: tf.Tensor, n_fft: int, hop_length: int, *options: bool
) -> tf.Tensor:
    """`specgram` of [b, t]: what one clip needs stays in a processor's caches."""

    def of_clip(clip: tf.Tensor) -> tf.Tensor:
        return _channels(stft(clip[None], n_fft, hop_length), *options)[0]

    return tf.map_fn(of_clip, audio)


def _channels(
    spectrum: tf.Tensor,
    mask: bool,
    log_mag: bool,
    re_im: bool,
    dphase: bool,
    mag_only: bool,
) -> tf.Tensor:
    """The channels of spectra [b, bins, frames]; the options are `specgram`'s."""
    if re_im:
        return tf.stack([tf.math.real(spectrum), tf.math.imag(spectrum)], axis=-1)
    if log_mag:
        magnitude = log_magnitude(spectrum)
    else:
        magnitude = tf.abs(spectrum)
        loudest = tf.reduce_max(magnitude, axis=[1, 2], keepdims=True)
        magnitude = tf.math.divide_no_nan(magnitude, loudest)
    if mag_only:
        return magnitude[..., None]
    phase = angle(spectrum) / math.pi
    if dphase:
        phase = phase_difference(phase)
    if log_mag and mask:
        phase = phase * magnitude
    return tf.stack([magnitude, phase], axis=-1)


def ispecgram(
    spec: Any,
    n_fft: int | None = None,
    hop_length: int | None = None,
    mask: bool = True,
    log_mag: bool = True,
    re_im: bool = False,
    dphase: bool = True,
    mag_only: bool = True,
    num_iters: int = 1000,
    phase: Any = None,
    seed: int | None = None,
    length: int | None = None,
) -> tf.Tensor:
    """The sound of a spectrogram, scaled to a peak of 1.

    Args:
      spec: floats [bins, frames, channels] or [b, bins, frames, channels], as
        `specgram` makes them with the same options.
      n_fft: 2 * (bins - 1), which None takes from `spec`.
      hop_length: samples between frames; None is n_fft / 2.
      mask: as in `specgram`.
      log_mag: as in `specgram`.
      re_im: as in `specgram`.
      dphase: as in `specgram`.
      mag_only: there is no phase, so Griffin-Lim looks for one.
      num_iters: Griffin-Lim's iterations.
      phase: as in `griffin_lim`.
      seed: as in `griffin_lim`.
      length: as in `istft`.

    Returns:
      float32 [b, length], without b for a spectrogram without, peak 1. Silence stays.

    Raises:
      InputError: another rank, channels that the options don't have.

    Source: NSynth, ispecgram; differs: scaled by the largest |sample|, where the
    original's scale is the largest sample; re_im works; the input is left as it is;
    Griffin-Lim's phase can be given or seeded.
    """
    spec, unbatch = as_batch(spec, tf.float32, 3, "the spectrogram")
    num_channels = 1 if mag_only and not re_im else 2
    if spec.shape[-1] != num_channels:
        raise InputError(
            f"The spectrogram has {spec.shape[-1]} channels, and these options ask for "
            f"{num_channels}: mag_only={mag_only}, re_im={re_im}."
        )
    if spec.shape[1] is None:
        raise InputError("The number of bins has to be known; set the tensor's shape.")
    if n_fft is not None and spec.shape[1] != n_fft // 2 + 1:
        raise InputError(
            f"The spectrogram has {spec.shape[1]} bins, and n_fft={n_fft} has "
            f"{n_fft // 2 + 1}."
        )
    hop_length = check_sizes(2 * (spec.shape[1] - 1), hop_length)
    first, second = spec[..., 0], spec[..., -1]
    if re_im:
        return unbatch(to_peak(istft(tf.complex(first, second), hop_length, length)))
    magnitude = to_magnitude(first) if log_mag else first
    if mag_only:
        audio = griffin_lim(magnitude, hop_length, num_iters, phase, seed, length)
        return unbatch(to_peak(audio))
    if mask and log_mag:
        # A magnitude of 0 is 120 dB down: whatever its phase was, it isn't heard.
        second = tf.math.divide_no_nan(second, first)
    if dphase:
        second = wrap(tf.cumsum(second, axis=2))
    spectrum = polar(magnitude, second * math.pi)
    return unbatch(to_peak(istft(spectrum, hop_length, length)))


def log_magnitude(spectrum: tf.Tensor, range_db: float = _RANGE_DB) -> tf.Tensor:
    """|X| in decibels below each clip's loudest, -120..0 as 0..1.

    Args:
      spectrum: complex64 [b, ...].
      range_db: in place of 120.

    Returns:
      float32 of the same shape; all 1 where |X| is nowhere above 3.2e-7.
    """
    # Of |X|, not of its square, which is infinite from 1.8e19 on.
    magnitude = tf.maximum(tf.abs(spectrum), _LEAST_MAGNITUDE)
    axes = list(range(1, magnitude.shape.rank))
    loudest = tf.reduce_max(magnitude, axis=axes, keepdims=True)
    # Of the quotient, whose logarithm is exactly 0 where it is 1.
    decibels = tf.math.log(magnitude / loudest) * (20 / math.log(10))
    return tf.maximum(decibels, -range_db) / range_db + 1


def to_magnitude(log_mag: Any) -> tf.Tensor:
    """The reverse of `log_magnitude`: |X|, 1e-6 to 1."""
    exponent = (tf.cast(log_mag, tf.float32) - 1) * (_RANGE_DB / 20 * math.log(10))
    return tf.exp(exponent)


def to_peak(audio: tf.Tensor, peak: Any = 1.0) -> tf.Tensor:
    """Each of [b, t] scaled to a largest |sample| of `peak`; silence stays silence."""
    largest = tf.reduce_max(tf.abs(audio), axis=1, keepdims=True)
    return tf.math.divide_no_nan(audio, largest) * peak


def phase_difference(phase: tf.Tensor) -> tf.Tensor:
    """From frame to frame, the first one kept: [b, bins, frames], half turns."""
    return tf.concat([phase[..., :1], wrap(phase[..., 1:] - phase[..., :-1])], axis=2)


def wrap(phase: tf.Tensor) -> tf.Tensor:
    """Half turns brought into [-1, 1]."""
    return phase - 2 * tf.round(phase / 2)
