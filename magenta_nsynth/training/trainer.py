"""One training step: the loss, its gradients, Adam in TF1's form, the averages."""

import contextlib
import math
import os
from collections.abc import Sequence

import tensorflow as tf

from magenta_nsynth.models.spectral import BATCH_NORM_DECAY, SpectralAutoencoder
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.training.schedule import average_decay
from magenta_nsynth.weights.training_state import TrainingState

__all__ = ["StepResult", "Trainer", "set_up_towers"]

EPSILON = 1e-8  # Adam's; Keras' own is 1e-7

StepResult = tuple[float, float]
Batch = tf.Tensor | dict[str, tf.Tensor]


class Trainer:
    """A model in training: its state, and the step that changes it.

    A step is the same to the bit whenever state, batch and rate are the same, on one
    machine and with the same number of towers. Create it in the scope of the
    strategy where there is one; then `step` is called in `strategy.run`.

    Source: NSynth, both train.py; differs: a WaveNet's batch is cut into towers.

    Attributes:
      model: the autoencoder.
      state: its `TrainingState`.
    """

    def __init__(
        self,
        model: WaveNetAutoencoder | SpectralAutoencoder,
        num_towers: int = 1,
        decay: float | None = None,
    ) -> None:
        """Makes the state; all averages and moments start anew.

        Args:
          model: what to train.
          num_towers: the batch is cut into so many equal parts, each computed by one
            thread: faster on processors than many threads on one part after the
            other (see `set_up_towers`). 1 on a GPU, and for the baseline, whose
            batch norms see the whole batch.
          decay: a WaveNet's averages' highest decay, or that of the averages of the
            baseline's batch norms; by default the original's, 0.9999 and 0.999.
        """
        self.model = model
        self.state = TrainingState(model)
        self._num_towers = num_towers
        self._decay_options = () if decay is None else (decay,)
        self._trained = [
            i for i, has_gradient in enumerate(self.state.has_gradient) if has_gradient
        ]
        # Of the baseline: what its batches' means and variances are averaged in.
        self._moving_rate = 1 - (BATCH_NORM_DECAY if decay is None else decay)
        self._moving = [
            average.value for average in getattr(model, "moving_averages", [])
        ]
        # Traced once, used for each tower.
        self._tower = tf.function(self.gradients)
        self._compiled = tf.function(self.update)

    def gradients(self, batch: Batch) -> list[tf.Tensor]:
        """The loss, and its gradient for each trained variable.

        Args:
          batch: what the model's `training_loss` takes.

        Returns:
          A float32 scalar; tensors of the variables' shapes, in the order of
          `state.variables`; the model's statistics of the batch.
        """
        variables = [self.state.variables[i] for i in self._trained]
        with tf.GradientTape() as tape:
            loss, statistics = self.model.training_loss(batch)
        return [loss, *tape.gradient(loss, variables), *statistics]

    def train_step(self, batch: Batch, learning_rate: float) -> StepResult:
        """One update on one device.

        Args:
          batch: audio [b, t] float32 in [-1, 1] at 16 kHz, or a dict of that and of
            "past" (see `noisy_past`); for the baseline one of that and of "pitch" [b].
          learning_rate: of this update.

        Returns:
          The loss before the update (a WaveNet's in nats per sample), and the norm of
          all gradients.
        """
        loss, norm = self._compiled(batch, *self.step_arguments(learning_rate))
        return float(loss), float(norm)

    def step_arguments(self, learning_rate: float) -> tuple[tf.Tensor, tf.Tensor]:
        """What `update` takes beside the batch."""
        step = int(self.state.global_step.numpy())
        decay = average_decay(step + 1, *self._decay_options)
        return tf.constant(learning_rate, tf.float32), tf.constant(decay, tf.float32)

    def update(
        self, batch: Batch, learning_rate: tf.Tensor, decay: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One update, as a graph, for one replica or several of one strategy.

        Args:
          batch: this replica's part of the batch.
          learning_rate: float32 scalar.
          decay: float32 scalar, how much of the averages is kept.

        Returns:
          The loss of the whole batch and the norm of its gradient: float32 scalars.
        """
        values = self._mean_over_replicas(self._gradients_of_towers(batch))
        loss, gradients = values[0], values[1 : 1 + len(self._trained)]
        statistics = values[1 + len(self._trained) :]
        norm = _global_norm(gradients)
        self._apply_adam(gradients, learning_rate)
        for moving, value in zip(self._moving, statistics, strict=True):
            _move(moving, value, self._moving_rate)
        for average, variable in zip(  # the baseline has no averages
            self.state.averages, self.state.variables, strict=False
        ):
            _move(average, variable.read_value(), 1.0 - decay)
        tf.raw_ops.AssignAddVariableOp(
            resource=self.state.global_step.handle, value=tf.constant(1, tf.int64)
        )
        return loss, norm

    def _gradients_of_towers(self, batch: Batch) -> list[tf.Tensor]:
        if self._num_towers == 1:
            return self.gradients(batch)
        # Subtracted and turned round at the end: a chain of additions would become
        # one sum in the order in which the towers end.
        totals: list[tf.Tensor] = []
        for part in _parts(batch, self._num_towers):
            values = self._tower(part)
            if totals:
                totals = [t - v for t, v in zip(totals, values, strict=True)]
            else:
                totals = [-v for v in values]
        return [t * (-1.0 / self._num_towers) for t in totals]

    def _mean_over_replicas(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return values
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)

    def _apply_adam(
        self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor
    ) -> None:
        """TF1's Adam, by the operation that the original's used."""
        state = self.state
        powers = state.beta1_power.read_value(), state.beta2_power.read_value()
        for i, gradient in zip(self._trained, gradients, strict=True):
            # A handle is that of this replica's copy; all get the same gradient.
            tf.raw_ops.ResourceApplyAdam(
                var=state.variables[i].handle,
                m=state.first_moments[i].handle,
                v=state.second_moments[i].handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=learning_rate,
                beta1=state.betas[0],
                beta2=state.betas[1],
                epsilon=EPSILON,
                grad=gradient,
            )
        variables = state.beta1_power, state.beta2_power
        for variable, power, beta in zip(variables, powers, state.betas, strict=True):
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=power * beta)


def _parts(batch: Batch, count: int) -> list[Batch]:
    columns = [tf.split(values, count) for values in tf.nest.flatten(batch)]
    return [tf.nest.pack_sequence_as(batch, row) for row in zip(*columns, strict=True)]


def _move(average: tf.Variable, value: tf.Tensor, rate: tf.Tensor | float) -> None:
    """Moves this replica's copy of an average towards a value, in TF1's form."""
    average = average.handle
    old = tf.raw_ops.ReadVariableOp(resource=average, dtype=tf.float32)
    tf.raw_ops.AssignSubVariableOp(resource=average, value=(old - value) * rate)


def _global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """The norm over all gradients; tf.linalg.global_norm's order of adding varies."""
    squares = [tf.reduce_sum(tf.square(gradient)) for gradient in gradients]
    return tf.sqrt(tf.reduce_sum(tf.stack(squares)))


def set_up_towers(batch_size: int) -> int:
    """Chooses the number of towers for this machine, and gives each its threads.

    Call it before TensorFlow's first operation; later the threads stay as they are.

    Args:
      batch_size: clips per step.

    Returns:
      `num_towers` for `Trainer`: the most equal parts of a batch that the cores can
      take with a thread each; 1 where there is a GPU.
    """
    if tf.config.list_physical_devices("GPU"):
        return 1
    num_cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # fewer, in a container
        num_cores = len(os.sched_getaffinity(0))
    num_towers = max(n for n in range(1, num_cores + 1) if batch_size % n == 0)
    # Threads that are set after the start raise; only the speed would differ.
    with contextlib.suppress(RuntimeError):
        threading = tf.config.threading
        threading.set_intra_op_parallelism_threads(math.ceil(num_cores / num_towers))
        threading.set_inter_op_parallelism_threads(max(2, num_towers))
    return num_towers
