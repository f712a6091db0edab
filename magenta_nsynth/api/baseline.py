"""The spectral autoencoder as one object, for notebooks and for the binaries."""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.api.sounds import as_clips
from magenta_nsynth.config import NUM_PITCHES, PHASES, SpectralConfig
from magenta_nsynth.data.reading import NOTE_SAMPLES
from magenta_nsynth.embeddings.arrays import check_z
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
from magenta_nsynth.weights.checkpoint import Checkpoint

__all__ = ["Baseline", "Prepared", "load_baseline"]

# Through the networks and Griffin-Lim: on processors one window is as fast, and then
# comes out the same to the bit whatever there is beside it. (The end of a tensor is
# computed one by one, which rounds differently, and Griffin-Lim makes it audible.)
_WINDOWS_AT_ONCE = {"CPU": 1, "GPU": 16}


class Prepared(NamedTuple):
    """A clip as the network sees it.

    Attributes:
      windows: [k, 512, 256, 1] float32.
      is_silent: whether there is nothing above the spectrogram's floor; the network
        then sees the loudest of sounds, as the original's does.
    """

    windows: np.ndarray
    is_silent: bool


class Baseline:
    """A checkpoint's encoder and decoder; each is loaded when first needed.

    Attributes:
      config: the `SpectralConfig` read from the checkpoint.
      checkpoint_path: its prefix.
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
          use_ema: refused, for the baseline keeps no averages of its weights.
          hop_length: the WaveNet's; refused.
          num_stages: likewise.
          dtype: "float32" or a mixed policy, such as "mixed_bfloat16".

        Raises:
          CheckpointError: it can't be read, or is not the baseline's.
          InputError: an option that is the WaveNet's.
        """
        checkpoint = Checkpoint(checkpoint_path)
        engine.require_model(checkpoint, "baseline")
        self.checkpoint_path = checkpoint.prefix
        self.config: SpectralConfig = engine.read_config(
            checkpoint, hop_length, num_stages
        )
        if use_ema:
            raise InputError(
                f"{checkpoint.prefix}: the baseline keeps no averaged weights; leave "
                "--use_ema out."
            )
        self._dtype = dtype

    @functools.cached_property
    def encoder(self) -> SpectralEncoder:
        """The encoder, a Keras model."""
        return engine.load_encoder(self.checkpoint_path, dtype=self._dtype)

    @functools.cached_property
    def decoder(self) -> SpectralDecoder:
        """The decoder, a Keras model."""
        return engine.load_decoder(self.checkpoint_path, dtype=self._dtype)

    @property
    def min_samples(self) -> int:
        """The shortest clip."""
        return self.config.min_samples

    @property
    def num_latent(self) -> int:
        """Numbers in a row of z."""
        return self.config.num_latent

    def encode(self, sounds: Any, sample_length: int = 0) -> Any:
        """Encodes sounds of any length, each window of 256 frames by itself.

        Args:
          sounds: a file's path; an array [t], [b, t] or [b, t, 1] of floats in
            [-1, 1] at 16 kHz; or a list of paths and arrays [t], of any lengths.
          sample_length: cuts each to so many samples first; 0 takes all.

        Returns:
          float32 [k, 1984] for a path or [t]; [b, k, 1984] for [b, t] and [b, t, 1]; a
          list for a list. k is 1 up to 65,535 samples (4.1 s), and 1 more for each
          65,536 after those.

        Raises:
          InputError: another shape or dtype, or values that aren't finite.
          AudioError: a file that can't be read, or a clip under 513 samples.
        """
        clips, pack = self._clips(sounds, sample_length)
        return pack(self.encode_prepared([self.prepare(clip) for clip in clips]))

    def prepare(self, clip: np.ndarray) -> Prepared:
        """What the network sees of a clip [t] float32 of 513 samples or more."""
        spec = network_input(clip[None], self.config)
        num_frames = self.config.frames_of(len(clip))
        is_silent = bool(tf.reduce_min(spec[:, :, :num_frames]) == 1)
        return Prepared(windows_of(spec, self.config).numpy(), is_silent)

    def encode_prepared(self, clips: Sequence[Prepared]) -> list[np.ndarray]:
        """`encode` of prepared clips: [k, 1984] each."""
        z = self._in_batches(
            self._encode, np.concatenate([clip.windows for clip in clips])
        )
        ends = np.cumsum([len(clip.windows) for clip in clips])
        return np.split(z[:, 0, 0], ends[:-1])

    def decode(self, z: Any, pitch: Any) -> Any:
        """The spectrogram of codes.

        Args:
          z: [k, 1984], [b, k, 1984], or a list of the first.
          pitch: MIDI, 0 to 127; of each, or one for all.

        Returns:
          float32 [513, 256 k] in [0, 1], the magnitude as `specgram` has it; a batch or
          list of them for a batch or list.

        Raises:
          InputError: another shape, or no such pitch.
        """
        codes, pack = self._codes(z)
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
        """The sound of codes.

        Args:
          z: as in `decode`.
          pitch: as in `decode`.
          num_samples: of each sound; None is 64,000 for one window, and for more all
            that they hold.
          num_iters: Griffin-Lim's iterations, where no phase is given.
          seed: of Griffin-Lim's start phase; None is fresh.
          phase: of a sound, from `phase`: in place of Griffin-Lim's; a list of them
            for a batch or list.
          peak: of each sound: the codes don't know how loud they were.

        Returns:
          float32 at 16 kHz: [t] for one, [b, t] for a batch, a list for a list.

        Raises:
          InputError: another shape or number of values, no such pitch, more samples
            than the codes hold.
        """
        codes, pack = self._codes(z)
        count, hop = len(codes), self.config.hop_length
        specs = self.decode(codes, pitch)
        full = [spec.shape[1] for spec in specs]
        lengths = num_samples
        if num_samples is None:
            size = self.config.num_frames
            lengths = [(n - 1) * hop if n > size else NOTE_SAMPLES for n in full]
        lengths = _one_each(lengths, count, "num_samples", "iu").tolist()
        for length, frames in zip(lengths, full, strict=True):
            if not self.config.min_samples <= length < frames * hop:
                raise InputError(
                    f"num_samples must be {self.config.min_samples} to "
                    f"{frames * hop - 1} for {frames // self.config.num_frames} rows "
                    f"of z, not {length}."
                )
        phases = _listed(phase, count)
        if any(p is not None and not np.isfinite(p).all() for p in phases):
            raise InputError("The phase holds NaN or infinite values.")
        if len(phases) != count:
            raise InputError(f"{len(phases)} phases were given for {count} sounds.")
        peaks = _one_each(peak, count, "peak", "iuf")
        sounds: list[Any] = [None] * count
        # Only equal lengths go side by side.
        for key in sorted(
            {(n, p is None) for n, p in zip(lengths, phases, strict=True)}
        ):
            rows = [i for i in range(count) if (lengths[i], phases[i] is None) == key]
            audio = self._sounds(
                [specs[i] for i in rows],
                [phases[i] for i in rows],
                key[0],
                num_iters,
                seed,
            )
            for i, clip in zip(rows, audio, strict=True):
                sounds[i] = clip * np.float32(peaks[i])
        return pack(sounds)

    def _sounds(
        self,
        specs: list[np.ndarray],
        phases: list[np.ndarray | None],
        num_samples: int,
        num_iters: int,
        seed: int | None,
    ) -> np.ndarray:
        num_frames = self.config.frames_of(num_samples)
        spec = np.stack([s[:, :num_frames] for s in specs])[..., None]
        has_phase = phases[0] is not None
        if has_phase:
            wanted = spec.shape[1:3]
            for phase in phases:
                if np.shape(phase) != wanted:
                    raise InputError(
                        f"The phase is of shape {list(np.shape(phase))}; {num_samples} "
                        f"samples have {list(wanted)}."
                    )
            turns = np.stack(phases)[..., None].astype(np.float32) / math.pi
            spec = np.concatenate([spec, turns], axis=-1)
        invert = functools.partial(
            ispecgram,
            hop_length=self.config.hop_length,
            mask=False,
            dphase=False,
            mag_only=not has_phase,
            num_iters=num_iters,
            seed=seed,
            length=num_samples,
        )
        return self._in_batches(invert, spec)

    def phase(self, sound: Any) -> np.ndarray:
        """The phase of a sound, for `generate`.

        Args:
          sound: a path or an array [t], as in `encode`.

        Returns:
          float32 [513, frames], radians.
        """
        [clip], _ = self._clips([sound], 0)
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
        """Sounds through the network, at their pitch or another.

        Args:
          sounds: as in `encode`.
          pitch: as in `decode`.
          phase: "griffin_lim", or "source" for the sounds' own.
          num_iters: as in `generate`.
          seed: as in `generate`.

        Returns:
          float32 at 16 kHz, of the sounds' form and lengths, each as loud at its peak
          as its source. Silence stays silence.

        Raises:
          InputError: an argument that can't be used.
          AudioError: as in `encode`.
        """
        if phase not in PHASES:
            raise InputError(f"phase must be {' or '.join(PHASES)}, not {phase!r}.")
        clips, pack = self._clips(sounds, 0)
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

    uses_pitch = True  # whether a note's pitch is needed to make its sound
    makes_steps = False  # whether `sounds` takes hours, and comes block by block

    @property
    def files(self) -> EmbeddingFiles:
        """How its codes are saved and read."""
        return files_of(self.config, self.num_latent)

    def peak(self, audio: np.ndarray, prepared: Prepared) -> float:
        """How loud a clip is at its peak; 0 if the network hears silence."""
        return 0.0 if prepared.is_silent else float(np.abs(audio).max())

    def check_generation(
        self, options: Generation, embeddings: Sequence[Embedding] = ()
    ) -> None:
        """Raises InputError if options can't be used, alone or with these codes.

        Args:
          options: how sounds are to be generated.
          embeddings: whose pitch, and with the sources' phase whose sound, has to be
            known.
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
        """The sounds of codes side by side, as one block [b, t] with a peak of 1.

        Args:
          embeddings: the codes, for `check_generation`.
          options: how.
        """
        lengths = [embedding.num_samples for embedding in embeddings]
        phases = None
        if options.phase == "source":
            phases = [self.phase(e.audio[: e.num_samples]) for e in embeddings]
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
        """A finished sound [t], as loud at its peak as its source or, normalized, 1."""
        peak = embedding.peak
        return audio * np.float32(1.0 if options.normalize and peak else peak)

    def _clips(
        self, sounds: Any, sample_length: int
    ) -> tuple[list[np.ndarray], Callable[[list], Any]]:
        return as_clips(sounds, sample_length, self.check_clip)

    def check_clip(self, audio: np.ndarray, name: str) -> np.ndarray:
        """The clip [t]; an AudioError that names it, if it is too short."""
        if len(audio) < self.config.min_samples:
            raise AudioError(
                f"{name}: {len(audio)} samples at 16 kHz are too few; the baseline "
                f"needs {self.config.min_samples} at least."
            )
        return audio

    def _codes(self, z: Any) -> tuple[list[np.ndarray], Callable[[list], Any]]:
        width = self.config.num_latent
        if isinstance(z, list | tuple):
            if not z:
                raise InputError("An empty list of z was given.")
            return [check_z(v, width, f"z {i}") for i, v in enumerate(z)], list
        array = np.asarray(z)
        if array.ndim == 3 and len(array):
            return [check_z(v, width) for v in array], np.stack
        return [check_z(array, width)], lambda results: results[0]

    def _pitches(self, pitch: Any, count: int) -> np.ndarray:
        pitches = _one_each(pitch, count, "pitch", "iu")
        if pitches.min() < 0 or pitches.max() >= NUM_PITCHES:
            raise InputError(
                f"pitch must be a MIDI number from 0 to {NUM_PITCHES - 1}, not {pitch}."
            )
        return pitches

    @functools.cached_property
    def _encode(self) -> Callable[..., tf.Tensor]:
        encoder = self.encoder  # loaded here: not while the function is traced
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
    """The pitch to make; one that is out of range is moved, which is logged."""
    pitch = embedding.pitch if options.pitch is None else options.pitch
    wanted = pitch + options.pitch_shift
    made = min(max(wanted, 0), NUM_PITCHES - 1)
    if made != wanted:
        logging.info(
            "%s: pitch %d is out of range, %d is made.", embedding.where, wanted, made
        )
    return made


def _listed(phase: Any, count: int) -> list[np.ndarray | None]:
    if phase is None:
        return [None] * count
    if isinstance(phase, np.ndarray | tf.Tensor):
        return [phase] if phase.ndim == 2 else list(phase)
    if not isinstance(phase, list | tuple):
        raise InputError(f"phase must be an array or a list of them, not {phase!r}.")
    return list(phase)


def _one_each(values: Any, count: int, name: str, kinds: str) -> np.ndarray:
    """One value for all as [count], or `count` of them; of those NumPy kinds."""
    try:
        array = np.asarray(values)
    except ValueError:  # of ragged lists
        array = np.asarray(None)
    if array.dtype.kind not in kinds or array.ndim > 1 or array.size not in (1, count):
        what = "finite numbers" if "f" in kinds else "whole numbers"
        raise InputError(
            f"{name} must be {what}, one for all or {count}, not {values!r}."
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, not {values!r}.")
    return np.broadcast_to(array.ravel(), [count])


def load_baseline(checkpoint_path: str | os.PathLike, **options: Any) -> Baseline:
    """Opens a checkpoint: `Baseline(checkpoint_path, **options)`.

    Args:
      checkpoint_path: a prefix, one of its files, or the folder.
      **options: `dtype`; see `Baseline`.

    Raises:
      CheckpointError: it can't be read, or is not the baseline's.
    """
    return Baseline(checkpoint_path, **options)
