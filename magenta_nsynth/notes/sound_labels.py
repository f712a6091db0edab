"""Labels of sound files, from their names, folders and unity notes."""

import collections
import os
import pathlib
from collections.abc import Iterable, Sequence

from absl import logging

from magenta_nsynth.audio.unity_note import unity_note
from magenta_nsynth.files import Source
from magenta_nsynth.notes.naming import (
    MIDDLE_C,
    NOT_KNOWN,
    NOTE_NAME,
    Labels,
    NameRules,
    labels_from_names,
)
from magenta_nsynth.schema import UNKNOWN
from magenta_nsynth.stores import storage

__all__ = ["SoundLabels", "log_pitches", "pitch_example", "summary", "warn_of_octaves"]

_UNITY_NOTE = "unity note of its smpl or INST chunk"
_NOT_BELIEVED = f"{NOT_KNOWN}: all unity notes are 60, a common default"
_DEFAULT_NOTE = 60


class SoundLabels:
    """The labels of sound files.

    Names are read folder by folder: the others show which part of a name is the pitch.
    """

    def __init__(
        self, sources: Iterable[Source], rules: NameRules | None = None
    ) -> None:
        """Stores the files; a folder's files are read when first asked for.

        Args:
          sources: all of the sounds.
          rules: how pitches are read from names; None is the default.
        """
        self._rules = rules or NameRules()
        self._folders: dict[str, dict[str, Source]] = {}
        for source in sources:
            folder = self._folders.setdefault(os.path.dirname(source.path), {})
            folder[source.path] = source
        self._labels: dict[str, Labels] = {}

    def of(self, source: Source) -> Labels:
        """The labels of one of the files."""
        if source.path not in self._labels:
            folder = list(self._folders.pop(os.path.dirname(source.path)).values())
            places = [(_folders_of(source), source.stem) for source in folder]
            labels = labels_from_names(places, self._rules)
            paths = [source.path for source in folder]
            self._labels.update(zip(paths, self._completed(paths, labels), strict=True))
        return self._labels[source.path]

    def _completed(
        self, paths: Sequence[str], labels: Sequence[Labels]
    ) -> Iterable[Labels]:
        """The labels, with unity notes for files whose names have no pitch.

        0 is ignored. So is 60, which many programs write into every file, if several
        files of the folder have it and none has another.
        """
        notes = {
            path: unity_note(path)
            for path, known in zip(paths, labels, strict=True)
            if known.pitch_from == NOT_KNOWN
        }
        positive = [note for note in notes.values() if note > 0]
        is_default = len(positive) > 1 and set(positive) == {_DEFAULT_NOTE}
        for path, known in zip(paths, labels, strict=True):
            note = notes.get(path, UNKNOWN)
            if note <= 0:
                yield known
            elif is_default:
                yield known._replace(pitch_from=_NOT_BELIEVED)
            else:
                fields = {**known.fields, "pitch": note}
                yield known._replace(fields=fields, pitch_from=_UNITY_NOTE)


def _folders_of(source: Source) -> tuple[str, ...]:
    """A file's folders below the one that the user gave, else its own folder."""
    parent = pathlib.Path(storage.abspath(source.path)).parent.name
    below = "" if storage.is_remote(source.subfolder) else source.subfolder
    return pathlib.PurePath(below).parts or (parent or "notes",)


def summary(origins: Iterable[str], examples: Iterable[str]) -> str:
    """Counts where labels come from, such as "12 by note name (a_C4.wav: 60)".

    Args:
      origins: where each note's label comes from.
      examples: each note's file and label; the first of each origin is shown.
    """
    first: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for origin, example in zip(origins, examples, strict=True):
        counts[origin] += 1
        first.setdefault(origin, example)
    return "; ".join(
        f"{count} {'' if origin.startswith(NOT_KNOWN) else 'by '}{origin} "
        f"({first[origin]})"
        for origin, count in sorted(
            counts.items(), key=lambda pair: (pair[0].startswith(NOT_KNOWN), -pair[1])
        )
    )


def log_pitches(sources: Sequence[Source], labels: SoundLabels) -> None:
    """Logs where the pitches of sounds come from."""
    every = [labels.of(source) for source in sources]
    if every:
        said = summary(
            (known.pitch_from for known in every),
            map(pitch_example, (source.path for source in sources), every),
        )
        logging.info("The pitches of %d sounds: %s.", len(every), said)


def pitch_example(path: str, labels: Labels) -> str:
    """A file's name and its pitch, if that is known."""
    pitch = labels.fields.get("pitch", UNKNOWN)
    return f"{os.path.basename(path)}{'' if pitch == UNKNOWN else f': {pitch}'}"


def warn_of_octaves(labels: Sequence[tuple[str, Labels]], rules: NameRules) -> None:
    """Warns if the unity notes show that names use another middle C.

    Args:
      labels: paths and labels of sounds.
      rules: how their names were read.
    """
    named = [pair for pair in labels if pair[1].pitch_from == NOTE_NAME]
    notes = [(unity_note(path), known.fields["pitch"]) for path, known in named]
    notes = [pair for pair in notes if pair[0] > 0]
    differences = {note - pitch for note, pitch in notes}
    if len({note for note, _ in notes}) < 2 or len(differences) > 1:
        return
    semitones = differences.pop()
    better = f"C{int(rules.middle_c[1:]) - semitones / 12:g}"
    if better in MIDDLE_C and better != rules.middle_c:
        logging.warning(
            "The unity notes of %d files are %d semitones above the notes in their "
            "names, e.g. %s; with --middle_c=%s they agree.",
            *(len(notes), semitones, named[0][0], better),
        )
