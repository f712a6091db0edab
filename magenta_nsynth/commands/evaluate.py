"""The loss of a split, per family: what bin/nsynth_evaluate does."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.commands.common import make_folder
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.reading import NoteFilter, NoteIndex, open_notes
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.record_clips import read_notes_as_clips
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import FAMILIES, UNKNOWN
from magenta_nsynth.training.evaluation import make_evaluator
from magenta_nsynth.training.recipes import RECIPES, Recipe
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import set_up_towers
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.engine import load_autoencoder, read_config, require_model

__all__ = ["describe_loss", "evaluate", "evaluate_notes", "table"]

_NUM_SHOWN = 3  # notes, in summaries
_FAMILY = "instrument_family"


def evaluate_notes(
    evaluator: Callable[[Any], np.ndarray],
    notes: NoteIndex,
    recipe: Recipe,
    length: int,
    batch_size: int,
    min_samples: int = 1,
) -> dict[str, Any]:
    """The loss of the centre of every note.

    Args:
      evaluator: of the model.
      notes: which ones.
      recipe: the model's.
      length: samples of each note; 0 takes all of each, one note after the other.
      batch_size: notes side by side.
      min_samples: shorter notes are an error.

    Returns:
      "loss": [n] float32, of each note; "family": [n] int64; "first": a batch of the
      first notes, 3 or fewer.

    Source: NSynth's evaluation, which takes the centre of each note.
    """
    losses, families, first = [], [], {}
    clips = _clips(notes, recipe, max(length, min_samples))
    with Progress(notes.num_notes, "notes", "evaluating") as progress:
        while group := list(itertools.islice(clips, batch_size if length else 1)):
            batch = {
                "audio": np.stack([_centre(clip.audio, length) for clip in group]),
                **{
                    name: np.array([clip.labels[name] for clip in group])
                    for name in recipe.features
                    if name != "audio"
                },
            }
            first = first or {name: value[:_NUM_SHOWN] for name, value in batch.items()}
            losses.append(evaluator(recipe.batch(batch)))
            families += [_family(clip) for clip in group]
            progress.advance(len(group))
    return {
        "loss": np.concatenate(losses),
        "family": np.array(families),
        "first": recipe.batch(first),
    }


def _clips(notes: NoteIndex, recipe: Recipe, min_samples: int) -> Iterator[Clip]:
    demand = Demand(recipe.features, min_samples, needs_pitch=recipe.needs_pitch)
    others = [name for name in recipe.features if name != "audio"]
    return read_notes_as_clips(notes, demand, (*others, _FAMILY))


def _centre(audio: np.ndarray, length: int) -> np.ndarray:
    start = (len(audio) - length) // 2
    return audio[start : start + length] if length else audio


def _family(clip: Clip) -> int:
    return clip.labels.get(_FAMILY, UNKNOWN)


def describe_loss(recipe: Recipe, loss: float) -> str:
    """A loss in words, in each of its units."""
    if recipe.is_likelihood:
        return f"{loss:.4f} nats ({loss / math.log(2):.4f} bits) per sample"
    return f"loss {loss:.6f}"


def evaluate(
    checkpoint_path: str,
    source_paths: Sequence[str],
    *,
    model: str = "",
    use_ema: bool = False,
    hop_length: int | None = None,
    num_stages: int | None = None,
    sample_length: int | None = None,
    batch_size: int = 8,
    filters: NoteFilter | None = None,
    skip_corrupt: bool = False,
    logdir: str = "",
) -> int:
    """Prints the mean loss of a checkpoint on TFRecords' notes, per family.

    Args:
      checkpoint_path: in any form that `resolve_checkpoint` takes.
      source_paths: TFRecord files, folders or globs.
      model: "wavenet" or "baseline", which the checkpoint has to be; "" takes either.
      use_ema: the averaged weights.
      hop_length: as in `load_wavenet`.
      num_stages: as in `load_wavenet`.
      sample_length: the centre of each note that is used, in samples; 0 is all of it,
        None what the model is trained on.
      batch_size: notes side by side.
      filters: which notes.
      skip_corrupt: leaves out damaged notes.
      logdir: a folder for TensorBoard: the loss, and the first notes beside what the
        model makes of them.

    Returns:
      The exit status, 0.

    Raises:
      InputError: an argument or a file of notes that can't be used.
      CheckpointError: the checkpoint can't be read.
    """
    if batch_size < 1:
        raise InputError(f"--batch_size must be 1 or more, not {batch_size}.")
    if logdir:
        make_folder(logdir, "--logdir")
    checkpoint = Checkpoint(checkpoint_path)
    require_model(checkpoint, model or checkpoint.model or "wavenet")
    recipe = RECIPES[checkpoint.model]
    if sample_length is None:
        sample_length = recipe.crop_length
    is_wavenet = checkpoint.model == "wavenet"
    num_towers = set_up_towers(batch_size) if is_wavenet else 1
    options = {"use_ema": use_ema, "hop_length": hop_length, "num_stages": num_stages}
    config = read_config(checkpoint, hop_length, num_stages)
    if is_wavenet and sample_length % config.ae_hop_length:
        raise InputError(
            f"--sample_length must be a multiple of {config.ae_hop_length} samples (a "
            f"frame) or 0, not {sample_length}."
        )
    least = config.ae_hop_length if is_wavenet else config.min_samples
    if 0 < sample_length < least:
        raise InputError(
            f"--sample_length must be {least} or more, or 0, not {sample_length}."
        )
    notes = open_notes(
        source_paths,
        filters,
        skip_corrupt,
        features=recipe.features,
        min_samples=sample_length or least,
        needs_pitch=recipe.needs_pitch,
    )
    if is_wavenet and not sample_length:
        result = _evaluate_whole_notes(
            WaveNet(checkpoint_path, **options), notes, recipe
        )
    else:
        autoencoder = load_autoencoder(checkpoint_path, **options)
        evaluator = make_evaluator(autoencoder, num_towers)
        result = evaluate_notes(
            evaluator, notes, recipe, sample_length, batch_size, least
        )
    if notes.num_skipped:
        logging.warning("%d damaged notes are left out.", notes.num_skipped)
    print(table(result["loss"], result["family"], recipe))
    if logdir:
        step, summaries = checkpoint.step or 0, Summaries(expand(logdir))
        losses = recipe.losses(float(result["loss"].mean())).items()
        summaries.scalars(step, {f"eval/{name}": value for name, value in losses})
        if "first" in result:
            evaluator.show(summaries, step, result["first"])
    return 0


def _evaluate_whole_notes(
    model: WaveNet, notes: NoteIndex, recipe: Recipe
) -> dict[str, np.ndarray]:
    nats, families = [], []
    hop = model.config.ae_hop_length
    with Progress(notes.num_notes, "notes", "evaluating") as progress:
        for clip in _clips(notes, recipe, hop):
            nats.append(model.nll(clip.audio[: len(clip.audio) // hop * hop]))
            families.append(_family(clip))
            progress.advance()
    return {"loss": np.array(nats), "family": np.array(families)}


def table(loss: np.ndarray, family: np.ndarray, recipe: Recipe) -> str:
    """Lines of family, number of notes, and their mean loss in each of its units.

    Args:
      loss: [n] of each note.
      family: [n] indices of `FAMILIES`; others are shown as unknown.
      recipe: the model's.
    """
    names = np.array([*FAMILIES, "unknown"])
    labels = names[np.where((family < 0) | (family >= len(FAMILIES)), -1, family)]
    units = [name.removeprefix("loss_") for name in recipe.losses(0.0)]
    digits = 4 if recipe.is_likelihood else 6
    lines = [f"{'family':<12} {'notes':>7}" + "".join(f" {u:>8}" for u in units)]
    for name in [*(name for name in names if name in labels), "all"]:
        values = loss if name == "all" else loss[labels == name]
        means = recipe.losses(float(values.mean(dtype=np.float64))).values()
        cells = "".join(f" {mean:>8.{digits}f}" for mean in means)
        lines.append(f"{name:<12} {len(values):>7}{cells}")
    return "\n".join(lines)
