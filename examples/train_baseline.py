#!/usr/bin/env python3
"""Trains a small baseline that plays in tune.

    python examples/train_baseline.py --train_path=data/train --logdir=baseline \
        --num_steps=1600 --codes --learning_rate=0:2e-3,1300:5e-4
    python examples/train_baseline.py --train_path=data/train --logdir=baseline \
        --num_steps=3500 --learning_rate=0:1e-3,2700:3e-4,3200:1e-4

With batches of 8 notes the spectra have no partials after thousands of steps. Three
things change that:

- Batches of 32 notes. The batch norms see one value of z per note.
- --codes: for the first steps the decoder alone, with a random code of each note's
  instrument and velocity as z. It learns where the partials of a pitch are, without the
  cost of an encoder.
- The loss of about 32 of a note's 256 frames, at a random place. The last layers of the
  decoder, which take most of the time, compute no more than those and their context.

The folder is that of a run of nsynth_train, which can resume it.
"""

import argparse
import dataclasses
import signal
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from magenta_nsynth.config import SpectralConfig
from magenta_nsynth.data.reading import open_notes
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.models.spectral import (
    SpectralAutoencoder,
    Statistics,
    network_input,
)
from magenta_nsynth.training.evaluation import SpectralEvaluator
from magenta_nsynth.training.folder import TrainingFolder, checkpoints_in
from magenta_nsynth.training.loop import TrainingLoop
from magenta_nsynth.training.options import Saving, Steps
from magenta_nsynth.training.trainer import Trainer
from magenta_nsynth.weights.engine import read_spectral_config

# The decoder's first blocks compute a whole note, which becomes 64 columns of 4 frames.
_WHOLE_BLOCKS, _ALL_COLUMNS, _FRAMES = 7, 64, 4
_COLUMNS = 8  # that the loss counts
_CONTEXT = 2  # columns on either side of them
_CUT = _COLUMNS + 2 * _CONTEXT


class QuickAutoencoder(SpectralAutoencoder):
    """The baseline with a loss that takes less time.

    Attributes:
      has_codes: whether z is a random code instead of the encoder's.
    """

    has_codes = False

    def training_loss(self, batch: dict[str, Any]) -> tuple[tf.Tensor, Statistics]:
        """The baseline's, of some frames; a batch also has labels of the instrument."""
        spec = network_input(batch["audio"], self.config)
        statistics: Statistics = []
        if self.has_codes:
            z = self._codes(batch, statistics)
        else:
            z = self.encoder.forward(spec, True, statistics)
        decoder = self.decoder
        h = decoder.joined(z, batch["pitch"])
        for block in decoder.blocks[:_WHOLE_BLOCKS]:
            h = block.forward(h, True, statistics)
        starts = _random_starts(tf.shape(h)[0])
        h = _cut(h, starts, _CUT)
        for block in decoder.blocks[_WHOLE_BLOCKS:]:
            h = block.forward(h, True, statistics)
        error = tf.sigmoid(decoder.mag(h)) - _cut(
            spec, starts * _FRAMES, _CUT * _FRAMES
        )
        errors = tf.reduce_mean(self._frequency_weights * error[..., 0] ** 2, axis=1)
        counts = _counts(starts)
        return tf.reduce_sum(errors * counts) / tf.reduce_sum(counts), statistics

    def _codes(self, batch: dict[str, Any], statistics: Statistics) -> tf.Tensor:
        """The code of each note. The encoder and its averages are left as they are."""
        blocks = [*self.encoder.blocks, self.encoder.z]
        for block in blocks:
            averages = (block.moving_mean, block.moving_variance)
            statistics += map(tf.convert_to_tensor, averages)
        labels = tf.stack([batch["instrument"], batch["velocity"]], axis=1)
        size = [self.config.num_latent]
        codes = tf.map_fn(
            lambda label: tf.random.stateless_normal(size, label),
            labels,
            fn_output_signature=tf.float32,
        )
        # Gradients of 0 leave an encoder that has not been trained unchanged.
        unused = [tf.reduce_sum(block.kernel) for block in blocks]
        unused += [tf.reduce_sum(block.beta) for block in blocks]
        return codes[:, None, None] + 0.0 * tf.add_n(unused)


def _random_starts(count: tf.Tensor) -> tf.Tensor:
    """Where each cut starts, in columns. The ends of notes are likelier than others."""
    last = _ALL_COLUMNS - _CUT
    starts = tf.random.uniform([count], -_CONTEXT, last + _CONTEXT + 1, tf.int32)
    return tf.clip_by_value(starts, 0, last)


