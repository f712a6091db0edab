"""Options shared by several commands. Nothing here imports TensorFlow."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import check_folder
from magenta_nsynth.options import option

if TYPE_CHECKING:
    from magenta_nsynth.api import Autoencoder

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

# The models' names on the command line; the original calls the baseline "ae".
_MODELS = {"": "", "wavenet": "wavenet", "baseline": "baseline", "ae": "baseline"}


@dataclasses.dataclass(frozen=True)
class Network:
    """The checkpoint and its weights."""

    checkpoint_path: str = option(
        "",
        "The TF1 checkpoint: its prefix (model.ckpt-200000), one of its files, or a "
        "folder, for the latest checkpoint in it. small is the bundled WaveNet.",
    )
    model: str = option(
        "",
        "The model that the checkpoint must contain; ae is the original's name of the "
        "baseline. By default any.",
        choices=tuple(_MODELS),
        parse=_MODELS.__getitem__,
    )
    use_ema: bool = option(
        False, "Use the checkpoint's averaged weights instead of the raw ones."
    )
    hop_length: int | None = option(
        None,
        "The model's samples per frame, if not 512 and not in config.json beside the "
        "checkpoint.",
        low=1,
    )
    dilation_cycle: int | None = option(
        None,
        "The number of layers after which dilations restart at 1, if not 10 and not in "
        "config.json.",
        low=1,
    )

    def check(self) -> None:
        """Raises CheckpointError if there is no checkpoint. Imports no TensorFlow."""
        from magenta_nsynth.weights.paths import resolve_checkpoint

        resolve_checkpoint(self.checkpoint_path)

    def open(self, dtype: str | None = None) -> "Autoencoder":
        """Opens the checkpoint.

        Args:
          dtype: a Keras dtype or policy, such as "mixed_bfloat16".

        Raises:
          CheckpointError: the checkpoint can't be read, or is another model's.
          InputError: an option of the other model is given.
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
        False, "Skip files whose output exists, to resume an interrupted run."
    )

    def check(self) -> None:
        """Raises InputError unless it is a folder or does not exist yet."""
        check_folder(self.save_path)


@dataclasses.dataclass(frozen=True)
class Device:
    """Where to compute."""

    gpu_number: int | None = option(
        None, "The number of the only GPU to use. By default TensorFlow decides."
    )

    def choose(self) -> None:
        """Makes only that GPU visible. Must be called before importing TensorFlow."""
        if self.gpu_number is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(self.gpu_number)


@dataclasses.dataclass(frozen=True)
class ShardOptions:
    """The files of an export."""

    format: str = option(
        "npy",
        "The format of the files. Parquet, for pandas, Polars and DuckDB, requires "
        "pyarrow.",
        choices=("npy", "tfrecord", "parquet"),
    )
    batch_size: int = option(
        16,
        "On GPUs, the largest number of notes encoded side by side. It has no effect "
        "on processors, which encode as many notes at once as they have cores.",
    )
    notes_per_shard: int = option(
        500, "The number of notes per file. Interrupted files are started again."
    )
    bfloat16: bool = option(
        False, "Compute in bfloat16: faster on processors that support it, less exact."
    )


@dataclasses.dataclass(frozen=True)
class Workers:
    """Several machines."""

    num_shards: int | None = option(
        None, "The number of workers, such as the size of a job array.", low=1
    )
    shard_index: int | None = option(None, "This worker's number, from 0.", low=0)
    runner: str = option(
        "",
        "Run as an Apache Beam pipeline with this runner, such as DirectRunner, "
        "FlinkRunner or PortableRunner.",
    )
    runner_option: Sequence[str] = option(
        (),
        "An option for the runner, such as --runner_option=--direct_num_workers=4.",
        repeated=True,
    )

    def check(self) -> None:
        """Raises InputError for options that can't be combined."""
        if self.runner and self.num_shards is not None:
            raise InputError("--num_shards can't be used with --runner; give one.")
        if self.runner_option and not self.runner:
            raise InputError("--runner_option needs --runner, such as DirectRunner.")


@dataclasses.dataclass(frozen=True)
class Making:
    """Making TFRecords, and turning them back."""

    csv: str = option(
        "",
        "Own sounds: a CSV file that lists sounds and their labels. The header names "
        "the columns: file, and any of note_str, pitch, velocity, family, source, "
        "instrument, qualities.",
    )
    note_seconds: float | None = option(
        None,
        "Own sounds: the length of a note; longer files are split. 0 makes each file "
        "one note. [4]",
    )
    pad: bool | None = option(
        None,
        "Own sounds: pad a file's last note with zeros, unless it is a remainder of "
        "less than a quarter of a note; --nopad drops incomplete notes. [true]",
    )
    name: str | None = option(None, "The beginning of the files' names. [notes]")
    num_shards: int | None = option(
        None, "The number of files. [one per 1,000 notes of 4 s, 256 MB]"
    )
    shuffle_seed: int | None = option(
        None,
        "Shuffle the notes with this seed. Not for an archive.",
        low=0,
    )
    as_float: bool = option(
        False,
        "From TFRecords: write lossless float WAV instead of 16 bits.",
        flag="float",
    )
    num_threads: int | None = option(
        None,
        "The number of files read or written at once. [the number of processors]",
        low=1,
    )
    overwrite: bool = option(
        False, "Start again, replacing files made from other sources or options."
    )


def parse_grid(text: str) -> tuple[int, int] | None:
    """Parses rows and columns, such as "3x5"; None for "".

    Raises:
      InputError: the text has another form.
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
    """Parses the numbers of a list flag; None if it was not given.

    Args:
      flag: the flag's name, for errors.
      words: the flag's items.
      count: the required number of items; 0 requires at least one.

    Raises:
      InputError: an item is not a number, or their count is wrong.
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
