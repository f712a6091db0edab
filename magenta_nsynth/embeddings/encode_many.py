"""Encoding many clips: reading, encoding and writing run side by side.

    clips (read by threads) -- ahead --> batches, encoded -- ahead --> written

Each stage is at most a few steps ahead of the next one, so the memory does not grow
with the number of clips.
"""

import collections
import contextlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from magenta_nsynth.embeddings.embedding import Embedding, check_finite
from magenta_nsynth.errors import NSynthError
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.parallel import num_cores

__all__ = ["Encoder", "ahead", "encoding"]

# A batch with this much audio takes no more clips: long clips don't wait for others.
_SAMPLES_AT_ONCE = 16 * 64_000
# Samples held per call that runs at once. A longer clip occupies several cores alone.
_SAMPLES_PER_CALL = 4 * 64_000
# Steps that a stage may be ahead of the next one.
_BATCHES_AHEAD, _RESULTS_AHEAD = 1, 32

T = TypeVar("T")
# A key, and its clip or why there is none.
_Item = tuple[Any, Clip | NSynthError]
# A key, and its clip with the network's input, or why there is none.
_Prepared = tuple[Any, tuple[Any, Clip] | NSynthError]
_Encoded = tuple[Any, Embedding | NSynthError]


class Encoder(Protocol):
    """Encodes clips, in three steps; `api.Autoencoder` is one."""

    def check_clip(self, audio: np.ndarray, name: str) -> np.ndarray:
        """Returns the part of a clip [t] that is used.

        Args:
          audio: [t] float32.
          name: the clip's name in errors.

        Raises:
          AudioError: the clip is too short.
        """
        ...

    def prepare(self, clip: np.ndarray) -> Any:
        """Converts a checked clip [t] float32 to the network's input."""
        ...

    def load(self) -> None:
        """Loads the network; else the first call of `encode_prepared` does."""
        ...

    def encode_prepared(self, clips: Sequence[Any]) -> list[np.ndarray]:
        """Encodes prepared clips: [rows, num_latent] float32 each.

        Several threads may call it at once.
        """
        ...


@contextlib.contextmanager
def encoding(
    clips: Iterable[_Item],
    encoder: Encoder,
    batch_size: int,
    across_keys: bool = False,
) -> Iterator[Iterator[_Encoded]]:
    """Encodes clips in the block, while others are read and written.

    On processors each clip has a call of its own, and there are as many calls at once
    as cores. GPUs get batches. All clips of a batch have the same key. So the result
    for a key does not depend on clips with other keys, nor on where a run began.

    Args:
      clips: (key, clip or error) pairs; those with equal keys are adjacent.
      encoder: the model.
      batch_size: on GPUs, the largest number of clips in a batch; fewer if they are
        long.
      across_keys: whether a batch may contain clips with different keys.

    Yields:
      An iterator over (key, embedding or error) pairs, in the order of the clips.
    """
    calls_at_once = 1
    if not tf.config.list_logical_devices("GPU"):
        batch_size, calls_at_once = 1, num_cores()
    batches = ahead(_batches(clips, encoder, batch_size, across_keys), _BATCHES_AHEAD)
    results = ahead(_encoded(batches, encoder, calls_at_once), _RESULTS_AHEAD)
    try:
        yield results
    except KeyboardInterrupt:  # does not wait for a batch, which may take long
        raise
    except BaseException:
        results.close()
        raise
    results.close()


def _batches(
    clips: Iterable[_Item], encoder: Encoder, batch_size: int, across_keys: bool
) -> Generator[list[_Prepared], None, None]:
    batch: list[_Prepared] = []
    held = 0  # samples in the batch
    for key, clip in clips:
        # Errors count too: a batch must end at the same place in every run.
        if batch and (
            (batch[0][0] != key and not across_keys)
            or len(batch) == batch_size
            or held >= _SAMPLES_AT_ONCE
        ):
            yield batch
            batch, held = [], 0
        prepared = clip if isinstance(clip, NSynthError) else _prepared(clip, encoder)
        batch.append((key, prepared))
        held += _num_samples(batch[-1])
    if batch:
        yield batch


def _num_samples(item: _Prepared) -> int:
    return 0 if isinstance(item[1], NSynthError) else len(item[1][1].audio)


def _prepared(clip: Clip, encoder: Encoder) -> tuple[Any, Clip] | NSynthError:
    try:
        audio = encoder.check_clip(clip.audio, clip.where)
        return encoder.prepare(audio), clip._replace(audio=audio)
    except NSynthError as error:
        return error


def _encoded(
    batches: Generator[list[_Prepared], None, None],
    encoder: Encoder,
    calls_at_once: int,
) -> Iterator[_Encoded]:
    """Encodes batches, several at a time; the results are in their order."""
    encoder.load()  # while the first clips are read, and not in each of the threads
    pool = ThreadPoolExecutor(calls_at_once)
    calls: collections.deque[tuple[int, Future[list[_Encoded]]]] = collections.deque()

    def is_full() -> bool:
        # One call more than there are threads, so that none of them has to wait.
        return len(calls) > calls_at_once or (
            len(calls) > 1
            and sum(size for size, _ in calls) > calls_at_once * _SAMPLES_PER_CALL
        )

    try:
        with contextlib.closing(batches):
            for batch in batches:
                size = sum(map(_num_samples, batch))
                calls.append((size, pool.submit(_encoded_batch, batch, encoder)))
                while is_full():
                    yield from calls.popleft()[1].result()
        for _, call in calls:
            yield from call.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encoded_batch(batch: list[_Prepared], encoder: Encoder) -> list[_Encoded]:
    good = [entry[0] for _, entry in batch if not isinstance(entry, NSynthError)]
    rows = iter(encoder.encode_prepared(good) if good else ())
    return [
        (key, entry)
        if isinstance(entry, NSynthError)
        else (key, _embedding(entry[1], next(rows)))
        for key, entry in batch
    ]


def _embedding(clip: Clip, rows: np.ndarray) -> Embedding | NSynthError:
    try:
        check_finite(rows, clip.where)
    except NSynthError as error:
        return error
    return Embedding(clip.name, clip.where, rows, len(clip.audio), clip.labels)


def ahead(iterable: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yields the same elements, made by a thread that is up to `depth` ahead.

    An error of the iterable is raised after the elements before it. Closing the
    generator ends the thread and waits for it, because a thread inside TensorFlow can
    crash the program when it exits. Only Ctrl-C does not wait.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(entry, timeout=0.1)
                return True
        return False

    def work() -> None:
        iterator = iter(iterable)
        try:
            for element in iterator:
                if not put((False, element)):
                    return
            put((True, None))
        except BaseException as error:
            put((True, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=work, daemon=True)

    def elements() -> Generator[T, None, None]:
        thread.start()
        interrupted = False
        try:
            while True:
                is_end, element = ready.get()
                if not is_end:
                    yield element
                elif element is None:
                    return
                else:
                    raise element
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            stop.set()
            if not interrupted:
                thread.join()

    return elements()
