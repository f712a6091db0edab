"""From what a user names to a `ClipSource`."""

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from magenta_nsynth.audio import AUDIO_EXTENSIONS
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, find_sources, matches_of
from magenta_nsynth.notes.clips import ClipSource, JsonWavClips, SoundClips, read_list
from magenta_nsynth.notes.naming import NameRules, refuse_rules
from magenta_nsynth.notes.record_clips import RecordClips
from magenta_nsynth.notes.sources import recognise
from magenta_nsynth.notes.tfds_clips import PREFIX, TFDSClips

__all__ = ["ReadAs", "open_clips"]

# As `embeddings.manifest.Shards.names` has them, which this room can't ask.
_SHARDS = "embeddings-*-of-*.tfrecord"
ReadAs = Literal["audio", "list", "jsonwav", "tfrecord"]


def open_clips(
    paths: Sequence[str | os.PathLike],
    min_samples: int,
    read_as: ReadAs | None = None,
    recursive: bool = False,
    skip_corrupt: bool = False,
    left_out: str | os.PathLike | None = None,
    rules: NameRules | None = None,
) -> ClipSource:
    """Opens a data set of sounds or notes.

    Args:
      paths: sound files, folders or globs of them; a text file (.txt) that lists
        sounds; an NSynth JSON/WAV folder; TFRecord files, folders or globs; or
        "tfds:nsynth/full@test". One kind at a time.
      min_samples: a note with fewer can't be used.
      read_as: which kind it is; None finds out.
      recursive: descends into folders of sounds.
      skip_corrupt: goes on with what can be reached of damaged files.
      left_out: the folder that is written to: none of its sounds is read, nor are
        shards of an export in it.
      rules: how pitches are read from the names of sounds; None is by default.

    Raises:
      InputError: nothing there, not clear, or an option of another kind.
    """
    named = [os.fspath(path) for path in paths if os.fspath(path)]
    kind: str
    written_to = os.path.realpath(expand(left_out)) if left_out else ""
    if written_to and read_as != "audio":
        for path in named:
            if os.path.realpath(expand(path)) == written_to and glob.glob(
                os.path.join(glob.escape(written_to), "*.tfrecord*")
            ):
                raise InputError(
                    f"{path}: is the folder that is written to as well; give another "
                    "--save_path, or its files by a quoted glob."
                )
    if any(path.startswith(PREFIX) for path in named):
        kind = "tfds"
    elif read_as == "list" or (
        read_as is None and any(path.lower().endswith(".txt") for path in named)
    ):
        kind = "list"
        named = [
            match
            for path in named
            for match in matches_of(
                expand(path), "give a text file of sounds, a line each"
            )
        ]
    else:
        kind, named = recognise(named, read_as)
    if recursive and kind != "audio":
        raise InputError(
            "--recursive is for folders of sounds; leave it out, or say "
            "--read_as=audio. TFRecords are found by a quoted glob, such as "
            "'data/**/*.tfrecord*'."
        )
    if kind not in ("audio", "list"):
        refuse_rules(rules, named[0])
    if kind == "audio":
        folders = [left_out] if left_out else []
        found = find_sources(named, AUDIO_EXTENSIONS, recursive, folders)
        return SoundClips(found, rules)
    if kind == "tfrecord":
        if written_to:
            own = os.path.join(glob.escape(written_to), _SHARDS)
            named = [p for p in named if not fnmatchcase(os.path.realpath(p), own)]
        return RecordClips(named, min_samples, skip_corrupt)
    if kind == "archive":
        raise InputError(
            f"{named[0]}: unpack the archive, or make TFRecords of it with "
            "nsynth_make_tfrecord."
        )
    if len(named) > 1:
        raise InputError(f"{', '.join(named)}: give one data set or list at a time.")
    if kind == "list":
        return SoundClips(read_list(named[0]), rules)
    return TFDSClips(named[0]) if kind == "tfds" else JsonWavClips(*named, skip_corrupt)
