"""NSynth's JSON/WAV archives, read from beginning to end and not unpacked."""

import contextlib
import dataclasses
import gzip
import os
import pathlib
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from magenta_nsynth.audio import load_audio
from magenta_nsynth.data.items import in_order, stat_print
from magenta_nsynth.data.json_wav import LABELS_FILE, entry_to_note, parse_labels
from magenta_nsynth.data.making import Target, count_shards, write_missing
from magenta_nsynth.data.schema import Note
from magenta_nsynth.data.writing import Plan, Shards, fingerprint, read_manifest
from magenta_nsynth.disk import CHUNK
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.progress import Progress

__all__ = ["ARCHIVE_EXTENSIONS", "make_from_archive"]

ARCHIVE_EXTENSIONS = (".tar", ".tar.gz", ".tgz")
_TYPICAL_SAMPLES = 64_000


class _Task(NamedTuple):
    shard: int
    note: Note | None
    name: str  # the member's
    content: bytes
    problem: str = ""


def make_from_archive(path: str, options: dict[str, Any], target: Target) -> Shards:
    """Writes the notes of a .tar or .tar.gz archive, in the archive's order.

    The archive is read once if its examples.json comes first, twice if not. Of its
    notes only a few are in memory, of its labels all.

    Args:
      path: the archive.
      options: what else decides the result.
      target: where to; the folder exists.

    Returns:
      The shards, all of them there.

    Raises:
      InputError: no NSynth archive, or a damaged one; other shards are in the way; or
        the disk refuses. Shards that are whole stay.
    """
    changes = stat_print(path)
    if not target.overwrite and (done := _complete(changes, options, target)):
        return done
    entries = _read_labels(path)
    num_shards = count_shards(target, len(entries), len(entries) * _TYPICAL_SAMPLES)
    options = {**options, "notes": fingerprint(sorted(entries))}
    plan = Plan(options, len(entries), [changes] * num_shards)
    shards = Shards(target.folder, target.name, plan, target.overwrite)
    results = in_order(
        lambda task: _load(task, target.folder),
        _tasks(path, entries, shards),
        target.num_threads,
        skip=lambda task: task.problem,
    )
    write_missing(shards, _notes(results))
    return shards


def _complete(changes: str, options: dict[str, Any], target: Target) -> Shards | None:
    """The shards, if an earlier run made all of them of this very archive."""
    path = os.path.join(target.folder, f"{target.name}.manifest.json")
    old = read_manifest(path)
    if old is None or {**old["options"], **options} != old["options"]:
        return None
    if any(print_ != changes for print_ in old["prints"]):
        return None
    plan = Plan(old["options"], old["num_notes"], old["prints"])
    shards = Shards(target.folder, target.name, plan, overwrite=False)
    if shards.missing:
        return None
    write_missing(shards, iter(()))  # says that all is there
    return shards


def _tasks(path: str, entries: dict[str, Any], shards: Shards) -> Iterator[_Task]:
    """The archive's notes that belong into missing shards, in its order."""
    if not shards.missing:
        return
    entries, position, shard, last = dict(entries), 0, 0, max(shards.missing)
    for member, content in _members(path, ".wav"):
        if content is None:
            continue
        name = pathlib.PurePosixPath(member).stem
        where = f"{path}: {member}"
        if name not in entries:
            if shard in shards.missing:
                problem = f"{where}: no entry in {LABELS_FILE}, or there twice."
                yield _Task(shard, None, where, b"", problem)
            continue
        note, problem = entry_to_note(name, entries.pop(name), path)
        while position >= shards.plan.bounds(shard)[1]:
            shard += 1
        position += 1
        if shard > last:
            return
        if shard in shards.missing:
            yield _Task(shard, note, where, content, problem)
    for name in entries:
        problem = f"{path}: no WAV file of {name}, though {LABELS_FILE} names it."
        yield _Task(last, None, "", b"", problem)


def _load(task: _Task, folder: str) -> np.ndarray:
    """The samples of a WAV file that is in memory."""
    # Through a file, since that is how sounds of all kinds and all damage are read.
    handle, wav = tempfile.mkstemp(prefix=".writing-", suffix=".wav", dir=folder)
    try:
        with open(handle, "wb") as file:
            file.write(task.content)
        return load_audio(wav)
    except AudioError as error:
        raise AudioError(str(error).replace(wav, task.name)) from None
    finally:
        os.unlink(wav)


def _notes(
    results: Iterator[tuple[_Task, np.ndarray | NSynthError]],
) -> Iterator[tuple[int, Note | NSynthError]]:
    for task, audio in results:
        if isinstance(audio, NSynthError):
            yield task.shard, audio
        else:
            yield task.shard, dataclasses.replace(task.note, audio=audio)


def _read_labels(path: str) -> dict[str, Any]:
    """The entries of the archive's examples.json, wherever in it that lies."""
    with Progress(None, "files", f"looking for {LABELS_FILE}") as progress:
        for member, content in _members(path, LABELS_FILE):
            if os.path.basename(member) == LABELS_FILE:
                return parse_labels(content, f"{path}: {member}")
            progress.advance()
            if ".tfrecord" in member:
                break
    raise InputError(
        f"{path}: no {LABELS_FILE} in it, so it is no NSynth JSON/WAV archive; unpack "
        "it and give the folder or the .tfrecord file."
    )


def _members(path: str, ending: str) -> Iterator[tuple[str, bytes | None]]:
    """The names of an archive's files, and the content of those that end so."""
    try:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(open(path, "rb"))
            if stream.read(2) == b"\x1f\x8b":
                stream.seek(0)
                # Not tarfile's own way: that doesn't look at the checksum.
                stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
            else:
                stream.seek(0)
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))
            for member in tar:
                hidden = os.path.basename(member.name).startswith(".")
                if member.isreg() and not hidden:
                    wanted = member.name.lower().endswith(ending)
                    content = tar.extractfile(member).read() if wanted else None
                    yield member.name, content
                tar.members = []  # it would keep all of them
            while stream.read(CHUNK):  # to the checksum
                pass
    except (EOFError, tarfile.TarError, zlib.error, OSError) as error:
        raise InputError(
            f"{path}: damaged or cut off, or no .tar or .tar.gz archive ({error}); "
            "download it again. What is finished is kept."
        ) from None
