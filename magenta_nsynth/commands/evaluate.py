"""Prints the loss of a checkpoint on notes, per instrument family."""

import dataclasses
from collections.abc import Callable

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.commands.common import make_folder
from magenta_nsynth.commands.options import Network
from magenta_nsynth.config import SpectralConfig, WaveNetConfig
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.reading import open_notes
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.schema import FAMILIES
from magenta_nsynth.training.evaluation import (
    evaluate_notes,
    make_evaluator,
)
from magenta_nsynth.training.options import Evaluation
from magenta_nsynth.training.recipes import RECIPES, Recipe
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import set_up_towers
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.engine import (
    load_autoencoder,
    read_config,
    require_model,
)

__all__ = ["evaluate", "table"]


def evaluate(
    network: Network, inputs: Inputs, filters: NoteFilter, options: Evaluation
) -> int:
    """Prints the mean loss of a checkpoint on TFRecords' notes, per family.

    Args:
      network: the checkpoint.
      inputs: the TFRecords, and whether damaged notes are left out.
      filters: which of the notes to use.
      options: how to measure.

    Returns:
      The exit status, 0.

    Raises:
      InputError: an option or a note that can't be used.
      CheckpointError: the checkpoint can't be read.
    """
    if options.logdir:
        make_folder(options.logdir, "--logdir")
    checkpoint = Checkpoint(network.checkpoint_path)
    model = network.model or checkpoint.model or "wavenet"
    require_model(checkpoint, model)
    config = read_config(checkpoint, network.hop_length, network.dilation_cycle)
    recipe = dataclasses.replace(RECIPES[model], batch_size=options.batch_size)
    if options.sample_length is not None:
        recipe = dataclasses.replace(recipe, crop_length=options.sample_length)
    least = _check_length(recipe.crop_length, config)
    # Before TensorFlow's first operation.
    num_towers = set_up_towers(options.batch_size) if model == "wavenet" else 1
    notes = open_notes(
        inputs.source_path,
        filters,
        inputs.skip_corrupt,
        features=recipe.features,
        min_samples=recipe.crop_length or least,
        needs_pitch=recipe.needs_pitch,
    )
    evaluator = None
    if model == "wavenet" and not recipe.crop_length:
        result = evaluate_notes(_whole_notes(network), notes, recipe, least)
    else:
        autoencoder = load_autoencoder(
            checkpoint,
            model,
            network.use_ema,
            network.hop_length,
            network.dilation_cycle,
        )
        evaluator = make_evaluator(autoencoder, num_towers)
        result = evaluate_notes(evaluator, notes, recipe, least)
    if notes.num_skipped:
        logging.warning("Left out %d damaged notes.", notes.num_skipped)
    print(table(result.losses, result.families, recipe))
    if options.logdir:
        step, summaries = checkpoint.step or 0, Summaries(expand(options.logdir))
        result.summarise(summaries, step, recipe)
        if evaluator is not None:
            evaluator.show(summaries, step, result.first)
    return 0


def _check_length(length: int, config: WaveNetConfig | SpectralConfig) -> int:
    """Checks a number of samples; returns the least one that the network can take."""
    if isinstance(config, WaveNetConfig):
        least = config.ae_hop_length
        if length % least:
            raise InputError(
                f"--sample_length must be a multiple of {least} samples (a frame) or "
                f"0, not {length}."
            )
        return least
    least = config.min_samples
    if 0 < length < least:
        raise InputError(
            f"--sample_length must be {least} or more, or 0, not {length}."
        )
    return least


def _whole_notes(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """Computes a WaveNet's loss of one whole note, [1, t], piece by piece."""
    model = WaveNet(
        network.checkpoint_path,
        network.use_ema,
        network.hop_length,
        network.dilation_cycle,
    )

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
