"""One panel of a figure: what it shows, where it lies, how it is drawn."""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from magenta_nsynth.errors import InputError
from magenta_nsynth.formatting import readable
from magenta_nsynth.plotting.backend import (
    Axes,
    MaxNLocator,
    font_manager,
    matplotlib,
    text_to_path,
)
from magenta_nsynth.plotting.options import Look

__all__ = [
    "Labels",
    "Layout",
    "Panel",
    "check_curves",
    "draw_curves",
    "draw_image",
    "draw_message",
    "fit_labels",
    "lay_out",
    "value_limits",
]

_MAX_CURVES = 64  # more lines can't be told apart
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_NATURALS = (0, 2, 4, 5, 7, 9, 11)
_LEAST_GAP = 0.055  # between ticks, as a share of the height
_ENDED = "#e9e9e9"  # behind the end of a sound; silence is black


@dataclasses.dataclass(frozen=True)
class Panel:
    """A picture of a sound, curves below it, or both. It needs no TensorFlow.

    Attributes:
      name: of the sound.
      image: uint8 [bins, frames, 3], the lowest bin first, or None.
      frequencies: float64 [bins], in Hz, or None.
      seconds_per_frame: between columns of the image.
      curves: float32 [frames, channels], an embedding, or None.
      seconds_per_row: the length of one frame of the curves.
      message: is shown instead of a picture that can't be made.
      caption: what a web page calls it; "" is its name.
      audio: [t] float32 at 16 kHz, what plays on a web page, or None.
    """

    name: str
    image: np.ndarray | None = None
    frequencies: np.ndarray | None = None
    seconds_per_frame: float = 0.016
    curves: np.ndarray | None = None
    seconds_per_row: float = 0.032
    message: str = ""
    caption: str = ""
    audio: np.ndarray | None = None

    @property
    def start(self) -> float:
        """The start of the picture in seconds: its first frame is centred on 0."""
        return 0.0 if self.image is None else -self.seconds_per_frame / 2

    @property
    def end(self) -> float:
        """The end of the picture or, if there is none, of the curves, in seconds."""
        if self.image is not None:
            return (self.image.shape[1] - 0.5) * self.seconds_per_frame
        return 0.0 if self.curves is None else len(self.curves) * self.seconds_per_row


def value_limits(panels: Iterable[Panel]) -> tuple[float, float]:
    """The range of all curves with some padding; (-1, 1) if there are none."""
    values = [panel.curves for panel in panels if panel.curves is not None]
    low = min((float(v.min()) for v in values), default=0.0)
    high = max((float(v.max()) for v in values), default=0.0)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def check_curves(encoding: np.ndarray, name: str = "the embedding") -> np.ndarray:
    """An embedding as curves over time, [frames, channels] float32.

    Args:
      encoding: [frames, channels] or [1, frames, channels].
      name: what an error calls it.

    Raises:
      InputError: another shape, no frames, too many channels, NaN or infinity.
    """
    encoding = np.asarray(encoding)
    if encoding.ndim == 3 and len(encoding) == 1:
        encoding = encoding[0]
    if encoding.ndim != 2 or not encoding.size:
        raise InputError(
            f"{name}: curves are drawn of one embedding [frames, channels], not of an "
            f"array of shape {list(encoding.shape)}."
        )
    if encoding.shape[1] > _MAX_CURVES:
        raise InputError(
            f"{name}: has {encoding.shape[1]} channels, and at most {_MAX_CURVES} can "
            "be drawn as curves. (The baseline's z is not a function of time.)"
        )
    if encoding.dtype.kind in "fiu":
        with np.errstate(over="ignore"):  # beyond float32 is infinite
            encoding = encoding.astype(np.float32)
        if np.isfinite(encoding).all():
            return encoding
    raise InputError(f"{name}: contains values that are not finite numbers.")


def draw_image(ax: Axes, panel: Panel, axis: str = "none") -> None:
    """Draws a panel's picture, low frequencies at the bottom, seconds to the right.

    Args:
      ax: what to draw on.
      panel: with an image.
      axis: its labels: "none", "notes" (C2 to C8) or "hz".
    """
    assert panel.image is not None
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
    if axis != "none" and panel.frequencies is not None:
        places, labels = frequency_ticks(panel.frequencies, axis)
        ax.set_yticks(places, labels)
        _mark_seconds(ax)


def draw_curves(ax: Axes, panel: Panel, axis: str = "none") -> None:
    """Draws a panel's curves over time, each channel in a colour of its own."""
    assert panel.curves is not None
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
        ax.yaxis.get_offset_text().set_fontsize(6)
        _mark_seconds(ax)


