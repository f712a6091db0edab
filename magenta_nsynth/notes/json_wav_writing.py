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
from magenta_nsynth.data.examples import Example, LabelReader, examine
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.index import table_of
from magenta_nsynth.data.records import read_layout
from magenta_nsynth.data.runs import NoteTable, read_records
from magenta_nsynth.disk import disk_errors
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import atomic_path, read_json, write_json
from magenta_nsynth.notes.json_wav import AUDIO_FOLDER, LABELS_FILE, note_to_entry
from magenta_nsynth.notes.unread import in_order, stat_print
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import Note, parse_note_str

__all__ = ["Exported", "export_json_wav"]

_MANIFEST = ".made_from.json"
_ADVICE = "copy or make the file again"
_FIRST_GROUP = (
    *("note_str", "pitch", "velocity", "instrument_family", "instrument_source"),
    "qualities",
)
_SECOND_GROUP = ("note", "instrument", "instrument_str")  # which nobody misses


class Exported(NamedTuple):
    """What became of the notes."""

    num_notes: int
    num_rounded: int  # had samples that are no 16-bit numbers
    num_clipped: int  # had samples beyond [-1, 1)
    first_rounded: str
    failed: list[str]


class _Task(NamedTuple):
    note: Note | None
    problem: str
    num_records: int


def export_json_wav(
    paths: Sequence[str],
    folder: str,
    as_float: bool = False,
    num_threads: int = 1,
    overwrite: bool = False,
) -> Exported:
    """Writes `audio/<note_str>.wav` for each note, and then examples.json.

    A WAV file that is there and right is left as it is, so a broken run goes on.

    Args:
      paths: TFRecord files.
      folder: exists already.
      as_float: writes float32 samples as they are; False rounds to 16 bits, which
        changes nothing in notes that were made from 16-bit files.
      num_threads: WAV files written at once.
      overwrite: replaces what is there of another source.

    Raises:
      InputError: something else is there, or the disk refuses.
    """
    _claim(paths, folder, as_float, overwrite)
    labels = os.path.join(folder, LABELS_FILE)
    num_notes, rounded, num_clipped, failed = 0, [], 0, []
    layouts = [read_layout(path, skip_corrupt=True) for path in paths]
    table = table_of(paths, layouts)
    damage = [words for layout in layouts for words in layout.damage]
    with (
        Progress(len(table.file), "notes") as progress,
        disk_errors(labels),
        atomic_path(labels) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        for task, result in in_order(
            lambda task: _save(task.note, folder, as_float),
            _tasks(table, damage),
            num_threads,
            cost=lambda task: task.note.audio.size if task.note else 0,
            skip=lambda task: task.problem,
        ):
            progress.advance(task.num_records)
            if isinstance(result, NSynthError):
                failed.append(str(result))
                continue
            changed, clipped = result
            name, entry = task.note.note_str, note_to_entry(task.note)
            file.write(",\n" if num_notes else "{\n")
            file.write(f"{json.dumps(name)}: {json.dumps(entry)}")
            num_notes += 1
            num_clipped += clipped
            rounded += [name] if changed else []
        file.write("\n}\n" if num_notes else "{}\n")
    first = rounded[0] if rounded else ""
    return Exported(num_notes, len(rounded), num_clipped, first, failed)


def _claim(paths: Sequence[str], folder: str, as_float: bool, overwrite: bool) -> None:
    """Notes in `folder` what it holds; refuses to mix it with something else."""
    note = os.path.join(folder, _MANIFEST)
    sources = [[os.path.basename(path), stat_print(path)] for path in paths]
    content = {"float": as_float, "sources": sources}
    old = read_json(note)
    present = [n for n in (LABELS_FILE, AUDIO_FOLDER) if n in os.listdir(folder)]
    if present and old != content and not overwrite:
        raise InputError(
            f"{os.path.join(folder, present[0])}: is there already, of another source "
            "or made with other options; give another --save_path, or --overwrite."
        )
    with disk_errors(folder):
        os.makedirs(os.path.join(folder, AUDIO_FOLDER), exist_ok=True)
    with disk_errors(note):
        write_json(note, content)


def _tasks(table: NoteTable, damage: list[str]) -> Iterator[_Task]:
    for problem in damage:
        yield _Task(None, f"{problem}; {_ADVICE}.", 0)
    labels = LabelReader(
        table.files, (*_FIRST_GROUP, *_SECOND_GROUP), set(_SECOND_GROUP)
    )
    taken: dict[str, str] = {}
    for place, serialized, words in read_records(table, np.arange(len(table.file))):
        where = table.where(place)
        try:
            if words:
                raise InputError(f"{where}: {words}; {_ADVICE}.")
            example, words = examine(serialized, Demand(("audio",)))
            if example is None or words:
                raise InputError(f"{where}: {words}; {_ADVICE}.")
            file, record = int(table.file[place]), int(table.record[place])
            note = _note(example, labels.of(example, file, record, where))
            _check_name(note.note_str, where)
            key = note.note_str
            if sys.platform in ("darwin", "win32"):  # "A.wav" is "a.wav" there
                key = key.lower()
            if key in taken:
                raise InputError(
                    f"{where}: the note {note.note_str} is there twice, first in "
                    f"{taken[key]}; only that one is written."
                )
            taken[key] = where
        except InputError as error:
            yield _Task(None, str(error), 1)
        else:
            yield _Task(note, "", 1)


def _note(example: Example, labels: dict[str, Any]) -> Note:
    """The note of a record, its audio at the rate at which it lies there."""
    for name, value in labels.items():
        if isinstance(value, str):  # bytes that are no UTF-8
            raw = value.encode("utf-8", "surrogateescape")
            labels[name] = raw.decode("utf-8", "replace")
    named = parse_note_str(labels["note_str"]).get("instrument_str", "")
    return Note(
        audio=example.samples().astype(np.float32),
        sample_rate=example.rate,
        **{"instrument_str": str(named), **labels},
    )


def _check_name(name: str, where: str) -> None:
    if (
        re.search(r"[/\\\0-\x1f]", name)
        or name.startswith(".")
        or len(name.encode()) > 240
    ):
        raise InputError(f"{where}: the note_str {name!r} can't be a file's name.")


def _save(note: Note, folder: str, as_float: bool) -> tuple[bool, bool]:
    """Writes a note's WAV; whether samples were rounded, and whether clipped."""
    path = os.path.join(folder, AUDIO_FOLDER, f"{note.note_str}.wav")
    scaled = note.audio * np.float32(32768)  # exact: a power of two
    with np.errstate(invalid="ignore"):  # NaN is refused by write_audio
        whole = np.round(scaled)
        samples = np.clip(whole, -32768, 32767).astype(np.int16)
    wanted = note.audio if as_float else samples
    if not _is_there(path, wanted, note.sample_rate):
        try:
            write_audio(path, note.audio, "float" if as_float else 16, note.sample_rate)
        except AudioError as error:
            if isinstance(error.__cause__, OSError):  # the disk, for others too
                raise error.__cause__ from None
            raise
    if as_float:
        return False, False
    clipped = bool((whole != samples).any())
    return bool((scaled != samples).any()), clipped


def _is_there(path: str, wanted: np.ndarray, rate: int) -> bool:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():  # a cut file is one, and is written anew
            warnings.simplefilter("error")
            found_rate, found = wavfile.read(path)
    except (OSError, ValueError, Warning):
        return False
    same = found_rate == rate and found.dtype == wanted.dtype
    return same and np.array_equal(found, wanted)
