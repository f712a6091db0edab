"""Finding input files, and writing output files so that none is ever half-written."""

import collections
import contextlib
import glob
import json
import os
import pathlib
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from absl import logging

from magenta_nsynth.disk import open_locked
from magenta_nsynth.errors import InputError

__all__ = [
    "Source",
    "atomic_path",
    "check_folder",
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

_PATIENCE = 10.0  # seconds for another program to finish writing a file
# Of JSON from outside: so much of it takes less than 1 GB. An export's manifest with a
# message for each of 289,205 notes has 60 MB and a million values.
_MOST_BYTES = 100_000_000  # in memory up to four times as many, and the bytes
_MOST_VALUES = 3_000_000  # one that is as short as "{}," takes 72 bytes in memory
_MOST_LEVELS = 32  # of lists and tables in each other; ours have 6

# Of macOS, in archives; of Synology; of Windows.
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN"}
_MOST_KINDS = 5  # that are counted one by one


class Source(NamedTuple):
    """An input file, and the folder below the output folder that mirrors its own."""

    path: str
    subfolder: str

    @property
    def stem(self) -> str:
        """The file's name without folder and extension."""
        return pathlib.Path(self.path).stem

    @property
    def is_npy(self) -> bool:
        """Whether it is an array's file, and so no sound."""
        return self.path.lower().endswith(".npy")


def expand(path: str | os.PathLike) -> str:
    """The path with `~` and environment variables replaced, unless it exists as it is.

    For what a person types, and for nothing else: a "$" in a name that comes from a
    folder, an archive, a list or a manifest is a part of that name.
    """
    path = os.fspath(path)
    if os.path.lexists(path):
        return path
    return os.path.expanduser(os.path.expandvars(path))


def find_sources(
    paths: Iterable[str | os.PathLike],
    extensions: Iterable[str],
    recursive: bool = False,
    left_out: Iterable[str | os.PathLike] = (),
    instead: Iterable[str] = (),
    quiet: bool = False,
) -> list[Source]:
    """The files with one of `extensions` that `paths` name, sorted within each.

    Hidden files and folders are passed over, unless they are named. How many files of
    other kinds there are is logged.

    Args:
      paths: files, folders or globs. A path that exists is never read as a glob.
      extensions: lower-case with the dot; compared with the case ignored.
      recursive: whether to descend into folders below the named ones.
      left_out: folders that are not descended into.
      instead: extensions that are taken of a path that has none of `extensions`.
      quiet: logs nothing.

    Returns:
      One `Source` per file, without repeats. `subfolder` is "" unless `recursive`.

    Raises:
      InputError: a path does not exist, a glob matches nothing, a named file has
        another extension, or nothing at all was found.
    """
    kinds = [
        {extension.lower() for extension in group} for group in (extensions, instead)
    ]
    names = ", ".join(sorted(set().union(*kinds)))
    paths = [expand(path) for path in paths if os.fspath(path)]
    if not paths:
        raise InputError(
            f"Nothing to read: give --source_path, a file, folder or glob of {names}."
        )
    pruned = {os.path.realpath(expand(folder)) for folder in left_out}
    found: dict[str, Source] = {}
    there: dict[str, str] = {}  # all files, and their extensions
    for path in paths:
        here = list(_sources_of(path, names, recursive, pruned))
        there.update((os.path.abspath(s.path), _extension(s.path)) for s in here)
        groups = ([s for s in here if _extension(s.path) in kind] for kind in kinds)
        taken = next(filter(None, groups), [])
        if not taken and [s.path for s in here] == [path]:
            raise InputError(f"{path}: not one of {names}.")
        for source in taken:
            found.setdefault(os.path.abspath(source.path), source)
    others = _counted(ext for path, ext in there.items() if path not in found)
    if not found:
        what = f" (there are {others})" if others else ""
        hint = "" if recursive else " Folders below it are read with --recursive."
        raise InputError(f"{', '.join(paths)}: no {names} file in there{what}.{hint}")
    if others and not quiet:
        logging.info("Files of other kinds are left out: %s.", others)
    return list(found.values())


def _extension(path: str) -> str:
    return pathlib.Path(path).suffix.lower()


def _counted(extensions: Iterable[str]) -> str:
    """How many there are of each: "12 .aiff, 3 .txt"."""
    counts = collections.Counter(sorted(extensions)).most_common()
    words = [f"{n} {extension or 'without extension'}" for extension, n in counts]
    if len(words) > _MOST_KINDS:
        rest = sum(n for _, n in counts[_MOST_KINDS:])
        words[_MOST_KINDS:] = [f"{rest} others"]
    return ", ".join(words)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's own.

    Such as what macOS leaves beside a copied file ("._note.wav"), what Jupyter keeps,
    and what `atomic_path` leaves where a program was killed.
    """
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _sources_of(
    path: str, names: str, recursive: bool, pruned: set[str]
) -> Iterator[Source]:
    """All files that a path names."""
    if os.path.isdir(path):
        yield from _sources_in_folder(path, recursive, pruned)
        return
    for match in matches_of(path, f"give a file, folder or glob of {names}"):
        if _SYSTEM_FOLDERS & set(pathlib.Path(match).parts) - set(
            pathlib.Path(path).parts
        ):
            continue
        if os.path.isdir(match):
            yield from _sources_in_folder(match, recursive, pruned)
        else:
            yield Source(match, "")


def matches_of(path: str, advice: str) -> list[str]:
    """What a path or glob names, sorted; a path that exists is never read as a glob.

    Raises:
      InputError: nothing; `advice` says what to give.
    """
    if os.path.exists(path):
        return [path]
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        kind = "matches nothing" if glob.has_magic(path) else "does not exist"
        raise InputError(f"{path}: {kind}; {advice}.")
    return matches


def _sources_in_folder(
    folder: str, recursive: bool, pruned: set[str]
) -> Iterator[Source]:
    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}.")

    for directory, subfolders, files in os.walk(folder, onerror=unreadable):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if recursive
            and not is_hidden(name)
            and os.path.realpath(os.path.join(directory, name)) not in pruned
        )
        relative = os.path.relpath(directory, folder)
        for name in sorted(files):
            if not is_hidden(name):
                subfolder = "" if relative == "." else relative
                yield Source(os.path.join(directory, name), subfolder)


def check_folder(save_path: str | os.PathLike) -> None:
    """Raises InputError unless `save_path` names a folder, there or not yet there."""
    if not os.fspath(save_path):
        raise InputError("No --save_path given: name the folder to write to.")
    folder = expand(save_path)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"{save_path}: --save_path has to be a folder.")


def refuse_collisions(sources: Iterable[Source], outputs: Iterable[str]) -> None:
    """Raises InputError if two sources would write one output, or one its own input."""
    taken: dict[str, str] = {}
    inputs = {}
    pairs = list(zip(sources, outputs, strict=True))
    for source, _ in pairs:
        inputs[os.path.realpath(source.path)] = source.path
    for source, output in pairs:
        key = os.path.realpath(output)
        if sys.platform in ("darwin", "win32"):  # "A.wav" is "a.wav" there
            key = key.lower()
        if key in taken:
            raise InputError(
                f"{taken[key]} and {source.path} would both be written to {output}; "
                "rename one, or give them different --save_path folders."
            )
        taken[key] = source.path
        if os.path.realpath(output) in inputs:
            raise InputError(
                f"{output} is an input and would be overwritten; "
                "give another --save_path."
            )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[str]:
    """A temporary path beside `path`, renamed to it when the block ends well.

    The folder is created where it is missing. A reader sees the old file or the
    whole new one, whatever happens in between; after an error nothing is left. What
    is left after a kill is overwritten by the next one that writes the same file.

    Args:
      path: where the finished file belongs.

    Yields:
      The path to write to. It has the same extension.

    Raises:
      InputError: another program is writing the same file.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_beside(path) as temporary:
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            # A full disk, say: name the file that the user asked for.
            if isinstance(error, OSError) and error.errno:
                raise type(error)(error.errno, error.strerror, str(path)) from error
            raise


@contextlib.contextmanager
def _temporary_beside(path: pathlib.Path) -> Iterator[str]:
    """An empty file beside `path` that no other program writes to in the block."""
    # One name, so that what a kill left is found; its lock shows that nobody uses it.
    temporary = str(path.parent / f".writing-{path.name}")
    in_use = f"{path}: another program is writing it; wait for that to end."
    with contextlib.ExitStack() as stack:
        try:
            file = open_locked(temporary, in_use, _PATIENCE, needed=True)
            stack.enter_context(file).truncate()
        except OSError:  # no locks here, or too long a name
            name = f".writing-{secrets.token_hex(8)}{path.suffix}"
            temporary = str(path.parent / name)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a file from outside for reading; a pipe is none, and could wait for ever.

    Raises:
      InputError: it is something else.
      OSError: it can't be opened.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: not a file.")
    return open(path, "rb")


def load_json(path: str | os.PathLike, form: Any = dict) -> Any:
    """What a JSON file holds.

    Args:
      path: of the file.
      form: as of `parse_json`.

    Raises:
      FileNotFoundError: it is not there.
      InputError: it can't be read, or is not of that form.
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
    """As `load_json`; None if the file is not there or of no use."""
    try:
        return load_json(path, form)
    except (OSError, InputError):
        return None


def parse_json(content: bytes, where: str, form: Any = dict) -> Any:
    """JSON from outside: every reader of it comes through here.

    Args:
      content: the text, in UTF-8.
      where: what an error calls it.
      form: what it has to be: a type; [form] for a list of such; {str: form} for a
        table of such; {"name": form, ...} for a table with these fields, and others;
        a tuple of forms for any of these. None is for null and for a field that may
        be missing.

    Raises:
      InputError: no JSON, or too much of it, or of another form.
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
    """The field that is not as `form` wants it, "" for the whole; None if all are."""
    if isinstance(form, tuple):
        fits = any(_misfit(value, one) is None for one in form)
        return None if fits else ""
    if not isinstance(form, list | dict):
        # JSON's true is no number.
        return None if value is form or type(value) is form else ""
    if not isinstance(value, type(form)):
        return ""
    if isinstance(form, list):
        parts = ((f"[{i}]", item, form[0]) for i, item in enumerate(value))
    elif str in form:
        parts = ((repr(key), item, form[str]) for key, item in value.items())
    else:
        parts = ((repr(key), value.get(key), part) for key, part in form.items())
    for name, item, part in parts:
        inner = _misfit(item, part)
        if inner is not None:
            return f"{name[:80]} {inner}".rstrip()
    return None


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Writes a table as JSON, whole; ASCII, so that names that aren't UTF-8 pass.

    Raises:
      InputError: a number in it is NaN or infinite, which JSON does not have.
    """
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"{path}: not written, a number in it is NaN or infinite."
        ) from error
    with atomic_path(path) as temporary:
        pathlib.Path(temporary).write_text(text + "\n", encoding="ascii")
