"""The checkpoints in the folder of a training run: finding, saving, removing them."""

import contextlib
import glob
import os

from absl import logging

from magenta_nsynth.disk import claimed, open_locked, remove
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import expand
from magenta_nsynth.stores import storage
from magenta_nsynth.weights.checkpoint import WRITING, Checkpoint, mark_latest
from magenta_nsynth.weights.paths import (
    complete_checkpoints,
    data_files,
    listed_checkpoints,
)
from magenta_nsynth.weights.training_state import TrainingState

__all__ = ["TrainingFolder", "checkpoints_in", "newest_in"]


class TrainingFolder:
    """Checkpoints model.ckpt-STEP in a folder that one program at a time writes to.

    However the program ends, even by kill -9 or on a full disk, the newest complete
    checkpoint can be found again. Only checkpoints written by training runs are ever
    removed, and only once a newer one is complete.

    Attributes:
      path: the folder.
      damaged: prefixes of checkpoints to overwrite.
    """

    def __init__(self, folder: str | os.PathLike, num_kept: int) -> None:
        """Creates and locks the folder, and removes what a killed writer left.

        Args:
          folder: as the user gave it.
          num_kept: how many checkpoints to keep; 0 keeps all.

        Raises:
          InputError: it can't be written to, or another program trains there.
        """
        self.path = expand(folder)
        self._num_kept = num_kept
        self._unlock = contextlib.ExitStack()
        if storage.is_remote(self.path):
            self._unlock.enter_context(claimed(self.path, "--logdir"))
        else:
            self._lock_folder(folder)
        self.damaged: set[str] = set()
        self._written: list[str] = []
        if storage.exists(storage.join(self.path, "config.json")):
            # Only a folder that we wrote to: one that was copied may hold anything.
            self._written = listed_checkpoints(self.path)
            self._mend()

    def _lock_folder(self, folder: str | os.PathLike) -> None:
        try:
            storage.makedirs(self.path)
            # Held open, and so locked, for as long as this object lives.
            lock = open_locked(
                storage.join(self.path, ".lock"),
                f"{folder}: another program is training there; wait for it, or give "
                "another --logdir.",
            )
            self._unlock.callback(lock.close)
        except OSError as error:
            raise InputError(
                f"{folder}: can't be written to ({error.strerror}); give another "
                "--logdir."
            ) from None

    def close(self) -> None:
        """Unlocks the folder."""
        self._unlock.close()

    def save(self, state: TrainingState) -> str:
        """Writes a checkpoint, then removes the oldest ones.

        A readable checkpoint of the same step is left as it is.

        Returns:
          The checkpoint's prefix.

        Raises:
          CheckpointError: it can't be written. The others are left as they are.
        """
        step = int(state.global_step.numpy())
        prefix = storage.join(self.path, f"model.ckpt-{step}")
        if prefix in complete_checkpoints(self.path):
            if prefix not in self.damaged and _is_readable(prefix):
                return prefix
            if prefix in self.damaged or prefix in self._written:
                _remove(prefix)
        older = [
            other
            for other in self._written
            if other != prefix and storage.exists(other + ".index")
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
        """Removes what a killed writer left, and marks the newest checkpoint."""
        if not storage.is_remote(self.path):
            self._remove_half_written()
        newest = [p for p in complete_checkpoints(self.path)[-1:] if _is_readable(p)]
        # A kill may come between a checkpoint and the file that names it. If that file
        # lists none of ours, all checkpoints here are somebody else's.
        if newest and self._written and newest != self._written[-1:]:
            kept = [prefix for prefix in self._written if prefix not in newest]
            mark_latest(newest[0], [os.path.basename(prefix) for prefix in kept])
            self._written = [*kept, *newest]

    def _remove_half_written(self) -> None:
        for left in glob.glob(os.path.join(glob.escape(self.path), WRITING + "*")):
            remove(*glob.glob(os.path.join(glob.escape(left), "model.ckpt-*")))
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(left)


def _is_readable(prefix: str) -> bool:
    try:
        Checkpoint(prefix)
    except CheckpointError:
        return False
    return True


def _remove(prefix: str) -> None:
    # The index first: without it the rest does not count as a checkpoint.
    remove(prefix + ".index", prefix + ".meta", *data_files(prefix))


def checkpoints_in(folder: str | os.PathLike) -> list[Checkpoint]:
    """Opens the readable checkpoints in a folder.

    Returns:
      The newest first, by step: after a kill the file `checkpoint` may name the one
      before. [] if there is none, or no such folder.

    Raises:
      CheckpointError: there are checkpoints, but none can be read.
    """
    found, problems = [], []
    for prefix in _prefixes(folder):
        try:
            found.append(Checkpoint(prefix))
        except CheckpointError as error:
            problems.append(error)
    if problems and not found:
        raise CheckpointError(
            f"{problems[0]} No other checkpoint in that folder can be read either."
        )
    for problem in problems:
        logging.warning("%s Skipping it; an older one is used.", problem)
    return found


def newest_in(folder: str | os.PathLike) -> Checkpoint | None:
    """Opens the newest readable checkpoint in a folder; None if there is none."""
    for prefix in _prefixes(folder):
        with contextlib.suppress(CheckpointError):
            return Checkpoint(prefix)
    return None


def _prefixes(folder: str | os.PathLike) -> list[str]:
    """The checkpoints in a folder, the newest first."""
    folder = expand(folder)
    return complete_checkpoints(folder)[::-1] if storage.isdir(folder) else []
