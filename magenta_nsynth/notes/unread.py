"""Notes whose audio is still to be read."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from magenta_nsynth.audio import read_audio
from magenta_nsynth.errors import NSynthError, StoreError
from magenta_nsynth.parallel import in_order
from magenta_nsynth.schema import Note
from magenta_nsynth.stores import remote, storage

__all__ = ["UnreadNote", "file_stamp", "read_unread", "shuffled"]


@dataclasses.dataclass(frozen=True)
class UnreadNote:
    """A note whose audio is still in its file.

    Attributes:
      note: all but the audio, which is empty.
      path: the sound file.
      start: the note's first sample in the file, at 16 kHz.
      length: the note's samples, with zeros after the end of the file; 0 takes the
        whole file.
      file_samples: the length of the file at 16 kHz; 0 if unknown.
      stamp: changes when the file does.
      problem: why the note can't be used; "" if no problem is known.
    """

    note: Note
    path: str
    start: int = 0
    length: int = 0
    file_samples: int = 0
    stamp: str = ""
    problem: str = ""


def file_stamp(path: str, look: remote.Look = remote.info) -> str:
    """A file's size and date, to notice changes; "" if it is missing.

    Of a store's file it is the store's mark of the content.

    Args:
      path: the file.
      look: how a store is asked; `remote.listing()` for many files.

    Raises:
      StoreError: the store can't be reached.
    """
    try:
        return storage.stamp(path, look)
    except StoreError:
        raise
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""


def shuffled(notes: list[UnreadNote], seed: int | None) -> list[UnreadNote]:
    """The notes in random order, the pieces of a file together; None: unchanged."""
    if seed is None:
        return notes
    groups = [list(group) for _, group in itertools.groupby(notes, lambda n: n.path)]
    order = np.random.default_rng(seed).permutation(len(groups))
    return [note for index in order for note in groups[index]]


def read_unread(
    notes: Iterable[tuple[int, UnreadNote]], num_threads: int
) -> Iterator[tuple[int, Note | NSynthError]]:
    """Reads notes from their files, several files at a time.

    Args:
      notes: (shard, note) in order. Neighbours from one file, in one shard, share one
        reading of it.
      num_threads: files that are read at once.

    Yields:
      (shard, the note with its audio or why it can't be read), in order.
    """
    groups = itertools.groupby(notes, key=lambda pair: (pair[0], pair[1].path))
    tasks = ((shard, [note for _, note in group]) for (shard, _), group in groups)
    for (shard, pieces), audio in in_order(
        lambda task: read_audio(task[1][0].path),
        tasks,
        num_threads,
        skip=lambda task: task[1][0].problem,
        cost=lambda task: task[1][0].file_samples,
    ):
        for unread in pieces:
            if isinstance(audio, NSynthError):
                yield shard, audio
            else:
                piece = _cut(audio, unread)
                yield shard, dataclasses.replace(unread.note, audio=piece)


def _cut(audio: np.ndarray, unread: UnreadNote) -> np.ndarray:
    if not unread.length:
        return audio
    piece = audio[unread.start : unread.start + unread.length]
    return np.pad(piece, (0, unread.length - len(piece)))
