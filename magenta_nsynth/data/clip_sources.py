"""From what a user names to a `ClipSource`."""

import os
from collections.abc import Sequence
from typing import Literal

from magenta_nsynth.audio import AUDIO_EXTENSIONS
from magenta_nsynth.data.clips import ClipSource, JsonWavClips, SoundClips, read_list
from magenta_nsynth.data.record_clips import RecordClips
from magenta_nsynth.data.sources import recognise
from magenta_nsynth.data.tfds_clips import PREFIX, TFDSClips
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import find_sources

__all__ = ["ReadAs", "open_clips"]

ReadAs = Literal["audio", "list", "jsonwav", "tfrecord"]


def open_clips(
    paths: Sequence[str | os.PathLike],
    min_samples: int,
    read_as: ReadAs | None = None,
    recursive: bool = False,
    skip_corrupt: bool = False,
    left_out: str | os.PathLike | None = None,
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
      left_out: a folder that is not descended into.

    Raises:
      InputError: nothing there, not clear, or an option of another kind.
    """
    named = [os.fspath(path) for path in paths if os.fspath(path)]
    kind: str
    if any(path.startswith(PREFIX) for path in named):
        kind = "tfds"
    elif read_as == "list" or any(path.lower().endswith(".txt") for path in named):
        kind = "list"
    else:
        kind, named = recognise(named, read_as)
    if recursive and kind != "audio":
        raise InputError(
            "--recursive is for folders of sounds; leave it out, or say "
            "--read_as=audio. TFRecords are found by a quoted glob, such as "
            "'data/**/*.tfrecord*'."
        )
    if kind == "audio":
        pruned = [left_out] if left_out else []
        return SoundClips(find_sources(named, AUDIO_EXTENSIONS, recursive, pruned))
    if kind == "tfrecord":
        return RecordClips(named, min_samples, skip_corrupt)
    if kind == "archive":
        raise InputError(
            f"{named[0]}: unpack the archive, or make TFRecords of it with "
            "nsynth_make_tfrecord."
        )
    if len(named) > 1:
        raise InputError(f"{', '.join(named)}: give one data set or list at a time.")
    if kind == "list":
        return SoundClips(read_list(named[0]))
    return TFDSClips(named[0]) if kind == "tfds" else JsonWavClips(*named, skip_corrupt)
