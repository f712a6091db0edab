"""Unpacking tar archives, which are not trusted to be whole or well-meant."""

import os
import pathlib
import tarfile
import zlib

from magenta_nsynth.disk import CHUNK, disk_errors, require_space
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, expand
from magenta_nsynth.progress import Progress

__all__ = ["unpack"]


def unpack(archive: str | os.PathLike, folder: str | os.PathLike) -> list[str]:
    """Unpacks a .tar or .tar.gz archive into `folder`.

    The archive is read through and checked before anything is written. Each file
    appears only when it is whole, with the rights that any new file gets; one of the
    same name is replaced. Left out are folders without files, and what macOS adds
    ("._name").

    Args:
      archive: the file; what it is shows in its content, not its name.
      folder: where to unpack; created where it is missing.

    Returns:
      The files' paths, in the archive's order.

    Raises:
      InputError: no archive or a damaged one, a member that is neither file nor
        folder or would land outside `folder`, or the disk refuses.
    """
    archive, folder = expand(archive), expand(folder)
    advice = "remove and download it again, or unpack it yourself and pass the folder"
    try:
        with _open_tar(archive) as tar:
            members = _checked_members(tar, archive, folder)
            with disk_errors(folder):
                os.makedirs(folder, exist_ok=True)
                total = sum(member.size for member in members)
                require_space(os.path.join(folder, "."), total)
            label = f"unpacking {os.path.basename(archive)}"
            with Progress(total, "B", label) as progress:
                paths = [_write(tar, member, folder, progress) for member in members]
    except (EOFError, tarfile.TarError, zlib.error):
        raise InputError(f"{archive}: damaged or cut off; {advice}.") from None
    except OSError as error:  # of reading; those of writing are InputErrors by now
        reason = error.strerror or "damaged"
        raise InputError(f"{archive}: {reason}; {advice}.") from None
    return list(dict.fromkeys(paths))


def _open_tar(archive: str) -> tarfile.TarFile:
    with open(archive, "rb") as file:
        beginning = file.read(256)
    zipped = beginning.startswith(b"\x1f\x8b")
    try:
        return tarfile.open(archive, "r:gz" if zipped else "r:")
    except tarfile.ReadError:
        page = beginning.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
        kind = "a web page" if page else "something else" if beginning else "empty"
        raise InputError(
            f"{archive}: not a .tar or .tar.gz archive but {kind}; remove and download "
            "it again."
        ) from None


def _checked_members(
    tar: tarfile.TarFile, archive: str, folder: str
) -> list[tarfile.TarInfo]:
    """The members to write, after reading all of the archive's headers."""
    members = []
    for member in tar:
        name = member.name
        if os.path.basename(name.rstrip("/")).startswith("._"):
            continue
        problem = _problem(member, folder)
        if problem:
            raise InputError(
                f"{archive}: member {name!r} {problem}; nothing was unpacked. "
                "Is the archive from where you think it is?"
            )
        if member.isreg():
            members.append(member)
    # tarfile takes a broken-off archive for a finished one where the break falls
    # between two members; a whole one ends with blocks of zeros.
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")
    while tar.fileobj.read(CHUNK):  # to a compressed file's checksum
        pass
    return members


def _problem(member: tarfile.TarInfo, folder: str) -> str | None:
    if not (member.isreg() or member.isdir()):
        return "is a link or a device, not a file or folder"
    # Windows' reading of a path knows both kinds of slashes, and drives.
    path = pathlib.PureWindowsPath(member.name)
    if path.anchor or ".." in path.parts or "\0" in member.name:
        return "would land outside the folder"
    if member.isreg() and not path.parts:
        return "has no name"
    # A link that was in the folder before leads outside as well.
    parent = os.path.realpath(os.path.join(folder, os.path.dirname(member.name)))
    root = os.path.realpath(folder)
    if os.path.commonpath([root, parent]) != root:
        return "would land outside the folder, through a link in it"
    return None


def _write(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str, progress: Progress
) -> str:
    path = os.path.join(folder, *pathlib.PurePosixPath(member.name).parts)
    with (
        disk_errors(path),
        atomic_path(path) as temporary,
        tar.extractfile(member) as source,
        open(temporary, "wb") as target,
    ):
        while chunk := source.read(CHUNK):
            target.write(chunk)
            progress.advance(len(chunk))
    return path
