"""The sounds and embeddings that pictures are made of, one after the other."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.commands.common import find_sounds_or_npy
from magenta_nsynth.commands.save_codes import record_sets
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.reading import NoteFilter, open_notes
from magenta_nsynth.embeddings.arrays import load_array
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import find_sources
from magenta_nsynth.notes.record_clips import read_notes_as_clips

__all__ = ["Companions", "Inputs", "Item", "Items", "find_items"]

_ENCODED = "_embeddings"


class Inputs(NamedTuple):
    """What to read.

    Attributes:
      paths: files, folders or globs of sounds, TFRecords, or .npy embeddings.
      recursive: descends into folders.
      sample_length: uses at most so many samples of each sound; 0 uses all.
      limit: takes the first so many alone; 0 takes all.
      note_filter: which notes of TFRecords to take, arguments of `NoteFilter`.
      skip_corrupt: leaves out damaged records.
      left_out: folders that are not descended into.
    """

    paths: Sequence[str | os.PathLike]
    recursive: bool = False
    sample_length: int = 0
    limit: int = 0
    note_filter: Mapping[str, Any] = {}
    skip_corrupt: bool = False
    left_out: Sequence[str] = ()


class Item(NamedTuple):
    """A sound, or an embedding alone.

    Attributes:
      name: a file's stem, or a note's.
      subfolder: of a file, below the folder that was named.
      path: of the file, "" for a note.
      load: returns (audio [t] float32 or None, embedding or None); raises an
        `NSynthError` where that can't be read.
    """

    name: str
    subfolder: str
    path: str
    load: Callable[[], tuple[np.ndarray | None, np.ndarray | None]]


class Items(NamedTuple):
    """How many there are, and the items; notes can be gone through once."""

    count: int
    items: Iterable[Item]
    are_notes: bool


def find_items(inputs: Inputs) -> Items:
    """Of each path the sounds, the notes of TFRecords, or else the .npy files.

    Raises:
      InputError: nothing there, both kinds, or a TFRecord that can't be used.
    """
    sets = record_sets(inputs.paths, inputs.recursive, skip_corrupt=False)
    if sets:
        return _notes([path for paths in sets.values() for path in paths], inputs)
    if inputs.skip_corrupt or inputs.note_filter:
        raise InputError(
            "--skip_corrupt and the filters of notes are for TFRecords; leave them out."
        )
    sources = find_sounds_or_npy(
        inputs.paths, AUDIO_EXTENSIONS, False, inputs.recursive, inputs.left_out
    )
    if inputs.limit:
        sources = sources[: inputs.limit]
    items = []
    for source in sources:
        if source.path.lower().endswith(".npy"):
            load = _encoding_loader(source.path)
            stem = source.stem.removesuffix(_ENCODED)
        else:
            load, stem = _sound_loader(source.path, inputs.sample_length), source.stem
        items.append(Item(stem, source.subfolder, source.path, load))
    return Items(len(items), items, are_notes=False)


def _sound_loader(path: str, sample_length: int):
    return lambda: (read_audio(path, sample_length), None)


def _encoding_loader(path: str):
    return lambda: (None, load_array(path))


def _notes(paths: list[str], inputs: Inputs) -> Items:
    chosen = NoteFilter(**inputs.note_filter) if inputs.note_filter else None
    index = open_notes(paths, chosen, inputs.skip_corrupt)
    clips = read_notes_as_clips(
        index, Demand(("audio",)), ("note_str",), inputs.sample_length, quiet=True
    )
    count = index.num_notes
    if inputs.limit:
        clips, count = itertools.islice(clips, inputs.limit), min(count, inputs.limit)

    def items() -> Iterator[Item]:
        for clip in clips:
            name = clip.labels["note_str"].encode("utf-8", "surrogateescape")
            # A file's name has none of these.
            name = re.sub(r"[/\\\0]", "_", name.decode("utf-8", "replace"))
            yield Item(name, "", "", lambda audio=clip.audio: (audio, None))

    return Items(count, items(), are_notes=True)


class Companions:
    """Files that belong to others by their names: embeddings or reconstructions.

    Args:
      path: a file, folder or glob; folders below are searched too.
      extensions: of the files.
      flag: that named the path, for messages.
    """

    def __init__(
        self, path: str | os.PathLike, extensions: Sequence[str], flag: str
    ) -> None:
        self._path, self._flag = path, flag
        self._found: dict[tuple[str, str], str] = {}
        for source in find_sources([path], extensions, recursive=True, quiet=True):
            self._found.setdefault((source.subfolder, source.stem), source.path)

    def of(self, item: Item) -> str:
        """The path of an item's companion.

        Raises:
          InputError: there is none.
        """
        name = item.name
        # What the tools write for a sound or an embedding goes before a mere namesake.
        made = (f"gen_{name}", f"gen_{name}_embeddings", f"{name}_embeddings", name)
        own = os.path.abspath(item.path or os.sep)
        for folder in (item.subfolder, ""):
            for stem in made:
                path = self._found.get((folder, stem))
                if path and os.path.abspath(path) != own:
                    return path
        raise InputError(
            f"{item.path or name}: there is nothing for it in {self._flag}="
            f"{self._path}, such as {made[0]}.wav or {made[2]}.npy."
        )
