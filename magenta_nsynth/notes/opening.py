"""Opening the paths that a user names: tells which kind they are and makes clips."""

import glob
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from magenta_nsynth.audio import AUDIO_EXTENSIONS
from magenta_nsynth.data.records import find_records
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import (
    ARRAY_EXTENSIONS,
    Source,
    expand,
    find_sources,
    is_hidden,
    matches_of,
)
from magenta_nsynth.notes.archive import ARCHIVE_EXTENSIONS
from magenta_nsynth.notes.clips import Clips, JsonWavClips, SoundClips, read_list
from magenta_nsynth.notes.dataset_clips import PREFIX, RecordClips, TFDSClips
from magenta_nsynth.notes.inputs import Inputs, Kind
from magenta_nsynth.notes.json_wav import LABELS_FILE
from magenta_nsynth.notes.naming import NameRules, refuse_rules
from magenta_nsynth.stores import storage

__all__ = ["find_sounds_or_npy", "open_clips", "recognise"]

# As in `embeddings.manifest.Shards.names`, which this room can't import.
_SHARDS = "embeddings-*-of-*.tfrecord"
_TFRECORD = re.compile(r"[^.].*\.tfrecords?(-\d+-of-\d+)?(\.gz)?", re.IGNORECASE)
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\.gz)?")


def open_clips(
    inputs: Inputs,
    min_samples: int = 1,
    rules: NameRules | None = None,
    left_out: str | os.PathLike[str] | None = None,
) -> Clips:
    """Opens sounds or notes of any kind.

    Args:
      inputs: sound files, folders or globs of them; a text file (.txt) that lists
        sounds; an NSynth JSON/WAV folder; TFRecord files, folders or globs; or
        "tfds:nsynth/full@test". One kind at a time.
      min_samples: a note in a TFRecord with fewer samples can't be used.
      rules: how pitches are read from the names of sounds; None is the default.
      left_out: the output folder. Its sounds, and an export's shards in it, are not
        read.

    Raises:
      InputError: nothing to read, several kinds, or an option for another kind.
    """
    written_to = storage.realpath(expand(left_out)) if left_out else ""
    if written_to and inputs.read_as != "audio":
        _refuse_records_in(written_to, inputs)
    kind, paths = recognise(inputs)
    if inputs.recursive and kind != "audio":
        raise InputError(
            "--recursive is for folders of sounds; leave it out, or give "
            "--read_as=audio. To find TFRecords, quote a glob such as "
            "'data/**/*.tfrecord*'."
        )
    if kind not in ("audio", "list"):
        refuse_rules(rules, paths[0])
    if kind == "audio":
        folders = [left_out] if left_out else []
        found = find_sources(paths, AUDIO_EXTENSIONS, inputs.recursive, folders)
        return SoundClips(found, rules)
    if kind == "tfrecord":
        if written_to:
            own = storage.join(glob.escape(written_to), _SHARDS)
            paths = [p for p in paths if not fnmatchcase(storage.realpath(p), own)]
        return RecordClips(paths, min_samples, inputs.skip_corrupt)
    if kind == "archive":
        raise InputError(
            f"{paths[0]}: unpack the archive, or make TFRecords from it with "
            "nsynth_make_tfrecord."
        )
    if len(paths) > 1:
        raise InputError(f"{', '.join(paths)}: give one data set or list at a time.")
    if kind == "list":
        return SoundClips(read_list(paths[0]), rules)
    if kind == "tfds":
        return TFDSClips(paths[0])
    return JsonWavClips(paths[0], inputs.skip_corrupt)


def _refuse_records_in(folder: str, inputs: Inputs) -> None:
    """Raises InputError if the output folder is also read for its TFRecords."""
    for path in inputs.source_path:
        is_it = os.fspath(path) and storage.realpath(expand(path)) == folder
        if is_it and storage.glob(storage.join(glob.escape(folder), "*.tfrecord*")):
            raise InputError(
                f"{path}: is also the folder to write to; give another --save_path, or "
                "name its files with a quoted glob."
            )


def find_sounds_or_npy(
    inputs: Inputs, left_out: Sequence[str | os.PathLike[str]]
) -> list[Source]:
    """For each path, its sounds, else its .npy files; with `npy_only`, only .npy files.

    Args:
      inputs: files, folders or globs of sounds or .npy files.
      left_out: folders not to descend into, such as the output folder.

    Raises:
      InputError: nothing to read.
    """
    paths, recursive = inputs.source_path, inputs.recursive
    if inputs.npy_only:
        return find_sources(paths, ARRAY_EXTENSIONS, recursive)
    return find_sources(paths, AUDIO_EXTENSIONS, recursive, left_out, ARRAY_EXTENSIONS)


