"""Tar archives, which may be damaged or malicious."""

import contextlib
import gzip
import io
import itertools
import os
import pathlib
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from magenta_nsynth.disk import CHUNK, disk_errors, require_space
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import atomic_path, open_file
from magenta_nsynth.progress import Progress

__all__ = ["is_archive", "read_members", "unpack"]

# The headers of one member, which tarfile reads into memory: a path of 4 kB, with
# room for the extended attributes that macOS adds.
_MOST_HEADER_BYTES = 1 << 16
_MOST_MEMBERS = 1_000_000  # the train split's archive of WAV files has 289,207
_UNPACK_ADVICE = (
    "remove and download it again, or unpack it yourself and pass the folder"
)
_File = io.BufferedIOBase | BinaryIO


def unpack(archive: str, folder: str) -> list[str]:
    """Unpacks a .tar or .tar.gz archive into `folder`.

    The whole archive is read and checked before anything is written. Each file appears
    only when it is complete, with the permissions of any new file, and replaces one of
    the same name. Folders without files and what macOS adds ("._name") are left out.

    Args:
      archive: the file; its content tells its kind, not its name.
      folder: where to unpack; created if missing.

    Returns:
      The files' paths, in the archive's order.

    Raises:
      InputError: not an archive or a damaged one, a member that is neither a file nor
        a folder or would land outside `folder`, or the disk refuses.
    """
    total = sum(member.size for member, _ in _files(archive, folder))
    with disk_errors(folder):
        os.makedirs(folder, exist_ok=True)
        require_space(os.path.join(folder, "."), total)
    with Progress(total, "B", f"unpacking {os.path.basename(archive)}") as progress:
        paths = [
            _write(member, content, folder, progress)
            for member, content in _files(archive, folder)
        ]
    return list(dict.fromkeys(paths))


def is_archive(path: str) -> bool:
    """Whether a file begins as a .tar or .tar.gz archive does."""
    try:
        next(read_members(path), None)
    except InputError:
        return False
    return True


def read_members(
    archive: str, advice: str = _UNPACK_ADVICE
) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Reads a .tar or .tar.gz archive once, from beginning to end.

    In memory are the headers of one member and one piece of its content at a time.

    Args:
      archive: the file.
      advice: what to do about a damaged one.

    Yields:
      Each member and its content in pieces, which can be read until the next member is
      asked for. An archive that was read to the end is whole.

    Raises:
      InputError: not an archive, a damaged one, or one with sparse files.
    """
    with _damage(archive, advice), _open(archive) as file:
        for member in _members(file, archive):
            yield member, _content(file, member, archive, advice)


@contextlib.contextmanager
def _damage(archive: str, advice: str) -> Iterator[None]:
    """Turns what reading a damaged archive raises into one line."""
    try:
        yield
    except NSynthError:
        raise
    # The last four: what tarfile lets through if a header's numbers are malformed.
    except (
        *(EOFError, OSError, tarfile.TarError, zlib.error),
        *(ArithmeticError, LookupError, RecursionError, ValueError),
    ) as error:
        what = f" ({' '.join(str(error).split())[:80]})" if str(error) else ""
        reason = getattr(error, "strerror", None) or f"damaged or cut off{what}"
        raise InputError(f"{archive}: {reason}; {advice}.") from None


@contextlib.contextmanager
def _open(archive: str) -> Iterator[_File]:
    """Opens an archive and decompresses it if it is compressed."""
    with open_file(archive) as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        # tarfile's own decompression does not compare the checksum.
        with gzip.GzipFile(fileobj=file) if zipped else file as unzipped:
            yield unzipped


def _members(file: _File, archive: str) -> Iterator[tarfile.TarInfo]:
    metered = _Metered(file)
    try:
        tar = tarfile.open(fileobj=cast(BinaryIO, metered), mode="r:")  # noqa: SIM115
    except tarfile.ReadError:
        raise InputError(
            f"{archive}: not a .tar or .tar.gz archive; remove and download it again."
        ) from None
    for number in itertools.count(1):
        metered.left = _MOST_HEADER_BYTES
        member = tar.next()
        if member is None:
            break
        if number > _MOST_MEMBERS:
            raise InputError(f"{archive}: has more than {_MOST_MEMBERS} members.")
        # Both would grow with every member.
        tar.members = []  # type: ignore[attr-defined]
        tar.pax_headers = {}
        # A sparse file of 2.5 kB can announce any size.
        if member.issparse() or member.size < 0:
            raise InputError(
                f"{archive}: member {member.name!r} is a sparse file or has no valid "
                "size; pack it without --sparse."
            )
        yield member
    # If an archive is cut off between two members, tarfile takes it for a whole one,
    # which ends with blocks of zeros.
    if metered.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")
    while file.read(CHUNK):  # up to a compressed file's checksum
        pass


class _Metered:
    """A file for tarfile that gives no more than is allowed for one member's headers.

    tarfile reads an extended header of any announced size into memory, and any number
    of them one after the other.
    """

    def __init__(self, file: _File) -> None:
        self._file = file
        self.left = _MOST_HEADER_BYTES
        self.last = b""  # the bytes read last
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.TarError(f"headers of more than {_MOST_HEADER_BYTES} bytes")
        self.left -= size
        self.last = self._file.read(size)
        return self.last


def _content(
    file: _File, member: tarfile.TarInfo, archive: str, advice: str
) -> Iterator[bytes]:
    left = member.size if member.isreg() else 0
    with _damage(archive, advice):
        file.seek(member.offset_data)
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise EOFError
            left -= len(chunk)
            yield chunk


def _files(
    archive: str, folder: str
) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """The files to write; raises an InputError for a member that must not be."""
    for member, content in read_members(archive):
        if os.path.basename(member.name.rstrip("/")).startswith("._"):
            continue
        problem = _problem(member, folder)
        if problem:
            raise InputError(
                f"{archive}: member {member.name!r} {problem}; nothing was unpacked. "
                "Is the archive from where you think it is?"
            )
        if member.isreg():
            yield member, content


def _problem(member: tarfile.TarInfo, folder: str) -> str | None:
    """Why a member must not be unpacked; None if it may be.

    Stricter than tarfile's data filter, which lets links pass, removes a leading slash
    and knows Windows' paths on Windows alone. Python 3.11.2 has no such filter.
    """
    if not (member.isreg() or member.isdir()):
        return "is a link or a device, not a file or folder"
    # As Windows reads a path, it knows both kinds of slashes, and drives.
    path = pathlib.PureWindowsPath(member.name)
    if path.anchor or ".." in path.parts or "\0" in member.name:
        return "would land outside the folder"
    if member.isreg() and not path.parts:
        return "has no name"
    # A link that was in the folder before can lead outside as well.
    parent = os.path.realpath(os.path.join(folder, os.path.dirname(member.name)))
    root = os.path.realpath(folder)
    if os.path.commonpath([root, parent]) != root:
        return "would land outside the folder, through a link in it"
    return None


def _write(
    member: tarfile.TarInfo, content: Iterator[bytes], folder: str, progress: Progress
) -> str:
    path = os.path.join(folder, *pathlib.PurePosixPath(member.name).parts)
    with (
        disk_errors(path),
        atomic_path(path) as temporary,
        open(temporary, "wb") as target,
    ):
        for chunk in content:
            target.write(chunk)
            progress.advance(len(chunk))
    return path
