"""NSynth's spectrograms: magnitude and phase scaled for a network, and back."""

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

_RANGE_DB = 120.0  # range of the logarithmic magnitude below the loudest value
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
    """NSynth's spectrogram. Each clip is scaled by its own loudest value.

    Args:
      audio: [t] or [b, t] finite floats, t > n_fft / 2.
      n_fft: samples per frame, even.
      hop_length: samples between frames; None means n_fft / 2.
      mask: multiplies the phase by the magnitude; only with `log_mag`.
      log_mag: gives the magnitude in decibels, with -120 to 0 below the loudest scaled
        to 0 to 1. False gives |X| divided by the largest |X|.
      re_im: gives the real and the imaginary part instead, whatever the other options.
      dphase: gives the change of phase from frame to frame, with the first frame as it
        is. False gives the phase itself.
      mag_only: leaves out the phase.

    Returns:
      float32 [b, n_fft / 2 + 1, 1 + t // hop_length, channels], without b for audio
      [t]. The channels are magnitude, in [0, 1], and phase, in [-1, 1] half turns; or
      the magnitude alone; or real and imaginary part. The magnitude of silence is 1 if
      it is logarithmic, as in the original, and 0 if it is linear.

    Raises:
      InputError: as for `stft`.

    Source: NSynth, specgram. Differs: batched; the change of phase is computed without
    unwrapping, which only rounds differently; linear silence isn't NaN.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> audio = np.sin(np.arange(4096)).astype(np.float32)
      >>> tuple(nsynth.specgram(audio).shape)
      (257, 17, 2)
      >>> tuple(nsynth.specgram([audio, audio], 1024, 256, mag_only=True).shape)
      (2, 513, 17, 1)
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
    """`specgram` of [b, t]. One clip at a time fits the processor's caches."""

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
    """The channels for spectra [b, bins, frames]; the options are `specgram`'s."""
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
    """The inverse of `specgram`. The sound is scaled to a peak of 1.

    Args:
      spec: floats [bins, frames, channels] or [b, bins, frames, channels], from
        `specgram` with the same options.
      n_fft: must be 2 * (bins - 1), if given.
      hop_length: samples between frames; None means n_fft / 2.
      mask: as in `specgram`.
      log_mag: as in `specgram`.
      re_im: as in `specgram`.
      dphase: as in `specgram`.
      mag_only: as in `specgram`. Griffin-Lim then estimates the phase.
      num_iters: iterations of Griffin-Lim.
      phase: as in `griffin_lim`.
      seed: as in `griffin_lim`.
      length: as in `istft`.

    Returns:
      float32 [b, length], without b for a spectrogram without. Silence stays silent.

    Raises:
      InputError: another rank, or channels that don't match the options.

    Source: NSynth, ispecgram. Differs: scaled by the largest |sample|, not by the
    largest sample; re_im works; the input is not modified; Griffin-Lim's phase can be
    given or seeded.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> audio = np.sin(np.arange(4096)).astype(np.float32)
      >>> spec = nsynth.specgram(audio, mask=False)
      >>> again = nsynth.ispecgram(spec, mask=False, mag_only=False)
      >>> bool(np.allclose(again, audio, atol=1e-4))
      True
    """
    spec, unbatch = as_batch(spec, tf.float32, 3, "the spectrogram")
    num_channels = 1 if mag_only and not re_im else 2
    if spec.shape[-1] != num_channels:
        raise InputError(
            f"The spectrogram has {spec.shape[-1]} channels, and these options ask for "
            f"{num_channels}: mag_only={mag_only}, re_im={re_im}."
        )
    if spec.shape[1] is None:
        raise InputError("The number of bins must be known; set the tensor's shape.")
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
        # A magnitude of 0 is 120 dB down. Its phase is lost, but inaudible.
        second = tf.math.divide_no_nan(second, first)
    if dphase:
        second = wrap(tf.cumsum(second, axis=2))
    spectrum = polar(magnitude, second * math.pi)
    return unbatch(to_peak(istft(spectrum, hop_length, length)))


def log_magnitude(spectrum: tf.Tensor, range_db: float = _RANGE_DB) -> tf.Tensor:
    """|X| in decibels below each clip's loudest, with -120..0 scaled to 0..1.

    Args:
      spectrum: complex64 [b, ...].
      range_db: replaces the 120.

    Returns:
      float32 of the same shape; all 1 for a clip where |X| never exceeds 3.2e-7.
    """
    # From |X|, not from its square, which overflows from 1.8e19 on.
    magnitude = tf.maximum(tf.abs(spectrum), _LEAST_MAGNITUDE)
    axes = list(range(1, magnitude.shape.rank))
    loudest = tf.reduce_max(magnitude, axis=axes, keepdims=True)
    # From the quotient: its logarithm is exactly 0 where it is 1.
    decibels = tf.math.log(magnitude / loudest) * (20 / math.log(10))
    return tf.maximum(decibels, -range_db) / range_db + 1


def to_magnitude(log_mag: Any) -> tf.Tensor:
    """The inverse of `log_magnitude`: |X| in 1e-6..1."""
    exponent = (tf.cast(log_mag, tf.float32) - 1) * (_RANGE_DB / 20 * math.log(10))
    return tf.exp(exponent)


def to_peak(audio: tf.Tensor, peak: Any = 1.0) -> tf.Tensor:
    """Scales each clip of [b, t] to the peak `peak`; silence stays silent."""
    largest = tf.reduce_max(tf.abs(audio), axis=1, keepdims=True)
    return tf.math.divide_no_nan(audio, largest) * peak


def phase_difference(phase: tf.Tensor) -> tf.Tensor:
    """The change from frame to frame of [b, bins, frames] half turns; keeps frame 0."""
    return tf.concat([phase[..., :1], wrap(phase[..., 1:] - phase[..., :-1])], axis=2)


def wrap(phase: tf.Tensor) -> tf.Tensor:
    """Wraps half turns into [-1, 1]."""
    return phase - 2 * tf.round(phase / 2)
