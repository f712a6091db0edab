"""Calls in other processes, a few at a time, in the order they were asked for."""

import collections
import functools
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from magenta_nsynth.errors import NSynthError

__all__ = ["in_processes"]

Key = TypeVar("Key")
# Calls per worker that have been taken and not been returned: enough to keep it busy,
# few enough to hold little in memory.
_TAKEN = 4


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
