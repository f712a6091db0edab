"""NSynth's JSON/WAV form: examples.json beside a folder of WAV files."""

import json
import os
import pathlib
from typing import Any

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.data.items import Item, stat_print
from magenta_nsynth.data.schema import (
    FAMILIES,
    QUALITIES,
    SOURCES,
    UNKNOWN,
    Note,
    parse_note_str,
)
from magenta_nsynth.errors import InputError

__all__ = [
    "AUDIO_FOLDER",
    "LABELS_FILE",
    "entry_to_note",
    "note_to_entry",
    "parse_labels",
    "plan_folder",
]

LABELS_FILE = "examples.json"
AUDIO_FOLDER = "audio"

_ADVICE = "mend it, or download the dataset again"
# What a field that counts may be. -1 stands for unknown.
_LARGEST = {
    "pitch": 127,
    "velocity": 127,
    "instrument_family": len(FAMILIES) - 1,
    "instrument_source": len(SOURCES) - 1,
}
_LARGEST_INT = 2**63 - 1


def plan_folder(folder: str) -> tuple[list[Item], list[str]]:
    """The notes of an unpacked JSON/WAV folder, in the order of its examples.json.

    Args:
      folder: holds examples.json and audio/.

    Returns:
      The items, those with a wrong entry or no WAV file too, with the problem; and a
      message for each WAV file that no entry names.

    Raises:
      InputError: examples.json can't be read or names no notes.
    """
    path = os.path.join(folder, LABELS_FILE)
    try:
        with open(path, "rb") as file:
            entries = parse_labels(file.read(), path)
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
    items = []
    for name, entry in entries.items():
        note, problem = entry_to_note(name, entry, path)
        wav = found.pop(name, None)
        if wav is None:
            wav = os.path.join(audio_folder, f"{name}.wav")
            problem = problem or f"{wav}: missing, though {LABELS_FILE} names it."
        items.append(Item(note, wav, print=stat_print(wav), problem=problem))
    return items, [f"{wav}: {path} has no entry for it." for wav in found.values()]


def parse_labels(content: bytes, where: str) -> dict[str, Any]:
    """The entries of an examples.json: note_str -> fields."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no valid JSON ({error}); {_ADVICE}.") from None
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{where}: names no notes; {_ADVICE}.")
    return entries


def entry_to_note(name: str, entry: object, where: str) -> tuple[Note, str]:
    """A note without audio from its entry in examples.json.

    Args:
      name: its note_str.
      entry: pitch, velocity, instrument_family, instrument_source and qualities must
        be in it; what else `Note` has is taken where it is there.
      where: the file, for the problem.

    Returns:
      The note, and "" or what is wrong with it, in one line.
    """
    empty = Note(note_str=name, audio=np.zeros(0, np.float32))

    def problem(what: str) -> tuple[Note, str]:
        return empty, f"{where}: the entry {name!r} {what}; {_ADVICE}."

    if not isinstance(entry, dict):
        return problem("is no table of fields")
    if missing := [k for k in (*_LARGEST, "qualities") if k not in entry]:
        return problem(f"lacks {', '.join(missing)}")
    for key, largest in _LARGEST.items():
        if not _is_int(entry[key], UNKNOWN, largest):
            return problem(f"has {key} {entry[key]!r}, not a number up to {largest}")
    qualities = entry["qualities"]
    if not isinstance(qualities, list) or len(qualities) != len(QUALITIES):
        return problem(f"has qualities that are not {len(QUALITIES)} numbers")
    if not all(_is_int(value, 0, 1) for value in qualities):
        return problem("has qualities other than 0 and 1")
    if entry.get("note_str", name) != name:
        return problem(f"has the note_str {entry['note_str']!r}")
    numbers = {key: entry.get(key, 0) for key in ("note", "instrument")}
    for key, value in numbers.items():
        if not _is_int(value, -_LARGEST_INT, _LARGEST_INT):
            return problem(f"has {key} {value!r}, not a number")
    instrument = entry.get("instrument_str", parse_note_str(name).get("instrument_str"))
    return Note(
        note_str=name,
        audio=empty.audio,
        instrument_str=str(instrument or ""),
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


def _is_int(value: object, smallest: int, largest: int) -> bool:
    # JSON's true would count as 1.
    return type(value) is int and smallest <= value <= largest
