"""Sharded TFRecord files: each is complete or absent, and a manifest says how made."""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.disk import disk_errors, only_writer, remove, remove_unlocked
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import atomic_path, read_json, write_json
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import Note
from magenta_nsynth.stores import remote, storage

__all__ = [
    "RecordPlan",
    "RecordShards",
    "fingerprint",
    "float_list",
    "locked",
    "note_to_example",
    "read_manifest",
    "tf_errors",
]

_SHARD = {"num_notes": int, "failed": [str]}
_MANIFEST = {"options": dict, "num_notes": int, "prints": [str], "done": {str: _SHARD}}

_Done = dict[str, dict[str, Any]]  # by shard: a `_SHARD`


@dataclasses.dataclass(frozen=True)
class RecordPlan:
    """What a set of shards is made from and how, as far as is known beforehand.

    Attributes:
      options: must be the same for a run to resume an earlier one.
      num_notes: in all shards, including notes that will fail.
      prints: a fingerprint of each shard's sources; if it changes, the shard is made
        again.
    """

    options: dict[str, Any]
    num_notes: int
    prints: list[str]

    def bounds(self, index: int) -> tuple[int, int]:
        """A shard's first note, and the first note after it."""
        first, end = (
            i * self.num_notes // len(self.prints) for i in (index, index + 1)
        )
        return first, end


def fingerprint(parts: Iterable[object]) -> str:
    """A short hash of the parts' `repr`: 16 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part!r}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


class RecordShards:
    """The files `<folder>/<name>.tfrecord-<i>-of-<n>`, and which are still missing.

    `<name>.manifest.json` beside them has the plan and the failures, so that another
    run can tell whether it may resume this one.

    Attributes:
      plan: what is to be made.
      missing: the indices of the shards that are still to be written.
    """

    def __init__(
        self, folder: str, name: str, plan: RecordPlan, overwrite: bool
    ) -> None:
        """Finds the shards of an earlier run, and removes those not to be kept.

        Args:
          folder: exists already.
          name: the start of the files' names.
          plan: what is to be made.
          overwrite: starts over, whatever files of that name exist.

        Raises:
          InputError: the files there have another source or other options.
        """
        self.plan = plan
        self._base = storage.join(folder, name)
        # By shard: {"num_notes": those in it, "failed": the errors of the others}.
        self._done: _Done = {}
        old = read_manifest(self.manifest_path)
        if overwrite or old is None:
            if not overwrite:
                self._refuse_unexplained()
            # The manifest first: shards without one are never trusted.
            remove(self.manifest_path, *self._replaced(old.plan if old else None))
        else:
            self._refuse_other(old.plan)
            for i, (now, before) in enumerate(
                zip(plan.prints, old.plan.prints, strict=True)
            ):
                if now != before:
                    remove(self.path(i))
                elif str(i) in old.done:
                    self._done[str(i)] = old.done[str(i)]
        self._write_manifest()
        look = remote.listing()
        self.missing = [
            i
            for i in range(len(plan.prints))
            if str(i) not in self._done or not storage.exists(self.path(i), look)
        ]

    @property
    def manifest_path(self) -> str:
        """The path of the manifest."""
        return f"{self._base}.manifest.json"

    @property
    def pattern(self) -> str:
        """A glob of the files, for messages."""
        return f"{self._base}.tfrecord-*-of-{len(self.plan.prints):05}"

    @property
    def num_written(self) -> int:
        """The number of notes in the complete shards."""
        return sum(shard["num_notes"] for shard in self._complete())

    @property
    def failures(self) -> list[str]:
        """What failed in the complete shards, including earlier runs."""
        # A file whose every note failed is listed once.
        shards = self._complete()
        messages = (message for shard in shards for message in shard["failed"])
        return list(dict.fromkeys(messages))

    def _complete(self) -> list[dict[str, Any]]:
        indices = sorted(map(int, self._done))
        return [self._done[str(i)] for i in indices if i not in self.missing]

    def path(self, index: int, count: int | None = None) -> str:
        """A shard's path, with `count` shards in all (None: as planned)."""
        count = len(self.plan.prints) if count is None else count
        return f"{self._base}.tfrecord-{index:05}-of-{count:05}"

    def write(
        self, results: Iterable[tuple[int, Note | NSynthError]], progress: Progress
    ) -> None:
        """Writes the missing shards, one after the other.

        Args:
          results: (shard, note or why there is none), of missing shards only, in
            ascending order of shards.
          progress: advances by one for each note.

        Raises:
          InputError: the disk refuses; complete shards stay.
        """
        for index, group in itertools.groupby(results, key=lambda pair: pair[0]):
            self._write_shard(index, (result for _, result in group), progress)
        for index in list(self.missing):  # none of their notes was found
            self._write_shard(index, (), progress)

    def _write_shard(
        self, index: int, results: Iterable[Note | NSynthError], progress: Progress
    ) -> None:
        path, num_notes = self.path(index), 0
        failed: list[str] = []
        with disk_errors(path), atomic_path(path) as temporary:
            with tf_errors(), tf.io.TFRecordWriter(temporary) as writer:
                for result in results:
                    if isinstance(result, NSynthError):
                        failed.append(str(result))
                    else:
                        writer.write(note_to_example(result))
                        num_notes += 1
                    progress.advance()
            # Before the shard gets its name: a kill in between must not lose failures.
            self._done[str(index)] = {"num_notes": num_notes, "failed": failed}
            self._write_manifest()
        self.missing.remove(index)

    def _existing(self) -> list[str]:
        return sorted(storage.glob(f"{glob.escape(self._base)}.tfrecord-*-of-*"))

    def _replaced(self, old: RecordPlan | None) -> list[str]:
        """The existing shards, all of an earlier run or with the names of this one's.

        Raises:
          InputError: a shard that is neither.
        """
        counts = {len(self.plan.prints), len(old.prints) if old else 0}
        own = {self.path(i, count) for count in counts for i in range(count)}
        existing = self._existing()
        for path in existing:
            if path not in own:
                raise InputError(
                    f"{path}: not made by the run that {self.manifest_path} describes; "
                    "move it away, or give another --save_path or --name."
                )
        return existing

    def _refuse_unexplained(self) -> None:
        """Raises InputError if there are shards, for use if there is no manifest."""
        if existing := self._existing():
            raise InputError(
                f"{existing[0]}: exists already, and {self.manifest_path}, which says "
                "how it was made, is missing or damaged; give another --save_path or "
                "--name, or --overwrite."
            )

    def _refuse_other(self, old: RecordPlan) -> None:
        """Raises InputError if the shards of an earlier run are of another plan."""
        new = self.plan
        keys = {*new.options, *old.options}
        changed = {k for k in keys if new.options.get(k) != old.options.get(k)}
        if len(old.prints) != len(new.prints):
            changed.add("num_shards")
        if changed:
            raise InputError(
                f"{self.manifest_path}: the files there were made from another source "
                f"or with other options ({', '.join(sorted(changed))}); give another "
                "--save_path or --name, or --overwrite."
            )

    def _write_manifest(self) -> None:
        path = self.manifest_path
        with disk_errors(path):
            write_json(path, dataclasses.asdict(self.plan) | {"done": self._done})


