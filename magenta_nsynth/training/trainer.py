"""One training step: loss, gradients, Adam in TF1's form, and averages."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from magenta_nsynth.models.spectral import BATCH_NORM_DECAY, SpectralAutoencoder
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.parallel import num_cores
from magenta_nsynth.training.recipes import AVERAGE_DECAY, average_decay
from magenta_nsynth.training.workers import Cluster
from magenta_nsynth.weights.training_state import TrainingState

__all__ = ["StepResult", "Trainer", "choose_strategy", "set_up_towers"]

EPSILON = 1e-8  # Adam's; Keras' own is 1e-7

Batch = Any  # a tensor, or a dict of tensors


class StepResult(NamedTuple):
    """What a step was like, before its update.

    Attributes:
      loss: a WaveNet's in nats per sample, of the samples that count.
      norm: of all gradients together.
      pitch_loss: the pitch head's, in nats per frame; None without one.
    """

    loss: float
    norm: float
    pitch_loss: float | None = None


class Trainer:
    """A model in training: its state, and the step that changes it.

    On one machine and with the same number of towers, a step depends on the state,
    the batch and the learning rate alone, to the bit. On several replicas the
    gradients' mean is that of one device with the whole batch, up to rounding; but
    the baseline's batch norms see only the notes of their own replica.

    Create it in the scope of the strategy, if there is one.

    Source: NSynth, both train.py. Differs: a WaveNet's batch is cut into towers.

    Attributes:
      model: the autoencoder.
      state: its `TrainingState`.
    """

    def __init__(
        self,
        model: WaveNetAutoencoder | SpectralAutoencoder,
        num_towers: int = 1,
        decay: float | None = None,
        strategy: tf.distribute.Strategy | None = None,
        pitch_weight: float = 0.0,
    ) -> None:
        """Creates the state, with fresh averages and moments.

        Args:
          model: the model to train.
          num_towers: cuts each batch into this many equal parts, with one thread for
            each. On processors that is faster than many threads on one part after
            the other; see `set_up_towers`. It has to be 1 on a GPU, and for the
            baseline, whose batch norms see the whole batch.
          decay: the highest decay of a WaveNet's averages, or the decay of the
            averages of the baseline's batch norms. None is the original's, 0.9999
            and 0.999.
          strategy: divides the steps among its replicas; None for a single device.
          pitch_weight: of the pitch head's loss, which is added to a WaveNet's; 0
            trains none.

        Raises:
          InputError: a pitch head for the baseline.
        """
        self.model = model
        self.state = TrainingState(model, with_pitch_head=pitch_weight > 0)
        self._pitch_weight = pitch_weight
        self._num_towers = num_towers
        self._strategy = strategy
        is_baseline = isinstance(model, SpectralAutoencoder)
        if decay is None:
            decay = BATCH_NORM_DECAY if is_baseline else AVERAGE_DECAY
        self._decay = decay
        state = self.state
        self._trained = [  # with Adam's moments
            (variable, first, second)
            for variable, first, second in zip(
                state.variables, state.first_moments, state.second_moments, strict=True
            )
            if first is not None and second is not None
        ]
        # The averages of the batches' means and variances.
        moving = model.moving_averages if is_baseline else []
        self._moving = [average.value for average in moving]
        # Traced once, used for each tower.
        self._tower = tf.function(self.gradients)
        self._compiled = tf.function(self._update_replicas)

    def gradients(self, batch: Batch) -> list[tf.Tensor]:
        """The loss, the gradient for each trained variable, and statistics.

        Args:
          batch: as for the model's `training_loss`.

        Returns:
          A float32 scalar; tensors of the variables' shapes, in the order of
          `state.variables`; and the model's statistics of the batch, or the pitch
          head's loss. The gradients are those of both losses, the head's weighted.
        """
        variables = [variable for variable, _, _ in self._trained]
        with tf.GradientTape() as tape:
            if isinstance(self.model, WaveNetAutoencoder):
                head = self.state.pitch_head
                loss, statistics = self.model.training_loss(batch, head)
            else:
                loss, statistics = self.model.training_loss(batch)
            total = loss
            if self.state.pitch_head:
                total = loss + self._pitch_weight * statistics[0]
        return [loss, *tape.gradient(total, variables), *statistics]

    def train_step(self, batch: Any, learning_rate: float) -> StepResult:
        """Makes one update.

        Args:
          batch: audio [b, t] float32 in [-1, 1] at 16 kHz, or a dict of that as
            "audio" and others, as for the WaveNet's `training_loss`; for the baseline
            a dict of "audio" and "pitch" [b]. With a strategy, an element of
            `distribute`.
          learning_rate: of this update.

        Returns:
          The losses before the update, and the norm of the gradients.
        """
        step = int(self.state.global_step.numpy())
        figures = self._compiled(
            batch,
            tf.constant(learning_rate, tf.float32),
            tf.constant(average_decay(step + 1, self._decay), tf.float32),
        )
        return StepResult(*map(float, figures))

    def _update_replicas(self, batch: Any, *rates: tf.Tensor) -> Sequence[tf.Tensor]:
        """`_update` on every replica; the results are the same in each."""
        if self._strategy is None:
            return self._update(batch, *rates)
        results = self._strategy.run(self._update, args=(batch, *rates))
        return [self._strategy.experimental_local_results(r)[0] for r in results]

    def _update(
        self, batch: Batch, learning_rate: tf.Tensor, decay: tf.Tensor
    ) -> list[tf.Tensor]:
        """One update, as a graph, for one replica.

        Args:
          batch: this replica's part of the batch.
          learning_rate: float32 scalar.
          decay: float32 scalar, the share of the old averages that remains.

        Returns:
          What `StepResult` has, of the whole batch: float32 scalars.
        """
        values = self._mean_over_replicas(self._gradients_of_towers(batch))
        loss, gradients = values[0], values[1 : 1 + len(self._trained)]
        statistics = values[1 + len(self._trained) :]
        pitch_loss: list[tf.Tensor] = []
        if self.state.pitch_head:
            statistics, pitch_loss = [], statistics
        norm = _global_norm(gradients)
        self._apply_adam(gradients, learning_rate)
        for moving, value in zip(self._moving, statistics, strict=True):
            _move(moving, value, 1 - self._decay)
        for average, variable in zip(  # the baseline has no averages
            self.state.averages, self.state.variables, strict=False
        ):
            _move(average, variable.read_value(), 1.0 - decay)
        tf.raw_ops.AssignAddVariableOp(
            resource=self.state.global_step.handle, value=tf.constant(1, tf.int64)
        )
        return [loss, norm, *pitch_loss]

    def _gradients_of_towers(self, batch: Batch) -> list[tf.Tensor]:
        if self._num_towers == 1:
            return self.gradients(batch)
        # Subtracted, with the sign reversed at the end: TensorFlow would turn a chain
        # of additions into one sum, in the order in which the towers finish.
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
        """TF1's Adam, with the original's operation."""
        state = self.state
        powers = state.beta1_power.read_value(), state.beta2_power.read_value()
        for (variable, first, second), gradient in zip(
            self._trained, gradients, strict=True
        ):
            # The handle is that of this replica's copy; all get the same gradient.
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=learning_rate,
                beta1=state.betas[0],
                beta2=state.betas[1],
                epsilon=EPSILON,
                grad=gradient,
            )
        own = state.beta1_power, state.beta2_power
        for variable, power, beta in zip(own, powers, state.betas, strict=True):
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=power * beta)


def _parts(batch: Batch, count: int) -> list[Batch]:
    columns = [tf.split(values, count) for values in tf.nest.flatten(batch)]
    return [tf.nest.pack_sequence_as(batch, row) for row in zip(*columns, strict=True)]


def _move(average: tf.Variable, value: tf.Tensor, rate: tf.Tensor | float) -> None:
    """Moves this replica's copy of an average towards a value, in TF1's form."""
    handle = average.handle
    old = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
    tf.raw_ops.AssignSubVariableOp(resource=handle, value=(old - value) * rate)


def _global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """The norm of all gradients; tf.linalg.global_norm adds in a varying order."""
    squares = [tf.reduce_sum(tf.square(gradient)) for gradient in gradients]
    return tf.sqrt(tf.reduce_sum(tf.stack(squares)))


def set_up_towers(batch_size: int) -> int:
    """Chooses the number of towers for this machine, and gives each its threads.

    Call it before TensorFlow's first operation; the threads can't change later.

    Args:
      batch_size: clips per step.

    Returns:
      `num_towers` for `Trainer`: the largest number of equal parts of a batch that
      leaves each a core. 1 if there is a GPU.
    """
    if tf.config.list_physical_devices("GPU"):
        return 1
    cores = num_cores()
    num_towers = max(n for n in range(1, cores + 1) if batch_size % n == 0)
    # This raises if TensorFlow has started. Only the speed differs then.
    with contextlib.suppress(RuntimeError):
        threading = tf.config.threading
        threading.set_intra_op_parallelism_threads(math.ceil(cores / num_towers))
        threading.set_inter_op_parallelism_threads(max(2, num_towers))
    return num_towers


def choose_strategy(cluster: Cluster) -> tf.distribute.Strategy | None:
    """The strategy for all devices of all workers; None for a single device."""
    if cluster.num_workers > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    return None
