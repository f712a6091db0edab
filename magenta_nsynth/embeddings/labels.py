"""What is known of a note, as files of embeddings say it: names in place of numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, UNKNOWN

__all__ = ["NoteLabels", "note_labels"]


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
