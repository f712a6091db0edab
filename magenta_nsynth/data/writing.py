"""Sharded TFRecord files, each whole or not there, and how they were made."""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.disk import disk_errors, only_writer, remove, remove_unlocked
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import atomic_path, read_json, write_json
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import Note

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


@dataclasses.dataclass(frozen=True)
class RecordPlan:
    """What a set of shards is made of and how, as far as it can be told beforehand.

    Attributes:
      options: what must be the same for a run to go on where another was broken off.
      num_notes: in all, those that will fail included.
      prints: a fingerprint of each shard's sources; where it changes, the shard is
        made again.
    """

    options: dict[str, Any]
    num_notes: int
    prints: list[str]

    def bounds(self, index: int) -> tuple[int, int]:
        """The first of a shard's notes, and the first that is no longer in it."""
        first, end = (
            i * self.num_notes // len(self.prints) for i in (index, index + 1)
        )
        return first, end


def fingerprint(parts: Iterable[object]) -> str:
    """A short name for a sequence of things that have a `repr`: 16 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part!r}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


class RecordShards:
    """The files `<folder>/<name>.tfrecord-<i>-of-<n>`, and those still missing.

    Beside them lies `<name>.manifest.json` with the plan and with what failed, so that
    another run can tell whether it continues this one.
    """

    def __init__(
        self, folder: str, name: str, plan: RecordPlan, overwrite: bool
    ) -> None:
        """Finds out what is there; removes what is not to stay.

        Args:
          folder: exists already.
          name: what the files' names start with.
          plan: what is to be made.
          overwrite: begins again, whatever is there under that name.

        Raises:
          InputError: what is there was made otherwise or from something else.
        """
        self.plan = plan
        self._base = os.path.join(folder, name)
        # By shard: {"num_notes": those in it, "failed": the errors of the others}.
        self._done: dict[str, dict[str, Any]] = {}
        old = read_manifest(self.manifest_path)
        if overwrite or not self._continues(old):
            own = self._own(old)
            # The manifest first: without it, shards are nobody's and not trusted.
            remove(self.manifest_path, *own)
        else:
            for i, print_ in enumerate(plan.prints):
                if old["prints"][i] != print_:
                    remove(self.path(i))
                elif str(i) in old["done"]:
                    self._done[str(i)] = old["done"][str(i)]
        self._write_manifest()
        self.missing = [
            i
            for i in range(len(plan.prints))
            if str(i) not in self._done or not os.path.exists(self.path(i))
        ]

    @property
    def manifest_path(self) -> str:
        """Where the note of the shards' making lies."""
        return f"{self._base}.manifest.json"

    @property
    def pattern(self) -> str:
        """A glob of the files, to be told to people."""
        return f"{self._base}.tfrecord-*-of-{len(self.plan.prints):05}"

    @property
    def num_written(self) -> int:
        """The notes in the shards that are there."""
        return sum(shard["num_notes"] for shard in self._whole())

    @property
    def failures(self) -> list[str]:
        """What failed in the shards that are there, in earlier runs too."""
        # Once for a file whose every note failed.
        messages = (message for shard in self._whole() for message in shard["failed"])
        return list(dict.fromkeys(messages))

    def _whole(self) -> list[dict[str, Any]]:
        indices = sorted(map(int, self._done))
        return [self._done[str(i)] for i in indices if i not in self.missing]

    def path(self, index: int, count: int | None = None) -> str:
        """Where a shard belongs, of `count` or as many as are planned."""
        count = len(self.plan.prints) if count is None else count
        return f"{self._base}.tfrecord-{index:05}-of-{count:05}"

    def write(
        self, results: Iterable[tuple[int, Note | NSynthError]], progress: Progress
    ) -> None:
        """Writes the missing shards, one after the other.

        Args:
          results: (shard, note or why there is none), by shard in rising order; only
            those of missing shards.
          progress: is advanced by the notes.

        Raises:
          InputError: the disk refuses; shards that are whole stay.
        """
        for index, group in itertools.groupby(results, key=lambda pair: pair[0]):
            self._write_shard(index, (result for _, result in group), progress)
        for index in list(self.missing):  # no note of theirs could be found
            self._write_shard(index, (), progress)

    def _write_shard(
        self, index: int, results: Iterable[Note | NSynthError], progress: Progress
    ) -> None:
        path, num_notes, failed = self.path(index), 0, []
        with disk_errors(path), atomic_path(path) as temporary:
            with tf_errors(), tf.io.TFRecordWriter(temporary) as writer:
                for result in results:
                    if isinstance(result, NSynthError):
                        failed.append(str(result))
                    else:
                        writer.write(note_to_example(result))
                        num_notes += 1
                    progress.advance()
            # Before the shard is there, or a kill in between would forget what failed.
            self._done[str(index)] = {"num_notes": num_notes, "failed": failed}
            self._write_manifest()
        self.missing.remove(index)

    def _existing(self) -> list[str]:
        return sorted(glob.glob(f"{glob.escape(self._base)}.tfrecord-*-of-*"))

    def _own(self, old: dict[str, Any] | None) -> list[str]:
        """What is to be replaced: shards of an earlier run, or of the same names."""
        counts = {len(self.plan.prints), len(old["prints"]) if old else 0}
        own = {self.path(i, count) for count in counts for i in range(count)}
        existing = self._existing()
        for path in existing:
            if path not in own:
                raise InputError(
                    f"{path}: no earlier run noted in {self.manifest_path} made it; "
                    "move it away, or give another --save_path or --name."
                )
        return existing

    def _continues(self, old: dict[str, Any] | None) -> bool:
        """Whether what is there is of this plan; False where nothing is there."""
        if old is None:
            if existing := self._existing():
                raise InputError(
                    f"{existing[0]}: is there already, and {self.manifest_path}, which "
                    "says how it was made, is missing or damaged; give another "
                    "--save_path or --name, or --overwrite."
                )
            return False
        new = self._manifest()
        keys = {*new["options"], *old["options"]}
        changed = [k for k in keys if new["options"].get(k) != old["options"].get(k)]
        if len(old["prints"]) != len(new["prints"]):
            changed.append("num_shards")
        if changed:
            raise InputError(
                f"{self.manifest_path}: the files there were made from another source "
                f"or with other options ({', '.join(sorted(changed))}); give another "
                "--save_path or --name, or --overwrite."
            )
        return True

    def _manifest(self) -> dict[str, Any]:
        return dataclasses.asdict(self.plan) | {"done": self._done}

    def _write_manifest(self) -> None:
        path = self.manifest_path
        with disk_errors(path):
            write_json(path, self._manifest())


