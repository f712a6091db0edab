"""One pass through records: which are damaged, and what their numbers are."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.examples import examine
from magenta_nsynth.data.features import FEATURES, Demand
from magenta_nsynth.data.runs import NoteTable, read_records

__all__ = ["Findings", "inspect"]


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
