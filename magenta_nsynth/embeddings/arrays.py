"""Reading, checking and writing .npy files of embeddings."""

import io
import pathlib
from typing import Any

import numpy as np

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, open_file

__all__ = ["check_encoding", "check_finite", "check_z", "load_array", "save_array"]


def load_array(path: str, in_memory: bool = True) -> np.ndarray:
    """Reads the array of a .npy file.

    Args:
      path: the file.
      in_memory: False maps the file to memory, so that parts are read when used.

    Raises:
      InputError: it can't be read, or is not a .npy file.
    """
    try:
        with open_file(path):  # refuses a pipe, for which NumPy would wait
            return np.load(path, None if in_memory else "r", allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: can't be read ({reason}).") from None
    except Exception as error:  # a damaged header can raise almost any error
        reason = (str(error).splitlines() or [""])[0][:100]
        raise InputError(
            f"{path}: not a .npy array, or damaged ({reason}); save it again with "
            "np.save."
        ) from None


def check_encoding(
    encoding: np.ndarray, num_channels: int | None, name: str = "the encoding"
) -> np.ndarray:
    """Checks a WaveNet's embedding of one clip: [frames, bottleneck] float32.

    Args:
      encoding: [frames, bottleneck] or [1, frames, bottleneck] numbers.
      num_channels: the decoder's bottleneck width; None accepts any.
      name: its name in errors.

    Raises:
      InputError: another shape, no frames, not numbers, NaN or infinity.
    """
    encoding = np.asarray(encoding)
    if encoding.ndim == 3 and len(encoding) == 1:
        encoding = encoding[0]
    if encoding.ndim == 3:
        raise InputError(
            f"{name}: contains {len(encoding)} clips (shape {encoding.shape}) instead "
            "of one; save each as an array [frames, channels]."
        )
    wanted = encoding.shape[-1:] if num_channels is None else (num_channels,)
    if encoding.ndim != 2 or not encoding.size or encoding.shape[1:] != wanted:
        expected = (
            "an embedding has shape [frames, channels]"
            if num_channels is None
            else f"an embedding for these weights has shape [frames, {num_channels}]"
        )
        raise InputError(f"{name}: {expected}, not {list(encoding.shape)}.")
    if encoding.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected numbers, got {encoding.dtype}.")
    return _finite_float32(encoding, name)


def check_z(z: Any, num_latent: int, name: str = "z") -> np.ndarray:
    """Checks the baseline's embedding of one or several clips: [k, num_latent] float32.

    Args:
      z: [num_latent], [k, num_latent], or the network's [1, 1, num_latent], floats.
      num_latent: the model's.
      name: its name in errors.

    Raises:
      InputError: another shape or dtype, NaN or infinity.
    """
    array = np.asarray(z)
    good = array.ndim > 0 and array.size > 0 and array.shape[-1] == num_latent
    if not good or (array.ndim > 2 and array.size != num_latent):
        raise InputError(
            f"{name}: expected z of shape [{num_latent}] or [rows, {num_latent}], not "
            f"{list(array.shape)}; it is another model's, or not a z."
        )
    if array.dtype.kind != "f":
        raise InputError(f"{name}: expected floats, got {array.dtype}.")
    return _finite_float32(array.reshape(-1, num_latent), name)


def _finite_float32(array: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        values = array.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: contains NaN or infinite values.")
    return values


def check_finite(embedding: np.ndarray, name: str) -> None:
    """Raises InputError if an embedding contains NaN or infinity; before writing it.

    Args:
      embedding: any shape.
      name: the clip that was encoded, for the message.
    """
    if not np.isfinite(embedding).all():
        raise InputError(
            f"{name}: its embedding has NaN or infinite values and is not written; "
            "the weights or the mixed embeddings contain such, or very large values."
        )


def save_array(path: str, array: np.ndarray) -> None:
    """Writes an array as .npy; a reader never sees an incomplete file.

    Raises:
      InputError: the array contains NaN or infinity.
      OSError: it can't be written.
    """
    check_finite(array, path)
    with atomic_path(path) as temporary:
        # Errors of np.save itself do not state the reason.
        content = io.BytesIO()
        np.save(content, array)
        pathlib.Path(temporary).write_bytes(content.getbuffer())
