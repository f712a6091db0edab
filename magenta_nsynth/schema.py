"""NSynth's notes: their labels, the values of these, and their names.

Source: the NSynth dataset's schema. Differs: -1 means an unknown family, source, pitch
or velocity, which only a user's own notes have.
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
    """Parses a name in NSynth's form into fields of `Note`.

    Args:
      note_str: such as "bass_synthetic_033-022-050": an instrument, then pitch and
        velocity in three digits each.

    Returns:
      pitch, velocity and instrument_str; instrument_family and instrument_source too
      if the instrument is named as NSynth's are. {} for a name of another form.

    Examples:
      >>> from magenta_nsynth.schema import parse_note_str
      >>> parse_note_str("piano-060-100")
      {'pitch': 60, 'velocity': 100, 'instrument_str': 'piano'}
      >>> parse_note_str("piano C4")
      {}
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
    """One note with all of NSynth's labels.

    Attributes:
      note_str: its name, such as "bass_synthetic_033-022-050". Unique in a dataset.
      audio: [n] float32 in [-1, 1] at 16 kHz.
      pitch: MIDI number, 0 to 127, or -1.
      velocity: 0 to 127, or -1.
      instrument_str: its instrument, such as "bass_synthetic_033".
      instrument_family: an index into `FAMILIES`, or -1.
      instrument_source: an index into `SOURCES`, or -1.
      qualities: 0 or 1 for each of `QUALITIES`.
      note: its number, unique in the dataset.
      instrument: the instrument's number in the dataset.
      sample_rate: in Hz.
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
        """The family's name, or "unknown"."""
        return _name(FAMILIES, self.instrument_family)

    @property
    def source_str(self) -> str:
        """The source's name, or "unknown"."""
        return _name(SOURCES, self.instrument_source)

    @property
    def qualities_str(self) -> list[str]:
        """The names of the note's qualities."""
        return [
            name for name, has in zip(QUALITIES, self.qualities, strict=True) if has
        ]


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if 0 <= index < len(names) else "unknown"
