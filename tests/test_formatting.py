"""Numbers as people read them."""

import pytest

from magenta_nsynth.formatting import (
    format_bytes,
    format_duration,
    one_line,
    readable,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0 s"),
        (0.44, "0.4 s"),
        (0.96, "1 s"),
        (8, "8 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (47.999 * 3600, "2 d 00 h"),
        (76 * 3600, "3 d 04 h"),
        (float("inf"), "?"),
        (float("nan"), "?"),
    ],
)
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999.4, "999 B"),
        (999.6, "1.0 kB"),
        (9_960, "10 kB"),
        (35e6, "35 MB"),
        (999.6e6, "1.0 GB"),
        (986_763_532, "987 MB"),
        (74_159_943_680, "74.2 GB"),
        (1e16, "10000.0 TB"),
    ],
)
def test_format_bytes(num_bytes, text):
    assert format_bytes(num_bytes) == text


def test_one_line_and_readable():
    assert one_line("a\nERROR: \x1b[31m\u202eb\udcff é 鐘") == (
        "a\\nERROR: \\x1b[31m\\u202eb\\udcff é 鐘"
    )
    assert readable("a\udcff\ud800é") == "a\ufffd\ufffdé"
