"""Embeddings, and the files that hold them: of frames, or of the baseline's codes.

flute_embeddings.npy     a WaveNet's embedding, float32 [frames, 16]
flute_z.npy, flute_z.csv the baseline's z, float32 [rows, 1984], and a line per note
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from absl import logging

from magenta_nsynth.config import SpectralConfig, WaveNetConfig
from magenta_nsynth.data.reading import NOTE_SAMPLES
from magenta_nsynth.embeddings.arrays import (
    check_encoding,
    check_z,
    load_array,
    save_array,
)
from magenta_nsynth.embeddings.codes import CodesWriter, csv_path, read_codes
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path
from magenta_nsynth.schema import UNKNOWN

__all__ = ["CodeFiles", "Embedding", "EmbeddingFiles", "FrameFiles", "files_of"]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A note's embedding, and what is known of the note.

    Attributes:
      name: of files that are made of it, without an extension.
      where: its file, and among several the row, for messages.
      rows: float32 [frames, 16] of a WaveNet, or [rows, 1984] of the baseline.
      num_samples: of its sound, at 16 kHz.
      labels: those fields of `schema.Note` that are known.
      peak: the largest absolute sample of its sound; 1 where that isn't known.
      audio: [t] float32, the sound that it was made of, if that was kept.
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
        """MIDI, or -1."""
        return int(self.labels.get("pitch", UNKNOWN))


class Writer(Protocol):
    """Adds embeddings to a file."""

    def add(self, z: np.ndarray, labels: Mapping[str, Any], num_samples: int) -> None:
        """Adds a note's rows, its labels and the length of its sound."""
        ...


class EmbeddingFiles(Protocol):
    """How one model's embeddings are saved and read.

    Attributes:
      suffix: what a file's name ends with, behind its note's.
      holds_sets: whether a file takes several notes.
    """

    suffix: str
    holds_sets: bool

    def writing(self, path: str) -> contextlib.AbstractContextManager[Writer]:
        """Writes a file in the block, which is there whole once the block ends well."""
        ...

    def read(self, path: str, name: str, sample_length: int) -> list[Embedding]:
        """The notes of a .npy file.

        Args:
          path: the file.
          name: what a note is called that has no name of its own.
          sample_length: cuts each to this many samples, which is logged; 0 takes all.

        Raises:
          InputError: it can't be read, or holds another model's.
        """
        ...


class _OneArray:
    """Takes one note."""

    def __init__(self) -> None:
        self.rows: np.ndarray | None = None

    def add(self, z: np.ndarray, labels: Mapping[str, Any], num_samples: int) -> None:
        del labels, num_samples
        self.rows = z


class FrameFiles:
    """A WaveNet's: an array per note."""

    suffix = "_embeddings.npy"
    holds_sets = False

    def __init__(self, config: WaveNetConfig, num_channels: int | None) -> None:
        """Takes the network's config, and its channels; None reads any number."""
        self._config, self._num_channels = config, num_channels

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Writer]:
        """As `EmbeddingFiles.writing`."""
        writer = _OneArray()
        yield writer
        if writer.rows is not None:
            save_array(path, writer.rows)

    def read(self, path: str, name: str, sample_length: int) -> list[Embedding]:
        """As `EmbeddingFiles.read`."""
        rows = check_encoding(load_array(path), self._num_channels, path)
        limit = sample_length // self._config.ae_hop_length
        if limit and limit < len(rows):
            logging.info(
                "%s: %d frames, cut to the %d of --sample_length=%d.",
                *(path, len(rows), limit, sample_length),
            )
            rows = rows[:limit]
        return [Embedding(name, path, rows, self._config.num_samples(len(rows)))]


class CodeFiles:
    """The baseline's: rows of z, and a CSV beside them with a line per note."""

    suffix = "_z.npy"
    holds_sets = True

    def __init__(self, config: SpectralConfig, num_latent: int) -> None:
        """Takes the network's config, and the numbers in a row."""
        self._config, self._num_latent = config, num_latent

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Writer]:
        """As `EmbeddingFiles.writing`; the .npy comes last: its presence means done."""
        with (
            atomic_path(path) as npy,
            open(npy, "wb") as file,
            atomic_path(csv_path(path)) as table,
            open(
                table, "w", encoding="utf-8", errors="surrogateescape", newline=""
            ) as text,
        ):
            writer = CodesWriter(file, text, self._num_latent)
            yield writer
            writer.close()
            file.flush()
            text.flush()
            # The older pair goes now, so that no .npy lies beside another's .csv.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def read(self, path: str, name: str, sample_length: int) -> list[Embedding]:
        """As `EmbeddingFiles.read`."""
        codes = read_codes(path, self._num_latent, check_z)
        embeddings = []
        for i, code in enumerate(codes):
            where = f"{path}, row {i}" if len(codes) > 1 else path
            num_samples = self._num_samples(
                where, len(code.z), code.num_samples or NOTE_SAMPLES, sample_length
            )
            labels = {"pitch": code.pitch}
            rows = np.array(code.z)
            embeddings.append(
                Embedding(code.name or name, where, rows, num_samples, labels)
            )
        return embeddings

    def _num_samples(
        self, where: str, num_rows: int, num_samples: int, sample_length: int
    ) -> int:
        if 0 < sample_length < num_samples:
            logging.info(
                "%s: %d samples are cut to %d.", where, num_samples, sample_length
            )
            num_samples = sample_length
        most = num_rows * (self._config.max_samples + 1) - 1
        if not self._config.min_samples <= num_samples <= most:
            raise InputError(
                f"{where}: {num_samples} samples can't be made of {num_rows} rows of "
                "z; correct the CSV beside it, or move that away and give --pitch."
            )
        return num_samples


def files_of(
    config: WaveNetConfig | SpectralConfig, num_latent: int | None
) -> EmbeddingFiles:
    """How the embeddings of a network with this config are saved and read.

    Args:
      config: the network's.
      num_latent: numbers in a row; None reads a WaveNet's of any number.
    """
    if isinstance(config, WaveNetConfig):
        return FrameFiles(config, num_latent)
    return CodeFiles(config, num_latent or config.num_latent)
