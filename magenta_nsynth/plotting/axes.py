"""Drawing on one matplotlib axis: a picture, curves, and the ticks beside them."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from magenta_nsynth.plotting.colors import curve_colors
from magenta_nsynth.plotting.panel import Panel

__all__ = ["AXES", "draw_curves", "draw_image", "draw_message", "frequency_ticks"]

AXES = ("none", "notes", "hz")
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_NATURALS = (0, 2, 4, 5, 7, 9, 11)
_LEAST_GAP = 0.055  # between ticks, of the height
_ENDED = "#e9e9e9"  # where a sound is over and others go on; silence is black


def draw_image(ax: Axes, panel: Panel, axis: str = "none") -> None:
    """Draws a panel's picture, low frequencies at the bottom, seconds to the right.

    Args:
      ax: what to draw on.
      panel: with an image.
      axis: what stands beside it: "none", "notes" (C2 to C8) or "hz".
    """
    bins = len(panel.image)
    ax.imshow(
        panel.image,
        origin="lower",
        aspect="auto",
        interpolation="antialiased",
        extent=(panel.start, panel.end, -0.5, bins - 0.5),
    )
    ax.set_xlim(panel.start, panel.end)
    ax.set_ylim(-0.5, bins - 0.5)
    ax.set_facecolor(_ENDED)
    _frame(ax)
    ax.set_xticks([])
    ax.set_yticks([])
    if axis != "none":
        places, labels = frequency_ticks(panel.frequencies, axis)
        ax.set_yticks(places, labels)
        _mark_seconds(ax)


def draw_curves(ax: Axes, panel: Panel, axis: str = "none") -> None:
    """Draws a panel's curves over time, a colour for each channel."""
    rows, channels = panel.curves.shape
    seconds = (np.arange(rows) + 0.5) * panel.seconds_per_row
    ax.set_prop_cycle(color=curve_colors(channels))
    ax.plot(seconds, panel.curves, linewidth=0.8, marker="." if rows == 1 else "")
    ax.set_xlim(min(panel.start, 0), max(panel.end, rows * panel.seconds_per_row))
    _frame(ax)
    ax.set_xticks([])
    ax.set_yticks([])
    if axis != "none":
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.yaxis.get_offset_text().set_size(6)
        _mark_seconds(ax)


def draw_message(ax: Axes, words: str, size: float) -> None:
    """Writes words in the place of a picture, at a size in points."""
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, words, size=size, ha="center", va="center")
    _frame(ax)


def _mark_seconds(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g} s")
    ax.tick_params(length=2, width=0.6, pad=2, labelsize=6)


def _frame(ax: Axes) -> None:
    for spine in ax.spines.values():
        spine.set_linewidth(0.5)


def frequency_ticks(
    frequencies: np.ndarray, axis: str
) -> tuple[list[float], list[str]]:
    """Where ticks go on an axis of bins, and what stands beside them.

    Args:
      frequencies: [bins] in Hz, rising.
      axis: "notes" or "hz".

    Returns:
      Places, in bins, and labels, from the top down and far enough apart to read.
    """
    low, high = max(frequencies[0], 1.0), frequencies[-1]
    if axis == "notes":
        candidates = _notes_between(low, high)
    else:
        candidates = _round_numbers_between(low, high)
    places: list[float] = []
    labels: list[str] = []
    gap = _LEAST_GAP * len(frequencies)
    for frequency, label in reversed(candidates):
        place = float(np.interp(frequency, frequencies, np.arange(len(frequencies))))
        if places and places[-1] - place < gap:
            if axis == "notes":
                break  # one octave without a label among others would mislead
            continue
        places.append(place)
        labels.append(label)
    return places, labels


def _notes_between(low: float, high: float) -> list[tuple[float, str]]:
    """(Hz, name): of three octaves and more the Cs, of less all white keys."""
    near = 2 ** (1 / 36)  # a lowest bin at C2 is at 65.406 Hz, and C2 at 65.4064
    kept = (0,) if high / low >= 7.9 else _NATURALS
    notes = []
    for pitch in range(128):
        frequency = 440.0 * 2 ** ((pitch - 69) / 12)
        if pitch % 12 in kept and low / near <= frequency <= high * near:
            notes.append((frequency, f"{_NAMES[pitch % 12]}{pitch // 12 - 1}"))
    return notes


def _round_numbers_between(low: float, high: float) -> list[tuple[float, str]]:
    numbers = [
        digit * 10.0**power
        for power in range(int(math.log10(low)), int(math.log10(high)) + 1)
        for digit in (1, 2, 3, 4, 5, 6, 7, 8)
    ]
    return [
        (n, f"{n / 1000:g}k" if n >= 1000 else f"{n:g}")
        for n in numbers
        if low <= n <= high
    ]
