"""A CSV file with the labels of the user's own sounds."""

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, open_file
from magenta_nsynth.notes.naming import (
    Fields,
    family_number,
    pitch_number,
    source_number,
)
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, UNKNOWN
from magenta_nsynth.stores import remote, storage

__all__ = ["Row", "read_labels"]

_COLUMNS = (
    "file", "note_str", "pitch", "velocity", "family", "source", "instrument",
    "qualities",
)  # fmt: skip

_Parsers = dict[str, tuple[str, Callable[[str], int | str | tuple[int, ...]]]]


class Row(NamedTuple):
    """A line of the file.

    Attributes:
      where: the file and the line, for messages.
      path: the sound file.
      labels: the fields of `Note` that the line gives.
    """

    where: str
    path: str
    labels: Fields


def read_labels(
    csv_path: str | os.PathLike, folders: Sequence[str], middle_c: str = "C4"
) -> list[Row]:
    """Reads a CSV file of labels.

    Args:
      csv_path: UTF-8 (or Windows' 1252), with commas, semicolons or tabs, and a header
        that names the columns: file, and any of note_str, pitch (a MIDI number or a
        name such as C4), velocity, family, source, instrument, and qualities (separated
        by spaces). An empty cell leaves the label unknown.
      folders: where to look for the files, before the CSV file's own folder.
      middle_c: what note names call MIDI note 60.

    Returns:
      The rows in order.

    Raises:
      InputError: a bad value or a missing file; the message names the line.
    """
    csv_path = expand(csv_path)
    text = _read_text(csv_path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip().lower() for name in next(reader, [])]
    while columns and not columns[-1]:  # a separator at the end of each line
        columns.pop()
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown or "file" not in columns or len(set(columns)) < len(columns):
        raise InputError(
            f"{csv_path}: line 1 must name the columns, file and any of "
            f"{', '.join(_COLUMNS[1:])}, not {header.strip()!r}."
        )
    rows, folders = [], [*folders, os.path.dirname(csv_path) or "."]
    parsers = _parsers(middle_c)
    look = remote.listing()
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                where = f"{csv_path}: line {reader.line_num}"
                said = _cells(where, columns, cells)
                path = _find(said.pop("file", ""), folders, where, look)
                rows.append(Row(where, path, _labels(said, parsers, where)))
    except csv.Error as error:
        raise InputError(f"{csv_path}: line {reader.line_num}: {error}.") from None
    if not rows:
        raise InputError(f"{csv_path}: names no files; add a line for each.")
    return rows


def _read_text(path: str) -> str:
    try:
        with open_file(path) as file:
            content = file.read()
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror}); give another --csv."
        ) from None
    for encoding in ("utf-8-sig", "cp1252"):  # what Excel writes
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{path}: not a text file in UTF-8; save it as 'CSV UTF-8'.")


def _cells(where: str, columns: list[str], cells: list[str]) -> dict[str, str]:
    """The cells of a line that are not empty, by column."""
    if any(cells[len(columns) :]):
        raise InputError(
            f"{where}: {len(cells)} cells under {len(columns)} columns; put quotes "
            "around a cell that contains a separator."
        )
    return {name: cell for name, cell in zip(columns, cells, strict=False) if cell}


def _find(name: str, folders: Sequence[str], where: str, look: remote.Look) -> str:
    """The path of a file that a line names."""
    if not name:
        raise InputError(f"{where}: the cell under 'file' is empty; name a sound file.")
    # Windows' slashes work too, unless the name really contains a backslash.
    paths = [
        storage.resolve(folder, form)
        for form in (name, name.replace("\\", "/"))
        for folder in folders
    ]
    path = next((path for path in paths if storage.isfile(path, look)), None)
    if path is None:
        places = " or ".join(dict.fromkeys(folders))
        raise InputError(f"{where}: {name} is not in {places}; correct the line.")
    return path


def _parsers(middle_c: str) -> _Parsers:
    """For each column, the field of `Note` and how a cell is read."""
    return {
        "note_str": ("note_str", str),
        "instrument": ("instrument_str", str),
        "pitch": ("pitch", lambda cell: _pitch(cell, middle_c)),
        "velocity": ("velocity", _velocity),
        "family": ("instrument_family", lambda c: _named(c, FAMILIES, family_number)),
        "source": ("instrument_source", lambda c: _named(c, SOURCES, source_number)),
        "qualities": ("qualities", _qualities),
    }


def _labels(cells: dict[str, str], parsers: _Parsers, where: str) -> Fields:
    labels: Fields = {}
    for column, cell in cells.items():
        field, parse = parsers[column]
        try:
            labels[field] = parse(cell)
        except ValueError as error:
            raise InputError(
                f"{where}: {column} {cell!r} is not {error}; correct the line."
            ) from None
    return labels


def _pitch(cell: str, middle_c: str) -> int:
    is_number = re.fullmatch(r"\d+", cell)
    pitch = int(cell) if is_number else pitch_number(cell, middle_c)
    if not 0 <= pitch <= 127:
        raise ValueError("a MIDI number from 0 to 127 or a note name such as C4")
    return pitch


def _velocity(cell: str) -> int:
    if not re.fullmatch(r"\d+", cell) or int(cell) > 127:
        raise ValueError("a number from 0 to 127")
    return int(cell)


def _named(cell: str, names: Sequence[str], number: Callable[[str], int]) -> int:
    index = number(cell)
    if index == UNKNOWN:
        raise ValueError(f"one of {', '.join(names)}")
    return index


def _qualities(cell: str) -> tuple[int, ...]:
    words = re.split(r"[\s,;|]+", cell.lower())
    if any(word not in QUALITIES for word in words if word):
        raise ValueError(f"made of {', '.join(QUALITIES)}")
    return tuple(int(name in words) for name in QUALITIES)
