"""What a disk refuses, told in one line with advice."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from typing import IO

from absl import logging

from magenta_nsynth.errors import InputError
from magenta_nsynth.formatting import format_bytes

__all__ = [
    "CHUNK",
    "disk_errors",
    "lock",
    "locked_range",
    "only_writer",
    "open_locked",
    "remove",
    "remove_unlocked",
    "require_space",
]

CHUNK = 1 << 16  # bytes read and written at a time
_LOCK = ".writing.lock"  # in a folder that one program at a time writes to


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


def open_locked(path: str, in_use: str, patience: float = 0) -> int:
    """Opens a file, creates it where it is missing, and locks it until it is closed.

    Whoever holds it may rename or remove it; the next one then creates another.

    Args:
      path: of the file; a symbolic link is not followed.
      in_use: the message where another program, or another thread, holds it.
      patience: seconds to wait until nobody does.

    Returns:
      A file descriptor.

    Raises:
      InputError: `in_use`.
      OSError: it can't be opened, or there are no locks on this system or drive.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        raise OSError(errno.ENOSYS, "no locks on this system", path) from None
    end = time.monotonic() + patience
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(path, flags, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two calls it may have been removed, by who held it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.lstat(path)):
                    kept, handle = handle, -1
                    return kept
        except BlockingIOError:
            if time.monotonic() > end:
                raise InputError(in_use) from None
            time.sleep(0.02)
        except OSError:
            remove(path)  # where there are no locks nobody else uses it
            raise
        finally:
            if handle >= 0:
                os.close(handle)


@contextlib.contextmanager
def only_writer(
    folder: str, flag: str = "--save_path", patience: float = 0
) -> Iterator[None]:
    """Keeps other programs that ask for the same out of a folder, in the block.

    Args:
      folder: exists.
      flag: that named the folder, for the message.
      patience: seconds to wait for another program to end.

    Raises:
      InputError: another program is writing there.
    """
    path = os.path.join(folder, _LOCK)
    in_use = (
        f"{folder}: another program is writing there; wait for it, or give another "
        f"{flag}."
    )
    try:
        handle = open_locked(path, in_use, patience)
    except OSError as error:  # some network drives have no locks
        logging.info("%s: can't be locked (%s).", folder, error.strerror)
        yield
        return
    try:
        yield
    finally:
        remove(path)
        os.close(handle)


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


def remove_unlocked(*paths: str) -> None:
    """Removes those of the files that no other program has locked to write to them."""
    for path in paths:
        with contextlib.suppress(OSError, InputError):
            handle = open_locked(path, f"{path}: in use.")
            remove(path)
            os.close(handle)
