"""Finding input files, reading JSON, and writing files that are never incomplete."""

import collections
import contextlib
import errno
import glob
import json
import os
import pathlib
import re
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from absl import logging

from magenta_nsynth.disk import check_claims, open_locked, remove_unlocked
from magenta_nsynth.errors import InputError
from magenta_nsynth.stores import remote, storage

__all__ = [
    "ARRAY_EXTENSIONS",
    "Source",
    "atomic_path",
    "check_folder",
    "check_inputs",
    "expand",
    "find_sources",
    "is_hidden",
    "load_json",
    "matches_of",
    "open_file",
    "parse_json",
    "read_json",
    "refuse_collisions",
    "write_json",
]

ARRAY_EXTENSIONS = (".npy",)  # of files of embeddings
_PATIENCE = 10.0  # seconds for another program to finish writing a file
# Limits for JSON from outside, which keep it below 1 GB of memory. An export's manifest
# with a message for each of 289,205 notes has 60 MB and a million values.
_MOST_BYTES = 100_000_000  # up to four times as many in memory, besides the bytes
_MOST_VALUES = 3_000_000  # one as short as "{}," takes 72 bytes in memory
_MOST_LEVELS = 32  # of nested arrays and objects; ours have 6

# Created by macOS (in archives), Synology and Windows.
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN"}
_DATA_SET = re.compile(r"\w{2,}:(?!//)")  # "tfds:nsynth", not a Windows drive
_MOST_KINDS = 5  # file extensions that are counted individually in a message


class Source(NamedTuple):
    """An input file, and the subfolder of the output folder that mirrors its own."""

    path: str
    subfolder: str

    @property
    def stem(self) -> str:
        """The file's name without its folder and extension."""
        return pathlib.Path(self.path).stem

    @property
    def mirrored(self) -> str:
        """The subfolder as a place below another folder.

        A list of sounds may name files anywhere. Those outside the list's own folder
        have none: "".
        """
        if storage.is_remote(self.subfolder):
            return ""
        folder = os.path.normpath(self.subfolder)
        outside = os.path.isabs(folder) or folder.split(os.sep)[0] == os.pardir
        return "" if outside or folder == os.curdir else folder

    @property
    def is_npy(self) -> bool:
        """Whether it is a .npy file and not a sound."""
        return self.path.lower().endswith(ARRAY_EXTENSIONS)


def expand(path: str | os.PathLike) -> str:
    """Replaces `~` and environment variables in a path, unless it exists unchanged.

    Only for paths that a person types: in a name from a folder, an archive, a list or
    a manifest, a "$" is a part of the name. From a URL credentials are taken away, as
    `storage.from_url` does; file:// becomes a path.

    Raises:
      InputError: as of `storage.from_url`; or s3:/bucket, with one slash.
    """
    path = os.fspath(path)
    if storage.is_remote(path):
        path = storage.from_url(path)
    if storage.is_remote(path) or os.path.lexists(path):
        return path
    if isinstance(path, str):
        remote.refuse_one_slash(path)
    return os.path.expanduser(os.path.expandvars(path))


