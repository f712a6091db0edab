"""Reading, checking and writing .npy files of embeddings."""

import io
import pathlib
from typing import Any

import numpy as np

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, open_file

__all__ = ["check_encoding", "check_finite", "check_z", "load_array", "save_array"]


def load_array(path: str, in_memory: bool = True) -> np.ndarray:
    """The array of a .npy file.

    Args:
      path: the file.
      in_memory: False leaves it on the disk; parts of it are read when used.

    Raises:
      InputError: it can't be read, or is no such file.
    """
    try:
        with open_file(path):  # what is no file is refused before NumPy waits for it
            return np.load(path, None if in_memory else "r", allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: can't be read ({reason}).") from None
    except Exception as error:  # a damaged header brings up half of Python's errors
        reason = (str(error).splitlines() or [""])[0][:100]
        raise InputError(
            f"{path}: not a .npy array, or damaged ({reason}); save it again with "
            "np.save."
        ) from None


def check_encoding(
    encoding: np.ndarray, num_channels: int | None, name: str = "the encoding"
) -> np.ndarray:
    """One clip's embedding as [frames, bottleneck] float32.

    Args:
      encoding: [frames, bottleneck] or [1, frames, bottleneck], any float dtype.
      num_channels: the bottleneck width of the decoder; None takes any.
      name: what an error calls it.

    Raises:
      InputError: another shape, no frames, no numbers, NaN or infinity.
    """
    encoding = np.asarray(encoding)
    if encoding.ndim == 3 and len(encoding) == 1:
        encoding = encoding[0]
    if encoding.ndim == 3:
        raise InputError(
            f"{name}: holds {len(encoding)} clips (shape {encoding.shape}), and one "
            "sound comes from one; save each as an array [frames, channels]."
        )
    wanted = encoding.shape[-1:] if num_channels is None else (num_channels,)
    if encoding.ndim != 2 or not encoding.size or encoding.shape[1:] != wanted:
        expected = (
            "an embedding has shape [frames, channels]"
            if num_channels is None
            else f"an embedding for these weights has shape [frames, {num_channels}]"
        )
        raise InputError(f"{name}: {expected}, not {list(encoding.shape)}.")
    is_number = encoding.dtype.kind in "fiu"
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and is refused
        values = encoding.astype(np.float32) if is_number else encoding
    if not is_number or not np.isfinite(values).all():
        raise InputError(
            f"{name}: holds values that are no finite numbers (dtype {encoding.dtype})."
        )
    return values


def check_z(z: Any, num_latent: int, name: str = "z") -> np.ndarray:
    """A code as [k, num_latent] float32.

    Args:
      z: [num_latent], [k, num_latent], or [1, 1, num_latent] as the network has it.
      num_latent: the model's.
      name: what to call it in messages, as a rule its file.

    Raises:
      InputError: another shape or dtype, or values that aren't finite.
    """
    array = np.asarray(z)
    good = array.ndim > 0 and array.size > 0 and array.shape[-1] == num_latent
    if not good or (array.ndim > 2 and array.size != num_latent):
        raise InputError(
            f"{name}: expected z of shape [{num_latent}] or [rows, {num_latent}], not "
            f"{list(array.shape)}; it is of another model, or no z."
        )
    rows = array.reshape(-1, num_latent)
    if array.dtype.kind != "f":
        raise InputError(f"{name}: expected floats, got {array.dtype}.")
    if not np.isfinite(rows).all():
        raise InputError(f"{name}: holds NaN or infinite values.")
    return rows.astype(np.float32, copy=False)


def check_finite(embedding: np.ndarray, name: str) -> None:
    """Raises InputError, before it is written, if an embedding isn't all numbers.

    Args:
      embedding: any shape.
      name: of what it was made of.
    """
    if not np.isfinite(embedding).all():
        raise InputError(
            f"{name}: its embedding has NaN or infinite values and is not written; "
            "the weights or what was mixed hold such, or values near the largest."
        )


def save_array(path: str, array: np.ndarray) -> None:
    """Writes an array as .npy; a reader never sees it half-written.

    Raises:
      InputError: it holds NaN or infinity.
      OSError: it can't be written.
    """
    check_finite(array, path)
    with atomic_path(path) as temporary:
        # np.save's own way to a file does not say why it failed.
        content = io.BytesIO()
        np.save(content, array)
        pathlib.Path(temporary).write_bytes(content.getbuffer())
