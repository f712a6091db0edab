"""What kind of data a path leads to."""

import os
import re
from collections.abc import Sequence
from typing import Literal

from magenta_nsynth.audio import AUDIO_EXTENSIONS
from magenta_nsynth.data.finding import find_records
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, is_hidden, matches_of
from magenta_nsynth.notes.archive import ARCHIVE_EXTENSIONS
from magenta_nsynth.notes.json_wav import LABELS_FILE

__all__ = ["Kind", "recognise"]

Kind = Literal["jsonwav", "archive", "audio", "tfrecord"]

_TFRECORD = re.compile(r"[^.].*\.tfrecords?(-\d+-of-\d+)?(\.gz)?", re.IGNORECASE)
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\.gz)?")


def recognise(
    paths: Sequence[str | os.PathLike], kind: Kind | None = None
) -> tuple[Kind, list[str]]:
    """Finds out what `paths` hold.

    Args:
      paths: what a user gave: files, folders or globs.
      kind: what they say it is; None to find out.

    Returns:
      The kind; and the paths: of an NSynth folder, of an archive, of all the TFRecord
      files, or as they came for one's own audio.

    Raises:
      InputError: nothing there, several data sets, or not clear.
    """
    paths = [expand(path) for path in paths if os.fspath(path)]
    if not paths:
        raise InputError(
            "Nothing to read: give --source_path, a folder of sounds, an NSynth folder "
            f"with {LABELS_FILE}, a .tar.gz archive, or TFRecords."
        )
    given, paths = (
        paths,
        [
            match
            for path in paths
            for match in matches_of(path, "give another --source_path")
        ],
    )
    paths = [
        os.path.dirname(path) or "."
        if os.path.basename(path) == LABELS_FILE and os.path.isfile(path)
        else path
        for path in paths
    ]
    kinds = {kind} if kind else {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise InputError(
            f"{', '.join(paths)}: of different kinds ({', '.join(sorted(kinds))}); "
            "give one kind at a time."
        )
    kind = kinds.pop()
    if kind in ("jsonwav", "archive") and len(paths) > 1:
        raise InputError(f"{', '.join(paths)}: give one data set at a time.")
    if kind != "tfrecord":
        return kind, given if kind == "audio" else paths
    found = find_records(paths)
    for path in filter(os.path.isdir, paths):
        _refuse_gaps(path, found)
    return kind, found


def _kind(path: str) -> Kind:
    if not os.path.isdir(path):
        if path.lower().endswith(ARCHIVE_EXTENSIONS):
            return "archive"
        return "tfrecord" if ".tfrecord" in path.lower() else "audio"
    if os.path.isfile(os.path.join(path, LABELS_FILE)):
        return "jsonwav"
    names = [name for name in os.listdir(path) if not is_hidden(name)]
    records = [name for name in names if _TFRECORD.fullmatch(name)]
    others = [
        name
        for name in names
        if name.lower().endswith(AUDIO_EXTENSIONS)
        or os.path.isdir(os.path.join(path, name))
    ]
    if records and others:
        raise InputError(
            f"{path}: holds TFRecords ({records[0]}) and other things ({others[0]}); "
            "say --read_as=tfrecord or --read_as=audio."
        )
    below = [n for n in others if os.path.isfile(os.path.join(path, n, LABELS_FILE))]
    if below:
        raise InputError(
            f"{path}: the NSynth data is one folder down; give "
            f"--source_path={os.path.join(path, below[0])}, or say --read_as=audio."
        )
    return "tfrecord" if records else "audio"


def _refuse_gaps(folder: str, paths: Sequence[str]) -> None:
    """Raises InputError if one of several shards is not there."""
    names = {os.path.basename(p) for p in paths if os.path.dirname(p) == folder}
    for match in filter(None, map(_SHARD.fullmatch, sorted(names))):
        for i in range(int(match[3])):
            number = f"{i:0{len(match[2])}}"
            wanted = f"{match[1]}-{number}-of-{match[3]}{match[4] or ''}"
            if wanted not in names:
                raise InputError(
                    f"{os.path.join(folder, wanted)}: missing, though others of its "
                    "set are there; make it, or name the files to take."
                )
