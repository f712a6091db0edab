"""Which files in the folder of a page are the page's own; no others are touched."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from magenta_nsynth.disk import only_writer, remove
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import read_json, write_json

__all__ = ["PAGE", "check_page_folder", "writing_page"]

PAGE = "index.html"
_RECORD = ".nsynth_page.json"  # what was written beside the page
_ABOUT = "What nsynth_rainbowgram --html wrote here, and may replace and remove again."
_NAME = r"(?:pictures|sounds)/\d+_[A-Za-z0-9_-]*\.(?:png|wav)"
_PATIENCE = 10.0  # seconds for another program that writes a page into the folder
# Of the template; pages of versions that kept no record have the second one alone.
_MARKS = (
    '<meta name="generator" content="nsynth_rainbowgram">',
    ":root { --columns: ",
)


def check_page_folder(folder: str | os.PathLike) -> set[str]:
    """The files that earlier runs wrote beside their page in a folder.

    Returns:
      Their paths from the folder, such as "sounds/1_flute.wav". Not all need exist.

    Raises:
      InputError: the folder has an index.html of somebody else's, or a record that
        can't be read.
    """
    referenced = _files_of_page(os.path.join(folder, PAGE))
    path = os.path.join(folder, _RECORD)
    if not os.path.lexists(path):
        return referenced
    files = (read_json(path) or {}).get("files")
    if not isinstance(files, list) or not all(
        isinstance(name, str) and re.fullmatch(_NAME, name) for name in files
    ):
        raise InputError(
            f"{path}: damaged, so what is in this folder can't be told from other "
            "files; give another --html, or remove this file."
        )
    return set(files)


def _files_of_page(path: str) -> set[str]:
    """What a page of ours refers to; nothing where there is no page."""
    if not os.path.lexists(path):
        return set()
    text = ""
    if os.path.isfile(path):
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"{path}: can't be read ({error.strerror}).") from None
    if not any(mark in text for mark in _MARKS):
        raise InputError(
            f"{path}: is there already and not from nsynth_rainbowgram; give another "
            "--html."
        )
    return set(re.findall(f'src="({_NAME})"', text))


@contextlib.contextmanager
def writing_page(folder: str | os.PathLike, names: Iterable[str]) -> Iterator[None]:
    """Writing a page and these files beside it, in the block; then older ones go.

    Args:
      folder: exists.
      names: of the files, from the folder.

    Raises:
      InputError: as `check_page_folder`, or one of the files is somebody else's.
    """
    names = set(names)
    with only_writer(os.fspath(folder), "--html", _PATIENCE):
        old = check_page_folder(folder)
        for name in sorted(names - old):
            path = os.path.join(folder, name)
            if os.path.lexists(path):
                raise InputError(
                    f"{path}: is there already and not from nsynth_rainbowgram; give "
                    "another --html."
                )
        # Before the files: a run that is killed leaves none that is nobody's.
        _note(folder, old | names)
        yield
        remove(*(os.path.join(folder, name) for name in old - names))
        _note(folder, names)


def _note(folder: str | os.PathLike, names: set[str]) -> None:
    content = {"about": _ABOUT, "files": sorted(names)}
    write_json(os.path.join(folder, _RECORD), content)
