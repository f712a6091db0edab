"""Finding TFRecord files."""

import os
import re
from collections.abc import Iterable

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, matches_of

__all__ = ["find_records"]

# nsynth-train.tfrecord, notes.tfrecords, train.tfrecord-00000-of-00010, each with .gz
_NAME = re.compile(r".*\.tfrecords?(-\d+-of-\d+)?(\.gz)?", re.IGNORECASE)


def find_records(paths: Iterable[str | os.PathLike] | str | os.PathLike) -> list[str]:
    """The TFRecord files that `paths` name, sorted within each, without repeats.

    Args:
      paths: files of any name, folders (of them the files with ".tfrecord" in their
        names, as .tfrecord, .tfrecords, .tfrecord-00000-of-00010, .tfrecord.gz), or
        globs. A path that exists is never read as a glob.

    Raises:
      InputError: a path does not exist, a glob matches nothing, a folder has none.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    paths = [expand(path) for path in paths if os.fspath(path)]
    if not paths:
        raise InputError("Nothing to read: give a TFRecord file, a folder or a glob.")
    found: dict[str, str] = {}
    for path in paths:
        for match in matches_of(path, "give a TFRecord file, a folder or a glob"):
            names = _in_folder(match) if os.path.isdir(match) else [match]
            for name in names:
                found.setdefault(os.path.abspath(name), name)
    return list(found.values())


def _in_folder(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}.") from None
    # Hidden: what macOS leaves beside a copy, and what was being written.
    found = [
        os.path.join(folder, name)
        for name in names
        if _NAME.fullmatch(name) and not name.startswith(".")
    ]
    found = [path for path in found if os.path.isfile(path)]
    if not found:
        raise InputError(
            f"{folder}: no TFRecord file in there (its name has .tfrecord in it)."
        )
    return found
