"""Checking records: which are damaged, why, and what to do, in one line."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.data.examples import examine
from magenta_nsynth.data.features import FEATURES, Demand
from magenta_nsynth.data.records import ADVICE
from magenta_nsynth.data.runs import NoteTable, read_records

__all__ = ["DATA_ERRORS", "Findings", "advice", "explain", "inspect"]


class Findings(NamedTuple):
    """What `inspect` saw of n notes.

    Attributes:
      problems: by the note's place among the n, what is wrong with it, in words.
      num_samples: int64 [n], the length of its audio at 16 kHz; -1 where that was not
        read, or there is a problem.
      values: int64 [n], qualities [n, 10], by the name of the label; -1 where there is
        a problem.
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
    """Reads notes and says of each whether it meets a demand. Nothing is raised.

    Args:
      table: where all notes lie.
      notes: int64 [n] positions in `table`, ascending.
      demand: what each must have. Integer labels among it are returned.
      only_first: stops at the first problem.
      progress: is called with the number of notes done, and n.
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
    for place, serialized, words in read_records(table, notes):
        example = None
        if not words:
            example, words = examine(serialized, demand)
        if example is None or words:
            findings.problems[place] = words
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
    # Where a record is no tf.Example, TensorFlow puts its bytes into the message.
    UnicodeDecodeError,
)
_HINT = re.compile(r"\[at\] \[(\d+)\] \[(\d+)\]")  # of features.parse_record
_OFFSET = re.compile(r"record at (\d+)")


def explain(
    error: Exception, table: NoteTable, demands: Sequence[Demand]
) -> str | None:
    """The file and record behind an error, what is wrong with it and what to do.

    The records that the error's text points at are read again, and if it was none of
    them, all are, in their order.

    Args:
      error: one of `DATA_ERRORS`.
      table: the notes that were read.
      demands: what was asked of them.

    Returns:
      One line; None if no record is to blame.
    """
    # Errors of a model's, say, are none of a data set's.
    if not isinstance(error, UnicodeDecodeError) and "Iterator" not in str(error):
        return None
    for notes in (_suspects(str(error), table), None):
        if notes is None:
            logging.warning("Reading all notes to find the one that can't be used.")
            notes = np.arange(len(table.file))
            # Too little audio is always hinted at, so it was not that.
            demands = [
                dataclasses.replace(demand, min_samples=0, num_samples=None)
                for demand in demands
            ]
        for demand in demands:
            found = inspect(table, notes, demand, only_first=True)
            if found.problems:
                place, words = min(found.problems.items())
                where = table.where(int(notes[place]))
                return f"{where}: {words}; {advice(words)}."
    return None


def advice(words: str) -> str:
    """What to do about a record of which `words` are said."""
    if "damaged" in words or "changed" in words:
        return ADVICE
    if "pitch is not known" in words or "feature pitch is missing" in words:
        return (
            "say it in the sound's name (C4, midi60) or by --csv when making the "
            "TFRecord, or leave such notes out by --skip_corrupt"
        )
    return "make such records anew, or leave them out by --skip_corrupt"


def _suspects(message: str, table: NoteTable) -> np.ndarray:
    """The notes that an error's text points at: few, or none."""
    suspect = np.zeros(len(table.file), bool)
    for file, record in _HINT.findall(message):
        suspect |= (table.file == int(file)) & (table.record == int(record))
    for text in _OFFSET.findall(message):
        end = table.offset + table.size + 16  # with its lengths and checksums
        suspect |= (table.offset <= int(text)) & (int(text) < end)
    return np.flatnonzero(suspect)
