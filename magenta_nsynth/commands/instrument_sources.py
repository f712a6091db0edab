"""The sources of an instrument: one to four sounds, each at one or several pitches."""

import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio
from magenta_nsynth.audio.pitch import cents_off, fundamental
from magenta_nsynth.audio.resample import resample
from magenta_nsynth.commands.generate import distinct
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import Source, expand, find_sources
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.sound_labels import SoundLabels
from magenta_nsynth.schema import UNKNOWN
from magenta_nsynth.stores import storage

__all__ = ["MIDDLE", "Corner", "Note", "find_corners", "note_of"]

_FINISHED = "sounds"  # the folder of the samples, in the output folder
_MOST_SOURCES = 4
_PIANO = range(21, 109)
MIDDLE = 60  # the pitch of a sound that has none
# What a name says of the pitch, at its end.
_PITCH_PART = re.compile(
    r"[\W_]*(?:\d{3}-\d{3}|(?:midi|pitch)?[ _-]?\d{1,3}|"
    r"(?<![^\W_])[A-G](?:#|♯|b|♭|s)?-?\d)\Z",
    re.IGNORECASE,
)


class Corner(NamedTuple):
    """A source: the sound in one corner of the square.

    Attributes:
      name: for people.
      sounds: the path and the samples, [t] float32, of each pitch, ascending.
      pitches: those pitches, without that of a sound that has none.
    """

    name: str
    sounds: dict[int, tuple[str, np.ndarray]]
    pitches: set[int]


class Note(NamedTuple):
    """A source at one pitch of the instrument, ready to be encoded.

    Attributes:
      corner: its source's number.
      path: the file it is made of.
      made_of: that file's pitch.
      pitch: the pitch to generate.
      rate: the factor of the playback rate; 1 if the pitch is the file's own, or if
        the model transposes.
      audio: [t] float32.
    """

    corner: int
    path: str
    made_of: int
    pitch: int
    rate: float
    audio: np.ndarray

    @property
    def digest(self) -> str:
        """A checksum of the samples."""
        return hashlib.sha256(self.audio.tobytes()).hexdigest()


def find_corners(
    paths: Sequence[str | os.PathLike[str]], rules: NameRules, save_path: str
) -> list[Corner]:
    """Reads the sources of an instrument.

    Args:
      paths: one to four; each a sound, or a folder or glob of one sound at several
        pitches.
      rules: how pitches are read from names. Where a name and a unity note say
        nothing, a number at the end of the name counts, then the fundamental.
      save_path: the output folder, whose samples can't be sources.

    Raises:
      InputError: another number of sources, nothing to read, or a source that the
        instrument's samples could replace.
      AudioError: a sound that can't be read.
    """
    given = [os.fspath(path) for path in paths if os.fspath(path)]
    if not given:
        raise InputError(
            "Nothing to read: give --source_path, a sound or a folder of one sound at "
            "several pitches; repeat it for up to four sources."
        )
    if len(given) > _MOST_SOURCES:
        raise InputError(
            f"These are {len(given)} sources, and a square has four corners; give one "
            "to four, each a sound or a folder of one sound at several pitches."
        )
    advice = "Give a folder that holds sounds itself; subfolders are not read."
    found = [find_sources([p], AUDIO_EXTENSIONS, advice=advice) for p in given]
    _refuse_outputs(itertools.chain(*found), save_path)
    names = [_name(path, its) for path, its in zip(given, found, strict=True)]
    return [
        _corner(name, its, rules)
        for name, its in zip(distinct(names), found, strict=True)
    ]


def _refuse_outputs(sources: Iterable[Source], save_path: str) -> None:
    """Raises InputError for a source where samples are written, which replace it."""
    own = storage.realpath(storage.join(expand(save_path), _FINISHED))
    for source in sources:
        if os.path.dirname(storage.realpath(source.path)) == own:
            raise InputError(
                f"{source.path}: is where this instrument's samples are written; "
                "give another --save_path."
            )