class Manifest(NamedTuple):
    """What an earlier run noted: its plan, and the shards it completed, by index."""

    plan: RecordPlan
    done: _Done


def read_manifest(path: str) -> Manifest | None:
    """The manifest at `path`; None if it is missing or can't be used."""
    found = read_json(path, _MANIFEST)
    if not found or not found["prints"]:
        return None
    plan = RecordPlan(found["options"], found["num_notes"], found["prints"])
    return Manifest(plan, found["done"])


@contextlib.contextmanager
def tf_errors() -> Iterator[None]:
    """Turns TensorFlow's file errors into the operating system's."""
    try:
        yield
    except tf.errors.OpError as error:
        full = "No space left" in error.message or "quota" in error.message
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number)) from error


@contextlib.contextmanager
def locked(folder: str, *leftovers: str) -> Iterator[None]:
    """Keeps other runs out of `folder`, and removes what a killed one left there.

    Args:
      folder: exists.
      *leftovers: globs below it of the half-written files that a kill may leave.

    Raises:
      InputError: another program is writing to the folder.
    """
    with only_writer(folder):
        for pattern in leftovers:
            paths = storage.glob(storage.join(glob.escape(folder), pattern))
            remove_unlocked(*paths)
        yield


def note_to_example(note: Note) -> bytes:
    """A note as a serialized tf.Example with all of NSynth's features."""
    ints = {
        "pitch": [note.pitch],
        "velocity": [note.velocity],
        "instrument_source": [note.instrument_source],
        "instrument_family": [note.instrument_family],
        "qualities": note.qualities,
        "note": [note.note],
        "instrument": [note.instrument],
        "sample_rate": [note.sample_rate],
    }
    strings = {
        "note_str": [note.note_str],
        "instrument_str": [note.instrument_str],
        "instrument_source_str": [note.source_str],
        "instrument_family_str": [note.family_str],
        "qualities_str": note.qualities_str,
    }
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        for name, values in ints.items()
    }
    for name, values in strings.items():
        encoded = [value.encode("utf-8", "surrogateescape") for value in values]
        features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
    features["audio"] = tf.train.Feature(float_list=float_list(note.audio))
    # Deterministic, so that the same notes give the same bytes.
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def float_list(values: np.ndarray) -> tf.train.FloatList:
    """The same as FloatList(value=values), but fifty times as fast.

    The constructor converts one Python float after the other, 13 ms for a note of 4 s.
    This parses the wire format: the field's tag, the length in bytes, the floats.
    """
    raw = np.asarray(values, "<f4").tobytes()
    head, length = b"\x0a", len(raw)
    while length > 127:
        head += bytes([length & 127 | 128])
        length >>= 7
    return tf.train.FloatList.FromString(head + bytes([length]) + raw)
