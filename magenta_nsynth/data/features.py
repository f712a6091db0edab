"""The features of a record: which there are, and parsing them in a graph."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.loudness import MAX_LEVEL
from magenta_nsynth.audio.resample import MAX_RATE, MIN_RATE
from magenta_nsynth.config import NUM_PITCHES, SAMPLE_RATE
from magenta_nsynth.data.rates import at_16_khz
from magenta_nsynth.errors import InputError
from magenta_nsynth.schema import QUALITIES

__all__ = [
    "FEATURES",
    "Demand",
    "Features",
    "Piece",
    "check_number",
    "checked_shard",
    "feature_names",
    "is_rate",
    "parallel_calls",
    "parse_note",
    "parse_record",
    "whole",
]


class _Kind(NamedTuple):
    """A feature's type, the list that stores it, and its number of values if fixed."""

    dtype: tf.DType
    field: str
    size: int | None


_INT, _FLOAT, _BYTES = "int64_list", "float_list", "bytes_list"
FEATURES = {
    "audio": _Kind(tf.float32, _FLOAT, None),
    **{
        name: _Kind(tf.int64, _INT, 1)
        for name in (
            "pitch",
            "velocity",
            "instrument_family",
            "instrument_source",
            "note",
            "instrument",
            "sample_rate",
        )
    },
    "qualities": _Kind(tf.int64, _INT, len(QUALITIES)),
    **{
        name: _Kind(tf.string, _BYTES, 1)
        for name in (
            "note_str",
            "instrument_str",
            "instrument_source_str",
            "instrument_family_str",
        )
    },
    "qualities_str": _Kind(tf.string, _BYTES, None),
}
_KNOWN_PITCH = "a known pitch"
_PLACE = ("file", "record")  # not stored in the record; they say where it is
_BYTES_AT_ONCE = 1 << 28  # of records being parsed

Features = dict[str, tf.Tensor]
# From a note's number of samples, int64: the first one wanted, and how many.
Piece = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def is_rate(rate: int) -> bool:
    """Whether this is a possible number of samples per second."""
    return MIN_RATE <= rate <= MAX_RATE


def feature_names(features: Iterable[str] | str) -> tuple[str, ...]:
    """The names as a tuple without repeats; InputError for an unknown one."""
    names = (features,) if isinstance(features, str) else tuple(dict.fromkeys(features))
    for name in names:
        if name not in FEATURES and name not in _PLACE:
            raise InputError(
                f"There is no feature {name!r}; use one of "
                f"{', '.join([*FEATURES, *_PLACE])}."
            )
    if not names:
        raise InputError(f"features is empty; use one of {', '.join(FEATURES)}.")
    return names


@dataclasses.dataclass(frozen=True)
class Demand:
    """What a record must have to be usable.

    Attributes:
      features: the names of the features to read.
      min_samples: the least number of samples at 16 kHz, if audio is read.
      num_samples: the exact number, or None.
      needs_pitch: whether the pitch must be known (0 to 127, not -1). Needs the
        feature pitch.
      labels: further features it must have, under NSynth's name or another's.

    Raises:
      InputError: needs_pitch without the feature pitch.
    """

    features: tuple[str, ...]
    min_samples: int = 1
    num_samples: int | None = None
    needs_pitch: bool = False
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks that the pitch is read if it is needed."""
        if self.needs_pitch and "pitch" not in self.features:
            raise InputError("needs_pitch: ask for the feature pitch too.")

    @property
    def parsed(self) -> tuple[str, ...]:
        """The features to parse; checking qualities_str takes qualities too."""
        names = [name for name in self.features if name in FEATURES]
        names += ["qualities"] if "qualities_str" in names else []
        return tuple(dict.fromkeys(names))

    @property
    def checks(self) -> frozenset[str]:
        """What is certain of a record that meets it, apart from its audio's length."""
        return frozenset(self.parsed) | ({_KNOWN_PITCH} if self.needs_pitch else set())

    def sample_problem(self, num_samples: int) -> str | None:
        """What is wrong with audio of this many samples; None if nothing."""
        if self.num_samples is not None and num_samples != self.num_samples:
            wanted = f"exactly {self.num_samples:,}"
        elif num_samples < self.min_samples:
            wanted = f"{self.min_samples:,}"
        else:
            return None
        return f"its audio has {num_samples:,} samples, {wanted} are asked for"


