"""NSynth's words: its families, sources and qualities, and the form of its names.

Nothing here imports TensorFlow.
"""

import re

__all__ = ["FAMILIES", "QUALITIES", "SOURCES", "UNKNOWN", "parse_note_str"]

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
