"""Reading an export of nsynth_export_embeddings, in any format."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.records import read_layout
from magenta_nsynth.embeddings.embedding import NoteLabels, array_summary, load_array
from magenta_nsynth.embeddings.manifest import MANIFEST, load_complete
from magenta_nsynth.embeddings.npy_csv import csv_path, read_note_csv
from magenta_nsynth.embeddings.shards import digest, import_pyarrow
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, open_file
from magenta_nsynth.schema import QUALITIES, UNKNOWN
from magenta_nsynth.stores import storage

__all__ = [
    "Embeddings",
    "ExportedNote",
    "open_embeddings",
    "read_npy_shard",
    "read_parquet_shard",
    "read_tfrecord_shard",
]


class ExportedNote(NamedTuple):
    """A note of an export: the fields of `NoteLabels`, and two more.

    Attributes:
      note_str: the note's id.
      pitch: MIDI, or -1.
      velocity: 0 to 127, or -1.
      instrument_family: one of NSynth's eleven, or "".
      instrument_source: "acoustic", "electronic", "synthetic" or "".
      qualities: the names of the note's qualities.
      num_samples: the length of the audio that was encoded.
      embedding: float32 [frames, 16] of a WaveNet, or [rows, 1984] of the baseline.
    """

    note_str: str
    pitch: int
    velocity: int
    instrument_family: str
    instrument_source: str
    qualities: tuple[str, ...]
    num_samples: int
    embedding: np.ndarray

    def __repr__(self) -> str:
        fields = {**self._asdict(), "embedding": array_summary(self.embedding)}
        words = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return f"ExportedNote({words})"


class Embeddings:
    """A complete export. Iterating over it yields each `ExportedNote`, in order.

    Attributes:
      folder: the export's folder.
      manifest: the content of manifest.json.
      num_latent: the size of a row of an embedding.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        """Reads the manifest.

        Args:
          folder: the --save_path of nsynth_export_embeddings.

        Raises:
          InputError: there is no export, or it is not complete.
        """
        self.folder = expand(folder)
        self.manifest = manifest = load_complete(storage.join(self.folder, MANIFEST))
        self.num_latent: int = manifest["num_latent"]
        self._read = _READERS[manifest["made_of"]["format"]]
        self._num_notes = [shard["num_notes"] for shard in manifest["shards"]]
        self._paths = [
            storage.join(self.folder, next(iter(shard["files"])))
            for shard in manifest["shards"]
        ]

    def __repr__(self) -> str:
        return (
            f"<Embeddings {self.folder!r}: {len(self)} notes, rows of "
            f"{self.num_latent} numbers>"
        )

    def __len__(self) -> int:
        return sum(self._num_notes)

    def __iter__(self) -> Iterator[ExportedNote]:
        """Yields all notes; InputError at the end of a shard that lacks some."""
        for path, expected in zip(self._paths, self._num_notes, strict=True):
            count = 0
            for note in self._read(path, self.num_latent):
                count += 1
                if count <= expected:
                    yield note
            if count != expected:
                raise InputError(
                    f"{path}: damaged: has {count} notes instead of {expected}; "
                    "repeat the same nsynth_export_embeddings, which writes it again."
                )

    def paths(self) -> list[str]:
        """Returns the path of the file with the embeddings of each shard."""
        return list(self._paths)

    def names(self) -> list[str]:
        """Returns the id of each note."""
        return [note.note_str for note in self]

    def find(self, note_str: str) -> ExportedNote:
        """Returns the note with an id; InputError if there is none."""
        for note in self:
            if note.note_str == note_str:
                return note
        raise InputError(f"{self.folder}: contains no note {note_str!r}.")

    def means(self) -> np.ndarray:
        """Returns the mean of each note's rows: [n, num_latent] float32."""
        means = np.empty([len(self), self.num_latent], np.float32)
        for i, note in enumerate(self):
            means[i] = note.embedding.mean(axis=0)
        return means

    def verify(self) -> None:
        """Compares every file with its checksum.

        Raises:
          InputError: a file is missing, or has changed.
        """
        for shard in self.manifest["shards"]:
            for name, expected in shard["files"].items():
                path = storage.join(self.folder, name)
                try:
                    changed = digest(path) != expected
                except OSError as error:
                    raise InputError(f"{path}: {error.strerror}.") from None
                if changed:
                    raise InputError(
                        f"{path}: damaged or changed; repeat the same "
                        "nsynth_export_embeddings, which writes it again."
                    )


