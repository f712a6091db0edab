"""Importing TensorFlow without the plotting library that it imports if it can."""

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["without_matplotlib"]


@contextlib.contextmanager
def without_matplotlib() -> Iterator[None]:
    """Prevents the import of matplotlib in the block, unless it is imported already.

    TensorFlow imports Keras, which imports pyplot if it can, for its own visualization.
    That takes half a second, and fails if MPLBACKEND names a backend that is not
    installed. (To use `keras.visualization`, import Keras first.)
    """
    if "matplotlib" in sys.modules:
        yield
        return
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["matplotlib"]
