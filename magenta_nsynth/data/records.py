"""TFRecord files: finding them and their records, and reading runs of neighbours."""

import contextlib
import functools
import gzip
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.errors import InputError, NSynthError, StoreError
from magenta_nsynth.files import expand, matches_of
from magenta_nsynth.mirror import Mirror, Steps, mirror_of
from magenta_nsynth.stores import remote, storage

__all__ = [
    "ADVICE",
    "MAX_RECORD_BYTES",
    "Layout",
    "NoteTable",
    "Runs",
    "find_records",
    "plan_runs",
    "read_layout",
    "read_records",
    "read_run",
    "run_rows",
    "store_errors",
]

ADVICE = "copy or download the file again, or skip what is damaged with --skip_corrupt"
# 52 minutes of sound. A whole record is in memory, some three times while it is parsed,
# and a kilobyte of GZIP may unpack to a megabyte.
MAX_RECORD_BYTES = 200_000_000

_HEADER, _FOOTER = 12, 4  # bytes around a record's data
_SEARCHED = 64 << 20  # bytes to search for a record after a damaged length
_CHUNK = 1 << 20
_RUNS_AHEAD = 2  # runs that are read from a store at once
# What a store answered, in TensorFlow's message of an error while it read ahead.
_ANSWER = re.compile(r"\[from the store\] (.*?) \[end\]", re.DOTALL)
_LAST_BYTE = (1 << 63) - 1  # that a file can have
_OTHER_COMPRESSIONS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "ZIP",
}

# (offset, number of bytes) -> (the bytes, fewer at the end; the problem, or "").
_Read = Callable[[int, int], tuple[bytes, str]]


class Layout(NamedTuple):
    """Where the records of one file are.

    Attributes:
      compression: "" or "GZIP", as tf.data calls it.
      record: int64 [n], the indices of the records that can be reached.
      offset: int64 [n], the byte each starts at (in the unpacked content).
      size: int64 [n], its bytes of data.
      crc: int64 [n], the checksum of its data, as stored in the file.
      num_lost: the least number of records that can't be reached.
      damage: a message for each damaged place; empty if there is none.
      mirror: the local copy, if the file is in a store.
    """

    compression: str
    record: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc: np.ndarray
    num_lost: int
    damage: list[str]
    mirror: Mirror | None = None


def read_layout(path: str, skip_corrupt: bool = False) -> Layout:
    """Finds the records of a plain or GZIP TFRecord file (told by its content).

    Only the lengths in a plain file are read; a GZIP file has to be unpacked.

    Args:
      path: the file.
      skip_corrupt: continues after a damaged length, at the next intact one, and keeps
        the records of a truncated file.

    Raises:
      InputError: the file is not a file, is compressed in another way, or can't be
        read. Without skip_corrupt also if it is empty, no TFRecord file or truncated,
        or a length is damaged or above `MAX_RECORD_BYTES`; the message names the record
        and byte.
    """
    try:
        mirror = mirror_of(path) if storage.is_remote(path) else None
        opened = _opened_mirror(path, mirror) if mirror else _opened(path)
        with opened as (read, compression):
            layout = _walk(path, read, compression, skip_corrupt)
        return layout._replace(mirror=mirror)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}.") from None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[_Read, str]]:
    """A way to read the unpacked content, and the file's compression."""

    def reader(file: gzip.GzipFile | io.FileIO) -> _Read:
        def read(offset: int, count: int) -> tuple[bytes, str]:
            if offset + count > _LAST_BYTE:
                return b"", ""
            try:
                file.seek(offset)
                return file.read(count), ""
            except EOFError:
                return b"", "the GZIP file is cut off in it"
            except (zlib.error, gzip.BadGzipFile) as error:
                return b"", f"the GZIP file is damaged in it ({error})"

        return read

    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: not a file; give a TFRecord file.")
    with open(path, "rb", buffering=0) as file:
        head = file.read(_CHUNK)
        # A length may look like GZIP's signature; its checksum decides.
        if _is_header(head[:_HEADER]) or not head.startswith(b"\x1f\x8b\x08"):
            if name := _other_compression(head):
                raise InputError(_unknown_compression(path, name))
            yield reader(file), ""
            return
    with gzip.open(path, "rb") as unpacked:
        yield reader(unpacked), "GZIP"


