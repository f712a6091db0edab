"""The files that a shard of an export consists of: .npy with .csv, TFRecord, Parquet.

Every writer makes the same bytes of the same notes, holds no more than some MB of them,
and has an `add` for each note and a `close`.
"""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.writing import float_list, tf_errors
from magenta_nsynth.disk import CHUNK
from magenta_nsynth.embeddings.codes import CodesWriter, NoteLabels, note_labels
from magenta_nsynth.embeddings.files import Embedding
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import open_file
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, UNKNOWN

__all__ = ["FORMATS", "Format", "ShardWriter", "digest", "import_pyarrow", "schema"]

_GROUP_VALUES = 4 << 20  # numbers of embeddings in a row group of Parquet: 16 MB


class ShardWriter(Protocol):
    """Writes one shard's files."""

    def add(self, note: Embedding) -> None:
        """Adds a note."""
        ...

    def close(self) -> None:
        """Completes the files."""
        ...


class _NpyWriter:
    """Rows of all notes one after the other in a .npy, a line per note in a .csv."""

    def __init__(self, paths: list[str], num_latent: int) -> None:
        npy, table = paths
        with contextlib.ExitStack() as stack:
            npy_file = stack.enter_context(open(npy, "wb"))
            text_file = stack.enter_context(
                open(table, "w", encoding="utf-8", errors="surrogateescape", newline="")
            )
            self._writer = CodesWriter(npy_file, text_file, num_latent)
            self._files = stack.pop_all()

    def add(self, note: Embedding) -> None:
        self._writer.add(note.rows, note.labels, note.num_samples)

    def close(self) -> None:
        self._writer.close()
        self._files.close()


class _TFRecordWriter:
    """A tf.Example per note, with NSynth's names and numbers."""

    def __init__(self, paths: list[str], num_latent: int) -> None:
        del num_latent
        [path] = paths
        with tf_errors():
            self._file = tf.io.TFRecordWriter(path)

    def add(self, note: Embedding) -> None:
        labels = note_labels(note.labels)
        ints = {
            "pitch": [labels.pitch],
            "velocity": [labels.velocity],
            "instrument_family": [_number(FAMILIES, labels.instrument_family)],
            "instrument_source": [_number(SOURCES, labels.instrument_source)],
            "qualities": [int(name in labels.qualities) for name in QUALITIES],
            "num_samples": [note.num_samples],
            "rows": [len(note.rows)],
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
            float_list=float_list(note.rows.ravel())
        )
        example = tf.train.Example(features=tf.train.Features(feature=features))
        with tf_errors():
            self._file.write(example.SerializeToString(deterministic=True))

    def close(self) -> None:
        with tf_errors():
            self._file.close()


class _ParquetWriter:
    """A row per note; its embedding is one list of numbers, row after row."""

    def __init__(self, paths: list[str], num_latent: int) -> None:
        self._pyarrow, parquet = import_pyarrow()
        [path] = paths
        # Through Python's file: its errors say what is wrong, as of a full disk.
        self._file = open(path, "wb")  # noqa: SIM115
        self._schema = schema(num_latent)
        self._writer = parquet.ParquetWriter(
            self._file, self._schema, use_dictionary=_NAMES
        )
        self._rows: list[tuple[Any, ...]] = []
        self._num_values = 0

    def add(self, note: Embedding) -> None:
        labels = _nullable(note_labels(note.labels))
        values = np.ascontiguousarray(note.rows, np.float32).ravel()
        self._rows.append((*labels, note.num_samples, len(note.rows), values))
        self._num_values += values.size
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
    """A form of shards.

    Attributes:
      extensions: of a shard's files.
      writer: of their paths and the numbers in a row.
    """

    extensions: tuple[str, ...]
    writer: Any


FORMATS = {
    "npy": Format((".npy", ".csv"), _NpyWriter),
    "tfrecord": Format((".tfrecord",), _TFRecordWriter),
    "parquet": Format((".parquet",), _ParquetWriter),
}
_NAMES = ["instrument_family", "instrument_source"]


def import_pyarrow() -> tuple[Any, Any]:
    """Pyarrow and pyarrow.parquet; an InputError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet needs pyarrow, which can't be imported ({error}); pip install "
            "'magenta-nsynth[parquet]', or take --format=npy."
        ) from None
    return pyarrow, pyarrow.parquet


def schema(num_latent: int) -> Any:
    """The columns of a Parquet file; its metadata says the numbers in a row."""
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
    """Labels as Parquet has them: nothing where something is not known."""
    # Bytes that are no UTF-8 can't be in a column of text: "\\xff" stands for one.
    name = labels.note_str.encode("utf-8", "surrogateescape")
    name = name.decode("utf-8", "backslashreplace")
    return (
        name,
        None if labels.pitch == UNKNOWN else labels.pitch,
        None if labels.velocity == UNKNOWN else labels.velocity,
        labels.instrument_family or None,
        labels.instrument_source or None,
        list(labels.qualities),
    )


def _number(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else UNKNOWN


def digest(path: str) -> dict[str, Any]:
    """A file's size and checksum: {"bytes": ..., "sha256": ...}."""
    sha, size = hashlib.sha256(), 0
    with open_file(path) as file:
        for chunk in _chunks(file):
            sha.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": sha.hexdigest()}


def _chunks(file: io.BufferedReader) -> Iterator[bytes]:
    while chunk := file.read(16 * CHUNK):
        yield chunk
