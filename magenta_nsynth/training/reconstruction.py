"""How good reconstructions of notes are: pitch, level and spectrum, in numbers."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from magenta_nsynth.audio.comparison import (
    level_difference,
    noise_like,
    spectral_distance,
)
from magenta_nsynth.audio.pitch import cents_off, fundamental
from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.schema import UNKNOWN
from magenta_nsynth.training.summaries import Summaries

__all__ = ["CONSTANT", "NOISE", "ORIGINAL", "RECONSTRUCTION", "Reconstructions"]

ORIGINAL, RECONSTRUCTION = "original", "reconstruction"
NOISE, CONSTANT = "noise", "constant"
_IN_TUNE = 50.0  # cents
_OCTAVE = 1200.0
_SHOWN_NOTES = 3  # in summaries


@dataclasses.dataclass(frozen=True)
class _Sound:
    """The figures of one sound.

    Attributes:
      hz: its fundamental; NaN if it has none.
      cents: how far that is above the note's pitch; NaN if either is unknown.
      level_db: from `level_difference` to the note.
      spectral_db: from `spectral_distance` to the note.
    """

    hz: float
    cents: float
    level_db: float
    spectral_db: float


@dataclasses.dataclass
class Reconstructions:
    """The figures of notes and of their reconstructions.

    Attributes:
      names: each note's id.
      families: each note's index in `FAMILIES`, or another number.
      pitches: each note's MIDI pitch, or -1.
      first: the first notes and their reconstructions, to listen to.
    """

    names: list[str] = dataclasses.field(default_factory=list)
    families: list[int] = dataclasses.field(default_factory=list)
    pitches: list[int] = dataclasses.field(default_factory=list)
    first: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)
    _sounds: dict[str, list[_Sound]] = dataclasses.field(default_factory=dict)

    def add(self, note: Clip, reconstruction: np.ndarray) -> None:
        """Measures a note.

        Args:
          note: the part that was reconstructed, and the note's labels.
          reconstruction: [t] float32 at 16 kHz, of the same length.
        """
        if len(self.first) < _SHOWN_NOTES:
            self.first.append((note.audio, reconstruction))
        pitch = int(note.labels.get("pitch", UNKNOWN))
        pitch = pitch if 0 <= pitch < NUM_PITCHES else UNKNOWN
        noise = noise_like(note.audio, seed=len(self.names))
        self.names.append(note.labels.get("note_str", ""))
        self.families.append(int(note.labels.get("instrument_family", UNKNOWN)))
        self.pitches.append(pitch)
        sounds = {ORIGINAL: note.audio, RECONSTRUCTION: reconstruction, NOISE: noise}
        for kind, sound in sounds.items():
            figures = _measure(sound, note.audio, pitch)
            self._sounds.setdefault(kind, []).append(figures)

    @property
    def constant_pitch(self) -> int | None:
        """The pitch that most notes have; None if no pitch is known."""
        known = [pitch for pitch in self.pitches if pitch != UNKNOWN]
        return int(np.bincount(known).argmax()) if known else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """What `figures` knows: original, reconstruction, noise and constant."""
        kinds = (ORIGINAL, RECONSTRUCTION, NOISE)
        return kinds if self.constant_pitch is None else (*kinds, CONSTANT)

    def figures(self, kind: str, notes: Sequence[int] | None = None) -> dict[str, Any]:
        """The figures of some notes together.

        Args:
          kind: `ORIGINAL`, `RECONSTRUCTION`, `NOISE` (white, with the note's envelope),
            or `CONSTANT`: a tone that always has `constant_pitch`.
          notes: their numbers, one or more; None means all.

        Returns:
          By name, as a share of the notes whose pitch is known: "in_tune", within 50
          cents; "octave_off", within 50 cents of another octave; "no_pitch", without a
          fundamental. "clear_in_tune": in tune, as a share of the notes whose original
          is. "cents_off": the median distance from the pitch, of the sounds with a
          fundamental. "level_db" and "spectral_db": means over all notes. A number that
          does not exist is None.
        """
        numbers = range(len(self.names)) if notes is None else notes
        chosen = [i for i in numbers if self.pitches[i] != UNKNOWN]
        cents = self._cents(kind)[chosen]
        is_clear = _in_tune(self._cents(ORIGINAL)[chosen])
        to_octave = np.abs(cents - _OCTAVE * np.round(cents / _OCTAVE))
        in_tune = _in_tune(cents)
        sounds = [] if kind == CONSTANT else [self._sounds[kind][i] for i in numbers]
        values = {
            "in_tune": _mean(in_tune),
            "clear_in_tune": _mean(in_tune[is_clear]),
            "octave_off": _mean((to_octave <= _IN_TUNE) & ~in_tune),
            "no_pitch": _mean(np.isnan(cents)),
            "cents_off": _median(np.abs(cents[~np.isnan(cents)])),
            "level_db": _mean([sound.level_db for sound in sounds]),
            "spectral_db": _mean([sound.spectral_db for sound in sounds]),
        }
        return {name: _number(value) for name, value in values.items()}

    def _cents(self, kind: str) -> np.ndarray:
        if kind == CONSTANT:
            constant = self.constant_pitch or 0
            return 100.0 * (constant - np.array(self.pitches))
        return np.array([sound.cents for sound in self._sounds[kind]])

    def note(self, number: int) -> dict[str, Any]:
        """All that is known of one note, as JSON values."""
        pitch = self.pitches[number]
        sounds = {
            kind: {
                "hz": _number(sounds[number].hz),
                "cents_off": _number(sounds[number].cents),
                "level_db": _number(sounds[number].level_db),
                "spectral_db": _number(sounds[number].spectral_db),
            }
            for kind, sounds in self._sounds.items()
        }
        return {
            "note": self.names[number],
            "pitch": None if pitch == UNKNOWN else pitch,
            **sounds,
        }

    def describe(self) -> str:
        """The reconstructions' figures in one line."""
        figures = self.figures(RECONSTRUCTION)
        words = [f"{len(self.names)} reconstructions"]
        if figures["in_tune"] is not None:
            words.append(f"{100 * figures['in_tune']:.0f} % in tune")
        words.append(f"level {figures['level_db']:.1f} dB off")
        words.append(f"spectrum {figures['spectral_db']:.1f} dB")
        return ", ".join(words)

    def summarise(self, summaries: Summaries, step: int) -> None:
        """Writes the figures, and the first notes as sounds, to summaries."""
        values = {
            f"reconstruct/{kind}/{name}": value
            for kind in self.kinds
            for name, value in self.figures(kind).items()
            if value is not None
        }
        summaries.scalars(step, values)
        longest = max(len(note) for note, _ in self.first)
        pairs = zip(*self.first, strict=True)
        for kind, sounds in zip((ORIGINAL, RECONSTRUCTION), pairs, strict=True):
            padded = [np.pad(sound, (0, longest - len(sound))) for sound in sounds]
            summaries.sounds(step, {f"reconstruct/generated_{kind}": np.stack(padded)})


def _measure(sound: np.ndarray, note: np.ndarray, pitch: int) -> _Sound:
    hz = fundamental(sound)
    return _Sound(
        hz,
        math.nan if pitch == UNKNOWN else cents_off(hz, pitch),
        level_difference(sound, note),
        spectral_distance(sound, note),
    )


def _in_tune(cents: np.ndarray) -> np.ndarray:
    return np.abs(cents) <= _IN_TUNE  # False for NaN


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
