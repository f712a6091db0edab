"""Local copies of parts of a store's files, for libraries that read local files.

TensorFlow reads TFRecords and checkpoints from paths. A `Mirror` is a local file of the
same size, in which only the parts are that somebody asked for; the rest takes no room
on the disk. It is removed once nobody uses it, at the latest when the program ends:
TensorFlow lets go of nothing that a dataset called.
"""

import atexit
import functools
import itertools
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable

from magenta_nsynth.disk import open_locked, remove
from magenta_nsynth.errors import InputError
from magenta_nsynth.stores import remote

__all__ = ["Mirror", "Steps", "folder_beside", "mirror_of", "staging_folder"]

_BLOCK = 1 << 16  # bytes; what is requested starts and ends at multiples
_REQUEST = 8 << 20  # the most bytes of one request
_WINDOW = 8 << 10  # bytes around a guessed place
_MOST_AHEAD = 64  # windows requested at once
_AT_ONCE = 8  # requests side by side, so 64 MB in memory
_PREFIX = "magenta-nsynth-"
_LOCK = ".lock"


class Mirror:
    """A local file with the parts of a store's file that were asked for.

    Attributes:
      local: its path.
      size: its bytes, which are those of the store's file.
    """

    def __init__(self, path: str, found: remote.Info, local: str) -> None:
        """Creates the local file, with nothing in it.

        Args:
          path: the file in the store.
          found: what the store knows of it.
          local: the local file, which does not exist.
        """
        self._path, self.local = path, local
        self._lock = threading.Lock()
        if found.size is None or not found.has_ranges:
            with open(local, "wb") as file:
                remote.download(path, file)
            self.size = os.path.getsize(local)
            self._present = bytearray(b"\1" * self._blocks(self.size))
        else:
            with open(local, "wb") as file:
                file.truncate(found.size)
            self.size = found.size
            self._present = bytearray(self._blocks(self.size))

    def read(self, start: int, count: int) -> bytes:
        """Some bytes of the file, fewer at its end; as `fetch`."""
        with open(self.fetch([(start, start + count)]), "rb") as file:
            file.seek(start)
            return file.read(count)

    @staticmethod
    def _blocks(size: int) -> int:
        return -(-size // _BLOCK)

    def fetch(self, parts: Iterable[tuple[int, int]]) -> str:
        """Gets parts of the file that are not there yet.

        Args:
          parts: (first byte, byte after the last) of each; beyond the end is nothing.

        Returns:
          The local path.

        Raises:
          StoreError: the store can't be reached, or refuses it.
        """
        with self._lock:
            ranges = self._missing(parts)
            for k in range(0, len(ranges), _AT_ONCE):
                some = ranges[k : k + _AT_ONCE]
                with remote.kept_locally(self._path), open(self.local, "r+b") as file:
                    for (start, end), data in zip(
                        some, remote.read_ranges(self._path, some), strict=True
                    ):
                        file.seek(start)
                        file.write(data[: end - start])
                for start, end in some:
                    first, last = start // _BLOCK, self._blocks(end)
                    self._present[first:last] = b"\1" * (last - first)
        return self.local

    def fetch_all(self) -> str:
        """Gets the whole file; as `fetch`."""
        return self.fetch([(0, self.size)])

    def _missing(self, parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The ranges to request, in whole blocks; neighbours are joined."""
        wanted: set[int] = set()
        for start, end in parts:
            last = self._blocks(min(end, self.size))
            blocks = range(max(0, start) // _BLOCK, last)
            wanted.update(b for b in blocks if not self._present[b])
        ranges: list[tuple[int, int]] = []
        for block in sorted(wanted):
            start, end = block * _BLOCK, min((block + 1) * _BLOCK, self.size)
            if ranges and ranges[-1][1] == start and end - ranges[-1][0] <= _REQUEST:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((start, end))
        return ranges


class Steps:
    """Reads a few bytes here and there, at growing places some steps apart.

    The next places are guessed from the steps so far, and windows around several of
    them are requested side by side.
    """

    def __init__(self, path: str, size: int) -> None:
        """Takes a store's file, and its size."""
        self._path, self._size = path, size
        self._windows: list[tuple[int, bytes]] = []
        self._last, self._ahead = 0, 1

    def read(self, start: int, count: int) -> bytes:
        """The bytes at a place, fewer at the file's end."""
        count = max(0, min(count, self._size - start))
        if count > _WINDOW // 2:
            return remote.read(self._path, start, start + count)
        if not (found := self._known(start, count)):
            is_guessed = bool(self._windows) and start < self._windows[-1][0]
            self._ahead = 1 if is_guessed else min(2 * self._ahead, _MOST_AHEAD)
            step = max(start - self._last, _WINDOW)
            middles = [start + k * step for k in range(self._ahead)]
            ranges = [
                (max(0, m - _WINDOW // 2), min(m + _WINDOW // 2, self._size))
                for m in middles
                if m < self._size
            ]
            pieces = remote.read_ranges(self._path, ranges)
            starts = (first for first, _ in ranges)
            self._windows = list(zip(starts, pieces, strict=True))
            found = self._known(start, count)
        self._last = start
        return found

    def _known(self, start: int, count: int) -> bytes:
        for first, data in self._windows:
            if first <= start and start + count <= first + len(data):
                return data[start - first : start - first + count]
        return b""


@functools.cache
def staging_folder() -> str:
    """A local folder of this process, which is removed when it ends.

    It is in the system's folder for temporary files (TMPDIR). Folders of programs that
    were killed are removed.
    """
    parent = tempfile.gettempdir()
    for name in os.listdir(parent):
        lock = os.path.join(parent, name, _LOCK)
        if name.startswith(_PREFIX) and os.path.exists(lock):
            try:
                with open_locked(lock, f"{lock}: in use.", needed=True):
                    shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
            except (OSError, InputError):  # in use, or another user's
                continue
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    # Held open, and so locked, as long as the process lives.
    file = open_locked(os.path.join(folder, _LOCK), f"{folder}: in use.")

    def end() -> None:
        file.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return folder


def folder_beside(folder: str) -> str:
    """Where to write what then moves to a folder: there, or if in a store, elsewhere.

    Args:
      folder: the folder.
    """
    return staging_folder() if remote.is_remote(folder) else folder


# Those in use, by path and the store's mark of the content.
_mirrors: weakref.WeakValueDictionary[tuple[str, str], Mirror]
_mirrors = weakref.WeakValueDictionary()
_numbers = itertools.count()
_making = threading.Lock()


def mirror_of(path: str) -> Mirror:
    """The mirror of a store's file as it is now; shared by all who use the same one.

    Raises:
      FileNotFoundError: the store has no such file.
    """
    found = remote.file_info(path)
    with _making:
        mirror = _mirrors.get((path, found.stamp))
        if mirror is None:
            local = os.path.join(staging_folder(), f"{next(_numbers):06}")
            mirror = _mirrors[path, found.stamp] = Mirror(path, found, local)
            weakref.finalize(mirror, remove, local)
        return mirror
