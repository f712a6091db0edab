"""Labels from the names of the user's own sound files and their folders.

A note name must be a separate word, and not be a model after a maker's name (Hammond
B3, Yamaha C7). If a name has several, the one that differs between the files of a
folder is the pitch. A number is a pitch if files differ only in such numbers, all of
them within a piano's range.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from magenta_nsynth.errors import InputError
from magenta_nsynth.options import option
from magenta_nsynth.schema import FAMILIES, SOURCES, UNKNOWN, parse_note_str

__all__ = [
    "MIDDLE_C",
    "NOTE_NAME",
    "NOT_KNOWN",
    "Fields",
    "Labels",
    "NameRules",
    "family_number",
    "labels_from_names",
    "pitch_number",
    "refuse_rules",
    "source_number",
]

_PITCH_FROM_NAME = ("auto", "note", "midi", "none")
MIDDLE_C = ("C3", "C4", "C5")

Fields = dict[str, Any]  # fields of `schema.Note`, each of its own type

# Where a pitch or family comes from, for summaries.
NOT_KNOWN = "not known"
NOTE_NAME = "note name"
_NSYNTH = "NSynth's name"
_MIDI_WORD = "midi or pitch with a number"
_NUMBER = "MIDI number at the end of the name"
_FOLDER = "folder"

_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SIGNS = {"#": 1, "♯": 1, "s": 1, "b": -1, "♭": -1, "": 0}
# Separate words only: not the "e2" of "take2". The number of a layer may follow, as in
# A0v1. Es4 is not a note: E sharp here, E flat in German.
_NOTE_NAME = re.compile(
    r"(?<![^\W_])([A-G])([#♯b♭]|(?<=[ACDFG])s)?(-[12]|10|\d)"
    r"(?=(?:vel|v|rr)\d|(?![^\W_]))(?!\.\d)",
    re.IGNORECASE,
)
_MIDI = re.compile(r"(?<![^\W_])(?:midi|pitch)[ _-]?(\d{1,3})(?![^\W_])", re.I)
_END_NUMBER = re.compile(r"(?P<sound>|.*[^\W\d_][^\W_]*[\W_]+)(?P<number>\d{1,3})")

# Makers whose models have names like notes.
_MAKER = (
    r"(?:hammond|yamaha|korg|roland|nord|clavia|kawai|casio|technics|elektron|gibson|"
    r"alesis|e-?mu|zoom|audix|akg)"
)
_BEHIND_MAKER = re.compile(
    rf"(?<![^\W_]){_MAKER}(?:[\W_]+(?:organ|piano|grand|concert|stage|model))*[\W_]*",
    re.IGNORECASE,
)
# But not "C4 Hammond B3": the model after the maker is the only one.
_BEFORE_MAKER = re.compile(
    rf"[\W_]+{_MAKER}(?![^\W_])(?![\W_]+[A-Z]+[\W_]?\d)", re.IGNORECASE
)
_MODEL_FIRST = re.compile(
    r"(?:[bc]3[\W_]+organ|c7[\W_]+(?:concert[\W_]+)?grand)(?![^\W_])", re.IGNORECASE
)
_MOST_MODELS = 4  # after the same words in a folder; more are notes
_CHORD = re.compile(r"(?<![^\W_])chords?(?![^\W_])", re.IGNORECASE)
# Words before numbers that are not notes.
_COUNTED = re.compile(
    r"(?:take|track|rec|recording|mic|layer|part|version|vel|velocity|bpm|tempo|beat|"
    r"loop|vol|volume|amp|gain|hit|kick|snare|clap|tom|ride|crash|hat|hihat|cymbal|"
    r"perc|audio|sample|sound|file|page)[\W_]+",
    re.IGNORECASE,
)
_PIANO = range(21, 109)
_VELOCITIES = (25, 50, 75, 100, 127)  # NSynth's


@dataclasses.dataclass(frozen=True)
class NameRules:
    """How pitches are read from the names of sounds.

    Attributes:
      pitch_from_name: "auto" guesses what is meant; "note" takes every note name, even
        a maker's model; "midi" takes every number at the end of a name; "none" takes
        nothing.
      middle_c: one of `MIDDLE_C`: what names call MIDI note 60.
    """

    pitch_from_name: str = option(
        "auto",
        "Where to find a sound's pitch in its file name. auto: note names, but not "
        "models such as Hammond B3, and numbers in a series such as piano_60, "
        "piano_64; note: every note name; midi: every number at the end; none: "
        "nowhere. If the name has no pitch, the file's unity note (smpl chunk) is "
        "used.",
        choices=_PITCH_FROM_NAME,
    )
    middle_c: str = option("C4", "What file names call MIDI note 60.", choices=MIDDLE_C)


class Labels(NamedTuple):
    """The labels of a sound.

    Attributes:
      fields: the known fields of `Note`.
      pitch_from: where the pitch comes from.
      family_from: where the family comes from.
    """

    fields: Fields
    pitch_from: str = NOT_KNOWN
    family_from: str = NOT_KNOWN


class _Spelt(NamedTuple):
    """A note name in a file's name."""

    text: str
    pitch: int
    frame: str  # the letters before it
    is_suspect: bool  # it may be a model's name


