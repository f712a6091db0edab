"""The options that several commands share. Nothing here imports TensorFlow."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from magenta_nsynth.errors import InputError
from magenta_nsynth.options import option

if TYPE_CHECKING:
    from magenta_nsynth.api import Baseline, WaveNet

__all__ = [
    "Device",
    "Making",
    "Network",
    "Output",
    "ShardOptions",
    "Workers",
    "parse_grid",
    "parse_numbers",
]

# The names of the models on a command line; the original calls the baseline "ae".
_MODELS = {"": "", "wavenet": "wavenet", "baseline": "baseline", "ae": "baseline"}


@dataclasses.dataclass(frozen=True)
class Network:
    """The checkpoint, and which of its weights to use."""

    checkpoint_path: str = option(
        "",
        "The TF1 checkpoint: its prefix (model.ckpt-200000), one of its files, or its "
        "folder for the latest one in there.",
    )
    model: str = option(
        "",
        "wavenet or baseline (the original calls it ae), which the checkpoint then has "
        "to be. By default the checkpoint decides.",
        choices=tuple(_MODELS),
        parse=_MODELS.__getitem__,
    )
    use_ema: bool = option(
        False, "Use the averaged weights of the checkpoint instead of the raw ones."
    )
    hop_length: int | None = option(
        None,
        "Samples per frame of the model, if it is not 512 and config.json beside the "
        "checkpoint does not say it.",
        low=1,
    )
    dilation_cycle: int | None = option(
        None,
        "Layers after which the dilations start again at 1, if it is not 10 and "
        "config.json does not say it.",
        low=1,
    )

    def open(self, dtype: str | None = None) -> "WaveNet | Baseline":
        """Opens the checkpoint as the model that it holds.

        Args:
          dtype: Keras' dtype or policy, such as "mixed_bfloat16".

        Raises:
          CheckpointError: it can't be read, or is another model's.
          InputError: an option of the other model.
        """
        from magenta_nsynth.api import load_model

        return load_model(
            self.checkpoint_path,
            self.model,
            use_ema=self.use_ema,
            hop_length=self.hop_length,
            num_stages=self.dilation_cycle,
            dtype=dtype,
        )


@dataclasses.dataclass(frozen=True)
class Output:
    """Where to write."""

    save_path: str | os.PathLike[str] = option(
        "", "The folder to write to; created if missing."
    )
    skip_existing: bool = option(
        False, "Leave out files whose output exists, to resume an interrupted run."
    )


@dataclasses.dataclass(frozen=True)
class Device:
    """Where to compute."""

    gpu_number: int | None = option(
        None, "The one GPU to use, by its number; by default TensorFlow's choice."
    )

    def choose(self) -> None:
        """Leaves that GPU visible; call it before TensorFlow is imported."""
        if self.gpu_number is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(self.gpu_number)


@dataclasses.dataclass(frozen=True)
class ShardOptions:
    """The files of an export."""

    format: str = option(
        "npy",
        "The form of the files. Parquet, for pandas, Polars and DuckDB, needs pyarrow.",
        choices=("npy", "tfrecord", "parquet"),
    )
    batch_size: int = option(16, "Notes that are encoded side by side, at most.")
    notes_per_shard: int = option(
        500, "Notes in each file. What is unfinished when killed is made again."
    )
    bfloat16: bool = option(
        False, "Compute in bfloat16: faster where the processor has it, less exact."
    )


@dataclasses.dataclass(frozen=True)
class Workers:
    """Sharing the work among machines."""

    num_shards: int | None = option(
        None, "How many workers there are, such as a job array's size.", low=1
    )
    shard_index: int | None = option(None, "This worker's number, from 0.", low=0)
    runner: str = option(
        "",
        "Run as an Apache Beam pipeline, by this runner: DirectRunner, FlinkRunner, "
        "PortableRunner ...",
    )
    runner_option: Sequence[str] = option(
        (),
        "An option for the runner, such as --runner_option=--direct_num_workers=4",
        repeated=True,
    )

    def check(self) -> None:
        """Raises InputError for options that don't go together."""
        if self.runner and self.num_shards is not None:
            raise InputError("--num_shards is for workers without --runner; give one.")
        if self.runner_option and not self.runner:
            raise InputError("--runner_option needs --runner, such as DirectRunner.")


@dataclasses.dataclass(frozen=True)
class Making:
    """How TFRecords are made."""

    csv: str = option(
        "",
        "Own sounds: a CSV file of those to take and what they are. Its header names "
        "the columns: file, and any of note_str, pitch, velocity, family, source, "
        "instrument, qualities.",
    )
    note_seconds: float | None = option(
        None,
        "Own sounds: the length of a note; longer files become several. 0 makes each "
        "file one note. [4]",
    )
    pad: bool | None = option(
        None,
        "Own sounds: pad a file's last note with zeros (less than a quarter of a note "
        "behind others is left out); --nopad leaves out what is not whole. [true]",
    )
    name: str | None = option(None, "What the files' names start with. [notes]")
    num_shards: int | None = option(
        None, "How many files to write. [one for each 1,000 notes of 4 s: 256 MB]"
    )
    shuffle_seed: int | None = option(
        None,
        "Shuffle the notes; this number decides the order. Not for an archive.",
        low=0,
    )
    as_float: bool = option(
        False,
        "From TFRecords: write float WAV, without loss, instead of 16 bits.",
        flag="float",
    )
    num_threads: int | None = option(
        None,
        "Files that are read or written at once. [the number of processors]",
        low=1,
    )
    overwrite: bool = option(
        False, "Begin again, even where files of another source or other options are."
    )


def parse_grid(text: str) -> tuple[int, int] | None:
    """The rows and columns of a text such as "3x5"; None for "".

    Raises:
      InputError: it is not of that form.
    """
    if not text:
        return None
    rows, _, columns = text.lower().partition("x")
    try:
        values = int(rows), int(columns)
        if min(values) < 1:
            raise ValueError
    except ValueError:
        raise InputError(f"--grid={text}: give rows x columns, such as 3x5.") from None
    return values


def parse_numbers(
    flag: str, words: Sequence[str] | None, count: int = 0
) -> tuple[float, ...] | None:
    """The numbers of a list flag; None where it was not given.

    Args:
      flag: its name, for the error.
      words: what was given between the commas.
      count: how many numbers are needed; 0 is any number but none.

    Raises:
      InputError: other than numbers, or another count.
    """
    if words is None:
        return None
    try:
        values = tuple(float(word) for word in words)
        if len(values) != (count or len(values) or 1):
            raise ValueError
    except ValueError:
        what = f"{count} numbers" if count else "numbers"
        raise InputError(
            f"--{flag}={','.join(words)}: give {what}, separated by commas."
        ) from None
    return values
