"""Durations, sizes and rates formatted for people, and text made safe to show."""

import math
import re

__all__ = [
    "counted",
    "format_bytes",
    "format_clock",
    "format_duration",
    "format_rate",
    "one_line",
    "readable",
]


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and what is counted: "1 sound", "1,200 sounds"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_duration(seconds: float) -> str:
    """Formats a duration: "0.4 s", "8 s", "3 min 20 s", "2 h 05 min", "3 d 04 h".

    Args:
      seconds: a negative number counts as 0; NaN and infinity give "?".
    """
    if not math.isfinite(seconds):
        return "?"
    if seconds < 0.95:
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours:02d} h"


def format_bytes(num_bytes: float) -> str:
    """Formats a size in powers of 1000: "512 B", "9.8 kB", "987 MB", "74.2 GB"."""
    if num_bytes < 999.5:
        return f"{num_bytes:.0f} B"
    value = float(num_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    # A tenth of a gigabyte matters: 73.4 of 74.2 GB.
    digits = 1 if value < 9.95 or unit in ("GB", "TB") else 0
    return f"{value:.{digits}f} {unit}"


def format_rate(rate: float, unit: str) -> str:
    """Formats a rate: "60 MB/s", "2.0 files/s", "7.5 files/h".

    Args:
      rate: in `unit` per second.
      unit: "B" for bytes, or what is counted, in the plural.
    """
    if unit == "B":
        return f"{format_bytes(rate)}/s"
    seconds, name = 1, "s"
    if rate < 1:
        seconds, name = (60, "min") if rate * 60 >= 1 else (3600, "h")
    value = rate * seconds
    return f"{value:,.{1 if value < 99.95 else 0}f} {unit}/{name}"


def format_clock(seconds: float) -> str:
    """Formats a duration as a clock does: "1:05:09"; a negative one counts as 0."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def one_line(text: str) -> str:
    """Escapes line breaks and control characters, so that the text stays one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def readable(text: str) -> str:
    """Replaces what UTF-8 cannot encode, such as odd bytes of names, by U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
