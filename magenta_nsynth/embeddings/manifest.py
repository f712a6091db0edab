"""What an export's folder holds: its shards, and what they are made of.

    manifest.json                    what is made of what and how; at the end, all of it
    embeddings-00003-of-00058.npy    a shard's files, each whole or not there
    parts/00003.json                 a shard's contents: written after its files

A shard is there once its part is. The plan decides all that is written, so several
machines need not speak to each other, and nothing tells how often one was killed.
"""

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from magenta_nsynth.disk import disk_errors, locked_range, remove
from magenta_nsynth.embeddings.arrays import check_finite
from magenta_nsynth.embeddings.shards import FORMATS, digest
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, read_json, write_json

__all__ = ["MANIFEST", "ExportPlan", "ExportShards", "load_complete"]

MANIFEST = "manifest.json"
_PARTS = "parts"
_LOCK = ".exporting.lock"
# Bytes of the lock: shard n's is byte n. Behind those, who has others make shards; and
# who writes the manifest.
_BY_OTHERS, _MANIFEST_BYTE = 1 << 40, 1 << 41
# The form of a part, and of a complete manifest as far as reading needs it.
_PART = {
    "shard": int,
    "made_of": str,
    "num_notes": int,
    "num_rows": int,
    "skipped": [str],
    "files": {str: {"bytes": int, "sha256": str}},
    "checksum": (str, None),  # not before version 0.2
}
_COMPLETE = {
    "num_latent": int,
    "num_notes": int,
    "num_rows": int,
    "made_of": {"format": str, "num_notes": int, "notes_per_shard": int},
    "shards": [_PART],
}
_IN_WORDS = {
    "software": "another version of this software or of TensorFlow",
    "model": "another model",
    "config": "a checkpoint of another shape, --hop_length or --dilation_cycle",
    "encoder": "a checkpoint with other weights",
    "weights": "the other weights, raw or averaged (--use_ema)",
    "source": "other notes",
    "num_notes": "another number of notes",
    "format": "another --format",
    "notes_per_shard": "another --notes_per_shard",
    "sample_length": "another --sample_length",
    "batch_size": "another --batch_size, which moves the last bits",
    "dtype": "with or without --bfloat16",
}


