"""The state of a training run: weights, averages, Adam's slots, the step."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.errors import CheckpointError
from magenta_nsynth.models.base import ConfiguredModel
from magenta_nsynth.weights import tables
from magenta_nsynth.weights.checkpoint import (
    Checkpoint,
    CheckpointLike,
    open_checkpoint,
    write_checkpoint,
)
from magenta_nsynth.weights.engine import check, plan, require_model

__all__ = ["TrainingState"]

# Adam's betas.
_BETA1 = {"wavenet": 0.9, "baseline": 0.5}
_BETA2 = 0.999


class TrainingState:
    """A model's variables and what training keeps for each of them.

    The lists are in the order of `variables`. Create it in the scope of the strategy,
    if there is one.

    Attributes:
      model: the model.
      variables: its variables, as tf.Variables.
      has_gradient: whether the optimiser changes each variable.
      averages: the moving average of each variable of a WaveNet, at first equal to it.
        [] for the baseline.
      first_moments: Adam's, for each variable; None for those without a gradient.
      second_moments: likewise.
      betas: Adam's beta1 and beta2.
      beta1_power: float32 scalar, beta1 ** (steps + 1) as a running product.
      beta2_power: likewise.
      global_step: int64 scalar, the number of steps.
    """

    def __init__(self, model: ConfiguredModel) -> None:
        self.model = model
        self._config = model.config
        pairs = plan(model, tables.table(self._config))
        self._rows = [row for row, _ in pairs]
        self.variables: list[tf.Variable] = [variable.value for _, variable in pairs]
        unused = tables.names_without_gradient(self._config)
        self.has_gradient = [row.name not in unused for row in self._rows]
        averaged = self.variables if self._config.model_name == "wavenet" else []
        self.averages = [_variable(variable) for variable in averaged]
        self.first_moments = self._slots()
        self.second_moments = self._slots()
        self.betas = _BETA1[self._config.model_name], _BETA2
        self.beta1_power, self.beta2_power = (
            tf.Variable(beta, trainable=False, dtype=tf.float32) for beta in self.betas
        )
        self.global_step = tf.Variable(0, trainable=False, dtype=tf.int64)

    def _slots(self) -> list[tf.Variable | None]:
        return [
            _variable(tf.zeros_like(variable)) if has_gradient else None
            for variable, has_gradient in zip(
                self.variables, self.has_gradient, strict=True
            )
        ]

    def restore(self, source: CheckpointLike) -> None:
        """Takes over a checkpoint: exactly, if it is a training checkpoint.

        From a checkpoint of weights alone the averages start at the weights and Adam
        starts afresh, with a log line for each.

        Args:
          source: any form that `resolve_checkpoint` takes, or an opened checkpoint.

        Raises:
          CheckpointError: it doesn't fit the model, is damaged, or holds only some of
            the slots or averages.
        """
        checkpoint = open_checkpoint(source)
        require_model(checkpoint, self._config.model_name)
        check(checkpoint, self._rows, use_ema=False)
        has_averages, has_slots = self._check_extras(checkpoint)
        targets = self._targets(has_averages, has_slots)
        for name, value in checkpoint.read(targets):
            row, variables = targets[name]
            for variable in variables:
                variable.assign(row.to_keras(value))
        self.global_step.assign(checkpoint.step or 0)
        self._restore_powers(checkpoint, has_slots)
        if not has_slots:
            for slot in (*self.first_moments, *self.second_moments):
                if slot is not None:
                    slot.assign(tf.zeros_like(slot))
            logging.info(
                "%s holds no state of Adam, which starts afresh.", checkpoint.prefix
            )
        if self.averages and not has_averages:
            logging.info(
                "%s holds no averages; they start at the weights.",
                checkpoint.prefix,
            )

    def _targets(
        self, has_averages: bool, has_slots: bool
    ) -> dict[str, tuple[tables.Row, list[tf.Variable]]]:
        """The variables that each tensor of a checkpoint is assigned to."""
        targets: dict[str, tuple[tables.Row, list[tf.Variable]]] = {}
        for i, row in enumerate(self._rows):
            starts = [] if has_averages else self.averages[i : i + 1]
            targets[row.name] = (row, [self.variables[i], *starts])
            if has_averages:
                targets[row.name + tables.AVERAGE_SUFFIX] = (row, [self.averages[i]])
            if has_slots and self.has_gradient[i]:
                slots = (self.first_moments[i], self.second_moments[i])
                for suffix, slot in zip(tables.SLOT_SUFFIXES, slots, strict=True):
                    targets[row.name + suffix] = (row, [slot])
        return targets

    def _restore_powers(self, checkpoint: Checkpoint, has_slots: bool) -> None:
        """Sets Adam's powers: from the checkpoint, from the step, or at the start."""
        powers = dict(checkpoint.read(set(tables.BETA_POWERS) & set(checkpoint.shapes)))
        step = int(self.global_step.numpy()) if has_slots else 0
        for name, beta, variable in zip(
            tables.BETA_POWERS,
            self.betas,
            (self.beta1_power, self.beta2_power),
            strict=True,
        ):
            if has_slots and name in powers:
                variable.assign(powers[name])
            else:
                variable.assign(_running_product(beta, step + 1))

    def _check_extras(self, checkpoint: Checkpoint) -> tuple[bool, bool]:
        """Whether there are averages and slots: all of each or none, or an error."""
        found = []
        trained = [
            row
            for row, has_gradient in zip(self._rows, self.has_gradient, strict=True)
            if has_gradient
        ]
        for rows, suffixes in (
            (self._rows if self.averages else [], [tables.AVERAGE_SUFFIX]),
            (trained, tables.SLOT_SUFFIXES),
        ):
            wanted = {row.name + end: row.shape for row in rows for end in suffixes}
            present = [name for name in wanted if name in checkpoint.shapes]
            wrong = [
                name for name in wanted if checkpoint.shapes.get(name) != wanted[name]
            ]
            if present and wrong:
                raise CheckpointError(
                    f"{checkpoint.prefix}: not a whole training checkpoint: {wrong[0]} "
                    f"is missing or of another shape (and {len(wrong) - 1} more); "
                    "start from its weights alone, which `nsynth_checkpoint strip` "
                    "writes."
                )
            found.append(bool(present))
        return found[0], found[1]

    def save(
        self, prefix: str | os.PathLike, kept: Sequence[str] | None = None
    ) -> None:
        """Writes a TF1 training checkpoint.

        Args:
          prefix: such as folder/model.ckpt-200000.
          kept: as for `write_checkpoint`.

        Raises:
          CheckpointError: it can't be written, or exists already.
        """
        tensors = {}
        for i, row in enumerate(self._rows):
            values = {"": self.variables[i]}
            if self.averages:
                values[tables.AVERAGE_SUFFIX] = self.averages[i]
            if self.has_gradient[i]:
                slots = (self.first_moments[i], self.second_moments[i])
                values.update(zip(tables.SLOT_SUFFIXES, slots, strict=True))
            for suffix, variable in values.items():
                tensors[row.name + suffix] = row.to_tf1(variable.numpy())
        powers = (self.beta1_power.numpy(), self.beta2_power.numpy())
        tensors.update(zip(tables.BETA_POWERS, powers, strict=True))
        step = int(self.global_step.numpy())
        tensors[tables.GLOBAL_STEP] = tables.step_tensor(self._config, step)
        write_checkpoint(prefix, tensors, self._config, kept)


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)


def _running_product(factor: float, count: int) -> np.float32:
    """`factor` ** `count` as a running product in float32, as in TF1's Adam."""
    product = np.float32(factor)
    for _ in range(count - 1):
        if product == 0:
            break
        product *= np.float32(factor)
    return product
