"""Reading .npy files of embeddings."""

import numpy as np

from magenta_nsynth.errors import InputError

__all__ = ["load_array"]


def load_array(path: str, in_memory: bool = True) -> np.ndarray:
    """The array of a .npy file.

    Args:
      path: the file.
      in_memory: False leaves it on the disk; parts of it are read when used.

    Raises:
      InputError: it can't be read, or is no such file.
    """
    try:
        return np.load(path, None if in_memory else "r", allow_pickle=False)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: can't be read ({reason}).") from None
    except Exception as error:  # a damaged header brings up half of Python's errors
        reason = (str(error).splitlines() or [""])[0][:100]
        raise InputError(
            f"{path}: not a .npy array, or damaged ({reason}); save it again with "
            "np.save."
        ) from None
