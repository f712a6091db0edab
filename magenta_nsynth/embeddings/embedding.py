"""The embedding of one note with the note's labels, and its array on disk."""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, open_file
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, UNKNOWN
from magenta_nsynth.stores import storage

__all__ = [
    "Embedding",
    "EmbeddingWriter",
    "NoteLabels",
    "array_summary",
    "check_encoding",
    "check_finite",
    "check_z",
    "load_array",
    "save_array",
]


@dataclasses.dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        pitch = f", pitch {self.pitch}" if self.pitch != UNKNOWN else ""
        return (
            f"<Embedding {self.name!r}: {array_summary(self.rows)}, "
            f"{self.num_samples:,} samples{pitch}>"
        )

    @property
    def pitch(self) -> int:
        """The MIDI pitch, or -1."""
        return int(self.labels.get("pitch", UNKNOWN))


def array_summary(array: np.ndarray) -> str:
    """An array's type and shape, such as "float32 [125, 16]"."""
    return f"{array.dtype} {list(array.shape)}"


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


def load_array(path: str, in_memory: bool = True) -> np.ndarray:
    """Reads the array of a .npy file.

    Args:
      path: the file.
      in_memory: False maps the file to memory, so that parts are read when used.

    Raises:
      InputError: it can't be read, or is not a .npy file.
    """
    try:
        with open_file(path) as file:  # refuses a pipe, for which NumPy would wait
            if storage.is_remote(path):
                return np.load(file, allow_pickle=False)
            return np.load(path, None if in_memory else "r", allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: can't be read ({reason}).") from None
    except Exception as error:  # a damaged header can raise almost any error
        reason = (str(error).splitlines() or [""])[0][:100]
        raise InputError(
            f"{path}: not a .npy array, or damaged ({reason}); save it again with "
            "np.save."
        ) from None


def check_encoding(
    encoding: np.ndarray, num_channels: int | None, name: str = "the encoding"
) -> np.ndarray:
    """Checks a WaveNet's embedding of one clip: [frames, bottleneck] float32.

    Args:
      encoding: [frames, bottleneck] or [1, frames, bottleneck] numbers.
      num_channels: the decoder's bottleneck width; None accepts any.
      name: its name in errors.

    Raises:
      InputError: another shape, no frames, not numbers, NaN or infinity.
    """
    encoding = np.asarray(encoding)
    if encoding.ndim == 3 and len(encoding) == 1:
        encoding = encoding[0]
    if encoding.ndim == 3:
        raise InputError(
            f"{name}: contains {len(encoding)} clips (shape {encoding.shape}) instead "
            "of one; save each as an array [frames, channels]."
        )
    wanted = encoding.shape[-1:] if num_channels is None else (num_channels,)
    if encoding.ndim != 2 or not encoding.size or encoding.shape[1:] != wanted:
        expected = (
            "an embedding has shape [frames, channels]"
            if num_channels is None
            else f"an embedding for these weights has shape [frames, {num_channels}]"
        )
        raise InputError(f"{name}: {expected}, not {list(encoding.shape)}.")
    if encoding.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected numbers, got {encoding.dtype}.")
    return _finite_float32(encoding, name)


def check_z(z: Any, num_latent: int, name: str = "z") -> np.ndarray:
    """Checks the baseline's embedding of one or several clips: [k, num_latent] float32.

    Args:
      z: [num_latent], [k, num_latent], or the network's [1, 1, num_latent], floats.
      num_latent: the model's.
      name: its name in errors.

    Raises:
      InputError: another shape or dtype, NaN or infinity.
    """
    array = np.asarray(z)
    good = array.ndim > 0 and array.size > 0 and array.shape[-1] == num_latent
    if not good or (array.ndim > 2 and array.size != num_latent):
        raise InputError(
            f"{name}: expected z of shape [{num_latent}] or [rows, {num_latent}], not "
            f"{list(array.shape)}; it is another model's, or not a z."
        )
    if array.dtype.kind != "f":
        raise InputError(f"{name}: expected floats, got {array.dtype}.")
    return _finite_float32(array.reshape(-1, num_latent), name)


def _finite_float32(array: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        values = array.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: contains NaN or infinite values.")
    return values


def check_finite(embedding: np.ndarray, name: str) -> None:
    """Raises InputError if an embedding contains NaN or infinity; before writing it.

    Args:
      embedding: any shape.
      name: the clip that was encoded, for the message.
    """
    if not np.isfinite(embedding).all():
        raise InputError(
            f"{name}: its embedding has NaN or infinite values and is not written; "
            "the weights or the mixed embeddings contain such, or very large values."
        )


def save_array(path: str, array: np.ndarray) -> None:
    """Writes an array as .npy; a reader never sees an incomplete file.

    Raises:
      InputError: the array contains NaN or infinity.
      OSError: it can't be written.
    """
    check_finite(array, path)
    with atomic_path(path) as temporary:
        # Errors of np.save itself do not state the reason.
        content = io.BytesIO()
        np.save(content, array)
        pathlib.Path(temporary).write_bytes(content.getbuffer())
