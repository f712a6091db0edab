"""The embedding of one note, and the note's labels by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, UNKNOWN

__all__ = ["Embedding", "EmbeddingWriter", "NoteLabels"]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A note's embedding, and what is known about the note.

    Attributes:
      name: the stem of files that are made from it.
      where: its file, and its row if the file has several; for messages.
      rows: float32 [frames, 16] of a WaveNet, or [rows, 1984] of the baseline.
      num_samples: the length of its sound at 16 kHz.
      labels: the fields of `schema.Note` that are known.
      peak: the largest absolute sample of its sound; 1 if that is unknown.
      audio: [t] float32, the sound that was encoded, if it was kept.
    """

    name: str
    where: str
    rows: np.ndarray
    num_samples: int
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    peak: float = 1.0
    audio: np.ndarray | None = None

    @property
    def pitch(self) -> int:
        """The MIDI pitch, or -1."""
        return int(self.labels.get("pitch", UNKNOWN))


class EmbeddingWriter(Protocol):
    """Writes embeddings to one or several files."""

    def add(self, embedding: Embedding) -> None:
        """Adds a note."""
        ...


class NoteLabels(NamedTuple):
    """A note's labels by name, as files of embeddings contain them.

    Attributes:
      note_str: the note's id.
      pitch: MIDI, or -1.
      velocity: 0 to 127, or -1.
      instrument_family: one of `FAMILIES`, or "".
      instrument_source: one of `SOURCES`, or "".
      qualities: the note's qualities, from `QUALITIES`.
    """

    note_str: str
    pitch: int
    velocity: int
    instrument_family: str
    instrument_source: str
    qualities: tuple[str, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "NoteLabels":
        """Names the labels of a note.

        Args:
          fields: the fields of `schema.Note` that are known. A number outside the
            schema's range counts as unknown.
        """
        has = fields.get("qualities", ())
        return cls(
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
