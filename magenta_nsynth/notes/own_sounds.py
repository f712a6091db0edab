"""One's own sound files as notes: finding them, naming them, cutting them."""

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
from magenta_nsynth.notes.unread import UnreadNote, stat_print
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import FAMILIES, UNKNOWN, Note

__all__ = ["Cut", "plan_own_audio"]

_CSV = "CSV"
# A rest shorter than this part of a note, behind whole ones, is left out: it would be
# a note of silence with a click at its beginning.
_SHORTEST_REST = 1 / 4


class _File(NamedTuple):
    path: str
    where: str  # for errors: the path, or the CSV's line
    labels: Labels
    is_listed: bool = False  # by a CSV

    @property
    def note_str(self) -> str:
        return str(self.labels.fields["note_str"])


class Cut(NamedTuple):
    """How a file is cut to notes.

    Attributes:
      length: a note's samples at 16 kHz; 0 makes each file one note.
      pad: completes a file's last note with zeros, unless less than a quarter of it is
        there and others come before it; False leaves out what is not whole.
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
    """The notes that sound files give, in the order of their names.

    Args:
      paths: sound files, folders (read with all folders below) or globs.
      csv_path: a file for `read_labels`, which then says which files are taken; "" for
        all files, labelled by their names and folders.
      cut: how files are cut to notes.
      num_threads: files whose length is found at once.
      left_out: a folder that is not descended into.
      rules: how pitches are read from names; None is by default.

    Returns:
      The items. A damaged file is one item, whose reading will fail.

    Raises:
      InputError: nothing to read, a bad CSV file, two notes of one name, nothing left.
    """
    sources = find_sources(
        paths, AUDIO_EXTENSIONS, True, [left_out] if left_out else []
    )
    rules = rules or NameRules()
    files = _named(sources, rules)
    if csv_path:
        files = _listed(csv_path, paths, files, rules)
    with (
        concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
        Progress(len(files), "files", "looking into them") as progress,
    ):
        lengths = []
        for length in pool.map(_num_samples, (file.path for file in files)):
            lengths.append(length)
            progress.advance()
    items, short = [], []
    places: dict[str, _File] = {}
    counts: list[int] = []
    for file, length in zip(files, lengths, strict=True):
        pieces = _pieces(file, length, cut)
        counts.append(len(pieces))
        if cut.length and length - len(pieces) * cut.length > 0:
            short.append(file.path)
        for item in pieces:
            name = item.note.note_str
            if name in places:
                raise _collision(places[name], file, name)
            places[name] = file
        items += pieces
    if short:
        seconds = cut.length / SAMPLE_RATE * (_SHORTEST_REST if cut.pad else 1)
        logging.info(
            "Of %d of %d files the end, less than %.4g s, is left out (%s%s).",
            *(len(short), len(files), seconds, short[0]),
            " and others" if len(short) > 1 else "",
        )
    if not items:
        raise InputError(
            f"{short[0]}{' and all others' if len(short) > 1 else ''}: shorter than "
            "a note; give a shorter --note_seconds, or --pad."
        )
    _say_origins(files, counts, bool(csv_path))
    warn_of_octaves([(file.path, file.labels) for file in files], rules)
    return _numbered(items)


def _collision(first: _File, second: _File, name: str) -> InputError:
    if first.is_listed:
        advice = "give one another note_str in the CSV"
    elif first.note_str == pathlib.Path(first.path).stem:  # NSynth's form of name
        advice = "rename one"
    elif os.path.dirname(first.path) == os.path.dirname(second.path):
        advice = "rename one, or put them into different folders"
    else:
        advice = "rename one, or its folder"
    return InputError(
        f"{first.where} and {second.where} would both be the note {name}; {advice}."
    )


def _named(sources: list[Source], rules: NameRules) -> list[_File]:
    """The files with what their names and folders say, sorted by their notes' names."""
    labels = SoundLabels(sources, rules)
    files = [_File(s.path, s.path, labels.of(s)) for s in sources]
    return sorted(files, key=lambda file: (file.note_str, file.path))


