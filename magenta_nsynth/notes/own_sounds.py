"""The user's own sound files as notes: finding, labelling and cutting them."""

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.audio import AUDIO_EXTENSIONS, audio_length
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.files import Source, expand, find_sources
from magenta_nsynth.notes.labels_csv import read_labels
from magenta_nsynth.notes.naming import NOT_KNOWN, Labels, NameRules
from magenta_nsynth.notes.sound_labels import (
    SoundLabels,
    pitch_example,
    summary,
    warn_of_octaves,
)
from magenta_nsynth.notes.unread import UnreadNote, file_stamp
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import FAMILIES, UNKNOWN, Note
from magenta_nsynth.stores import remote, storage

__all__ = ["Cut", "plan_own_audio"]

_CSV = "CSV"
# A rest shorter than this part of a note, after whole ones, is left out: it would be a
# note of silence with a click at its beginning.
_SHORTEST_REST = 1 / 4


class _File(NamedTuple):
    path: str
    where: str  # for errors: the path, or the CSV's line
    labels: Labels
    is_listed: bool = False  # by a CSV

    @property
    def note_str(self) -> str:
        note_str: str = self.labels.fields["note_str"]
        return note_str


class Cut(NamedTuple):
    """How a file is cut into notes.

    Attributes:
      length: a note's samples at 16 kHz; 0 makes each file one note.
      pad: completes a file's last note with zeros, unless it is less than a quarter
        note and not the only one; False leaves out incomplete notes.
    """

    length: int
    pad: bool


def plan_own_audio(
    paths: Sequence[str | os.PathLike],
    csv_path: str | os.PathLike,
    cut: Cut,
    num_threads: int,
    left_out: str | os.PathLike | None = None,
    rules: NameRules | None = None,
) -> list[UnreadNote]:
    """The notes in sound files, sorted by name.

    Args:
      paths: sound files, folders (with all folders below) or globs.
      csv_path: a file for `read_labels`, which then decides which files are used; ""
        uses all files, with labels from their names and folders.
      cut: how files are cut into notes.
      num_threads: files whose length is found at once.
      left_out: a folder not to descend into.
      rules: how pitches are read from names; None is the default.

    Returns:
      The notes. A damaged file is one note, which will fail when it is read.

    Raises:
      InputError: nothing to read, a bad CSV file, two notes of one name, or no note
        left.
    """
    sources = find_sources(
        paths, AUDIO_EXTENSIONS, True, [left_out] if left_out else []
    )
    rules = rules or NameRules()
    files = _named(sources, rules)
    if csv_path:
        files = _listed(csv_path, paths, files, rules)
    lengths = _find_lengths(files, num_threads)
    notes: list[UnreadNote] = []
    with_rest: list[str] = []
    places: dict[str, _File] = {}
    counts: list[int] = []
    look = remote.listing()
    for file, length in zip(files, lengths, strict=True):
        pieces = _pieces(file, length, cut, file_stamp(file.path, look))
        counts.append(len(pieces))
        if cut.length and length - len(pieces) * cut.length > 0:
            with_rest.append(file.path)
        for piece in pieces:
            name = piece.note.note_str
            if name in places:
                raise _collision(places[name], file, name)
            places[name] = file
        notes += pieces
    if with_rest:
        seconds = cut.length / SAMPLE_RATE * (_SHORTEST_REST if cut.pad else 1)
        logging.info(
            "The end of %d of %d files, less than %.4g s, is left out (%s%s).",
            *(len(with_rest), len(files), seconds, with_rest[0]),
            " and others" if len(with_rest) > 1 else "",
        )
    if not notes:
        others = " and all others" if len(with_rest) > 1 else ""
        raise InputError(
            f"{with_rest[0]}{others}: shorter than a note; give a shorter "
            "--note_seconds, or --pad."
        )
    _log_origins(files, counts, bool(csv_path))
    warn_of_octaves([(file.path, file.labels) for file in files], rules)
    return _numbered(notes)


def _find_lengths(files: Sequence[_File], num_threads: int) -> list[int]:
    """The files' lengths in samples at 16 kHz; 0 for one that can't be read."""
    lengths = []
    with (
        concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
        Progress(len(files), "files", "finding their lengths") as progress,
    ):
        for length in pool.map(_num_samples, (file.path for file in files)):
            lengths.append(length)
            progress.advance()
    return lengths


def _num_samples(path: str) -> int:
    try:
        return audio_length(path)
    except AudioError:  # reported when the file is read
        return 0


