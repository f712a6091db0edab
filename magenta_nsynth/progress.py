"""One progress display for everything that takes long: files, bytes, audio samples.

On a terminal it is a bar, redrawn in place; anywhere else, plain lines far enough
apart that a log file stays readable. It never fails: a display that can't be
written is given up in silence, because the work matters more.
"""

import collections
import logging
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import TextIO

from magenta_nsynth.formatting import (
    format_bytes,
    format_clock,
    format_duration,
    format_rate,
    one_line,
)

__all__ = ["Progress"]

_REDRAW_SECONDS = 0.2  # on a terminal
_LOG_SECONDS = 20.0  # elsewhere
_RATE_SECONDS = 30.0  # the rate shown is that of about so long
_MIN_BAR = 10  # columns; a shorter bar says nothing


class Progress:
    """How much is done, how fast, and how long the rest will take.

    Used as a context manager, or closed with `close`. One at a time: two bars on one
    terminal would draw over each other.

    Attributes:
      total: how much there is to do, or None while that is unknown. May be set late.
      label: what stands before the numbers, e.g. a file's name. May be changed.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        label: str = "",
        stream: TextIO | None = None,
        *,
        initial: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock; nothing is drawn before the first `update`.

        Args:
          total: how much there is to do, in `unit`; None if unknown.
          unit: what is counted, in the plural ("files", "samples"); "B" for bytes,
            which are shown as kB, MB and so on.
          label: what to write before the numbers.
          stream: where to draw; None is sys.stderr as it is now.
          initial: how much was done before, by an earlier run. Not part of the rate.
          clock: seconds since any fixed moment.
        """
        self.total = total
        self.label = label
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._terminal = _is_terminal(self._stream)
        self._done = self._initial = initial
        self._start = self._last_drawn = clock()
        if self._terminal:
            self._last_drawn -= _REDRAW_SECONDS  # the first bar shows at once
        self._marks = collections.deque([(self._start, initial)])
        self._updated = False
        self._line_open = False

    def __enter__(self) -> "Progress":
        # A message logged while the bar stands would be glued to its end.
        logging.getLogger("absl").addFilter(self._make_room)
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        self.close(finished=error_type is None)

    def advance(self, amount: int = 1) -> None:
        """Notes that `amount` more is done, in `unit`."""
        self.update(self._done + amount)

    def update(self, done: int) -> None:
        """Notes that `done` is done in all, in `unit`; less than before is allowed."""
        now = self._clock()
        self._updated = True
        if done < self._done:  # begun again
            self._initial, self._start = done, now
            self._marks = collections.deque([(now, done)])
        self._done = done
        interval = _REDRAW_SECONDS if self._terminal else _LOG_SECONDS
        if now - self._last_drawn >= interval:
            self._last_drawn = now
            self._draw(now)
        if now - self._marks[-1][0] >= _REDRAW_SECONDS and done > self._marks[-1][1]:
            self._marks.append((now, done))

    def close(self, finished: bool = True) -> None:
        """Draws the last line, with the time it took. A second call does nothing.

        Args:
          finished: False says "stopped after", for work that was broken off.
        """
        logging.getLogger("absl").removeFilter(self._make_room)
        if self._updated:
            seconds = self._clock() - self._start
            rate = _ratio(self._done - self._initial, seconds)
            ending = "in" if finished else "stopped after"
            text = "  ".join(
                [*self._numbers(rate), f"{ending} {format_duration(seconds)}"]
            )
            self._write(self._fitted(text, bar=False) + "\n")
        self._updated = self._line_open = False
        self._stream = None

    def _draw(self, now: float) -> None:
        # Old marks go, but only while newer ones still show progress: the rate of
        # one file in five minutes must not become zero after thirty seconds.
        marks = self._marks
        while (
            len(marks) > 1
            and now - marks[1][0] > _RATE_SECONDS
            and marks[1][1] < self._done
        ):
            marks.popleft()
        rate = _ratio(self._done - marks[0][1], now - marks[0][0])
        parts = self._numbers(rate)
        if self.total is None:
            parts.append(f"{format_clock(now - self._start)} so far")
        elif rate:
            # Below 0 where more was done than announced.
            left = (self.total - self._done) / rate
            parts.append(f"{format_clock(left)} left")
        line = self._fitted("  ".join(parts), bar=True)
        self._write(line if self._terminal else line + "\n")
        self._line_open = self._terminal

    def _numbers(self, rate: float) -> list[str]:
        """The count, and the rate where there is one."""
        if self._unit == "B":
            parts = [format_bytes(self._done)]
            if self.total is not None:
                parts[0] += f" of {format_bytes(self.total)}"
            return [*parts, f"{format_bytes(rate)}/s"] if rate else parts
        count = f"{self._done:,}"
        if self.total is not None:
            total = f"{self.total:,}"
            count = f"{count:>{len(total)}}/{total}"
        parts = [f"{count} {self._unit}"]
        return [*parts, format_rate(rate, self._unit)] if rate else parts

    def _fitted(self, text: str, bar: bool) -> str:
        """The label, a bar where there is room, and `text`; one column stays free."""
        label = one_line(self.label)
        if not self._terminal:
            return f"{label}  {text}" if label else text
        width = _columns(self._stream) - 1
        room = max(width // 3, width - len(text) - _MIN_BAR - 6)
        if _width(label) > room:
            while label and _width(label) > room - 3:
                label = label[1:]
            label = f"...{label}"
        head = f"{label}  " if label else ""
        length = width - _width(head) - len(text) - 4
        if bar and self.total is not None and length >= _MIN_BAR:
            part = min(1.0, self._done / self.total) if self.total else 1.0
            filled = int(length * part)
            head += f"[{'#' * filled}{'.' * (length - filled)}]  "
        # Padded, so that nothing of a longer line before it stays behind.
        text = text[: max(0, width - _width(head))]
        return f"\r{head}{text}" + " " * (width - _width(head) - len(text))

    def _make_room(self, _: logging.LogRecord) -> bool:
        if self._line_open:
            self._write("\r" + " " * (_columns(self._stream) - 1) + "\r")
            self._line_open = False
        return True  # as a logging filter: let the message through

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe, a full disk, a closed file
            self._stream = None


def _ratio(amount: float, seconds: float) -> float:
    return amount / seconds if amount > 0 and seconds > 0 else 0.0


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal: East Asian letters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        # A "dumb" terminal (an editor's shell window) can't go back in its line.
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, OSError, ValueError):  # None, or closed
        return False


def _columns(stream: TextIO | None) -> int:
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        columns = shutil.get_terminal_size().columns
    return columns if columns > 0 else 80