def open_embeddings(folder: str | os.PathLike) -> Embeddings:
    """Opens a complete export.

    Args:
      folder: the --save_path of nsynth_export_embeddings.

    Raises:
      InputError: there is no export, or it is not complete.

    Examples:
      After `nsynth_export_embeddings --checkpoint_path=checkpoints/small
      --source_path=checkpoints/notes --save_path=exported`:

      >>> import numpy as np
      >>> from magenta_nsynth.embeddings.exported import open_embeddings
      >>> notes = open_embeddings("exported")
      >>> [note.num_samples for note in notes]
      [47616, 64000, 31744, 15872, 39936, 55808]
      >>> notes.find("flute_acoustic_073-060-100").embedding.shape
      (125, 16)
      >>> names, means = notes.names(), notes.means()
      >>> flute = means[names.index("flute_acoustic_073-060-100")]
      >>> distances = np.linalg.norm(means - flute, axis=1)
      >>> [names[i] for i in np.argsort(distances)][:2]
      ['flute_acoustic_073-060-100', 'organ_acoustic_019-060-100']
    """
    return Embeddings(folder)


def read_npy_shard(path: str, num_latent: int) -> Iterator[ExportedNote]:
    """Reads the notes of a .npy file and its CSV; embeddings are memory-mapped.

    Args:
      path: the .npy file.
      num_latent: the size of a row.

    Raises:
      InputError: a file can't be read, or the two do not belong together.
    """
    rows = load_array(path, in_memory=False)
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise InputError(f"{path}: not rows of float32; export it again.")
    start = 0
    for note in read_note_csv(csv_path(path), "export it again"):
        end = start + note.num_rows
        embedding = rows[start:end]
        if embedding.shape != (note.num_rows, num_latent):
            raise InputError(
                f"{note.where}: does not belong to {path}, or has changed; export it "
                "again."
            )
        yield ExportedNote(*note.labels, note.num_samples, embedding)
        start = end


def read_tfrecord_shard(path: str, num_latent: int) -> Iterator[ExportedNote]:
    """Reads the notes of an exported TFRecord file; see `read_npy_shard`."""
    # Checked first, because TensorFlow trusts the length of every record.
    layout = read_layout(path, skip_corrupt=True)
    if layout.damage and storage.getsize(path):
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
    local = layout.mirror.fetch_all() if layout.mirror else path
    dataset = tf.data.TFRecordDataset(os.fsencode(local))
    dataset = dataset.map(lambda record: tf.io.parse_single_example(record, spec))
    try:
        for values in dataset.as_numpy_iterator():
            name = values["note_str"].decode("utf-8", "surrogateescape")
            labels = NoteLabels.of({**values, "note_str": name})
            yield ExportedNote(*labels, int(values["num_samples"]), values["embedding"])
    # TensorFlow's message may quote the record's bytes, which are not UTF-8.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{path}: damaged, or not a TFRecord file of an export ({reason})."
        ) from None


def read_parquet_shard(path: str, num_latent: int) -> Iterator[ExportedNote]:
    """Reads the notes of an exported Parquet file; see `read_npy_shard`."""
    pyarrow, parquet = import_pyarrow()
    try:
        with open_file(path) as source, parquet.ParquetFile(source) as file:
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
            f"{path}: damaged, or not a Parquet file of an export ({reason})."
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
