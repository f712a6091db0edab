"""Files of the baseline's z, with what is known of each note in a CSV beside them."""

import csv
import io
import os
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np

from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.embeddings.arrays import check_finite, load_array
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import open_file
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, UNKNOWN

__all__ = [
    "Code",
    "CodesWriter",
    "NoteLabels",
    "csv_path",
    "note_labels",
    "read_codes",
    "read_table",
]


class NoteLabels(NamedTuple):
    """A note's labels.

    Attributes:
      note_str: its id.
      pitch: MIDI, or -1.
      velocity: 0 to 127, or -1.
      instrument_family: one of `FAMILIES`, or "".
      instrument_source: one of `SOURCES`, or "".
      qualities: those of `QUALITIES` that it has.
    """

    note_str: str
    pitch: int
    velocity: int
    instrument_family: str
    instrument_source: str
    qualities: tuple[str, ...]


def note_labels(fields: dict[str, Any]) -> NoteLabels:
    """The labels of a note, of the fields of `schema.Note` those that are known.

    A number that is none of the schema's is as one that is not known.
    """
    has = fields.get("qualities", ())
    return NoteLabels(
        fields.get("note_str", ""),
        _midi(fields.get("pitch", UNKNOWN)),
        _midi(fields.get("velocity", UNKNOWN)),
        _name(FAMILIES, fields.get("instrument_family", UNKNOWN)),
        _name(SOURCES, fields.get("instrument_source", UNKNOWN)),
        tuple(name for name, one in zip(QUALITIES, has, strict=False) if one),
    )


def _midi(value: int) -> int:
    return int(value) if 0 <= value < NUM_PITCHES else UNKNOWN


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else ""


_COLUMNS = (*NoteLabels._fields, "num_samples", "rows")


class Code(NamedTuple):
    """A note's z, and what is known of the note.

    Attributes:
      z: [k, num_latent] float32.
      name: the note's, or "" where no CSV says it.
      pitch: MIDI, or -1.
      num_samples: of its sound, or None.
    """

    z: np.ndarray
    name: str
    pitch: int
    num_samples: int | None


def csv_path(path: str | os.PathLike) -> str:
    """Where the CSV of a .npy file lies: beside it, with its name."""
    return os.path.splitext(os.fspath(path))[0] + ".csv"


class CodesWriter:
    """Writes rows of z as .npy, of any number, and a CSV with a line for each note.

    Args:
      npy: an empty file, open for writing bytes.
      table: likewise for text, with newline="".
      num_latent: numbers of a row.
    """

    def __init__(self, npy: BinaryIO, table: TextIO, num_latent: int) -> None:
        self._npy, self._num_latent = npy, num_latent
        self._csv = csv.writer(table)
        self._csv.writerow(_COLUMNS)
        self._num_rows = 0
        self._write_header()

    def add(self, z: np.ndarray, labels: dict[str, Any], num_samples: int) -> None:
        """Adds a note.

        Args:
          z: [k, num_latent] float32.
          labels: of the fields of `Note` those that are known.
          num_samples: of its sound, that z was made of.

        Raises:
          InputError: z holds NaN or infinity.
        """
        check_finite(z, labels.get("note_str", "a note"))
        self._npy.write(np.ascontiguousarray(z, "<f4").tobytes())
        self._num_rows += len(z)
        note = note_labels(labels)
        self._csv.writerow(
            [
                note.note_str,
                "" if note.pitch == UNKNOWN else note.pitch,
                "" if note.velocity == UNKNOWN else note.velocity,
                note.instrument_family,
                note.instrument_source,
                " ".join(note.qualities),
                num_samples,
                len(z),
            ]
        )

    def close(self) -> None:
        """Writes the number of rows into the header; the files stay open."""
        end = self._npy.tell()
        self._npy.seek(0)
        self._write_header()
        self._npy.seek(end)

    def _write_header(self) -> None:
        # NumPy leaves room for the first dimension to grow: the length stays.
        header = {
            "descr": "<f4",
            "fortran_order": False,
            "shape": (self._num_rows, self._num_latent),
        }
        np.lib.format.write_array_header_1_0(self._npy, header)


def read_codes(path: str | os.PathLike, num_latent: int, check: Any) -> list[Code]:
    """Reads a file of z and the CSV beside it, where there is one.

    Args:
      path: a .npy file: [num_latent], or [rows, num_latent] with a row for each note
        unless the CSV says otherwise.
      num_latent: the model's.
      check: makes [k, num_latent] float32 of an array, its width and a name.

    Returns:
      A `Code` per note; their z may be parts of the file, read when used.

    Raises:
      InputError: not such a file, or the CSV is another one's.
    """
    path = os.fspath(path)
    rows = check(load_array(path, in_memory=False), num_latent, path)
    table = csv_path(path)
    if not os.path.exists(table):
        return [Code(rows[i : i + 1], "", UNKNOWN, None) for i in range(len(rows))]
    codes, start = [], 0
    for where, line in read_table(table):
        try:
            count = int(line["rows"])
            pitch = int(line["pitch"]) if line["pitch"] else UNKNOWN
            samples = int(line["num_samples"])
            name = line["note_str"]
            if count < 1 or samples < 1 or not UNKNOWN <= pitch < NUM_PITCHES:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{where}: expected {', '.join(_COLUMNS)} as nsynth_save_embeddings "
                f"writes them, with a pitch from 0 to {NUM_PITCHES - 1} or none; mend "
                "the line, or move the file away and give --pitch."
            ) from None
        codes.append(Code(rows[start : start + count], name, pitch, samples))
        start += count
    if start != len(rows):
        raise InputError(
            f"{table}: speaks of {start} rows, and {path} has {len(rows)}; it belongs "
            "to another file, so move it away and give --pitch."
        )
    return codes


def read_table(
    path: str, advice: str = "mend it, or move it away and give --pitch"
) -> list[tuple[str, dict[str, Any]]]:
    """The lines of a CSV: (its name and the line's number, the fields by column).

    Args:
      path: of the file.
      advice: what to do if it can't be read.

    Raises:
      InputError: it can't be read.
    """
    csv.field_size_limit(2**31 - 1)  # an id may be long; the usual limit is 128 kB
    try:
        # As a spreadsheet saves it too: with a mark in front, and semicolons.
        with io.TextIOWrapper(
            open_file(path), "utf-8-sig", "surrogateescape", newline=""
        ) as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
            return [(f"{path}, line {reader.line_num}", line) for line in reader]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: can't be read ({reason}); {advice}.") from None
