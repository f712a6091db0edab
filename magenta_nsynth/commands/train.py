"""Trains an autoencoder of either kind, or resumes a training run."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from magenta_nsynth.api import load_model
from magenta_nsynth.commands.options import Network
from magenta_nsynth.commands.reconstruct import DEFAULT_SAMPLES, reconstruct_notes
from magenta_nsynth.config import H512_BO16, NFFT_1024, Config, WaveNetConfig
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.data.reading import NoteIndex, open_notes
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.options import refuse_other_model
from magenta_nsynth.training.evaluation import make_evaluator
from magenta_nsynth.training.folder import TrainingFolder, checkpoints_in, newest_in
from magenta_nsynth.training.loop import TrainingLoop
from magenta_nsynth.training.options import NetworkShape, Saving, Steps, TrainingNotes
from magenta_nsynth.training.recipes import Recipe
from magenta_nsynth.training.reconstruction import Reconstructions
from magenta_nsynth.training.trainer import Trainer, choose_strategy, set_up_towers
from magenta_nsynth.training.workers import Cluster
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.engine import (
    FREE_FIELDS,
    new_autoencoder,
    read_config,
    require_model,
)

__all__ = ["train"]

# Of reconstructions for TensorBoard.
_NUM_RECONSTRUCTED = 16
_GRIFFIN_LIM_ITERATIONS = 100


def train(
    network: Network,
    shape: NetworkShape,
    notes: TrainingNotes,
    filters: NoteFilter,
    steps: Steps,
    saving: Saving,
) -> int:
    """Trains until the last step, Ctrl-C, or a loss that isn't finite.

    Source: NSynth, both train.py. Differs: see docs/reference/differences.md.

    Args:
      network: the checkpoint to start from, if `saving.logdir` has none; and the model.
        Without a checkpoint, a new network of that model; a WaveNet by default.
      shape: a new network's shape. A checkpoint's has to agree with it.
      notes: the notes to train on and to measure the loss on.
      filters: which of the notes to train on.
      steps: how to train.
      saving: where and when to save.

    Returns:
      The exit status, 0.

    Raises:
      InputError: an option or a note that can't be used.
      CheckpointError: the checkpoint to start from can't be read, or doesn't fit.
      TrainingError: the loss is NaN or infinite, or another worker was lost.
      KeyboardInterrupt: says which step was saved.
    """
    cluster = Cluster()
    model, fields = _model_and_fields(network, shape, steps, saving.logdir)
    recipe = steps.recipe(model)
    num_towers, strategy = _devices(cluster, model, recipe)
    train_notes = _open_notes(
        notes.train_path, steps.with_labels(recipe), notes.skip_corrupt, filters
    )
    eval_notes = None
    if any(notes.eval_path):
        eval_notes = _open_notes(notes.eval_path, recipe, notes.skip_corrupt)
    elif saving.reconstruct_steps:
        raise InputError(
            "--reconstruct_steps needs --eval_path, the notes to reconstruct."
        )
    with contextlib.ExitStack() as stack:
        folder = None
        if cluster.is_chief:
            folder = TrainingFolder(saving.logdir, saving.num_checkpoints)
            stack.callback(folder.close)
        starts = _starts(saving.logdir, network.checkpoint_path)
        config = _config(model, fields, starts[0] if starts else None)
        _check_crop(recipe, config, steps.shortest_note)
        stop = _last_step(steps, recipe, starts[0] if starts else None)
        keras.utils.set_random_seed(steps.seed)  # for the weights of a new network
        dtype = "mixed_bfloat16" if steps.mixed_precision else None
        # Only here: reconstructions open checkpoints of their own, on the chief alone.
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            autoencoder = new_autoencoder(config, dtype)
            trainer = Trainer(
                autoencoder,
                num_towers,
                steps.average_decay,
                strategy,
                pitch_weight=steps.pitch_weight,
            )
        damaged = _restore(trainer, starts)
        if folder is not None:
            folder.damaged.update(damaged)
        loop = TrainingLoop(
            trainer=trainer,
            recipe=recipe,
            steps=steps,
            saving=saving,
            folder=folder,
            notes=train_notes,
            eval_notes=eval_notes,
            evaluator=make_evaluator(autoencoder, num_towers),
            strategy=strategy,
            reconstruct=_reconstruction(model, recipe, eval_notes),
        )
        loop.run(stop)
    return 0


def _model_and_fields(
    network: Network, shape: NetworkShape, steps: Steps, logdir: str
) -> tuple[str, dict[str, Any]]:
    """The model to train, and the fields of its config that were asked for."""
    model, fields = shape.requested(network.model)
    # Opened again once the folder is locked: another program may be writing to it.
    start = newest_in(logdir)
    if start is None and network.checkpoint_path:
        start = Checkpoint(network.checkpoint_path)
    if start is not None:
        model = model or start.model or "wavenet"
        require_model(start, model)
    model = model or "wavenet"
    refuse_other_model(shape, model)
    refuse_other_model(steps, model)
    return model, fields


def _devices(
    cluster: Cluster, model: str, recipe: Recipe
) -> tuple[int, tf.distribute.Strategy | None]:
    """The number of towers, and the strategy if there are several devices.

    Call it before TensorFlow's first operation.
    """
    num_towers = 1
    if model == "wavenet" and cluster.num_workers == 1:
        num_towers = set_up_towers(recipe.batch_size)
    strategy = choose_strategy(cluster)
    replicas = 1 if strategy is None else strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise InputError(
            f"--batch_size={recipe.batch_size} can't be divided among {replicas} "
            f"devices; use a multiple of {replicas}."
        )
    if model == "baseline" and recipe.batch_size < 2 * replicas:
        raise InputError(
            f"--batch_size must be {2 * replicas} or more for the baseline, 2 for "
            "each device: its innermost batch norms see one value of each note, so "
            "they turn a single note to zeros."
        )
    return num_towers, strategy


def _open_notes(
    paths: Sequence[str],
    recipe: Recipe,
    skip_corrupt: bool,
    filters: NoteFilter | None = None,
) -> NoteIndex:
    return open_notes(
        paths,
        filters,
        skip_corrupt,
        features=recipe.features,
        min_samples=recipe.crop_length,
        needs_pitch=recipe.needs_pitch,
    )


def _reconstruction(
    model: str, recipe: Recipe, notes: NoteIndex | None
) -> Callable[[str], Reconstructions] | None:
    """Makes the function that measures reconstructions by a checkpoint."""
    if notes is None:
        return None
    chosen = notes.spread(_NUM_RECONSTRUCTED)
    options = Generation(batch_size=_NUM_RECONSTRUCTED, seed=0)
    if model == "baseline":
        options = dataclasses.replace(
            options, griffin_lim_iterations=_GRIFFIN_LIM_ITERATIONS
        )
    num_samples = DEFAULT_SAMPLES[model]

    def reconstruct(prefix: str) -> Reconstructions:
        opened = load_model(prefix, model, use_ema=model == "wavenet")
        least = max(opened.min_samples, recipe.crop_length)
        return reconstruct_notes(opened, chosen, options, num_samples, least)

    return reconstruct


def _starts(logdir: str, checkpoint_path: str) -> list[Checkpoint]:
    """The checkpoints to start from: the first one that is undamaged counts."""
    starts = checkpoints_in(logdir)
    if checkpoint_path:
        if not starts:
            return [Checkpoint(checkpoint_path)]
        logging.info(
            "%s contains a run; resuming it and ignoring --checkpoint_path.", logdir
        )
    return starts


def _config(model: str, fields: dict[str, Any], start: Checkpoint | None) -> Config:
    """The starting point's config, which has to agree with what was asked for."""
    if start is None:
        released = H512_BO16 if model == "wavenet" else NFFT_1024
        return type(released).from_dict({**released.to_dict(), **fields})
    stated = start.config_file()
    config = read_config(start)
    asked = {
        name: value
        for name, value in fields.items()
        if name in FREE_FIELDS and name not in stated
    }
    config = dataclasses.replace(config, **asked)
    differing = [
        f"{name} is {getattr(config, name)} there and {value} was asked for"
        for name, value in fields.items()
        if getattr(config, name) != value
    ]
    if differing:
        raise CheckpointError(
            f"{start.prefix}: {'; '.join(differing)}. A checkpoint's network can't "
            "change its shape: leave those flags out, or train a new network in "
            "another --logdir."
        )
    return config


