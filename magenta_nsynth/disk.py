"""What a disk refuses, told in one line with advice."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from typing import IO

from absl import logging

from magenta_nsynth.errors import InputError
from magenta_nsynth.formatting import format_bytes

__all__ = ["CHUNK", "disk_errors", "lock", "locked_range", "remove", "require_space"]

CHUNK = 1 << 16  # bytes read and written at a time


@contextlib.contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turns what the operating system refuses into one line with advice."""
    try:
        yield
    except OSError as error:
        name = error.filename2 or error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "make room and run again; what is there is kept"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            advice = "choose a folder that you may write to"
        else:
            advice = "choose another folder"
        raise InputError(f"{name}: {error.strerror or error}; {advice}.") from error


def require_space(path: str, num_bytes: int) -> None:
    """Raises InputError unless `num_bytes` more fit beside `path`."""
    free = shutil.disk_usage(os.path.dirname(path) or ".").free
    if num_bytes > free:
        raise InputError(
            f"{path}: {format_bytes(num_bytes)} are needed and {format_bytes(free)} "
            "are free; make room or choose another folder."
        )


def lock(file: IO, in_use: str) -> None:
    """Locks an open file until it is closed, where the system knows locks.

    Raises:
      InputError: another program holds the lock; `in_use` is the message.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(in_use) from None
    except OSError as error:  # some network drives have no locks
        logging.info("%s: can't be locked (%s).", file.name, error.strerror)


@contextlib.contextmanager
def locked_range(file: IO, first: int, count: int, in_use: str = "") -> Iterator[None]:
    """Holds a part of an open file locked in the block, where the system knows locks.

    Programs that lock different parts don't hinder each other. (Nor do two of one
    process, whatever they lock.)

    Args:
      file: open for writing; may be empty.
      first: the first byte, which need not exist.
      count: how many bytes; at least 1.
      in_use: the message where another program holds a lock on one of them; "" waits
        until it holds none.

    Raises:
      InputError: `in_use`.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        yield
        return
    try:
        at_once = fcntl.LOCK_NB if in_use else 0
        fcntl.lockf(file, fcntl.LOCK_EX | at_once, count, first)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError(in_use) from None
        logging.info("%s: can't be locked (%s).", file.name, error.strerror)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN, count, first)


def remove(*paths: str) -> None:
    """Removes those of the files that can be removed."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
