"""The progress display: what it writes, how often, and that it never fails."""

import contextlib
import fcntl
import io
import logging
import os
import struct
import termios

import pytest

from magenta_nsynth.progress import Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """Has a real terminal's width, and keeps what is written to it."""

    def __init__(self):
        super().__init__()
        self.master, self.slave = os.openpty()
        self.resize(80)

    def resize(self, columns):
        fcntl.ioctl(
            self.slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0)
        )

    def isatty(self):
        return True

    def fileno(self):
        return self.slave


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    yield terminal
    os.close(terminal.master)
    os.close(terminal.slave)


def show_on(stream, *arguments, **options):
    """A `Progress` with `stream` as standard error."""
    with contextlib.redirect_stderr(stream):
        return Progress(*arguments, **options)


def drawings(terminal):
    return terminal.getvalue().split("\r")[1:]


def test_plain_lines_are_rare_and_the_last_one_is_there(clock, stream):
    with show_on(stream, 100, "files", "notes", clock=clock) as progress:
        for _ in range(100):
            clock.now += 0.5
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "notes   40/100 files  2.0 files/s  0:00:30 left",
        "notes   80/100 files  2.0 files/s  0:00:10 left",
        "notes  100/100 files  2.0 files/s  in 50 s",
    ]


def test_bytes_and_samples(clock, stream):
    with show_on(stream, 3_300_000_000, "B", clock=clock) as progress:
        clock.now += 20
        progress.update(1_200_000_000)
    with show_on(stream, 64_000, "samples", clock=clock) as progress:
        clock.now += 20
        progress.update(4_000)
    assert stream.getvalue().splitlines()[::2] == [
        "1.2 GB of 3.3 GB  60 MB/s  0:00:35 left",
        " 4,000/64,000 samples  200 samples/s  0:05:00 left",
    ]


def test_slow_rates_use_minutes_and_hours(clock, stream):
    with show_on(stream, 10, "files", clock=clock) as progress:
        clock.now += 40
        progress.advance()
        clock.now += 1e5
        progress.advance()
    lines = stream.getvalue().splitlines()
    assert "1.5 files/min" in lines[0]
    assert "0.1 files/h" in lines[-1]


def test_rate_follows_the_last_minute_but_survives_slow_items(clock, stream):
    progress = show_on(stream, 10_000, "steps", clock=clock)
    clock.now += 60  # compiling
    for _ in range(240):
        clock.now += 0.5
        progress.advance()
    assert "2.0 steps/s" in stream.getvalue().splitlines()[-1]
    for _ in range(4):
        clock.now += 120
        progress.update(240)
    last = stream.getvalue().splitlines()[-1]
    assert "steps/min" in last and "left" in last
    for _ in range(4):
        clock.now += 300
        progress.advance()
    assert "12.0 steps/h" in stream.getvalue().splitlines()[-1]


def test_rate_evens_out_what_comes_in_bursts(clock, stream):
    with show_on(stream, 1000, "files", clock=clock) as progress:
        for _ in range(10):
            clock.now += 1.9
            progress.advance(3)
            clock.now += 0.3
            progress.advance(1)
    assert "1.8 files/s" in stream.getvalue().splitlines()[0]


def test_what_an_earlier_run_did_is_not_part_of_the_rate(clock, stream):
    with show_on(stream, 1000, "B", initial=500, clock=clock) as progress:
        clock.now += 20
        progress.update(700)
    first, last = stream.getvalue().splitlines()
    assert first == "700 B of 1.0 kB  10 B/s  0:00:30 left"
    assert "10 B/s" in last


def test_going_back_starts_the_rate_anew(clock, stream):
    with show_on(stream, 1000, "B", initial=500, clock=clock) as progress:
        clock.now += 5
        progress.update(0)
        clock.now += 20
        progress.update(400)
    first, last = stream.getvalue().splitlines()
    assert first == "400 B of 1.0 kB  20 B/s  0:00:30 left"
    assert last.endswith("20 B/s  in 20 s")


def test_unknown_total(clock, terminal):
    with show_on(terminal, None, "files", clock=clock) as progress:
        clock.now += 4
        progress.update(8)
        progress.total = 16
        clock.now += 4
        progress.update(16)
    first, second, last = drawings(terminal)
    assert first.rstrip() == "8 files  2.0 files/s  0:00:04 so far"
    assert second.startswith("[#####") and "16/16" in second
    assert "so far" not in last