@contextlib.contextmanager
def _opened_mirror(path: str, mirror: Mirror) -> Iterator[tuple[_Read, str]]:
    """As `_opened`, of a file in a store, of which as little as possible is read."""
    head = mirror.read(0, _CHUNK)
    if _is_header(head[:_HEADER]) or not head.startswith(b"\x1f\x8b\x08"):
        if name := _other_compression(head):
            raise InputError(_unknown_compression(path, name))
        steps = Steps(path, mirror.size)
        yield lambda offset, count: (steps.read(offset, count), ""), ""
        return
    with _opened(mirror.fetch_all()) as opened:
        yield opened


def _unknown_compression(path: str, name: str) -> str:
    return (
        f"{path}: compressed with {name}; unpack it, or write it again with GZIP or "
        "without compression."
    )


def _other_compression(head: bytes) -> str:
    """The compression, other than GZIP, of a file that starts like this; or ""."""
    if _is_header(head[:_HEADER]):
        return ""
    for mark, name in _OTHER_COMPRESSIONS.items():
        if head.startswith(mark):
            return name
    # ZLIB's signature is two bytes, which text may have too, so try to unpack it.
    if head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0:
        with contextlib.suppress(zlib.error):
            zlib.decompressobj().decompress(head, _CHUNK)
            return "ZLIB"
    return ""


def _walk(path: str, read: _Read, compression: str, skip_corrupt: bool) -> Layout:
    found: list[tuple[int, int, int, int]] = []
    damage: list[str] = []
    offset = record = num_lost = 0
    known: dict[bytes, int] = {}  # notes have few sizes, so headers repeat
    header, problem = read(0, _HEADER)
    if not header and not problem:
        _note_damage(f"{path}: empty, there is no record in it", damage, skip_corrupt)
    while header or problem:
        is_unreadable, size = bool(problem), 0
        if not problem and header in known:
            size = known[header]
        elif not problem:
            size, problem = _size(header, is_first=not record)
            if not problem:
                known[header] = size
        end = offset + _HEADER + size + _FOOTER
        if not problem:
            # The record's last bytes show that it is complete; then the next header.
            rest, problem = read(end - _FOOTER, _FOOTER + _HEADER)
            if len(rest) >= _FOOTER:
                (crc,) = struct.unpack_from("<I", rest)
                found.append((record, offset, size, crc))
                offset, record, header = end, record + 1, rest[_FOOTER:]
                continue
            is_unreadable = bool(problem)
            problem = problem or "the file is cut off in it"
        where = f"{path}, record {record} (from 0), byte {offset:,}"
        _note_damage(f"{where}: {problem}", damage, skip_corrupt)
        num_lost, record = num_lost + 1, record + 1
        next_offset = None
        if not is_unreadable:
            next_offset = end if size > MAX_RECORD_BYTES else None
            if next_offset is None or not _is_header(read(next_offset, _HEADER)[0]):
                next_offset = _next_header(read, offset + 1)
        if next_offset is None:
            break
        offset = next_offset
        header, problem = read(offset, _HEADER)
    columns = np.array(found, np.int64).reshape(-1, 4).T
    numbers, offsets, sizes, crcs = map(np.ascontiguousarray, columns)
    return Layout(compression, numbers, offsets, sizes, crcs, num_lost, damage)


def _size(header: bytes, is_first: bool) -> tuple[int, str]:
    """The bytes of a record's data; and what is wrong with its header, or ""."""
    if len(header) < _HEADER:
        return 0, "the file is cut off in it"
    if not _is_header(header):
        other = ", or this is not a TFRecord file" if is_first else ""
        return 0, f"its length is damaged{other}"
    (size,) = struct.unpack_from("<Q", header)
    if size > MAX_RECORD_BYTES:
        return size, (
            f"its length is damaged, or too large for a note: {size:,} bytes, at most "
            f"{MAX_RECORD_BYTES:,} are allowed"
        )
    return size, ""


