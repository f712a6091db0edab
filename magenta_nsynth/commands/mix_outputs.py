"""What is written of mixes: embeddings, sums, sounds, and the manifest of all."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

import magenta_nsynth
from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.audio import write_audio
from magenta_nsynth.audio.loudness import (
    clipping_scale,
    loudness_scale,
    rms,
    sum_signals,
)
from magenta_nsynth.commands.common import Failures, writing
from magenta_nsynth.commands.generate import UNFINISHED, Job, generate_jobs
from magenta_nsynth.commands.mix_plan import Mix
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.embeddings.files import Embedding, EmbeddingFiles
from magenta_nsynth.embeddings.interpolation import mix, time_stretch
from magenta_nsynth.embeddings.npy_csv import csv_path
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import load_json, write_json
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.options import options_of
from magenta_nsynth.stores import remote, storage

__all__ = [
    "Manifest",
    "MixedNote",
    "sound_options",
    "write_embeddings",
    "write_sounds",
    "write_sums",
]

_ABOUT = (
    "What the files of this folder are; paths are relative to it. Of sources of "
    "different lengths as much is mixed as the shortest has: mixed_frames and "
    "mixed_samples."
)
# What is known once a file is made, and is not a part of the request.
_RESULTS = (
    "mixed_frames",
    "mixed_samples",
    "notes",
    "frames",
    "channels",
    "samples",
    "rate",
    "scale",
    "software",
)
_SOFTWARE = f"magenta_nsynth {magenta_nsynth.__version__}"
# Options that are not among `sound_options`: no sample depends on the first two,
# sums have a bit depth too, and nsynth_interpolate has no flags for the others.
_LEFT_OUT = (
    "batch_size",
    "samples_per_save",
    "bit_depth",
    "phase",
    "halfway",
    "precision",  # has a rule of its own
)
_KEYS = {"griffin_lim_iterations": "num_iters"}  # where the key is not the option


class MixedNote(NamedTuple):
    """A mix of one note of each source.

    Attributes:
      name: the note's.
      file: the name of the file with its embedding.
      sound: the name of the file with its generated sound.
      mix: how it is mixed.
      parts: what is mixed, one note per source, all of one length.
      facts: what the manifest says of all its files.
    """

    name: str
    file: str
    sound: str
    mix: Mix
    parts: Sequence[Embedding]
    facts: Mapping[str, Any]

    @property
    def main(self) -> Embedding:
        """The part with the largest weight; the mix has its pitch."""
        return self.parts[self.mix.heaviest]

    def embedding(self) -> Embedding:
        """The mix of the embeddings."""
        arrays, main, mixing = [p.rows for p in self.parts], self.main, self.mix.mixing
        rows = mix(arrays, self.mix.weights_over(len(main.rows)), mixing.method)
        if mixing.stretch != 1:
            rows = time_stretch(rows, mixing.stretch)
        num_samples = main.num_samples * len(rows) // len(main.rows)
        labels = {"note_str": self.name, "pitch": main.pitch}
        return Embedding(self.name, main.where, rows, num_samples, labels)

    @property
    def signals(self) -> list[np.ndarray]:
        """The sounds of the parts, [t] float32 each."""
        return [part.audio for part in self.parts if part.audio is not None]

    @property
    def weights(self) -> np.ndarray:
        """The weights of the signals: [count], or [count, t] of a crossfade."""
        return self.mix.weights_over(self.main.num_samples)

    def loudness_scale(self, audio: np.ndarray, name: str) -> float:
        """The factor that makes audio [t], called `name`, as loud as the sources."""
        levels = [rms(signal) for signal in self.signals]
        return loudness_scale(audio, levels, self.weights, name)

    def peak(self) -> float:
        """The weighted mean of the sources' peaks, at most 1."""
        sizes = np.abs(self.mix.weights)
        peaks = [part.peak for part in self.parts]
        return min(float(np.dot(sizes / sizes.sum(), peaks)), 1.0)


