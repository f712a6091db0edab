"""The manifest of a folder of mixes: what exactly each file is."""

import os
from collections.abc import Mapping
from typing import Any

from magenta_nsynth.commands.common import writing
from magenta_nsynth.commands.generate import UNFINISHED
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import load_json, write_json

__all__ = ["FILE_NAME", "Manifest", "relative"]

FILE_NAME = "manifest.json"
_ABOUT = (
    "What the files of this folder are; paths are relative to it. Of sources of "
    "different lengths as much is mixed as the shortest has: mixed_frames and "
    "mixed_samples."
)
# What comes out when a file is made, and is not asked for.
_RESULTS = (
    "mixed_frames",
    "mixed_samples",
    "notes",
    "frames",
    "channels",
    "samples",
    "rate",
    "scale",
    "software",
)

_ENTRY = {"embedding": (str, None)}


class Manifest:
    """The entries of a folder's files; written whole, and never ahead of the files.

    Entries of earlier runs are kept while their files are there.
    """

    def __init__(self, folder: str) -> None:
        """Reads the folder's manifest, if there is one.

        Raises:
          InputError: a file of that name is none.
        """
        self._folder = folder
        self._path = os.path.join(folder, FILE_NAME)
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            entries = load_json(self._path, {"files": {str: _ENTRY}})["files"]
        except FileNotFoundError:
            return
        except InputError as error:
            raise InputError(
                f"{error} It can't be gone on with: move it away, or give another "
                "--save_path."
            ) from None
        self._entries = {
            name: entry for name, entry in entries.items() if self._exists(name)
        }

    def has(self, name: str, entry: dict[str, Any]) -> bool:
        """Whether the file is there and was made as `entry` says."""
        made = self._entries.get(name)
        return (
            made is not None
            and self._exists(name)
            and _without_results(made) == _without_results(entry)
        )

    def forget(self, recipes: Mapping[str, dict[str, Any]]) -> None:
        """Takes out files that are about to be written, so that no entry is wrong.

        A sound that was made of an embedding that now becomes another one keeps its
        entry, which names that no more.
        """
        old = {name: self._entries.pop(name, None) for name in recipes}
        changed = {
            name
            for name, entry in old.items()
            if entry and _without_results(entry) != _without_results(recipes[name])
        }
        for entry in self._entries.values():
            if entry.get("embedding") in changed:
                entry["embedding"] = None
        if any(old.values()):
            self._save()

    def add(self, entries: dict[str, dict[str, Any]]) -> None:
        """Adds files that have been written."""
        if not entries:
            return
        self._entries.update(entries)
        self._save()

    def _exists(self, name: str) -> bool:
        path = os.path.join(self._folder, name)
        return os.path.isfile(path) and not os.path.exists(path + UNFINISHED)

    def _save(self) -> None:
        files = {name: self._entries[name] for name in sorted(self._entries)}
        with writing(self._path):
            write_json(self._path, {"about": _ABOUT, "files": files})


def _without_results(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _RESULTS}


def relative(path: str, folder: str) -> str:
    """The path from `folder`; as it is where there is no way, to another drive."""
    parent, name = os.path.split(os.path.abspath(path))
    try:
        # Of the real folders: ".." leaves a linked folder at its other end.
        start = os.path.realpath(folder)
        text = os.path.relpath(os.path.join(os.path.realpath(parent), name), start)
    except ValueError:
        return os.path.abspath(path)
    return text.replace(os.sep, "/")