def whole(num_samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The `Piece` that is all of the audio."""
    return tf.constant(0, tf.int64), num_samples


def parse_record(
    serialized: tf.Tensor,
    demand: Demand,
    file: tf.Tensor,
    record: tf.Tensor,
    piece: Piece = whole,
) -> Features:
    """Parses one record's features in a graph, and no others.

    Args:
      serialized: scalar string.
      demand: which features, and what they must be.
      file: scalar int64, the file's index, put into errors for `NoteIndex.errors`.
      record: scalar int64, the record's index in the file, likewise.
      piece: which part of the audio to return.

    Returns:
      By name: audio [n] at 16 kHz, qualities [10], qualities_str [k], anything else a
      scalar.

    Raises:
      InvalidArgumentError: (when run) the record does not meet the demand.
    """
    # Each as a list of any length: a missing one is then empty, and fails the check
    # below, whose error names the record. TensorFlow's own error does not.
    names = [*demand.parsed, *(["sample_rate"] if "audio" in demand.parsed else [])]
    values = tf.io.parse_single_example(
        serialized,
        {
            name: tf.io.FixedLenSequenceFeature(
                [], FEATURES[name].dtype, allow_missing=True
            )
            for name in names
        },
    )
    good = tf.constant(True)
    for name in demand.parsed:
        value, size = values[name], FEATURES[name].size
        if size is not None:
            good &= tf.equal(tf.size(value), size)
        if name == "pitch" and demand.needs_pitch:
            good &= tf.reduce_all((value >= 0) & (value < NUM_PITCHES))
        if name == "audio":
            # The record's own rate, or the default if it has none.
            rate = tf.concat([values["sample_rate"], [SAMPLE_RATE]], axis=0)[0]
            good &= tf.size(values["sample_rate"]) <= 1
            num_samples = _num_samples(value, rate)
            good &= _is_good_audio(value, rate, num_samples, demand)
    if "qualities_str" in values:
        # Missing and empty parse to the same; the ten numbers tell them apart.
        good &= (tf.size(values["qualities_str"]) > 0) | tf.reduce_all(
            tf.equal(values["qualities"], 0)
        )
    # Not tf.debugging.Assert: its branch costs more than everything else here.
    check = tf.raw_ops.Assert(condition=good, data=["at", file, record])
    with tf.control_dependencies([check]):
        values = {name: tf.identity(values[name]) for name in demand.parsed}
    if "audio" in values:
        values["audio"] = at_16_khz(values["audio"], rate, *piece(num_samples))
    for name, value in values.items():
        size = FEATURES[name].size
        if size is not None:
            values[name] = tf.reshape(value, [] if size == 1 else [size])
    return {name: values[name] for name in demand.features if name in values}


def _num_samples(audio: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Samples at 16 kHz, as `resampled_length`; meaningless for an impossible rate."""
    divisor = tf.where((rate >= MIN_RATE) & (rate <= MAX_RATE), rate, SAMPLE_RATE)
    return (tf.size(audio, tf.int64) * SAMPLE_RATE + divisor - 1) // divisor


def _is_good_audio(
    audio: tf.Tensor, rate: tf.Tensor, num_samples: tf.Tensor, demand: Demand
) -> tf.Tensor:
    """Whether there is enough audio, at a possible rate and level."""
    good = (rate >= MIN_RATE) & (rate <= MAX_RATE)
    good &= num_samples >= demand.min_samples
    good &= tf.reduce_all(tf.abs(audio) <= MAX_LEVEL)  # False for NaN
    if demand.num_samples is not None:
        good &= tf.equal(num_samples, demand.num_samples)
    return good


def parse_note(
    serialized: tf.Tensor,
    demand: Demand,
    place: tf.Tensor,
    files: tuple[str, ...],
    piece: Piece = whole,
) -> Features:
    """As `parse_record`, with the features "file" and "record".

    Args:
      serialized: scalar string.
      demand: which features, and what they must be.
      place: [2] int64, the indices of the file and of the record in it.
      files: the paths of all files.
      piece: which part of the audio to return.
    """
    file, record = tf.unstack(place)
    values = parse_record(serialized, demand, file, record, piece)
    if "file" in demand.features:
        values["file"] = tf.gather(
            [name.encode("utf-8", "surrogateescape") for name in files], file
        )
    if "record" in demand.features:
        values["record"] = record
    return {name: values[name] for name in demand.features}


def parallel_calls(sizes: np.ndarray) -> int:
    """How many records of these sizes in bytes to parse at once."""
    # Twice the cores, since reading also waits; the fixed limit bounds the memory.
    fitting = max(1, _BYTES_AT_ONCE // int(sizes.max(initial=1)))
    return min(16, 2 * (os.cpu_count() or 1), fitting)


def check_number(value: int, name: str, least: int) -> None:
    """Raises InputError unless an argument is an integer of at least `least`."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} must be an integer of {least} or more, not {value}.")


def checked_shard(shard: tuple[int, int]) -> tuple[int, int]:
    """The worker's index and the number of workers; InputError if impossible."""
    number, count = shard
    if not 0 <= number < count:
        raise InputError(f"shard={shard}: give (i, n) with i from 0 to n - 1.")
    return number, count
