"""Measures a checkpoint on notes, per instrument family: its loss, and its sounds."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.api import Autoencoder, WaveNet
from magenta_nsynth.commands.common import make_folder
from magenta_nsynth.commands.evaluation_tables import Measured, table
from magenta_nsynth.commands.reconstruct import DEFAULT_SAMPLES, reconstruct_notes
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.reading import NoteIndex, open_notes
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, write_json
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.models.spectral import SpectralAutoencoder
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.options import refuse_changed, refuse_other_model
from magenta_nsynth.stores import storage
from magenta_nsynth.training.evaluation import (
    Evaluator,
    NoteLosses,
    evaluate_notes,
    make_evaluator,
)
from magenta_nsynth.training.options import Evaluation
from magenta_nsynth.training.recipes import RECIPES, Recipe
from magenta_nsynth.training.reconstruction import Reconstructions
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import set_up_towers
from magenta_nsynth.training.yardstick import linear_predictor_nll
from magenta_nsynth.weights.engine import load_part

__all__ = ["evaluate"]

_FILE_NAME = "evaluation.json"


def evaluate(
    model: Autoencoder,
    inputs: Inputs,
    filters: NoteFilter,
    options: Evaluation,
    generation: Generation | None = None,
) -> int:
    """Prints what a checkpoint makes of TFRecords' notes, per family.

    Args:
      model: the opened checkpoint.
      inputs: the TFRecords, and whether damaged notes are left out.
      filters: which of the notes to use.
      options: what to measure.
      generation: how notes are reconstructed; None is the default.

    Returns:
      The exit status, 0.

    Raises:
      InputError: an option or a note that can't be used.
      CheckpointError: a damaged checkpoint.
    """
    generation = generation or Generation(seed=0)
    _check_options(model, options, generation)
    path = _json_path(options.save_path)
    if path:
        make_folder(os.path.dirname(path) or ".")
    if options.logdir:
        make_folder(options.logdir, "--logdir")
    # Before TensorFlow's first operation.
    num_towers = set_up_towers(options.batch_size) if model.name == "wavenet" else 1
    recipe = dataclasses.replace(RECIPES[model.name], batch_size=options.batch_size)
    if options.sample_length is not None:
        recipe = dataclasses.replace(recipe, crop_length=options.sample_length)
    _check_length(recipe.crop_length, model, options)
    min_samples = max(model.min_samples, 2 * max(options.linear_predictor, default=0))
    notes = _open_notes(inputs, filters, recipe, min_samples, options.limit)
    evaluator, result = _losses(model, notes, recipe, min_samples, num_towers)
    measured = Measured(
        recipe,
        result,
        _yardsticks(options.linear_predictor, notes, recipe, min_samples),
        _reconstructions(model, notes, recipe, options, generation),
    )
    print(table(measured))
    if path:
        described = _describe(model, options, generation)
        write_json(path, {**described, **measured.to_json()})
    if options.logdir:
        _summarise(model, options.logdir, measured, evaluator)
    return 0


def _check_options(
    model: Autoencoder, options: Evaluation, generation: Generation
) -> None:
    refuse_other_model(options, model.name)
    if options.reconstruct:
        model.check_generation(generation)
    else:
        reason = "does nothing without --reconstruct; add that, or leave it out."
        refuse_changed(generation, reason)


def _json_path(save_path: str) -> str:
    """The file to write; "" for none."""
    if not save_path:
        return ""
    path = expand(save_path)
    is_file = path.endswith(".json") and not storage.isdir(path)
    return path if is_file else storage.join(path, _FILE_NAME)


def _check_length(length: int, model: Autoencoder, options: Evaluation) -> None:
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
    order = max(options.linear_predictor, default=0)
    if 0 < length < 2 * order:
        raise InputError(
            f"--linear_predictor={order} needs {2 * order} samples or more of each "
            f"note, and --sample_length is {length}; give a shorter one, or more "
            "samples."
        )


def _open_notes(
    inputs: Inputs, filters: NoteFilter, recipe: Recipe, min_samples: int, limit: int
) -> NoteIndex:
    notes = open_notes(
        inputs.source_path,
        filters,
        inputs.skip_corrupt,
        features=recipe.features,
        min_samples=max(recipe.crop_length, min_samples),
        needs_pitch=recipe.needs_pitch,
    )
    if notes.num_skipped:
        logging.warning("Left out %d damaged notes.", notes.num_skipped)
    return notes.spread(limit) if limit else notes


def _losses(
    model: Autoencoder,
    notes: NoteIndex,
    recipe: Recipe,
    min_samples: int,
    num_towers: int,
) -> tuple[Evaluator | None, NoteLosses]:
    """The loss of each note, and the evaluator, if there is one for such lengths."""
    if isinstance(model, WaveNet) and not recipe.crop_length:
        losses_of = _whole_note_losses(model)
        return None, evaluate_notes(losses_of, notes, recipe, min_samples)
    evaluator = make_evaluator(_whole_network(model), num_towers)
    return evaluator, evaluate_notes(evaluator, notes, recipe, min_samples)


def _yardsticks(
    orders: Any, notes: NoteIndex, recipe: Recipe, min_samples: int
) -> dict[int, np.ndarray]:
    """The loss of each note by linear predictors, by their order."""

    def losses(order: int) -> np.ndarray:
        def losses_of(batch: np.ndarray) -> np.ndarray:
            return np.array([linear_predictor_nll(clip, order) for clip in batch])

        return evaluate_notes(losses_of, notes, recipe, min_samples).losses

    return {order: losses(order) for order in orders}


def _reconstructions(
    model: Autoencoder,
    notes: NoteIndex,
    recipe: Recipe,
    options: Evaluation,
    generation: Generation,
) -> Reconstructions | None:
    if not options.reconstruct:
        return None
    length = options.sample_length
    return reconstruct_notes(
        model,
        notes,
        dataclasses.replace(generation, batch_size=options.batch_size),
        DEFAULT_SAMPLES[model.name] if length is None else length,
        max(recipe.crop_length, model.min_samples),
    )


def _describe(
    model: Autoencoder, options: Evaluation, generation: Generation
) -> dict[str, Any]:
    """The checkpoint and the options, as JSON values."""
    described: dict[str, Any] = {
        "checkpoint": model.checkpoint_path,
        "model": model.name,
        "step": model.checkpoint.step,
        "use_ema": model.use_ema,
        "sample_length": options.sample_length,
        "limit": options.limit,
    }
    if options.reconstruct:
        described["seed"] = generation.seed
        if model.makes_steps:
            described["temperature"] = generation.temperature
        else:
            described["griffin_lim_iterations"] = generation.griffin_lim_iterations
    return described


def _summarise(
    model: Autoencoder, logdir: str, measured: Measured, evaluator: Evaluator | None
) -> None:
    step, summaries = model.checkpoint.step or 0, Summaries(expand(logdir))
    measured.losses.summarise(summaries, step, measured.recipe)
    if evaluator is not None:
        evaluator.show(summaries, step, measured.losses.first)
    if measured.sounds is not None:
        measured.sounds.summarise(summaries, step)


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
