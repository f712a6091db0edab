"""One record, whoever wrote it: its audio and labels, or why it can't be used."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.audio.loudness import MAX_LEVEL, level_problem
from magenta_nsynth.audio.resample import resample, resampled_length
from magenta_nsynth.config import NUM_PITCHES, SAMPLE_RATE
from magenta_nsynth.data.features import FEATURES, Demand, is_rate
from magenta_nsynth.data.records import ADVICE, NoteTable, read_records
from magenta_nsynth.schema import QUALITIES

__all__ = [
    "DATA_ERRORS",
    "Example",
    "Findings",
    "LabelReader",
    "advice",
    "explain",
    "inspect",
    "read_examples",
]

# What TensorFlow Datasets' NSynth calls them.
_ALIASES = {
    "note_str": "id",
    "instrument": "instrument/label",
    "instrument_family": "instrument/family",
    "instrument_source": "instrument/source",
}
_FOUND = 8  # features listed for a record that lacks one
_SOUND_FILES = {
    b"RIFF": "a WAV file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"ID3": "an MP3 file",
}
_RECORD_NAME = re.compile(
    r"(.+?)\.tfrecords?(-\d+-of-\d+)?(\.gz)?(-\d+-of-\d+)?", re.IGNORECASE
)


class Example:
    """A record's content."""

    def __init__(self, serialized: bytes) -> None:
        """Parses a record.

        Args:
          serialized: the record's bytes.

        Raises:
          DecodeError: (protobuf's, whose module varies) it is not a tf.Example.
        """
        example = tf.train.Example.FromString(serialized)
        self._features = example.features.feature

    def kind(self, name: str) -> str | None:
        """The kind of list a feature is, such as "int64_list"; None if missing."""
        if name not in self._features:
            return None
        return self._features[name].WhichOneof("kind")

    def values(self, name: str) -> Sequence[Any]:
        """A feature's values; () if it is missing."""
        kind = self.kind(name)
        return getattr(self._features[name], kind).value if kind else ()

    @property
    def names(self) -> list[str]:
        """The names of its features, sorted."""
        return sorted(self._features)

    def samples(self) -> np.ndarray:
        """The audio as stored, [n] float32 at `rate`."""
        # Fifty times as fast as converting numbers one by one: the message's wire
        # format ends with the floats.
        floats = self._features["audio"].float_list
        floats.DiscardUnknownFields()
        raw, num_bytes = floats.SerializeToString(), 4 * len(floats.value)
        return np.frombuffer(raw, "<f4", offset=len(raw) - num_bytes)

    @property
    def rate(self) -> int:
        """Samples per second; 16,000 if the record does not say."""
        rates = self.values("sample_rate")
        return rates[0] if rates else SAMPLE_RATE

    @property
    def num_samples(self) -> int:
        """The length of its audio at 16 kHz; 0 if the rate is impossible."""
        count = len(self.values("audio"))
        if not is_rate(self.rate):
            return 0
        # `exact` is what the graph counts; odd rates make a difference of one.
        exact = -(-count * SAMPLE_RATE // self.rate)
        return min(resampled_length(count, self.rate), exact)

    def audio(self) -> np.ndarray:
        """The audio, [n] float32 at 16 kHz."""
        return resample(self.samples(), self.rate)

    def label(self, name: str) -> Any:
        """A number, a text or the ten qualities; None if missing or malformed."""
        if name == "qualities":
            return self._qualities()
        kind = FEATURES[name].field
        for own in (name, _ALIASES.get(name, name)):
            values = self.values(own)
            if self.kind(own) == kind and len(values) == 1:
                if kind != "bytes_list":
                    return values[0]
                if values[0]:
                    return values[0].decode("utf-8", "surrogateescape")
        return None

    def _qualities(self) -> tuple[int, ...] | None:
        values = self.values("qualities")
        if self.kind("qualities") == "int64_list" and len(values) == len(QUALITIES):
            return tuple(values)
        each = [f"qualities/{name}" for name in QUALITIES]
        if all(
            self.kind(name) == "int64_list" and len(self.values(name)) == 1
            for name in each
        ):
            return tuple(self.values(name)[0] for name in each)
        return None


def read_examples(
    table: NoteTable, notes: np.ndarray, demand: Demand
) -> Iterator[tuple[int, Example | str]]:
    """Reads records one by one.

    Args:
      table: all notes.
      notes: int64 [n] positions in `table`, ascending.
      demand: what each record must have.

    Yields:
      (place among the n, the record or why it can't be used).
    """
    for place, serialized, problem in read_records(table, notes):
        yield place, problem or _examine(serialized, demand)


def _examine(serialized: bytes, demand: Demand) -> Example | str:
    """A record, or why it can't be used."""
    if not serialized:
        return "there is nothing in it (was the file changed while in use?)"
    try:
        example = Example(serialized)
    except Exception:  # protobuf's DecodeError, whose module varies
        return "not a tf.Example"
    return _problem(example, demand) or example


def _problem(example: Example, demand: Demand) -> str:
    """What keeps a record from being used; "" if nothing does."""
    counts = {}
    for name in demand.parsed:
        kind, field = FEATURES[name], example.kind(name)
        # An empty list may be written as no list at all.
        if field is None and name != "qualities_str":
            return f"the feature {name} is missing{_found(example)}"
        if field not in (kind.field, None):
            what = f" ({_described(example, field)})" if name == "audio" else ""
            return f"the feature {name} is a {field}{what}, not a {kind.field}"
        counts[name] = len(example.values(name))
        if kind.size is not None and counts[name] != kind.size:
            return f"the feature {name} has {counts[name]} values, not {kind.size}"
    for name in demand.labels:
        if example.label(name) is None:
            return f"the feature {name} is missing{_found(example)}"
    if demand.needs_pitch:
        [pitch] = example.values("pitch")
        if not 0 <= pitch < NUM_PITCHES:
            return f"its pitch is not known ({pitch})"
    if counts.get("qualities_str") == 0 and any(example.values("qualities")):
        return "the feature qualities_str is missing"
    return _audio_problem(example, demand) if "audio" in counts else ""


def _audio_problem(example: Example, demand: Demand) -> str:
    field, rates = example.kind("sample_rate"), example.values("sample_rate")
    if field not in ("int64_list", None):
        return f"the feature sample_rate is a {field}, not an int64_list"
    if len(rates) > 1:
        return f"the feature sample_rate has {len(rates)} values, not 1"
    if not is_rate(example.rate):
        return f"a sample_rate of {example.rate} Hz can't be used"
    peak = float(np.abs(example.samples()).max(initial=0))
    return level_problem(peak) or demand.sample_problem(example.num_samples) or ""


def _found(example: Example) -> str:
    names = example.names
    if not names:
        return "; it has no features at all"
    more = f" and {len(names) - _FOUND} more" if len(names) > _FOUND else ""
    return f"; it has {', '.join(names[:_FOUND])}{more}"


def _described(example: Example, field: str) -> str:
    """What audio that is not floats looks like, and how to write it as floats."""
    values = example.values("audio")
    if field == "int64_list":
        peak = max(map(abs, values), default=0)
        return (
            f"{len(values):,} whole numbers up to {peak:,}; divide 16-bit samples by "
            "32768 and write a float_list"
        )
    content = values[0] if values else b""
    for mark, name in _SOUND_FILES.items():
        if content.startswith(mark):
            return f"{name}; decode it and write a float_list"
    return (
        f"{len(content):,} bytes, which look like {_number_type(content)}; write the "
        "samples as a float_list"
    )


def _number_type(content: bytes) -> str:
    for dtype in ("float32", "float64"):
        if content and len(content) % np.dtype(dtype).itemsize == 0:
            with np.errstate(all="ignore"):
                values = np.abs(np.frombuffer(content, dtype))
                # Integers read as floats give a few tiny numbers, but not only those.
                if (values <= MAX_LEVEL).all() and np.median(values) > 1e-12:
                    return f"{dtype} samples"
    return "16-bit samples" if len(content) % 2 == 0 else "an encoded sound"


class LabelReader:
    """Reads labels and ids of records; logs once what is missing."""

    def __init__(
        self, files: Sequence[str], names: Sequence[str], reported: set[str]
    ) -> None:
        """Prepares ids for records that have none.

        Args:
          files: the paths of all TFRecord files.
          names: the labels to read.
          reported: labels already logged as missing; this reader adds to it.
        """
        self._names = names
        self._stems = _distinct_stems(files)
        self._reported = reported

    def of(
        self, example: Example, file: int, record: int, where: str
    ) -> dict[str, Any]:
        """The known labels of a record; always "note_str", if that is read at all.

        Args:
          example: the record.
          file: the index of its file.
          record: its index in the file.
          where: both, for messages.
        """
        labels = {name: example.label(name) for name in self._names}
        missing = [name for name, value in labels.items() if value is None]
        new = [name for name in missing if name not in self._reported]
        if new:
            self._reported.update(new)
            logging.info("%s: %s", where, _missing_message(new))
        labels = {name: v for name, v in labels.items() if v is not None}
        if "note_str" in missing:
            labels["note_str"] = f"{self._stems[file]}-{record}"
        return labels


def _missing_message(missing: list[str]) -> str:
    others = [name for name in missing if name != "note_str"]
    parts = []
    if "note_str" in missing:
        parts.append("its id is its file's name and its index")
    if others:
        parts.append("missing labels count as unknown")
    return (
        f"has no {', '.join(missing)}; {', and '.join(parts)}. Other records may lack "
        "them too; this is logged once."
    )


def _distinct_stems(files: Sequence[str]) -> list[str]:
    """A short, unique name for each file: its stem and its shard's number."""
    # Of a URL what comes after the scheme; the rest of it is no path.
    paths = [os.path.abspath(path.partition("://")[2] or path) for path in files]
    common = os.path.commonpath([os.path.dirname(path) for path in paths] or ["/"])
    relative = [os.path.relpath(path, common).replace(os.sep, "/") for path in paths]
    for names in (
        [_stem(os.path.basename(path)) for path in paths],
        [
            os.path.join(os.path.dirname(p), _stem(os.path.basename(p)))
            for p in relative
        ],
    ):
        if len(set(names)) == len(names):
            return names
    return relative


def _stem(name: str) -> str:
    match = _RECORD_NAME.fullmatch(name)
    if match is None:
        return os.path.splitext(name)[0]
    return f"{match[1]}{match[2] or match[4] or ''}"


class Findings(NamedTuple):
    """What `inspect` found in n notes.

    Attributes:
      problems: what is wrong, by the note's place among the n.
      num_samples: int64 [n], the length of the audio at 16 kHz; -1 if it was not read
        or the note has a problem.
      values: int64 [n], or [n, 10] for qualities, by label; -1 if the note has a
        problem.
    """

    problems: dict[int, str]
    num_samples: np.ndarray
    values: dict[str, np.ndarray]


def inspect(
    table: NoteTable,
    notes: np.ndarray,
    demand: Demand,
    only_first: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Reads notes and checks each against a demand. Raises nothing.

    Args:
      table: all notes.
      notes: int64 [n] positions in `table`, ascending.
      demand: what each note must have. Its integer labels are returned.
      only_first: stops at the first problem.
      progress: called with the number of notes done, and n.
    """
    findings = Findings(
        {},
        np.full(len(notes), -1, np.int64),
        {
            name: np.full((len(notes), size) if size > 1 else len(notes), -1, np.int64)
            for name in demand.labels
            if FEATURES[name].dtype == tf.int64 and (size := FEATURES[name].size)
        },
    )
    for place, example in read_examples(table, notes, demand):
        if isinstance(example, str):
            findings.problems[place] = example
            if only_first:
                break
        else:
            if "audio" in demand.parsed:
                findings.num_samples[place] = example.num_samples
            for name, values in findings.values.items():
                values[place] = example.label(name)
        if progress is not None:
            progress(place + 1, len(notes))
    return findings


DATA_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    # If a record is not a tf.Example, TensorFlow puts its bytes into the message.
    UnicodeDecodeError,
)
_HINT = re.compile(r"\[at\] \[(\d+)\] \[(\d+)\]")  # from features.parse_record
_OFFSET = re.compile(r"record at (\d+)")


def explain(
    error: Exception, table: NoteTable, demands: Sequence[Demand]
) -> str | None:
    """Finds the record behind an error.

    Reads the records that the error's text points at again. If none of them is to
    blame, reads all of them in order.

    Args:
      error: one of `DATA_ERRORS`.
      table: the notes that were read.
      demands: what was asked of them.

    Returns:
      One line with the file, the record, what is wrong and what to do; None if no
      record is to blame.
    """
    # A model's own errors, for example, don't come from a dataset.
    if not isinstance(error, UnicodeDecodeError) and "Iterator" not in str(error):
        return None
    for notes in (_suspects(str(error), table), None):
        if notes is None:
            logging.warning("Reading all notes to find the one that can't be used.")
            notes = np.arange(len(table.file))
            # Too little audio always leaves a hint, so that was not the cause.
            demands = [
                dataclasses.replace(demand, min_samples=0, num_samples=None)
                for demand in demands
            ]
        for demand in demands:
            found = inspect(table, notes, demand, only_first=True)
            if found.problems:
                place, problem = min(found.problems.items())
                where = table.where(int(notes[place]))
                return f"{where}: {problem}; {advice(problem)}."
    return None


def advice(problem: str) -> str:
    """What to do about a record with this problem."""
    if "damaged" in problem or "changed" in problem:
        return ADVICE
    if "pitch is not known" in problem or "feature pitch is missing" in problem:
        return (
            "put it into the sound's name (C4, midi60) or a --csv when you make the "
            "TFRecord, or leave such notes out with --skip_corrupt"
        )
    return "write such records again, or leave them out with --skip_corrupt"


def _suspects(message: str, table: NoteTable) -> np.ndarray:
    """The notes that an error's text points at: a few, or none."""
    suspect = np.zeros(len(table.file), bool)
    for file, record in _HINT.findall(message):
        suspect |= (table.file == int(file)) & (table.record == int(record))
    for text in _OFFSET.findall(message):
        end = table.offset + table.size + 16  # with its lengths and checksums
        suspect |= (table.offset <= int(text)) & (int(text) < end)
    return np.flatnonzero(suspect)
