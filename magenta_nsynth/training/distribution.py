"""Training on several devices or machines, by tf.distribute."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import tensorflow as tf

from magenta_nsynth.errors import InputError, TrainingError
from magenta_nsynth.files import parse_json
from magenta_nsynth.training.trainer import StepResult, Trainer
from magenta_nsynth.weights.paths import complete_checkpoints

__all__ = [
    "Cluster",
    "ReplicatedTrainer",
    "WorkersLostError",
    "choose_strategy",
    "distribute",
    "lost_workers",
    "supervise",
]

_CHILD = "NSYNTH_TRAIN_CHILD"
_LOST = 75  # a child's exit status
_TF_CONFIG = {
    "cluster": ({str: [str]}, None),
    "task": ({"type": (str, None), "index": (int, str, None)}, None),
}


class WorkersLostError(TrainingError):
    """Another machine's worker does not answer any more."""


class Cluster:
    """What the environment variable TF_CONFIG says, TensorFlow's own convention.

    Attributes:
      num_workers: 1 where it isn't set.
      index: this worker's, 0 is the chief, which writes all files.
    """

    def __init__(self) -> None:
        text = os.environ.get("TF_CONFIG", "")
        try:
            config = parse_json(os.fsencode(text or "{}"), "TF_CONFIG", _TF_CONFIG)
            cluster, task = config.get("cluster") or {}, config.get("task") or {}
            kind, index = task.get("type") or "worker", int(task.get("index") or 0)
        except ValueError as error:
            raise InputError(f"TF_CONFIG can't be read ({error}).") from None
        workers, chiefs = cluster.get("worker", []), cluster.get("chief", [])
        if others := set(cluster) - {"worker", "chief"}:
            raise InputError(
                "TF_CONFIG: only workers (and a chief) are known, no "
                f"{', '.join(sorted(others))}."
            )
        self.num_workers = max(1, len(workers) + len(chiefs))
        self.index = index + (len(chiefs) if kind == "worker" else 0)
        if not 0 <= self.index < self.num_workers:
            raise InputError(
                f"TF_CONFIG: there are {self.num_workers} workers, and this one says "
                f"that it is number {self.index}."
            )

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and summaries."""
        return self.index == 0


def choose_strategy(cluster: Cluster) -> tf.distribute.Strategy | None:
    """The strategy for all devices there are; None for a single one."""
    if cluster.num_workers > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    return None


class ReplicatedTrainer:
    """`Trainer.train_step` on every replica of a strategy, as one step.

    The gradients' mean over the replicas is the same as that of one device with the
    whole batch, up to float noise. Not so the baseline's, whose batch norms see the
    notes of their own replica alone.
    """

    def __init__(self, trainer: Trainer, strategy: tf.distribute.Strategy) -> None:
        self._trainer = trainer
        self._strategy = strategy
        self._compiled = tf.function(self._step)

    def train_step(self, audio: object, learning_rate: float) -> StepResult:
        """One update; `audio` is an element of `distribute`."""
        arguments = self._trainer.step_arguments(learning_rate)
        loss, norm = self._compiled(audio, *arguments)
        return float(loss), float(norm)

    def _step(self, audio: object, *arguments: tf.Tensor) -> list[tf.Tensor]:
        results = self._strategy.run(self._trainer.update, args=(audio, *arguments))
        # The same in every replica.
        return [self._strategy.experimental_local_results(r)[0] for r in results]


def distribute(
    strategy: tf.distribute.Strategy,
    batches: Callable[[tuple[int, int]], tf.data.Dataset],
    batch_size: int,
) -> Iterator[object]:
    """The batches of a global batch size, divided among the replicas.

    Args:
      strategy: what divides.
      batches: makes, for (index, number of input pipelines), the dataset of that
        pipeline's rows of each batch, in order.
      batch_size: of all replicas together.
    """
    per_replica = batch_size // strategy.num_replicas_in_sync

    def of_pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = (context.input_pipeline_id, context.num_input_pipelines)
        return batches(shard).rebatch(per_replica)

    return iter(strategy.distribute_datasets_from_function(of_pipeline))


@contextlib.contextmanager
def lost_workers() -> Iterator[None]:
    """Turns the errors of a lost connection into a `WorkersLostError`."""
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.InternalError,
        tf.errors.DeadlineExceededError,
    ) as error:
        raise WorkersLostError("Another worker has gone.") from error


def supervise(work: Callable[[], int], logdir: str) -> int:
    """Does one worker's work in a child process, and explains how that ended.

    When a worker dies, TensorFlow may abort the others from C++, where no exception
    reaches Python, and goes on writing to standard error; so a parent has the last
    word.

    Args:
      work: what the child, this same program again, has to do.
      logdir: where the checkpoints are, for the message.

    Returns:
      The exit status.

    Raises:
      TrainingError: the child was killed, or another worker is gone.
    """
    if os.environ.get(_CHILD):
        try:
            return work()
        except WorkersLostError:
            os._exit(_LOST)  # TensorFlow's threads would still wait for the others
    words = [sys.executable, *sys.argv]
    child = subprocess.Popen(words, env={**os.environ, _CHILD: "1"})
    try:
        status = child.wait()
    except KeyboardInterrupt:
        # At a terminal the child has had its Ctrl-C already, and is saving.
        child.send_signal(signal.SIGTERM)
        sys.exit(child.wait())
    if status != _LOST and status >= 0:
        return status
    reason = "Another worker has gone" if status == _LOST else "This worker was killed"
    newest = complete_checkpoints(logdir)[-1:] or [logdir]
    raise TrainingError(
        f"{reason}, and training has ended. The last checkpoint is {newest[0]}: start "
        "all workers again, and they go on from it."
    )
