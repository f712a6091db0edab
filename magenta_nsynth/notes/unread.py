"""Notes whose audio is still to be read, and reading in parallel."""

import collections
import dataclasses
import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from magenta_nsynth.audio import read_audio
from magenta_nsynth.disk import disk_errors
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.schema import Note

__all__ = ["UnreadNote", "file_stamp", "in_order", "read_unread", "shuffled"]

# Samples in memory at once (1 GB), not counting one file of any length.
_SAMPLES_AT_ONCE = 2**28
_TYPICAL_SAMPLES = 64_000
# After these errors, no other task could succeed either.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Task = TypeVar("Task")
Result = TypeVar("Result")


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


def file_stamp(path: str) -> str:
    """A file's size and date, to notice changes; "" if it is missing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


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
        cost=lambda task: task[1][0].file_samples or _TYPICAL_SAMPLES,
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


def in_order(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_threads: int,
    cost: Callable[[Task], int] = lambda _: _TYPICAL_SAMPLES,
    skip: Callable[[Task], str] = lambda _: "",
    most_samples: int = _SAMPLES_AT_ONCE,
) -> Iterator[tuple[Task, Result | NSynthError]]:
    """Calls `function` on each task in threads; results come in the tasks' order.

    Threads, not processes: decoding, resampling and writing, which take the time,
    release the interpreter's lock.

    Args:
      function: handles a task. NSynthErrors count as results, and so do the operating
        system's errors, except a full disk.
      tasks: taken only as fast as results are consumed.
      num_threads: calls at once.
      cost: the number of samples of a task, to limit memory.
      skip: a task's error if it is known beforehand, else "".
      most_samples: in memory at once, not counting one task's.

    Yields:
      (task, its result or error).

    Raises:
      NSynthError: `tasks` raised it; after all results of the tasks before.
      InputError: the disk is full.
    """

    def call(task: Task) -> Result | NSynthError:
        problem = skip(task)
        return InputError(problem) if problem else _attempt(function, task)

    waiting: collections.deque[tuple[Task, Future[Result | NSynthError]]]
    waiting = collections.deque()
    held = 0
    end: StopIteration | NSynthError | None = None
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            tasks = iter(tasks)
            while end is None or waiting:
                few = len(waiting) <= 4 * num_threads and held <= most_samples
                if end is None and (few or not waiting):
                    try:
                        task = next(tasks)
                    # What comes before the damage in an archive is still used.
                    except (StopIteration, NSynthError) as error:
                        end = error
                        continue
                    held += cost(task)
                    waiting.append((task, pool.submit(call, task)))
                else:
                    task, future = waiting.popleft()
                    with disk_errors(""):  # while the error names the right file
                        result = future.result()
                    yield task, result
                    held -= cost(task)
        finally:
            for _, future in waiting:
                future.cancel()
    if isinstance(end, NSynthError):
        raise end


def _attempt(function: Callable[[Task], Result], task: Task) -> Result | NSynthError:
    try:
        return function(task)
    except NSynthError as error:
        return error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise
        name = error.filename2 or error.filename
        return AudioError(f"{name}: {error.strerror or error}.")
