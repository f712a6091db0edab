"""Reconstructs notes of TFRecords and measures the results."""

import itertools
from collections.abc import Sequence

import numpy as np

from magenta_nsynth.api import Autoencoder
from magenta_nsynth.commands.generate import embed
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.reading import NoteIndex
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.dataset_clips import read_notes_as_clips
from magenta_nsynth.progress import Progress
from magenta_nsynth.training.recipes import RECIPES
from magenta_nsynth.training.reconstruction import Reconstructions

__all__ = ["DEFAULT_SAMPLES", "reconstruct_notes"]

# The beginning of a note that is reconstructed: about a second, because a WaveNet takes
# its time, or all of it.
DEFAULT_SAMPLES = {"wavenet": 16_384, "baseline": 64_000}
_LABEL = "reconstructing"


def reconstruct_notes(
    model: Autoencoder,
    notes: NoteIndex,
    options: Generation,
    num_samples: int,
    min_samples: int,
) -> Reconstructions:
    """Encodes notes, generates them from their embeddings alone, and measures both.

    Args:
      model: the opened checkpoint.
      notes: the notes.
      options: how to generate, and how many notes side by side.
      num_samples: uses this many samples from each note's beginning, where it has
        them; 0 uses whole notes.
      min_samples: the shortest note that can be used.

    Raises:
      InputError: a note that is damaged or too short, or without a pitch for the
        baseline.
    """
    demand = Demand(
        RECIPES[model.name].features, min_samples, needs_pitch=model.uses_pitch
    )
    clips = read_notes_as_clips(notes, demand)
    result = Reconstructions()
    with Progress(notes.num_notes, "notes", _LABEL) as progress:
        while group := list(itertools.islice(clips, options.batch_size)):
            parts = [_beginning(clip, num_samples, model) for clip in group]
            sounds = _sounds(model, parts, options, progress)
            for part, sound in zip(parts, sounds, strict=True):
                result.add(part, sound)
            progress.advance(len(group))
    return result


def _beginning(clip: Clip, num_samples: int, model: Autoencoder) -> Clip:
    """The part of a clip that is reconstructed; of a WaveNet's, whole frames."""
    length = min(num_samples or len(clip.audio), len(clip.audio))
    if model.makes_steps:
        length -= length % model.min_samples
    return clip._replace(audio=clip.audio[:length])


def _sounds(
    model: Autoencoder, clips: Sequence[Clip], options: Generation, progress: Progress
) -> list[np.ndarray]:
    """Encodes and generates clips side by side; shows how far it is."""
    embeddings = [embed(model, clip) for clip in clips]
    model.check_generation(options, embeddings)
    longest = max(embedding.num_samples for embedding in embeddings)
    blocks, done = [], 0
    for block in model.sounds(embeddings, options):
        blocks.append(block)
        done += block.shape[1]
        progress.label = f"{_LABEL}, {done} of {longest} samples"
        progress.advance(0)
    progress.label = _LABEL
    audio = np.concatenate(blocks, axis=1)
    return [
        model.finish(embedding, row[: embedding.num_samples], options)
        for embedding, row in zip(embeddings, audio, strict=True)
    ]
