"""The decoder, one sample at a time: its past is kept instead of recomputed."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.audio.mu_law import class_values
from magenta_nsynth.config import NUM_CLASSES, PRECISIONS
from magenta_nsynth.errors import InputError
from magenta_nsynth.generation.compiled import compiled_engines
from magenta_nsynth.models.wavenet import WaveNetDecoder

__all__ = ["StepwiseDecoder", "input_levels"]


class _Engine(Protocol):
    """Draws some of the clips: a `PackedEngine` or a `CompiledEngine`."""

    batch_size: int

    def reset(self) -> None:
        """Forgets the past."""

    def draw(
        self, encoding: np.ndarray, uniforms: np.ndarray, start: int
    ) -> np.ndarray:
        """Draws the next n samples of each clip.

        Args:
          encoding: [frames, b, bottleneck] float32, from the frame of `start` on.
          uniforms: [n, b] float64 in [0, 1).
          start: the number of the first sample.

        Returns:
          [n, b] classes in 0..255.
        """
        ...


# Of a decoder, a batch size, the input level of each class, and a temperature.
_MakeEngines = Callable[[WaveNetDecoder, int, np.ndarray, float], Sequence[_Engine]]
# By name and precision.
_ENGINES: dict[tuple[str, str], _MakeEngines] = {
    ("compiled", "float32"): compiled_engines
}
with contextlib.suppress(ImportError):  # a future TensorFlow may lack TensorFlow Lite
    from magenta_nsynth.generation.packed import packed_engines

    for _precision in PRECISIONS:
        _ENGINES["packed", _precision] = functools.partial(
            packed_engines, precision=_precision
        )


class StepwiseDecoder:
    """Draws samples from a `WaveNetDecoder`, a block at a time.

    A clip's samples depend neither on its batch nor on the number of threads.

    Attributes:
      config: the decoder's.
      batch_size: clips drawn side by side.
      position: samples drawn since `reset`.

    Source: NSynth, fastgen, and Fast WaveNet (arXiv 1611.09482). Differs: the past is
    kept in rings instead of queues, past taps are computed ahead, and it computes in
    float32 whatever the decoder's dtype.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> from magenta_nsynth.generation.stepwise import StepwiseDecoder
      >>> from magenta_nsynth.models.wavenet import WaveNetDecoder
      >>> config = nsynth.WaveNetConfig(width=8, skip_width=8, num_layers=3)
      >>> stepwise = StepwiseDecoder(WaveNetDecoder(config), batch_size=2)
      >>> z, uniforms = np.zeros([2, 1, 16], np.float32), np.random.rand(10, 2)
      >>> stepwise.run(z, uniforms).shape
      (2, 10)
    """

    def __init__(
        self,
        decoder: WaveNetDecoder,
        batch_size: int,
        temperature: float = 1.0,
        engine: str | None = None,
        precision: str = "float32",
    ) -> None:
        """Copies the decoder's weights into the form that the engine reads.

        Args:
          decoder: the decoder with its weights. It is not needed afterwards.
          batch_size: 1 or more.
          temperature: divides the logits; 0 takes the likeliest class.
          engine: "packed", for processors only, or "compiled", for float32 only. The
            default is "packed" unless TensorFlow finds a GPU and precision is float32.
          precision: "float32", or "int8": most weights rounded to 8 bits.

        Raises:
          InputError: batch_size below 1, a negative temperature, another precision, or
            one that the engine does not have.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, not {batch_size}.")
        if not temperature >= 0:
            raise InputError(f"temperature must be 0 or more, not {temperature}.")
        if precision not in PRECISIONS:
            raise InputError(
                f"precision must be {' or '.join(PRECISIONS)}, not {precision!r}."
            )
        if engine is None:
            engine, precision = _choose_engine(precision)
        elif (engine, precision) not in _ENGINES:
            raise InputError(f"There is no engine {engine!r} with {precision}.")
        self.config = decoder.config
        self.batch_size = batch_size
        self.position = 0
        # Each draws some of the clips, on its own GPU or its own cores.
        self._engines = _ENGINES[engine, precision](
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
          encoding: [b, frames, bottleneck] float32, from the start of the clips.
          uniforms: [n, b] float64 in [0, 1), one per sample and clip.

        Returns:
          [b, n] classes in 0..255; `class_values()[classes]` is the audio.

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
                f"{self.position + count} were requested."
            )
        block = encoding[:, frames.start : frames.stop].transpose(1, 0, 2)
        classes = self._draw(block.astype(np.float32), uniforms.astype(np.float64))
        self.position += count
        return classes.T

    def _draw(self, encoding: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Has each engine draw its clips: [frames, b, z] and [n, b] -> [n, b]."""
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
        finally:  # after Ctrl-C nothing may still modify the engines' past
            wait(jobs)
        return classes[:, : self.batch_size]


def _choose_engine(precision: str) -> tuple[str, str]:
    """The engine for this machine, and the precision that it has."""
    if ("packed", precision) not in _ENGINES:
        if precision != "float32":
            logging.warning(
                "This TensorFlow comes without TensorFlow Lite: sounds are generated "
                "in float32, not in %s.",
                precision,
            )
        return "compiled", "float32"
    on_gpu = precision == "float32" and tf.config.list_logical_devices("GPU")
    return "compiled" if on_gpu else "packed", precision


def input_levels(companded: bool) -> np.ndarray:
    """The network's next input after each class, [256] float32."""
    if not companded:
        return class_values()
    return ((np.arange(NUM_CLASSES) - NUM_CLASSES // 2) / 128.0).astype(np.float32)