def find_sources(
    paths: Iterable[str | os.PathLike],
    extensions: Iterable[str],
    recursive: bool = False,
    left_out: Iterable[str | os.PathLike] = (),
    instead: Iterable[str] = (),
    quiet: bool = False,
    advice: str = "--recursive also reads subfolders.",
) -> list[Source]:
    """Finds the files with one of `extensions` in `paths`, sorted within each path.

    Hidden files and folders are skipped unless they are named. The number of files with
    other extensions is logged.

    Args:
      paths: files, folders or globs. A path that exists is not treated as a glob.
      extensions: with the dot; case is ignored.
      recursive: whether to search the subfolders of folders.
      left_out: subfolders that are not searched.
      instead: extensions to look for in a path that has no file with `extensions`.
      quiet: whether to log nothing.
      advice: the end of the message if nothing was found and `recursive` is false.

    Returns:
      One `Source` per file, without duplicates. `subfolder` is "" unless `recursive`.

    Raises:
      InputError: a path does not exist, a glob matches nothing, a named file has
        another extension, or no file was found.
    """
    kinds = [
        {extension.lower() for extension in group} for group in (extensions, instead)
    ]
    names = ", ".join(sorted(set().union(*kinds)))
    named = [expand(path) for path in paths if os.fspath(path)]
    if not named:
        raise InputError(
            f"Nothing to read: give --source_path, a file, folder or glob of {names}."
        )
    pruned = {storage.realpath(expand(folder)) for folder in left_out}
    found: dict[str, Source] = {}
    there: dict[str, str] = {}  # all files, and their extensions
    for path in named:
        here = list(_sources_of(path, names, recursive, pruned))
        there.update((storage.abspath(s.path), _extension(s.path)) for s in here)
        groups = ([s for s in here if _extension(s.path) in kind] for kind in kinds)
        taken = next(filter(None, groups), [])
        if not taken and [s.path for s in here] == [path]:
            raise InputError(f"{path}: not one of {names}.")
        for source in taken:
            found.setdefault(storage.abspath(source.path), source)
    others = _counted(ext for path, ext in there.items() if path not in found)
    if not found:
        what = f" (but {others})" if others else ""
        hint = "" if recursive else f" {advice}"
        raise InputError(f"{', '.join(named)}: no {names} file found{what}.{hint}")
    if others and not quiet:
        logging.info("Files with other extensions are left out: %s.", others)
    return list(found.values())


def _extension(path: str) -> str:
    return pathlib.Path(path).suffix.lower()


