"""The folder of an export: its plan, its shards, and the manifest.

    manifest.json                    the plan; in the end also all parts
    embeddings-00003-of-00058.npy    a shard's files, each complete or missing
    parts/00003.json                 a shard's description, written after its files

A shard exists once its part does. The plan determines every byte that is written, so
several machines need not communicate, and interruptions leave no trace.
"""

import contextlib
import glob
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from magenta_nsynth.disk import disk_errors, lock_file, locked_range, remove
from magenta_nsynth.embeddings.embedding import Embedding, check_finite
from magenta_nsynth.embeddings.shards import FORMATS, ShardWriter, digest
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import atomic_path, read_json, write_json
from magenta_nsynth.parallel import in_order
from magenta_nsynth.stores import remote, storage

__all__ = ["MANIFEST", "ExportPlan", "ExportShards", "load_complete"]

MANIFEST = "manifest.json"
_PARTS = "parts"
_LOCK = ".exporting.lock"
# The program that makes shard n locks byte n of the lock file; one that has others make
# it locks byte _BY_OTHERS + n. The manifest has a byte of its own.
_BY_OTHERS, _MANIFEST_BYTE = 1 << 40, 1 << 41
_AT_ONCE = 4  # shards that are checked side by side; in a store up to 64 MB of each
# The form of a part, and of a complete manifest as far as it is read.
_PART = {
    "shard": int,
    "made_of": str,
    "num_notes": int,
    "num_rows": int,
    "skipped": [str],
    "files": {str: {"bytes": int, "sha256": str}},
    "checksum": (str, None),  # since version 0.2
}
_COMPLETE = {
    "num_latent": int,
    "num_notes": int,
    "num_rows": int,
    "made_of": {"format": str, "num_notes": int, "notes_per_shard": int},
    "shards": [_PART],
}
# Every key of a plan's identity, with the message if it differs.
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
    "batch_size": "another --batch_size, which changes the last bits",
    "dtype": "another precision (--bfloat16)",
}