def _cut(x: tf.Tensor, starts: tf.Tensor, size: int) -> tf.Tensor:
    """Some frames of each note: of [b, bins, frames, channels]."""
    frames = starts[:, None] + tf.range(size)
    return tf.gather(x, frames, axis=2, batch_dims=1)


def _counts(starts: tf.Tensor) -> tf.Tensor:
    """1 for the frames of a cut that count, else 0: [b, frames] float32.

    Its context does not, unless it is an end of the note.
    """
    columns = tf.range(_CUT)
    is_first = (starts == 0)[:, None] | (columns >= _CONTEXT)
    is_last = (starts == _ALL_COLUMNS - _CUT)[:, None] | (columns < _CUT - _CONTEXT)
    counts = tf.cast(is_first & is_last, tf.float32)
    return tf.repeat(counts, _FRAMES, axis=1)


def main() -> None:
    """Starts or resumes a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train_path", required=True, help="TFRecords of notes")
    parser.add_argument("--eval_path", default="", help="TFRecords of other notes")
    parser.add_argument("--logdir", required=True)
    parser.add_argument("--num_steps", type=int, required=True, help="step to stop at")
    parser.add_argument("--learning_rate", required=True, help="as for nsynth_train")
    parser.add_argument("--codes", action="store_true", help="the decoder alone")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--num_latent", type=int, default=496)
    parser.add_argument("--shortest_note", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.batch_size < 2:
        parser.error("A batch norm needs a --batch_size of 2 or more.")
    logging.set_verbosity(logging.INFO)
    # As Ctrl-C does, it saves a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        train(options)
    except NSynthError as error:
        raise SystemExit(str(error)) from None


def train(options: argparse.Namespace) -> None:
    """Trains up to --num_steps.

    Raises:
      NSynthError: notes, a checkpoint or an option that can't be used.
    """
    steps = Steps(
        batch_size=options.batch_size,
        num_steps=options.num_steps,
        learning_rate=options.learning_rate,
        # A code says nothing of where its note ends.
        shortest_note=0 if options.codes else options.shortest_note,
        seed=options.seed,
    )
    published = steps.recipe("baseline")
    labels = ("instrument", "velocity") if options.codes else ()
    recipe = dataclasses.replace(published, features=published.features + labels)
    notes = open_notes([options.train_path], features=recipe.features)
    eval_notes = None
    if options.eval_path:
        eval_notes = open_notes([options.eval_path], features=published.features)
    folder = TrainingFolder(options.logdir, num_kept=5)
    keras.utils.set_random_seed(options.seed)
    trainer = restored(options)
    TrainingLoop(
        trainer=trainer,
        recipe=recipe,
        steps=steps,
        saving=Saving(logdir=options.logdir),
        folder=folder,
        notes=notes,
        eval_notes=eval_notes,
        evaluator=SpectralEvaluator(trainer.model),
    ).run(options.num_steps)


def restored(options: argparse.Namespace) -> Trainer:
    """The run in --logdir, or a new one.

    Raises:
      NSynthError: it can't be read, is of a WaveNet or at its end, or --codes comes
        after the encoder's training.
    """
    config = SpectralConfig(width=options.width, num_latent=options.num_latent)
    starts = checkpoints_in(options.logdir)
    if starts:
        config = read_spectral_config(starts[0])
    model = QuickAutoencoder(config)
    model.has_codes = options.codes
    trainer = Trainer(model, decay=0.98)
    if not starts:
        return trainer
    state = trainer.state
    state.restore(starts[0])
    step = int(state.global_step.numpy())
    if step >= options.num_steps:
        raise InputError(f"{options.logdir} is at step {step} already.")
    kernel = model.encoder.z.kernel.value
    [encoder_moment] = [
        moment
        for variable, moment in zip(state.variables, state.second_moments, strict=True)
        if variable is kernel
    ]
    has_encoder = bool(tf.reduce_any(encoder_moment != 0))
    if options.codes and has_encoder:
        raise InputError(f"{options.logdir}: --codes comes first, in a new folder.")
    if not options.codes and not has_encoder:
        # Adam starts afresh, because it takes early moments for small ones.
        for moment in (*state.first_moments, *state.second_moments):
            if moment is not None:
                moment.assign(tf.zeros_like(moment))
        state.beta1_power.assign(state.betas[0])
        state.beta2_power.assign(state.betas[1])
    return trainer


if __name__ == "__main__":
    main()
