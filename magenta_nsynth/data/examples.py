"""One record as a tf.Example, whoever wrote it: its audio, labels and problems."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.audio.level import MAX_LEVEL, level_problem
from magenta_nsynth.audio.resample import resample, resampled_length
from magenta_nsynth.config import NUM_PITCHES, SAMPLE_RATE
from magenta_nsynth.data.features import FEATURES, Demand, is_rate
from magenta_nsynth.data.runs import NoteTable, read_records
from magenta_nsynth.schema import QUALITIES

__all__ = ["Example", "LabelReader", "read_examples"]

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
    paths = [os.path.abspath(path) for path in files]
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
