"""Writing mixes: their embeddings, the sums of their signals, and their sounds."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

import magenta_nsynth
from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.audio import mixing as signals
from magenta_nsynth.audio import write_audio
from magenta_nsynth.commands.common import generated_name, writing
from magenta_nsynth.commands.generate import generate
from magenta_nsynth.commands.generate_baseline import generate_baseline
from magenta_nsynth.commands.mix_manifest import Manifest
from magenta_nsynth.commands.mix_plan import Mix
from magenta_nsynth.commands.mix_sources import MixPart
from magenta_nsynth.commands.save_codes import writing_codes
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.embeddings.arrays import save_array
from magenta_nsynth.embeddings.codes import csv_path
from magenta_nsynth.embeddings.mixing import (
    crossfade,
    crossfade_weights,
    mix,
    time_stretch,
)

__all__ = ["MixFile", "MixNote", "Outputs"]

# Options of generation that no sample depends on.
_WITHOUT_EFFECT = ("batch_size", "samples_per_save")
_SOFTWARE = f"magenta_nsynth {magenta_nsynth.__version__}"


class MixNote(NamedTuple):
    """What becomes one sound.

    Attributes:
      name: of its sounds, before their endings.
      mix: the weights.
      parts: what is mixed, of each source.
      facts: what the manifest says of it in any form.
    """

    name: str
    mix: Mix
    parts: list[MixPart]
    facts: dict[str, Any]

    @property
    def num_frames(self) -> int:
        """Of the shortest, to which the others are cut."""
        return min(len(part.embedding) for part in self.parts)

    @property
    def num_samples(self) -> int:
        """Likewise."""
        return min(part.num_samples for part in self.parts)

    def embedding(self) -> np.ndarray:
        """The mix, float32 [frames, channels]."""
        arrays = [part.embedding[: self.num_frames] for part in self.parts]
        times, method = self.facts["crossfade"], self.facts["method"]
        if times is not None:
            mixed = crossfade(*arrays, *times, method)
        else:
            mixed = mix(arrays, self.mix.weights, method)
        stretch = self.facts["stretch"]
        return mixed if stretch == 1 else time_stretch(mixed, stretch)

    def clips(self) -> list[np.ndarray]:
        """The sounds that were mixed, as long as the shortest."""
        return [part.audio[: self.num_samples] for part in self.parts]

    def weights(self) -> np.ndarray:
        """Of the sources: [count], or [count, samples] of a crossfade."""
        if self.mix.weights is not None:
            return self.mix.weights
        return crossfade_weights(self.num_samples, *self.facts["crossfade"])


class MixFile(NamedTuple):
    """A file of a mix's embedding.

    Attributes:
      name: of the file.
      notes: one; of the baseline's z there may be more.
    """

    name: str
    notes: list[MixNote]


class Outputs:
    """Writes into a folder, and into its manifest what was written.

    Args:
      folder: the one to write to.
      manifest: its.
      skip_existing: leaves out what the manifest knows.
      bit_depth: of sounds, "float" or "16".
    """

    def __init__(
        self, folder: str, manifest: Manifest, skip_existing: bool, bit_depth: str
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._skip_existing = skip_existing
        self._bit_depth = bit_depth

    def write_embeddings(self, files: Sequence[MixFile]) -> None:
        """Writes the .npy of each mix, and the .csv of z."""
        recipes: dict[str, dict[str, Any]] = {}
        for name, notes in files:
            recipes[name] = {"kind": "embedding", **notes[0].facts}
            if notes[0].facts["model"] == "baseline":
                recipes[csv_path(name)] = {"kind": "labels", "of": name}
        work = set(self._begin("embeddings", recipes))
        made = {}
        for name, notes in files:
            if work.isdisjoint([name, csv_path(name)]):
                continue
            arrays = [note.embedding() for note in notes]
            self._save_embedding(name, notes, arrays)
            results: dict[str, Any] = {
                "mixed_frames": notes[0].num_frames,
                "mixed_samples": notes[0].num_samples,
            }
            if len(notes) > 1:
                results["notes"] = len(notes)
            results["frames"] = sum(map(len, arrays))
            results["channels"] = arrays[0].shape[1]
            results["software"] = _SOFTWARE
            made[name] = {**recipes[name], **results}
            if csv_path(name) in recipes:
                made[csv_path(name)] = recipes[csv_path(name)]
        self._manifest.add(made)

    def _save_embedding(
        self, name: str, notes: Sequence[MixNote], arrays: Sequence[np.ndarray]
    ) -> None:
        path = os.path.join(self._folder, name)
        if notes[0].facts["model"] == "wavenet":
            with writing(path):
                save_array(path, arrays[0])
            return
        with writing_codes(path, arrays[0].shape[1]) as writer:
            for note, z in zip(notes, arrays, strict=True):
                pitch = note.parts[note.mix.heaviest].pitch
                labels = {"note_str": note.name, "pitch": pitch}
                writer.add(z, labels, note.num_samples)

    def write_sums(self, files: Sequence[MixFile]) -> None:
        """Writes the same mixes of the sounds."""
        notes = {f"sum_{n.name}.wav": n for _, notes in files for n in notes}
        recipes = {
            name: {"kind": "sum", **note.facts, "bit_depth": self._bit_depth}
            for name, note in notes.items()
        }
        work = self._begin("sums", recipes)
        made = {}
        for name in work:
            note = notes[name]
            total = signals.sum_signals(note.clips(), note.weights(), False)
            scale = signals.clipping_scale(total)
            if scale < 1:
                logging.info("%s is scaled by %.3f, not to clip.", name, scale)
            results = self._save_sound(os.path.join(self._folder, name), total, scale)
            made[name] = {**recipes[name], **results}
        self._manifest.add(made)

    def generate(
        self,
        model: WaveNet | Baseline,
        files: Sequence[MixFile],
        generation: Mapping[str, Any],
        match_loudness: bool,
    ) -> int:
        """Makes the sounds of the embeddings, as nsynth_generate does.

        Returns:
          0, or 1 if some failed.
        """
        is_baseline = isinstance(model, Baseline)
        job = generate_baseline if is_baseline else generate
        options = {k: v for k, v in generation.items() if k not in _WITHOUT_EFFECT}
        options |= {"match_loudness": match_loudness, "bit_depth": self._bit_depth}
        notes, recipes, file_of = {}, {}, {}
        for file, its in files:
            for note in its:
                stem = note.name if is_baseline else os.path.splitext(file)[0]
                name = generated_name(stem)
                notes[name], file_of[name] = note, file
                recipe = {"kind": "sound", "embedding": file, **note.facts, **options}
                recipes[name] = recipe
        work = self._begin("sounds", recipes)
        # Of a file with several notes all are made again, if one is missing.
        paths = [
            os.path.join(self._folder, file)
            for file in dict.fromkeys(file_of[name] for name in work)
        ]
        if not paths:
            return 0

        def save(path: str, audio: np.ndarray) -> None:
            name = os.path.basename(path)
            note = notes[name]
            scale = 1.0
            if match_loudness:
                levels = [signals.rms(clip) for clip in note.clips()]
                scale = signals.loudness_scale(audio, levels, note.weights(), name)
            elif generation.get("normalize"):
                scale = 1 / (float(np.abs(audio).max()) or 1.0)
            elif is_baseline:
                scale = _peak(note)
            results = self._save_sound(path, audio, scale)
            self._manifest.add({name: {**recipes[name], **results}})

        # Not normalised there: the manifest is to know the scale.
        given = {**generation, "normalize": False}
        return job(model, paths, self._folder, sample_length=0, save=save, **given)

    def _begin(self, what: str, recipes: dict[str, dict[str, Any]]) -> list[str]:
        """The files to write, which the manifest then knows nothing of."""
        work = list(recipes)
        if self._skip_existing:
            work = [n for n in work if not self._manifest.has(n, recipes[n])]
        if len(work) < len(recipes):
            done = len(recipes) - len(work)
            logging.info("%s: %d of %d are done already.", what, done, len(recipes))
        self._manifest.forget({name: recipes[name] for name in work})
        return work

    def _save_sound(self, path: str, audio: np.ndarray, scale: float) -> dict[str, Any]:
        """Writes a sound, scaled; what there is to say of it."""
        depth = self._bit_depth if self._bit_depth == "float" else int(self._bit_depth)
        with writing(path):
            write_audio(path, audio * np.float32(scale), depth)
        return {
            "samples": len(audio),
            "rate": SAMPLE_RATE,
            "scale": scale,
            "software": _SOFTWARE,
        }


def _peak(note: MixNote) -> float:
    """The weighted mean of the sources' peaks: z does not know how loud it was."""
    sizes = np.abs(note.weights())
    peaks = [part.peak for part in note.parts]
    return min(float(np.dot(sizes / sizes.sum(), peaks)), 1.0)
