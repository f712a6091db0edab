"""Importing TensorFlow: quietly, without matplotlib, and with a NumPy that fits it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from magenta_nsynth.errors import InstallationError

__all__ = ["set_log_level", "tensorflow_import"]

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_SILENT = "3"
_WAS_UNSET = _LEVEL not in os.environ


def set_log_level(verbose: bool = False) -> None:
    """Sets the least severe messages of TensorFlow's C++ code, unless the user did.

    Without this it reports its devices at every start, and as errors what isn't one.
    Errors that matter become Python exceptions. It is called when the package is
    imported, before TensorFlow can be.

    Args:
      verbose: shows all messages instead of none.
    """
    if _WAS_UNSET:
        os.environ[_LEVEL] = "0" if verbose else _SILENT


@contextlib.contextmanager
def tensorflow_import() -> Iterator[Callable[[], None]]:
    """A block that may import TensorFlow.

    In the block matplotlib can't be imported, unless it is already: Keras imports
    pyplot if it can, for its own visualization, which takes half a second and fails if
    MPLBACKEND names a backend that is not installed. (To use `keras.visualization`,
    import Keras first.) Standard error is discarded if TensorFlow's messages are:
    since 2.18 its C++ code writes some before it reads the level.

    Yields:
      A function that restores standard error, for messages in the block.

    Raises:
      InstallationError: the installed NumPy is too new for the installed TensorFlow.
    """
    if "tensorflow" in sys.modules:
        yield lambda: None
        return
    _check_numpy()
    with _without_matplotlib(), _silence(os.environ.get(_LEVEL) == _SILENT) as restore:
        yield restore


def _check_numpy() -> None:
    """Raises InstallationError for NumPy 2 beside a TensorFlow built for NumPy 1."""
    numpy, tensorflow = _version("numpy"), _version("tensorflow")
    if numpy >= (2,) and () < tensorflow < (2, 18):
        found = ".".join(map(str, numpy))
        raise InstallationError(
            f"NumPy {found} is installed, and TensorFlow "
            f"{'.'.join(map(str, tensorflow))} needs NumPy 1: run pip install "
            "'numpy<2', and give the package that replaced it in the same command, "
            "such as 'pandas<3'."
        )


def _version(package: str) -> tuple[int, ...]:
    """The first two numbers of an installed package's version; () if unknown."""
    from importlib import metadata  # takes longer than the rest of this package

    try:
        words = metadata.version(package).split(".")[:2]
    except metadata.PackageNotFoundError:  # installed under another name
        return ()
    return tuple(int(word) for word in words)


@contextlib.contextmanager
def _without_matplotlib() -> Iterator[None]:
    if "matplotlib" in sys.modules:
        yield
        return
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["matplotlib"]


@contextlib.contextmanager
def _silence(silent: bool) -> Iterator[Callable[[], None]]:
    """Discards standard error in the block; yields a function that restores it."""
    if not silent or sys.stderr is None:
        yield lambda: None
        return
    kept = os.dup(2)

    def restore() -> None:
        os.dup2(kept, 2)

    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield restore
    finally:
        restore()
        os.close(kept)
