"""The files that contain embeddings of either model.

flute_embeddings.npy      WaveNet: float32 [frames, 16]
flute_z.npy, flute_z.csv  baseline: float32 [rows, 1984], and a line for each note
"""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from absl import logging

from magenta_nsynth.config import SpectralConfig, WaveNetConfig
from magenta_nsynth.data.reading import NOTE_SAMPLES
from magenta_nsynth.embeddings.embedding import (
    Embedding,
    EmbeddingWriter,
    NoteLabels,
    check_encoding,
    check_z,
    load_array,
    save_array,
)
from magenta_nsynth.embeddings.npy_csv import (
    NoteLine,
    NpyCsvWriter,
    csv_path,
    read_note_csv,
)
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path
from magenta_nsynth.stores import storage

__all__ = ["CodeFiles", "Embedding", "EmbeddingFiles", "FrameFiles", "files_of"]


class EmbeddingFiles(Protocol):
    """How one model's embeddings are saved and read.

    Attributes:
      suffix: the end of a file's name, after the note's.
      holds_sets: whether a file can contain several notes.
    """

    suffix: str
    holds_sets: bool

    def writing(self, path: str) -> contextlib.AbstractContextManager[EmbeddingWriter]:
        """Writes a file in the block; it appears when the block ends without error."""
        ...

    def read(self, path: str, name: str, sample_length: int) -> list[Embedding]:
        """Reads the notes of a .npy file.

        Args:
          path: the file.
          name: the name of notes that have none in the file.
          sample_length: cuts each note to this many samples, with a message; 0 keeps
            all.

        Raises:
          InputError: the file can't be read, or is another model's.
        """
        ...


class _OneArray:
    """Accepts one note."""

    def __init__(self) -> None:
        self.rows: np.ndarray | None = None

    def add(self, embedding: Embedding) -> None:
        self.rows = embedding.rows


class FrameFiles:
    """A WaveNet's files: one array per note."""

    suffix = "_embeddings.npy"
    holds_sets = False

    def __init__(self, config: WaveNetConfig, num_channels: int | None) -> None:
        """Takes the network's config and number of channels; None accepts any."""
        self._config, self._num_channels = config, num_channels

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[EmbeddingWriter]:
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
    """The baseline's files: rows of z, and a CSV with a line for each note."""

    suffix = "_z.npy"
    holds_sets = True

    def __init__(self, config: SpectralConfig, num_latent: int) -> None:
        """Takes the network's config, and the size of a row."""
        self._config, self._num_latent = config, num_latent

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[EmbeddingWriter]:
        """As `EmbeddingFiles.writing`; the .npy comes last: its presence means done."""
        with atomic_path(path) as npy, atomic_path(csv_path(path)) as table:
            writer = NpyCsvWriter([npy, table], self._num_latent)
            with contextlib.closing(writer):
                yield writer
            # Removes an older .npy before the new .csv replaces the older one.
            with contextlib.suppress(FileNotFoundError):
                storage.unlink(path)

    def read(self, path: str, name: str, sample_length: int) -> list[Embedding]:
        """As `EmbeddingFiles.read`; a file without a CSV has a note in each row."""
        rows = check_z(load_array(path, in_memory=False), self._num_latent, path)
        table = csv_path(path)
        if storage.exists(table):
            notes = read_note_csv(table)
        else:
            notes = [NoteLine(path, NoteLabels.of({}), NOTE_SAMPLES, 1)] * len(rows)
        num_rows = sum(note.num_rows for note in notes)
        if num_rows != len(rows):
            raise InputError(
                f"{table}: describes {num_rows} rows, but {path} has {len(rows)}; it "
                "belongs to another file, so move it away and give --pitch."
            )
        embeddings, start = [], 0
        for i, note in enumerate(notes):
            where = f"{path}, row {i}" if len(notes) > 1 else path
            num_samples = self._num_samples(where, note, sample_length)
            labels = {"pitch": note.labels.pitch}
            its = np.array(rows[start : start + note.num_rows])
            note_name = note.labels.note_str or name
            embeddings.append(Embedding(note_name, where, its, num_samples, labels))
            start += note.num_rows
        return embeddings

    def _num_samples(self, where: str, note: NoteLine, sample_length: int) -> int:
        num_samples = note.num_samples
        if 0 < sample_length < num_samples:
            logging.info(
                "%s: %d samples are cut to %d.", where, num_samples, sample_length
            )
            num_samples = sample_length
        most = note.num_rows * (self._config.max_samples + 1) - 1
        if not self._config.min_samples <= num_samples <= most:
            raise InputError(
                f"{where}: {note.num_rows} rows of z can't make {num_samples} samples; "
                "correct the CSV beside it, or move that away and give --pitch."
            )
        return num_samples


def files_of(
    config: WaveNetConfig | SpectralConfig, num_latent: int | None
) -> EmbeddingFiles:
    """Returns how the embeddings of a network are saved and read.

    Args:
      config: the network's.
      num_latent: the size of a row; None accepts any for a WaveNet.
    """
    if isinstance(config, WaveNetConfig):
        return FrameFiles(config, num_latent)
    return CodeFiles(config, num_latent or config.num_latent)
