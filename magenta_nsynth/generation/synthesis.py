"""Draws and blocks around the stepwise decoder: from embeddings to sound."""

import time
from collections.abc import Iterator

import numpy as np

from magenta_nsynth.audio.mu_law import class_values
from magenta_nsynth.errors import InputError
from magenta_nsynth.generation.stepwise import StepwiseDecoder

__all__ = ["stream", "uniform_draws"]

# The time that a block should take, so that progress moves and Ctrl-C works.
_SECONDS_PER_BLOCK = 0.5
_FIRST_BLOCK = 16


def uniform_draws(
    batch_size: int, seed: int | None = None
) -> list[np.random.RandomState]:
    """A random generator per clip, all with the same seed; None seeds each afresh.

    With one seed for all, a file's sound does not depend on the other files. At batch
    size 1 the draws are the original's after np.random.seed(seed).
    """
    return [np.random.RandomState(seed) for _ in range(batch_size)]


def stream(
    engine: StepwiseDecoder,
    encoding: np.ndarray,
    num_samples: int | None = None,
    seed: int | None = None,
    uniforms: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Generates sound block by block, from the first sample.

    Args:
      engine: a decoder with the encoding's batch size.
      encoding: [b, frames, bottleneck] float32.
      num_samples: samples per clip; by default as many as the frames represent.
      seed: as for `uniform_draws`.
      uniforms: [num_samples, b] float64 in [0, 1) to draw with, instead of `seed`.

    Yields:
      [b, n] float32 in [-1, 1] at 16 kHz. A block takes about half a second.

    Raises:
      InputError: more samples than the frames represent, or than there are uniforms.
    """
    limit = engine.config.num_samples(encoding.shape[1])
    total = limit if num_samples is None else num_samples
    if uniforms is not None and num_samples is None:
        total = min(limit, len(uniforms))
    if total > limit or (uniforms is not None and total > len(uniforms)):
        given = "" if uniforms is None else f", and there are {len(uniforms)} uniforms"
        raise InputError(
            f"{total} samples were requested; the embedding has {encoding.shape[1]} "
            f"frames, for {limit}{given}."
        )
    draws = uniform_draws(engine.batch_size, seed)
    values = class_values()
    engine.reset()
    block, done, first = _FIRST_BLOCK, 0, True
    while done < total:
        count = min(block, total - done)
        if uniforms is None:
            u = np.stack([draw.random_sample(count) for draw in draws], axis=1)
        else:
            u = np.asarray(uniforms[done : done + count])
        begin = time.perf_counter()
        classes = engine.run(encoding, u)
        seconds = time.perf_counter() - begin
        done += count
        if not first:  # the first run includes compilation
            block = max(_FIRST_BLOCK, int(count / seconds * _SECONDS_PER_BLOCK))
        first = False
        yield values[classes]
