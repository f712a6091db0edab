"""Sounds or embeddings in, mixes of them out, and the sounds of those."""

import dataclasses
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.audio import read_audio
from magenta_nsynth.commands.common import (
    check_arguments,
    check_rules,
    generated_name,
    make_folder,
)
from magenta_nsynth.commands.generate import embed
from magenta_nsynth.commands.mix_options import Mixing
from magenta_nsynth.commands.mix_outputs import (
    Manifest,
    MixedNote,
    write_embeddings,
    write_sounds,
    write_sums,
)
from magenta_nsynth.commands.mix_plan import Mix, plan_mixes
from magenta_nsynth.commands.options import Output
from magenta_nsynth.config import H512_BO16, NFFT_1024
from magenta_nsynth.disk import only_writer
from magenta_nsynth.embeddings.embedding import load_array
from magenta_nsynth.embeddings.files import Embedding, EmbeddingFiles, files_of
from magenta_nsynth.embeddings.npy_csv import csv_path
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import Source, check_folder, expand
from magenta_nsynth.formatting import counted
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules, refuse_rules
from magenta_nsynth.notes.opening import find_sounds_or_npy
from magenta_nsynth.notes.sound_labels import SoundLabels
from magenta_nsynth.options import refuse_changed
from magenta_nsynth.stores import remote, storage

__all__ = ["interpolate"]


def interpolate(
    model: WaveNet | Baseline | None,
    inputs: Inputs,
    rules: NameRules,
    output: Output,
    mixing: Mixing,
    generation: Generation,
) -> int:
    """Writes mixes of embeddings, and what is asked for beside them.

    `<mix>_embeddings.npy`, or the baseline's `<mix>_z.npy` and .csv; the sounds of the
    mixes, `gen_<...>.wav`; the same mixes of the sounds themselves, `sum_<mix>.wav`;
    and manifest.json, which says what each file is.

    Args:
      model: the opened checkpoint; None mixes embeddings alone.
      inputs: sounds, .npy files, folders or globs, in order. A file that is named
        twice counts twice.
      rules: how the baseline's pitches are read from the names of sounds.
      output: where to write.
      mixing: which mixes to make, and what to write of each.
      generation: how sounds are generated, if they are asked for.

    Returns:
      0, or 1 if some sounds could not be made; those are logged, the others done.

    Raises:
      InputError: nothing to mix, or options that can't be used.
      AudioError: a sound that can't be read.
      KeyboardInterrupt: with what was kept as its message.
    """
    mixing.check(generation, model is not None)
    check_folder(output.save_path)
    if model is not None:
        length, batch_size = inputs.sample_length, generation.batch_size
        check_arguments(model, output.save_path, length, batch_size)
        check_rules(model, rules)
        model.check_generation(generation)
    found = _find(inputs, output)
    if all(source.is_npy for source in found):
        refuse_rules(rules, found[0].path)
    model_name, files = _open_files(model, found)
    _check_sources(found, model_name, mixing)
    mixes = plan_mixes([_short_name(source) for source in found], mixing)
    make_folder(output.save_path)
    folder = expand(output.save_path)
    # One program at a time, or the manifest would not describe the files of both.
    with only_writer(folder):
        manifest = Manifest(folder, output.skip_existing)
        keep_audio = mixing.sum or mixing.match_loudness
        sources = _load(model, files, found, inputs, rules, keep_audio)
        _log_cut(found, sources)
        facts = _facts(model, model_name, inputs, mixing, folder)
        paths = [_relative(source.path, folder) for source in found]
        mixed = [_mixed_notes(mix, files, facts, paths, sources) for mix in mixes]
        notes = list(itertools.chain.from_iterable(mixed))
        if model is not None and mixing.generate:
            # Before anything is written: is the pitch of every mix known?
            model.check_generation(generation, [note.main for note in notes])
        write_embeddings(manifest, files, mixed)
        if mixing.sum:
            write_sums(manifest, notes, generation)
        status = 0
        if model is not None and mixing.generate:
            status = write_sounds(
                manifest, model, notes, generation, mixing.match_loudness
            )
        logging.info(
            "%s in %s; manifest.json describes each file.",
            *(counted(len(mixed), "mix", "mixes"), folder),
        )
        return status


def _find(inputs: Inputs, output: Output) -> list[Source]:
    """The files that the paths name; one that is named twice counts twice."""
    return [
        source
        for path in inputs.source_path or [""]
        for source in find_sounds_or_npy(
            dataclasses.replace(inputs, source_path=[path]), [output.save_path]
        )
    ]


def _open_files(
    model: WaveNet | Baseline | None, sources: Sequence[Source]
) -> tuple[str, EmbeddingFiles]:
    """The name of the sources' model, and how its embeddings are read and saved.

    Without a checkpoint, the .npy files tell: those of the baseline have a CSV beside
    them, or rows of 1,984 numbers.

    Raises:
      InputError: sounds without a checkpoint, or embeddings of different models.
    """
    if model is not None:
        return model.config.model_name, model.files
    kinds: dict[tuple[str, int], str] = {}
    look = remote.listing()
    for source in sources:
        if not source.is_npy:
            raise InputError(
                f"{source.path}: a sound has to be encoded; give --checkpoint_path."
            )
        shape = load_array(source.path, in_memory=False).shape
        is_code = (
            storage.exists(csv_path(source.path), look)
            or len(shape) == 1
            or shape[1:] == (NFFT_1024.num_latent,)
        )
        config = NFFT_1024 if is_code else H512_BO16
        num_channels = shape[-1] if shape else 0
        kinds.setdefault((config.model_name, num_channels), source.path)
    if len(kinds) > 1:
        one, other, *_ = (
            f"{path} ({name}, {num_channels} channels)"
            for (name, num_channels), path in kinds.items()
        )
        raise InputError(
            f"{one} and {other} are of different models; mix embeddings of one model."
        )
    return config.model_name, files_of(config, num_channels if is_code else None)


