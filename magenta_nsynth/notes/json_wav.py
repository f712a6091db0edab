"""NSynth's JSON/WAV form, both ways: examples.json beside a folder of WAV files."""

import codecs
import json
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from magenta_nsynth.audio import write_audio
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.data.examples import Example, LabelReader, read_examples
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.index import table_of
from magenta_nsynth.data.records import NoteTable, read_layout
from magenta_nsynth.disk import CHUNK, disk_errors
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import atomic_path, open_file, read_json, write_json
from magenta_nsynth.notes.unread import UnreadNote, file_stamp
from magenta_nsynth.parallel import in_order
from magenta_nsynth.progress import Progress
from magenta_nsynth.schema import (
    FAMILIES,
    QUALITIES,
    SOURCES,
    UNKNOWN,
    Note,
    parse_note_str,
)
from magenta_nsynth.stores import remote, storage

__all__ = [
    "AUDIO_FOLDER",
    "LABELS_FILE",
    "Exported",
    "entry_to_note",
    "export_json_wav",
    "note_to_entry",
    "plan_folder",
    "read_entries",
]

LABELS_FILE = "examples.json"
AUDIO_FOLDER = "audio"

_ADVICE = "mend it, or download the dataset again"
# The largest value of each required number. -1 means unknown.
_LARGEST = {
    "pitch": 127,
    "velocity": 127,
    "instrument_family": len(FAMILIES) - 1,
    "instrument_source": len(SOURCES) - 1,
}
_LARGEST_INT = 2**63 - 1
# Limits on memory: the train split has 289,205 notes of 800 characters each.
_MOST_NOTES = 1_000_000
_MOST_ENTRY = 1 << 14
_LONGEST_NAME = 255  # bytes, as for a file

_NO_AUDIO = np.zeros(0, np.float32)
_DECODER = json.JSONDecoder()
_SPACES = re.compile(r"[ \t\n\r]*")

Entry = tuple[Note, str]  # a note without audio, and what is wrong with it or ""


def plan_folder(folder: str) -> tuple[list[UnreadNote], list[str]]:
    """The notes of an unpacked JSON/WAV folder, in the order of its examples.json.

    Args:
      folder: contains examples.json and audio/.

    Returns:
      The notes, each with its problem if its entry is wrong or it has no WAV file; and
      a message for each WAV file without an entry.

    Raises:
      InputError: examples.json can't be read or names no notes.
    """
    path = storage.join(folder, LABELS_FILE)
    try:
        with open_file(path) as file:
            labels = read_entries(iter(lambda: file.read(CHUNK), b""), path)
        audio_folder = storage.join(folder, AUDIO_FOLDER)
        found = {
            pathlib.Path(name).stem: storage.join(audio_folder, name)
            for name in sorted(storage.listdir(audio_folder))
            if name.lower().endswith(".wav") and not name.startswith(".")
        }
    except OSError as error:
        raise InputError(
            f"{error.filename}: can't be read ({error.strerror}); give a folder with "
            f"{LABELS_FILE} and {AUDIO_FOLDER}/."
        ) from None
    notes = []
    look = remote.listing()
    for name, (note, problem) in labels.items():
        wav = found.pop(name, None)
        if wav is None:
            wav = storage.join(audio_folder, f"{name}.wav")
            problem = problem or f"{wav}: missing, though {LABELS_FILE} names it."
        stamp = file_stamp(wav, look)
        notes.append(UnreadNote(note, wav, stamp=stamp, problem=problem))
    return notes, [f"{wav}: {path} has no entry for it." for wav in found.values()]


def read_entries(pieces: Iterable[bytes], where: str) -> dict[str, Entry]:
    """Reads an examples.json piece by piece.

    The train split's is 200 MB, too much for `files.parse_json`.

    Args:
      pieces: the text in UTF-8.
      where: the file, for messages.

    Returns:
      By note_str, what `entry_to_note` makes of each entry.

    Raises:
      InputError: not JSON, not an object, or far too many notes.
    """
    labels: dict[str, Entry] = {}
    try:
        for name, entry in _entries(_Text(pieces)):
            labels[name] = entry_to_note(name, entry, where)
            if len(labels) > _MOST_NOTES:
                raise ValueError(f"more than {_MOST_NOTES} notes")
    except InputError:  # a ValueError too; raised by `pieces` of a damaged archive
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no valid JSON ({error}); {_ADVICE}.") from None
    if not labels:
        raise InputError(f"{where}: names no notes; {_ADVICE}.")
    return labels