class ExportPlan(NamedTuple):
    """What to export.

    Attributes:
      identity: everything that determines the result, as JSON values; its keys are
        those of `_IN_WORDS`.
      remarks: what else the manifest contains, such as the checkpoint's name.
      fingerprint: maps a range [first, end) of notes to a string that changes when one
        of them does.
    """

    identity: dict[str, Any]
    remarks: dict[str, Any]
    fingerprint: Callable[[int, int], str]

    @property
    def num_shards(self) -> int:
        """The number of shards."""
        notes, size = self.identity["num_notes"], self.identity["notes_per_shard"]
        return -(-notes // size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """Returns the range [first, end) of a shard's notes."""
        size = self.identity["notes_per_shard"]
        return shard * size, min((shard + 1) * size, self.identity["num_notes"])

    def share(self, worker: int, num_workers: int) -> range:
        """Returns the shards of one of several workers."""
        bounds = [i * self.num_shards // num_workers for i in (worker, worker + 1)]
        return range(*bounds)


def _names(plan: ExportPlan, shard: int) -> list[str]:
    stem = f"embeddings-{shard:05}-of-{plan.num_shards:05}"
    extensions = FORMATS[plan.identity["format"]].extensions
    return [stem + extension for extension in extensions]


def _checksum(part: dict[str, Any]) -> str:
    """Returns the checksum of a part's other fields."""
    rest = {key: value for key, value in part.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("ascii")).hexdigest()


def _is_part(part: dict[str, Any], plan: ExportPlan, shard: int) -> bool:
    """Whether a part describes this shard, and is unchanged."""
    first, end = plan.bounds(shard)
    return (
        part["shard"] == shard
        and list(part["files"]) == _names(plan, shard)
        and part["num_notes"] + len(part["skipped"]) == end - first
        and part.get("checksum", _checksum(part)) == _checksum(part)
    )


def load_complete(path: str) -> dict[str, Any]:
    """Reads the manifest of a complete export.

    Raises:
      InputError: there is no manifest, or it is incomplete or damaged.
    """
    manifest = read_json(path)
    if manifest is None or "made_of" not in manifest:
        raise InputError(
            f"{path}: there is no export in this folder; give the --save_path of "
            "nsynth_export_embeddings."
        )
    if not manifest.get("complete"):
        raise InputError(
            f"{path}: the export is not complete; repeat the same "
            "nsynth_export_embeddings to resume it."
        )
    manifest = read_json(path, _COMPLETE)
    if manifest is None or not _is_consistent(manifest):
        raise InputError(
            f"{path}: damaged; repeat the same nsynth_export_embeddings with another "
            "--save_path."
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
    """The shards of an export in its folder."""

    def __init__(self, folder: str, plan: ExportPlan) -> None:
        """Reads and writes nothing yet.

        Args:
          folder: the folder, which need not exist yet.
          plan: what to export.
        """
        self.folder, self.plan = folder, plan
        self._lock: IO[bytes] | None  # within `locked`
        self.num_latent = plan.remarks["num_latent"]
        self.format = FORMATS[plan.identity["format"]]

    def begin(self) -> None:
        """Writes the plan into the folder, or checks the plan there; within `locked`.

        Raises:
          InputError: the folder belongs to another export, or can't be written to.
        """
        with locked_range(self._lock, _MANIFEST_BYTE, 1):
            self._begin(storage.join(self.folder, MANIFEST))

    def _begin(self, path: str) -> None:
        old = read_json(path)
        if old is None:
            foreign = storage.glob(
                storage.join(glob.escape(self.folder), "embeddings-*")
            )
            if foreign or storage.exists(path):
                raise InputError(
                    f"{foreign[0] if foreign else path}: is there already, and is not "
                    "part of an export that can be resumed; give another --save_path."
                )
            content = {"complete": False, **self._made_of()}
            try:
                with disk_errors(path):
                    write_json(path, content, new=storage.is_remote(path))
                return
            except FileExistsError:  # another program was faster
                pass
        self.check()

    def check(self) -> None:
        """Raises InputError unless the export in the folder has this plan."""
        path = storage.join(self.folder, MANIFEST)
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
                f"{path}: belongs to an export with {'; '.join(changed)}. Repeat that "
                "command, or give another --save_path."
            )

    @contextlib.contextmanager
    def locked(self, shards: range, by_others: bool = False) -> Iterator[None]:
        """Locks shards in the block, so that no other program makes them.

        Args:
          shards: the shards, at least one.
          by_others: whether this program has others make them, each of which locks its
            own.

        Raises:
          InputError: another program is making some of them.
        """
        path = storage.join(self.folder, _LOCK)
        in_use = (
            f"{self.folder}: another program is writing these shards; wait for it, or "
            "give each program its own --shard_index."
        )
        first = shards.start + (_BY_OTHERS if by_others else 0)
        with (
            lock_file(path) as self._lock,
            locked_range(self._lock, first, len(shards), in_use),
        ):
            yield

    def names(self, shard: int) -> list[str]:
        """Returns the names of a shard's files."""
        return _names(self.plan, shard)

    def parts(
        self, shards: range, intact: bool = False
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Reads shards' parts, several at once.

        Args:
          shards: the shards.
          intact: whether to compare the files with their checksums.

        Yields:
          (shard, its part). None instead of a part unless the files exist with the
          right sizes, and with `intact` have not changed since they were written.
        """
        look = remote.listing()

        def read(shard: int) -> dict[str, Any] | None:
            part = self._part(shard, look)
            return None if part and intact and not self._is_intact(part) else part

        for shard, part in in_order(read, shards, _AT_ONCE):
            if isinstance(part, NSynthError):
                raise part
            yield shard, part

    def _part(self, shard: int, look: remote.Look) -> dict[str, Any] | None:
        path = self._part_path(shard)
        part = read_json(path, _PART) if storage.exists(path, look) else None
        if part is None or not _is_part(part, self.plan, shard):
            return None
        try:
            whole = all(
                storage.getsize(storage.join(self.folder, name), look) == one["bytes"]
                for name, one in part["files"].items()
            )
        except OSError:
            return None
        return part if whole else None

    def _is_intact(self, part: dict[str, Any]) -> bool:
        """Whether a shard's files have not changed since they were written."""
        try:
            return all(
                digest(storage.join(self.folder, name)) == expected
                for name, expected in part["files"].items()
            )
        except OSError:
            return False

    def missing(self, shards: range) -> list[int]:
        """Returns the shards that have to be made.

        Raises:
          InputError: the notes of a finished shard have changed.
        """
        missing = []
        look = remote.listing()
        for shard, part in self.parts(shards, intact=True):
            if part is None:
                missing.append(shard)
            elif part["made_of"] != self.plan.fingerprint(*self.plan.bounds(shard)):
                path = storage.join(self.folder, self.names(shard)[0])
                raise InputError(
                    f"{path}: its notes have changed since it was made; give another "
                    "--save_path, or remove this file to have it made again."
                )
            # The program may have been killed before it did this.
            elif storage.exists(self._problems_path(shard), look):
                remove(self._problems_path(shard))
        return missing

    @contextlib.contextmanager
    def writing(self, shard: int) -> Iterator["_CountingWriter"]:
        """Writes a shard in the block; it appears when the block ends without error.

        Yields:
          A writer, with a list `skipped` for messages on notes that are left out.

        Raises:
          InputError: a file can't be written.
        """
        paths = [storage.join(self.folder, name) for name in self.names(shard)]
        made_of = self.plan.fingerprint(*self.plan.bounds(shard))
        with disk_errors(paths[0]), contextlib.ExitStack() as stack:
            writing = [stack.enter_context(atomic_path(p)) for p in paths]
            writer = _CountingWriter(self.format.writer(writing, self.num_latent))
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

    def set_problems(self, shard: int, messages: list[str]) -> None:
        """Records why a shard can't be made; forgotten once it is made."""
        self._write(self._problems_path(shard), {"problems": messages})

    def problems(self, shards: range) -> list[str]:
        """Returns the recorded problems of shards."""
        form, look = {"problems": [str]}, remote.listing()
        paths = map(self._problems_path, shards)
        found = (read_json(path, form) for path in paths if storage.exists(path, look))
        return [line for content in found if content for line in content["problems"]]

    def finish(self) -> dict[str, Any] | None:
        """Writes the complete manifest if all shards exist; within `locked`.

        Returns:
          The manifest's content, or None if shards are missing.
        """
        with locked_range(self._lock, _MANIFEST_BYTE, 1):
            return self._finish(storage.join(self.folder, MANIFEST))

    def _finish(self, path: str) -> dict[str, Any] | None:
        parts = []
        for _, part in self.parts(range(self.plan.num_shards)):
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
        old = read_json(storage.join(self.folder, MANIFEST)) or {}
        # The first run's remarks stay: the checkpoint may have moved since.
        remarks = {
            key: old[key] if key in old and type(old[key]) is type(new) else new
            for key, new in self.plan.remarks.items()
        }
        return {**remarks, "made_of": self.plan.identity}

    def _part_path(self, shard: int) -> str:
        return storage.join(self.folder, _PARTS, f"{shard:05}.json")

    def _problems_path(self, shard: int) -> str:
        return storage.join(self.folder, _PARTS, f"{shard:05}.problems.json")

    def _write(self, path: str, content: dict[str, Any]) -> None:
        with disk_errors(path):
            write_json(path, content)


class _CountingWriter:
    """A `ShardWriter` that counts notes and rows, with a list of what is left out."""

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer
        self.num_notes = self.num_rows = 0
        self.skipped: list[str] = []

    def add(self, embedding: Embedding) -> None:
        check_finite(embedding.rows, embedding.labels.get("note_str", "a note"))
        self._writer.add(embedding)
        self.num_notes += 1
        self.num_rows += len(embedding.rows)

    def close(self) -> None:
        self._writer.close()
