"""The short-time Fourier transform and its inverse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.errors import InputError

__all__ = [
    "as_batch",
    "check_length",
    "check_samples",
    "check_sizes",
    "istft",
    "min_samples",
    "stft",
]

# Window sums below this are the rims of the first and last frame: not divided by.
_TINY = np.finfo(np.float32).tiny


def stft(audio: Any, n_fft: int = 512, hop_length: int | None = None) -> tf.Tensor:
    """The short-time Fourier transform, with a periodic Hann window.

    Frame i is centred on sample i * hop_length. At both ends the clip is extended by
    n_fft / 2 samples of its own reflection.

    Args:
      audio: [t] or [b, t] floats at any rate, t > n_fft / 2.
      n_fft: samples per frame, even.
      hop_length: samples between frames; None means n_fft / 2.

    Returns:
      complex64 [b, n_fft / 2 + 1, 1 + t // hop_length], without b for audio [t].

    Raises:
      InputError: another rank or dtype, or too few samples to reflect. In a graph
        where t is unknown, InvalidArgumentError at run time.

    Source: librosa 0.6's stft, which NSynth calls; checked against 0.10.2.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.spectral import istft, stft
      >>> audio = np.sin(np.arange(4096)).astype(np.float32)
      >>> spectrum = stft(audio, n_fft=512)
      >>> tuple(spectrum.shape)
      (257, 17)
      >>> bool(np.allclose(istft(spectrum), audio, atol=1e-5))
      True
    """
    hop_length = check_sizes(n_fft, hop_length)
    audio, unbatch = as_batch(audio, tf.float32, 1, "audio")
    check_samples(audio.shape[1], n_fft)
    if audio.shape[1] is None:
        check = tf.debugging.assert_greater_equal(
            tf.shape(audio)[1],
            min_samples(n_fft),
            f"A spectrogram needs at least {min_samples(n_fft)} samples.",
        )
        with tf.control_dependencies([check] if check is not None else []):
            audio = tf.identity(audio)
    frames = frames_stft(audio, n_fft, hop_length, tf.float64)
    return unbatch(tf.transpose(frames, [0, 2, 1]))


def istft(
    spectrum: Any, hop_length: int | None = None, length: int | None = None
) -> tf.Tensor:
    """The inverse of `stft`.

    Frames are windowed again and added where they overlap. Then the sum is divided by
    the sum of the squared windows.

    Args:
      spectrum: complex64 [bins, frames] or [b, bins, frames].
      hop_length: as in `stft`; None means n_fft / 2 = bins - 1.
      length: samples to return. None means (frames - 1) * hop_length, from the centre
        of the first frame to the centre of the last. Up to n_fft / 2 more are possible.

    Returns:
      float32 [b, length], without b for a spectrum [bins, frames].

    Raises:
      InputError: another rank or dtype, or a length beyond the frames.

    Source: librosa's istft, which NSynth calls.

    Examples:
      See `stft`.
    """
    spectrum, unbatch = as_batch(spectrum, tf.complex64, 2, "the spectrum")
    if spectrum.shape[1] is None or spectrum.shape[1] < 2 or spectrum.shape[2] == 0:
        raise InputError(
            f"The spectrum has {spectrum.shape[1]} bins and {spectrum.shape[2]} "
            "frames; it needs at least 2 bins and 1 frame."
        )
    n_fft = 2 * (spectrum.shape[1] - 1)
    hop_length = check_sizes(n_fft, hop_length)
    check_length(length, spectrum.shape[2], n_fft, hop_length)
    frames = tf.transpose(spectrum, [0, 2, 1])
    return unbatch(frames_istft(frames, hop_length, length))


def frames_stft(
    audio: tf.Tensor, n_fft: int, hop_length: int, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """As `stft`, of checked audio [b, t], with frames before bins: [b, frames, bins].

    The transform computes in `dtype`. In float64, as in NumPy, values 120 dB below the
    loudest are still accurate.
    """
    half = n_fft // 2
    padded = tf.pad(audio, [[0, 0], [half, half]], "REFLECT")
    frames = _frames(padded, n_fft, hop_length) * _window(n_fft)
    return tf.cast(tf.signal.rfft(tf.cast(frames, dtype)), tf.complex64)


def frames_istft(
    frames: tf.Tensor, hop_length: int, length: int | tf.Tensor | None = None
) -> tf.Tensor:
    """As `istft`, of checked frames [b, frames, bins]: [b, length]."""
    n_fft = 2 * (frames.shape[2] - 1)
    half, window = n_fft // 2, _window(n_fft)
    audio = tf.signal.overlap_and_add(tf.signal.irfft(frames) * window, hop_length)
    num_frames = tf.shape(frames)[1]
    squares = tf.tile(window[None] ** 2, [num_frames, 1])
    weights = tf.signal.overlap_and_add(squares, hop_length)
    audio = audio / tf.where(weights > _TINY, weights, 1.0)
    end = (num_frames - 1) * hop_length if length is None else length
    audio = audio[:, half : half + end]
    if length is None and frames.shape[1] is not None:
        length = (frames.shape[1] - 1) * hop_length
    return tf.ensure_shape(audio, [None, length if isinstance(length, int) else None])


def _frames(padded: tf.Tensor, n_fft: int, hop_length: int) -> tf.Tensor:
    """Overlapping frames [b, frames, n_fft] of [b, t]."""
    if n_fft % hop_length:
        return tf.signal.frame(padded, n_fft, hop_length)
    # Whole hops side by side: copies of contiguous memory instead of a gather.
    parts = n_fft // hop_length
    num_hops = tf.shape(padded)[1] // hop_length
    hops = tf.reshape(padded[:, : num_hops * hop_length], [-1, num_hops, hop_length])
    num_frames = num_hops - parts + 1
    frames = tf.concat([hops[:, i : i + num_frames] for i in range(parts)], axis=2)
    static = padded.shape[1]
    static = None if static is None else static // hop_length - parts + 1
    return tf.ensure_shape(frames, [None, static, n_fft])


def _window(n_fft: int) -> tf.Tensor:
    phase = 2 * np.pi * np.arange(n_fft) / n_fft
    return tf.constant(0.5 - 0.5 * np.cos(phase), tf.float32)


def min_samples(n_fft: int) -> int:
    """The least number of samples that can be reflected by n_fft / 2."""
    return n_fft // 2 + 1


def check_samples(num_samples: int | None, n_fft: int) -> None:
    """Raises InputError for too few samples; None means unknown."""
    if num_samples is not None and num_samples < min_samples(n_fft):
        raise InputError(
            f"The audio has {num_samples} samples; a spectrogram with n_fft={n_fft} "
            f"needs at least {min_samples(n_fft)}."
        )


def check_sizes(n_fft: int, hop_length: int | None) -> int:
    """Returns the hop length, by default n_fft / 2; InputError for invalid sizes."""
    if n_fft < 2 or n_fft % 2:
        raise InputError(f"n_fft must be even and 2 or more, not {n_fft}.")
    hop_length = n_fft // 2 if hop_length is None else hop_length
    if not 1 <= hop_length <= n_fft:
        raise InputError(f"hop_length must be 1 to n_fft={n_fft}, not {hop_length}.")
    return hop_length


def check_length(
    length: int | None, num_frames: int | None, n_fft: int, hop_length: int
) -> None:
    """Raises InputError if `length` samples can't be made from `num_frames` frames."""
    if length is None or num_frames is None:
        return
    most = (num_frames - 1) * hop_length + n_fft // 2
    if not 0 < length <= most:
        raise InputError(
            f"{num_frames} frames of hop length {hop_length} hold 1 to {most} samples, "
            f"not {length}."
        )


def as_batch(
    values: Any, dtype: tf.DType, rank: int, name: str
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Adds a batch dimension where there is none.

    Args:
      values: an array or a tensor.
      dtype: the dtype to cast to, float or complex.
      rank: the rank without a batch dimension.
      name: the name of the values in errors.

    Returns:
      The tensor with a batch dimension; and a function that takes it off a result
      again, if it was added.

    Raises:
      InputError: the rank is neither `rank` nor one more, or the values are of another
        kind than `dtype`.
    """
    tensor = tf.convert_to_tensor(values)
    is_right = tensor.dtype.is_complex if dtype.is_complex else tensor.dtype.is_floating
    if not is_right or tensor.shape.rank not in (rank, rank + 1):
        raise InputError(
            f"{name[0].upper()}{name[1:]} must be {dtype.name} of {rank} dimensions, "
            f"or {rank + 1} with a batch first; got {tensor.dtype.name} of shape "
            f"{tensor.shape}."
        )
    tensor = tf.cast(tensor, dtype)
    if tensor.shape.rank == rank:
        return tensor[None], lambda result: result[0]
    return tensor, lambda result: result
