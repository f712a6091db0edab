"""Reading what nsynth_export_embeddings has written, in any of its forms.

notes = open_embeddings("embeddings")
names, means = notes.names(), notes.means()         # [n], [n, 16]
i = names.index("flute_flute_060")
nearest = np.argsort(np.linalg.norm(means - means[i], axis=1))[:5]
print([names[k] for k in nearest])
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.records import read_layout
from magenta_nsynth.embeddings.arrays import load_array
from magenta_nsynth.embeddings.codes import csv_path, note_labels, read_table
from magenta_nsynth.embeddings.manifest import MANIFEST, load_complete
from magenta_nsynth.embeddings.shards import digest, import_pyarrow
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.schema import QUALITIES, UNKNOWN

__all__ = [
    "Embeddings",
    "ExportedNote",
    "open_embeddings",
    "read_npy_shard",
    "read_parquet_shard",
    "read_tfrecord_shard",
]


class ExportedNote(NamedTuple):
    """A note of an export.

    Attributes:
      note_str: its id.
      pitch: MIDI, or -1.
      velocity: 0 to 127, or -1.
      instrument_family: one of NSynth's eleven, or "".
      instrument_source: "acoustic", "electronic", "synthetic" or "".
      qualities: the names of those that it has.
      num_samples: of the audio that was encoded.
      embedding: [rows, 16] float32, a row per frame, or [rows, 1984] of the baseline.
    """

    note_str: str
    pitch: int
    velocity: int
    instrument_family: str
    instrument_source: str
    qualities: tuple[str, ...]
    num_samples: int
    embedding: np.ndarray


class Embeddings:
    """A complete export: iterate over it for all of its notes, in their order.

    Attributes:
      folder: its folder.
      manifest: what manifest.json says.
      num_latent: numbers in a row of an embedding.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        """Reads the manifest.

        Args:
          folder: what --save_path was.

        Raises:
          InputError: no export, or one that is not complete.
        """
        self.folder = expand(folder)
        self.manifest = manifest = load_complete(os.path.join(self.folder, MANIFEST))
        self.num_latent: int = manifest["num_latent"]
        self._read = _READERS[manifest["made_of"]["format"]]
        self._num_notes = [shard["num_notes"] for shard in manifest["shards"]]
        self._paths = [
            os.path.join(self.folder, next(iter(shard["files"])))
            for shard in manifest["shards"]
        ]

    def __len__(self) -> int:
        return sum(self._num_notes)

    def __iter__(self) -> Iterator[ExportedNote]:
        """All notes; an InputError at the end of a shard that has lost some."""
        for path, expected in zip(self._paths, self._num_notes, strict=True):
            count = 0
            for note in self._read(path, self.num_latent):
                count += 1
                if count <= expected:
                    yield note
            if count != expected:
                raise InputError(
                    f"{path}: damaged: {count} notes can be read of {expected}; run "
                    "the same nsynth_export_embeddings again, which makes it anew."
                )

    def paths(self) -> list[str]:
        """The path of each shard's file with embeddings."""
        return list(self._paths)

    def names(self) -> list[str]:
        """The id of each note."""
        return [note.note_str for note in self]

    def find(self, note_str: str) -> ExportedNote:
        """The note with an id; InputError if there is none."""
        for note in self:
            if note.note_str == note_str:
                return note
        raise InputError(f"{self.folder}: there is no note {note_str!r} in it.")

    def means(self) -> np.ndarray:
        """The mean of each note's rows: [n, num_latent] float32."""
        means = np.empty([len(self), self.num_latent], np.float32)
        for i, note in enumerate(self):
            means[i] = note.embedding.mean(axis=0)
        return means

    def verify(self) -> None:
        """Holds every file against its checksum.

        Raises:
          InputError: one is missing or was changed.
        """
        for shard in self.manifest["shards"]:
            for name, expected in shard["files"].items():
                path = os.path.join(self.folder, name)
                try:
                    changed = digest(path) != expected
                except OSError as error:
                    raise InputError(f"{path}: {error.strerror}.") from None
                if changed:
                    raise InputError(
                        f"{path}: damaged or changed; run the same "
                        "nsynth_export_embeddings again, which makes it anew."
                    )


