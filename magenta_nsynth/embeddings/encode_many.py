"""Encoding many clips: reading, encoding and writing run side by side.

    clips (read by threads) -- ahead --> batches, encoded -- ahead --> written

Each stage is at most a few steps ahead of the next one, so the memory does not grow
with the number of clips.
"""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from magenta_nsynth.embeddings.embedding import Embedding, check_finite
from magenta_nsynth.errors import NSynthError
from magenta_nsynth.notes.clips import Clip

__all__ = ["Encoder", "ahead", "encoding"]

# A batch with this much audio takes no more clips: long clips don't wait for others.
_SAMPLES_AT_ONCE = 16 * 64_000
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

    def encode_prepared(self, clips: Sequence[Any]) -> list[np.ndarray]:
        """Encodes prepared clips side by side: [rows, num_latent] float32 each."""
        ...


@contextlib.contextmanager
def encoding(
    clips: Iterable[_Item],
    encoder: Encoder,
    batch_size: int,
    across_keys: bool = False,
) -> Iterator[Iterator[_Encoded]]:
    """Encodes clips in batches in the block, while others are read and written.

    All clips of a batch have the same key. So the result for a key does not depend on
    clips with other keys, nor on where a run began.

    Args:
      clips: (key, clip or error) pairs; those with equal keys are adjacent.
      encoder: the model.
      batch_size: the largest number of clips encoded side by side; fewer if they are
        long.
      across_keys: whether a batch may contain clips with different keys.

    Yields:
      An iterator over (key, embedding or error) pairs, in the order of the clips.
    """
    batches = ahead(_batches(clips, encoder, batch_size, across_keys), _BATCHES_AHEAD)
    results = ahead(_encoded(batches, encoder), _RESULTS_AHEAD)
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
        if not isinstance(prepared, NSynthError):
            held += len(prepared[1].audio)
    if batch:
        yield batch


def _prepared(clip: Clip, encoder: Encoder) -> tuple[Any, Clip] | NSynthError:
    try:
        audio = encoder.check_clip(clip.audio, clip.where)
        return encoder.prepare(audio), clip._replace(audio=audio)
    except NSynthError as error:
        return error


def _encoded(
    batches: Generator[list[_Prepared], None, None], encoder: Encoder
) -> Iterator[_Encoded]:
    with contextlib.closing(batches):
        for batch in batches:
            good = [
                entry[0] for _, entry in batch if not isinstance(entry, NSynthError)
            ]
            results = iter(encoder.encode_prepared(good) if good else ())
            for key, entry in batch:
                if isinstance(entry, NSynthError):
                    yield key, entry
                else:
                    yield key, _embedding(entry[1], next(results))


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
