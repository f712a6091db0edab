"""The original's `fastgen`: encoding sounds, and generating them sample by sample."""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet, load_wavenet
from magenta_nsynth.audio import write_audio
from magenta_nsynth.compat import utils
from magenta_nsynth.embeddings.embedding import check_encoding, load_array
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.progress import Progress
from magenta_nsynth.stores import storage
from magenta_nsynth.weights.paths import resolve_checkpoint

__all__ = [
    "encode",
    "generate_audio_sample",
    "load_batch_audio",
    "load_batch_encodings",
    "load_fastgen_nsynth",
    "load_nsynth",
    "sample_categorical",
    "save_batch",
    "synthesize",
]

Path = str | os.PathLike


def encode(
    wav_data: Any, checkpoint_path: Path, sample_length: int | None = 64000
) -> np.ndarray:
    """Encodes sounds.

    Args:
      wav_data: [t] or [b, t] floats in [-1, 1] at 16 kHz.
      checkpoint_path: the checkpoint's prefix, one of its files, or its folder.
      sample_length: the most samples to use; a log line says if it cuts some off.
        None uses all.

    Returns:
      [b, frames, 16] float32, with a frame per 512 samples; b is 1 for [t].

    Raises:
      CheckpointError: the checkpoint can't be read.
      InputError: as for `WaveNet.encode`.
      AudioError: less than one frame.

    Source: NSynth, fastgen.encode. Differs: the weights are kept for the next call.

    Examples:
      >>> from magenta_nsynth.compat import utils
      >>> from magenta_nsynth.compat.wavenet import fastgen
      >>> flute = "checkpoints/notes/flute_acoustic_073-060-100.wav"
      >>> audio = utils.load_audio(flute, 4096)
      >>> fastgen.encode(audio, "checkpoints/small", 4096).shape
      (1, 8, 16)
    """
    audio = np.atleast_2d(np.asarray(wav_data))
    if sample_length and audio.shape[-1] > sample_length:
        logging.warning(
            "%d of %d samples are encoded; give a larger sample_length for more.",
            *(sample_length, audio.shape[-1]),
        )
    return np.asarray(_model(checkpoint_path).encode(audio, sample_length or 0))


def load_batch_audio(files: Sequence[Path], sample_length: int = 64000) -> np.ndarray:
    """Reads sound files, and pads them with zeros to one length.

    Args:
      files: the paths.
      sample_length: the length; what is beyond it is cut off.

    Returns:
      [n, sample_length] float32 at 16 kHz.

    Raises:
      AudioError: a file can't be read.

    Source: NSynth, fastgen.load_batch_audio. Differs: always float32; in the original
    float64 if any file was padded.
    """
    batch = np.zeros([len(files), sample_length], np.float32)
    for row, path in zip(batch, files, strict=True):
        audio = utils.load_audio(path, sample_length)
        row[: len(audio)] = audio
    return batch


def load_batch_encodings(files: Sequence[Path], sample_length: int = 125) -> np.ndarray:
    """Reads embeddings from .npy files, and pads them with zeros to one length.

    Args:
      files: the paths, of [frames, 16] arrays.
      sample_length: the length in frames; what is beyond it is cut off, with a log
        line.

    Returns:
      [n, sample_length, 16] float32. `synthesize` knows padding from embeddings.

    Raises:
      InputError: a file can't be read, or is not one embedding.

    Source: NSynth, fastgen.load_batch_encodings. Differs: a file may also be [1,
    frames, 16]; always float32, in the original float64 if any file was padded.
    """
    arrays = []
    for path in map(expand, files):
        array = check_encoding(load_array(path), None, path)
        if len(array) > sample_length:
            logging.warning(
                "%s: %d of %d frames are used; give a larger sample_length for more.",
                *(path, sample_length, len(array)),
            )
        array = array[:sample_length]
        arrays.append(np.pad(array, [(0, sample_length - len(array)), (0, 0)]))
    try:
        return np.stack(arrays)
    except ValueError:
        raise InputError(
            "The files' frames have different sizes: "
            f"{sorted({array.shape[1] for array in arrays})}."
        ) from None


def save_batch(batch_audio: Any, batch_save_paths: Path | Iterable[Path]) -> None:
    """Writes sounds as WAV files, float32 at 16 kHz.

    Args:
      batch_audio: the sounds, [t] floats each.
      batch_save_paths: a path for each; for one sound also the path itself.

    Raises:
      InputError: another number of paths, or audio that isn't [t] floats.
      AudioError: a file can't be written.

    Source: NSynth, fastgen.save_batch. Differs: folders are created, and a reader never
    sees half a file.
    """
    for audio, path in zip(
        batch_audio, _paths(batch_save_paths, len(batch_audio)), strict=True
    ):
        logging.info("Saving: %s", path)
        write_audio(expand(path), np.asarray(audio))


