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
from magenta_nsynth.data.items import Item, stat_print
from magenta_nsynth.data.labels_csv import read_labels
from magenta_nsynth.data.naming import labels_from_name
from magenta_nsynth.data.schema import FAMILIES, UNKNOWN, Note
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.files import Source, expand, find_sources
from magenta_nsynth.progress import Progress

__all__ = ["plan_own_audio"]

# A rest shorter than this part of a note, behind whole ones, is left out: it would be
# a note of silence with a click at its beginning.
_SHORTEST_REST = 1 / 4


class _File(NamedTuple):
    path: str
    where: str  # for errors: the path, or the CSV's line
    labels: dict


def plan_own_audio(
    paths: Sequence[str | os.PathLike],
    csv_path: str | os.PathLike,
    note_length: int,
    pad: bool,
    num_threads: int,
    left_out: str | os.PathLike | None = None,
) -> list[Item]:
    """The notes that sound files give, in the order of their names.

    Args:
      paths: sound files, folders (read with all folders below) or globs.
      csv_path: a file for `read_labels`, which then says which files are taken; "" for
        all files, labelled by their names and folders.
      note_length: a note's samples at 16 kHz; 0 makes each file one note.
      pad: completes a file's last note with zeros, unless less than a quarter of it is
        there and others come before it; False leaves out what is not whole.
      num_threads: files whose length is found at once.
      left_out: a folder that is not descended into.

    Returns:
      The items. A damaged file is one item, whose reading will fail.

    Raises:
      InputError: nothing to read, a bad CSV file, two notes of one name, nothing left.
    """
    sources = find_sources(
        paths, AUDIO_EXTENSIONS, True, [left_out] if left_out else []
    )
    files = _listed(csv_path, paths, sources) if csv_path else _named(sources)
    _say_families(files, bool(csv_path))
    with (
        concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
        Progress(len(files), "files", "looking into them") as progress,
    ):
        lengths = []
        for length in pool.map(_num_samples, (file.path for file in files)):
            lengths.append(length)
            progress.advance()
    items, places = [], {}
    short = []
    for file, length in zip(files, lengths, strict=True):
        pieces = _pieces(file, length, note_length, pad)
        if note_length and length - len(pieces) * note_length > 0:
            short.append(file.path)
        for item in pieces:
            name = item.note.note_str
            if name in places:
                raise InputError(
                    f"{places[name]} and {file.where} would both be the note {name}; "
                    "rename one, or put them into different folders."
                )
            places[name] = file.where
        items += pieces
    if short:
        seconds = note_length / SAMPLE_RATE * (_SHORTEST_REST if pad else 1)
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
    return _numbered(items)


def _named(sources: list[Source]) -> list[_File]:
    """The files with what their names and folders say, sorted by their notes' names."""
    files = []
    for source in sources:
        parent = pathlib.Path(os.path.abspath(source.path)).parent.name
        folders = pathlib.Path(source.subfolder).parts or (parent or "notes",)
        labels = labels_from_name(folders, source.stem)
        files.append(_File(source.path, source.path, labels))
    return sorted(files, key=lambda file: (file.labels["note_str"], file.path))


def _listed(
    csv_path: str | os.PathLike,
    paths: Sequence[str | os.PathLike],
    sources: list[Source],
) -> list[_File]:
    """The files of a CSV, with what it says and else their names."""
    folders = [expand(path) for path in paths if os.path.isdir(expand(path))]
    named = {os.path.realpath(file.path): file for file in _named(sources)}
    files, used = [], set()
    for row in read_labels(csv_path, folders):
        file = named.get(os.path.realpath(row.path))
        if file is None:
            raise InputError(
                f"{row.where}: {row.path} is not among the sound files of "
                f"--source_path ({', '.join(AUDIO_EXTENSIONS)}); mend the line."
            )
        used.add(os.path.realpath(row.path))
        files.append(_File(row.path, row.where, file.labels | row.labels))
    if len(used) < len(named):
        logging.info(
            "%d sound files that %s does not name are left out.",
            *(len(named) - len(used), csv_path),
        )
    return sorted(files, key=lambda file: (file.labels["note_str"], file.where))


def _say_families(files: list[_File], by_csv: bool) -> None:
    def say(field: str, what: str, advice: str) -> None:
        lacking = [f for f in files if f.labels.get(field, UNKNOWN) == UNKNOWN]
        if lacking:
            logging.info(
                "%d of %d files say no %s, e.g. %s; it is -1 there. %s.",
                *(len(lacking), len(files), what, lacking[0].path, advice),
            )

    other = "fill in the CSV's column" if by_csv else "or give a --csv"
    families = ", ".join(FAMILIES)
    say("instrument_family", "family", f"Name their folders so ({families}), {other}")
    say("pitch", "pitch", f"Name them like piano_C4.wav or x_midi60.wav, {other}")


def _num_samples(path: str) -> int:
    """A file's length at 16 kHz; 0 where it can't be told, which reading will tell."""
    try:
        return audio_length(path)
    except AudioError:
        return 0


def _pieces(file: _File, length: int, note_length: int, pad: bool) -> list[Item]:
    fields = dict(file.labels)
    name = str(fields.pop("note_str"))
    audio = np.zeros(0, np.float32)
    changed = stat_print(file.path)

    def item(suffix: str, start: int) -> Item:
        note = Note(note_str=name + suffix, audio=audio, **fields)
        return Item(note, file.path, start, note_length, length, changed)

    if not note_length or not length:
        return [dataclasses.replace(item("", 0), length=0)]
    count, rest = divmod(length, note_length)
    if pad and rest and (not count or rest >= _SHORTEST_REST * note_length):
        count += 1
    if count == 1:
        return [item("", 0)]
    digits = max(3, len(str(count - 1)))
    return [item(f"_{i:0{digits}}", i * note_length) for i in range(count)]


def _numbered(items: list[Item]) -> list[Item]:
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
