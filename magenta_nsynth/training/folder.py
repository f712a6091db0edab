"""The folder of a training: its newest checkpoint, writing, keeping the last ones."""

import contextlib
import glob
import os

from absl import logging

from magenta_nsynth.disk import open_locked, remove
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import expand
from magenta_nsynth.weights.checkpoint import WRITING, Checkpoint, mark_latest
from magenta_nsynth.weights.paths import (
    complete_checkpoints,
    data_files,
    listed_checkpoints,
)
from magenta_nsynth.weights.training_state import TrainingState

__all__ = ["TrainingFolder", "checkpoints_in"]


class TrainingFolder:
    """Checkpoints model.ckpt-STEP in a folder that one program at a time writes to.

    Whenever the program ends, even by kill -9 or on a full disk, the newest complete
    checkpoint is found again. Only checkpoints that were written here are ever
    removed, after a newer one is complete.

    Attributes:
      damaged: prefixes that may be there and are written anew.
    """

    def __init__(self, folder: str | os.PathLike, num_kept: int) -> None:
        """Creates the folder, locks it, and removes what a killed writer left.

        Args:
          folder: as the user gave it.
          num_kept: checkpoints to keep; 0 keeps all.

        Raises:
          InputError: it can't be written to, or another training uses it.
        """
        self.path = expand(folder)
        self._num_kept = num_kept
        try:
            os.makedirs(self.path, exist_ok=True)
            # Held open, and so locked, for as long as this object lives.
            self._lock = open_locked(
                os.path.join(self.path, ".lock"),
                f"{folder}: another program is training there; wait for it, or give "
                "another --logdir.",
            )
        except OSError as error:
            raise InputError(
                f"{folder}: can't be written to ({error.strerror}); give another "
                "--logdir."
            ) from error
        self.damaged: set[str] = set()
        self._written: list[str] = []
        if os.path.exists(os.path.join(self.path, "config.json")):
            # Ours alone: a folder that somebody copied here may hold anything.
            self._written = listed_checkpoints(self.path)
            self._mend()

    def close(self) -> None:
        """Lets another program train here."""
        self._lock.close()

    def save(self, state: TrainingState) -> str:
        """Writes a checkpoint, then removes what is not among the newest.

        Returns:
          Its prefix.

        Raises:
          CheckpointError: it could not be written; what was there is untouched.
        """
        step = int(state.global_step.numpy())
        prefix = os.path.join(self.path, f"model.ckpt-{step}")
        if prefix in complete_checkpoints(self.path):
            if prefix not in self.damaged and _is_readable(prefix):
                return prefix
            if prefix in self.damaged or prefix in self._written:
                _remove(prefix)
        older = [
            other
            for other in self._written
            if other != prefix and os.path.exists(other + ".index")
        ]
        num_older = len(older) if self._num_kept == 0 else self._num_kept - 1
        kept = older[len(older) - num_older :] if num_older < len(older) else older
        state.save(prefix, [os.path.basename(other) for other in kept])
        for other in older:
            if other not in kept:
                _remove(other)
        self._written = [*kept, prefix]
        return prefix

    def _mend(self) -> None:
        """Removes what a killed writer left, and names the newest checkpoint."""
        for left in glob.glob(os.path.join(glob.escape(self.path), WRITING + "*")):
            remove(*glob.glob(os.path.join(glob.escape(left), "model.ckpt-*")))
            with contextlib.suppress(OSError):  # something else is in it
                os.rmdir(left)
        newest = [p for p in complete_checkpoints(self.path)[-1:] if _is_readable(p)]
        # A kill may fall between a checkpoint and the file that names it. Where that
        # lists none of ours, all that is there is somebody else's.
        if newest and self._written and newest != self._written[-1:]:
            kept = [prefix for prefix in self._written if prefix not in newest]
            mark_latest(newest[0], [os.path.basename(prefix) for prefix in kept])
            self._written = [*kept, *newest]


def _is_readable(prefix: str) -> bool:
    try:
        Checkpoint(prefix)
    except CheckpointError:
        return False
    return True


def _remove(prefix: str) -> None:
    # The index first: without it the rest is no checkpoint.
    remove(prefix + ".index", prefix + ".meta", *data_files(prefix))


def checkpoints_in(folder: str | os.PathLike) -> list[Checkpoint]:
    """The readable checkpoints in `folder`, opened, the newest first.

    By step: the file `checkpoint` may be one behind after a kill.

    Raises:
      CheckpointError: there are some, and none can be read.
    """
    folder = expand(folder)
    if not os.path.isdir(folder):
        return []
    found, problems = [], []
    for prefix in reversed(complete_checkpoints(folder)):
        try:
            found.append(Checkpoint(prefix))
        except CheckpointError as error:
            problems.append(error)
    if problems and not found:
        raise CheckpointError(f"{problems[0]} No checkpoint in there can be read.")
    for error in problems:
        logging.warning("%s It is left out; an older one is used.", error)
    return found