def refuse_rules(rules: NameRules | None, where: str) -> None:
    """Raises InputError if rules were given for a dataset with its own pitches."""
    for field in dataclasses.fields(NameRules):
        value = getattr(rules or NameRules(), field.name)
        if value != field.default:
            raise InputError(
                f"--{field.name}={value} is for the names of sounds, but {where} has "
                "its notes' pitches; leave it out."
            )


def family_number(name: str) -> int:
    """The index of a family's name, in any case, with spaces or hyphens; or -1."""
    return _index(FAMILIES, name)


def source_number(name: str) -> int:
    """As `family_number` for a source: "acoustic", "electronic" or "synthetic"."""
    return _index(SOURCES, name)


def _index(names: tuple[str, ...], name: str) -> int:
    plain = re.sub(r"[\s_-]+", "_", name.strip().casefold())
    return names.index(plain) if plain in names else UNKNOWN


def pitch_number(text: str, middle_c: str = "C4") -> int:
    """The pitch that a text names, as a MIDI number.

    Args:
      text: contains, as a separate word, a note name such as C4, F#3, Fs3, Bb2 or c#-1,
        or a MIDI number such as midi60, midi_060 or pitch-60.
      middle_c: what it calls MIDI note 60.

    Returns:
      0 to 127; -1 if it names no pitch, or different ones.

    Examples:
      >>> from magenta_nsynth.notes.naming import pitch_number
      >>> pitch_number("piano F#3"), pitch_number("midi_60"), pitch_number("piano")
      (54, 60, -1)
    """
    pitches = _midi_words(text) | {note.pitch for note in _spelt(text, middle_c)}
    return pitches.pop() if len(pitches) == 1 else UNKNOWN


def labels_from_names(
    places: Sequence[tuple[tuple[str, ...], str]], rules: NameRules
) -> list[Labels]:
    """The labels of the sounds of one folder, from the names of files and folders.

    Args:
      places: for each file, the folders it is in, at least one, from the one that the
        user named down; and its name without the extension.
      rules: how pitches are read.

    Returns:
      Labels for each file, with at least note_str and instrument_str. The family is
      from the first folder with a family's name. A name in NSynth's form,
      <instrument>-<pitch>-<velocity>, is the note_str and gives most labels.
    """
    stems = [stem for _, stem in places]
    nsynth = _nsynth_names(stems, rules)
    pitches = _pitches(places, rules)
    result = []
    for (folders, stem), (pitch, pitch_from) in zip(places, pitches, strict=True):
        fields: Fields = {"instrument_str": "_".join(folders)}
        fields["note_str"] = f"{fields['instrument_str']}_{stem}"
        families = [n for n in map(family_number, folders) if n != UNKNOWN]
        fields["instrument_family"] = families[0] if families else UNKNOWN
        family_from = _FOLDER if families else NOT_KNOWN
        if stem in nsynth:
            named = nsynth[stem]
            if "instrument_family" in named:
                family_from = _NSYNTH
            if rules.pitch_from_name != "none":
                pitch, pitch_from = int(named["pitch"]), _NSYNTH
            fields |= {**named, "note_str": stem}
        fields["pitch"] = pitch
        result.append(Labels(fields, pitch_from, family_from))
    return result


def _nsynth_names(
    stems: Sequence[str], rules: NameRules
) -> dict[str, dict[str, int | str]]:
    """The fields in names of NSynth's form, unless the form is a coincidence.

    Other instruments than NSynth's count only if all of their velocities are NSynth's
    and no pitch is below a piano's: recording-012-003 is not a note.
    """
    parsed = {stem: fields for stem in stems if (fields := parse_note_str(stem))}
    if rules.pitch_from_name == "midi":
        return parsed
    doubtful = {
        fields["instrument_str"]
        for fields in parsed.values()
        if "instrument_family" not in fields
        and (
            fields["velocity"] not in _VELOCITIES or int(fields["pitch"]) < _PIANO.start
        )
    }
    return {
        stem: fields
        for stem, fields in parsed.items()
        if fields["instrument_str"] not in doubtful
    }


