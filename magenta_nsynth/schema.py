"""NSynth's notes: their labels, the words and numbers these are, and their names.

Source: the NSynth dataset's schema. Differs: -1 stands for a family, source, pitch or
velocity that is not known, which only a user's own notes have.
"""

import dataclasses
import re
from typing import TYPE_CHECKING

from magenta_nsynth.config import SAMPLE_RATE

if TYPE_CHECKING:  # --help does without
    import numpy as np

__all__ = ["FAMILIES", "QUALITIES", "SOURCES", "UNKNOWN", "Note", "parse_note_str"]

FAMILIES = (
    "bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed",
    "string", "synth_lead", "vocal",
)  # fmt: skip
SOURCES = ("acoustic", "electronic", "synthetic")
QUALITIES = (
    "bright", "dark", "distortion", "fast_decay", "long_release", "multiphonic",
    "nonlinear_env", "percussive", "reverb", "tempo-synced",
)  # fmt: skip
UNKNOWN = -1

_NOTE_STR = re.compile(r"(?P<instrument>.+)-(?P<pitch>\d{3})-(?P<velocity>\d{3})")
_INSTRUMENT = re.compile(
    rf"(?P<family>{'|'.join(FAMILIES)})_(?P<source>{'|'.join(SOURCES)})_(?P<number>\d+)"
)


def parse_note_str(note_str: str) -> dict[str, int | str]:
    """What a name in NSynth's form says: the fields of `Note` that it holds.

    Args:
      note_str: such as "bass_synthetic_033-022-050", or any "<instrument>-<pitch,
        three digits>-<velocity, three digits>".

    Returns:
      Of pitch, velocity, instrument_str, instrument_family and instrument_source
      those that the name says; {} for a name of another form.
    """
    match = _NOTE_STR.fullmatch(note_str)
    if match is None or int(match["pitch"]) > 127 or int(match["velocity"]) > 127:
        return {}
    fields: dict[str, int | str] = {
        "pitch": int(match["pitch"]),
        "velocity": int(match["velocity"]),
        "instrument_str": match["instrument"],
    }
    instrument = _INSTRUMENT.fullmatch(match["instrument"])
    if instrument is not None:
        fields["instrument_family"] = FAMILIES.index(instrument["family"])
        fields["instrument_source"] = SOURCES.index(instrument["source"])
    return fields


@dataclasses.dataclass(frozen=True)
class Note:
    """One note, with everything that NSynth says of it.

    Attributes:
      note_str: its name, e.g. "bass_synthetic_033-022-050". Unique in a dataset.
      audio: [n] float32 in [-1, 1] at 16 kHz.
      pitch: MIDI number, 0 to 127, or -1.
      velocity: 0 to 127, or -1.
      instrument_str: the note's instrument, e.g. "bass_synthetic_033".
      instrument_family: an index of `FAMILIES`, or -1.
      instrument_source: an index of `SOURCES`, or -1.
      qualities: ten of 0 and 1, in the order of `QUALITIES`.
      note: a number that is unique in the dataset.
      instrument: the instrument's number in the dataset.
      sample_rate: Hz.
    """

    note_str: str
    audio: "np.ndarray"
    pitch: int = UNKNOWN
    velocity: int = UNKNOWN
    instrument_str: str = ""
    instrument_family: int = UNKNOWN
    instrument_source: int = UNKNOWN
    qualities: tuple[int, ...] = (0,) * len(QUALITIES)
    note: int = 0
    instrument: int = 0
    sample_rate: int = SAMPLE_RATE

    @property
    def family_str(self) -> str:
        """The family's name; "unknown" where it is not known."""
        return _name(FAMILIES, self.instrument_family)

    @property
    def source_str(self) -> str:
        """The source's name; "unknown" where it is not known."""
        return _name(SOURCES, self.instrument_source)

    @property
    def qualities_str(self) -> list[str]:
        """The names of the qualities that the note has."""
        return [
            name for name, has in zip(QUALITIES, self.qualities, strict=True) if has
        ]


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if 0 <= index < len(names) else "unknown"
