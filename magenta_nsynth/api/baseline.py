"""The spectral autoencoder as one object, for notebooks and for the binaries."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.api.sounds import as_clips, as_embeddings
from magenta_nsynth.config import NUM_PITCHES, PHASES
from magenta_nsynth.data.reading import NOTE_SAMPLES
from magenta_nsynth.embeddings.embedding import check_z
from magenta_nsynth.embeddings.files import Embedding, EmbeddingFiles, files_of
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.models.spectral import (
    SpectralDecoder,
    SpectralEncoder,
    network_input,
    network_output,
    windows_of,
)
from magenta_nsynth.options import check_limits, refuse_changed, refuse_other_model
from magenta_nsynth.spectral import ispecgram, specgram
from magenta_nsynth.weights import engine
from magenta_nsynth.weights.checkpoint import CheckpointLike, open_checkpoint
from magenta_nsynth.weights.summary import summarize

__all__ = ["Baseline", "Prepared", "load_baseline"]

# For the networks and Griffin-Lim. On processors one window at a time is as fast, and
# its result does not depend on the others. (The last elements of a tensor are computed
# one by one and round differently, which Griffin-Lim would make audible.)
_WINDOWS_AT_ONCE = {"CPU": 1, "GPU": 16}


class Prepared(NamedTuple):
    """A clip as the network's input.

    Attributes:
      windows: [k, 512, 256, 1] float32.
      is_silent: whether nothing is above the spectrogram's floor. To the network this
        then looks like the loudest of sounds, as in the original.
    """

    windows: np.ndarray
    is_silent: bool


class Baseline:
    """A baseline checkpoint's encoder and decoder, loaded when first needed.

    Attributes:
      name: "baseline".
      checkpoint: the opened checkpoint.
      checkpoint_path: its prefix.
      config: the config read from it.
      use_ema: False.
      uses_pitch: True, because generating a sound takes its pitch.
      makes_steps: False, because `sounds` yields one block.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> model = nsynth.Baseline("checkpoints/small_baseline")
      >>> z = model.encode("checkpoints/notes/flute_acoustic_073-060-100.wav")
      >>> z.shape
      (1, 496)
      >>> model.generate(z, pitch=53, num_samples=16_000, num_iters=2, seed=1).shape
      (16000,)
    """

    name = "baseline"
    use_ema = False
    uses_pitch = True
    makes_steps = False

    def __init__(
        self,
        checkpoint_path: CheckpointLike,
        use_ema: bool = False,
        hop_length: int | None = None,
        num_stages: int | None = None,
        dtype: Any = None,
    ) -> None:
        """Opens a TF1 checkpoint and reads its config, but no weights yet.

        The arguments are `WaveNet`'s, so that either model can be opened with the same
        ones.

        Args:
          checkpoint_path: a prefix, one of its files, or the folder; or an opened
            checkpoint.
          use_ema: refused: the baseline keeps no averages of its weights.
          hop_length: refused.
          num_stages: refused.
          dtype: "float32" or a mixed policy, such as "mixed_bfloat16".

        Raises:
          CheckpointError: it can't be read, or is another model's.
          InputError: an option that only a WaveNet has.
        """
        self.checkpoint = open_checkpoint(checkpoint_path)
        self.checkpoint_path = self.checkpoint.prefix
        self.config = engine.read_spectral_config(
            self.checkpoint, hop_length, num_stages
        )
        if use_ema:
            raise InputError(
                f"{self.checkpoint_path}: the baseline keeps no averaged weights; "
                "leave --use_ema out."
            )
        self._dtype = dtype

    @functools.cached_property
    def encoder(self) -> SpectralEncoder:
        """The encoder, a Keras model."""
        return engine.load_part(
            SpectralEncoder, self.checkpoint, self.config, dtype=self._dtype
        )

    @functools.cached_property
    def decoder(self) -> SpectralDecoder:
        """The decoder, a Keras model."""
        return engine.load_part(
            SpectralDecoder, self.checkpoint, self.config, dtype=self._dtype
        )

    @property
    def min_samples(self) -> int:
        """The number of samples in the shortest clip."""
        return self.config.min_samples

    @property
    def num_latent(self) -> int:
        """The size of a row of z."""
        return self.config.num_latent

    def __repr__(self) -> str:
        return (
            f"<Baseline {self.checkpoint_path!r}: z of {self.num_latent} numbers for "
            "4 s>"
        )

    def summary(self) -> None:
        """Prints the checkpoint's layers, embedding, parameters, step and contents."""
        print(summarize(self.checkpoint))

    def encode(self, sounds: Any, sample_length: int = 0) -> Any:
        """Encodes sounds of any length. Each window of 256 frames has its own code.

        Args:
          sounds: a path; an array [t], [t, 1], [b, t] or [b, t, 1] at 16 kHz; or a list
            of paths and arrays [t] of any lengths. Arrays are floats in [-1, 1] or 8-,
            16- or 32-bit integers of full range, and whatever np.asarray takes.
          sample_length: cuts each sound to this many samples; 0 keeps all.

        Returns:
          float32 [k, 1984] for one sound; [b, k, 1984] for [b, t] and [b, t, 1]; a
          list for a list. k is 1 for up to 65,535 samples (4.1 s), plus 1 for each
          further 65,536.

        Raises:
          InputError: another shape or dtype, several channels, or values that aren't
            finite.
          AudioError: a file that can't be read, or a clip of less than 513 samples.
        """
        clips, pack = as_clips(sounds, sample_length, self.check_clip)
        return pack(self.encode_prepared([self.prepare(clip) for clip in clips]))

    def prepare(self, clip: np.ndarray) -> Prepared:
        """Converts a clip [t] float32, t >= 513, to the network's input."""
        spec = network_input(clip[None], self.config)
        num_frames = self.config.frames_of(len(clip))
        is_silent = bool(tf.reduce_min(spec[:, :, :num_frames]) == 1)
        return Prepared(windows_of(spec, self.config).numpy(), is_silent)

    def load(self) -> None:
        """Loads the encoder; else the first clip does."""
        _ = self._encode

    def encode_prepared(self, clips: Sequence[Prepared]) -> list[np.ndarray]:
        """Encodes prepared clips side by side: [k, 1984] float32 each."""
        z = self._in_batches(
            self._encode, np.concatenate([clip.windows for clip in clips])
        )
        ends = np.cumsum([len(clip.windows) for clip in clips])
        return np.split(z[:, 0, 0], ends[:-1])

    def decode(self, z: Any, pitch: Any) -> Any:
        """Decodes codes to spectrograms.

        Args:
          z: [k, 1984], [b, k, 1984], or a list of the first form.
          pitch: MIDI, 0 to 127; one for all sounds, or one for each.

        Returns:
          float32 [513, 256 * k] in [0, 1], the magnitude as `specgram` returns it; a
          batch or a list of these for a batch or a list.

        Raises:
          InputError: another shape, or an invalid pitch.
        """
        codes, pack = as_embeddings(z, "z", self._check_z)
        pitches = self._pitches(pitch, len(codes))
        counts = [len(code) for code in codes]
        decoded = self._in_batches(
            self._decode,
            np.concatenate(codes)[:, None, None],
            np.repeat(pitches, counts),
        )
        windows = np.split(decoded, np.cumsum(counts)[:-1])
        return pack([np.concatenate(list(w), axis=1) for w in windows])

    def generate(
        self,
        z: Any,
        pitch: Any,
        num_samples: int | Sequence[int] | None = None,
        num_iters: int = 1000,
        seed: int | None = None,
        phase: Any = None,
        peak: Any = 1.0,
    ) -> Any:
        """Generates sound from codes.

        Args:
          z: as in `decode`.
          pitch: as in `decode`.
          num_samples: samples per sound, one number for all or one for each. None
            means 64,000 for one row of z, and for several all that they represent.
          num_iters: iterations of Griffin-Lim, if no phase is given.
          seed: seeds Griffin-Lim's initial phase.
          phase: the phase from `phase`, instead of Griffin-Lim's. For a batch or a
            list, a list of these.
          peak: the peak of the sounds, one for all or one for each. Codes don't contain
            the loudness.

        Returns:
          float32 at 16 kHz: [t] for one code, [b, t] for a batch, a list for a list.

        Raises:
          InputError: another shape or number of values, an invalid pitch, or more
            samples than the codes represent.
        """
        codes, pack = as_embeddings(z, "z", self._check_z)
        count = len(codes)
        specs = self.decode(codes, pitch)
        lengths = self._lengths(num_samples, specs)
        phases = _phases(phase, count)
        peaks = _one_each(peak, count, "peak", "iuf")
        sounds: list[Any] = [None] * count
        # Only sounds of the same length, all with or all without a phase, go together.
        keys = [(n, p is None) for n, p in zip(lengths, phases, strict=True)]
        for length, mag_only in sorted(set(keys)):
            rows = [i for i, key in enumerate(keys) if key == (length, mag_only)]
            spec = [self._spectrogram(specs[i], phases[i], length) for i in rows]
            invert = functools.partial(
                ispecgram,
                hop_length=self.config.hop_length,
                mask=False,
                dphase=False,
                mag_only=mag_only,
                num_iters=num_iters,
                seed=seed,
                length=length,
            )
            audio = self._in_batches(invert, np.stack(spec))
            for i, clip in zip(rows, audio, strict=True):
                sounds[i] = clip * np.float32(peaks[i])
        return pack(sounds)

    def _lengths(
        self, num_samples: int | Sequence[int] | None, specs: list[np.ndarray]
    ) -> list[int]:
        """The number of samples for each decoded spectrogram."""
        size, hop = self.config.num_frames, self.config.hop_length
        full = [spec.shape[1] for spec in specs]
        if num_samples is None:
            num_samples = [(n - 1) * hop if n > size else NOTE_SAMPLES for n in full]
        lengths = _one_each(num_samples, len(specs), "num_samples", "iu").tolist()
        for length, frames in zip(lengths, full, strict=True):
            if not self.config.min_samples <= length < frames * hop:
                raise InputError(
                    f"num_samples must be {self.config.min_samples} to "
                    f"{frames * hop - 1} for {frames // size} rows of z, not {length}."
                )
        return lengths

    def _spectrogram(
        self, magnitude: np.ndarray, phase: np.ndarray | None, num_samples: int
    ) -> np.ndarray:
        """What `ispecgram` takes, [513, frames, 1 or 2], for `num_samples` samples."""
        magnitude = magnitude[:, : self.config.frames_of(num_samples)]
        if phase is None:
            return magnitude[..., None]
        if np.shape(phase) != magnitude.shape:
            raise InputError(
                f"The phase has shape {list(np.shape(phase))}; {num_samples} samples "
                f"need {list(magnitude.shape)}."
            )
        turns = np.asarray(phase, np.float32) / np.float32(math.pi)
        return np.stack([magnitude, turns], axis=-1)

    def phase(self, sound: Any) -> np.ndarray:
        """The phase of a sound, for `generate`.

        Args:
          sound: a path or an array [t], as in `encode`.

        Returns:
          float32 [513, frames], in radians.
        """
        [clip], _ = as_clips([sound], 0, self.check_clip)
        spec = specgram(
            clip,
            self.config.n_fft,
            self.config.hop_length,
            mask=False,
            log_mag=False,
            dphase=False,
        )
        return spec[..., 1].numpy() * np.float32(math.pi)

    def reconstruct(
        self,
        sounds: Any,
        pitch: Any,
        phase: str = "griffin_lim",
        num_iters: int = 1000,
        seed: int | None = None,
    ) -> Any:
        """Encodes sounds and decodes them again, at their own pitch or another.

        Args:
          sounds: as in `encode`.
          pitch: as in `decode`.
          phase: "griffin_lim", or "source" for the sounds' own phase.
          num_iters: as in `generate`.
          seed: as in `generate`.

        Returns:
          float32 at 16 kHz, in the form and the lengths of `sounds`, each with the same
          peak as its source. Silence stays silent.

        Raises:
          InputError: an argument that can't be used.
          AudioError: as in `encode`.
        """
        if phase not in PHASES:
            raise InputError(f"phase must be {' or '.join(PHASES)}, not {phase!r}.")
        clips, pack = as_clips(sounds, 0, self.check_clip)
        prepared = [self.prepare(clip) for clip in clips]
        peaks = [
            0.0 if silent else float(np.abs(clip).max())
            for clip, (_, silent) in zip(clips, prepared, strict=True)
        ]
        audio = self.generate(
            self.encode_prepared(prepared),
            pitch,
            [len(clip) for clip in clips],
            num_iters,
            seed,
            [self.phase(clip) for clip in clips] if phase == "source" else None,
            peaks,
        )
        return pack(audio)

    @property
    def files(self) -> EmbeddingFiles:
        """How codes are saved and read."""
        return files_of(self.config, self.num_latent)

    def peak(self, audio: np.ndarray, prepared: Prepared) -> float:
        """The peak of a clip [t]; 0 if it is silence to the network."""
        return 0.0 if prepared.is_silent else float(np.abs(audio).max())

    def check_generation(
        self, options: Generation, embeddings: Sequence[Embedding] = ()
    ) -> None:
        """Raises InputError if options can't be used, alone or for the codes.

        Args:
          options: how to generate sounds.
          embeddings: the codes. Their pitch has to be known, and for the sources' phase
            also their sound.
        """
        refuse_other_model(options, "baseline")
        check_limits(options)
        if options.phase == "source":
            reason = "does nothing with --phase=source; leave it out."
            refuse_changed(options, reason, "seed", "griffin_lim_iterations")
        for embedding in embeddings:
            if options.pitch is None and not 0 <= embedding.pitch < NUM_PITCHES:
                raise InputError(
                    f"{embedding.where}: its pitch is not known; give --pitch (MIDI, "
                    "60 is C4), or say it in the sound's name (flute_C4.wav, "
                    "flute_midi60.wav; see --pitch_from_name), its TFRecord "
                    "(nsynth_make_tfrecord --csv), or the .csv that "
                    "nsynth_save_embeddings wrote beside its z."
                )
            if options.phase == "source" and embedding.audio is None:
                raise InputError(
                    f"{embedding.where}: --phase=source takes the phase of a sound, "
                    "and z has none; give the sound, or leave it out."
                )

    def sounds(
        self, embeddings: Sequence[Embedding], options: Generation
    ) -> Iterator[np.ndarray]:
        """Generates sounds from codes, as one block [b, t] with peaks of 1.

        Args:
          embeddings: the codes, which passed `check_generation`.
          options: how to generate them.
        """
        lengths = [embedding.num_samples for embedding in embeddings]
        phases = None
        if options.phase == "source":
            phases = [
                self.phase(e.audio[: e.num_samples])
                for e in embeddings
                if e.audio is not None
            ]
        sounds = self.generate(
            [embedding.rows for embedding in embeddings],
            [_pitch(embedding, options) for embedding in embeddings],
            lengths,
            options.griffin_lim_iterations,
            options.seed,
            phases,
        )
        longest = max(lengths)
        yield np.stack([np.pad(s, (0, longest - len(s))) for s in sounds])

    def finish(
        self, embedding: Embedding, audio: np.ndarray, options: Generation
    ) -> np.ndarray:
        """Scales a finished sound [t] to its source's peak, or to 1 if normalized."""
        peak = embedding.peak
        return audio * np.float32(1.0 if options.normalize and peak else peak)

    def check_clip(self, audio: np.ndarray, name: str) -> np.ndarray:
        """The clip [t] itself; AudioError if it is too short."""
        if len(audio) < self.config.min_samples:
            raise AudioError(
                f"{name}: {len(audio)} samples at 16 kHz are too few; the baseline "
                f"needs at least {self.config.min_samples}."
            )
        return audio

    def _check_z(self, z: np.ndarray, name: str) -> np.ndarray:
        return check_z(z, self.num_latent, name)

    def _pitches(self, pitch: Any, count: int) -> np.ndarray:
        pitches = _one_each(pitch, count, "pitch", "iu")
        if pitches.min() < 0 or pitches.max() >= NUM_PITCHES:
            raise InputError(
                f"pitch must be a MIDI number from 0 to {NUM_PITCHES - 1}, not {pitch}."
            )
        return pitches

    @functools.cached_property
    def _encode(self) -> Callable[..., tf.Tensor]:
        encoder = self.encoder  # loaded now, not while the function is traced
        return tf.function(lambda spec: encoder(spec), reduce_retracing=True)

    @functools.cached_property
    def _decode(self) -> Callable[..., tf.Tensor]:
        decoder = self.decoder
        return tf.function(
            lambda z, pitch: network_output(
                decoder(z, pitch), decoder.config.num_frames
            ),
            reduce_retracing=True,
        )

    def _in_batches(
        self, function: Callable[..., tf.Tensor], *arrays: np.ndarray
    ) -> np.ndarray:
        parts = []
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        step = _WINDOWS_AT_ONCE[device]
        for start in range(0, len(arrays[0]), step):
            part = slice(start, start + step)
            values = [tf.constant(array[part]) for array in arrays]
            parts.append(function(*values).numpy())
        return np.concatenate(parts)