def _note_damage(message: str, damage: list[str], skip_corrupt: bool) -> None:
    if not skip_corrupt:
        raise InputError(f"{message}; {ADVICE}.")
    damage.append(message)


def _next_header(read: _Read, start: int) -> int | None:
    """The first place, from `start` on, of a length with its correct checksum."""
    data, at = b"", start
    while at < start + _SEARCHED:
        more, _ = read(at + len(data), _CHUNK)
        if not more:
            return None
        data += more
        places = np.flatnonzero(_headers(np.frombuffer(data, np.uint8)))
        if len(places):
            return at + int(places[0])
        # Forwards only: going back in a GZIP file means starting over.
        at, data = at + len(data) - (_HEADER - 1), data[-(_HEADER - 1) :]
    return None


def _is_header(header: bytes) -> bool:
    return bool(_headers(np.frombuffer(header, np.uint8)).any())


def _headers(data: np.ndarray) -> np.ndarray:
    """For each byte of `data`, whether a length and its checksum start there.

    The checksum is CRC-32C, masked as TensorFlow does: rotated, plus a constant.
    """
    count = max(0, len(data) - _HEADER + 1)
    crc = np.full(count, 0xFFFFFFFF, np.uint32)
    for k in range(8):
        crc = _crc_table()[(crc & 0xFF) ^ data[k : k + count]] ^ (crc >> 8)
    crc = ~crc
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    stored = np.zeros(count, np.uint32)
    for k in range(4):
        stored |= data[8 + k : 8 + k + count].astype(np.uint32) << np.uint32(8 * k)
    return masked == stored


@functools.cache
def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


# nsynth-train.tfrecord, notes.tfrecords, train.tfrecord-00000-of-00010, each with .gz
_NAME = re.compile(r".*\.tfrecords?(-\d+-of-\d+)?(\.gz)?", re.IGNORECASE)


def find_records(paths: Iterable[str | os.PathLike] | str | os.PathLike) -> list[str]:
    """The TFRecord files that `paths` name, sorted within each, without duplicates.

    Args:
      paths: files of any name, globs, or folders. From a folder, files with names like
        a.tfrecord, a.tfrecords, a.tfrecord-00000-of-00010 or a.tfrecord.gz are taken. A
        path that exists is never treated as a glob.

    Raises:
      InputError: a path does not exist, a glob matches nothing, or a folder has no
        such file.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    named = [expand(path) for path in paths if os.fspath(path)]
    if not named:
        raise InputError("Nothing to read: give a TFRecord file, a folder or a glob.")
    found: dict[str, str] = {}
    for path in named:
        for match in matches_of(path, "give a TFRecord file, a folder or a glob"):
            names = _in_folder(match) if storage.isdir(match) else [match]
            for name in names:
                found.setdefault(storage.abspath(name), name)
    return list(found.values())


def _in_folder(folder: str) -> list[str]:
    try:
        names = sorted(storage.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}.") from None
    # Hidden files are macOS's metadata, or a file that was being written.
    found = [
        storage.join(folder, name)
        for name in names
        if _NAME.fullmatch(name) and not name.startswith(".")
    ]
    look = remote.listing()
    found = [path for path in found if storage.isfile(path, look)]
    if not found:
        raise InputError(
            f"{folder}: contains no TFRecord file (a file named like a.tfrecord)."
        )
    return found


# Bytes read at once: about one record of 4 s, so that little more is read.
_BUFFER = 1 << 18
# Read ahead when records are taken one by one.
_RECORDS_AT_ONCE, _BYTES_AT_ONCE = 64, 16 << 20


class NoteTable(NamedTuple):
    """Where the notes of a dataset are stored, in the order of the files.

    Attributes:
      files: the paths.
      mirrors: the local copy of each file that is in a store; None of the others.
      compressions: "" or "GZIP" for each file.
      file: int64 [n], the index of each note's file.
      record: int64 [n], the index of its record in the file.
      offset: int64 [n], the byte its record starts at (in the unpacked content).
      size: int64 [n], its record's bytes of data.
      crc: int64 [n], the checksum of those bytes.
      segment: int64 [n], equal for notes with no damage between them.
    """

    files: tuple[str, ...]
    mirrors: tuple[Mirror | None, ...]
    compressions: tuple[str, ...]
    file: np.ndarray
    record: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc: np.ndarray
    segment: np.ndarray

    def select(self, notes: np.ndarray) -> "NoteTable":
        """The table of these notes only: positions, or a bool for each note."""
        return self._replace(
            **{
                name: getattr(self, name)[notes]
                for name in ("file", "record", "offset", "size", "crc", "segment")
            }
        )

    def where(self, note: int) -> str:
        """A note's file and record, for messages."""
        return f"{self.files[self.file[note]]}, record {self.record[note]} (from 0)"


