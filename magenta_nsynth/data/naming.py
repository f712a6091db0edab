"""What the names of one's own sound files and their folders say of a note."""

import re

from magenta_nsynth.data.schema import FAMILIES, SOURCES, UNKNOWN, parse_note_str

__all__ = ["family_number", "labels_from_name", "pitch_number", "source_number"]

_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SIGNS = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}
# As words of their own: not the "e2" of "take2".
_NOTE_NAME = re.compile(
    r"(?<![^\W_])([A-Ga-g])([#♯b♭]?)(-1|\d)(?![^\W_])(?!\.\d)",
)
_MIDI = re.compile(r"(?<![^\W_])(?:midi|pitch)[ _-]?(\d{1,3})(?![^\W_])", re.I)


def family_number(name: str) -> int:
    """The index of a family by its name, in any case, with spaces or hyphens; or -1."""
    return _index(FAMILIES, name)


def source_number(name: str) -> int:
    """The same for a source: "acoustic", "electronic" or "synthetic"."""
    return _index(SOURCES, name)


def _index(names: tuple[str, ...], name: str) -> int:
    plain = re.sub(r"[\s_-]+", "_", name.strip().casefold())
    return names.index(plain) if plain in names else UNKNOWN


def pitch_number(text: str) -> int:
    """The one pitch that a text names, as a MIDI number.

    Args:
      text: holds, as a word of its own, a note name such as C4, F#3, Bb2 or c#-1 (C4
        is 60), or a MIDI number such as midi60, midi_060 or pitch-60.

    Returns:
      0 to 127; -1 if it names none, or several that differ.
    """
    pitches = {int(match[1]) for match in _MIDI.finditer(text)}
    for letter, sign, octave in _NOTE_NAME.findall(text):
        semitone = _SEMITONES[letter.lower()] + _SIGNS[sign]
        pitches.add(12 * (int(octave) + 1) + semitone)
    pitches = {pitch for pitch in pitches if 0 <= pitch <= 127}
    return pitches.pop() if len(pitches) == 1 else UNKNOWN


def labels_from_name(folders: tuple[str, ...], stem: str) -> dict[str, int | str]:
    """What a file's place and name say of its note.

    Args:
      folders: the folders that it lies in, from the named source down; at least one.
      stem: its name without the extension. In NSynth's form,
        <instrument>-<pitch>-<velocity>, it is the note's name and says most of it.

    Returns:
      Of the fields of `Note` those that are known; always note_str and
      instrument_str. The first folder with a family's name says the family.
    """
    families = [n for n in map(family_number, folders) if n != UNKNOWN]
    labels: dict[str, int | str] = {"instrument_str": "_".join(folders)}
    labels["note_str"] = f"{labels['instrument_str']}_{stem}"
    labels["instrument_family"] = families[0] if families else UNKNOWN
    named = parse_note_str(stem)
    if named:
        return labels | named | {"note_str": stem}
    return labels | {"pitch": pitch_number(stem)}