def synthesize(
    encodings: Any,
    save_paths: Path | Iterable[Path],
    checkpoint_path: Path = "model.ckpt-200000",
    samples_per_save: int = 10000,
) -> None:
    """Generates sounds from embeddings and writes them as WAV files.

    The draws come from `np.random.rand`, as in the original: after the same
    `np.random.seed` the samples are the same. A bar shows the progress.

    Args:
      encodings: [b, frames, 16], or [frames, 16] for one sound. Frames of zeros at the
        end are padding (`load_batch_encodings`): the sound ends before them.
      save_paths: a path for each sound; for one sound also the path itself. None or an
        empty list writes nothing.
      checkpoint_path: as in `encode`.
      samples_per_save: writes what there is after every so many samples, with zeros in
        place of the rest.

    Raises:
      CheckpointError: the checkpoint can't be read.
      InputError: another shape or number of paths.
      AudioError: a file can't be written.

    Source: NSynth, fastgen.synthesize. Differs: a path that isn't in a list was taken
    for a list of one-letter names; padding became noise; the weights are kept for the
    next call.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.compat import utils
      >>> from magenta_nsynth.compat.wavenet import fastgen
      >>> z = np.random.rand(1, 2, 16)
      >>> fastgen.synthesize(z, ["new.wav"], "checkpoints/small")
      >>> len(utils.load_audio("new.wav"))
      1024
    """
    model = _model(checkpoint_path)
    encodings = np.asarray(encodings)
    encodings = encodings[None] if encodings.ndim == 2 else encodings
    if encodings.ndim != 3 or not encodings.size:
        raise InputError(
            f"encodings must be [batch, frames, channels], not {list(encodings.shape)}."
        )
    if samples_per_save < 1:
        raise InputError(f"samples_per_save must be 1 or more, not {samples_per_save}.")
    lengths = [model.config.num_samples(_without_padding(z)) for z in encodings]
    paths = _paths(save_paths, len(lengths)) if save_paths else []
    audio = np.zeros([len(lengths), max(lengths)], np.float32)
    uniforms = np.random.rand(*audio.shape[::-1])
    done = 0
    with Progress(audio.shape[1], "samples") as progress:
        for block in model.stream(encodings, audio.shape[1], uniforms=uniforms):
            end = done + block.shape[1]
            audio[:, done:end] = block
            is_due = done // samples_per_save < end // samples_per_save
            if paths and (is_due or end == audio.shape[1]):
                sounds = [row[:n] for row, n in zip(audio, lengths, strict=True)]
                save_batch(sounds, paths)
            done = end
            progress.update(done)


def _without_padding(encoding: np.ndarray) -> int:
    """The number of frames before those of zeros at the end; all, if all are."""
    used = np.flatnonzero(np.any(encoding != 0, axis=1))
    return int(used[-1]) + 1 if len(used) else len(encoding)


def _paths(paths: Path | Iterable[Path], count: int) -> list[Path]:
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if len(paths) != count:
        raise InputError(f"{len(paths)} paths were given for {count} sounds.")
    return paths


def sample_categorical(probability_mass_function: Any) -> np.ndarray:
    """Draws classes with `np.random.rand`.

    Args:
      probability_mass_function: [b, classes] or [classes]; rows sum to 1.

    Returns:
      [b, 1] float64, the class of each row.

    Source: NSynth, fastgen.sample_categorical. Differs: never one more than the last
    class, where rounding leaves the sum below 1.
    """
    cumulative = np.cumsum(np.atleast_2d(probability_mass_function), axis=1)
    uniforms = np.random.rand(len(cumulative))
    drawn = [row.searchsorted(u) for row, u in zip(cumulative, uniforms, strict=True)]
    return np.minimum(drawn, cumulative.shape[1] - 1).astype(float)[:, None]


def load_nsynth(batch_size: int = 1, sample_length: int = 64000) -> NoReturn:
    """Raises InputError: there are no graphs and sessions any more."""
    del batch_size, sample_length
    raise InputError(
        "fastgen.load_nsynth made a graph for a session. Use fastgen.encode, or "
        "magenta_nsynth.load_wavenet(checkpoint_path), whose .encoder and .decoder are "
        "Keras models."
    )


def load_fastgen_nsynth(batch_size: int = 1) -> NoReturn:
    """Raises InputError: there are no graphs and sessions any more."""
    del batch_size
    raise InputError(_STREAM.format("load_fastgen_nsynth made a graph for a session"))


def generate_audio_sample(sess: Any, net: Any, audio: Any, encoding: Any) -> NoReturn:
    """Raises InputError: there are no graphs and sessions any more."""
    del sess, net, audio, encoding
    raise InputError(_STREAM.format("generate_audio_sample ran a graph in a session"))


_STREAM = (
    "fastgen.{}. Use fastgen.synthesize, or magenta_nsynth.load_wavenet("
    "checkpoint_path).stream(encodings), which yields samples as they are generated."
)


def _model(checkpoint_path: Path) -> WaveNet:
    prefix = storage.realpath(resolve_checkpoint(checkpoint_path))
    return _loaded(prefix, storage.getmtime(prefix + ".index"))


@functools.lru_cache(maxsize=1)
def _loaded(prefix: str, changed: float) -> WaveNet:
    """The model; the file's date is an argument so that a new file is read."""
    del changed
    return load_wavenet(prefix)