class Runs(NamedTuple):
    """How to read some notes.

    Attributes:
      rows: int64 [r, 4], for each run its file, its byte offset, and the start and
        length of its part of `slots`.
      slots: int64 [t], for each record the note's place among those asked for; -1 for
        a record to ignore.
    """

    rows: np.ndarray
    slots: np.ndarray


def plan_runs(table: NoteTable, notes: np.ndarray, max_records: int = 0) -> Runs:
    """The runs that contain `notes`.

    A run of a plain file starts at any note, so nothing else is read. GZIP can only be
    read from the start, so its runs are as long as possible and include notes that
    were not asked for.

    Args:
      table: all notes.
      notes: int64 [k] positions in `table`, ascending; k > 0.
      max_records: the longest run of a plain file; 0 is no limit (but in a store, from
        which a run is read at once).
    """
    if not max_records and any(table.mirrors):
        max_records = _RECORDS_AT_ONCE
    chosen = table.select(notes)
    gzip = np.array([bool(name) for name in table.compressions])[chosen.file]
    steps = np.diff(chosen.record)
    # A gap ends a run, and so does damage or a new file (both change the segment).
    ends = (np.diff(chosen.segment) != 0) | (~gzip[1:] & (steps != 1))
    first = np.flatnonzero(np.concatenate([[True], ends]))
    if max_records:
        first = _split(first, len(notes), gzip, max_records)
    last = np.append(first[1:], len(notes)) - 1
    lengths = chosen.record[last] - chosen.record[first] + 1
    starts = np.cumsum(lengths) - lengths
    run_of = np.repeat(np.arange(len(first)), last - first + 1)
    slots = np.full(lengths.sum(), -1, np.int64)
    within = chosen.record - chosen.record[first][run_of]
    slots[starts[run_of] + within] = np.arange(len(notes))
    rows = np.stack([chosen.file[first], chosen.offset[first], starts, lengths], axis=1)
    return Runs(rows, slots)


def _split(first: np.ndarray, total: int, gzip: np.ndarray, most: int) -> np.ndarray:
    """Splits runs so that none of a plain file has more than `most` notes."""
    lengths = np.diff(np.append(first, total))
    within = np.arange(total) - np.repeat(first, lengths)
    return np.flatnonzero((within == 0) | (~gzip & (within % most == 0)))


def run_rows(table: NoteTable, rows: np.ndarray | tf.Tensor) -> tf.data.Dataset:
    """Each of `Runs.rows`, for `read_run`; a store's bytes of the next ones are read.

    Args:
      table: all notes.
      rows: int64 [r, 4].
    """
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    if not any(table.mirrors):
        return dataset

    def staged(row: np.ndarray) -> np.ndarray:
        try:
            _stage(table, *row.tolist())
        except (NSynthError, OSError) as error:
            said = str(error)
            if isinstance(error, OSError):
                said = f"{error.filename}: {error.strerror}; it was there before."
            raise RuntimeError(f"[from the store] {said} [end]") from None
        return row

    def stage(row: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(staged, [row], tf.int64), [4])

    return dataset.map(stage, num_parallel_calls=_RUNS_AHEAD, deterministic=True)


