"""The order of training: a pure function of the seed and the position in it.

An epoch puts blocks of neighbouring notes into a random order and goes through them in
windows, within which all notes are shuffled. So any position is reached by arithmetic,
nothing is read that is not used, and files are read in pieces rather than by single
notes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

__all__ = ["Window", "block_starts", "windows"]


class Window(NamedTuple):
    """Some notes of the stream.

    Attributes:
      position: that of its first note in the endless stream of notes.
      notes: int64 [w], positions in the table of notes, in the stream's order.
      uniforms: float64 [w] in [0, 1), which choose each note's crop.
    """

    position: int
    notes: np.ndarray
    uniforms: np.ndarray


def block_starts(file: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The blocks: of one file, none longer than that file's `most`.

    Args:
      file: int64 [n], each note's file, ascending.
      most: int64 [files].

    Returns:
      int64 [blocks + 1]: their first notes, and n.
    """
    first_of_file = np.searchsorted(file, np.arange(len(most)))
    within = np.arange(len(file)) - first_of_file[file]
    return np.append(np.flatnonzero(within % most[file] == 0), len(file))


def windows(
    starts: np.ndarray, window_notes: int, seed: int, first: int = 0
) -> Iterator[Window]:
    """The windows of all epochs, without end.

    Args:
      starts: what `block_starts` gives.
      window_notes: about how many notes a window has.
      seed: another one is another order.
      first: windows that lie wholly before this position are left out.
    """
    num_notes, sizes = int(starts[-1]), np.diff(starts)
    num_windows = max(1, round(num_notes / window_notes))
    epoch = first // num_notes
    while True:
        order = np.argsort(np.random.default_rng([seed, epoch]).random(len(sizes)))
        before = np.cumsum(sizes[order]) - sizes[order]
        # A block goes where it begins. Windows of one size: no tiny one at the end.
        window_of = before * num_windows // num_notes
        for number in np.unique(window_of):
            blocks = order[window_of == number]
            position = epoch * num_notes + int(before[window_of == number][0])
            if position + sizes[blocks].sum() <= first:
                continue
            notes = np.concatenate(
                [np.arange(starts[block], starts[block + 1]) for block in blocks]
            )
            random = np.random.default_rng([seed, epoch, int(number) + 1])
            shuffled = notes[np.argsort(random.random(len(notes)))]
            yield Window(position, shuffled, random.random(len(notes)))
        epoch += 1
