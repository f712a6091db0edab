"""The WaveNet autoencoder as one object, for notebooks and for the binaries."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.api.sounds import as_clips, as_embeddings
from magenta_nsynth.audio import trim_to_frames
from magenta_nsynth.embeddings.clip_encoder import ClipEncoder
from magenta_nsynth.embeddings.embedding import check_encoding
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
from magenta_nsynth.progress import reporting
from magenta_nsynth.weights import engine
from magenta_nsynth.weights.checkpoint import CheckpointLike, open_checkpoint
from magenta_nsynth.weights.summary import summarize

__all__ = ["WaveNet", "load_wavenet"]

# Frames per piece of a clip in `nll`. At full width a frame takes 2 MB of memory.
_NLL_FRAMES = 64


class WaveNet:
    """A WaveNet checkpoint's encoder and decoder, loaded when first needed.

    Attributes:
      name: "wavenet".
      checkpoint: the opened checkpoint.
      checkpoint_path: its prefix.
      config: the config read from it.
      use_ema: whether the weights are the averaged ones.
      uses_pitch: False, because generating a sound doesn't take its pitch.
      makes_steps: True, because `sounds` is slow, and yields many blocks.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> model = nsynth.WaveNet("checkpoints/small")
      >>> organ = "checkpoints/notes/organ_acoustic_019-060-100.wav"
      >>> z = model.encode(organ, sample_length=2048)
      >>> z.shape
      (4, 16)
      >>> model.generate(z, num_samples=100, seed=0).shape
      (100,)
      >>> blocks = list(model.stream([z], num_samples=100, seed=0))
      >>> blocks[0].shape, sum(block.shape[1] for block in blocks)
      ((1, 16), 100)
    """

    name = "wavenet"
    uses_pitch = False
    makes_steps = True

    def __init__(
        self,
        checkpoint_path: CheckpointLike,
        use_ema: bool = False,
        hop_length: int | None = None,
        num_stages: int | None = None,
        dtype: Any = None,
    ) -> None:
        """Opens a TF1 checkpoint and reads its config, but no weights yet.

        Args:
          checkpoint_path: a prefix, one of its files, or the folder; "small", the
            bundled one; or an opened checkpoint.
          use_ema: loads the averages of the weights instead of the weights themselves.
          hop_length: samples per frame, if it is neither 512 nor in config.json.
          num_stages: layers per cycle of dilations, if it is neither 10 nor there.
          dtype: a Keras dtype or policy, such as "mixed_bfloat16". Generation
            computes in float32 or int8 all the same.

        Raises:
          CheckpointError: it can't be read, or is another model's.
        """
        self.checkpoint = open_checkpoint(checkpoint_path)
        self.checkpoint_path = self.checkpoint.prefix
        self.config = engine.read_wavenet_config(
            self.checkpoint, hop_length, num_stages
        )
        self.use_ema = use_ema
        self._dtype = dtype
        self._engines: dict[tuple[int, float, str], StepwiseDecoder] = {}

    @functools.cached_property
    def encoder(self) -> WaveNetEncoder:
        """The encoder, a Keras model."""
        return engine.load_part(
            WaveNetEncoder, self.checkpoint, self.config, self.use_ema, self._dtype
        )

    @functools.cached_property
    def decoder(self) -> WaveNetDecoder:
        """The teacher-forced decoder, a Keras model."""
        return engine.load_part(
            WaveNetDecoder, self.checkpoint, self.config, self.use_ema, self._dtype
        )

    @functools.cached_property
    def _clip_encoder(self) -> ClipEncoder:
        return ClipEncoder(self.encoder)

    def __repr__(self) -> str:
        averaged = ", averaged weights" if self.use_ema else ""
        return (
            f"<WaveNet {self.checkpoint_path!r}: {self.num_latent} numbers per "
            f"{self.config.ae_hop_length} samples, width {self.config.width}{averaged}>"
        )

    def summary(self) -> None:
        """Prints the checkpoint's layers, embedding, parameters, step and contents."""
        config = self.config
        print(summarize(self.checkpoint, config.ae_hop_length, config.num_stages))

    def encode(
        self, sounds: Any, sample_length: int = 0, batch_size: int = 16
    ) -> np.ndarray | list[np.ndarray]:
        """Encodes sounds of any length.

        Args:
          sounds: a path; an array [t], [t, 1], [b, t] or [b, t, 1] at 16 kHz; or a list
            of paths and arrays [t] of any lengths. Arrays are floats in [-1, 1] or 8-,
            16- or 32-bit integers of full range, and whatever np.asarray takes.
          sample_length: cuts each sound to this many samples; 0 keeps all.
          batch_size: on GPUs, the most clips to encode side by side. On processors
            they are encoded one by one, as many at once as there are cores.

        Returns:
          float32 [frames, bottleneck] for one sound; [b, frames, bottleneck] for
          [b, t] and [b, t, 1]; a list for a list. frames = samples // hop length.

        Raises:
          InputError: another shape or dtype, several channels, or values that aren't
            finite.
          AudioError: a file that can't be read, or a clip shorter than a frame.
        """
        clips, pack = as_clips(sounds, sample_length, self.check_clip)
        return pack(self._clip_encoder(clips, batch_size))

    @property
    def min_samples(self) -> int:
        """The number of samples in the shortest clip: one frame."""
        return self.config.ae_hop_length

    @property
    def num_latent(self) -> int:
        """The size of an embedding's row."""
        return self.config.ae_bottleneck_width

    def check_clip(self, audio: np.ndarray, name: str) -> np.ndarray:
        """The clip's whole frames; AudioError if there are none."""
        return trim_to_frames(audio, self.config.ae_hop_length, name)

    def prepare(self, clip: np.ndarray) -> np.ndarray:
        """The input of `encode_prepared`: the clip [t] float32 itself."""
        return clip

    def load(self) -> None:
        """Loads the encoder; else the first clip does."""
        _ = self._clip_encoder

    def encode_prepared(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encodes prepared clips side by side: [frames, bottleneck] float32 each."""
        return self._clip_encoder(clips, len(clips))

    def generate(
        self,
        encoding: Any,
        num_samples: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        uniforms: np.ndarray | None = None,
        progress: bool | Callable[[int, int], None] | None = None,
        precision: str = "float32",
    ) -> np.ndarray | list[np.ndarray]:
        """Generates sound from embeddings, sample by sample.

        Args:
          encoding: [frames, bottleneck], [b, frames, bottleneck], or a list of the
            first form with any numbers of frames.
          num_samples: samples per clip; by default as many as its frames represent.
          seed: each clip draws from np.random.RandomState(seed); None seeds it afresh.
          temperature: divides the logits; 0 takes the likeliest sample.
          uniforms: [samples, b] in [0, 1) to draw with, instead of a seed.
          progress: True shows a bar. A function is called with (samples done, total
            samples) every half second; if it raises an exception, generation stops.
          precision: "float32", or "int8": the layers' weights rounded to 8 bits, which
            is several times as fast on processors and is always done there. The draws
            differ, and may also differ between kinds of processors.

        Returns:
          float32 in [-1, 1] at 16 kHz: [t] for one embedding, [b, t] for a batch, a
          list for a list.

        Raises:
          InputError: another shape or precision, or more samples than the frames
            represent.
        """
        encodings, pack = as_embeddings(encoding, "embedding", self._check_encoding)
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
        stream = self.stream(encodings, total, seed, temperature, uniforms, precision)
        with reporting(progress, total, "samples") as report:
            for block in stream:
                blocks.append(block)
                done += block.shape[1]
                report(done)
        audio = np.concatenate(blocks, axis=1)
        return pack([clip[:n] for clip, n in zip(audio, lengths, strict=True)])

    def reconstruct(
        self,
        sounds: Any,
        sample_length: int = 0,
        seed: int | None = None,
        temperature: float = 1.0,
        progress: bool | Callable[[int, int], None] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Encodes sounds and generates them again from their embeddings.

        Args:
          sounds: as in `encode`.
          sample_length: as in `encode`.
          seed: as in `generate`.
          temperature: as in `generate`.
          progress: as in `generate`.

        Returns:
          float32 in [-1, 1] at 16 kHz, in the form of `sounds`: whole frames, so that
          up to a hop length less one sample is missing at the end.

        Raises:
          InputError: as in `encode`.
          AudioError: as in `encode`.

        Examples:
          >>> import magenta_nsynth as nsynth
          >>> model = nsynth.load_wavenet("checkpoints/small")
          >>> note = "checkpoints/notes/organ_acoustic_019-060-100.wav"
          >>> model.reconstruct(note, sample_length=1024, seed=0).shape
          (1024,)
        """
        encoding = self.encode(sounds, sample_length)
        return self.generate(
            encoding, seed=seed, temperature=temperature, progress=progress
        )

    def stream(
        self,
        encodings: Sequence[np.ndarray],
        num_samples: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        uniforms: np.ndarray | None = None,
        precision: str = "float32",
    ) -> Iterator[np.ndarray]:
        """As `generate`, but yields blocks [b, n] float32 as they are generated.

        Args:
          encodings: [frames, bottleneck] for each clip. All clips are as long as the
            longest; ignore what is beyond a shorter clip's end.
          num_samples: as in `generate`.
          seed: as in `generate`.
          temperature: as in `generate`.
          uniforms: as in `generate`.
          precision: as in `generate`.
        """
        encodings = [self._check_encoding(z, "embedding") for z in encodings]
        frames = max(len(z) for z in encodings)
        padded = np.stack(
            [np.pad(z, [(0, frames - len(z)), (0, 0)]) for z in encodings]
        )
        engine_of_size = self._engine(len(encodings), temperature, precision)
        return stream(engine_of_size, padded, num_samples, seed, uniforms)

    @property
    def files(self) -> EmbeddingFiles:
        """How embeddings are saved and read."""
        return files_of(self.config, self.num_latent)

    def peak(self, audio: np.ndarray, prepared: np.ndarray) -> float:
        """The peak of a clip [t]."""
        del prepared
        return float(np.abs(audio).max())

    def check_generation(
        self, options: Generation, embeddings: Sequence[Embedding] = ()
    ) -> None:
        """Raises InputError for options that a WaveNet doesn't have."""
        del embeddings
        refuse_other_model(options, "wavenet")
        check_limits(options)

    def sounds(
        self, embeddings: Sequence[Embedding], options: Generation
    ) -> Iterator[np.ndarray]:
        """Generates sounds side by side, in blocks like those of `stream`."""
        rows = [embedding.rows for embedding in embeddings]
        return self.stream(
            rows,
            seed=options.seed,
            temperature=options.temperature,
            precision=options.precision,
        )

    def finish(
        self, embedding: Embedding, audio: np.ndarray, options: Generation
    ) -> np.ndarray:
        """Returns a finished sound [t], scaled to a peak of 1 if normalized."""
        del embedding
        return audio / max(np.abs(audio).max(), 1e-9) if options.normalize else audio

    def nll(self, sound: Any) -> float:
        """The negative log likelihood of a sound, in nats per sample.

        Args:
          sound: a path or an array as in `encode`; the mean is over all samples.

        Returns:
          The teacher-forced loss. Divide by ln 2 for bits per sample.
        """
        clips, _ = as_clips(sound, 0, self.check_clip)
        hop = self.config.ae_hop_length
        taps = self.config.filter_length - 1
        # How far a prediction looks back, in frames: the context of a piece.
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
        decoder = self.decoder  # loaded now, not while the function is traced
        return tf.function(lambda audio, z: decoder(audio, z), reduce_retracing=True)

    def _engine(
        self, batch_size: int, temperature: float, precision: str
    ) -> StepwiseDecoder:
        key = (batch_size, temperature, precision)
        if key not in self._engines:
            self._engines.clear()  # only one is kept: each takes some 100 MB
            self._engines[key] = StepwiseDecoder(
                self.decoder, batch_size, temperature, precision=precision
            )
        return self._engines[key]

    def _check_encoding(self, encoding: np.ndarray, name: str) -> np.ndarray:
        return check_encoding(encoding, self.num_latent, name)


load_wavenet = WaveNet  # the same call, named like `load_model`