def _listed(
    csv_path: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    files: list[_File],
    rules: NameRules,
) -> list[_File]:
    """The files of a CSV, with what it says and else their names."""
    folders = [expand(path) for path in paths if os.path.isdir(expand(path))]
    named = {os.path.realpath(file.path): file for file in files}
    listed, used = [], set()
    for row in read_labels(csv_path, folders, rules.middle_c):
        file = named.get(os.path.realpath(row.path))
        if file is None:
            raise InputError(
                f"{row.where}: {row.path} is not among the sound files of "
                f"--source_path ({', '.join(AUDIO_EXTENSIONS)}); mend the line."
            )
        used.add(os.path.realpath(row.path))
        known = file.labels
        known = Labels(
            known.fields | row.labels,
            _CSV if "pitch" in row.labels else known.pitch_from,
            _CSV if "instrument_family" in row.labels else known.family_from,
        )
        listed.append(_File(row.path, row.where, known, True))
    if len(used) < len(named):
        logging.info(
            "%d sound files that %s does not name are left out.",
            *(len(named) - len(used), csv_path),
        )
    return sorted(listed, key=lambda file: (file.note_str, file.where))


def _say_origins(files: list[_File], counts: list[int], by_csv: bool) -> None:
    """Says for how many notes pitch and family come from where."""

    def say(what: str, origins: list[str], examples: list[str], advice: str) -> None:
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
                "%d of %d files say no %s, e.g. %s; it is -1 there. %s.",
                *(len(lacking), len(files), what, lacking[0], advice),
            )

    other = "fill in the CSV's column" if by_csv else "or give a --csv"
    say(
        "family",
        [file.labels.family_from for file in files],
        [_family_example(file) for file in files],
        f"Name their folders so ({', '.join(FAMILIES)}), {other}",
    )
    say(
        "pitch",
        [file.labels.pitch_from for file in files],
        [pitch_example(file.path, file.labels) for file in files],
        "Name them like piano_C4.wav or x_midi60.wav, say --pitch_from_name=note or "
        f"=midi if a note name or a number in them is the pitch, {other}",
    )


def _family_example(file: _File) -> str:
    family = int(file.labels.fields.get("instrument_family", UNKNOWN))
    name = "" if family == UNKNOWN else f": {FAMILIES[family]}"
    return os.path.join(*pathlib.Path(file.path).parts[-2:]) + name


def _num_samples(path: str) -> int:
    """A file's length at 16 kHz; 0 where it can't be told, which reading will tell."""
    try:
        return audio_length(path)
    except AudioError:
        return 0


def _pieces(file: _File, length: int, cut: Cut) -> list[UnreadNote]:
    note_length, pad = cut
    fields = dict(file.labels.fields)
    name = str(fields.pop("note_str"))
    audio = np.zeros(0, np.float32)
    changed = stat_print(file.path)

    def item(suffix: str, start: int) -> UnreadNote:
        note = Note(note_str=name + suffix, audio=audio, **fields)
        return UnreadNote(note, file.path, start, note_length, length, changed)

    if not note_length or not length:
        return [dataclasses.replace(item("", 0), length=0)]
    count, rest = divmod(length, note_length)
    if pad and rest and (not count or rest >= _SHORTEST_REST * note_length):
        count += 1
    if count == 1:
        return [item("", 0)]
    digits = max(3, len(str(count - 1)))
    return [item(f"_{i:0{digits}}", i * note_length) for i in range(count)]


def _numbered(items: list[UnreadNote]) -> list[UnreadNote]:
    """With the numbers that the schema wants of notes and instruments."""
    instruments = sorted({item.note.instrument_str for item in items})
    number = {name: i for i, name in enumerate(instruments)}
    return [
        dataclasses.replace(
            item,
            note=dataclasses.replace(
                item.note, note=i, instrument=number[item.note.instrument_str]
            ),
        )
        for i, item in enumerate(items)
    ]
