"""Exporting the embeddings of a data set as shards with ids and labels."""

import contextlib
import dataclasses
import functools
import itertools
import logging as python_logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

import magenta_nsynth
from magenta_nsynth.commands.common import check_arguments, make_folder
from magenta_nsynth.commands.options import Network, ShardOptions
from magenta_nsynth.embeddings.encode_many import encoding
from magenta_nsynth.embeddings.manifest import ExportPlan, ExportShards
from magenta_nsynth.embeddings.shards import FORMATS, import_pyarrow
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import check_folder, expand
from magenta_nsynth.notes.clips import Clip, Clips
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.opening import open_clips
from magenta_nsynth.progress import Progress
from magenta_nsynth.weights.engine import weights_digest

__all__ = ["LEFT_OUT", "Export", "Work", "export_embeddings", "make_shards"]

LEFT_OUT = 2  # the exit status if some notes were left out, and all others are done
_MOST_MESSAGES = 20  # messages on notes that are shown; the others are counted


@dataclasses.dataclass(frozen=True)
class Export:
    """What to export, and how; can be pickled for other machines."""

    network: Network
    inputs: Inputs
    save_path: str | os.PathLike[str]
    rules: NameRules
    files: ShardOptions


class Work:
    """An opened `Export`: the model, the notes, and the shards to make of them."""

    def __init__(self, export: Export) -> None:
        """Opens the checkpoint and finds the notes; nothing is written.

        Raises:
          InputError: an argument can't be used, or there is nothing to read.
          CheckpointError: the checkpoint can't be used.
        """
        _use_a_thread_per_call()
        self.export = export
        check_folder(export.save_path)
        files = export.files
        if files.notes_per_shard < 1:
            raise InputError(
                f"--notes_per_shard must be 1 or more, not {files.notes_per_shard}."
            )
        if files.format not in FORMATS:
            raise InputError(
                f"--format={files.format} must be one of {', '.join(FORMATS)}."
            )
        if files.format == "parquet":
            import_pyarrow()
        self.model = export.network.open("mixed_bfloat16" if files.bfloat16 else None)
        length = export.inputs.sample_length
        check_arguments(self.model, export.save_path, length, files.batch_size)

    @functools.cached_property
    def clips(self) -> Clips:
        """The notes."""
        export, least = self.export, self.model.min_samples
        return open_clips(export.inputs, least, export.rules, export.save_path)

    @functools.cached_property
    def shards(self) -> ExportShards:
        """The shards, from a plan that is the same on every machine."""
        export, config = self.export, self.model.config
        checkpoint = self.model.checkpoint
        files = export.files
        identity = {
            "software": {
                "magenta_nsynth": magenta_nsynth.__version__,
                "tensorflow": tf.__version__,
            },
            "model": config.model_name,
            "config": config.to_dict(),
            "encoder": weights_digest(self.model.encoder),
            "weights": "averaged" if export.network.use_ema else "raw",
            "source": self.clips.identity,
            "num_notes": self.clips.num_clips,
            "format": files.format,
            "notes_per_shard": files.notes_per_shard,
            "sample_length": export.inputs.sample_length,
            "batch_size": files.batch_size,
            "dtype": "bfloat16" if files.bfloat16 else "float32",
        }
        remarks = {
            "checkpoint": os.path.basename(checkpoint.prefix),
            "step": checkpoint.step,
            "num_latent": self.model.num_latent,
            "lost": self.clips.lost,
        }
        plan = ExportPlan(identity, remarks, self.clips.fingerprint)
        return ExportShards(expand(export.save_path), plan)


def _use_a_thread_per_call() -> None:
    """Has TensorFlow compute each operation in one thread; notes are side by side.

    Several threads share a product in blocks, and on some processors the last bits
    depend on these. So the same notes give the same bytes on any number of cores.
    """
    if not tf.config.list_physical_devices("GPU"):
        # This raises if TensorFlow has started already.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)


def export_embeddings(
    export: Export,
    shard_index: int | None = None,
    num_shards: int | None = None,
    run: Callable[[Work, list[int]], None] | None = None,
) -> int:
    """Exports a data set, or a worker's share of it; resumes an interrupted run.

    Args:
      export: what to export, and how.
      shard_index: this worker's number, from 0.
      num_shards: the number of workers.
      run: has others make the shards with these numbers; None makes them here.

    Returns:
      The exit status: `LEFT_OUT` if some notes were left out; 1 if shards could not be
      made because of notes that can't be used, with messages; else 0.

    Raises:
      InputError: there is nothing to read, an argument can't be used, the folder
        belongs to another export, another program makes the same shards, or the disk
        is full.
    """
    if (shard_index is None) != (num_shards is None):
        raise InputError("--shard_index and --num_shards go together; give both.")
    worker, workers = shard_index or 0, 1 if num_shards is None else num_shards
    if not 0 <= worker < workers:
        raise InputError(
            f"--shard_index={worker} must be from 0 to --num_shards - 1, {workers - 1}."
        )
    work = Work(export)
    shards = work.shards
    make_folder(shards.folder)
    share = shards.plan.share(worker, workers)
    if not share:
        logging.info(
            "There are %d shards for %d workers, none of them for worker %d.",
            *(shards.plan.num_shards, workers, worker),
        )
        return 0
    with shards.locked(share, by_others=run is not None):
        shards.begin()
        missing = shards.missing(share)
        if len(missing) < len(share):
            logging.info(
                "%d of %d shards are already done.",
                *(len(share) - len(missing), len(share)),
            )
        (run or make_shards)(work, missing)
        return _report(work, share, shards.finish())