def _check_crop(recipe: Recipe, config: Config, shortest: int) -> None:
    length = recipe.crop_length
    if isinstance(config, WaveNetConfig):
        hop = config.ae_hop_length
        if length < hop or length % hop:
            raise InputError(
                f"--crop_length must be a multiple of {hop} samples (a frame), not "
                f"{length}."
            )
    elif not config.min_samples <= length <= config.max_samples:
        raise InputError(
            f"--crop_length must be {config.min_samples} to {config.max_samples} "
            f"samples for the baseline, not {length}."
        )
    if shortest >= length:
        raise InputError(
            f"--shortest_note={shortest} must be below --crop_length={length}, or "
            "nothing is cut."
        )


def _last_step(steps: Steps, recipe: Recipe, start: Checkpoint | None) -> int:
    if start is None:
        return steps.additional_steps or recipe.num_steps
    step = start.step or 0
    if steps.additional_steps is not None:
        return step + steps.additional_steps
    if step >= recipe.num_steps:
        raise InputError(
            f"{start.prefix}: this run is at step {step:,}, so --num_steps="
            f"{recipe.num_steps} is reached. Raise it, or give --additional_steps."
        )
    return recipe.num_steps


def _restore(trainer: Trainer, starts: list[Checkpoint]) -> list[str]:
    """Restores the first checkpoint that is undamaged; returns the damaged ones."""
    for i, start in enumerate(starts):
        try:
            trainer.state.restore(start)
        except CheckpointError as error:
            if i == len(starts) - 1:
                raise
            logging.warning("%s Trying an older one.", error)
        else:
            logging.info("Starting from %s.", start.prefix)
            return [damaged.prefix for damaged in starts[:i]]
    return []