def _pitch(embedding: Embedding, options: Generation) -> int:
    """The pitch of a generated sound. One out of range is clamped, with a log line."""
    pitch = embedding.pitch if options.pitch is None else options.pitch
    wanted = pitch + options.pitch_shift
    made = min(max(wanted, 0), NUM_PITCHES - 1)
    if made != wanted:
        logging.info(
            "%s: pitch %d is out of range, %d is made.", embedding.where, wanted, made
        )
    return made


def _phases(phase: Any, count: int) -> list[np.ndarray | None]:
    """A phase, or None, for each of `count` sounds."""
    if phase is None:
        return [None] * count
    if isinstance(phase, np.ndarray | tf.Tensor):
        phases = [phase] if phase.ndim == 2 else list(phase)
    elif isinstance(phase, list | tuple):
        phases = list(phase)
    else:
        raise InputError(f"phase must be an array or a list of them, not {phase!r}.")
    if any(p is not None and not np.isfinite(p).all() for p in phases):
        raise InputError("The phase holds NaN or infinite values.")
    if len(phases) != count:
        raise InputError(f"{len(phases)} phases were given for {count} sounds.")
    return phases


def _one_each(values: Any, count: int, name: str, kinds: str) -> np.ndarray:
    """Broadcasts one value for all, or `count` values, to [count]; checks the kind."""
    try:
        array = np.asarray(values)
    except ValueError:  # a ragged list
        array = np.asarray(None)
    if array.dtype.kind not in kinds or array.ndim > 1 or array.size not in (1, count):
        what = "finite numbers" if "f" in kinds else "whole numbers"
        raise InputError(
            f"{name} must be {what}, one for all or {count}, not {values!r}."
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, not {values!r}.")
    return np.broadcast_to(array.ravel(), [count])


load_baseline = Baseline  # the same call, named like `load_model`