def draw_message(ax: Axes, words: str, size: float) -> None:
    """Writes words in place of a picture, at a size in points."""
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, words, size=size, ha="center", va="center")
    _frame(ax)


def curve_colors(num_channels: int) -> np.ndarray:
    """A colour for each channel of an embedding, [num_channels, 4] RGBA."""
    if num_channels <= 20:
        return matplotlib.colormaps["tab20"](np.arange(num_channels))
    return matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, num_channels))


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
    """The ticks of an axis of bins.

    Args:
      frequencies: [bins] in Hz, rising.
      axis: "notes" or "hz".

    Returns:
      Their places, in bins, and labels, from the top down and far enough apart to be
      read.
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
    """(Hz, name) of each C in three octaves or more, else of each white key."""
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


# Inches, except for shares of a picture's height.
_SECONDS_PER_SQUARE = 4.0  # a note's picture is square; a longer one is wider
_NARROWEST, _WIDEST = 0.5, 6.0  # share
_CURVES = 0.45  # share
_MARGIN, _GAP, _SMALL_GAP = 0.1, 0.08, 0.04
_TICKS_LEFT, _TICKS_BELOW, _TICKS_RIGHT = 0.3, 0.2, 0.15
_LINE = 1.3 / 72  # the height of a line, per point of its size
_LEAST_HEIGHT = 0.3
_MOST_PIXELS = 30_000  # of a side; matplotlib's own limit is 65,536

_LEAST_SIZE, _LEAST_SHARE = 5.0, 0.75  # in points; of the intended size
_POINTS = 72.0  # per inch
# What a line of a label is made of: parts of names, or whole names.
_PARTS = r"[^\s_\-./]*[\s_\-./]*"
_WORDS = r"(?:\+ ?)?[^\s+]*\s*"


class Labels(NamedTuple):
    """Labels of one kind: their text, their size in points, the height they take."""

    texts: list[str]
    size: float
    room: float


class Layout(NamedTuple):
    """The measures of a figure, in inches from its upper left corner.

    Attributes:
      width: of the figure.
      height: of the figure.
      left: of the first cell.
      top: of the first cell.
      step: from one cell to the next, (right, down).
      cell_width: of a picture.
      picture: the height of a picture; 0 if there is none.
      curves: the height of the curves; 0 if there are none.
      curves_top: where the curves start, below the top of the picture.
      seconds: (first, last) of the common time scale.
      values: (lowest, highest) of all curves.
      heading: the title of the figure.
      titles: above the pictures.
      rows: labels at the left.
      columns: labels above the first row, below the title of the figure.
    """

    width: float
    height: float
    left: float
    top: float
    step: tuple[float, float]
    cell_width: float
    picture: float
    curves: float
    curves_top: float
    seconds: tuple[float, float]
    values: tuple[float, float]
    heading: Labels
    titles: Labels
    rows: Labels
    columns: Labels


def lay_out(panels: Sequence[Panel], rows: int, columns: int, look: Look) -> Layout:
    """The layout of panels in a grid; very many pictures become smaller.

    Raises:
      InputError: the figure would still be too large.
    """
    height = look.height
    while True:
        layout = _lay_out(panels, rows, columns, look, height)
        excess = max(layout.width, layout.height) * look.dpi / _MOST_PIXELS
        if excess <= 1:
            return layout
        height *= max(0.5, min(0.95, 1 / excess))
        if height < min(_LEAST_HEIGHT, look.height):
            raise InputError(
                f"A figure of {rows} x {columns} pictures at {look.dpi} dpi has more "
                f"than {_MOST_PIXELS} pixels a side; give a grid that is closer to a "
                "square, fewer sounds, a lower dpi, or a folder for one file per sound."
            )


def _lay_out(
    panels: Sequence[Panel], rows: int, columns: int, look: Look, height: float
) -> Layout:
    has_axis = look.axis != "none"
    has_curves = any(p.curves is not None for p in panels)
    has_pictures = any(p.image is not None or p.message for p in panels)
    start, end = min(p.start for p in panels), max(p.end for p in panels)
    share = (end - start) / _SECONDS_PER_SQUARE
    cell_width = height * min(max(share, _NARROWEST), _WIDEST)
    picture = height if has_pictures else 0.0
    # Without pictures the curves get their height.
    curves = (height * _CURVES if has_pictures else height) if has_curves else 0.0
    curves_top = picture + (_SMALL_GAP if picture and curves else 0.0)
    body = curves_top + curves

    size = 9 * min(1.0, height / 1.2)
    titles = _labels(look.titles, cell_width, size)
    row_labels = _labels(look.row_labels, body, size)
    column_labels = _labels(look.column_labels, cell_width, size)
    step = (
        cell_width + _GAP + (_TICKS_LEFT if has_axis else 0.0),
        titles.room + body + _GAP + (_TICKS_BELOW if has_axis else 0.0),
    )
    left = _MARGIN + row_labels.room + (_TICKS_LEFT if has_axis else 0.0)
    width = left + (columns - 1) * step[0] + cell_width + _MARGIN
    width += _TICKS_RIGHT if has_axis else 0.0
    heading = _labels([look.title] if look.title else [], width - 2 * _MARGIN, 12, 3)
    top = _MARGIN + heading.room + column_labels.room + titles.room
    total = top - titles.room + rows * step[1] - _GAP + _MARGIN
    return Layout(
        width=width,
        height=total,
        left=left,
        top=top,
        step=step,
        cell_width=cell_width,
        picture=picture,
        curves=curves,
        curves_top=curves_top,
        seconds=(start, end),
        values=value_limits(panels),
        heading=heading,
        titles=titles,
        rows=row_labels,
        columns=column_labels,
    )


def _labels(texts: Sequence[str], width: float, size: float, lines: int = 2) -> Labels:
    """Labels that fit a width, and their height including the gap beside them."""
    if not any(texts):
        return Labels([], size, 0.0)
    fitted, size = fit_labels(texts, width, max(size, 5.0), lines)
    count = max(text.count("\n") + 1 for text in fitted)
    return Labels(fitted, size, count * size * _LINE + _SMALL_GAP)


def fit_labels(
    labels: Sequence[str], room: float, size: float, num_lines: int = 2
) -> tuple[list[str], float]:
    """Breaks labels into lines, then makes them smaller, and shortens them if needed.

    Labels of several words, such as "flute_060+organ_060", are broken between the
    words if a smaller size allows it, and inside them if not.

    Args:
      labels: the words; all get one size.
      room: the width of a line, in inches.
      size: of the font, in points, if there is room.
      num_lines: the maximum number of lines per label.

    Returns:
      The labels with line breaks, and the size.
    """
    labels = [
        re.sub(r"[\x00-\x1f\x7f]+", " ", readable(str(label))) for label in labels
    ]
    least = max(_LEAST_SIZE, _LEAST_SHARE * size)
    sizes = [*np.arange(size, least, -0.5).tolist(), least]
    have_several = [bool(re.search(r"[\s+]", label)) for label in labels]
    for parts, smaller in itertools.product((_WORDS, _PARTS), sizes):
        broken = [
            _break(label, room, smaller, num_lines, parts if several else _PARTS)
            for label, several in zip(labels, have_several, strict=True)
        ]
        fitting = [text for text in broken if text is not None]
        if len(fitting) == len(broken):
            return fitting, smaller
    return [
        _break(label, room, least, num_lines) or _shorten(label, room, least, num_lines)
        for label in labels
    ], least


def _width(text: str, size: float) -> float:
    """The width of a line in inches."""
    return size * _width_per_point(text, tuple(matplotlib.rcParams["font.family"]))


@functools.lru_cache(maxsize=4096)
def _width_per_point(text: str, families: tuple[str, ...]) -> float:
    if not text:
        return 0.0
    font = font_manager.FontProperties(family=families, size=_POINTS)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return width / _POINTS**2


def _break(
    text: str, room: float, size: float, num_lines: int, parts: str = _PARTS
) -> str | None:
    """Lines that fit, broken after what `parts` matches; None if there are too many."""
    lines, line = [], ""
    for word in re.findall(parts, text):
        if line and _width((line + word).rstrip(), size) > room:
            lines.append(line.rstrip())
            line = ""
        line += word
    lines.append(line.rstrip())
    if len(lines) > num_lines or any(_width(line, size) > room for line in lines):
        return None
    return "\n".join(lines)


def _shorten(text: str, room: float, size: float, num_lines: int) -> str:
    """As much of the start and the end of a text as fits."""
    fewest, most = 0, len(text)  # characters that fit, and that may fit
    best = "…"
    while fewest < most:
        kept = (fewest + most + 1) // 2
        shorter = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
        broken = _break(shorter, room, size, num_lines)
        if broken is None:
            most = kept - 1
        else:
            fewest, best = kept, broken
    return best
