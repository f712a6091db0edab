"""Prints the loss of a checkpoint on notes, per instrument family."""

import dataclasses
from collections.abc import Callable

import numpy as np
from absl import logging

from magenta_nsynth.api import Autoencoder, WaveNet
from magenta_nsynth.commands.common import make_folder
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.reading import open_notes
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.models.spectral import SpectralAutoencoder
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.schema import FAMILIES
from magenta_nsynth.training.evaluation import evaluate_notes, make_evaluator
from magenta_nsynth.training.options import Evaluation
from magenta_nsynth.training.recipes import RECIPES, Recipe
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import set_up_towers
from magenta_nsynth.weights.engine import load_part

__all__ = ["evaluate", "table"]


def evaluate(
    model: Autoencoder, inputs: Inputs, filters: NoteFilter, options: Evaluation
) -> int:
    """Prints the mean loss of a checkpoint on TFRecords' notes, per family.

    Args:
      model: the opened checkpoint.
      inputs: the TFRecords, and whether damaged notes are left out.
      filters: which of the notes to use.
      options: how to measure.

    Returns:
      The exit status, 0.

    Raises:
      InputError: an option or a note that can't be used.
      CheckpointError: a damaged checkpoint.
    """
    if options.logdir:
        make_folder(options.logdir, "--logdir")
    # Before TensorFlow's first operation.
    num_towers = set_up_towers(options.batch_size) if model.name == "wavenet" else 1
    recipe = dataclasses.replace(RECIPES[model.name], batch_size=options.batch_size)
    if options.sample_length is not None:
        recipe = dataclasses.replace(recipe, crop_length=options.sample_length)
    _check_length(recipe.crop_length, model)
    notes = open_notes(
        inputs.source_path,
        filters,
        inputs.skip_corrupt,
        features=recipe.features,
        min_samples=recipe.crop_length or model.min_samples,
        needs_pitch=recipe.needs_pitch,
    )
    evaluator = None
    if isinstance(model, WaveNet) and not recipe.crop_length:
        losses_of = _whole_note_losses(model)
        result = evaluate_notes(losses_of, notes, recipe, model.min_samples)
    else:
        evaluator = make_evaluator(_whole_network(model), num_towers)
        result = evaluate_notes(evaluator, notes, recipe, model.min_samples)
    if notes.num_skipped:
        logging.warning("Left out %d damaged notes.", notes.num_skipped)
    print(table(result.losses, result.families, recipe))
    if options.logdir:
        step, summaries = model.checkpoint.step or 0, Summaries(expand(options.logdir))
        result.summarise(summaries, step, recipe)
        if evaluator is not None:
            evaluator.show(summaries, step, result.first)
    return 0


def _check_length(length: int, model: Autoencoder) -> None:
    least = model.min_samples
    if isinstance(model, WaveNet) and length % least:
        raise InputError(
            f"--sample_length must be a multiple of {least} samples (a frame) or 0, "
            f"not {length}."
        )
    if 0 < length < least:
        raise InputError(
            f"--sample_length must be {least} or more, or 0, not {length}."
        )


def _whole_network(model: Autoencoder) -> WaveNetAutoencoder | SpectralAutoencoder:
    """Loads encoder and decoder as one Keras model."""
    kind: type[WaveNetAutoencoder | SpectralAutoencoder] = (
        WaveNetAutoencoder if isinstance(model, WaveNet) else SpectralAutoencoder
    )
    return load_part(kind, model.checkpoint, model.config, model.use_ema)


def _whole_note_losses(model: WaveNet) -> Callable[[np.ndarray], np.ndarray]:
    """Makes a function for the loss of one whole note, [1, t] -> [1]."""

    def losses_of(batch: np.ndarray) -> np.ndarray:
        num_frames = model.config.num_frames(batch.shape[1])
        return np.array([model.nll(batch[0, : model.config.num_samples(num_frames)])])

    return losses_of


def table(losses: np.ndarray, families: np.ndarray, recipe: Recipe) -> str:
    """The lines to print: family, number of notes, their mean loss in each unit.

    Args:
      losses: [n] floats, of each note.
      families: [n] integers, indices of `FAMILIES`. Others are shown as unknown.
      recipe: the model's.
    """
    names = np.array([*FAMILIES, "unknown"])
    is_unknown = (families < 0) | (families >= len(FAMILIES))
    labels = names[np.where(is_unknown, -1, families)]
    units = [name.removeprefix("loss_") for name in recipe.losses(0.0)]
    digits = 4 if recipe.is_likelihood else 6
    lines = [f"{'family':<12} {'notes':>7}" + "".join(f" {u:>8}" for u in units)]
    for name in [*(name for name in names if name in labels), "all"]:
        values = losses if name == "all" else losses[labels == name]
        means = recipe.losses(float(values.mean(dtype=np.float64))).values()
        cells = "".join(f" {mean:>8.{digits}f}" for mean in means)
        lines.append(f"{name:<12} {len(values):>7}{cells}")
    return "\n".join(lines)
