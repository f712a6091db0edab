"""The state of a training run: weights, averages, Adam's slots, the step."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.errors import CheckpointError, InputError
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
      pitch_head: kernel and bias, as for `pitch_head_loss`, at first 0; or none.
      variables: the model's variables, as tf.Variables, and those of the pitch head.
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

    def __init__(self, model: ConfiguredModel, with_pitch_head: bool = False) -> None:
        """Creates the state of a training that begins.

        Args:
          model: the model.
          with_pitch_head: whether a WaveNet is trained together with a pitch head.

        Raises:
          InputError: a pitch head for the baseline.
        """
        self.model = model
        self._config = model.config
        pairs = plan(model, tables.table(self._config))
        self._model_rows = [row for row, _ in pairs]
        self._head_rows = self._rows_of_head() if with_pitch_head else []
        self._rows = [*self._model_rows, *self._head_rows]
        self.pitch_head = [
            tf.Variable(row.to_keras(np.zeros(row.shape, np.float32)))
            for row in self._head_rows
        ]
        self.variables: list[tf.Variable] = [variable.value for _, variable in pairs]
        self.variables += self.pitch_head
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

    def _rows_of_head(self) -> list[tables.Row]:
        if not isinstance(self._config, WaveNetConfig):
            raise InputError("The pitch head is for the WaveNet, not for the baseline.")
        return tables.pitch_head_rows(self._config)

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
        starts afresh, with a log line for each. So does a pitch head, from 0, if the
        checkpoint holds none.

        Args:
          source: any form that `resolve_checkpoint` takes, or an opened checkpoint.

        Raises:
          CheckpointError: it doesn't fit the model, is damaged, or holds only some of
            the slots, the averages or the pitch head.
        """
        checkpoint = open_checkpoint(source)
        require_model(checkpoint, self._config.model_name)
        check(checkpoint, self._model_rows, use_ema=False)
        has_averages, has_slots, has_head = self._check_extras(checkpoint)
        targets = self._targets(has_averages, has_slots, has_head)
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
        if not has_head:
            self._start_head(checkpoint)

    def _start_head(self, checkpoint: Checkpoint) -> None:
        """Sets the pitch head to 0, and says what becomes of the checkpoint's."""
        for i in range(len(self._model_rows), len(self._rows)):
            for variable in self._all_of(i).values():
                variable.assign(tf.zeros_like(variable))
        prefix = checkpoint.prefix
        if self.pitch_head:
            logging.info("%s holds no pitch head, which starts afresh.", prefix)
        elif tables.holds_pitch_head(checkpoint.shapes):
            logging.info(
                "%s holds a pitch head, which is left out: no --pitch_weight.", prefix
            )

    def _all_of(self, i: int) -> dict[str, tf.Variable]:
        """The i-th variable, its average and slots, by the suffix of their names."""
        values = {"": self.variables[i]}
        if self.averages:
            values[tables.AVERAGE_SUFFIX] = self.averages[i]
        if self.has_gradient[i]:
            slots = (self.first_moments[i], self.second_moments[i])
            values.update(zip(tables.SLOT_SUFFIXES, slots, strict=True))
        return values

    def _targets(
        self, has_averages: bool, has_slots: bool, has_head: bool
    ) -> dict[str, tuple[tables.Row, list[tf.Variable]]]:
        """The variables that each tensor of a checkpoint is assigned to."""
        held = {"": True, tables.AVERAGE_SUFFIX: has_averages}
        held.update(dict.fromkeys(tables.SLOT_SUFFIXES, has_slots))
        targets: dict[str, tuple[tables.Row, list[tf.Variable]]] = {}
        for i, row in enumerate(self._rows):
            is_head = i >= len(self._model_rows)
            for suffix, variable in self._all_of(i).items():
                if has_head if is_head else held[suffix]:
                    targets[row.name + suffix] = (row, [variable])
            if self.averages and not has_averages and not is_head:
                targets[row.name][1].append(self.averages[i])
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

    def _check_extras(self, checkpoint: Checkpoint) -> list[bool]:
        """Whether there are averages, slots and a pitch head.

        All of each or none, or an error.
        """
        found = []
        rows_of_model = self._model_rows
        trained = [
            row
            for row, has_gradient in zip(rows_of_model, self.has_gradient, strict=False)
            if has_gradient
        ]
        ends = ("", tables.AVERAGE_SUFFIX, *tables.SLOT_SUFFIXES)
        for rows, suffixes in (
            (rows_of_model if self.averages else [], [tables.AVERAGE_SUFFIX]),
            (trained, tables.SLOT_SUFFIXES),
            (self._head_rows, ends),
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
        return found

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
            for suffix, variable in self._all_of(i).items():
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
