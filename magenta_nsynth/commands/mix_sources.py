"""What is mixed: sounds and .npy files, in the order in which they were given."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.api.baseline import check_z
from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.commands.common import find_sounds_or_npy, load_clip
from magenta_nsynth.commands.generate_baseline import code_samples
from magenta_nsynth.config import H512_BO16, NFFT_1024
from magenta_nsynth.embeddings.arrays import check_encoding, load_array
from magenta_nsynth.embeddings.codes import csv_path, read_codes
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import Source
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.sound_labels import SoundLabels
from magenta_nsynth.schema import UNKNOWN

__all__ = [
    "MixPart",
    "MixSource",
    "find_mix_sources",
    "kind_of",
    "load_mix_sources",
]

_ENDINGS = ("_embeddings", "_z")  # what nsynth_save_embeddings adds to a sound's name


class MixPart(NamedTuple):
    """What a source brings into a mix: a note.

    Attributes:
      embedding: [frames, channels] float32, or z [rows, num_latent].
      audio: [t] float32 that it was made of; None of a .npy file.
      peak: of the audio, as the baseline hears it: 0 of silence.
      num_samples: of its sound.
      pitch: MIDI, or -1.
    """

    embedding: np.ndarray
    audio: np.ndarray | None
    peak: float
    num_samples: int
    pitch: int = UNKNOWN


class MixSource(NamedTuple):
    """A file to mix.

    Attributes:
      path: of the file.
      name: what to call it in a mix's name.
      parts: one; of a .npy of the baseline's z as many as it holds notes.
    """

    path: str
    name: str
    parts: list[MixPart]


def find_mix_sources(
    source_paths: Sequence[str | os.PathLike], save_path: str | os.PathLike
) -> list[Source]:
    """The files that the paths name; one that is named twice counts twice."""
    return [
        source
        for path in source_paths or [""]
        for source in find_sounds_or_npy(
            [path], AUDIO_EXTENSIONS, False, False, [save_path]
        )
    ]


def kind_of(model: WaveNet | Baseline | None, sources: Sequence[Source]) -> str:
    """What the sources are of, "wavenet" or "baseline".

    The checkpoint says it, or else the .npy files: those of
    the baseline have a CSV beside them, or rows of 1,984 numbers.

    Raises:
      InputError: sounds without a checkpoint, or files of both kinds.
    """
    if model is not None:
        return "baseline" if isinstance(model, Baseline) else "wavenet"
    kinds = {}
    for source in sources:
        if not _is_npy(source):
            raise InputError(
                f"{source.path}: a sound has to be encoded first; give "
                "--checkpoint_path."
            )
        array = load_array(source.path, in_memory=False)
        is_z = (
            os.path.exists(csv_path(source.path))
            or array.ndim == 1
            or (array.ndim == 2 and array.shape[1] == NFFT_1024.num_latent)
        )
        kinds.setdefault("baseline" if is_z else "wavenet", source.path)
    if len(kinds) > 1:
        raise InputError(
            f"{kinds['baseline']} holds the baseline's z, {kinds['wavenet']} a "
            "WaveNet's embedding; mix those of one model."
        )
    return next(iter(kinds))


def load_mix_sources(
    model: WaveNet | Baseline | None,
    kind: str,
    sources: Sequence[Source],
    sample_length: int,
    rules: NameRules | None = None,
) -> list[MixSource]:
    """Reads the sources, and encodes the sounds.

    Args:
      model: the opened checkpoint, which sounds need.
      kind: of `kind_of`.
      sources: of `find_mix_sources`.
      sample_length: cuts each to so many samples, or the whole frames of them, which
        is logged; 0 takes all.
      rules: how the baseline's pitches are read from names; None is by default.

    Raises:
      InputError: a file that can't be used, or is of another model than the others.
      AudioError: a sound that can't be read.
    """
    if kind == "baseline":
        notes = _baseline_notes(model, sources, sample_length, rules)
    else:
        notes = [[note] for note in _wavenet_notes(model, sources, sample_length)]
    return [
        MixSource(source.path, _short_name(source), its)
        for source, its in zip(sources, notes, strict=True)
    ]


def _is_npy(source: Source) -> bool:
    return source.path.lower().endswith(".npy")


def _short_name(source: Source) -> str:
    """The sound's name, of a .npy without what nsynth_save_embeddings added to it."""
    if _is_npy(source):
        for ending in _ENDINGS:
            if source.stem.endswith(ending) and source.stem != ending:
                return source.stem.removesuffix(ending)
    return source.stem


def _check_width(width: int | None, array: np.ndarray, path: str, first: str) -> int:
    """The channels of `array`, which have to be those of the files before."""
    if width is not None and array.shape[-1] != width:
        raise InputError(
            f"{path} has {array.shape[-1]} channels and {first} has {width}; mix "
            "embeddings of one model."
        )
    return array.shape[-1]


def _wavenet_notes(
    model: WaveNet | None, sources: Sequence[Source], sample_length: int
) -> list[MixPart]:
    config = model.config if model else H512_BO16
    width = config.ae_bottleneck_width if model else None
    clips = {
        i: load_clip(source.path, sample_length, model)
        for i, source in enumerate(sources)
        if not _is_npy(source)
    }
    arrays: dict[int, np.ndarray] = {}
    for i, source in enumerate(sources):
        if i not in clips:
            path = source.path
            arrays[i] = check_encoding(load_array(path), width if model else None, path)
            width = _check_width(width, arrays[i], path, sources[0].path)
            limit = sample_length // config.ae_hop_length
            if limit and limit < len(arrays[i]):
                logging.info(
                    "%s: %d frames, cut to the %d of --sample_length=%d.",
                    *(path, len(arrays[i]), limit, sample_length),
                )
                arrays[i] = arrays[i][:limit]
    if clips:
        arrays.update(zip(clips, model.encode(list(clips.values())), strict=True))
    return [
        MixPart(
            arrays[i],
            clips.get(i),
            float(np.abs(clips[i]).max()) if i in clips else 1.0,
            config.num_samples(len(arrays[i])),
        )
        for i in range(len(sources))
    ]


def _baseline_notes(
    model: Baseline | None,
    sources: Sequence[Source],
    sample_length: int,
    rules: NameRules | None,
) -> list[list[MixPart]]:
    config = model.config if model else NFFT_1024
    width = None
    notes = []
    labels = SoundLabels((s for s in sources if not _is_npy(s)), rules)
    for source in sources:
        path = source.path
        if not _is_npy(source):
            clip = model.check_clip(read_audio(path, sample_length), path)
            prepared = model.prepare(clip)
            [z] = model.encode_prepared([prepared])
            peak = 0.0 if prepared.is_silent else float(np.abs(clip).max())
            pitch = int(labels.of(source).fields["pitch"])
            notes.append([MixPart(z, clip, peak, len(clip), pitch)])
            continue
        array = load_array(path, in_memory=False)
        if not model and array.ndim:
            width = _check_width(width, array, path, sources[0].path)
        codes = read_codes(path, width or config.num_latent, check_z)
        if not codes:
            raise InputError(f"{path}: holds no notes.")
        its = []
        for i, code in enumerate(codes):
            where = f"{path}, row {i}" if len(codes) > 1 else path
            num_samples = code_samples(code, config, where, sample_length)
            z = np.array(code.z)
            its.append(MixPart(z, None, 1.0, num_samples, code.pitch))
        notes.append(its)
    return notes
