"""What is known of sound files' notes, by their names, folders and unity notes."""

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

__all__ = ["SoundLabels", "log_pitches", "pitch_example", "summary", "warn_of_octaves"]

_UNITY_NOTE = "unity note of its smpl or INST chunk"
_NOT_BELIEVED = f"{NOT_KNOWN}, for all unity notes are 60, as many programs write"
_DEFAULT_NOTE = 60


class SoundLabels:
    """The labels of sound files.

    A name is read beside the others of its folder: they show what of it is the pitch.
    """

    def __init__(
        self, sources: Iterable[Source], rules: NameRules | None = None
    ) -> None:
        """Takes in the files; a folder is looked into when it is first asked for.

        Args:
          sources: all of the sounds.
          rules: how pitches are read from names; None is by default.
        """
        self._rules = rules or NameRules()
        self._folders = collections.defaultdict(dict)
        for source in sources:
            self._folders[os.path.dirname(source.path)][source.path] = source
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
        """With the unity notes of files whose names say no pitch.

        60, which many programs write into every file, is not believed if several files
        of the folder say it, and none another note; 0, which some write, never.
        """
        notes = {
            path: unity_note(path)
            for path, known in zip(paths, labels, strict=True)
            if known.pitch_from == NOT_KNOWN
        }
        said = [note for note in notes.values() if note > 0]
        is_default = len(said) > 1 and set(said) == {_DEFAULT_NOTE}
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
    """The folders below the one that was given, or else its own."""
    parent = pathlib.Path(os.path.abspath(source.path)).parent.name
    return pathlib.PurePath(source.subfolder).parts or (parent or "notes",)


def summary(origins: Iterable[str], examples: Iterable[str]) -> str:
    """Counts where something comes from: "12 by note name in the name (a_C4: 60)".

    Args:
      origins: where from, once for each note.
      examples: what it is of each, of which the first of each origin is shown.
    """
    first: dict[str, str] = {}
    counts: collections.Counter = collections.Counter()
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
    """Says where the pitches of sounds come from."""
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
    """Warns if the unity notes say that names have another middle C.

    Args:
      labels: paths of sounds, and what is known of them.
      rules: by which their names were read.
    """
    named = [pair for pair in labels if pair[1].pitch_from == NOTE_NAME]
    notes = [(unity_note(path), int(known.fields["pitch"])) for path, known in named]
    notes = [pair for pair in notes if pair[0] > 0]
    differences = {note - pitch for note, pitch in notes}
    if len({note for note, _ in notes}) < 2 or len(differences) > 1:
        return
    semitones = differences.pop()
    better = f"C{int(rules.middle_c[1:]) - semitones / 12:g}"
    if better in MIDDLE_C and better != rules.middle_c:
        logging.warning(
            "The unity notes of %d files lie %d semitones above their names, e.g. %s, "
            "as these are read; with --middle_c=%s they agree.",
            *(len(notes), semitones, named[0][0], better),
        )
