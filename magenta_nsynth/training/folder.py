"""The folder of a training: its newest checkpoint, writing, keeping the last ones."""

import glob
import os
import re
import shutil

from absl import logging

from magenta_nsynth.disk import lock, remove
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import expand
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.paths import (
    complete_checkpoints,
    data_files,
    listed_checkpoints,
)
from magenta_nsynth.weights.state import TrainingState

__all__ = ["TrainingFolder", "newest_checkpoint"]


class TrainingFolder:
    """Checkpoints model.ckpt-STEP in a folder that one program at a time writes to.

    Whenever the program ends, even by kill -9 or on a full disk, the newest complete
    checkpoint is found again. Only checkpoints that were written here are ever
    removed, after a newer one is complete.
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
            self._lock = open(os.path.join(self.path, ".lock"), "w")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"{folder}: can't be written to ({error.strerror}); give another "
                "--logdir."
            ) from error
        lock(
            self._lock,
            f"{folder}: another program is training there; wait for it, or give "
            "another --logdir.",
        )
        for left in glob.glob(os.path.join(glob.escape(self.path), ".writing-*")):
            shutil.rmtree(left, ignore_errors=True)
            remove(left)
        # Ours alone: a folder that somebody copied here may hold anything.
        self._written = listed_checkpoints(self.path) if self._is_ours() else []
        if self._is_ours():
            self._remove_orphans()

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
            if self._is_readable(prefix):
                return prefix
            self._remove(prefix)
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
                self._remove(other)
        self._written = [*kept, prefix]
        return prefix

    def _is_ours(self) -> bool:
        return os.path.exists(os.path.join(self.path, "config.json"))

    def _is_readable(self, prefix: str) -> bool:
        try:
            Checkpoint(prefix)
        except CheckpointError:
            return False
        return True

    def _remove(self, prefix: str) -> None:
        # The index first: without it the rest is no checkpoint.
        remove(prefix + ".index", prefix + ".meta", *data_files(prefix))

    def _remove_orphans(self) -> None:
        """Data without an index: from a kill between the writing of the two."""
        for name in os.listdir(self.path):
            match = re.fullmatch(r"(model\.ckpt-\d+)\.data-00000-of-00001", name)
            if match:
                prefix = os.path.join(self.path, match[1])
                if not os.path.exists(prefix + ".index"):
                    remove(*data_files(prefix))


def newest_checkpoint(folder: str | os.PathLike) -> Checkpoint | None:
    """The checkpoint of the highest step in `folder` that is complete, opened.

    Not the one that the file `checkpoint` names: a kill may fall between the two.
    """
    folder = expand(folder)
    if not os.path.isdir(folder):
        return None
    for prefix in reversed(complete_checkpoints(folder)):
        try:
            return Checkpoint(prefix)
        except CheckpointError as error:
            logging.warning("%s It is left out; an older one is used.", error)
    return None