def _counted(extensions: Iterable[str]) -> str:
    """Counts extensions, such as "12 .aiff, 3 .txt"."""
    counts = collections.Counter(sorted(extensions)).most_common()
    words = [f"{n} {extension or 'without extension'}" for extension, n in counts]
    if len(words) > _MOST_KINDS:
        rest = sum(n for _, n in counts[_MOST_KINDS:])
        words[_MOST_KINDS:] = [f"{rest} others"]
    return ", ".join(words)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is not one of the user's own.

    Examples are what macOS puts beside a copied file ("._note.wav"), Jupyter's
    checkpoints, and what `atomic_path` leaves behind if the program is killed.
    """
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _sources_of(
    path: str, names: str, recursive: bool, pruned: set[str]
) -> Iterator[Source]:
    """Yields all files that a path names."""
    if storage.isdir(path):
        yield from _sources_in_folder(path, recursive, pruned)
        return
    for match in matches_of(path, f"give a file, folder or glob of {names}"):
        if _SYSTEM_FOLDERS & set(pathlib.Path(match).parts) - set(
            pathlib.Path(path).parts
        ):
            continue
        if storage.isdir(match):
            yield from _sources_in_folder(match, recursive, pruned)
        else:
            yield Source(match, "")


def matches_of(path: str, advice: str) -> list[str]:
    """Lists what a path or glob names, sorted. An existing path is not a glob.

    Raises:
      InputError: there is nothing; the message ends with `advice`.
    """
    if storage.exists(path):
        return [path]
    matches = sorted(storage.glob(path))
    if not matches:
        kind = "matches nothing" if glob.has_magic(path) else "does not exist"
        raise InputError(f"{path}: {kind}; {advice}.")
    return matches


def _sources_in_folder(
    folder: str, recursive: bool, pruned: set[str]
) -> Iterator[Source]:
    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}.")

    for directory, subfolders, files in storage.walk(folder, unreadable):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if recursive
            and not is_hidden(name)
            and storage.realpath(storage.join(directory, name)) not in pruned
        )
        relative = directory[len(folder) :].strip("/") or "."
        if not storage.is_remote(folder):
            relative = os.path.relpath(directory, folder)
        for name in sorted(files):
            if not is_hidden(name):
                subfolder = "" if relative == "." else relative
                yield Source(storage.join(directory, name), subfolder)


def check_folder(save_path: str | os.PathLike) -> None:
    """Raises InputError unless `save_path` is a folder or does not exist yet."""
    if not os.fspath(save_path):
        raise InputError("Give --save_path, the folder to write to.")
    folder = expand(save_path)
    if storage.exists(folder) and not storage.isdir(folder):
        shown = folder if storage.is_remote(folder) else save_path
        raise InputError(f"{shown}: --save_path must be a folder.")


def check_inputs(
    paths: Iterable[str | os.PathLike], flag: str = "--source_path"
) -> None:
    """Raises InputError if there are no paths, or nothing is where one points.

    This takes no time, and is for programs that take seconds to start. What the paths
    lead to is not looked at, nor are data sets named like "tfds:nsynth".
    """
    named = [os.fspath(path) for path in paths if os.fspath(path)]
    if not named:
        raise InputError(f"Nothing to read: give {flag}, a file, a folder or a glob.")
    for path in named:
        if not _DATA_SET.match(path):
            matches_of(expand(path), f"give another {flag}")


def refuse_collisions(sources: Iterable[Source], outputs: Iterable[str]) -> None:
    """Raises InputError if an output would be written twice or replace an input."""
    taken: dict[str, str] = {}
    inputs = {}
    pairs = list(zip(sources, outputs, strict=True))
    for source, _ in pairs:
        inputs[storage.realpath(source.path)] = source.path
    for source, output in pairs:
        key = storage.realpath(output)
        if sys.platform in ("darwin", "win32"):  # "A.wav" is "a.wav" there
            key = key.lower()
        if key in taken:
            raise InputError(
                f"{taken[key]} and {source.path} would both be written to {output}; "
                "rename one, or use a different --save_path for each."
            )
        taken[key] = source.path
        if storage.realpath(output) in inputs:
            raise InputError(
                f"{output} is an input and would be overwritten; "
                "give another --save_path."
            )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, new: bool = False) -> Iterator[str]:
    """Makes a temporary path beside `path`, which is renamed to it after the block.

    For a path of a store it is a local file, which is uploaded after the block. The
    folder is created if missing. A reader sees the old file or the complete new
    one, never anything in between. After an error the temporary file is removed. If the
    program is killed it stays, until the same file is written again.

    Args:
      path: where the finished file belongs.
      new: nothing may be there yet.

    Yields:
      The path to write to. It has the same extension.

    Raises:
      InputError: another program is writing the same file.
      FileExistsError: with `new`, there is a file already.
      StoreError: the store refuses the file, or does not answer.
    """
    if storage.is_remote(path):
        with _uploaded(str(path), new) as temporary:
            yield temporary
        return
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if new and path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    # Always the same name, so that the file of a killed program is found again. The
    # lock shows that no program is using it.
    temporary = str(path.parent / f".writing-{path.name}")
    in_use = f"{path}: another program is writing this file; wait for it to finish."
    lock: BinaryIO | None = None
    try:  # begins before there is a file, as Ctrl-C may come at any moment
        try:
            lock = open_locked(temporary, in_use, _PATIENCE, needed=True)
            lock.truncate()
        except OSError:  # locks are not supported here, or the name is too long
            name = f".writing-{secrets.token_hex(8)}{path.suffix}"
            temporary = str(path.parent / name)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if lock:
            lock.close()
        remove_unlocked(temporary)
        # A full disk, say: name the file that the user asked for.
        if isinstance(error, OSError) and error.errno:
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
    if lock:
        lock.close()


@contextlib.contextmanager
def _uploaded(path: str, new: bool) -> Iterator[str]:
    """A local file, which goes to a store after the block."""
    with tempfile.TemporaryDirectory(prefix="magenta-nsynth-") as folder:
        temporary = os.path.join(folder, path.rpartition("/")[2])
        with remote.kept_locally(path):
            yield temporary
        check_claims(path)
        remote.upload(temporary, path, new)


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a file from outside for reading, but not a pipe, which could block forever.

    Raises:
      InputError: it is not a regular file.
      OSError: it can't be opened.
    """
    is_local = not storage.is_remote(path)  # in a store there are only files
    if is_local and os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: not a file.")
    return storage.open_binary(path)


