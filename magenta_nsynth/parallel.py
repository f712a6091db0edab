"""Calls in other processes, a few at a time, in the order they were asked for."""

import collections
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from magenta_nsynth.errors import NSynthError

__all__ = ["in_processes"]

Key = TypeVar("Key")
# Calls that wait for a worker, for each worker: enough to keep it busy, few enough
# that what they hold stays little.
_WAITING = 3


def in_processes(
    function: Callable[..., Any],
    calls: Iterable[tuple[Key, tuple]],
    num_workers: int,
) -> Iterator[tuple[Key, Callable[[], Any]]]:
    """Calls a function in worker processes, and gives what each call returned.

    Args:
      function: a module's own, whose module the workers import. It should not need
        TensorFlow, which takes each of them seconds and half a GB.
      calls: (key, arguments) pairs; taken as workers get free, never all at once.
      num_workers: processes; with 1 the calls are made in this one.

    Yields:
      (key, result) in the order of the calls; `result()` returns what the call did or
      raises what it raised.

    Raises:
      NSynthError: a worker ended by itself.
    """
    if num_workers <= 1:
        for key, arguments in calls:
            yield key, lambda arguments=arguments: function(*arguments)
        return
    # Not a fork: threads of TensorFlow's would be missing in it.
    pool = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), _become_worker
    )
    waiting: collections.deque[tuple[Key, Future]] = collections.deque()
    try:
        for key, arguments in calls:
            waiting.append((key, pool.submit(function, *arguments)))
            while len(waiting) > _WAITING * num_workers:
                key, future = waiting.popleft()
                yield key, _result_of(future)
        for key, future in waiting:
            yield key, _result_of(future)
    except BrokenProcessPool as error:
        raise NSynthError(
            "A process that was at work has ended, for want of memory perhaps; run it "
            "again with fewer --num_workers (--skip_existing keeps what is done)."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _result_of(future: Future) -> Callable[[], Any]:
    """Waits; that the worker is gone is no result of the call."""
    if isinstance(future.exception(), BrokenProcessPool):
        raise future.exception()
    return future.result


def _become_worker() -> None:
    # Ctrl-C reaches every process of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
