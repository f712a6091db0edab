"""Sounds or embeddings in, mixes of them out, and the sounds of those."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.commands.common import check_arguments, make_folder
from magenta_nsynth.commands.mix_manifest import Manifest, relative
from magenta_nsynth.commands.mix_outputs import MixFile, MixNote, Outputs
from magenta_nsynth.commands.mix_plan import Mix, plan_mixes
from magenta_nsynth.commands.mix_sources import (
    MixSource,
    find_mix_sources,
    kind_of,
    load_mix_sources,
)
from magenta_nsynth.disk import only_writer
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import Source, check_folder, expand
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.schema import UNKNOWN

__all__ = ["interpolate"]


def interpolate(
    model: WaveNet | Baseline | None,
    source_paths: Sequence[str | os.PathLike],
    save_path: str | os.PathLike,
    weights: Sequence[float] | None = None,
    steps: int | None = None,
    grid: tuple[int, int] | None = None,
    method: str = "linear",
    stretch: float = 1.0,
    crossfade: tuple[float, float] | None = None,
    sum_signals: bool = False,
    generation: Mapping[str, Any] | None = None,
    match_loudness: bool = False,
    bit_depth: str = "float",
    sample_length: int = 64_000,
    skip_existing: bool = False,
    rules: NameRules | None = None,
) -> int:
    """Writes mixes of embeddings, and what is asked for beside them.

    `<mix>_embeddings.npy`, or the baseline's `<mix>_z.npy` and .csv; of them
    `gen_<...>.wav`; the sums of the signals, `sum_<mix>.wav`; and manifest.json, which
    says what each file is.

    Args:
      model: the opened checkpoint; None will do where embeddings alone are mixed.
      source_paths: sounds, .npy files, folders or globs, in order.
      save_path: the folder to write to.
      weights: of one mix; by default all are equal.
      steps: mixes on the line between two sources, both included; 1 is halfway.
      grid: rows and columns of mixes between two to four sources in the corners, as in
        `grid_weights`.
      method: "linear" or "spherical".
      stretch: makes the mixes so many times as long.
      crossfade: from the first source to the second over time: the start and the end,
        as parts of the length.
      sum_signals: writes the same mixes of the sounds themselves too.
      generation: of the sounds of the mixes: arguments of `generate` or
        `generate_baseline`. None makes none.
      match_loudness: scales them to the weighted mean RMS of their sources.
      bit_depth: of sounds, "float" or "16".
      sample_length: uses at most so many samples of each source; 0 uses all.
      skip_existing: leaves out what is there, if the manifest says that it was made in
        the same way.
      rules: how the baseline's pitches are read from names; None is by default.

    Returns:
      0, or 1 if some sounds could not be made; those are logged, the others done.

    Raises:
      InputError: nothing to mix, or arguments that can't be used.
      AudioError: a sound that can't be read.
      KeyboardInterrupt: with what was kept as its message.
    """
    _check(model, save_path, generation, match_loudness, sample_length)
    found = find_mix_sources(source_paths, save_path)
    kind = kind_of(model, found)
    _check_kind(kind, stretch, crossfade)
    _check_sounds(found, stretch, sum_signals, match_loudness)
    plan = {"weights": weights, "steps": steps, "grid": grid, "method": method}
    plan.update(stretch=stretch, crossfade=crossfade)
    # Once before the sounds are encoded, for what can't be mixed.
    plan_mixes([source.stem for source in found], **plan)
    make_folder(save_path)
    folder = expand(save_path)
    facts = {
        "method": method,
        "stretch": float(stretch),
        "crossfade": None if crossfade is None else [float(x) for x in crossfade],
        "sample_length": sample_length,
        "model": kind,
        "checkpoint": model and relative(model.checkpoint_path, folder),
        "use_ema": bool(getattr(model, "use_ema", False)),
    }
    # One program at a time, or the manifest would not be of both.
    with only_writer(folder):
        manifest = Manifest(folder)
        sources = load_mix_sources(model, kind, found, sample_length, rules)
        mixes = plan_mixes([source.name for source in sources], **plan)
        if (
            kind == "baseline"
            and generation is not None
            and generation.get("pitch") is None
        ):
            _check_pitches(mixes, sources)
        _log_cut(kind, sources)
        files = [_file(mix, sources, kind, facts, folder) for mix in mixes]
        outputs = Outputs(folder, manifest, skip_existing, bit_depth)
        outputs.write_embeddings(files)
        if sum_signals:
            outputs.write_sums(files)
        if generation is None:
            return 0
        return outputs.generate(model, files, generation, match_loudness)


def _check(
    model: WaveNet | Baseline | None,
    save_path: str | os.PathLike,
    generation: Mapping[str, Any] | None,
    match_loudness: bool,
    sample_length: int,
) -> None:
    batch_size = 1 if generation is None else generation.get("batch_size", 1)
    if model is not None:
        check_arguments(model, save_path, sample_length, batch_size)
    else:
        check_folder(save_path)
        if generation is not None:
            raise InputError("--generate needs a checkpoint; give --checkpoint_path.")
    if match_loudness and (generation is None or generation.get("normalize")):
        raise InputError(
            "--match_loudness sets the level of the sounds of --generate, and so it "
            "goes with that, and not with --normalize."
        )


def _check_kind(
    kind: str, stretch: float, crossfade: tuple[float, float] | None
) -> None:
    if kind == "baseline" and (stretch != 1 or crossfade is not None):
        flag = "--crossfade" if stretch == 1 else "--stretch"
        raise InputError(
            f"{flag} is for a WaveNet's embeddings, which are frames in time; the "
            "baseline's z is a note as a whole. Leave it out."
        )


def _check_sounds(
    sources: Sequence[Source], stretch: float, sum_signals: bool, match_loudness: bool
) -> None:
    if sum_signals and stretch != 1:
        raise InputError(
            "--sum mixes the sounds as they are, without --stretch; give one of them."
        )
    if not (sum_signals or match_loudness):
        return
    flag = "--sum" if sum_signals else "--match_loudness"
    for source in sources:
        if source.path.lower().endswith(".npy"):
            raise InputError(
                f"{source.path}: {flag} needs the sound that this was made of; give "
                "that in its place."
            )


def _check_pitches(mixes: Sequence[Mix], sources: Sequence[MixSource]) -> None:
    for mix in mixes:
        source = sources[mix.heaviest]
        if any(part.pitch == UNKNOWN for part in source.parts):
            raise InputError(
                f"{source.path}: its pitch is not known; give --pitch (MIDI, 60 is C4)."
            )


def _log_cut(kind: str, sources: Sequence[MixSource]) -> None:
    """Says which sources are longer than the shortest."""
    units = {"notes": [len(source.parts) for source in sources]}
    firsts = [source.parts[0] for source in sources]
    if kind == "baseline":
        units["samples"] = [part.num_samples for part in firsts]
    else:
        units["frames"] = [len(part.embedding) for part in firsts]
    for unit, lengths in units.items():
        shortest = min(range(len(sources)), key=lengths.__getitem__)
        for source, length in zip(sources, lengths, strict=True):
            if length > lengths[shortest]:
                logging.info(
                    "%s: of %d %s the first %d are mixed, as many as the shortest "
                    "source has (%s).",
                    *(source.path, length, unit, lengths[shortest]),
                    sources[shortest].path,
                )


def _file(
    mix: Mix,
    sources: Sequence[MixSource],
    kind: str,
    facts: dict[str, Any],
    folder: str,
) -> MixFile:
    """A mix with its notes: the first of every source, the second of each ..."""
    count = min(len(source.parts) for source in sources)
    notes = []
    for i in range(count):
        parts = [source.parts[i] for source in sources]
        entries = []
        for k, (source, part) in enumerate(zip(sources, parts, strict=True)):
            entry: dict[str, Any] = {"path": relative(source.path, folder)}
            if len(source.parts) > 1:
                entry["note"] = i
            if mix.weights is not None:
                entry["weight"] = float(mix.weights[k])
            entry["frames"] = len(part.embedding)
            entry["samples"] = part.num_samples
            entries.append(entry)
        number = f"_{i:0{len(str(count - 1))}}" if count > 1 else ""
        its_facts = {"sources": entries, **mix.place, **facts}
        notes.append(MixNote(f"{mix.name}{number}", mix, parts, its_facts))
    ending = "_z.npy" if kind == "baseline" else "_embeddings.npy"
    return MixFile(f"{mix.name}{ending}", notes)
