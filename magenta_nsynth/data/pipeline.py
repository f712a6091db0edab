"""What both ways of reading share: one note's values, and checks of arguments."""

import os

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.features import Demand, Piece, parse_record, whole
from magenta_nsynth.errors import InputError

__all__ = [
    "Features",
    "check_number",
    "checked_shard",
    "parallel_calls",
    "parse_note",
]

Features = dict[str, tf.Tensor]

_BYTES_AT_ONCE = 1 << 28  # of records being parsed


def parse_note(
    serialized: tf.Tensor,
    demand: Demand,
    place: tf.Tensor,
    files: tuple[str, ...],
    piece: Piece = whole,
) -> Features:
    """`parse_record` with "file" and "record", of which `place`, [2] int64, tells."""
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
    # Twice the cores, since reading also waits; a fixed number bounds the memory.
    fitting = max(1, _BYTES_AT_ONCE // int(sizes.max(initial=1)))
    return min(16, 2 * (os.cpu_count() or 1), fitting)


def check_number(value: int, name: str, least: int) -> None:
    """Raises InputError unless an argument is a whole number from `least` on."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} must be a whole number from {least} on, not {value}.")


def checked_shard(shard: tuple[int, int]) -> tuple[int, int]:
    """The worker's number and how many there are; InputError if there is no such."""
    number, count = shard
    if not 0 <= number < count:
        raise InputError(f"shard={shard}: give (i, n) with i from 0 to n - 1.")
    return number, count
