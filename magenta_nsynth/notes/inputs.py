"""The options that name a command's input. Imports neither NumPy nor TensorFlow."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

from magenta_nsynth.files import check_inputs
from magenta_nsynth.options import option

__all__ = ["Inputs", "Kind"]

Kind = Literal["audio", "list", "jsonwav", "archive", "tfrecord", "tfds"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What to read.

    Attributes:
      source_path: sound files, .npy files, TFRecords, folders or globs of them; a text
        file that lists sounds; an NSynth JSON/WAV folder or its archive; or
        "tfds:nsynth/full@test". Each command documents which of these it accepts.
      read_as: the kind of input; None detects it.
      recursive: descends into folders of sounds.
      npy_only: ignores sounds.
      sample_length: uses at most this many samples of each sound, at 16 kHz; 0 uses
        all.
      limit: uses only this many sounds, the first; 0 uses all.
      skip_corrupt: leaves out damaged notes.
    """

    source_path: Sequence[str | os.PathLike[str]] = option(
        (), "What to read: a file, a folder or a glob", repeated=True
    )
    read_as: Kind | None = option(
        None,
        "What --source_path is, if that is unclear.",
        choices=("audio", "list", "jsonwav", "archive", "tfrecord"),
    )
    recursive: bool = option(
        False,
        "Read the folders below --source_path too, and mirror them in --save_path.",
    )
    npy_only: bool = option(
        False, "Read only .npy embeddings, even if the folder has sounds."
    )
    sample_length: int = option(
        64_000,
        "Use at most this many samples (at 16 kHz) of each sound; 0 uses all.",
        low=0,
    )
    limit: int = option(0, "Use only this many sounds, the first; 0 uses all.", low=0)
    skip_corrupt: bool = option(
        False, "Leave out damaged notes and count them, instead of reporting failures."
    )

    def check(self) -> None:
        """Raises InputError if there is nothing to read."""
        check_inputs(self.source_path)