def _check_sources(found: Sequence[Source], model_name: str, mixing: Mixing) -> None:
    """Raises InputError for options that these sources can't be used with."""
    if model_name == "baseline":
        refuse_changed(
            mixing,
            "is for a WaveNet's embeddings, whose frames follow each other in time; "
            "the baseline's z stands for a whole note. Leave it out.",
            *("stretch", "crossfade"),
        )
    for source in found:
        if source.is_npy and (mixing.sum or mixing.match_loudness):
            flag = "--sum" if mixing.sum else "--match_loudness"
            raise InputError(
                f"{source.path}: {flag} needs the sound that this embedding was made "
                "of; give that instead."
            )


def _short_name(source: Source) -> str:
    """The sound's name: without what nsynth_save_embeddings adds to it."""
    if not source.is_npy:
        return source.stem
    return re.sub(r"(?<=.)_(embeddings|z)\Z", "", source.stem)


def _load(
    model: WaveNet | Baseline | None,
    files: EmbeddingFiles,
    found: Sequence[Source],
    inputs: Inputs,
    rules: NameRules,
    keep_audio: bool,
) -> list[list[Embedding]]:
    """Reads .npy files and encodes sounds: the notes of each source."""
    labels = SoundLabels([one for one in found if not one.is_npy], rules)
    length = inputs.sample_length
    sources = []
    for source in found:
        if source.is_npy or model is None:  # without a model, all are .npy
            sources.append(files.read(source.path, source.stem, length))
            continue
        audio = read_audio(source.path, length)
        clip = Clip(source.path, audio, labels.of(source).fields, source.stem)
        sources.append([embed(model, clip, keep_audio)])
    return sources


def _log_cut(found: Sequence[Source], sources: Sequence[Sequence[Embedding]]) -> None:
    """Says which sources are longer than the shortest."""
    units = {
        "notes": [len(notes) for notes in sources],
        "samples": [notes[0].num_samples for notes in sources],
    }
    for unit, lengths in units.items():
        shortest = min(lengths)
        reason = found[lengths.index(shortest)].path
        for source, length in zip(found, lengths, strict=True):
            if length > shortest:
                logging.info(
                    "%s: only the first %d of %d %s are mixed, as many as %s has.",
                    *(source.path, shortest, length, unit, reason),
                )


def _facts(
    model: WaveNet | Baseline | None,
    model_name: str,
    inputs: Inputs,
    mixing: Mixing,
    folder: str,
) -> dict[str, Any]:
    """What the manifest says of every file."""
    crossfade = mixing.crossfade
    return {
        "method": mixing.method,
        "stretch": float(mixing.stretch),
        "crossfade": None if crossfade is None else [float(x) for x in crossfade],
        "sample_length": inputs.sample_length,
        "model": model_name,
        "checkpoint": model and _relative(model.checkpoint_path, folder),
        "use_ema": bool(getattr(model, "use_ema", False)),
    }


def _mixed_notes(
    mix: Mix,
    files: EmbeddingFiles,
    facts: Mapping[str, Any],
    paths: Sequence[str],
    sources: Sequence[Sequence[Embedding]],
) -> list[MixedNote]:
    """The notes of a mix: of the first note of each source, of the second ones ...

    Args:
      mix: the mix.
      files: how its embedding is saved.
      facts: what the manifest says of every file.
      paths: of the sources, as the manifest has them.
      sources: the notes of each.
    """
    count = min(len(notes) for notes in sources)
    mixed = []
    for i in range(count):
        entries = []
        for path, notes, weight in zip(paths, sources, mix.weights, strict=True):
            entry: dict[str, Any] = {"path": path}
            if len(notes) > 1:
                entry["note"] = i
            if mix.mixing.crossfade is None:
                entry["weight"] = float(weight)
            entry["frames"] = len(notes[i].rows)
            entry["samples"] = notes[i].num_samples
            entries.append(entry)
        number = f"_{i:0{len(str(count - 1))}}" if count > 1 else ""
        name, file = mix.name + number, mix.name + files.suffix
        # As nsynth_generate calls it: by the note in a set, else by the file.
        sound = generated_name(name if files.holds_sets else file.removesuffix(".npy"))
        parts = _cut([notes[i] for notes in sources])
        its_facts = {"sources": entries, **mix.place, **facts}
        mixed.append(MixedNote(name, file, sound, mix, parts, its_facts))
    return mixed


def _cut(notes: Sequence[Embedding]) -> list[Embedding]:
    """The notes as long as the shortest of them."""
    num_rows = min(len(note.rows) for note in notes)
    num_samples = min(note.num_samples for note in notes)
    return [
        dataclasses.replace(
            note,
            rows=note.rows[:num_rows],
            num_samples=num_samples,
            audio=None if note.audio is None else note.audio[:num_samples],
        )
        for note in notes
    ]


def _relative(path: str, folder: str) -> str:
    """The path from `folder`; the absolute one if they are on different drives."""
    if storage.is_remote(path) or storage.is_remote(folder):
        return path.removeprefix(f"{folder}/")
    parent, name = os.path.split(storage.abspath(path))
    try:
        # From the real folder: ".." leaves a linked one at its other end.
        start = storage.realpath(folder)
        text = os.path.relpath(storage.join(storage.realpath(parent), name), start)
    except ValueError:
        return storage.abspath(path)
    return text.replace(os.sep, "/")