def _stage(table: NoteTable, file: int, offset: int, start: int, length: int) -> None:
    """Gets the bytes of a run, if it is in a store."""
    mirror = table.mirrors[file]
    if mirror is None:
        return
    if table.compressions[file]:
        mirror.fetch_all()
        return
    first = np.searchsorted(table.file, file)
    count = np.searchsorted(table.file, file, "right") - first
    first += np.searchsorted(table.offset[first : first + count], offset)
    last = first + length - 1
    end = int(table.offset[last] + table.size[last]) + _HEADER + _FOOTER
    mirror.fetch([(offset, end)])


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turns TensorFlow's errors in the block into those that a store raised.

    Raises:
      StoreError: the store can't be reached, refuses a request, or no longer has a
        file.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if answer := _ANSWER.search(str(error)):
            raise StoreError(answer[1]) from None
        raise


def read_run(table: NoteTable, row: tf.Tensor, slots: tf.Tensor) -> tf.data.Dataset:
    """One run's records, for use in a function that another dataset maps.

    Args:
      table: all notes.
      row: int64 [4], from `Runs.rows`.
      slots: `Runs.slots`.

    Returns:
      (slot int64, serialized string) for each note of the run that was asked for.
    """
    file, offset, start, length = tf.unstack(row)
    local = [
        mirror.local if mirror else path
        for path, mirror in zip(table.files, table.mirrors, strict=True)
    ]
    names = [name.encode("utf-8", "surrogateescape") for name in local]  # any bytes
    # TFRecordDataset itself can't start at an offset. This operation must not be the
    # outermost one: TensorFlow (2.17, 2.21) loses the offset when copying it.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.gather(names, [file]),
        compression_type=tf.gather(list(table.compressions), file),
        buffer_size=_BUFFER,
        byte_offsets=offset[tf.newaxis],
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    # A file truncated while in use gives empty records, which are refused later.
    nothing = tf.data.Dataset.from_tensors(b"").repeat()
    # Nothing beyond the run may be read: a damaged length of terabytes there would end
    # the process. `take` with a tensor crashes TensorFlow (2.17), and `zip` alone asks
    # each input for one more element at the end of the first.
    own = slots[start : start + length]
    records = tf.data.Dataset.choose_from_datasets(
        [records.concatenate(nothing)],
        tf.data.Dataset.from_tensor_slices(tf.zeros_like(own)),
        stop_on_empty_dataset=False,
    )
    pairs = tf.data.Dataset.zip((tf.data.Dataset.from_tensor_slices(own), records))
    return pairs.filter(lambda slot, _: slot >= 0) if any(table.compressions) else pairs


def read_records(
    table: NoteTable, notes: np.ndarray
) -> Iterator[tuple[int, bytes, str]]:
    """Reads records one after the other, and continues after one that can't be read.

    Args:
      table: all notes.
      notes: int64 [n] positions in `table`, ascending.

    Yields:
      (place among the n, the record's bytes, ""), or (place, b"", why it can't be
      read).
    """
    largest = int(table.size[notes].max(initial=1))
    batch_size = min(_RECORDS_AT_ONCE, max(1, _BYTES_AT_ONCE // largest))
    done = 0
    careful_until = 0  # up to here, one record at a time
    while done < len(notes):
        careful = done < careful_until
        until = careful_until if careful else len(notes)
        batches = _in_batches(table, notes[done:until], 1 if careful else batch_size)
        try:
            with store_errors():
                for batch in batches:
                    for serialized in batch.numpy():
                        yield done, serialized, ""
                        done += 1
        except tf.errors.OpError as error:
            if not careful and batch_size > 1:
                careful_until = min(done + batch_size, len(notes))
                continue
            yield done, b"", _problem(error)
            done += 1


def _in_batches(
    table: NoteTable, notes: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    runs = plan_runs(table, notes)
    slots = tf.constant(runs.slots)
    return (
        run_rows(table, runs.rows)
        .flat_map(lambda row: read_run(table, row, slots))
        .map(lambda _, serialized: serialized)
        .batch(batch_size)
        .prefetch(1)
    )


def _problem(error: Exception) -> str:
    if isinstance(error, tf.errors.NotFoundError):
        return "the file no longer exists"
    if isinstance(error, tf.errors.DataLossError):
        if "truncated" in str(error):
            return "the file was truncated in it, or changed while in use"
        return "damaged, its checksum is wrong"
    return f"it can't be read ({type(error).__name__})"