def load_json(path: str | os.PathLike, form: Any = dict) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.
      form: as for `parse_json`.

    Raises:
      FileNotFoundError: it does not exist.
      InputError: it can't be read, or does not have that form.
    """
    try:
        with open_file(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from None
    return parse_json(content, os.fspath(path), form)


def read_json(path: str | os.PathLike, form: Any = dict) -> Any:
    """Reads as `load_json` does; None if the file is missing or can't be used."""
    try:
        return load_json(path, form)
    except (OSError, InputError):
        return None


def parse_json(content: bytes, where: str, form: Any = dict) -> Any:
    """Parses and checks JSON from outside; the only place that does.

    Args:
      content: the text, in UTF-8.
      where: its name in errors.
      form: what is expected: a type; [form] for an array of these; {str: form} for an
        object with any keys; {"name": form, ...} for an object with at least these
        keys; a tuple of alternatives. None allows null, and a missing key.

    Raises:
      InputError: it is not JSON, too large, or has another form.
    """
    if len(content) > _MOST_BYTES:
        raise InputError(f"{where}: JSON of more than {_MOST_BYTES} bytes.")
    if sum(map(content.count, (b"[", b"{", b","))) > _MOST_VALUES:
        raise InputError(f"{where}: JSON of more than {_MOST_VALUES} values.")
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no valid JSON ({error}).") from None
    if _is_deep(value, _MOST_LEVELS):
        raise InputError(f"{where}: JSON of more than {_MOST_LEVELS} levels.")
    misfit = _misfit(value, form)
    if misfit is not None:
        raise InputError(f"{where}: {misfit or 'its content'} is of the wrong type.")
    return value


def _is_deep(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deep(item, levels - 1) for item in value)


def _misfit(value: Any, form: Any) -> str | None:
    """Names the field that does not fit `form`, "" for the whole; None if all fit."""
    if isinstance(form, tuple):
        fits = any(_misfit(value, one) is None for one in form)
        return None if fits else ""
    if not isinstance(form, list | dict):
        # A type(), because True is an int.
        return None if value is form or type(value) is form else ""
    parts: Iterable[tuple[str, Any, Any]]  # of each part its name, value and form
    if isinstance(form, list) and isinstance(value, list):
        parts = ((f"[{i}]", item, form[0]) for i, item in enumerate(value))
    elif not (isinstance(form, dict) and isinstance(value, dict)):
        return ""
    elif str in form:
        parts = ((repr(key), item, form[str]) for key, item in value.items())
    else:
        parts = ((repr(key), value.get(key), part) for key, part in form.items())
    for name, item, part in parts:
        inner = _misfit(item, part)
        if inner is not None:
            return f"{name[:80]} {inner}".rstrip()
    return None


def write_json(
    path: str | os.PathLike, content: Mapping[str, Any], new: bool = False
) -> None:
    """Writes an object as JSON; in ASCII, because file names need not be UTF-8.

    Args:
      path: where to.
      content: the object.
      new: nothing may be there yet.

    Raises:
      FileExistsError: with `new`, there is a file already.
      InputError: a number in it is NaN or infinite, which JSON can't represent.
    """
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError:
        raise InputError(
            f"{path}: not written, because a number in it is NaN or infinite."
        ) from None
    with atomic_path(path, new) as temporary:
        pathlib.Path(temporary).write_text(text + "\n", encoding="ascii")