def read_manifest(path: str) -> dict[str, Any] | None:
    """The manifest at `path`; None if there is none, or none that can be read."""
    manifest = read_json(path, _MANIFEST)
    return manifest if manifest and manifest["prints"] else None


@contextlib.contextmanager
def tf_errors() -> Iterator[None]:
    """TensorFlow's file errors as the operating system's."""
    try:
        yield
    except tf.errors.OpError as error:
        full = "No space left" in error.message or "quota" in error.message
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number)) from error


@contextlib.contextmanager
def locked(folder: str, *leftovers: str) -> Iterator[None]:
    """Keeps other runs out of `folder`, and clears up after one that was killed.

    Args:
      folder: exists.
      *leftovers: globs, below it, of the half-written files that a kill may leave.

    Raises:
      InputError: another program is at work in there.
    """
    with only_writer(folder):
        for pattern in leftovers:
            paths = glob.glob(os.path.join(glob.escape(folder), pattern))
            remove_unlocked(*paths)
        yield


def note_to_example(note: Note) -> bytes:
    """A serialized tf.Example with NSynth's full schema, both groups of features."""
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
    # Deterministic, so that the same notes make the same file to the byte.
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def float_list(values: np.ndarray) -> tf.train.FloatList:
    """The same as FloatList(value=values), fifty times as fast.

    That takes 13 ms for a note of 4 s, one Python float after the other. This is the
    message's form on the wire: the field's tag, the length in bytes, the floats.
    """
    raw = np.asarray(values, "<f4").tobytes()
    head, length = b"\x0a", len(raw)
    while length > 127:
        head += bytes([length & 127 | 128])
        length >>= 7
    return tf.train.FloatList.FromString(head + bytes([length]) + raw)
