"""What the jobs share: their arguments, their clips, and the files that failed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import load_audio, trim_to_frames
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source, expand

__all__ = ["Failures", "check_arguments", "load_clip", "pending"]


def check_arguments(
    model: WaveNet,
    save_path: str | os.PathLike,
    sample_length: int,
    batch_size: int,
) -> None:
    """Raises InputError for what no job over sounds can work with."""
    hop = model.config.ae_hop_length
    if not os.fspath(save_path):
        raise InputError("No --save_path given: name the folder to write to.")
    if os.path.exists(expand(save_path)) and not os.path.isdir(expand(save_path)):
        raise InputError(f"{save_path}: --save_path has to be a folder.")
    if sample_length < 0 or 0 < sample_length < hop:
        raise InputError(
            f"--sample_length={sample_length} is less than one frame of {hop} samples; "
            "0 uses the whole of each file."
        )
    if batch_size < 1:
        raise InputError(f"--batch_size must be 1 or more, not {batch_size}.")


def load_clip(path: str, sample_length: int, model: WaveNet) -> np.ndarray:
    """A sound file as whole frames of the model, [t] float32, cut to a length.

    Raises:
      AudioError: it can't be read, or has less than one frame.
    """
    audio = load_audio(path, sample_length)
    return trim_to_frames(audio, model.config.ae_hop_length, path)


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