class ExportPlan(NamedTuple):
    """What is to be made.

    Attributes:
      identity: all that decides the result, as JSON has it: every key of `_IN_WORDS`.
      remarks: what else the manifest says, such as the checkpoint's name.
      fingerprint: of the first of some notes and the first behind them, what changes
        when one of them does.
    """

    identity: dict[str, Any]
    remarks: dict[str, Any]
    fingerprint: Callable[[int, int], str]

    @property
    def num_shards(self) -> int:
        """How many shards there are."""
        notes, size = self.identity["num_notes"], self.identity["notes_per_shard"]
        return -(-notes // size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """A shard's first note, and the first that is no longer in it."""
        size = self.identity["notes_per_shard"]
        return shard * size, min((shard + 1) * size, self.identity["num_notes"])

    def share(self, worker: int, num_workers: int) -> range:
        """The shards of one of several workers; none of them is another's."""
        bounds = [i * self.num_shards // num_workers for i in (worker, worker + 1)]
        return range(*bounds)


def _names(plan: ExportPlan, shard: int) -> list[str]:
    stem = f"embeddings-{shard:05}-of-{plan.num_shards:05}"
    extensions = FORMATS[plan.identity["format"]].extensions
    return [stem + extension for extension in extensions]


def _checksum(part: dict[str, Any]) -> str:
    """Of all that a part says: a changed number shows."""
    said = {key: value for key, value in part.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode("ascii")).hexdigest()


def _is_part(part: dict[str, Any], plan: ExportPlan, shard: int) -> bool:
    """Whether what has the form of a part is this shard's, and unchanged."""
    first, end = plan.bounds(shard)
    return (
        part["shard"] == shard
        and list(part["files"]) == _names(plan, shard)
        and part["num_notes"] + len(part["skipped"]) == end - first
        and part.get("checksum", _checksum(part)) == _checksum(part)
    )


def load_complete(path: str) -> dict[str, Any]:
    """A manifest whose export is complete, with all of its shards.

    Raises:
      InputError: there is none, or it is not complete, or damaged.
    """
    manifest = read_json(path)
    if manifest is None or "made_of" not in manifest:
        raise InputError(
            f"{path}: there is no export in this folder; give the --save_path of "
            "nsynth_export_embeddings."
        )
    if not manifest.get("complete"):
        raise InputError(
            f"{path}: the export is not complete; run the same "
            "nsynth_export_embeddings again to go on with it."
        )
    manifest = read_json(path, _COMPLETE)
    if manifest is None or not _is_consistent(manifest):
        raise InputError(
            f"{path}: damaged; run the same nsynth_export_embeddings again, into "
            "another --save_path."
        )
    return manifest


def _is_consistent(manifest: dict[str, Any]) -> bool:
    plan = ExportPlan(manifest["made_of"], {}, lambda *_: "")
    shards = manifest["shards"]
    return (
        plan.identity["format"] in FORMATS
        and plan.identity["notes_per_shard"] > 0
        and len(shards) == plan.num_shards
        and all(_is_part(part, plan, shard) for shard, part in enumerate(shards))
        and all(
            manifest[name] == sum(part[name] for part in shards)
            for name in ("num_notes", "num_rows")
        )
    )


class ExportShards:
    """The shards in a folder."""

    def __init__(self, folder: str, plan: ExportPlan) -> None:
        """Nothing is read or written yet.

        Args:
          folder: exists.
          plan: what is made there.
        """
        self.folder, self.plan = folder, plan
        self._lock: Any = None
        self.num_latent = plan.remarks["num_latent"]
        self.format = FORMATS[plan.identity["format"]]

    def begin(self) -> None:
        """Says in the folder what is made there; within `locked`.

        Raises:
          InputError: something else is there, or the disk refuses.
        """
        with locked_range(self._lock, _MANIFEST_BYTE, 1):
            self._begin(os.path.join(self.folder, MANIFEST))

    def _begin(self, path: str) -> None:
        old = read_json(path)
        if old is None:
            foreign = glob.glob(os.path.join(glob.escape(self.folder), "embeddings-*"))
            if foreign or os.path.exists(path):
                raise InputError(
                    f"{foreign[0] if foreign else path}: is there already, and not of "
                    "an export that could be gone on with; give another --save_path."
                )
            self._write(path, {"complete": False, **self._made_of()})
        else:
            self.check()

    def check(self) -> None:
        """Raises InputError unless what is made in the folder is of this plan."""
        path = os.path.join(self.folder, MANIFEST)
        old = read_json(path) or {}
        new = json.loads(json.dumps(self.plan.identity))
        found = old.get("made_of")
        if not isinstance(found, dict):
            raise InputError(
                f"{path}: damaged; give another --save_path, or remove this folder."
            )
        changed = [
            words for key, words in _IN_WORDS.items() if found.get(key) != new[key]
        ]
        if changed:
            raise InputError(
                f"{path}: what is there was made of or with something else "
                f"({'; '.join(changed)}); repeat that command, or give another "
                "--save_path."
            )

    @contextlib.contextmanager
    def locked(self, shards: range, by_others: bool = False) -> Iterator[None]:
        """Keeps other programs from making some of these shards.

        Args:
          shards: which; one at least.
          by_others: this program has others make them, which lock each its own.

        Raises:
          InputError: another one is at work on some of them.
        """
        path = os.path.join(self.folder, _LOCK)
        in_use = (
            f"{self.folder}: another program is writing these shards; wait for it, or "
            "give each its own --shard_index."
        )
        with disk_errors(path), open(path, "ab") as file:
            self._lock = file
            first = shards.start + (_BY_OTHERS if by_others else 0)
            with locked_range(file, first, len(shards), in_use):
                yield

    def names(self, shard: int) -> list[str]:
        """The names of a shard's files."""
        return _names(self.plan, shard)

    def part(self, shard: int) -> dict[str, Any] | None:
        """A shard's contents, if its files are there in their lengths; else None."""
        part = read_json(self._part_path(shard), _PART)
        if part is None or not _is_part(part, self.plan, shard):
            return None
        try:
            whole = all(
                os.path.getsize(os.path.join(self.folder, name)) == expected["bytes"]
                for name, expected in part["files"].items()
            )
        except OSError:
            return None
        return part if whole else None

    def _is_intact(self, part: dict[str, Any]) -> bool:
        """Whether a shard's files are still as they were written."""
        try:
            return all(
                digest(os.path.join(self.folder, name)) == expected
                for name, expected in part["files"].items()
            )
        except OSError:
            return False

    def missing(self, shards: range) -> list[int]:
        """Those of the shards that are not there.

        Raises:
          InputError: one is there whose notes have changed since.
        """
        missing = []
        for shard in shards:
            part = self.part(shard)
            if part is None or not self._is_intact(part):
                missing.append(shard)
            elif part["made_of"] != self.plan.fingerprint(*self.plan.bounds(shard)):
                path = os.path.join(self.folder, self.names(shard)[0])
                raise InputError(
                    f"{path}: its notes have changed since it was made; give another "
                    "--save_path, or remove that file to have it made anew."
                )
            else:  # a kill may have come before this
                remove(self._problems_path(shard))
        return missing

    @contextlib.contextmanager
    def writing(self, shard: int) -> Iterator[Any]:
        """Makes a shard in the block, which is there whole once the block ends well.

        Yields:
          Its `ShardWriter`, with a list `skipped` for what is left out.

        Raises:
          InputError: the disk refuses.
        """
        paths = [os.path.join(self.folder, name) for name in self.names(shard)]
        made_of = self.plan.fingerprint(*self.plan.bounds(shard))
        with disk_errors(paths[0]), contextlib.ExitStack() as stack:
            writing = [stack.enter_context(atomic_path(p)) for p in paths]
            writer = _Counting(self.format.writer(writing, self.num_latent))
            yield writer
            writer.close()
            digests = map(digest, writing)
            files = dict(zip(self.names(shard), digests, strict=True))
        part = {
            "shard": shard,
            "made_of": made_of,
            "num_notes": writer.num_notes,
            "num_rows": writer.num_rows,
            "skipped": writer.skipped,
            "files": files,
        }
        part["checksum"] = _checksum(part)
        self._write(self._part_path(shard), part)
        remove(self._problems_path(shard))

    def leave(self, shard: int, messages: list[str]) -> None:
        """Notes why a shard can't be made, until it is."""
        self._write(self._problems_path(shard), {"problems": messages})

    def problems(self, shards: range) -> list[str]:
        """Why those of the shards that can't be made can't."""
        form = {"problems": [str]}
        found = (read_json(self._problems_path(shard), form) for shard in shards)
        return [line for content in found if content for line in content["problems"]]

    def finish(self) -> dict[str, Any] | None:
        """Writes the complete manifest, if all shards are there; what it says or None.

        Within `locked`. Whoever comes last does it.
        """
        with locked_range(self._lock, _MANIFEST_BYTE, 1):
            return self._finish(os.path.join(self.folder, MANIFEST))

    def _finish(self, path: str) -> dict[str, Any] | None:
        parts = []
        for shard in range(self.plan.num_shards):
            part = self.part(shard)
            if part is None:
                return None
            parts.append(part)
        content = {
            "complete": True,
            **self._made_of(),
            "num_notes": sum(part["num_notes"] for part in parts),
            "num_rows": sum(part["num_rows"] for part in parts),
            "num_skipped": sum(len(part["skipped"]) for part in parts)
            + len(self.plan.remarks["lost"]),
            "shards": parts,
        }
        if read_json(path) != json.loads(json.dumps(content)):
            self._write(path, content)
        return content

    def _made_of(self) -> dict[str, Any]:
        old = read_json(os.path.join(self.folder, MANIFEST)) or {}
        # As the first run said it: a checkpoint may have moved since.
        remarks = {
            key: old[key] if type(old.get(key)) is type(said) else said
            for key, said in self.plan.remarks.items()
        }
        return {**remarks, "made_of": self.plan.identity}

    def _part_path(self, shard: int) -> str:
        return os.path.join(self.folder, _PARTS, f"{shard:05}.json")

    def _problems_path(self, shard: int) -> str:
        return os.path.join(self.folder, _PARTS, f"{shard:05}.problems.json")

    def _write(self, path: str, content: dict[str, Any]) -> None:
        with disk_errors(path):
            write_json(path, content)


class _Counting:
    """A `ShardWriter` that counts, and notes what is left out."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.num_notes = self.num_rows = 0
        self.skipped: list[str] = []

    def add(self, note: Any) -> None:
        check_finite(note.rows, note.labels.get("note_str", "a note"))
        self._writer.add(note)
        self.num_notes += 1
        self.num_rows += len(note.rows)

    def close(self) -> None:
        self._writer.close()
