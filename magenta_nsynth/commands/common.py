"""Shared by commands: checks of arguments, output folders, and files that failed."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from absl import logging

from magenta_nsynth.api import Autoencoder
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import Source, check_folder, expand
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.options import refuse_changed
from magenta_nsynth.stores import remote, storage

__all__ = [
    "Failures",
    "check_arguments",
    "check_rules",
    "generated_name",
    "make_folder",
    "pending",
    "writing",
]

# After these errors no other file can be written either.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def check_arguments(
    model: Autoencoder,
    save_path: str | os.PathLike,
    sample_length: int,
    batch_size: int,
) -> None:
    """Raises InputError for arguments that no command on sounds can use."""
    check_folder(save_path)
    if sample_length < 0 or 0 < sample_length < model.min_samples:
        raise InputError(
            f"--sample_length={sample_length} is less than the {model.min_samples} "
            "samples that the model needs; 0 uses each file in full."
        )
    if batch_size < 1:
        raise InputError(f"--batch_size must be 1 or more, not {batch_size}.")


def check_rules(model: Autoencoder, rules: NameRules) -> None:
    """Raises InputError for rules on pitches if the model does not use pitches."""
    if not model.uses_pitch:
        refuse_changed(
            rules,
            "is for the baseline, and this is another model's checkpoint; leave it "
            "out.",
        )


def generated_name(name: str) -> str:
    """Returns the name of the file with the sound generated from `name`."""
    return f"gen_{name}.wav"


def pending(
    pairs: list[tuple[Source, str]], skip_existing: bool, unfinished_suffix: str = ""
) -> list[tuple[Source, str]]:
    """Returns the (source, output) pairs still to do; logs how many are done.

    Args:
      pairs: all pairs.
      skip_existing: whether to leave out pairs whose output exists.
      unfinished_suffix: an output is not finished if a file with its name and this
        suffix exists.
    """
    if not skip_existing:
        return pairs
    look = remote.listing()
    left = [
        (source, output)
        for source, output in pairs
        if not storage.exists(output, look)
        or (unfinished_suffix and storage.exists(output + unfinished_suffix, look))
    ]
    if len(left) < len(pairs):
        logging.info("%d of %d are done already.", len(pairs) - len(left), len(pairs))
    return left


def make_folder(save_path: str | os.PathLike, flag: str = "--save_path") -> None:
    """Creates the output folder; raises InputError unless it can be written to.

    Checked early, because it may take hours until the first file is written.
    """
    folder = expand(save_path)
    if storage.is_remote(folder):
        remote.put(storage.join(folder, ".writing-check"), b"")
        remote.delete(storage.join(folder, ".writing-check"))
        return
    try:
        storage.makedirs(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{save_path}: can't be written to ({error.strerror}); give another {flag}."
        ) from None


@contextmanager
def writing(output: str) -> Iterator[None]:
    """Creates the folder of `output`, which is written in the block; errors name it.

    Raises:
      InputError: this file can't be written.
      OSError: no space is left, so no other file can be written either.
    """
    try:
        storage.makedirs(os.path.dirname(output) or ".")
        yield
    except (OSError, AudioError) as error:
        reason = error if isinstance(error, OSError) else error.__context__
        if not isinstance(reason, OSError):
            raise
        if reason.errno in _NO_SPACE:
            raise OSError(reason.errno, reason.strerror, output) from error
        raise InputError(
            f"{output}: can't be written ({reason.strerror or reason})."
        ) from error


class Failures:
    """The files that failed, and why."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Records an `NSynthError` in the block instead of raising it."""
        try:
            yield
        except NSynthError as error:
            self.messages.append(str(error))

    def report(self, num_files: int) -> int:
        """Logs the failures among `num_files` files; returns the exit status."""
        for message in self.messages:
            logging.error("%s", message)
        if self.messages:
            logging.error(
                "%d of %d files failed; the others are done.",
                *(len(self.messages), num_files),
            )
        return 1 if self.messages else 0
