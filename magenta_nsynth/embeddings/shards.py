"""Writing a shard of an export: .npy with .csv, TFRecord or Parquet.

The same notes always give the same bytes. A writer keeps at most some MB in memory.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.writing import float_list, tf_errors
from magenta_nsynth.disk import CHUNK
from magenta_nsynth.embeddings.embedding import Embedding, EmbeddingWriter, NoteLabels
from magenta_nsynth.embeddings.npy_csv import NpyCsvWriter
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import open_file
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, UNKNOWN

__all__ = ["FORMATS", "Format", "ShardWriter", "digest", "import_pyarrow", "schema"]

_GROUP_VALUES = 4 << 20  # values in a row group of Parquet: 16 MB


class ShardWriter(EmbeddingWriter, Protocol):
    """Writes one shard's files."""

    def close(self) -> None:
        """Completes the files."""
        ...


class _TFRecordWriter:
    """Writes a tf.train.Example per note, with NSynth's names and numbers."""

    def __init__(self, paths: list[str], num_latent: int) -> None:
        del num_latent
        [path] = paths
        with tf_errors():
            self._file = tf.io.TFRecordWriter(path)

    def add(self, embedding: Embedding) -> None:
        labels = NoteLabels.of(embedding.labels)
        ints = {
            "pitch": [labels.pitch],
            "velocity": [labels.velocity],
            "instrument_family": [_number(FAMILIES, labels.instrument_family)],
            "instrument_source": [_number(SOURCES, labels.instrument_source)],
            "qualities": [int(name in labels.qualities) for name in QUALITIES],
            "num_samples": [embedding.num_samples],
            "rows": [len(embedding.rows)],
        }
        features = {
            name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            for name, values in ints.items()
        }
        name = labels.note_str.encode("utf-8", "surrogateescape")
        features["note_str"] = tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[name])
        )
        features["embedding"] = tf.train.Feature(
            float_list=float_list(embedding.rows.ravel())
        )
        example = tf.train.Example(features=tf.train.Features(feature=features))
        with tf_errors():
            self._file.write(example.SerializeToString(deterministic=True))

    def close(self) -> None:
        with tf_errors():
            self._file.close()


class _ParquetWriter:
    """Writes a row per note; its embedding is one list of numbers, row after row."""

    def __init__(self, paths: list[str], num_latent: int) -> None:
        self._pyarrow, parquet = import_pyarrow()
        [path] = paths
        # A Python file, whose errors state the reason, such as a full disk.
        self._file = open(path, "wb")  # noqa: SIM115
        self._schema = schema(num_latent)
        self._writer = parquet.ParquetWriter(
            self._file, self._schema, use_dictionary=_NAMES
        )
        self._rows: list[tuple[Any, ...]] = []
        self._num_values = 0

    def add(self, embedding: Embedding) -> None:
        labels = _nullable(NoteLabels.of(embedding.labels))
        rows = np.ascontiguousarray(embedding.rows, np.float32)
        self._rows.append((*labels, embedding.num_samples, len(rows), rows.ravel()))
        self._num_values += rows.size
        if self._num_values >= _GROUP_VALUES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [
            self._pyarrow.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        if self._rows:
            table = self._pyarrow.Table.from_arrays(arrays, schema=self._schema)
            self._writer.write_table(table, row_group_size=max(1, len(self._rows)))
        self._rows, self._num_values = [], 0


class Format(NamedTuple):
    """A format of shards.

    Attributes:
      extensions: the extensions of a shard's files.
      writer: opens a `ShardWriter`; takes the files' paths and the size of a row.
    """

    extensions: tuple[str, ...]
    writer: Callable[[list[str], int], ShardWriter]


FORMATS = {
    "npy": Format((".npy", ".csv"), NpyCsvWriter),
    "tfrecord": Format((".tfrecord",), _TFRecordWriter),
    "parquet": Format((".parquet",), _ParquetWriter),
}
_NAMES = ["instrument_family", "instrument_source"]


def import_pyarrow() -> tuple[Any, Any]:
    """Imports pyarrow and pyarrow.parquet; InputError if they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet needs pyarrow, which can't be imported ({error}); pip install "
            "'magenta-nsynth[parquet]', or use --format=npy."
        ) from None
    return pyarrow, pyarrow.parquet


def schema(num_latent: int) -> Any:
    """Returns the columns of a Parquet file, with the size of a row as metadata."""
    pa, _ = import_pyarrow()
    names = pa.string()
    return pa.schema(
        [
            ("note_str", names),
            ("pitch", pa.int16()),
            ("velocity", pa.int16()),
            ("instrument_family", names),
            ("instrument_source", names),
            ("qualities", pa.list_(names)),
            ("num_samples", pa.int64()),
            ("rows", pa.int64()),
            ("embedding", pa.list_(pa.float32())),
        ],
        {"num_latent": str(num_latent)},
    )


def _nullable(labels: NoteLabels) -> tuple[Any, ...]:
    """Returns labels for Parquet, with None for what is unknown."""
    # A column of strings can't contain bytes that are not UTF-8: they become "\\xff".
    name = labels.note_str.encode("utf-8", "surrogateescape")
    return (
        name.decode("utf-8", "backslashreplace"),
        None if labels.pitch == UNKNOWN else labels.pitch,
        None if labels.velocity == UNKNOWN else labels.velocity,
        labels.instrument_family or None,
        labels.instrument_source or None,
        list(labels.qualities),
    )


def _number(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else UNKNOWN


def digest(path: str) -> dict[str, Any]:
    """Returns a file's size and checksum: {"bytes": ..., "sha256": ...}."""
    sha, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while chunk := file.read(16 * CHUNK):
            sha.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": sha.hexdigest()}