@pytest.mark.parametrize("total", [None, 0, 1])
@pytest.mark.parametrize("kind", ["terminal", "stream"])
def test_no_time_and_nothing_to_do(clock, request, total, kind):
    stream = request.getfixturevalue(kind)
    with show_on(stream, total, "files", clock=clock) as progress:
        progress.update(0)
        progress.update(2)  # more than there should be
    assert stream.getvalue().endswith("\n")
    assert "left" not in stream.getvalue()
    clock.now += 30
    with show_on(stream, total, "files", clock=clock) as progress:
        clock.now += 30
        progress.update(2)
    assert "-" not in stream.getvalue()


def test_nothing_is_written_when_nothing_happened(clock, terminal):
    with show_on(terminal, 3, "files", clock=clock):
        pass
    assert terminal.getvalue() == ""


def test_bar_fits_and_is_redrawn_five_times_a_second(clock, terminal):
    with show_on(terminal, 1000, "files", "notes", clock=clock) as progress:
        for _ in range(1000):
            clock.now += 0.01
            progress.advance()
    lines = drawings(terminal)
    assert 45 <= len(lines) <= 52
    assert {len(line) for line in lines[:-1]} == {79}
    assert lines[-1].endswith("\n") and lines[-1].count("\n") == 1
    assert "\n" not in "".join(lines[:-1])
    half = lines[len(lines) // 2]
    assert half.startswith("notes  [") and half.rstrip().endswith("left")
    assert abs(half.count("#") - half.count(".") + 1) <= 3  # the rate has a dot


@pytest.mark.parametrize("label", ["a" * 200 + "end", "日本" * 50 + "end", "x\ny\tend"])
@pytest.mark.parametrize("columns", [20, 40, 120])
def test_long_labels_and_narrow_terminals(clock, terminal, label, columns):
    terminal.resize(columns)
    with show_on(terminal, 1000, "files", label, clock=clock) as progress:
        clock.now += 1
        progress.update(10)
    for line in drawings(terminal):
        line = line.removesuffix("\n")
        assert "end" in line and "\n" not in line and "\t" not in line
        assert sum(1 + (ord(c) > 0x2000) for c in line) == columns - 1


def test_dumb_terminal_gets_plain_lines(clock, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with show_on(terminal, 2, "files", clock=clock) as progress:
        progress.advance()
    assert "\r" not in terminal.getvalue()


def test_a_notebook_gets_one_line_that_moves(clock):
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    with show_on(notebook, 2, "files", clock=clock) as progress:
        progress.advance()
        clock.now += 1
        progress.advance()
    assert [len(line) for line in drawings(notebook)] == [79, 79, 80]


@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_nothing_is_shown_where_only_warnings_are_wanted(clock, stream, level):
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(level)
    try:
        with show_on(stream, 2, "files", clock=clock) as progress:
            clock.now += 60
            progress.advance()
    finally:
        logger.setLevel(before)
    assert stream.getvalue() == ""


def test_log_message_gets_its_own_line(clock, terminal):
    logger = logging.getLogger("absl")
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    before = list(logger.filters)
    try:
        with show_on(terminal, 2, "files", clock=clock) as progress:
            progress.advance()
            logger.error("a.wav: bad")
        logger.error("done")
    finally:
        logger.removeHandler(handler)
    assert f"\r{' ' * 79}\ra.wav: bad\n" in terminal.getvalue()
    assert terminal.getvalue().endswith("\ndone\n")
    assert logger.filters == before


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError, OSError])
def test_broken_stream_does_not_stop_the_work(clock, terminal, error):
    def fail(_):
        raise error("gone")

    terminal.write = fail
    with show_on(terminal, 5, "files", clock=clock) as progress:
        for _ in range(5):
            clock.now += 1
            progress.advance()


@pytest.mark.parametrize("missing", [True, False])
def test_closed_or_missing_stream(clock, stream, missing):
    stream.close()
    with show_on(None if missing else stream, 5, "files", clock=clock) as progress:
        clock.now += 60
        progress.update(5)


def test_interrupted_work_says_so(clock, stream):
    with (
        contextlib.suppress(KeyboardInterrupt),
        show_on(stream, 5, "files", clock=clock) as progress,
    ):
        clock.now += 2
        progress.advance()
        raise KeyboardInterrupt
    assert stream.getvalue() == "1/5 files  30.0 files/min  stopped after 2 s\n"
