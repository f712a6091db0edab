"""From an error of TensorFlow's to the record it comes from, in one line.

TensorFlow says at which byte a record is damaged but not in which file, and of a record
that can't be parsed not even that.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.inspection import inspect
from magenta_nsynth.data.records import ADVICE
from magenta_nsynth.data.runs import NoteTable

__all__ = ["DATA_ERRORS", "advice", "explain"]

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
