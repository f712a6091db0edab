"""What commands share: their arguments, their folders, and the files that failed."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from absl import logging

from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.audio import read_audio
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import Source, check_folder, expand
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.options import refuse_changed

__all__ = [
    "Failures",
    "check_arguments",
    "check_rules",
    "generated_name",
    "load_clip",
    "make_folder",
    "pending",
    "writing",
]

# After these no other file could be written either.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def check_arguments(
    model: WaveNet | Baseline,
    save_path: str | os.PathLike,
    sample_length: int,
    batch_size: int,
) -> None:
    """Raises InputError for what no command over sounds can work with."""
    check_folder(save_path)
    if sample_length < 0 or 0 < sample_length < model.min_samples:
        raise InputError(
            f"--sample_length={sample_length} is less than the {model.min_samples} "
            "samples that the model needs; 0 uses the whole of each file."
        )
    if batch_size < 1:
        raise InputError(f"--batch_size must be 1 or more, not {batch_size}.")


def check_rules(model: WaveNet | Baseline, rules: NameRules) -> None:
    """Raises InputError for rules about pitches if the model has no use for these."""
    if not model.uses_pitch:
        refuse_changed(
            rules,
            "is for the baseline, and this is another model's checkpoint; leave it "
            "out.",
        )


def generated_name(name: str) -> str:
    """The file that a sound made of `name` goes to."""
    return f"gen_{name}.wav"


def load_clip(path: str, sample_length: int, model: WaveNet) -> np.ndarray:
    """A sound file as whole frames of the model, [t] float32, cut to a length.

    Raises:
      AudioError: it can't be read, or has less than one frame.
    """
    return model.check_clip(read_audio(path, sample_length), path)


def pending(
    pairs: list[tuple[Source, str]], skip_existing: bool, unfinished_suffix: str = ""
) -> list[tuple[Source, str]]:
    """The (source, output) pairs still to do; says how many are done already.

    Args:
      pairs: all of them.
      skip_existing: False keeps all.
      unfinished_suffix: a file of the output's name and this beside it means that
        the output isn't finished.
    """
    if not skip_existing:
        return pairs
    left = [
        (source, output)
        for source, output in pairs
        if not os.path.exists(output)
        or (unfinished_suffix and os.path.exists(output + unfinished_suffix))
    ]
    if len(left) < len(pairs):
        logging.info("%d of %d are done already.", len(pairs) - len(left), len(pairs))
    return left


def make_folder(save_path: str | os.PathLike, flag: str = "--save_path") -> None:
    """Creates the output folder; raises InputError unless files can be made there.

    Now, because the first file may be hours of work away.
    """
    folder = expand(save_path)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{save_path}: can't be written to ({error.strerror}); give another {flag}."
        ) from error


@contextmanager
def writing(output: str) -> Iterator[None]:
    """Writing `output` in the block; its folder is there then, and errors name it.

    Raises:
      InputError: this file can't be written; others may be.
      OSError: no space is left, for others neither.
    """
    try:
        os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
        yield
    except (OSError, AudioError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(reason, OSError):
            raise
        if reason.errno in _NO_SPACE:
            raise OSError(reason.errno, reason.strerror, output) from error
        raise InputError(
            f"{output}: can't be written ({reason.strerror or reason})."
        ) from error


class Failures:
    """The files that could not be done, and why."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Notes an `NSynthError` of the block in place of raising it."""
        try:
            yield
        except NSynthError as error:
            self.messages.append(str(error))

    def report(self, num_files: int) -> int:
        """Logs what failed; the exit status of a run over `num_files` files."""
        for message in self.messages:
            logging.error("%s", message)
        if self.messages:
            logging.error(
                "%d of %d files failed; the others are done.",
                *(len(self.messages), num_files),
            )
        return 1 if self.messages else 0
