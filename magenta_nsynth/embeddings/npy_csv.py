"""A .npy file with the rows of many notes, and a CSV with a line for each note.

The baseline's embeddings are saved in this form, and exports with --format=npy.
"""

import contextlib
import csv
import io
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.embeddings.embedding import Embedding, NoteLabels, check_finite
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import open_file
from magenta_nsynth.schema import UNKNOWN

__all__ = ["NoteLine", "NpyCsvWriter", "csv_path", "read_note_csv"]

_COLUMNS = (*NoteLabels._fields, "num_samples", "rows")


class NoteLine(NamedTuple):
    """A line of the CSV.

    Attributes:
      where: the file and the line's number, for messages.
      labels: the note's labels.
      num_samples: the length of the note's sound.
      num_rows: the number of the note's rows in the .npy file.
    """

    where: str
    labels: NoteLabels
    num_samples: int
    num_rows: int


def csv_path(path: str | os.PathLike) -> str:
    """Returns the path of the CSV that belongs to a .npy file."""
    return os.path.splitext(os.fspath(path))[0] + ".csv"


class NpyCsvWriter:
    """Writes both files, of any number of notes; `close` completes them."""

    def __init__(self, paths: Sequence[str], num_latent: int) -> None:
        """Creates the files.

        Args:
          paths: the paths of the .npy file and the CSV.
          num_latent: the size of a row.
        """
        npy, table = paths
        self._num_latent, self._num_rows = num_latent, 0
        with contextlib.ExitStack() as stack:
            self._npy = stack.enter_context(open(npy, "wb"))
            text = stack.enter_context(
                open(table, "w", encoding="utf-8", errors="surrogateescape", newline="")
            )
            self._csv = csv.writer(text)
            self._csv.writerow(_COLUMNS)
            self._write_header()
            self._files = stack.pop_all()

    def add(self, embedding: Embedding) -> None:
        """Adds a note; raises InputError if its rows contain NaN or infinity."""
        rows, labels = embedding.rows, NoteLabels.of(embedding.labels)
        check_finite(rows, labels.note_str or "a note")
        self._npy.write(np.ascontiguousarray(rows, "<f4").tobytes())
        self._num_rows += len(rows)
        self._csv.writerow(
            [
                labels.note_str,
                "" if labels.pitch == UNKNOWN else labels.pitch,
                "" if labels.velocity == UNKNOWN else labels.velocity,
                labels.instrument_family,
                labels.instrument_source,
                " ".join(labels.qualities),
                embedding.num_samples,
                len(rows),
            ]
        )

    def close(self) -> None:
        """Writes the number of rows into the .npy file's header; closes both files."""
        with self._files:
            self._npy.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        # NumPy leaves room for the first dimension to grow, so the header's length is
        # always the same.
        header = {
            "descr": "<f4",
            "fortran_order": False,
            "shape": (self._num_rows, self._num_latent),
        }
        np.lib.format.write_array_header_1_0(self._npy, header)


def read_note_csv(
    path: str, advice: str = "correct it, or move it away and give --pitch"
) -> list[NoteLine]:
    """Reads the lines of a CSV.

    Args:
      path: the file.
      advice: the end of an error's message.

    Raises:
      InputError: the file can't be read, or a line is malformed.
    """
    csv.field_size_limit(2**31 - 1)  # ids can be longer than the usual limit, 128 kB
    try:
        # A spreadsheet may have saved it, with a byte order mark and semicolons.
        with io.TextIOWrapper(
            open_file(path), "utf-8-sig", "surrogateescape", newline=""
        ) as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
            lines = [(f"{path}, line {reader.line_num}", line) for line in reader]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: can't be read ({reason}); {advice}.") from None
    return [_parse(where, line, advice) for where, line in lines]


def _parse(where: str, line: dict[str, str | None], advice: str) -> NoteLine:
    try:
        labels = NoteLabels(
            line["note_str"] or "",
            int(line["pitch"] or UNKNOWN),
            int(line.get("velocity") or UNKNOWN),
            line.get("instrument_family") or "",
            line.get("instrument_source") or "",
            tuple((line.get("qualities") or "").split()),
        )
        num_samples, num_rows = int(line["num_samples"] or 0), int(line["rows"] or 0)
        if num_rows < 1 or num_samples < 1 or not UNKNOWN <= labels.pitch < NUM_PITCHES:
            raise ValueError
    except (KeyError, ValueError):
        raise InputError(
            f"{where}: expected {', '.join(_COLUMNS)} as the program writes them, with "
            f"a pitch from 0 to {NUM_PITCHES - 1} or none; {advice}."
        ) from None
    return NoteLine(where, labels, num_samples, num_rows)