class _Text:
    """JSON text that arrives in pieces; only enough for one entry is in memory."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = codecs.iterdecode(pieces, "utf-8-sig")
        self._text, self._start, self._before = "", 0, 0
        self._ended = False

    def _fill(self, count: int) -> None:
        """Reads until `count` characters are available, or to the end."""
        while len(self._text) - self._start < count:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                return
            self._before += self._start
            self._text, self._start = self._text[self._start :] + piece, 0

    def peek(self) -> str:
        """The next character that is not whitespace; "" at the end."""
        while True:
            self._fill(1)
            if spaces := _SPACES.match(self._text, self._start):
                self._start = spaces.end()
            if self._start < len(self._text):
                return self._text[self._start]
            if self._ended:
                return ""

    def take(self, characters: str) -> str:
        """Consumes the next non-whitespace character, which must be one of these."""
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(characters)
            raise ValueError(f"{wanted} expected, not {found or 'the end'!r}")
        self._start += 1
        return found

    def value(self) -> Any:
        """Consumes the next value."""
        self.peek()
        self._fill(_MOST_ENTRY)
        try:
            value, end = _DECODER.raw_decode(self._text, self._start)
        except json.JSONDecodeError as error:
            position = self._before + error.pos
            raise ValueError(f"{error.msg}, at character {position}") from None
        if end - self._start > _MOST_ENTRY:
            raise ValueError(f"an entry of more than {_MOST_ENTRY} characters")
        self._start = end
        return value


def _entries(text: _Text) -> Iterator[tuple[str, Any]]:
    """The names and values of a JSON object."""
    text.take("{")
    more = text.peek() != "}" or text.take("}") != "}"
    while more:
        name = text.value()
        if not isinstance(name, str):
            raise ValueError("an entry without a name")
        text.take(":")
        yield name, text.value()
        more = text.take(",}") == ","
    if text.peek():
        raise ValueError("something after its end")


def entry_to_note(name: str, entry: object, where: str) -> Entry:
    """Makes a note without audio from its entry in examples.json.

    Args:
      name: its note_str.
      entry: must have pitch, velocity, instrument_family, instrument_source and
        qualities; may have note, note_str, instrument and instrument_str.
      where: the file, for messages.

    Returns:
      The note; and what is wrong with the entry, in one line, or "". These messages are
      part of the fingerprint of a shard (`record_making`).
    """
    empty = Note(note_str=name, audio=_NO_AUDIO)

    def problem(what: str) -> Entry:
        return empty, f"{where}: the entry {_brief(name)} {what}; {_ADVICE}."

    if not _is_name(name):
        return problem("has a name that no file can have")
    if not isinstance(entry, dict):
        return problem("is no table of fields")
    if missing := [k for k in (*_LARGEST, "qualities") if k not in entry]:
        return problem(f"lacks {', '.join(missing)}")
    for key, largest in _LARGEST.items():
        if not _is_int(entry[key], UNKNOWN, largest):
            wrong = _brief(entry[key])
            return problem(f"has {key} {wrong}, not a number up to {largest}")
    qualities = entry["qualities"]
    if not isinstance(qualities, list) or len(qualities) != len(QUALITIES):
        return problem(f"has qualities that are not {len(QUALITIES)} numbers")
    if not all(_is_int(value, 0, 1) for value in qualities):
        return problem("has qualities other than 0 and 1")
    if entry.get("note_str", name) != name:
        return problem(f"has the note_str {_brief(entry['note_str'])}")
    numbers = {key: entry.get(key, 0) for key in ("note", "instrument")}
    for key, value in numbers.items():
        if not _is_int(value, -_LARGEST_INT, _LARGEST_INT):
            return problem(f"has {key} {_brief(value)}, not a number")
    instrument = entry.get("instrument_str", parse_note_str(name).get("instrument_str"))
    if instrument and not _is_name(instrument):
        return problem(f"has the instrument_str {_brief(instrument)}")
    return Note(
        note_str=name,
        audio=_NO_AUDIO,
        instrument_str=instrument or "",
        qualities=tuple(qualities),
        **{key: entry[key] for key in _LARGEST},
        **numbers,
        sample_rate=SAMPLE_RATE,  # that of the audio as it is read
    ), ""


def note_to_entry(note: Note) -> dict[str, Any]:
    """The note's entry in an examples.json: all features but the audio."""
    return {
        "note": note.note,
        "note_str": note.note_str,
        "instrument": note.instrument,
        "instrument_str": note.instrument_str,
        "instrument_family": note.instrument_family,
        "instrument_family_str": note.family_str,
        "instrument_source": note.instrument_source,
        "instrument_source_str": note.source_str,
        "pitch": note.pitch,
        "velocity": note.velocity,
        "qualities": list(note.qualities),
        "qualities_str": note.qualities_str,
        "sample_rate": note.sample_rate,
    }


def _is_name(value: object) -> bool:
    """Whether it can be the name of a file, and so of a note."""
    if not isinstance(value, str):
        return False
    try:
        return "\0" not in value and 0 < len(value.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def _brief(value: object) -> str:
    return repr(value)[:80]


def _is_int(value: object, smallest: int, largest: int) -> bool:
    # JSON's true would count as 1.
    return type(value) is int and smallest <= value <= largest


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
    labels = storage.join(folder, LABELS_FILE)
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
    manifest = storage.join(folder, _MANIFEST)
    sources = [[os.path.basename(path), file_stamp(path)] for path in paths]
    content = {"float": as_float, "sources": sources}
    old = read_json(manifest)
    present = [n for n in (LABELS_FILE, AUDIO_FOLDER) if n in storage.listdir(folder)]
    if present and old != content and not overwrite:
        raise InputError(
            f"{storage.join(folder, present[0])}: exists already, from another "
            "source or made with other options; give another --save_path, or "
            "--overwrite."
        )
    with disk_errors(folder):
        storage.makedirs(storage.join(folder, AUDIO_FOLDER))
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
    path = storage.join(folder, AUDIO_FOLDER, f"{note.note_str}.wav")
    scaled = note.audio * np.float32(32768)  # exact: a power of two
    with np.errstate(invalid="ignore"):  # NaN is refused by write_audio
        whole = np.round(scaled)
        samples = np.clip(whole, -32768, 32767).astype(np.int16)
    wanted = note.audio if as_float else samples
    if not _exists(path, wanted, note.sample_rate):
        try:
            write_audio(path, note.audio, "float" if as_float else 16, note.sample_rate)
        except AudioError as error:
            if isinstance(error.__context__, OSError):  # perhaps a full disk
                raise error.__context__ from None
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
