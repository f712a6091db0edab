"""Disk errors turned into one line with advice, and locks between programs."""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from typing import IO, BinaryIO

from absl import logging

from magenta_nsynth.errors import InputError
from magenta_nsynth.formatting import format_bytes
from magenta_nsynth.stores import remote, storage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CHUNK",
    "check_claims",
    "claimed",
    "disk_errors",
    "lock_file",
    "locked_range",
    "only_writer",
    "open_locked",
    "remove",
    "remove_unlocked",
    "require_space",
]

CHUNK = 1 << 16  # bytes read and written at a time
_LOCK = ".writing.lock"  # in a folder that only one program may write to


@contextlib.contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turns an OSError in the block into an InputError with advice.

    Args:
      path: the file to name if the error does not name one.
    """
    try:
        yield
    except OSError as error:
        name = error.filename2 or error.filename or path
        advice = "choose another folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space and run again; finished files are kept"
        raise InputError(f"{name}: {error.strerror or error}; {advice}.") from None


def require_space(path: str, num_bytes: int) -> None:
    """Raises InputError unless the disk that holds `path` has `num_bytes` free."""
    free = shutil.disk_usage(os.path.dirname(path) or ".").free
    if num_bytes > free:
        raise InputError(
            f"{path}: needs {format_bytes(num_bytes)}, but only {format_bytes(free)} "
            "are free; free some space or choose another folder."
        )


def open_locked(
    path: str, in_use: str, patience: float = 0, needed: bool = False
) -> BinaryIO:
    """Opens a file, created if missing, and locks it until it is closed.

    The holder of the lock may rename or remove the file; the next program then creates
    a new one.

    Args:
      path: the file; a symbolic link is not followed.
      in_use: the message if another program or thread holds the lock.
      patience: seconds to wait for the lock.
      needed: whether it is an error if the system or drive has no locks. Otherwise the
        file is then opened without one.

    Returns:
      The file, at its beginning, for reading and writing.

    Raises:
      InputError: the lock is held; with `in_use` as the message.
      OSError: the file can't be opened, or locks are needed and not supported.
    """
    end = time.monotonic() + patience
    while True:
        file = open(path, "r+b", opener=_open_or_create)  # noqa: SIM115
        try:
            is_locked = _try_lock(file)
            # The last holder may have removed or renamed the file since it was opened.
            if is_locked and _is_at(path, file):
                return file
        except OSError as error:
            if not needed:
                logging.info("%s: can't be locked (%s).", path, error.strerror)
                return file
            file.close()
            remove(path)  # without locks no other program holds it
            raise
        except BaseException:  # Ctrl-C: the traceback would hold it open, and locked
            file.close()
            raise
        file.close()
        if not is_locked:
            if time.monotonic() > end:
                raise InputError(in_use)
            time.sleep(0.02)


def _open_or_create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _try_lock(file: BinaryIO) -> bool:
    """Tries to lock a file; raises OSError if locks are not supported."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: str, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def only_writer(
    folder: str, flag: str = "--save_path", patience: float = 0
) -> Iterator[None]:
    """Locks a folder in the block, against other programs that do the same.

    A store has no locks. There the program that comes last may write, and the one
    before ends with an error when it next writes.

    Args:
      folder: an existing folder.
      flag: the flag that named the folder, for the message.
      patience: seconds to wait for another program to finish.

    Raises:
      InputError: another program is writing there.
    """
    if storage.is_remote(folder):
        with claimed(folder, flag):
            yield
        return
    path = os.path.join(folder, _LOCK)
    in_use = (
        f"{folder}: another program is writing there; wait for it, or use another "
        f"{flag}."
    )
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no locks, or a read-only folder
            stack.enter_context(open_locked(path, in_use, patience, needed=True))
            stack.callback(remove, path)
        yield


_claims: dict[str, tuple[bytes, str]] = {}  # by folder: this program's mark, the flag


@contextlib.contextmanager
def claimed(folder: str, flag: str) -> Iterator[None]:
    """Claims a store's folder in the block, from any program that did so before.

    A program that is killed leaves a claim that hinders nobody.

    Args:
      folder: the folder.
      flag: the flag that named it, for the message.
    """
    mark = secrets.token_hex(16).encode()
    remote.put(storage.join(folder, _LOCK), mark)
    _claims[folder] = mark, flag
    try:
        yield
        check_claims(storage.join(folder, _LOCK))
        remote.delete(storage.join(folder, _LOCK))
    finally:
        del _claims[folder]


def check_claims(path: str) -> None:
    """Raises InputError if another program has claimed a folder above, since we did.

    Args:
      path: the file to be written.
    """
    for folder, (mark, flag) in list(_claims.items()):
        if not path.startswith(f"{folder}/"):
            continue
        try:
            found = remote.read(storage.join(folder, _LOCK))
        except FileNotFoundError:  # that program has finished
            found = b""
        if found != mark:
            raise InputError(
                f"{folder}: another program has begun to write there; wait for it, or "
                f"use another {flag}."
            )


@contextlib.contextmanager
def lock_file(path: str) -> Iterator[IO[bytes] | None]:
    """Opens a file for `locked_range` in the block, created if missing.

    Closing it ends all locks of this process in it, so it is opened once.

    Args:
      path: the file.

    Yields:
      The file; None in a store, which has no locks: whoever writes there must write
      the same bytes.

    Raises:
      InputError: it can't be opened, or the block raises an OSError.
    """
    if storage.is_remote(path):
        yield None
        return
    with disk_errors(path), open(path, "ab") as file:
        yield file


@contextlib.contextmanager
def locked_range(
    file: IO[bytes] | None, first: int, count: int, in_use: str = ""
) -> Iterator[None]:
    """Locks a range of an open file in the block, if locks are supported.

    Programs that lock different ranges do not hinder each other. Two threads of one
    process never do.

    Args:
      file: from `lock_file`.
      first: the first byte, which need not exist.
      count: the number of bytes, at least 1.
      in_use: the message if another program holds a lock in the range; "" waits
        for it.

    Raises:
      InputError: a lock is held; with `in_use` as the message.
    """
    if fcntl is None or file is None:
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
    """Removes files; those that can't be removed stay."""
    for path in paths:
        with contextlib.suppress(OSError):
            storage.unlink(path)


def remove_unlocked(*paths: str) -> None:
    """Removes files, except those that another program has locked."""
    for path in paths:
        if storage.is_remote(path):
            remove(path)
            continue
        with (
            contextlib.suppress(OSError, InputError),
            open_locked(path, f"{path}: in use.", needed=True),
        ):
            remove(path)
