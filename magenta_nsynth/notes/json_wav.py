"""NSynth's JSON/WAV form: examples.json beside a folder of WAV files."""

import codecs
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.disk import CHUNK
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import open_file
from magenta_nsynth.notes.unread import UnreadNote, file_stamp
from magenta_nsynth.schema import (
    FAMILIES,
    QUALITIES,
    SOURCES,
    UNKNOWN,
    Note,
    parse_note_str,
)

__all__ = [
    "AUDIO_FOLDER",
    "LABELS_FILE",
    "entry_to_note",
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
    path = os.path.join(folder, LABELS_FILE)
    try:
        with open_file(path) as file:
            labels = read_entries(iter(lambda: file.read(CHUNK), b""), path)
        audio_folder = os.path.join(folder, AUDIO_FOLDER)
        found = {
            pathlib.Path(name).stem: os.path.join(audio_folder, name)
            for name in sorted(os.listdir(audio_folder))
            if name.lower().endswith(".wav") and not name.startswith(".")
        }
    except OSError as error:
        raise InputError(
            f"{error.filename}: can't be read ({error.strerror}); give a folder with "
            f"{LABELS_FILE} and {AUDIO_FOLDER}/."
        ) from None
    notes = []
    for name, (note, problem) in labels.items():
        wav = found.pop(name, None)
        if wav is None:
            wav = os.path.join(audio_folder, f"{name}.wav")
            problem = problem or f"{wav}: missing, though {LABELS_FILE} names it."
        notes.append(UnreadNote(note, wav, stamp=file_stamp(wav), problem=problem))
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