def _name(path: str, found: Sequence[Source]) -> str:
    """What people call a source: the folder's name, or the file's without pitch."""
    path = expand(path)
    if storage.isdir(path):
        return os.path.basename(storage.realpath(path)) or "sounds"
    return _PITCH_PART.sub("", found[0].stem) or found[0].stem


def _corner(name: str, found: Sequence[Source], rules: NameRules) -> Corner:
    labels = SoundLabels(found, rules)
    numbers = SoundLabels(found, NameRules("midi", rules.middle_c))
    sounds: dict[int, tuple[str, np.ndarray]] = {}
    loudest: dict[int, int] = {}
    pitches: set[int] = set()
    for source in found:
        audio = read_audio(source.path)
        fields = labels.of(source).fields
        pitch = fields.get("pitch", UNKNOWN)
        if pitch == UNKNOWN and rules.pitch_from_name == "auto":
            pitch = numbers.of(source).fields.get("pitch", UNKNOWN)
            pitch = pitch if pitch in _PIANO else UNKNOWN
        if pitch == UNKNOWN:
            pitch = _heard(source.path, audio)
        if pitch == UNKNOWN:
            pitch = MIDDLE
        else:
            pitches.add(pitch)
        velocity = fields.get("velocity", UNKNOWN)
        if pitch in sounds:
            kept, left_out = sounds[pitch][0], source.path
            if velocity > loudest[pitch]:
                kept, left_out = left_out, kept
            logging.info(
                "%s is left out: %s has the same pitch, %d.", left_out, kept, pitch
            )
            if kept != source.path:
                continue
        sounds[pitch], loudest[pitch] = (source.path, audio), velocity
    return Corner(name, dict(sorted(sounds.items())), pitches)


def _heard(path: str, audio: np.ndarray) -> int:
    """The pitch of a sound whose name says nothing; UNKNOWN if it has none."""
    hz = fundamental(audio)
    if math.isnan(hz):
        logging.warning("%s: has no clear pitch; it is taken to be %d.", path, MIDDLE)
        return UNKNOWN
    pitch = round(69 + 12 * math.log2(hz / 440))
    logging.info(
        "%s: its name has no pitch; by its fundamental of %.1f Hz it is %d (%+d "
        "cents).",
        *(path, hz, pitch, round(cents_off(hz, pitch))),
    )
    return pitch


def note_of(
    corners: Sequence[Corner],
    number: int,
    pitch: int,
    num_samples: int,
    transposes: bool,
) -> Note:
    """A source at a pitch: its own sound of it, or the nearest one.

    Args:
      corners: all sources.
      number: of the source.
      pitch: the wanted pitch.
      num_samples: the length. A longer sound is cut, a shorter one is continued by
        silence.
      transposes: whether the model generates any pitch of a sound; if not, the sound
        is played faster or slower.
    """
    corner = corners[number]
    nearest = min(corner.sounds, key=lambda own: (abs(own - pitch), own))
    path, audio = corner.sounds[nearest]
    rate = 1.0
    if nearest != pitch and transposes:
        logging.info(
            "%s has no pitch %d: the model makes it of %d.", corner.name, pitch, nearest
        )
    elif nearest != pitch:
        rate = 2 ** ((pitch - nearest) / 12)
        logging.info(
            "%s has no pitch %d: it is made of %d, played at %.3f times its rate.",
            *(corner.name, pitch, nearest, rate),
        )
        audio = resample(audio, round(SAMPLE_RATE * rate))
    if len(audio) > num_samples:
        logging.info(
            "%s at %d: the first %.2f of %.2f s are used.",
            *(corner.name, pitch, num_samples / SAMPLE_RATE, len(audio) / SAMPLE_RATE),
        )
    audio = np.pad(audio[:num_samples], (0, max(0, num_samples - len(audio))))
    return Note(number, path, nearest, pitch, rate, audio)
