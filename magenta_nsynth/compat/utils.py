"""The original's `utils`: sound files, mu-law and spectrograms."""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth import spectral
from magenta_nsynth.audio import load_audio as _load_audio
from magenta_nsynth.audio.mu_law import class_values, inverse_mu_law
from magenta_nsynth.audio.mu_law import mu_law as _mu_law
from magenta_nsynth.config import NUM_CLASSES
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.stores import storage

__all__ = [
    "batch_ispecgram",
    "batch_specgram",
    "griffin_lim",
    "inv_mu_law",
    "inv_mu_law_numpy",
    "ispecgram",
    "load_audio",
    "mu_law",
    "shell_path",
    "specgram",
    "trim_for_encoding",
]

_HALF = NUM_CLASSES // 2


def shell_path(path: str | os.PathLike) -> str:
    """Makes a path absolute, and expands "~" and "$NAME" in it."""
    return storage.abspath(expand(path))


def load_audio(
    path: str | os.PathLike, sample_length: int | None = 64000, sr: int | None = 16000
) -> np.ndarray:
    """Reads a sound file of any kind as mono.

    Args:
      path: the file.
      sample_length: the most samples to return; None or 0 returns all.
      sr: the rate in Hz to resample to; None keeps the file's own.

    Returns:
      [n] float32 in [-1, 1]. A shorter file is not padded.

    Raises:
      AudioError: the file can't be read.

    Source: NSynth, utils.load_audio. Differs: another resampling filter than librosa's;
    0 returns all samples, not none.

    Examples:
      >>> from magenta_nsynth.compat import utils
      >>> flute = "checkpoints/notes/flute_acoustic_073-060-100.wav"
      >>> utils.load_audio(flute, 40000).shape
      (40000,)
    """
    return _load_audio(path, sample_length or 0, sr)


def mu_law(x: Any, mu: float = 255, int8: bool = False) -> tf.Tensor:
    """Compands audio to whole numbers.

    Args:
      x: any shape, floats in [-1, 1].
      mu: 255.
      int8: returns int8 instead of float32.

    Returns:
      The same shape, float32 in -128..128, or int8 in -128..127.

    Raises:
      InputError: another mu. The original's two directions fit each other for 255 only.

    Source: NSynth, utils.mu_law. Differs: the int8 of 1.0 is 127; in the original it
    was -128, a click.
    """
    _check_mu(mu)
    out = _mu_law(x)
    return tf.cast(tf.minimum(out, _HALF - 1), tf.int8) if int8 else out


def inv_mu_law(x: Any, mu: float = 255) -> tf.Tensor:
    """The inverse of `mu_law`.

    Args:
      x: any shape, whole numbers.
      mu: as in `mu_law`.

    Returns:
      float32 of the same shape; 0 gives exactly 0.

    Source: NSynth, utils.inv_mu_law.
    """
    _check_mu(mu)
    return inverse_mu_law(x)


def inv_mu_law_numpy(x: Any, mu: float = 255.0) -> np.ndarray:
    """As `inv_mu_law`, in NumPy. It makes sound of the classes that networks draw.

    Args:
      x: any shape, whole numbers in -128..127.
      mu: as in `mu_law`.

    Returns:
      float32 of the same shape; 0 gives exactly 0.

    Raises:
      InputError: another mu, or numbers that aren't samples of NSynth's.

    Source: NSynth, utils.inv_mu_law_numpy.

    Examples:
      >>> from magenta_nsynth.compat import utils
      >>> utils.inv_mu_law_numpy([-128, 0, 127])
      array([-0.978..., 0. , 0.978...], dtype=float32)
    """
    _check_mu(mu)
    x = np.asarray(x)
    if not np.isin(x, np.arange(-_HALF, _HALF)).all():
        raise InputError(f"x must be whole numbers from {-_HALF} to {_HALF - 1}.")
    return class_values()[x.astype(int) + _HALF]


def _check_mu(mu: float) -> None:
    if mu != NUM_CLASSES - 1:
        raise InputError(f"mu must be {NUM_CLASSES - 1}, as in the networks, not {mu}.")


def trim_for_encoding(
    wav_data: Any, sample_length: int, hop_length: int = 512
) -> tuple[np.ndarray, int]:
    """Cuts audio to whole frames.

    Args:
      wav_data: [t] or [b, t].
      sample_length: the most samples to keep.
      hop_length: samples per frame.

    Returns:
      The first samples of each row, a multiple of the hop length; and their number.

    Source: NSynth, utils.trim_for_encoding.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.compat import utils
      >>> trimmed, length = utils.trim_for_encoding(np.zeros([2, 1300]), 64000)
      >>> trimmed.shape, length
      ((2, 1024), 1024)
    """
    wav_data = np.asarray(wav_data)
    shortest = min(sample_length, wav_data.shape[-1])
    sample_length = shortest // hop_length * hop_length
    return wav_data[..., :sample_length], sample_length