def _collision(first: _File, second: _File, name: str) -> InputError:
    """The error for two files that make a note of the same name."""
    if first.is_listed:
        advice = "give one another note_str in the CSV"
    elif first.note_str == pathlib.Path(first.path).stem:  # a name in NSynth's form
        advice = "rename one"
    elif os.path.dirname(first.path) == os.path.dirname(second.path):
        advice = "rename one, or put them in different folders"
    else:
        advice = "rename one, or its folder"
    return InputError(
        f"{first.where} and {second.where} would both be the note {name}; {advice}."
    )


def _named(sources: list[Source], rules: NameRules) -> list[_File]:
    """The files with labels from names and folders, sorted by their notes' names."""
    labels = SoundLabels(sources, rules)
    files = [_File(s.path, s.path, labels.of(s)) for s in sources]
    return sorted(files, key=lambda file: (file.note_str, file.path))


def _listed(
    csv_path: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    files: list[_File],
    rules: NameRules,
) -> list[_File]:
    """The files of a CSV, with its labels; those it lacks are from names."""
    folders = [expand(path) for path in paths if storage.isdir(expand(path))]
    named = {storage.realpath(file.path): file for file in files}
    listed, used = [], set()
    for row in read_labels(csv_path, folders, rules.middle_c):
        file = named.get(storage.realpath(row.path))
        if file is None:
            raise InputError(
                f"{row.where}: {row.path} is not among the sound files of "
                f"--source_path ({', '.join(AUDIO_EXTENSIONS)}); correct the line."
            )
        used.add(storage.realpath(row.path))
        known = file.labels
        known = Labels(
            known.fields | row.labels,
            _CSV if "pitch" in row.labels else known.pitch_from,
            _CSV if "instrument_family" in row.labels else known.family_from,
        )
        listed.append(_File(row.path, row.where, known, True))
    if len(used) < len(named):
        logging.info(
            "%d sound files not named in %s are left out.",
            *(len(named) - len(used), csv_path),
        )
    return sorted(listed, key=lambda file: (file.note_str, file.where))


def _log_origins(files: list[_File], counts: list[int], by_csv: bool) -> None:
    """Logs where the pitches and families of notes come from."""

    def log(what: str, origins: list[str], examples: list[str], advice: str) -> None:
        said = summary(
            (o for o, n in zip(origins, counts, strict=True) for _ in range(n)),
            (e for e, n in zip(examples, counts, strict=True) for _ in range(n)),
        )
        logging.info("The %s of %d notes: %s.", what, sum(counts), said)
        lacking = [
            file.path
            for file, origin in zip(files, origins, strict=True)
            if origin.startswith(NOT_KNOWN)
        ]
        if lacking:
            logging.info(
                "%d of %d files have no known %s, e.g. %s; it is stored as -1. %s.",
                *(len(lacking), len(files), what, lacking[0], advice),
            )

    other = "fill in the CSV's column" if by_csv else "or give a --csv"
    log(
        "family",
        [file.labels.family_from for file in files],
        [_family_example(file) for file in files],
        f"Name their folders after families ({', '.join(FAMILIES)}), {other}",
    )
    log(
        "pitch",
        [file.labels.pitch_from for file in files],
        [pitch_example(file.path, file.labels) for file in files],
        "Name them like piano_C4.wav or x_midi60.wav, give --pitch_from_name=note or "
        f"=midi if a note name or a number in them is the pitch, {other}",
    )


def _family_example(file: _File) -> str:
    family = file.labels.fields.get("instrument_family", UNKNOWN)
    name = "" if family == UNKNOWN else f": {FAMILIES[family]}"
    return storage.join(*pathlib.Path(file.path).parts[-2:]) + name


def _pieces(file: _File, length: int, cut: Cut, stamp: str) -> list[UnreadNote]:
    """The notes of a file of `length` samples."""
    note_length, pad = cut
    note = Note(audio=np.zeros(0, np.float32), **file.labels.fields)

    def piece(suffix: str, start: int) -> UnreadNote:
        named = dataclasses.replace(note, note_str=note.note_str + suffix)
        return UnreadNote(named, file.path, start, note_length, length, stamp)

    if not note_length or not length:
        return [dataclasses.replace(piece("", 0), length=0)]
    count, rest = divmod(length, note_length)
    if pad and rest and (not count or rest >= _SHORTEST_REST * note_length):
        count += 1
    if count == 1:
        return [piece("", 0)]
    digits = max(3, len(str(count - 1)))
    return [piece(f"_{i:0{digits}}", i * note_length) for i in range(count)]


def _numbered(notes: list[UnreadNote]) -> list[UnreadNote]:
    """The notes with the schema's numbers for notes and instruments."""
    instruments = sorted({unread.note.instrument_str for unread in notes})
    number = {name: i for i, name in enumerate(instruments)}
    return [
        dataclasses.replace(
            unread,
            note=dataclasses.replace(
                unread.note, note=i, instrument=number[unread.note.instrument_str]
            ),
        )
        for i, unread in enumerate(notes)
    ]
