"""One progress display for everything that takes long: files, bytes, audio samples."""

import contextlib
import logging
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import TextIO

from magenta_nsynth.formatting import (
    format_bytes,
    format_clock,
    format_duration,
    format_rate,
    one_line,
)

__all__ = ["Progress", "reporting"]

_REDRAW_SECONDS = 0.2  # on a terminal
_LOG_SECONDS = 20.0  # elsewhere
_RATE_SECONDS = 30.0  # the rate shown is that of the last 30 to 60 s
_MIN_BAR = 10  # columns; a shorter bar is not drawn


class Progress:
    """Shows how much is done, how fast, and how long the rest will take.

    On a terminal and in a notebook it is one line, redrawn in place. Elsewhere it is
    plain lines, far enough apart to keep a log file readable. Nothing is shown if the
    log level excludes INFO messages. A display that cannot be written is given up
    silently, because the work matters more.

    Used as a context manager, one at a time: two bars would overwrite each other.

    Attributes:
      total: how much there is to do, or None while unknown. May be set late.
      label: the text before the numbers, such as a file's name. May be changed.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        label: str = "",
        *,
        initial: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock; nothing is drawn before the first `update`.

        Args:
          total: how much there is to do, in `unit`; None if unknown.
          unit: what is counted, in the plural ("files", "samples"); "B" for bytes,
            which are shown as kB, MB and so on.
          label: the text before the numbers.
          initial: how much an earlier run has done; not part of the rate.
          clock: returns seconds since any fixed moment.
        """
        self.total = total
        self.label = label
        self._unit = unit
        self._clock = clock
        # The level of this program's own messages, set by --log.
        quiet = logging.getLogger("absl").level > logging.INFO
        self._stream: TextIO | None = None if quiet else sys.stderr
        on_terminal = _columns(self._stream) > 0
        self._interval = _REDRAW_SECONDS if on_terminal else _LOG_SECONDS
        self._begin(initial)
        # On a terminal the first bar shows at once.
        self._last_drawn = self._start - _REDRAW_SECONDS
        self._updated = False
        self._line_open = False

    def _begin(self, done: int) -> None:
        self._start = self._clock()
        self._done = self._initial = done
        # The two latest moments with progress that are `_RATE_SECONDS` apart.
        self._marks = [(self._start, done)] * 2

    def __enter__(self) -> "Progress":
        logging.getLogger("absl").addFilter(self._clear_line)
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        logging.getLogger("absl").removeFilter(self._clear_line)
        if self._updated:
            seconds = self._clock() - self._start
            ending = "stopped after" if error_type else "in"
            timing = f"{ending} {format_duration(seconds)}"
            self._draw(self._initial, seconds, timing, last=True)

    def advance(self, amount: int = 1) -> None:
        """Reports that `amount` more is done, in `unit`."""
        self.update(self._done + amount)

    def update(self, done: int) -> None:
        """Reports how much is done in all, in `unit`; it may be less than before."""
        if done < self._done:
            self._begin(done)
        self._done, self._updated = done, True
        now = self._clock()
        if now - self._last_drawn >= self._interval:
            self._last_drawn = now
            self._draw_running(now)
        # Only progress makes a mark: one file in five minutes must not become a rate
        # of zero.
        if now - self._marks[1][0] >= _RATE_SECONDS and done > self._marks[1][1]:
            self._marks = [self._marks[1], (now, done)]

    def _draw_running(self, now: float) -> None:
        then, before = self._marks[0]
        timing = ""
        if self.total is None:
            timing = f"{format_clock(now - self._start)} so far"
        elif self._done > before:
            # Negative if more was done than announced, which is shown as 0.
            left = (self.total - self._done) * (now - then) / (self._done - before)
            timing = f"{format_clock(left)} left"
        self._draw(before, now - then, timing)

    def _draw(
        self, before: int, seconds: float, timing: str, last: bool = False
    ) -> None:
        """Draws the line, with the rate since `before`, `seconds` ago."""
        parts = [self._count()]
        if self._done > before and seconds > 0:
            parts.append(format_rate((self._done - before) / seconds, self._unit))
        text = "  ".join([*parts, timing] if timing else parts)
        label = one_line(self.label)
        columns = _columns(self._stream)
        if columns:
            text = self._fitted(label, text, columns - 1, bar=not last)
        elif label:
            text = f"{label}  {text}"
        self._line_open = columns > 0 and not last
        self._write(text if self._line_open else f"{text}\n")

    def _count(self) -> str:
        if self._unit == "B":
            done = format_bytes(self._done)
            return (
                done if self.total is None else f"{done} of {format_bytes(self.total)}"
            )
        if self.total is None:
            return f"{self._done:,} {self._unit}"
        total = f"{self.total:,}"
        return f"{self._done:{len(total)},}/{total} {self._unit}"

    def _fitted(self, label: str, text: str, width: int, bar: bool) -> str:
        """The label, a bar where there is room, and `text`, in `width` columns."""
        if _width(label) > width // 3:
            while label and _width(label) > width // 3 - 3:
                label = label[1:]
            label = f"...{label}"
        head = f"{label}  " if label else ""
        room = width - _width(head)
        length = room - len(text) - 4
        if bar and self.total is not None and length >= _MIN_BAR:
            filled = int(length * min(1.0, self._done / max(1, self.total)))
            text = f"[{'#' * filled}{'.' * (length - filled)}]  {text}"
        # Padded, to cover a longer line before it.
        return f"\r{head}{text[:room]:{room}}"

    def _clear_line(self, _: logging.LogRecord) -> bool:
        """A logging filter that gives the message a line of its own."""
        if self._line_open:
            self._write("\r" + " " * (_columns(self._stream) - 1) + "\r")
            self._line_open = False
        return True

    def _write(self, text: str) -> None:
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):  # a closed pipe, a full disk, a closed file
            self._stream = None


@contextlib.contextmanager
def reporting(
    progress: bool | Callable[[int, int], None] | None, total: int, unit: str
) -> Iterator[Callable[[int], None]]:
    """A block that reports how much is done, in the way that a caller asked for.

    Args:
      progress: True shows a `Progress`; a function is called with how much is done and
        with the total; None and False report nothing.
      total: how much there is to do.
      unit: as for `Progress`.

    Yields:
      A function to call with how much is done in all.
    """
    if callable(progress):
        yield lambda done: progress(done, total)
    elif progress:
        with Progress(total, unit) as display:
            yield display.update
    else:
        yield lambda _: None


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal: East Asian letters take two."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _columns(stream: TextIO | None) -> int:
    """The width of the terminal or notebook behind a stream; 0 if it is neither."""
    if type(stream).__module__.startswith("ipykernel."):
        return 80
    try:
        # A "dumb" terminal, such as an editor's shell window, has no "\r".
        if stream is None or not stream.isatty() or os.environ.get("TERM") == "dumb":
            return 0
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):  # closed, or an imitation
        return 0
