"""Training on several machines, as one process per worker. Needs no TensorFlow."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from magenta_nsynth.errors import InputError, TrainingError
from magenta_nsynth.files import expand, parse_json
from magenta_nsynth.stores import storage
from magenta_nsynth.weights.paths import complete_checkpoints

__all__ = ["Cluster", "WorkersLostError", "supervise"]

_CHILD = "NSYNTH_TRAIN_CHILD"  # the environment variable that marks a child
_LOST = 75  # the exit status of a child that lost another worker
_TF_CONFIG = {
    "cluster": ({str: [str]}, None),
    "task": ({"type": (str, None), "index": (int, str, None)}, None),
}


class WorkersLostError(TrainingError):
    """Another machine's worker no longer answers."""


class Cluster:
    """The workers listed in TF_CONFIG, TensorFlow's own environment variable.

    Attributes:
      num_workers: 1 if the variable isn't set.
      index: this worker's number, from 0.

    Raises:
      InputError: TF_CONFIG has another form, or no such worker.
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
                "TF_CONFIG: only workers and a chief are supported, not "
                f"{', '.join(sorted(others))}."
            )
        self.num_workers = max(1, len(workers) + len(chiefs))
        self.index = index + (len(chiefs) if kind == "worker" else 0)
        if not 0 <= self.index < self.num_workers:
            raise InputError(
                f"TF_CONFIG: this worker's number is {self.index}, but there are only "
                f"{self.num_workers} workers."
            )

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the checkpoints and summaries."""
        return self.index == 0


def supervise(work: Callable[[], int], logdir: str) -> int:
    """Does a worker's work: in a child process, if there are several workers.

    When a worker dies, TensorFlow may abort the others from C++. Python then sees no
    exception, and TensorFlow keeps writing to standard error. So a parent process
    waits for the end and writes the last message.

    Args:
      work: the work. The child is this same program, started once more.
      logdir: the folder of the checkpoints, for the message.

    Returns:
      The exit status.

    Raises:
      InputError: as for `Cluster`.
      TrainingError: the child was killed, or another worker was lost.
    """
    if os.environ.get(_CHILD):
        try:
            return work()
        except WorkersLostError:
            os._exit(_LOST)  # TensorFlow's threads would still wait for the others
    if Cluster().num_workers == 1:
        return work()
    words = [sys.executable, *sys.argv]
    child = subprocess.Popen(words, env={**os.environ, _CHILD: "1"})
    try:
        status = child.wait()
    except KeyboardInterrupt:
        # Ctrl-C in a terminal has reached the child already, which is saving.
        child.send_signal(signal.SIGTERM)
        sys.exit(child.wait())
    if status != _LOST and status >= 0:
        return status
    reason = "Lost another worker" if status == _LOST else "This worker was killed"
    folder = expand(logdir)
    saved = complete_checkpoints(folder) if storage.isdir(folder) else []
    raise TrainingError(
        f"{reason}; training has ended. Start all workers again to resume from "
        f"{saved[-1] if saved else 'the start'}."
    )
