"""What all that writes embeddings stands on: reading, encoding and writing overlap.

    clips (threads) ── ahead ── batches, encoded ── ahead ── whoever writes

Each stage runs a few steps before the next one, and no further, so the memory does not
grow with the number of clips.
"""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from magenta_nsynth.embeddings.arrays import check_finite
from magenta_nsynth.embeddings.files import Embedding
from magenta_nsynth.errors import NSynthError
from magenta_nsynth.notes.clips import Clip

__all__ = ["Encoder", "ahead", "encoding"]

# Audio of one batch, beyond its last clip: long clips don't wait for others.
_SAMPLES_AT_ONCE = 16 * 64_000
# Steps that a stage may be before the next.
_BATCHES_AHEAD, _RESULTS_AHEAD = 1, 32

T = TypeVar("T")
_Item = tuple[Any, Clip | NSynthError]


class Encoder(Protocol):
    """What encodes: `api.WaveNet` and `api.Baseline` do.

    Attributes:
      num_latent: numbers in a row of an embedding.
      min_samples: the shortest clip.
    """

    num_latent: int
    min_samples: int

    def check_clip(self, audio: np.ndarray, name: str) -> np.ndarray:
        """The part of the audio that is used; an AudioError if there is none."""
        ...

    def prepare(self, clip: np.ndarray) -> Any:
        """What the network takes of a clip: whatever can be done before it."""
        ...

    def encode_prepared(self, clips: Sequence[Any]) -> list[np.ndarray]:
        """[rows, num_latent] float32 for each prepared clip."""
        ...


@contextlib.contextmanager
def encoding(
    clips: Iterable[tuple[Any, Clip | NSynthError]],
    encoder: Encoder,
    batch_size: int,
    across_keys: bool = False,
) -> Iterator[Iterator[tuple[Any, Embedding | NSynthError]]]:
    """Encodes clips in batches, while others are read and written in the block.

    A batch is of clips with one key, so what comes out for them does not depend on
    what is beside them: not on clips of another key, nor on where a run began.

    Args:
      clips: (key, the clip or why there is none); equal keys one after the other.
      encoder: the model.
      batch_size: clips that go through it side by side, at most. Long ones are fewer.
      across_keys: lets a batch hold clips of several keys.

    Yields:
      An iterator of (key, the embedding or why there is none), in order.
    """
    batches = ahead(_batches(clips, encoder, batch_size, across_keys), _BATCHES_AHEAD)
    results = ahead(_encoded(batches, encoder), _RESULTS_AHEAD)
    try:
        yield results
    except KeyboardInterrupt:  # there is no waiting for a batch, which may take long
        raise
    except BaseException:
        results.close()
        raise
    results.close()


def _batches(
    clips: Iterable[_Item], encoder: Encoder, batch_size: int, across_keys: bool
) -> Iterator[list[tuple[Any, Any]]]:
    """Lists of (key, error or (prepared, clip))."""
    batch: list[tuple[Any, Any]] = []
    held = 0
    for key, clip in clips:
        # Errors count as well: where the batches end must not depend on luck.
        if batch and (
            (batch[0][0] != key and not across_keys)
            or len(batch) == batch_size
            or held >= _SAMPLES_AT_ONCE
        ):
            yield batch
            batch, held = [], 0
        if isinstance(clip, Clip):
            try:
                audio = encoder.check_clip(clip.audio, clip.where)
                prepared = encoder.prepare(audio)
                entry: Any = (prepared, clip._replace(audio=audio))
                held += len(audio)
            except NSynthError as error:
                entry = error
        else:
            entry = clip
        batch.append((key, entry))
    if batch:
        yield batch


def _encoded(
    batches: Iterator[list[tuple[Any, Any]]], encoder: Encoder
) -> Iterator[tuple[Any, Embedding | NSynthError]]:
    with contextlib.closing(batches):
        for batch in batches:
            good = [entry for _, entry in batch if not isinstance(entry, NSynthError)]
            results = iter(
                encoder.encode_prepared([prepared for prepared, _ in good])
                if good
                else ()
            )
            for key, entry in batch:
                if isinstance(entry, NSynthError):
                    yield key, entry
                    continue
                _, clip = entry
                rows = next(results)
                try:
                    check_finite(rows, clip.where)
                except NSynthError as error:
                    yield key, error
                else:
                    num_samples, labels = len(clip.audio), clip.labels
                    yield (
                        key,
                        Embedding(clip.name, clip.where, rows, num_samples, labels),
                    )


def ahead(iterable: Iterable[T], depth: int) -> Iterator[T]:
    """The same elements, made in a thread of their own, up to `depth` ahead.

    What the iterable raises is raised here, after the elements before it. Closing the
    iterator ends the thread and waits for it: it may be within TensorFlow, where the
    end of the program would catch it badly. Only Ctrl-C does not wait.
    """
    ready: queue.Queue = queue.Queue(depth)
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

    def elements() -> Iterator[T]:
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
