"""Calls in threads or other processes, a few at a time; results come in order."""

import collections
import errno
import functools
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from magenta_nsynth.disk import disk_errors
from magenta_nsynth.errors import AudioError, InputError, NSynthError, StoreError

__all__ = ["in_order", "in_processes", "num_cores"]

Key = TypeVar("Key")
Task = TypeVar("Task")
Result = TypeVar("Result")
# Samples in memory at once (1 GB), not counting one file of any length.
_SAMPLES_AT_ONCE = 2**28
_TYPICAL_SAMPLES = 64_000
# After these errors, no other task could succeed either.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Calls per worker that have been taken and not been returned: enough to keep it busy,
# few enough to hold little in memory.
_TAKEN = 4


def num_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    function: Callable[..., Any],
    calls: Iterable[tuple[Key, tuple]],
    num_workers: int,
) -> Iterator[tuple[Key, Callable[[], Any]]]:
    """Calls a function in worker processes.

    Args:
      function: defined at the top of a module, which each worker imports. TensorFlow
        in it would take each worker seconds and half a GB.
      calls: (key, arguments) pairs; taken as workers become free, never all at once.
      num_workers: processes; with 1 the calls are made in this process.

    Yields:
      (key, result) in the order of the calls. `result()` returns what the call
      returned, or raises what it raised.

    Raises:
      NSynthError: a worker has died.
    """
    if num_workers <= 1:
        for key, arguments in calls:
            yield key, functools.partial(function, *arguments)
        return
    # Not forked: a fork would lack TensorFlow's threads.
    spawning = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, spawning, _become_worker)
    try:
        futures = ((key, pool.submit(function, *args)) for key, args in calls)
        taken = collections.deque(itertools.islice(futures, _TAKEN * num_workers))
        while taken:
            key, future = taken.popleft()
            error = future.exception()  # waits for the result
            if isinstance(error, BrokenProcessPool):
                raise error
            yield key, future.result
            taken.extend(itertools.islice(futures, 1))
    except BrokenProcessPool as error:
        raise NSynthError(
            "A worker process has died, perhaps for lack of memory; run again with "
            "fewer --num_workers (--skip_existing keeps what is done)."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _become_worker() -> None:
    # Ctrl-C reaches every process of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def in_order(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_threads: int,
    cost: Callable[[Task], int] = lambda _: 0,
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
      cost: the number of samples of a task, to limit memory; 0 if unknown.
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
                    held += cost(task) or _TYPICAL_SAMPLES
                    waiting.append((task, pool.submit(call, task)))
                else:
                    task, future = waiting.popleft()
                    with disk_errors(""):  # while the error names the right file
                        result = future.result()
                    yield task, result
                    held -= cost(task) or _TYPICAL_SAMPLES
        finally:
            for _, future in waiting:
                future.cancel()
    if isinstance(end, NSynthError):
        raise end


def _attempt(function: Callable[[Task], Result], task: Task) -> Result | NSynthError:
    try:
        return function(task)
    except StoreError:  # no fault of this file: what was to be read is still there
        raise
    except NSynthError as error:
        return error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise
        name = error.filename2 or error.filename
        return AudioError(f"{name}: {error.strerror or error}.")
