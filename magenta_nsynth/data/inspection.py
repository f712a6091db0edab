"""One pass through records: which are damaged, and what their numbers are."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import NUM_PITCHES
from magenta_nsynth.data.features import FEATURES, Demand, problem_of
from magenta_nsynth.data.runs import NoteTable, plan_runs, read_run

__all__ = ["Findings", "inspect"]

_RECORDS_AT_ONCE, _BYTES_AT_ONCE = 64, 16 << 20


class Findings(NamedTuple):
    """What `inspect` saw of n notes.

    Attributes:
      problems: by the note's place among the n, what is wrong with it, in words.
      num_samples: int64 [n], the length of its audio; -1 where that was not read.
      values: int64 [n], qualities [n, 10], by the name of the feature; -1 where there
        is a problem.
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
      demand: what each must have. Integer features among them are returned.
      only_first: stops at the first problem.
      progress: is called with the number of notes done, and n.
    """
    findings = Findings(
        {},
        np.full(len(notes), -1, np.int64),
        {
            name: np.full((len(notes), size) if size > 1 else len(notes), -1, np.int64)
            for name in demand.parsed
            if FEATURES[name].dtype == tf.int64 and (size := FEATURES[name].size)
        },
    )
    largest = int(table.size[notes].max(initial=1))
    batch_size = min(_RECORDS_AT_ONCE, max(1, _BYTES_AT_ONCE // largest))
    done = 0
    careful_until = 0  # up to here, record by record
    while done < len(notes) and not (only_first and findings.problems):
        careful = done < careful_until
        until = careful_until if careful else len(notes)
        batches = _read(table, notes[done:until], 1 if careful else batch_size)
        start = done
        try:
            for slots, serialized in batches:
                _judge(serialized, start + slots.numpy(), demand, findings)
                done = start + int(slots[-1]) + 1
                if progress is not None:
                    progress(done, len(notes))
                if only_first and findings.problems:
                    break
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            if not careful and batch_size > 1:
                careful_until = min(done + batch_size, len(notes))
                continue
            findings.problems[done] = _words(error)
            done += 1
    return findings


def _read(table: NoteTable, notes: np.ndarray, batch_size: int) -> tf.data.Dataset:
    runs = plan_runs(table, notes)
    slots = tf.constant(runs.slots)
    return (
        tf.data.Dataset.from_tensor_slices(runs.rows)
        .flat_map(lambda row: read_run(table, row, slots))
        .batch(batch_size)
        .prefetch(1)
    )


def _words(error: Exception) -> str:
    if isinstance(error, tf.errors.NotFoundError):
        return "the file is not there any more"
    if isinstance(error, tf.errors.DataLossError):
        if "truncated" in str(error):
            return "the file was cut in it, or changed while in use"
        return "damaged, its checksum is wrong"
    return f"it can't be read ({type(error).__name__})"


def _judge(
    serialized: tf.Tensor, places: np.ndarray, demand: Demand, findings: Findings
) -> None:
    """Enters into `findings` what there is to say of some records, [b] string."""
    if not demand.parsed:
        return
    spec = {
        name: tf.io.RaggedFeature(FEATURES[name].dtype, row_splits_dtype=tf.int64)
        for name in demand.parsed
    }
    try:
        parsed = tf.io.parse_example(serialized, spec)
    except (tf.errors.OpError, UnicodeDecodeError):
        # One of them spoils it for all.
        if len(places) > 1:
            for one, place in zip(serialized, places, strict=True):
                _judge(one[tf.newaxis], np.array([place]), demand, findings)
        else:
            words = problem_of(serialized[0].numpy(), demand)
            findings.problems[int(places[0])] = words or "not a tf.Example"
        return
    counts = {name: value.row_lengths().numpy() for name, value in parsed.items()}
    suspect = np.zeros(len(places), bool)
    for name, count in counts.items():
        if FEATURES[name].size is not None:
            suspect |= count != FEATURES[name].size
    if demand.needs_pitch:
        pitch = parsed["pitch"]
        bad = tf.cast((pitch < 0) | (pitch >= NUM_PITCHES), tf.float32)
        suspect |= tf.reduce_sum(bad, axis=1).numpy() > 0
    if "audio" in counts:
        finite = tf.cast(tf.math.is_finite(parsed["audio"]), tf.float32)
        suspect |= tf.reduce_sum(1 - finite, axis=1).numpy() > 0
        suspect |= np.array(
            [demand.sample_problem(n) is not None for n in counts["audio"]]
        )
        findings.num_samples[places] = counts["audio"]
    if "qualities_str" in counts:
        suspect |= counts["qualities_str"] == 0
    for row in np.flatnonzero(suspect):
        words = problem_of(serialized[row].numpy(), demand)
        if words:
            findings.problems[int(places[row])] = words
        else:
            suspect[row] = False
    good = np.flatnonzero(~suspect)
    for name, values in findings.values.items():
        if len(good):
            dense = tf.gather(parsed[name], good).to_tensor().numpy()
            values[places[good]] = dense if values.ndim > 1 else dense[:, 0]