class Manifest:
    """manifest.json: what each file of a folder of mixes is.

    An entry is added once its file is written, and removed before the file is written
    again, so the manifest is never ahead of the files. Entries of earlier runs are kept
    as long as their files exist.
    """

    def __init__(self, folder: str, skip_existing: bool) -> None:
        """Reads the folder's manifest, if there is one.

        Args:
          folder: the folder.
          skip_existing: leave out files that exist and were made in the same way.

        Raises:
          InputError: a file of that name that is not such a manifest.
        """
        self.folder = folder
        self._skip_existing = skip_existing
        self._path = storage.join(folder, "manifest.json")
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            form = {"files": {str: {"embedding": (str, None)}}}
            entries = load_json(self._path, form)["files"]
        except FileNotFoundError:
            return
        except InputError as error:
            raise InputError(
                f"{error} This folder can't be continued: move the file away, or give "
                "another --save_path."
            ) from None
        look = remote.listing()
        self._entries = {
            name: entry for name, entry in entries.items() if self._exists(name, look)
        }

    def begin(self, what: str, requests: Mapping[str, dict[str, Any]]) -> list[str]:
        """The files that have to be written; their entries are removed.

        A sound keeps its entry when its embedding becomes another one, but the entry
        no longer names that file.

        Args:
          what: "sounds", say, for a log line.
          requests: what each file is to be, by its name.
        """
        work = list(requests)
        if self._skip_existing:
            work = [name for name in work if not self._has(name, requests[name])]
        if len(work) < len(requests):
            done = len(requests) - len(work)
            logging.info("%s: %d of %d are done already.", what, done, len(requests))
        old = {name: self._entries.pop(name) for name in work if name in self._entries}
        changed = {
            name
            for name, entry in old.items()
            if _without_results(entry) != _without_results(requests[name])
        }
        for entry in self._entries.values():
            if entry.get("embedding") in changed:
                entry["embedding"] = None
        if old:
            self._save()
        return work

    def add(self, entries: Mapping[str, dict[str, Any]]) -> None:
        """Adds files that have been written."""
        if entries:
            self._entries.update(entries)
            self._save()

    def _has(self, name: str, request: dict[str, Any]) -> bool:
        """Whether the file exists and was made as requested."""
        entry = self._entries.get(name)
        return entry is not None and (
            _without_results(entry) == _without_results(request)
        )

    def _exists(self, name: str, look: remote.Look) -> bool:
        path = storage.join(self.folder, name)
        is_file = storage.isfile(path, look)
        return is_file and not storage.exists(path + UNFINISHED, look)

    def _save(self) -> None:
        files = {name: self._entries[name] for name in sorted(self._entries)}
        with writing(self._path):
            write_json(self._path, {"about": _ABOUT, "files": files})


def _without_results(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _RESULTS}


def write_embeddings(
    manifest: Manifest, files: EmbeddingFiles, mixes: Sequence[Sequence[MixedNote]]
) -> None:
    """Writes the embeddings of mixes, and the .csv beside codes.

    Args:
      manifest: that of the folder to write to.
      files: how embeddings are saved.
      mixes: the notes of each file.

    Raises:
      InputError: a mix isn't finite, or a file can't be written.
    """
    requests: dict[str, dict[str, Any]] = {}
    for notes in mixes:
        name = notes[0].file
        requests[name] = {"kind": "embedding", **notes[0].facts}
        if files.holds_sets:
            requests[csv_path(name)] = {"kind": "labels", "of": name}
    work = set(manifest.begin("embeddings", requests))
    made = {}
    for notes in mixes:
        name = notes[0].file
        if work.isdisjoint([name, csv_path(name)]):
            continue
        embeddings = [note.embedding() for note in notes]
        path = storage.join(manifest.folder, name)
        with writing(path), files.writing(path) as writer:
            for one in embeddings:
                writer.add(one)
        results: dict[str, Any] = {
            "mixed_frames": len(notes[0].main.rows),
            "mixed_samples": notes[0].main.num_samples,
        }
        if len(notes) > 1:
            results["notes"] = len(notes)
        results["frames"] = sum(len(one.rows) for one in embeddings)
        results["channels"] = embeddings[0].rows.shape[1]
        results["software"] = _SOFTWARE
        made[name] = {**requests[name], **results}
        if csv_path(name) in requests:
            made[csv_path(name)] = requests[csv_path(name)]
    manifest.add(made)


