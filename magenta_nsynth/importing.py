"""Importing TensorFlow without what it brings along for drawing."""

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["without_matplotlib"]


@contextlib.contextmanager
def without_matplotlib() -> Iterator[None]:
    """Matplotlib can't be imported in the block, unless it was before.

    Keras imports pyplot where it can, for its own galleries of pictures, and TensorFlow
    imports Keras. That takes half a second, and fails where MPLBACKEND names a backend
    that isn't installed. (Who needs `keras.visualization` imports Keras first.)
    """
    if "matplotlib" in sys.modules:
        yield
        return
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["matplotlib"]
