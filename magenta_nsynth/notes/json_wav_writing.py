"""TFRecords back to NSynth's JSON/WAV form."""

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from magenta_nsynth.audio import write_audio
from magenta_nsynth.data.examples import Example, LabelReader, read_examples
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.index import table_of
from magenta_nsynth.data.records import read_layout
from magenta_nsynth.data.runs import NoteTable
from magenta_nsynth.disk import disk_errors
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import atomic_path, read_json, write_json
from magenta_nsynth.notes.json_wav import AUDIO_FOLDER, LABELS_FILE, note_to_entry
from magenta_nsynth.notes.unread import file_stamp, in_order
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import Note, parse_note_str

__all__ = ["Exported", "export_json_wav"]

_MANIFEST = ".made_from.json"
_ADVICE = "copy or make the file again"
_FIRST_GROUP = (
    *("note_str", "pitch", "velocity", "instrument_family", "instrument_source"),
    "qualities",
)
_SECOND_GROUP = ("note", "instrument", "instrument_str")  # missing without a message


class Exported(NamedTuple):
    """What was written.

    Attributes:
      num_notes: notes written.
      num_rounded: those with samples that are not 16-bit numbers.
      num_clipped: those with samples outside [-1, 1).
      first_rounded: the note_str of the first rounded one; "" if there is none.
      failed: a message for each record that failed.
    """

    num_notes: int
    num_rounded: int
    num_clipped: int
    first_rounded: str
    failed: list[str]


class _Saved(NamedTuple):
    """A note whose WAV was written, and whether its samples had to be changed."""

    note: Note
    was_rounded: bool = False
    was_clipped: bool = False


