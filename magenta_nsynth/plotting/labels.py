"""Words in a figure: their font, and their size where there is little room."""

import functools
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib.style
from absl import logging as absl_logging
from matplotlib import font_manager
from matplotlib.textpath import text_to_path

from magenta_nsynth.formatting import readable

__all__ = ["fit_labels", "plain_style"]

_LEAST_SIZE, _LEAST_SHARE = 5.0, 0.75  # points; of the size where there is room
_POINTS = 72.0  # of an inch
_said: set[str] = set()  # fonts, and characters, that are not there
_FALLBACK = "DejaVu Sans"  # comes with matplotlib


@contextmanager
def plain_style(font: str = "") -> Iterator[None]:
    """In the block matplotlib draws by its own defaults, whatever the user's are.

    A font that is not there, and characters that no font has, are said once.

    Args:
      font: the name of a font family, "" for matplotlib's own.
    """
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    installed |= font_manager.font_family_aliases  # serif, monospace ...
    if font and font not in installed:
        if font not in _said:
            absl_logging.warning(
                "There is no font %r here; %s is used.", font, _FALLBACK
            )
        _said.add(font)
        font = ""
    # Where a character is missing the next family is asked.
    wide = sorted(name for name in installed if "CJK" in name or "Unicode" in name)
    families = [name for name in (font, _FALLBACK, *wide[:3]) if name]
    font_log = logging.getLogger("matplotlib.font_manager")
    level = font_log.level
    font_log.setLevel(logging.ERROR)
    with (
        matplotlib.style.context("default"),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        matplotlib.rcParams["font.family"] = families
        matplotlib.rcParams["text.parse_math"] = False  # a "$" in a name is one
        matplotlib.rcParams["svg.hashsalt"] = "nsynth"  # the same file every time
        try:
            yield
        finally:
            font_log.setLevel(level)
    _pass_on(caught)


def _pass_on(caught: list[warnings.WarningMessage]) -> None:
    """Says once which characters no font had; other warnings go their way."""
    missing = set()
    for warning in caught:
        glyph = re.match(r"Glyph (\d+) ", str(warning.message))
        if glyph:
            missing.add(chr(int(glyph[1])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    new = sorted(missing - _said)
    _said.update(new)
    if new:
        absl_logging.warning(
            "No font here has %s: boxes stand for them. Install one that has (Noto "
            "Sans CJK, say).",
            " ".join(new),
        )


def fit_labels(
    labels: Sequence[str], room: float, size: float, num_lines: int = 2
) -> tuple[list[str], float]:
    """Labels broken, made smaller and at last shortened until all fit.

    Args:
      labels: the words; all get one size.
      room: how wide a line may be, in inches.
      size: of the font, in points, where there is room.
      num_lines: at most so many a label.

    Returns:
      The labels with line breaks, and the size.
    """
    labels = [
        re.sub(r"[\x00-\x1f\x7f]+", " ", readable(str(label))) for label in labels
    ]
    least = max(_LEAST_SIZE, _LEAST_SHARE * size)
    while True:
        broken = [_break(label, room, size, num_lines) for label in labels]
        if all(text is not None for text in broken):
            return broken, size
        if size <= least:
            break
        size = max(least, size - 0.5)
    return [
        _break(label, room, size, num_lines) or _shorten(label, room, size, num_lines)
        for label in labels
    ], size


def _width(text: str, size: float) -> float:
    """Of a line, in inches."""
    return size * _width_per_point(text, tuple(matplotlib.rcParams["font.family"]))


@functools.lru_cache(maxsize=4096)
def _width_per_point(text: str, families: tuple[str, ...]) -> float:
    if not text:
        return 0.0
    font = font_manager.FontProperties(family=families, size=_POINTS)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return width / _POINTS**2


def _break(text: str, room: float, size: float, num_lines: int) -> str | None:
    """Lines that fit, broken behind what parts words; None where there are too many."""
    lines, line = [], ""
    for word in re.findall(r"[^\s_\-./]*[\s_\-./]*", text):
        if line and _width((line + word).rstrip(), size) > room:
            lines.append(line.rstrip())
            line = ""
        line += word
    lines.append(line.rstrip())
    if len(lines) > num_lines or any(_width(line, size) > room for line in lines):
        return None
    return "\n".join(lines)


def _shorten(text: str, room: float, size: float, num_lines: int) -> str:
    """The beginning and the end of a text, as much as fits."""
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