def _pitches(
    places: Sequence[tuple[tuple[str, ...], str]], rules: NameRules
) -> list[tuple[int, str]]:
    """The pitch of each file, and where in its name it comes from."""
    if rules.pitch_from_name == "none":
        return [(UNKNOWN, NOT_KNOWN)] * len(places)
    stems = [stem for _, stem in places]
    words = [_midi_words(stem) for stem in stems]
    found = {
        _MIDI_WORD: [w.copy().pop() if len(w) == 1 else UNKNOWN for w in words],
        NOTE_NAME: _by_note_names(places, rules),
        _NUMBER: _by_numbers(stems, rules.pitch_from_name == "midi"),
    }
    order = [_MIDI_WORD, NOTE_NAME, _NUMBER]
    if rules.pitch_from_name == "midi":
        order = [_MIDI_WORD, _NUMBER, NOTE_NAME]
    result = []
    for i in range(len(places)):
        pairs = ((found[kind][i], kind) for kind in order)
        known = (pair for pair in pairs if pair[0] != UNKNOWN)
        result.append(next(known, (UNKNOWN, NOT_KNOWN)))
    return result


def _midi_words(text: str) -> set[int]:
    pitches = {int(match[1]) for match in _MIDI.finditer(text)}
    return {pitch for pitch in pitches if pitch <= 127}


def _spelt(text: str, middle_c: str) -> list[_Spelt]:
    """The note names in a text."""
    notes = []
    for match in _NOTE_NAME.finditer(text):
        letter, sign, octave = match.groups(default="")
        semitone = _SEMITONES[letter.lower()] + _SIGNS[sign.lower()]
        pitch = 60 + 12 * (int(octave) - int(middle_c[1:])) + semitone
        if not 0 <= pitch <= 127:
            continue
        before, rest = text[: match.start()], text[match.start() :]
        makers = list(_BEHIND_MAKER.finditer(before))
        is_suspect = (
            bool(makers and makers[-1].end() == len(before))
            or _BEFORE_MAKER.match(text, match.end()) is not None
            or _MODEL_FIRST.match(rest) is not None
            or ("-" in octave and pitch < _PIANO.start)  # "take A-1"
        )
        frame = re.sub(r"[\W\d_]+", " ", before).casefold()
        notes.append(_Spelt(match[0].casefold(), pitch, frame, is_suspect))
    return notes


def _by_note_names(
    places: Sequence[tuple[tuple[str, ...], str]], rules: NameRules
) -> list[int]:
    """For each file, the pitch of the note name in its name, or -1."""
    notes = [_spelt(stem, rules.middle_c) for _, stem in places]
    if rules.pitch_from_name != "note":
        notes = _without_models(places, notes, rules)
    # Names of one kind have the same number of notes, after the same words.
    kinds = [(row[0].frame, len(row)) if row else None for row in notes]
    pitches = collections.defaultdict(set)
    for kind, row in zip(kinds, notes, strict=True):
        for i, note in enumerate(row):
            pitches[kind, i].add(note.pitch)
    chosen: list[_Spelt | None] = []
    models = set()
    for kind, row in zip(kinds, notes, strict=True):
        if len({note.pitch for note in row}) > 1:
            differing = [n for i, n in enumerate(row) if len(pitches[kind, i]) > 1]
            if len(differing) == 1:
                models |= {n[:3] for n in row if n not in differing}
            row = differing if len(differing) == 1 else []
        chosen.append(row[0] if row else None)
    return [
        UNKNOWN if note is None or note[:3] in models else note.pitch for note in chosen
    ]


def _without_models(
    places: Sequence[tuple[tuple[str, ...], str]],
    notes: list[list[_Spelt]],
    rules: NameRules,
) -> list[list[_Spelt]]:
    """The note names, except those of an instrument's model or of a chord."""
    at = collections.defaultdict(set)
    for row in notes:
        for note in row:
            at[note.frame].add(note.pitch)
    result = []
    for (folders, stem), row in zip(places, notes, strict=True):
        above = "/".join(folders)
        models = {
            note.text for note in _spelt(above, rules.middle_c) if note.is_suspect
        }
        kept = [
            note
            for note in row
            if len(at[note.frame]) > _MOST_MODELS
            or not (note.is_suspect or note.text in models)
        ]
        result.append([] if _CHORD.search(f"{above}/{stem}") else kept)
    return result


def _by_numbers(stems: Sequence[str], believed: bool) -> list[int]:
    """For each file, the number at the end of its name, if that is a pitch, or -1.

    It is a pitch if it is `believed`, or if the same name occurs with several numbers,
    all of them within a piano's range.
    """
    matches = [_END_NUMBER.fullmatch(stem) for stem in stems]
    numbers = collections.defaultdict(set)
    for found in filter(None, matches):
        numbers[found["sound"].casefold()].add(int(found["number"]))
    result = []
    for match in matches:
        pitch = int(match["number"]) if match else UNKNOWN
        if not believed and match:
            sound = match["sound"].casefold()
            several = numbers[sound]
            words = re.split(r"(?<=[\W_])(?=[^\W_])", sound)
            is_meant = len(several) > 1 and all(n in _PIANO for n in several)
            if not (is_meant and sound) or _COUNTED.fullmatch(words[-1]):
                pitch = UNKNOWN
        result.append(pitch if pitch <= 127 else UNKNOWN)
    return result