def write_sums(
    manifest: Manifest, notes: Sequence[MixedNote], generation: Generation
) -> None:
    """Writes the same mixes of the sounds themselves.

    Args:
      manifest: that of the folder to write to.
      notes: the mixes; their parts hold the sounds.
      generation: its bit depth is that of the sums.

    Raises:
      InputError: a file can't be written.
    """
    by_name = {f"sum_{note.name}.wav": note for note in notes}
    requests = {
        name: {"kind": "sum", **note.facts, "bit_depth": generation.bit_depth}
        for name, note in by_name.items()
    }
    made = {}
    for name in manifest.begin("sums", requests):
        note = by_name[name]
        total = sum_signals(note.signals, note.weights, prevent_clipping=False)
        scale = clipping_scale(total)
        if scale < 1:
            logging.info("%s is scaled by %.3f to prevent clipping.", name, scale)
        path = storage.join(manifest.folder, name)
        results = _write_sound(path, total, scale, generation)
        made[name] = {**requests[name], **results}
    manifest.add(made)


def write_sounds(
    manifest: Manifest,
    model: WaveNet | Baseline,
    notes: Sequence[MixedNote],
    generation: Generation,
    match_loudness: bool,
) -> int:
    """Generates the sounds of mixes, as nsynth_generate does from their files.

    Args:
      manifest: that of the folder to write to.
      model: the opened checkpoint.
      notes: the mixes.
      generation: how.
      match_loudness: scales each to the weighted mean RMS of its sources.

    Returns:
      0, or 1 if some failed; those are logged, the others done.

    Raises:
      KeyboardInterrupt: with what was kept as its message.
    """
    options = sound_options(generation, model.config.model_name)
    options |= {"match_loudness": match_loudness, "bit_depth": generation.bit_depth}
    by_name = {note.sound: note for note in notes}
    requests = {
        name: {"kind": "sound", "embedding": note.file, **note.facts, **options}
        for name, note in by_name.items()
    }
    work = manifest.begin("sounds", requests)
    if not work:
        return 0

    def save(job: Job, audio: np.ndarray) -> None:
        name = os.path.basename(job.path)
        note, scale = by_name[name], 1.0
        if match_loudness:
            scale = note.loudness_scale(audio, name)
        elif generation.normalize:
            scale = 1 / (float(np.abs(audio).max()) or 1.0)
        elif model.config.model_name == "baseline":
            scale = note.peak()  # z does not tell how loud the sound was
        results = _write_sound(job.path, audio, scale, generation)
        manifest.add({name: {**requests[name], **results}})

    failures = Failures()
    jobs = (
        Job(by_name[name].embedding(), storage.join(manifest.folder, name))
        for name in work
    )
    generate_jobs(model, jobs, len(work), generation, save, failures)
    return failures.report(len(work))


def sound_options(generation: Generation, model_name: str) -> dict[str, Any]:
    """The options that sounds depend on, by their manifest keys.

    Args:
      generation: all options.
      model_name: "wavenet" or "baseline": what only the other model uses is left out.
    """
    options = {
        _KEYS.get(field.name, field.name): getattr(generation, field.name)
        for field, described, _ in options_of(Generation)
        if described.model in ("", model_name) and field.name not in _LEFT_OUT
    }
    return options | generation.noted_precision


def _write_sound(
    path: str, audio: np.ndarray, scale: float, generation: Generation
) -> dict[str, Any]:
    """Writes a sound, scaled; returns what the manifest says of the result."""
    with writing(path):
        write_audio(path, audio * np.float32(scale), generation.wav_depth)
    return {
        "samples": len(audio),
        "rate": SAMPLE_RATE,
        "scale": scale,
        "software": _SOFTWARE,
    }
