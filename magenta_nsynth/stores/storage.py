"""Files and folders by path, on a disk or in an object store.

These functions are those of os and os.path of the same names, for paths of both kinds.
A path of a disk goes straight to them. In a store a folder exists as soon as a file is
below it, so none has to be made. `look` is how the store is asked: `remote.listing()`
saves requests where many files are asked for.
"""

import glob as local_glob
import os
import posixpath
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeGuard, cast

from magenta_nsynth.errors import InputError
from magenta_nsynth.stores import remote
from magenta_nsynth.stores.remote import is_remote

__all__ = [
    "abspath",
    "exists",
    "from_url",
    "getmtime",
    "getsize",
    "glob",
    "is_remote",
    "isdir",
    "isfile",
    "join",
    "lexists",
    "listdir",
    "makedirs",
    "open_binary",
    "realpath",
    "resolve",
    "stamp",
    "subfolders",
    "unlink",
    "walk",
]

_Path = str | os.PathLike


def exists(path: _Path, look: remote.Look = remote.info) -> bool:
    """Whether there is a file or folder."""
    return look(path) is not None if _there(path) else os.path.exists(path)


def lexists(path: _Path) -> bool:
    """As `exists`; also for a link to nothing."""
    return remote.info(path) is not None if _there(path) else os.path.lexists(path)


def isfile(path: _Path, look: remote.Look = remote.info) -> bool:
    """Whether there is a file."""
    if not _there(path):
        return os.path.isfile(path)
    found = look(path)
    return found is not None and not found.is_folder


def isdir(path: _Path) -> bool:
    """Whether there is a folder; never on a web server."""
    if not _there(path):
        return os.path.isdir(path)
    found = None if remote.is_web(path) else remote.info(path)
    return found is not None and found.is_folder


def _there(path: _Path) -> TypeGuard[str]:
    return is_remote(path)


def getsize(path: _Path, look: remote.Look = remote.info) -> int:
    """The bytes of a file; 0 if a web server does not tell."""
    if _there(path):
        return remote.file_info(path, look).size or 0
    return os.path.getsize(path)


def getmtime(path: _Path) -> float:
    """When a file was written, in seconds since 1970."""
    return remote.file_info(path).time if _there(path) else os.path.getmtime(path)


def stamp(path: _Path, look: remote.Look = remote.info) -> str:
    """A file's size and date, or a store's mark of its content.

    Raises:
      OSError: there is no such file.
    """
    if _there(path):
        return remote.file_info(path, look).stamp
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns}"


def listdir(path: _Path) -> list[str]:
    """The names of a folder's files and folders."""
    return list(remote.list_folder(path)) if _there(path) else os.listdir(path)


def subfolders(path: _Path) -> list[str]:
    """The paths of a folder's folders, sorted by name."""
    if _there(path):
        found = remote.list_folder(path)
        return [join(path, name) for name in found if found[name].is_folder]
    with os.scandir(os.fspath(path)) as entries:
        return sorted(entry.path for entry in entries if entry.is_dir())


def walk(
    path: str, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk: the caller may remove folders from the list, or order it."""
    if not is_remote(path):
        yield from os.walk(path, onerror=onerror)
        return
    found = remote.list_folder(path)
    folders = [name for name in found if found[name].is_folder]
    yield path, folders, [name for name in found if not found[name].is_folder]
    for name in folders:
        yield from walk(join(path, name), onerror)


def glob(pattern: str) -> list[str]:
    """The paths that match a pattern, in which "**" is any number of folders."""
    if is_remote(pattern):
        return remote.glob_files(pattern)
    return local_glob.glob(pattern, recursive=True)


def join(path: str, *names: str) -> str:
    """A path below a folder; "/" separates the names of a URL on every system."""
    if any(map(is_remote, names)):
        return join(*names[max(i for i, n in enumerate(names) if is_remote(n)) :])
    if not is_remote(path):
        return os.path.join(path, *names)
    return "/".join([path, *(name.replace(os.sep, "/") for name in names if name)])


def from_url(url: str) -> str:
    """A URL as a path: as `remote.clean`, and the local path of file://.

    Raises:
      InputError: as of `remote.clean`; or file:// with another machine's name.
    """
    if not url.lower().startswith("file://"):
        return remote.clean(url)
    host, slash, rest = url[len("file://") :].partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        raise InputError(f"{url}: names no path of this machine; give file:///path.")
    # People type "#" and "?" where a URL would have %23 and %3F.
    return urllib.request.url2pathname(slash + rest)


def resolve(folder: str, name: str) -> str:
    """The path of what a file in `folder` names: a relative path, another, or a URL.

    In a store ".." is resolved, as it would be a part of the key.

    Raises:
      InputError: as of `from_url`.
    """
    if is_remote(name):
        return from_url(name)
    if not is_remote(folder) or os.path.isabs(name):
        return os.path.join(folder, name)
    scheme, _, rest = folder.partition("://")
    root, _, key = f"{rest}/{name.replace(os.sep, '/')}".partition("/")
    return f"{scheme}://{root}{posixpath.normpath('/' + key)}"


def realpath(path: _Path) -> str:
    """One path for each file, however it was reached."""
    return path if _there(path) else os.path.realpath(path)


def abspath(path: _Path) -> str:
    """A path that does not depend on the current folder."""
    return path if _there(path) else os.path.abspath(path)


def makedirs(path: _Path) -> None:
    """Creates a folder, unless it exists or is in a store."""
    if not _there(path):
        os.makedirs(path, exist_ok=True)


def unlink(path: _Path) -> None:
    """Removes a file; on a disk it is an error if there is none."""
    if _there(path):
        remote.delete(path)
    else:
        os.unlink(path)


def open_binary(path: _Path) -> BinaryIO:
    """Opens a file for reading; that of a store is downloaded, to a nameless file.

    Raises:
      OSError: it can't be opened.
    """
    if not _there(path):
        return open(path, "rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        remote.download(path, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)
