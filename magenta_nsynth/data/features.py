"""The features of a record: what can be asked for, and whether a record has it."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.data.schema import QUALITIES
from magenta_nsynth.errors import InputError

__all__ = ["FEATURES", "PLACE", "Demand", "feature_names", "parse_record", "problem_of"]


class _Kind(NamedTuple):
    """Of a feature: its type, the list it lies in, its number of values if fixed."""

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
PLACE = ("file", "record")  # not in a record, but of it: where it lies


def feature_names(features: Iterable[str] | str) -> tuple[str, ...]:
    """`features` as a tuple without repeats; InputError for one that does not exist."""
    names = (features,) if isinstance(features, str) else tuple(dict.fromkeys(features))
    for name in names:
        if name not in FEATURES and name not in PLACE:
            raise InputError(
                f"There is no feature {name!r}; known are "
                f"{', '.join([*FEATURES, *PLACE])}."
            )
    if not names:
        raise InputError(f"No feature is asked for; known are {', '.join(FEATURES)}.")
    return names


@dataclasses.dataclass(frozen=True)
class Demand:
    """What a record must have to be of use.

    Attributes:
      features: the names of the features that are read.
      min_samples: the least number of samples of its audio, if that is read.
      num_samples: the exact number, or None.
      needs_pitch: whether the pitch, which is read, has to be 0 to 127 rather than -1.
    """

    features: tuple[str, ...]
    min_samples: int = 1
    num_samples: int | None = None
    needs_pitch: bool = False

    def __post_init__(self) -> None:
        """What is judged is read."""
        if self.needs_pitch and "pitch" not in self.features:
            raise InputError("needs_pitch: ask for the feature pitch too.")

    @property
    def parsed(self) -> tuple[str, ...]:
        """The features that a record is parsed for: two are needed to judge one."""
        names = [name for name in self.features if name in FEATURES]
        names += ["qualities"] if "qualities_str" in names else []
        return tuple(dict.fromkeys(names))

    @property
    def checks(self) -> frozenset[str]:
        """What is known of a record's values, but for the audio, that meets it."""
        return frozenset(self.parsed) | ({_KNOWN_PITCH} if self.needs_pitch else set())

    def sample_problem(self, num_samples: int) -> str | None:
        """What is wrong with audio of so many samples, in words; None if nothing."""
        if self.num_samples is not None and num_samples != self.num_samples:
            wanted = f"exactly {self.num_samples:,}"
        elif num_samples < self.min_samples:
            wanted = f"{self.min_samples:,}"
        else:
            return None
        return f"its audio has {num_samples:,} samples, {wanted} are asked for"


def problem_of(serialized: bytes, demand: Demand) -> str | None:
    """What keeps one record from being used, in words; None if nothing does."""
    if not serialized:
        return "there is nothing in it (was the file changed while in use?)"
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # protobuf's DecodeError, whose place has moved
        return "not a tf.Example"
    counts = {}
    for name in demand.parsed:
        kind = FEATURES[name]
        field = features[name].WhichOneof("kind") if name in features else None
        if field is None and name != "qualities_str":
            return f"the feature {name} is missing"
        if field not in (kind.field, None):
            return f"the feature {name} has a {field}, not the {kind.field} asked for"
        counts[name] = len(getattr(features[name], kind.field).value) if field else 0
        if kind.size is not None and counts[name] != kind.size:
            return f"the feature {name} has {counts[name]} values, not {kind.size}"
    if demand.needs_pitch:
        [pitch] = features["pitch"].int64_list.value
        if not 0 <= pitch < NUM_PITCHES:
            return f"its pitch is not known ({pitch})"
    # An empty list may be written as no list at all, if there is nothing to name.
    if counts.get("qualities_str") == 0 and any(features["qualities"].int64_list.value):
        return "the feature qualities_str is missing"
    if "audio" not in counts:
        return None
    if not np.isfinite(features["audio"].float_list.value).all():
        return "its audio has NaN or infinite samples"
    return demand.sample_problem(counts["audio"])


def parse_record(
    serialized: tf.Tensor, demand: Demand, file: tf.Tensor, record: tf.Tensor
) -> dict[str, tf.Tensor]:
    """One record's features, in a graph; no others are parsed.

    Args:
      serialized: scalar string.
      demand: which features, and how much audio.
      file: scalar int64, for the error, which `NoteIndex.errors` reads.
      record: likewise.

    Returns:
      By name: audio [n], qualities [10], qualities_str [k], anything else a scalar.

    Raises:
      InvalidArgumentError: (when run) the record does not meet the demand.
    """
    # Each as a list of any length: what is missing is then empty, and is refused
    # below, with a hint at the record that TensorFlow's own error lacks.
    values = tf.io.parse_single_example(
        serialized,
        {
            name: tf.io.FixedLenSequenceFeature(
                [], FEATURES[name].dtype, allow_missing=True
            )
            for name in demand.parsed
        },
    )
    good = tf.constant(True)
    for name, value in values.items():
        count, size = tf.size(value), FEATURES[name].size
        if size is not None:
            good &= tf.equal(count, size)
        if name == "pitch" and demand.needs_pitch:
            good &= tf.reduce_all((value >= 0) & (value < NUM_PITCHES))
        if name == "audio":
            good &= count >= demand.min_samples
            good &= tf.reduce_all(tf.math.is_finite(value))
            if demand.num_samples is not None:
                good &= tf.equal(count, demand.num_samples)
    if "qualities_str" in values:
        # Missing and empty are parsed alike; the ten numbers tell them apart.
        good &= (tf.size(values["qualities_str"]) > 0) | tf.reduce_all(
            tf.equal(values["qualities"], 0)
        )
    # Not tf.debugging.Assert, whose branch costs more than all else here.
    check = tf.raw_ops.Assert(condition=good, data=["at", file, record])
    with tf.control_dependencies([check]):
        values = {name: tf.identity(value) for name, value in values.items()}
    for name, value in values.items():
        if FEATURES[name].size is not None:
            values[name] = tf.reshape(
                value, [] if FEATURES[name].size == 1 else [FEATURES[name].size]
            )
    return {name: values[name] for name in demand.features if name in values}
