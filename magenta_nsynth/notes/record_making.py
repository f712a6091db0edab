"""Notes into shards: what is made of what, and going on where a run was broken off."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import logging

from magenta_nsynth.data.writing import RecordPlan, RecordShards, fingerprint
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.notes.unread import UnreadNote, load_items
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import Note

__all__ = ["Target", "count_shards", "make_from_items", "write_missing"]

_SAMPLES_PER_SHARD = 64_000_000  # 256 MB, 1,000 of NSynth's notes
_MOST_SHARDS = 99_999  # five digits in the names


class Target(NamedTuple):
    """Where shards are written, and how."""

    folder: str
    name: str
    num_shards: int | None  # None: by the notes' length
    num_threads: int
    overwrite: bool


def count_shards(target: Target, num_notes: int, num_samples: int) -> int:
    """The number of shards for so many notes.

    Raises:
      InputError: more are asked for than there are notes.
    """
    if target.num_shards is None:
        wanted = math.ceil(num_samples / _SAMPLES_PER_SHARD)
        return max(1, min(wanted, num_notes, _MOST_SHARDS))
    if target.num_shards > num_notes:
        raise InputError(
            f"--num_shards={target.num_shards} is more than the {num_notes} notes."
        )
    return target.num_shards


def make_from_items(
    items: list[UnreadNote], options: dict[str, Any], target: Target
) -> RecordShards:
    """Writes notes that lie in files, one or several to a file.

    Args:
      items: in the order in which they are written.
      options: what else decides the result.
      target: where to; the folder exists.

    Returns:
      The shards, all of them there.

    Raises:
      InputError: other shards are in the way, or the disk refuses.
    """
    num_samples = sum(item.length or item.file_samples or 64_000 for item in items)
    num_shards = count_shards(target, len(items), num_samples)
    names = fingerprint(item.note.note_str for item in items)
    plan = RecordPlan({**options, "notes": names}, len(items), [""] * num_shards)
    bounds = [plan.bounds(i) for i in range(num_shards)]
    prints = [
        fingerprint(_changing(item) for item in items[first:end])
        for first, end in bounds
    ]
    plan = dataclasses.replace(plan, prints=prints)
    shards = RecordShards(target.folder, target.name, plan, target.overwrite)

    def wanted() -> Iterator[tuple[int, UnreadNote]]:
        for index in list(shards.missing):
            first, end = bounds[index]
            yield from ((index, item) for item in items[first:end])

    write_missing(shards, load_items(wanted(), target.num_threads))
    return shards


def write_missing(
    shards: RecordShards, results: Iterator[tuple[int, Note | NSynthError]]
) -> None:
    """Writes the shards that are missing, with progress, and says how many are not."""
    plan, num_shards = shards.plan, len(shards.plan.prints)
    num_there = num_shards - len(shards.missing)
    if num_there:
        logging.info("%d of %d files are there already.", num_there, num_shards)
    missing = (plan.bounds(i) for i in shards.missing)
    total = sum(end - first for first, end in missing)
    with Progress(total, "notes") as progress:
        shards.write(results, progress)


def _changing(item: UnreadNote) -> str:
    """All of an item that decides its note."""
    note = {**dataclasses.asdict(item.note), "audio": None}
    where = os.path.basename(item.path), item.start, item.length
    return json.dumps([note, where, item.print, item.problem])
