"""The decoder one sample at a time: its past is kept, not computed again."""

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol

import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.mu_law import class_values
from magenta_nsynth.config import NUM_CLASSES
from magenta_nsynth.errors import InputError
from magenta_nsynth.generation.compiled import compiled_engines
from magenta_nsynth.models.wavenet import WaveNetDecoder

try:
    from magenta_nsynth.generation.packed import packed_engines
except ImportError:  # TensorFlow may come without TensorFlow Lite one day
    packed_engines = None

__all__ = ["StepwiseDecoder", "input_levels"]

_ENGINES = {"compiled": compiled_engines, "packed": packed_engines}


class _Engine(Protocol):
    """What draws some of the clips: a `PackedEngine` or a `CompiledEngine`."""

    batch_size: int

    def reset(self) -> None:
        """Forgets the past."""

    def draw(
        self, encoding: np.ndarray, uniforms: np.ndarray, start: int
    ) -> np.ndarray:
        """[frames, b, z] from the frame of `start` on, [n, b] -> [n, b] classes."""


class StepwiseDecoder:
    """Draws samples from a `WaveNetDecoder`, a block at a time.

    A clip's samples depend neither on its batch nor on the engine's threads.

    Attributes:
      config: the decoder's.
      batch_size: clips drawn side by side.
      position: samples drawn since `reset`.

    Source: NSynth, fastgen, and Fast WaveNet (arXiv 1611.09482); differs: the past is
    a ring in place of queues, past taps are computed ahead, and it computes in float32
    always.
    """

    def __init__(
        self,
        decoder: WaveNetDecoder,
        batch_size: int,
        temperature: float = 1.0,
        engine: str | None = None,
    ) -> None:
        """Copies the decoder's weights into the form that the engine reads.

        Args:
          decoder: with its weights loaded. It may be deleted afterwards.
          batch_size: at least 1.
          temperature: the logits are divided by it; 0 takes the likeliest class.
          engine: "packed", for processors alone, or "compiled". By default the former,
            unless TensorFlow finds a GPU.

        Raises:
          InputError: batch_size under 1, a negative temperature.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, not {batch_size}.")
        if not temperature >= 0:
            raise InputError(f"temperature must be 0 or more, not {temperature}.")
        if engine is None:
            gpus = tf.config.list_logical_devices("GPU")
            engine = "compiled" if gpus or packed_engines is None else "packed"
        self.config = decoder.config
        self.batch_size = batch_size
        self.position = 0
        # Each has some of the clips, and a GPU or some of the cores.
        self._engines: list[_Engine] = _ENGINES[engine](
            decoder, batch_size, input_levels(self.config.rescale_inputs), temperature
        )
        self._pool = ThreadPoolExecutor(len(self._engines))

    def reset(self) -> None:
        """Forgets the past: the next sample is again the first."""
        self.position = 0
        for engine in self._engines:
            engine.reset()

    def run(self, encoding: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Draws the next n samples of each clip.

        Args:
          encoding: [b, frames, bottleneck] float32, of the clips from their start.
          uniforms: [n, b] float64 in [0, 1), one per sample and clip.

        Returns:
          [b, n] int32 classes in 0..255; `class_values()[classes]` is the audio.

        Raises:
          InputError: other shapes, or fewer frames than samples need.
        """
        count, hop = len(uniforms), self.config.ae_hop_length
        channels = self.config.ae_bottleneck_width
        frames = range(self.position // hop, -(-(self.position + count) // hop))
        if uniforms.shape[1:] != (self.batch_size,) or (
            encoding.shape[0],
            encoding.shape[2],
        ) != (self.batch_size, channels):
            raise InputError(
                f"Expected an encoding of shape [{self.batch_size}, frames, {channels}]"
                f" and uniforms of [samples, {self.batch_size}], not "
                f"{encoding.shape} and {uniforms.shape}."
            )
        if frames.stop > encoding.shape[1]:
            raise InputError(
                f"{encoding.shape[1]} frames give {encoding.shape[1] * hop} samples; "
                f"{self.position + count} were asked for."
            )
        block = encoding[:, frames.start : frames.stop].transpose(1, 0, 2)
        classes = self._draw(block.astype(np.float32), uniforms.astype(np.float64))
        self.position += count
        return classes.T

    def _draw(self, encoding: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """[frames, b, z] and [n, b] -> [n, b], each engine with its clips."""
        engines, start = self._engines, self.position
        if len(engines) == 1:
            return engines[0].draw(encoding, uniforms, start)
        padding = (0, sum(e.batch_size for e in engines) - self.batch_size)
        encoding = np.pad(encoding, [(0, 0), padding, (0, 0)])
        uniforms = np.pad(uniforms, [(0, 0), padding])
        parts = zip(
            engines,
            np.split(encoding, len(engines), axis=1),
            np.split(uniforms, len(engines), axis=1),
            strict=True,
        )
        jobs = [self._pool.submit(e.draw, z, u, start) for e, z, u in parts]
        try:
            classes = np.concatenate([job.result() for job in jobs], axis=1)
        finally:  # after Ctrl-C nothing may still write into the engines' past
            wait(jobs)
        return classes[:, : self.batch_size]


def input_levels(companded: bool) -> np.ndarray:
    """What each class is to the network as its next input, [256] float32."""
    if not companded:
        return class_values()
    return ((np.arange(NUM_CLASSES) - NUM_CLASSES // 2) / 128.0).astype(np.float32)
