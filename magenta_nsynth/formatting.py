"""Numbers as people read them: lengths of time, sizes and rates."""

import math
import re

__all__ = [
    "format_bytes",
    "format_clock",
    "format_duration",
    "format_rate",
    "one_line",
    "readable",
]


def format_duration(seconds: float) -> str:
    """A length of time to read: "0.4 s", "8 s", "3 min 20 s", "2 h 05 min", "3 d 04 h".

    Args:
      seconds: negative counts as 0; not finite gives "?".
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
    """A size in bytes to read, in powers of 1000: "512 B", "9.8 kB", "987 MB"."""
    if num_bytes < 999.5:
        return f"{num_bytes:.0f} B"
    value = float(num_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    # Of gigabytes a tenth matters: 73.4 of 74.2 GB.
    digits = 1 if value < 9.95 or unit in ("GB", "TB") else 0
    return f"{value:.{digits}f} {unit}"


def format_rate(rate: float, unit: str) -> str:
    """`rate` (per second) by the second, minute or hour: what is easiest to read."""
    seconds, name = 1, "s"
    if rate < 1:
        seconds, name = (60, "min") if rate * 60 >= 1 else (3600, "h")
    value = rate * seconds
    return f"{value:,.{1 if value < 99.95 else 0}f} {unit}/{name}"


def format_clock(seconds: float) -> str:
    """A length of time as on a clock: "1:05:09"; negative counts as 0."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def one_line(text: str) -> str:
    """A text as one line of a log: line breaks and control characters as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def readable(text: str) -> str:
    """A text as UTF-8 has it: what a file's name has of other bytes becomes U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