def open_embeddings(folder: str | os.PathLike) -> Embeddings:
    """Opens an export: `Embeddings(folder)`."""
    return Embeddings(folder)


def read_npy_shard(path: str, num_latent: int) -> Iterator[ExportedNote]:
    """The notes of a .npy file and the .csv beside it; embeddings stay on the disk.

    Args:
      path: the .npy file.
      num_latent: numbers in a row.

    Raises:
      InputError: it can't be read, or the two don't belong together.
    """
    rows = load_array(path, in_memory=False)
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise InputError(f"{path}: holds no rows of float32; export it again.")
    start = 0
    for where, line in read_table(csv_path(path), "export it again"):
        try:
            end = start + int(line["rows"])
            embedding = rows[start:end]
            if embedding.shape != (end - start, num_latent):
                raise ValueError
            yield ExportedNote(
                line["note_str"],
                int(line["pitch"] or UNKNOWN),
                int(line["velocity"] or UNKNOWN),
                line["instrument_family"],
                line["instrument_source"],
                tuple(line["qualities"].split()),
                int(line["num_samples"]),
                embedding,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{where}: does not belong to {path}, or was changed; export it again."
            ) from None
        start = end


def read_tfrecord_shard(path: str, num_latent: int) -> Iterator[ExportedNote]:
    """The notes of a TFRecord file that was exported; arguments as above."""
    # Before TensorFlow, which believes whatever length a record says.
    layout = read_layout(path, skip_corrupt=True)
    if layout.damage and os.path.getsize(path):
        raise InputError(f"{layout.damage[0]}; export it again.")
    spec = {
        "note_str": tf.io.FixedLenFeature([], tf.string),
        "qualities": tf.io.FixedLenFeature([len(QUALITIES)], tf.int64),
        "embedding": tf.io.FixedLenSequenceFeature([num_latent], tf.float32, True),
        **{
            name: tf.io.FixedLenFeature([], tf.int64)
            for name in (
                *("pitch", "velocity", "instrument_family", "instrument_source"),
                "num_samples",
            )
        },
    }
    dataset = tf.data.TFRecordDataset(os.fsencode(path))
    dataset = dataset.map(lambda record: tf.io.parse_single_example(record, spec))
    try:
        for values in dataset.as_numpy_iterator():
            name = values["note_str"].decode("utf-8", "surrogateescape")
            labels = note_labels({**values, "note_str": name})
            yield ExportedNote(*labels, int(values["num_samples"]), values["embedding"])
    # TensorFlow's message may quote the record's bytes, which are no UTF-8.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{path}: damaged, or no TFRecord of an export ({reason})."
        ) from None


def read_parquet_shard(path: str, num_latent: int) -> Iterator[ExportedNote]:
    """The notes of a Parquet file that was exported; arguments as above."""
    pyarrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(64):
                columns = batch.to_pydict() | {"embedding": batch["embedding"]}
                for values in zip(*columns.values(), strict=True):
                    yield _from_row(dict(zip(columns, values, strict=True)), num_latent)
    except (
        *(OSError, KeyError, ValueError, TypeError, AttributeError),
        pyarrow.ArrowException,
    ) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{path}: damaged, or no Parquet file of an export ({reason})."
        ) from None


def _from_row(row: dict[str, Any], num_latent: int) -> ExportedNote:
    values = row["embedding"].values.to_numpy()
    return ExportedNote(
        row["note_str"],
        UNKNOWN if row["pitch"] is None else row["pitch"],
        UNKNOWN if row["velocity"] is None else row["velocity"],
        row["instrument_family"] or "",
        row["instrument_source"] or "",
        tuple(row["qualities"]),
        row["num_samples"],
        values.reshape(-1, num_latent),
    )


_READERS: dict[str, Callable[[str, int], Iterator[ExportedNote]]] = {
    "npy": read_npy_shard,
    "tfrecord": read_tfrecord_shard,
    "parquet": read_parquet_shard,
}
