"""Writing notes to shards: which note goes where, and resuming an earlier run."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import logging

from magenta_nsynth.data.writing import RecordPlan, RecordShards, fingerprint
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.notes.unread import UnreadNote, read_unread
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import Note

__all__ = ["Target", "count_shards", "make_from_items", "write_missing"]

_SAMPLES_PER_SHARD = 64_000_000  # 256 MB: 1,000 of NSynth's notes
_MOST_SHARDS = 99_999  # five digits in the names


class Target(NamedTuple):
    """Where shards are written, and how.

    Attributes:
      folder: exists already.
      name: the start of the files' names.
      num_shards: None decides by the notes' length.
      num_threads: sounds that are read at once.
      overwrite: replaces what an earlier run made.
    """

    folder: str
    name: str
    num_shards: int | None
    num_threads: int
    overwrite: bool


def count_shards(target: Target, num_notes: int, num_samples: int) -> int:
    """The number of shards for this many notes and samples at 16 kHz.

    Raises:
      InputError: more shards are asked for than there are notes.
    """
    if target.num_shards is None:
        wanted = math.ceil(num_samples / _SAMPLES_PER_SHARD)
        return max(1, min(wanted, num_notes, _MOST_SHARDS))
    if target.num_shards > num_notes:
        raise InputError(
            f"--num_shards={target.num_shards} is more than the {num_notes} notes; "
            "give fewer."
        )
    return target.num_shards


def make_from_items(
    notes: list[UnreadNote], options: dict[str, Any], target: Target
) -> RecordShards:
    """Writes notes from sound files, each of which may have several.

    Args:
      notes: in the order to write them.
      options: what else the result depends on.
      target: where to write; the folder exists.

    Returns:
      The shards, all of them complete.

    Raises:
      InputError: other shards are in the way, or the disk refuses.
    """
    num_samples = sum(note.length or note.file_samples or 64_000 for note in notes)
    num_shards = count_shards(target, len(notes), num_samples)
    names = fingerprint(unread.note.note_str for unread in notes)
    plan = RecordPlan({**options, "notes": names}, len(notes), [""] * num_shards)
    parts = [notes[slice(*plan.bounds(i))] for i in range(num_shards)]
    prints = [fingerprint(map(_content, part)) for part in parts]
    plan = dataclasses.replace(plan, prints=prints)
    shards = RecordShards(target.folder, target.name, plan, target.overwrite)
    missing = ((i, note) for i in list(shards.missing) for note in parts[i])
    write_missing(shards, read_unread(missing, target.num_threads))
    return shards


def write_missing(
    shards: RecordShards, results: Iterator[tuple[int, Note | NSynthError]]
) -> None:
    """Writes the missing shards, with progress; logs how many exist already."""
    plan, num_shards = shards.plan, len(shards.plan.prints)
    num_existing = num_shards - len(shards.missing)
    if num_existing:
        logging.info("%d of %d files exist already.", num_existing, num_shards)
    missing = (plan.bounds(i) for i in shards.missing)
    total = sum(end - first for first, end in missing)
    with Progress(total, "notes") as progress:
        shards.write(results, progress)


def _content(unread: UnreadNote) -> str:
    """Everything that decides what is written for a note."""
    note = {**dataclasses.asdict(unread.note), "audio": None}
    where = os.path.basename(unread.path), unread.start, unread.length
    return json.dumps([note, where, unread.stamp, unread.problem])
