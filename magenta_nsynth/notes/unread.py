"""Notes that are still to be read: what is known of them, and reading in parallel."""

import collections
import concurrent.futures
import dataclasses
import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from magenta_nsynth.audio import read_audio
from magenta_nsynth.disk import disk_errors
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.schema import Note

__all__ = ["UnreadNote", "in_order", "load_items", "shuffled", "stat_print"]

# Samples that may be on their way at once (1 GB), beyond one file of any length.
_SAMPLES_AT_ONCE = 2**28
_TYPICAL_SAMPLES = 64_000
# After these no other task could go well either.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class UnreadNote:
    """A note whose sound is still in its file.

    Attributes:
      note: all but the audio, which is empty.
      path: the sound file.
      start: the note's first sample in it, at 16 kHz.
      length: the note's samples; zeros follow where the file ends before. 0: all.
      file_samples: how long the file is at 16 kHz; 0 where that is not known.
      print: changes when the file does.
      problem: why there can be no such note; "" if nothing is known against it.
    """

    note: Note
    path: str
    start: int = 0
    length: int = 0
    file_samples: int = 0
    print: str = ""
    problem: str = ""


def stat_print(path: str) -> str:
    """What shows that a file has changed: its size and date; "" if it is missing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the latter for a name that no file can have
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def shuffled(items: list[UnreadNote], seed: int | None) -> list[UnreadNote]:
    """`items` in an order drawn with `seed`, a file's pieces together; None: as is."""
    if seed is None:
        return items
    groups = [list(group) for _, group in itertools.groupby(items, lambda i: i.path)]
    order = np.random.default_rng(seed).permutation(len(groups))
    return [item for index in order for item in groups[index]]


def load_items(
    items: Iterable[tuple[int, UnreadNote]], num_threads: int
) -> Iterator[tuple[int, Note | NSynthError]]:
    """Reads notes from their files, several files at a time.

    Args:
      items: (shard, item) in order. Neighbours from one file, in one shard, share the
        reading of it.
      num_threads: files that are read at once.

    Yields:
      (shard, the note with its audio or the error that says why not), in order.
    """
    groups = itertools.groupby(items, key=lambda pair: (pair[0], pair[1].path))
    tasks = ([shard, [item for _, item in group]] for (shard, _), group in groups)
    for (shard, pieces), audio in in_order(
        lambda task: read_audio(task[1][0].path),
        tasks,
        num_threads,
        skip=lambda task: task[1][0].problem,
        cost=lambda task: task[1][0].file_samples or _TYPICAL_SAMPLES,
    ):
        for item in pieces:
            if isinstance(audio, NSynthError):
                yield shard, audio
            else:
                piece = _cut(audio, item)
                yield shard, dataclasses.replace(item.note, audio=piece)


def _cut(audio: np.ndarray, item: UnreadNote) -> np.ndarray:
    if not item.length:
        return audio
    piece = audio[item.start : item.start + item.length]
    return np.pad(piece, (0, item.length - len(piece)))


def in_order(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_threads: int,
    cost: Callable[[Task], int] = lambda _: _TYPICAL_SAMPLES,
    skip: Callable[[Task], str] = lambda _: "",
    most_samples: int = _SAMPLES_AT_ONCE,
) -> Iterator[tuple[Task, Result | NSynthError]]:
    """Calls `function` on each task in threads; the results come in the tasks' order.

    Threads and not processes: what takes long, decoding, resampling and writing,
    leaves the interpreter to others meanwhile.

    Args:
      function: what to do with a task. Its NSynthErrors are results too, and so is
        what the system refuses it, but for a full disk.
      tasks: taken only as fast as results are wanted.
      num_threads: calls at once.
      cost: a task's samples, to keep those in memory few.
      skip: a task's error, where that is known before.
      most_samples: that are in memory at once, beyond one task's.
    """

    def call(task: Task) -> Result | NSynthError:
        if problem := skip(task):
            return InputError(problem)
        try:
            return function(task)
        except NSynthError as error:
            return error
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise
            name = error.filename2 or error.filename
            return AudioError(f"{name}: {error.strerror or error}.")

    waiting: collections.deque = collections.deque()
    held, end = 0, None
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        try:
            tasks = iter(tasks)
            while end is None or waiting:
                few = len(waiting) <= 4 * num_threads and held <= most_samples
                if end is None and (few or not waiting):
                    try:
                        task = next(tasks)
                    # What came before an archive's damage is used all the same.
                    except (StopIteration, NSynthError) as error:
                        end = error
                        continue
                    held += cost(task)
                    waiting.append((task, pool.submit(call, task)))
                else:
                    task, future = waiting.popleft()
                    yield task, _result(future)
                    held -= cost(task)
        finally:
            for _, future in waiting:
                future.cancel()
    if isinstance(end, NSynthError):
        raise end


def _result(future: concurrent.futures.Future) -> object:
    with disk_errors(""):  # here, while the error names the right file
        return future.result()
