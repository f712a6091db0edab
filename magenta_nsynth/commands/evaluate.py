"""Prints the loss of a checkpoint on notes, per instrument family."""

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
    Evaluator,
    evaluate_notes,
    make_evaluator,
)
from magenta_nsynth.training.options import Evaluation
from magenta_nsynth.training.recipes import RECIPES, Recipe
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import set_up_towers
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.engine import (
    load_weights,
    new_autoencoder,
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
    recipe = RECIPES[model]
    length = options.sample_length
    if length is None:
        length = recipe.crop_length
    _check_length(length, config)
    # Before TensorFlow's first operation.
    num_towers = set_up_towers(options.batch_size) if model == "wavenet" else 1
    notes = open_notes(
        inputs.source_path,
        filters,
        inputs.skip_corrupt,
        features=recipe.features,
        min_samples=length or _least_samples(config),
        needs_pitch=recipe.needs_pitch,
    )
    evaluator = _evaluator(network, checkpoint, config, length, num_towers)
    result = evaluate_notes(evaluator, notes, length, options.batch_size)
    if notes.num_skipped:
        logging.warning("Left out %d damaged notes.", notes.num_skipped)
    print(table(result.losses, result.families, recipe))
    if options.logdir:
        step, summaries = checkpoint.step or 0, Summaries(expand(options.logdir))
        result.summarise(summaries, step, recipe)
        evaluator.show(summaries, step, result.first)
    return 0


def _least_samples(config: WaveNetConfig | SpectralConfig) -> int:
    """The shortest note that a network can take."""
    if isinstance(config, WaveNetConfig):
        return config.ae_hop_length
    return config.min_samples


def _check_length(length: int, config: WaveNetConfig | SpectralConfig) -> None:
    least = _least_samples(config)
    if isinstance(config, WaveNetConfig) and length % least:
        raise InputError(
            f"--sample_length must be a multiple of {least} samples (a frame) or 0, "
            f"not {length}."
        )
    if 0 < length < least:
        raise InputError(
            f"--sample_length must be {least} or more, or 0, not {length}."
        )


def _evaluator(
    network: Network,
    checkpoint: Checkpoint,
    config: WaveNetConfig | SpectralConfig,
    length: int,
    num_towers: int,
) -> Evaluator:
    if isinstance(config, WaveNetConfig) and not length:
        return _WholeNotes(network)
    autoencoder = new_autoencoder(config)
    load_weights(autoencoder, checkpoint, network.use_ema)
    return make_evaluator(autoencoder, num_towers)


class _WholeNotes:
    """A WaveNet's losses of whole notes, one at a time and piece by piece."""

    recipe = RECIPES["wavenet"]

    def __init__(self, network: Network) -> None:
        self._model = WaveNet(
            network.checkpoint_path,
            network.use_ema,
            network.hop_length,
            network.dilation_cycle,
        )
        self.min_samples = self._model.min_samples

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """The loss of one note, [1, t] float32, without its last, partial frame."""
        [audio] = batch
        whole = len(audio) // self.min_samples * self.min_samples
        return np.array([self._model.nll(audio[:whole])])

    def show(self, summaries: Summaries, step: int, batch: np.ndarray) -> None:
        """Shows nothing: a reconstruction needs a note's logits all at once."""


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