def specgram(
    audio: Any,
    n_fft: int = 512,
    hop_length: int | None = None,
    mask: bool = True,
    log_mag: bool = True,
    re_im: bool = False,
    dphase: bool = True,
    mag_only: bool = False,
) -> np.ndarray:
    """The spectrogram of a clip.

    Args:
      audio: [t] floats.
      n_fft: samples per frame.
      hop_length: samples between frames; None means n_fft / 2.
      mask: multiplies the phase by the magnitude.
      log_mag: gives the magnitude in decibels, scaled to 0 to 1.
      re_im: gives the real and the imaginary part instead.
      dphase: gives the change of phase instead of the phase.
      mag_only: leaves out the phase.

    Returns:
      float32 [n_fft / 2 + 1, frames, 2], magnitude and phase; with `mag_only`
      [n_fft / 2 + 1, frames, 1].

    Raises:
      InputError: as for `magenta_nsynth.specgram`.

    Source: NSynth, utils.specgram. Differs: with `mag_only` the original's result had
    a fourth axis, which its own inverse refused.
    """
    return spectral.specgram(
        audio, n_fft, hop_length, mask, log_mag, re_im, dphase, mag_only
    ).numpy()


def batch_specgram(
    audio: Any,
    n_fft: int = 512,
    hop_length: int | None = None,
    mask: bool = True,
    log_mag: bool = True,
    re_im: bool = False,
    dphase: bool = True,
    mag_only: bool = False,
) -> np.ndarray:
    """As `specgram`, for clips [b, t]; its result has a first axis of b."""
    return specgram(
        _with_axes(audio, 2), n_fft, hop_length, mask, log_mag, re_im, dphase, mag_only
    )


def griffin_lim(
    mag: Any, phase_angle: Any, n_fft: int, hop: int, num_iters: int
) -> np.ndarray:
    """Estimates a sound from a magnitude by Griffin and Lim's iteration.

    Args:
      mag: [bins, frames] floats, the linear magnitude.
      phase_angle: the phase to start from, radians of the same shape.
      n_fft: samples per frame: 2 * (bins - 1).
      hop: samples between frames.
      num_iters: 1 or more.

    Returns:
      [t] float32, not normalised.

    Raises:
      InputError: as for `magenta_nsynth.griffin_lim`, or another n_fft.

    Source: NSynth, utils.griffin_lim.
    """
    if np.shape(mag)[0] != n_fft // 2 + 1:
        raise InputError(
            f"The magnitude has {np.shape(mag)[0]} bins, and n_fft={n_fft} has "
            f"{n_fft // 2 + 1}."
        )
    return spectral.griffin_lim(mag, hop, num_iters, phase_angle).numpy()


def ispecgram(
    spec: Any,
    n_fft: int = 512,
    hop_length: int | None = None,
    mask: bool = True,
    log_mag: bool = True,
    re_im: bool = False,
    dphase: bool = True,
    mag_only: bool = True,
    num_iters: int = 1000,
) -> np.ndarray:
    """The inverse of `specgram`.

    Args:
      spec: [bins, frames, channels], from `specgram` with the same options.
      n_fft: 2 * (bins - 1).
      hop_length: as in `specgram`.
      mask: as in `specgram`.
      log_mag: as in `specgram`.
      re_im: as in `specgram`.
      dphase: as in `specgram`.
      mag_only: uses only the first channel; Griffin-Lim estimates the phase. It starts
        from `np.random.rand`, so that `np.random.seed` makes the result repeatable.
      num_iters: iterations of Griffin-Lim.

    Returns:
      [t] float32, scaled to a peak of 1.

    Raises:
      InputError: as for `magenta_nsynth.ispecgram`.

    Source: NSynth, utils.ispecgram. Differs: scaled by the largest |sample|, so that
    nothing clips; `re_im` works; `spec` is not modified.
    """
    spec, phase = np.asarray(spec, np.float32), None
    if mag_only and not re_im:
        spec = spec[..., :1]
        phase = np.pi * np.random.rand(*spec.shape[:-1])
    return spectral.ispecgram(
        spec,
        n_fft,
        hop_length,
        mask,
        log_mag,
        re_im,
        dphase,
        mag_only,
        num_iters,
        phase,
    ).numpy()


def batch_ispecgram(
    spec: Any,
    n_fft: int = 512,
    hop_length: int | None = None,
    mask: bool = True,
    log_mag: bool = True,
    re_im: bool = False,
    dphase: bool = True,
    mag_only: bool = False,
    num_iters: int = 1000,
) -> np.ndarray:
    """As `ispecgram`, for [b, bins, frames, channels]; note the other `mag_only`."""
    return ispecgram(
        _with_axes(spec, 4),
        n_fft,
        hop_length,
        mask,
        log_mag,
        re_im,
        dphase,
        mag_only,
        num_iters,
    )


def _with_axes(values: Any, count: int) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != count:
        raise InputError(f"A batch must have {count} axes, not {list(array.shape)}.")
    return array