def recognise(inputs: Inputs, deep: bool = False) -> tuple[Kind, list[str]]:
    """Tells which kind of input the paths are.

    Args:
      inputs: the paths, and perhaps their kind.
      deep: the caller reads sounds in subfolders too, so that these count as content.

    Returns:
      The kind; and the paths: all files for TFRecords, unchanged for sounds, else the
      one folder, archive, list or TensorFlow Datasets name.

    Raises:
      InputError: nothing to read, several kinds or datasets, or an unclear kind.
    """
    given = [os.fspath(path) for path in inputs.source_path if os.fspath(path)]
    if not given:
        raise InputError(
            "Nothing to read: give --source_path, a folder of sounds, an NSynth folder "
            f"with {LABELS_FILE}, a .tar.gz archive, or TFRecords."
        )
    if any(path.startswith(PREFIX) for path in given):
        return "tfds", given
    given = [expand(path) for path in given]
    paths = [
        os.path.dirname(path) or "."
        if os.path.basename(path) == LABELS_FILE and storage.isfile(path)
        else path
        for named in given
        for path in matches_of(named, "give another --source_path")
    ]
    kinds = (
        {inputs.read_as}
        if inputs.read_as
        else {_kind(path, inputs.recursive, deep) for path in paths}
    )
    if len(kinds) > 1:
        raise InputError(
            f"{', '.join(paths)}: different kinds of input "
            f"({', '.join(sorted(kinds))}); give one kind at a time."
        )
    kind = kinds.pop()
    if kind in ("jsonwav", "archive") and len(paths) > 1:
        raise InputError(f"{', '.join(paths)}: give one data set at a time.")
    if kind != "tfrecord":
        return kind, given if kind == "audio" else paths
    found = find_records(paths)
    for path in filter(storage.isdir, paths):
        _refuse_gaps(path, found)
    return kind, found


def _kind(path: str, recursive: bool, deep: bool) -> Kind:
    if not storage.isdir(path):
        return _kind_of_file(os.path.basename(path).lower())
    try:
        names = [name for name in storage.listdir(path) if not is_hidden(name)]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}.") from None
    records = [name for name in names if _TFRECORD.fullmatch(name)]
    sounds = [name for name in names if name.lower().endswith(AUDIO_EXTENSIONS)]
    folders = [os.path.basename(folder) for folder in storage.subfolders(path)]
    folders = [name for name in folders if not is_hidden(name)]
    if LABELS_FILE in names and not recursive and not sounds:
        return "jsonwav"
    others = [*sounds, *(folders if deep else [])]
    if records and others:
        raise InputError(
            f"{path}: holds TFRecords ({records[0]}) and other things "
            f"({others[0]}); name the files with a quoted glob, or give "
            "--read_as=tfrecord or --read_as=audio."
        )
    below = [n for n in folders if storage.isfile(storage.join(path, n, LABELS_FILE))]
    if below and not recursive and not sounds and not records:
        raise InputError(
            f"{path}: the NSynth data is one folder down; give "
            f"--source_path={storage.join(path, below[0])}, or --read_as=audio."
        )
    return "tfrecord" if records else "audio"


def _kind_of_file(name: str) -> Kind:
    if name.endswith(ARCHIVE_EXTENSIONS):
        return "archive"
    if name.endswith(".txt"):
        return "list"
    is_record = ".tfrecord" in name and not name.endswith(
        (*AUDIO_EXTENSIONS, *ARRAY_EXTENSIONS)
    )
    return "tfrecord" if is_record else "audio"


def _refuse_gaps(folder: str, paths: Sequence[str]) -> None:
    """Raises InputError if one shard of a set is missing."""
    names = {os.path.basename(p) for p in paths if os.path.dirname(p) == folder}
    for match in filter(None, map(_SHARD.fullmatch, sorted(names))):
        for i in range(int(match[3])):
            number = f"{i:0{len(match[2])}}"
            wanted = f"{match[1]}-{number}-of-{match[3]}{match[4] or ''}"
            if wanted not in names:
                raise InputError(
                    f"{storage.join(folder, wanted)}: missing, though other shards of "
                    "its set exist; make it, or name the files to use."
                )
