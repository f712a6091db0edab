"""The WaveNet autoencoder as one object, for notebooks and for the binaries."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.api.sounds import as_clips
from magenta_nsynth.audio import trim_to_frames
from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.embeddings.arrays import check_encoding
from magenta_nsynth.embeddings.clip_encoder import ClipEncoder
from magenta_nsynth.embeddings.files import Embedding, EmbeddingFiles, files_of
from magenta_nsynth.errors import InputError
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.generation.stepwise import StepwiseDecoder
from magenta_nsynth.generation.synthesis import stream
from magenta_nsynth.models.wavenet import (
    WaveNetDecoder,
    WaveNetEncoder,
    negative_log_likelihood,
)
from magenta_nsynth.options import check_limits, refuse_other_model
from magenta_nsynth.weights import engine
from magenta_nsynth.weights.checkpoint import Checkpoint

__all__ = ["WaveNet", "load_wavenet"]

# Frames of one piece of a clip in `nll`: each costs 2 MB of memory at full width.
_NLL_FRAMES = 64


class WaveNet:
    """A checkpoint's encoder and decoder; each is loaded when first needed.

    Attributes:
      config: the `WaveNetConfig` read from the checkpoint.
      checkpoint_path: its prefix.
      use_ema: whether the weights are the averaged ones.
    """

    def __init__(
        self,
        checkpoint_path: str | os.PathLike,
        use_ema: bool = False,
        hop_length: int | None = None,
        num_stages: int | None = None,
        dtype: Any = None,
    ) -> None:
        """Opens a TF1 checkpoint and reads its config; no weights yet.

        Args:
          checkpoint_path: a prefix, one of its files, or the folder.
          use_ema: the averages of the weights in place of the weights themselves.
          hop_length: samples per frame, if neither 512 nor said by config.json.
          num_stages: layers in a cycle of dilations, if neither 10 nor said there.
          dtype: Keras' dtype or policy, such as "mixed_bfloat16". Generation
            computes in float32 always.

        Raises:
          CheckpointError: it can't be read, or is no WaveNet's.
        """
        checkpoint = Checkpoint(checkpoint_path)
        engine.require_model(checkpoint, "wavenet")
        self.checkpoint_path = checkpoint.prefix
        self.use_ema = use_ema
        self.config: WaveNetConfig = engine.read_config(
            checkpoint, hop_length, num_stages
        )
        self._engines: dict[tuple[int, float], StepwiseDecoder] = {}
        self._options = {
            "use_ema": use_ema,
            "hop_length": hop_length,
            "num_stages": num_stages,
            "dtype": dtype,
        }

    @functools.cached_property
    def encoder(self) -> WaveNetEncoder:
        """The encoder, a Keras model."""
        return engine.load_encoder(self.checkpoint_path, **self._options)

    @functools.cached_property
    def decoder(self) -> WaveNetDecoder:
        """The teacher-forced decoder, a Keras model."""
        return engine.load_decoder(self.checkpoint_path, **self._options)

    @functools.cached_property
    def _clip_encoder(self) -> ClipEncoder:
        return ClipEncoder(self.encoder)

    def encode(
        self, sounds: Any, sample_length: int = 0, batch_size: int = 16
    ) -> np.ndarray | list[np.ndarray]:
        """Encodes sounds of any length.

        Args:
          sounds: a file's path; an array [t], [b, t] or [b, t, 1] of floats in
            [-1, 1] at 16 kHz; or a list of paths and arrays [t], of any lengths.
          sample_length: cuts each to so many samples first; 0 takes all.
          batch_size: clips that go through the network side by side, at most.

        Returns:
          float32 [frames, bottleneck] for a path or [t]; [b, frames, bottleneck] for
          [b, t] and [b, t, 1]; a list for a list. frames = samples // hop length.

        Raises:
          InputError: another shape or dtype, or values that aren't finite.
          AudioError: a file that can't be read, or a clip under one frame.
        """
        clips, pack = self._clips(sounds, sample_length)
        return pack(self._clip_encoder(clips, batch_size))

    @property
    def min_samples(self) -> int:
        """The shortest clip: one frame."""
        return self.config.ae_hop_length

    @property
    def num_latent(self) -> int:
        """Numbers in a row of the embedding."""
        return self.config.ae_bottleneck_width

    def check_clip(self, audio: np.ndarray, name: str) -> np.ndarray:
        """The clip's whole frames; an AudioError that names it, if there are none."""
        return trim_to_frames(audio, self.config.ae_hop_length, name)

    def prepare(self, clip: np.ndarray) -> np.ndarray:
        """What `encode_prepared` takes: the clip [t] float32 itself."""
        return clip

    def encode_prepared(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`encode` of prepared clips side by side: [frames, bottleneck] each."""
        return self._clip_encoder(clips, len(clips))

    def generate(
        self,
        encoding: Any,
        num_samples: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        uniforms: np.ndarray | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Generates sound from embeddings, sample by sample.

        Args:
          encoding: [frames, bottleneck], [b, frames, bottleneck], or a list of the
            first of any lengths.
          num_samples: of each clip; by default all that its frames stand for.
          seed: each clip draws from np.random.RandomState(seed); None is fresh.
          temperature: the logits are divided by it; 0 takes the likeliest sample.
          uniforms: [samples, b] in [0, 1) to draw with, in place of a seed.
          progress: called with (samples done, samples in all) every half second; an
            exception that it raises stops the generation.

        Returns:
          float32 in [-1, 1] at 16 kHz: [t] for one embedding, [b, t] for a batch, a
          list for a list.

        Raises:
          InputError: another shape, or more samples than the frames stand for.
        """
        encodings, pack = self._encodings(encoding)
        lengths = [
            self.config.num_samples(len(z)) if num_samples is None else num_samples
            for z in encodings
        ]
        for z, length in zip(encodings, lengths, strict=True):
            if not 0 < length <= self.config.num_samples(len(z)):
                raise InputError(
                    f"num_samples must be 1 to {self.config.num_samples(len(z))} for "
                    f"{len(z)} frames, not {length}."
                )
        blocks, done, total = [], 0, max(lengths)
        if uniforms is not None:
            total = min(total, len(uniforms))
        for block in self.stream(encodings, total, seed, temperature, uniforms):
            blocks.append(block)
            done += block.shape[1]
            if progress is not None:
                progress(done, total)
        audio = np.concatenate(blocks, axis=1)
        return pack([clip[:n] for clip, n in zip(audio, lengths, strict=True)])

    def stream(
        self,
        encodings: Sequence[np.ndarray],
        num_samples: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        uniforms: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """As `generate`, but yields blocks [b, n] float32 as they are made.

        Args:
          encodings: a sequence of [frames, bottleneck]. The blocks are as long as the
            longest needs; what lies past a shorter clip's end means nothing.
          num_samples: as in `generate`.
          seed: as in `generate`.
          temperature: as in `generate`.
          uniforms: as in `generate`.
        """
        encodings = [
            check_encoding(z, self.config.ae_bottleneck_width) for z in encodings
        ]
        frames = max(len(z) for z in encodings)
        padded = np.stack(
            [np.pad(z, [(0, frames - len(z)), (0, 0)]) for z in encodings]
        )
        engine_of_size = self._engine(len(encodings), temperature)
        return stream(engine_of_size, padded, num_samples, seed, uniforms)

    uses_pitch = False  # whether a note's pitch is needed to make its sound
    makes_steps = True  # whether `sounds` takes hours, and comes block by block

    @property
    def files(self) -> EmbeddingFiles:
        """How its embeddings are saved and read."""
        return files_of(self.config, self.num_latent)

    def peak(self, audio: np.ndarray, prepared: np.ndarray) -> float:
        """How loud a clip is at its peak."""
        del prepared
        return float(np.abs(audio).max())

    def check_generation(
        self, options: Generation, embeddings: Sequence[Embedding] = ()
    ) -> None:
        """Raises InputError for options that are not a WaveNet's."""
        del embeddings
        refuse_other_model(options, "wavenet")
        check_limits(options)

    def sounds(
        self, embeddings: Sequence[Embedding], options: Generation
    ) -> Iterator[np.ndarray]:
        """The sounds of embeddings side by side, in blocks, as of `stream`."""
        rows = [embedding.rows for embedding in embeddings]
        return self.stream(rows, None, options.seed, options.temperature)

    def finish(
        self, embedding: Embedding, audio: np.ndarray, options: Generation
    ) -> np.ndarray:
        """A finished sound [t], scaled to a peak of 1 if that is asked for."""
        del embedding
        return audio / max(np.abs(audio).max(), 1e-9) if options.normalize else audio

    def nll(self, sound: Any) -> float:
        """The negative log likelihood of a sound, in nats per sample.

        Args:
          sound: a path, or an array as in `encode`; the mean is over all of it.

        Returns:
          The teacher-forced loss. Divide by ln 2 for bits per sample.
        """
        clips, _ = self._clips(sound, 0)
        hop = self.config.ae_hop_length
        taps = self.config.filter_length - 1
        # Samples that a prediction looks back on, in frames: context for a piece.
        reach = -(-(1 + taps * (1 + sum(self.config.dilations))) // hop)
        total = count = 0.0
        for clip, z in zip(clips, self._clip_encoder(clips), strict=True):
            for first in range(0, len(z), _NLL_FRAMES):
                last = min(first + _NLL_FRAMES, len(z))
                start = max(first - reach, 0)
                audio = clip[None, start * hop : last * hop]
                logits = self._teacher_force(audio, z[None, start:last])
                kept = (last - first) * hop
                loss = negative_log_likelihood(audio[:, -kept:], logits[:, -kept:])
                total, count = total + float(loss) * kept, count + kept
        return total / count

    @functools.cached_property
    def _teacher_force(self) -> Callable[..., Any]:
        decoder = self.decoder  # loaded here: not while the function is traced
        return tf.function(lambda audio, z: decoder(audio, z), reduce_retracing=True)

    def _engine(self, batch_size: int, temperature: float) -> StepwiseDecoder:
        key = (batch_size, temperature)
        if key not in self._engines:  # only the last one is kept: each is some 100 MB
            self._engines = {
                key: StepwiseDecoder(self.decoder, batch_size, temperature)
            }
        return self._engines[key]

    def _clips(
        self, sounds: Any, sample_length: int
    ) -> tuple[list[np.ndarray], Callable[[list], Any]]:
        return as_clips(sounds, sample_length, self.check_clip)

    def _encodings(
        self, encoding: Any
    ) -> tuple[list[np.ndarray], Callable[[list], Any]]:
        width = self.config.ae_bottleneck_width
        if isinstance(encoding, list | tuple):
            if not encoding:
                raise InputError("An empty list of embeddings was given.")
            return [
                check_encoding(z, width, f"embedding {i}")
                for i, z in enumerate(encoding)
            ], list
        array = np.asarray(encoding)
        if array.ndim == 3 and len(array):
            return [check_encoding(z, width) for z in array], np.stack
        return [check_encoding(array, width)], lambda results: results[0]


def load_wavenet(checkpoint_path: str | os.PathLike, **options: Any) -> WaveNet:
    """Opens a checkpoint: `WaveNet(checkpoint_path, **options)`.

    Args:
      checkpoint_path: a prefix, one of its files, or the folder.
      **options: `use_ema`, `hop_length`, `num_stages`, `dtype`; see `WaveNet`.

    Raises:
      CheckpointError: it can't be read, or is no WaveNet's.
    """
    return WaveNet(checkpoint_path, **options)