def export_json_wav(
    paths: Sequence[str],
    folder: str,
    as_float: bool = False,
    num_threads: int = 1,
    overwrite: bool = False,
) -> Exported:
    """Writes `audio/<note_str>.wav` for each note, then examples.json.

    A correct WAV file that exists is left as it is, so an interrupted run is resumed.

    Args:
      paths: TFRecord files.
      folder: exists already.
      as_float: writes float32 samples unchanged. False rounds to 16 bits, which changes
        nothing in notes that were made from 16-bit files.
      num_threads: WAV files written at once.
      overwrite: replaces the files of another source.

    Raises:
      InputError: the folder has files of another source, or the disk refuses.
    """
    _claim(paths, folder, as_float, overwrite)
    labels = os.path.join(folder, LABELS_FILE)
    num_notes = num_clipped = 0
    rounded: list[str] = []
    layouts = [read_layout(path, skip_corrupt=True) for path in paths]
    table = table_of(paths, layouts)
    failed = [f"{damage}; {_ADVICE}." for layout in layouts for damage in layout.damage]
    with (
        Progress(len(table.file), "notes") as progress,
        disk_errors(labels),
        atomic_path(labels) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        for _, saved in in_order(
            lambda note: _save(note, folder, as_float),
            _notes(table),
            num_threads,
            cost=lambda note: note.audio.size if isinstance(note, Note) else 0,
        ):
            progress.advance()
            if isinstance(saved, NSynthError):
                failed.append(str(saved))
                continue
            name, entry = saved.note.note_str, note_to_entry(saved.note)
            file.write(",\n" if num_notes else "{\n")
            file.write(f"{json.dumps(name)}: {json.dumps(entry)}")
            num_notes += 1
            num_clipped += saved.was_clipped
            rounded += [name] if saved.was_rounded else []
        file.write("\n}\n" if num_notes else "{}\n")
    first = rounded[0] if rounded else ""
    return Exported(num_notes, len(rounded), num_clipped, first, failed)


def _claim(paths: Sequence[str], folder: str, as_float: bool, overwrite: bool) -> None:
    """Writes the manifest; refuses a folder with files of another source."""
    manifest = os.path.join(folder, _MANIFEST)
    sources = [[os.path.basename(path), file_stamp(path)] for path in paths]
    content = {"float": as_float, "sources": sources}
    old = read_json(manifest)
    present = [n for n in (LABELS_FILE, AUDIO_FOLDER) if n in os.listdir(folder)]
    if present and old != content and not overwrite:
        raise InputError(
            f"{os.path.join(folder, present[0])}: exists already, from another "
            "source or made with other options; give another --save_path, or "
            "--overwrite."
        )
    with disk_errors(folder):
        os.makedirs(os.path.join(folder, AUDIO_FOLDER), exist_ok=True)
    with disk_errors(manifest):
        write_json(manifest, content)


def _notes(table: NoteTable) -> Iterator[Note | InputError]:
    """The notes of all records, or why they can't be written."""
    names = (*_FIRST_GROUP, *_SECOND_GROUP)
    labels = LabelReader(table.files, names, set(_SECOND_GROUP))
    records = read_examples(table, np.arange(len(table.file)), Demand(("audio",)))
    taken: dict[str, str] = {}
    for place, example in records:
        where = table.where(place)
        if isinstance(example, str):
            yield InputError(f"{where}: {example}; {_ADVICE}.")
            continue
        file, record = int(table.file[place]), int(table.record[place])
        note = _note(example, labels.of(example, file, record, where))
        key = note.note_str
        if sys.platform in ("darwin", "win32"):  # "A.wav" is "a.wav" there
            key = key.lower()
        if not _is_file_name(note.note_str):
            yield InputError(f"{where}: the note_str {key!r} can't be a file name.")
        elif key in taken:
            yield InputError(
                f"{where}: the note {note.note_str} is there twice, first in "
                f"{taken[key]}; only that one is written."
            )
        else:
            taken[key] = where
            yield note


def _note(example: Example, labels: dict[str, Any]) -> Note:
    """The note of a record, its audio at the stored rate."""
    for name, value in labels.items():
        if isinstance(value, str):  # from bytes that may not be UTF-8
            raw = value.encode("utf-8", "surrogateescape")
            labels[name] = raw.decode("utf-8", "replace")
    named = parse_note_str(labels["note_str"]).get("instrument_str", "")
    return Note(
        audio=example.samples().astype(np.float32),
        sample_rate=example.rate,
        **{"instrument_str": str(named), **labels},
    )


def _is_file_name(name: str) -> bool:
    is_odd = re.search(r"[/\\\0-\x1f]", name) or name.startswith(".")
    return not is_odd and len(name.encode()) <= 240


def _save(note: Note | InputError, folder: str, as_float: bool) -> _Saved:
    """Writes a note's WAV, unless it exists; raises the error if it is one."""
    if isinstance(note, InputError):
        raise note
    path = os.path.join(folder, AUDIO_FOLDER, f"{note.note_str}.wav")
    scaled = note.audio * np.float32(32768)  # exact: a power of two
    with np.errstate(invalid="ignore"):  # NaN is refused by write_audio
        whole = np.round(scaled)
        samples = np.clip(whole, -32768, 32767).astype(np.int16)
    wanted = note.audio if as_float else samples
    if not _exists(path, wanted, note.sample_rate):
        try:
            write_audio(path, note.audio, "float" if as_float else 16, note.sample_rate)
        except AudioError as error:
            if isinstance(error.__cause__, OSError):  # perhaps a full disk
                raise error.__cause__ from None
            raise
    if as_float:
        return _Saved(note)
    return _Saved(note, bool((scaled != samples).any()), bool((whole != samples).any()))


def _exists(path: str, wanted: np.ndarray, rate: int) -> bool:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():  # a truncated file warns; it is written again
            warnings.simplefilter("error")
            found_rate, found = wavfile.read(path)
    except (OSError, ValueError, Warning):
        return False
    same = found_rate == rate and found.dtype == wanted.dtype
    return same and np.array_equal(found, wanted)