def make_shards(work: Work, numbers: Sequence[int]) -> None:
    """Writes shards one after the other, while the next notes are read and encoded.

    A shard with a note that can't be used is not written, unless --skip_corrupt is set.

    Args:
      work: the opened export.
      numbers: the shards' numbers, ascending.

    Raises:
      InputError: a file can't be written; finished shards stay.
    """
    shards, export = work.shards, work.export
    bounds = {number: shards.plan.bounds(number) for number in numbers}
    total = sum(end - first for first, end in bounds.values())
    clips = _clips(work.clips, bounds, export.inputs.sample_length)
    with (
        _few_messages(),
        encoding(clips, work.model, export.files.batch_size) as results,
        Progress(total, "notes") as progress,
    ):
        if total:
            progress.update(0)  # a bar at once; the first batch takes a while
        for number, group in itertools.groupby(results, key=lambda pair: pair[0]):
            try:
                with shards.writing(number) as writer:
                    for _, result in group:
                        if isinstance(result, NSynthError):
                            writer.skipped.append(str(result))
                        else:
                            writer.add(result)
                        progress.advance()
                    if writer.skipped and not export.inputs.skip_corrupt:
                        raise _UnusableNotes
            except _UnusableNotes:
                shards.set_problems(number, writer.skipped)


@contextlib.contextmanager
def _few_messages() -> Iterator[None]:
    """Shows only the first messages on notes that are cut."""
    count = 0

    def is_shown(record: python_logging.LogRecord) -> bool:
        nonlocal count
        count += record.levelno == python_logging.INFO
        return record.levelno > python_logging.INFO or count <= _MOST_MESSAGES

    logger = logging.get_absl_logger()
    logger.addFilter(is_shown)
    try:
        yield
    finally:
        logger.removeFilter(is_shown)
    if count > _MOST_MESSAGES:
        logging.info("And %d more messages like these.", count - _MOST_MESSAGES)


class _UnusableNotes(Exception):
    """Ends writing a shard that can't be made."""


def _clips(
    clips: Clips, bounds: dict[int, tuple[int, int]], sample_length: int
) -> Iterator[tuple[int, Clip | NSynthError]]:
    """Yields (shard, clip) pairs of all shards, read as one continuous stream."""
    if not bounds:
        return
    numbers = np.concatenate([np.arange(*pair) for pair in bounds.values()])
    counts = [end - first for first, end in bounds.values()]
    keys = np.repeat(list(bounds), counts).tolist()
    yield from zip(keys, clips.read(numbers, sample_length), strict=True)


def _report(work: Work, share: range, content: dict[str, Any] | None) -> int:
    """Logs what is done and what is missing; returns the exit status."""
    shards = work.shards
    if content is None:
        parts = [part for _, part in shards.parts(share) if part is not None]
    else:
        parts = content["shards"][share.start : share.stop]
    skipped = [line for part in parts for line in part["skipped"]]
    problems = shards.problems(share)
    lines = [*problems, *work.clips.lost, *skipped]
    for line in lines[:_MOST_MESSAGES]:
        logging.error("%s", line)
    if len(lines) > _MOST_MESSAGES:
        logging.error("And %d more like these.", len(lines) - _MOST_MESSAGES)
    if problems:
        logging.error(
            "%d of %d shards are not made, because %d notes can't be used; the others "
            "are done. Repair these notes, or run again with --skip_corrupt.",
            *(len(share) - len(parts), len(share), len(problems)),
        )
        return 1
    if lines:
        logging.error(
            "%d notes can't be used and are left out; the others are done.",
            len(lines),
        )
        if not work.export.inputs.skip_corrupt:
            logging.error(
                "An earlier run with --skip_corrupt left them out; repair them and "
                "give another --save_path, or use --skip_corrupt again."
            )
            return 1
    if content is not None:
        logging.info(
            "%d notes are in %s, %d rows of %d numbers in %d shards.",
            *(content["num_notes"], shards.folder, content["num_rows"]),
            *(shards.num_latent, len(content["shards"])),
        )
    else:
        logging.info(
            "This worker's %d shards are in %s; others are still missing.",
            *(len(share), shards.folder),
        )
    return LEFT_OUT if lines else 0
