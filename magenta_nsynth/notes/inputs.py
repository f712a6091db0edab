"""What a command reads, as options. Nothing here imports NumPy or TensorFlow."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

from magenta_nsynth.options import option

__all__ = ["Inputs", "Kind"]

Kind = Literal["audio", "list", "jsonwav", "archive", "tfrecord", "tfds"]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What to read.

    Attributes:
      source_path: sound files, .npy files, TFRecords, folders or globs of them; a text
        file that lists sounds; an NSynth JSON/WAV folder or its archive; or
        "tfds:nsynth/full@test". Which of these a command takes, it says.
      read_as: which kind it is; None finds out.
      recursive: descends into folders of sounds.
      npy_only: leaves sounds out.
      sample_length: uses at most this many samples of each sound; 0 uses all.
      limit: uses only the first this many sounds; 0 uses all.
      skip_corrupt: leaves out damaged records.
    """

    source_path: Sequence[str | os.PathLike[str]] = option(
        (), "What to read: a file, a folder or a glob", repeated=True
    )
    read_as: Kind | None = option(
        None,
        "What --source_path is, where that is not clear.",
        choices=("audio", "list", "jsonwav", "archive", "tfrecord"),
    )
    recursive: bool = option(
        False,
        "Read the folders below --source_path too, and mirror them in --save_path.",
    )
    npy_only: bool = option(
        False, "Read only .npy embeddings, even where the folder has sounds."
    )
    sample_length: int = option(
        64_000,
        "Use at most this many samples (at 16 kHz) of each sound; 0 uses all.",
        low=0,
    )
    limit: int = option(0, "Use only the first this many sounds; 0 uses all.", low=0)
    skip_corrupt: bool = option(
        False, "Leave out damaged notes and count them, instead of reporting failures."
    )
