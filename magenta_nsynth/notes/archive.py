"""NSynth's JSON/WAV archives, read from beginning to end without unpacking them."""

import dataclasses
import os
import pathlib
import tarfile
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from magenta_nsynth.audio import read_audio
from magenta_nsynth.data.writing import (
    RecordPlan,
    RecordShards,
    fingerprint,
    read_manifest,
)
from magenta_nsynth.download.archives import read_members
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.mirror import folder_beside
from magenta_nsynth.notes.json_wav import LABELS_FILE, Entry, read_entries
from magenta_nsynth.notes.record_making import Target, count_shards, write_missing
from magenta_nsynth.notes.unread import file_stamp
from magenta_nsynth.parallel import in_order
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import Note

__all__ = ["ARCHIVE_EXTENSIONS", "make_from_archive"]

ARCHIVE_EXTENSIONS = (".tar", ".tar.gz", ".tgz")
_TYPICAL_SAMPLES = 64_000
# NSynth's own notes have 128 kB and last 4 s.
_LARGEST_WAV = 1 << 26  # bytes: three minutes in stereo at 96 kHz
_LONGEST_NOTE = 1 << 24  # samples at 16 kHz: 17 minutes
_SAMPLES_PER_BYTE = 16  # at most: 8 bits at 1 kHz, resampled to 16 kHz
_SAMPLES_AT_ONCE = 1 << 27  # 0.5 GB in memory
_ADVICE = "download it again; finished files are kept"


class _Task(NamedTuple):
    """A note to write, or a problem to report.

    Attributes:
      shard: the index of the shard that it belongs to.
      note: its labels; None if there are none.
      name: the archive's path and the member's name, for messages.
      content: the WAV file's bytes.
      problem: why the note cannot be written; "" if it can.
    """

    shard: int
    note: Note | None
    name: str
    content: bytes
    problem: str = ""


def make_from_archive(
    path: str, options: dict[str, Any], target: Target
) -> RecordShards:
    """Writes the notes of a .tar or .tar.gz archive, in the archive's order.

    The archive is read once if its examples.json comes first, else twice. All labels
    are in memory, but only a few notes.

    Args:
      path: the archive.
      options: everything else that the result depends on.
      target: where to write; the folder exists.

    Returns:
      The shards, all of them complete.

    Raises:
      InputError: not an NSynth archive, or a damaged one; other shards are in the
        way; or the disk refuses. Complete shards are kept.
    """
    stamp = file_stamp(path)
    if not target.overwrite and (done := _finished(stamp, options, target)):
        write_missing(done, iter(()))  # only logs that all exist already
        return done
    labels = _read_labels(path)
    num_shards = count_shards(target, len(labels), len(labels) * _TYPICAL_SAMPLES)
    options = {**options, "notes": fingerprint(sorted(labels))}
    plan = RecordPlan(options, len(labels), [stamp] * num_shards)
    shards = RecordShards(target.folder, target.name, plan, target.overwrite)
    results = in_order(
        lambda task: _load(task, target.folder),
        _tasks(path, labels, shards),
        target.num_threads,
        cost=lambda task: _SAMPLES_PER_BYTE * len(task.content),
        skip=lambda task: task.problem,
        most_samples=_SAMPLES_AT_ONCE,
    )
    write_missing(shards, _notes(results))
    return shards


def _finished(
    stamp: str, options: dict[str, Any], target: Target
) -> RecordShards | None:
    """The shards, if an earlier run made all of them from this very archive."""
    path = os.path.join(target.folder, f"{target.name}.manifest.json")
    old = read_manifest(path)
    if old is None or set(old.plan.prints) != {stamp}:
        return None
    if {**old.plan.options, **options} != old.plan.options:
        return None
    shards = RecordShards(target.folder, target.name, old.plan, overwrite=False)
    return None if shards.missing else shards


def _tasks(
    path: str, labels: dict[str, Entry], shards: RecordShards
) -> Iterator[_Task]:
    """The notes of the missing shards, in the archive's order.

    A note's position among those with an entry decides its shard. What has no WAV file
    is reported at the end, in the last shard.
    """
    if not shards.missing:
        return
    labels, position, shard, last = dict(labels), 0, 0, max(shards.missing)
    for member, content in _files(path):
        if not member.name.lower().endswith(".wav"):
            continue
        name = pathlib.PurePosixPath(member.name).stem
        where = f"{path}: {member.name}"
        if name not in labels:
            if shard in shards.missing:
                problem = f"{where}: no entry in {LABELS_FILE}, or two files of it."
                yield _Task(shard, None, where, b"", problem)
            continue
        note, problem = labels.pop(name)
        if member.size > _LARGEST_WAV:
            problem = f"{where}: {member.size} bytes are too many for a note."
        while position >= shards.plan.bounds(shard)[1]:
            shard += 1
        position += 1
        if shard > last:
            return
        if shard in shards.missing:
            wav = b"" if problem else b"".join(content)
            yield _Task(shard, note, where, wav, problem)
    for name, (_, problem) in labels.items():
        missing = f"{path}: no WAV file of {name}, which {LABELS_FILE} names."
        yield _Task(last, None, "", b"", problem or missing)


def _load(task: _Task, folder: str) -> np.ndarray:
    """Decodes a WAV file that is in memory: [t] float32 at 16 kHz."""
    # By way of a file, because `read_audio` handles all kinds of sounds and damage.
    handle, wav = tempfile.mkstemp(
        prefix=".writing-", suffix=".wav", dir=folder_beside(folder)
    )
    try:
        with open(handle, "wb") as file:
            file.write(task.content)
        audio = read_audio(wav, _LONGEST_NOTE)
        if len(audio) == _LONGEST_NOTE:
            raise AudioError(f"{task.name}: too long for a note; cut it into pieces.")
        return audio
    except AudioError as error:
        raise AudioError(str(error).replace(wav, task.name)) from None
    finally:
        os.unlink(wav)


def _notes(
    results: Iterator[tuple[_Task, np.ndarray | NSynthError]],
) -> Iterator[tuple[int, Note | NSynthError]]:
    for task, result in results:
        if isinstance(result, NSynthError):
            yield task.shard, result
        elif task.note is not None:
            yield task.shard, dataclasses.replace(task.note, audio=result)


def _read_labels(path: str) -> dict[str, Entry]:
    """The entries of the archive's examples.json, which may be anywhere in it."""
    with Progress(None, "files", f"looking for {LABELS_FILE}") as progress:
        for member, content in _files(path):
            if os.path.basename(member.name) == LABELS_FILE:
                return read_entries(content, f"{path}: {member.name}")
            progress.advance()
            if ".tfrecord" in member.name:
                break
    raise InputError(
        f"{path}: no {LABELS_FILE} in it, so it is not an NSynth JSON/WAV archive; "
        "unpack it and give the folder or the .tfrecord file."
    )


def _files(path: str) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """An archive's files and their contents, without hidden files."""
    for member, content in read_members(path, _ADVICE):
        if member.isreg() and not os.path.basename(member.name).startswith("."):
            yield member, content
