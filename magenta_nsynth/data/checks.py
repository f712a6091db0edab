"""Finds the records that can't be used and says, in one line, why and what to do."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.data.examples import read_examples
from magenta_nsynth.data.features import FEATURES, Demand
from magenta_nsynth.data.records import ADVICE
from magenta_nsynth.data.runs import NoteTable

__all__ = ["DATA_ERRORS", "Findings", "advice", "explain", "inspect"]


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
