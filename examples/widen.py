#!/usr/bin/env python3
"""Widens a WaveNet in the middle of its training.

    python examples/widen.py --checkpoint_path=training --logdir=wider \
        --width=96 --skip_width=96 --ae_width=64
    nsynth_train --train_path=data/train --logdir=wider --learning_rate=...

The wider network computes what the averaged weights compute: nothing old reads a new
channel, until training changes that. New channels read all others, with random weights
that are half as large as the old ones. Adam's second moments of new weights are the
largest of their variable, so their first steps are small. Start with a low rate
nevertheless; the step is the old one. From step 6,000 on, for example:

    --learning_rate=0:2e-5,6100:1e-4,6500:3e-4,7500:8e-4

nsynth_train needs --pitch_weight again, or leaves the pitch head out.

Source: T. Chen, I. Goodfellow and J. Shlens, "Net2Net: Accelerating learning via
knowledge transfer", ICLR 2016. Differs: new channels are random, not copies.
"""

import argparse
import re

import numpy as np

from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.training.folder import TrainingFolder, checkpoints_in
from magenta_nsynth.weights import tables
from magenta_nsynth.weights.checkpoint import open_checkpoint
from magenta_nsynth.weights.engine import new_autoencoder, read_wavenet_config
from magenta_nsynth.weights.training_state import TrainingState

_WIDTHS = ("width", "skip_width", "ae_width")
# Layers whose outputs are a gate and a value, one after the other.
_GATED = re.compile(r"(dilatedconv|cond_map)_\d+/")
_SMALLER = 0.5  # times the old weights' deviation


def main() -> None:
    """Reads a training checkpoint, and writes the wider one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint_path", required=True)
    parser.add_argument("--logdir", required=True, help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    for name in _WIDTHS:
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in _WIDTHS}
    given = {name: width for name, width in given.items() if width is not None}
    if not given:
        parser.error("Give a width: " + ", ".join(f"--{name}" for name in _WIDTHS))
    try:
        write_wider(options, given)
    except NSynthError as error:
        raise SystemExit(str(error)) from None


def write_wider(options: argparse.Namespace, given: dict[str, int]) -> None:
    """Writes the wider network's state.

    Raises:
      NSynthError: the checkpoint, the folder or a width can't be used.
    """
    if checkpoints_in(options.logdir):
        raise InputError(f"{options.logdir} contains a run; give a new folder.")
    checkpoint = open_checkpoint(options.checkpoint_path)
    config = read_wavenet_config(checkpoint)
    for name, width in given.items():
        if width < getattr(config, name):
            raise InputError(f"--{name} must be {getattr(config, name)} or more.")
    wide = config.from_dict({**config.to_dict(), **given})
    has_head = tables.holds_pitch_head(checkpoint.shapes)
    old = TrainingState(new_autoencoder(config), has_head)
    old.restore(checkpoint)
    new = TrainingState(new_autoencoder(wide), has_head)
    widen(old, new, np.random.default_rng(options.seed))
    print(TrainingFolder(options.logdir, 0).save(new))


def widen(old: TrainingState, new: TrainingState, random: np.random.Generator) -> None:
    """Sets the state of a wider network."""
    rows = tables.table(old.model.config)
    names = [row.name for row in rows] + ["pitch_head/"] * len(old.pitch_head)
    for i, name in enumerate(names):
        average = old.averages[i].numpy()
        is_gated = bool(_GATED.match(name))
        shape = tuple(new.variables[i].shape)
        scale = _SMALLER * average.std() if average.ndim > 1 else 0.0
        fill = random.normal(0, scale, shape)
        weights = grown(average, fill, is_gated, reads_new=False)
        new.variables[i].assign(weights)
        new.averages[i].assign(weights)
        for slots, wider in (
            (old.first_moments, new.first_moments),
            (old.second_moments, new.second_moments),
        ):
            before, after = slots[i], wider[i]
            if before is not None and after is not None:
                moment = before.numpy()
                most = moment.max() if slots is old.second_moments else 0.0
                fill = np.full(shape, most)
                after.assign(grown(moment, fill, is_gated, reads_new=True))
    for before, after in (
        (old.global_step, new.global_step),
        (old.beta1_power, new.beta1_power),
        (old.beta2_power, new.beta2_power),
    ):
        after.assign(before)


def grown(
    old: np.ndarray, fill: np.ndarray, is_gated: bool, reads_new: bool
) -> np.ndarray:
    """Puts a bias [out] or a kernel [taps, in, out] into a larger one.

    Args:
      old: the array.
      fill: what the rest becomes, in the new shape.
      is_gated: whether both halves of the outputs grow by the same number.
      reads_new: False sets the weights of old outputs for new inputs to 0.

    Returns:
      float32, in the shape of `fill`.
    """
    new = np.array(fill, np.float32)
    count = old.shape[-1]
    outputs = np.arange(count)
    if is_gated:
        outputs[count // 2 :] += (new.shape[-1] - count) // 2
    if not reads_new and old.ndim > 1:
        new[..., outputs] = 0
    inputs = (slice(0, size) for size in old.shape[:-1])
    new[(*inputs, outputs)] = old
    return new


if __name__ == "__main__":
    main()
