"""Fetching, from a server on this machine that misbehaves."""

import contextlib
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from http_server import serve
from samples import DATA, one_line, set_free_space

from magenta_nsynth.disk import open_locked
from magenta_nsynth.download import fetching
from magenta_nsynth.errors import InputError

SHA256 = hashlib.sha256(DATA).hexdigest()
ROOT = pathlib.Path(__file__).resolve().parents[1]
fetch = functools.partial(fetching.fetch, pause_seconds=0.001, timeout_seconds=10)


@pytest.fixture
def site():
    with serve() as site:
        yield site


@pytest.fixture
def target(tmp_path):
    return tmp_path / "below" / "f.tar"


def leave_part(site, target, num_bytes=150_000):
    """What a run leaves whose connection broke for good."""
    site.cut_after = num_bytes
    with pytest.raises(InputError):
        fetch(site.url, target, attempts=1)
    site.cut_after = None
    site.requests.clear()
    site.sent.clear()
    assert part_of(target).stat().st_size == num_bytes


def part_of(target):
    return target.with_name(f"{target.name}.part")


def assert_clean(target, *names):
    assert sorted(os.listdir(target.parent)) == sorted(names)


def test_plain(site, target, capsys):
    path = fetch(site.url, target, expected_size=len(DATA), sha256=SHA256.upper())
    assert path == str(target) and target.read_bytes() == DATA
    assert_clean(target, "f.tar")
    [request] = site.requests
    assert "nsynth" in request["User-Agent"] and "Range" not in request
    assert "400 kB of 400 kB" in capsys.readouterr().err


@pytest.mark.parametrize("known", [{"expected_size": len(DATA)}, {"sha256": SHA256}])
def test_no_content_length(site, target, known):
    site.length = False
    fetch(site.url, target, **known)
    assert target.read_bytes() == DATA


def test_connection_that_stays_open_after_the_end(site, target):
    site.lingers = True
    fetch(site.url, target, attempts=1, timeout_seconds=1)
    assert target.read_bytes() == DATA


def test_empty_file(site, target):
    site.body = b""
    assert pathlib.Path(fetch(site.url, target)).read_bytes() == b""


def test_broken_connections_are_resumed(site, target):
    site.cut_after = 60_000
    fetch(site.url, target, sha256=SHA256, attempts=2)
    assert target.read_bytes() == DATA
    assert site.sent == [60_000] * 6 + [40_000]
    assert [r.get("Range") for r in site.requests[:3]] == [
        None,
        "bytes=60000-",
        "bytes=120000-",
    ]
    assert site.requests[1]["If-Range"] == '"one"'
    assert_clean(target, "f.tar")


def test_a_signature_is_neither_shown_nor_stored(site, target, caplog):
    signed = f"{site.url}?X-Amz-Signature=c0ffee"
    site.cut_after = 150_000
    with pytest.raises(InputError) as refused:
        fetch(signed, target, attempts=1)
    note = target.with_name("f.tar.part.json").read_text()
    for text in (str(refused.value), note):
        assert site.url in text and "c0ffee" not in text
    site.cut_after = None
    fetch(signed, target)
    assert target.read_bytes() == DATA and "Range" in site.requests[-1]
    assert "c0ffee" not in caplog.text


def test_pauses_grow(site, target, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    site.statuses = [503] * 20
    with pytest.raises(InputError, match="503"):
        fetching.fetch(site.url, target, attempts=9, pause_seconds=1)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_resumes_what_an_earlier_run_left(site, target):
    leave_part(site, target)
    fetch(site.url, target)
    assert target.read_bytes() == DATA
    assert site.sent == [250_000]
    assert_clean(target, "f.tar")


def test_server_without_ranges_starts_over(site, target):
    site.ranges = False
    leave_part(site, target)
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [len(DATA)]


def test_server_without_ranges_that_always_breaks_off_is_given_up(site, target):
    site.ranges, site.cut_after = False, 60_000
    with pytest.raises(InputError) as error:
        fetch(site.url, target, attempts=4)
    assert "broke off, 4 times in a row" in one_line(error)
    assert len(site.requests) == 4


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_changed_file_is_not_glued_to_old_bytes(site, target, heeds_if_range, capsys):
    leave_part(site, target)
    site.body, site.etag = DATA[::-1], '"two"'
    site.heeds_if_range = heeds_if_range
    fetch(site.url, target)
    assert target.read_bytes() == DATA[::-1]
    assert "400 kB of 400 kB" in capsys.readouterr().err.splitlines()[-1]


def test_change_of_size_is_noticed_without_etag(site, target):
    site.etag, site.modified = None, "Tue, 01 Aug 2023 10:00:00 GMT"
    leave_part(site, target)
    site.body, site.heeds_if_range = DATA[::-1] + b"more", False
    fetch(site.url, target)
    assert target.read_bytes() == DATA[::-1] + b"more"


def test_change_between_tries_of_one_run(site, target):
    def change(answers):
        if answers == 1:
            site.body, site.etag, site.cut_after = DATA[::-1], '"two"', None

    site.cut_after, site.after_answer = 60_000, change
    fetch(site.url, target)
    assert target.read_bytes() == DATA[::-1]


def test_nothing_to_know_the_file_by(site, target):
    site.etag = None
    leave_part(site, target)
    fetch(site.url, target)
    assert site.sent == [len(DATA)]
    target.unlink()
    leave_part(site, target)
    fetch(site.url, target, sha256=SHA256)  # the sum makes up for it
    assert site.sent == [250_000]


def test_part_of_another_address_or_without_a_note_is_not_used(site, target):
    leave_part(site, target)
    fetch(site.url + "?mirror", target)
    assert site.sent == [len(DATA)]
    target.unlink()
    for note in ("", "[]", "{"):
        leave_part(site, target)
        target.with_name("f.tar.part.json").write_text(note)
        fetch(site.url, target)
        assert site.sent == [len(DATA)] and target.read_bytes() == DATA
        target.unlink()


def test_slip_in_the_address_costs_nothing(site, target):
    leave_part(site, target)
    site.statuses = [404]
    with pytest.raises(InputError):
        fetch(site.url + "?slip", target)
    with pytest.raises(InputError):
        fetch(site.url + "?slip", target, expected_size=1)
    fetch(site.url, target)
    assert site.sent[-1] == 250_000 and target.read_bytes() == DATA


def test_wrong_start_in_content_range(site, target):
    leave_part(site, target)
    site.shift = 7
    fetch(site.url, target)
    assert target.read_bytes() == DATA
    assert site.sent[-1] == len(DATA)


def test_complete_part_needs_no_request(site, target):
    leave_part(site, target)
    part_of(target).write_bytes(DATA)
    fetch(site.url, target)
    assert target.read_bytes() == DATA and not site.requests


def test_overlong_part_and_416(site, target):
    leave_part(site, target)
    part_of(target).write_bytes(DATA + b"x")
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [0, len(DATA)]


def test_complete_file_is_kept(site, target):
    fetch(site.url, target)
    site.requests.clear()
    fetch(site.url, target, len(DATA), SHA256)
    assert not site.requests
    target.write_bytes(DATA[:-1])
    for sizes in ({"expected_size": len(DATA)}, {"sha256": SHA256}):
        with pytest.raises(InputError) as error:
            fetch(site.url, target, **sizes)
        assert str(target) in one_line(error) and "remove it" in str(error.value)
    assert target.read_bytes() == DATA[:-1] and not site.requests


def test_wrong_size_is_refused_before_downloading(site, target):
    with pytest.raises(InputError) as error:
        fetch(site.url, target, expected_size=len(DATA) + 1)
    assert "400000 bytes, not 400001" in one_line(error)
    assert "not the expected file" in str(error.value)
    assert_clean(target)


@pytest.mark.parametrize("wrong", [len(DATA) + 1, len(DATA) - 1])
def test_wrong_size_without_content_length(site, target, wrong):
    site.length = False
    with pytest.raises(InputError) as error:
        fetch(site.url, target, expected_size=wrong, attempts=2)
    assert site.url in one_line(error)
    assert not target.exists()


def test_wrong_sum_is_refused_and_not_kept(site, target):
    with pytest.raises(InputError) as error:
        fetch(site.url, target, sha256="0" * 64)
    assert "SHA-256" in one_line(error) and site.url in str(error.value)
    assert_clean(target)


@pytest.mark.parametrize("status", [403, 404])
def test_refusals_are_not_repeated(site, target, status):
    site.statuses = [status]
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert site.url in one_line(error) and str(status) in str(error.value)
    assert len(site.requests) == 1
    assert_clean(target)


def test_server_errors_are_repeated_and_then_reported(site, target):
    site.statuses = [500, 429, 503]
    fetch(site.url, target)
    assert target.read_bytes() == DATA
    target.unlink()
    site.statuses = [503] * 3
    with pytest.raises(InputError) as error:
        fetch(site.url, target, attempts=3)
    assert site.url in one_line(error) and "browser" in str(error.value)


def test_refusal_leaves_what_is_there(site, target):
    leave_part(site, target)
    site.statuses = [404]
    with pytest.raises(InputError):
        fetch(site.url, target)
    fetch(site.url, target)
    assert site.sent == [250_000]


def test_silent_server(site, target):
    site.stall_after = 50_000
    with pytest.raises(InputError) as error:
        fetch(site.url, target, attempts=1, timeout_seconds=0.2)
    assert "does not answer" in one_line(error)
    assert part_of(target).stat().st_size == 50_000
    assert "50 kB are kept" in str(error.value)


def test_no_network(target, monkeypatch, site):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.socket() as taken:  # bound and not listening: refuses connections
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/f.tar"
        with pytest.raises(InputError) as error:
            fetch(url, target, attempts=50)
        assert url in one_line(error) and "browser" in str(error.value)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(InputError) as error:
        fetch("http://nowhere.invalid/f.tar", target, attempts=50)
    assert "name cannot be resolved" in one_line(error)
    assert_clean(target)


def test_network_that_goes_away_is_waited_for(site, target, monkeypatch):
    real, calls = socket.getaddrinfo, []

    def sometimes(*args, **kwargs):
        calls.append(args)
        if len(calls) in (2, 3):
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    site.cut_after, site.cuts = 60_000, 1
    fetch(site.url, target)
    assert target.read_bytes() == DATA and len(calls) == 4


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hosts",
        "ftp://127.0.0.1/f",
        "f.tar",
        "http://",
        "http://[",
        "http://h:x/",
        "http://h/a b",
    ],
)
def test_bad_addresses(url, target):
    with pytest.raises(InputError) as error:
        fetch(url, target)
    assert url in one_line(error) and "address" in str(error.value)


class FullDisk(io.BufferedRandom):
    def write(self, chunk):
        if self.tell() > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(chunk)


def test_full_disk(site, target, monkeypatch):
    def limited(*arguments):
        return FullDisk(open_locked(*arguments).detach())

    monkeypatch.setattr(fetching, "open_locked", limited)
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert "No space left" in one_line(error) and str(target) in str(error.value)
    assert "free some space" in str(error.value)
    monkeypatch.undo()
    kept = part_of(target).stat().st_size
    assert kept > 100_000
    site.sent.clear()
    fetch(site.url, target)
    assert site.sent == [len(DATA) - kept] and target.read_bytes() == DATA


def test_too_little_space_is_said_before_downloading(site, target, monkeypatch):
    set_free_space(monkeypatch, 1000)
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert "needs 400 kB, but only 1.0 kB are free" in one_line(error)
    assert_clean(target)


def test_places_that_can_not_be_written(site, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        fetch(site.url, tmp_path / "file" / "f.tar")
    assert "choose another folder" in one_line(error)
    with pytest.raises(InputError, match="not a file"):
        fetch(site.url, tmp_path)

    def denied(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(fetching, "open_locked", denied)
    with pytest.raises(InputError, match="Permission denied; choose another folder"):
        fetch(site.url, tmp_path / "f.tar")
    assert not site.requests


def spawn(site, target):
    code = (
        "import sys; from magenta_nsynth.download.fetching import fetch; "
        "fetch(*sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, site.url, str(target)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )


def wait_for_bytes(target, num_bytes):
    deadline = time.monotonic() + 10
    part = part_of(target)
    while not part.exists() or part.stat().st_size < num_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_program_is_resumed_and_two_do_not_mix(site, target):
    site.stall_after = 3_000  # less than a file's buffer holds back
    with spawn(site, target) as process:
        try:
            wait_for_bytes(target, 3_000)
            with pytest.raises(InputError) as error:
                fetch(site.url, target)
            assert "another program" in one_line(error)
        finally:
            process.kill()
    assert not target.exists()
    site.stall_after = None
    site.go_on.set()
    site.sent.clear()
    fetch(site.url, target)
    assert target.read_bytes() == DATA
    assert site.sent == [len(DATA) - 3_000]


def head(status="200 OK", **fields):
    """The beginning of an answer, as bytes."""
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def slowly(content, seconds=0.05):
    for i in range(len(content)):
        time.sleep(seconds)
        yield content[i : i + 1]


def endless(size=1 << 16):
    while True:
        yield bytes(size)


SIZE = len(DATA)


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-{end}/{size}",
        "bytes 200000-{end}/{size}",
        "bytes 150000-{end}/*",
        "bytes 150000-{size}/{size}",
        "bytes 150000-100/{size}",
        "bytes 150000-{end}/" + "9" * 5000,
        "bytes 1" + "5" * 5000 + "-{end}/{size}",
        "bytes=150000-{end}/{size}",
        "items 150000-{end}/{size}",
        "bytes -150000--1/{size}",
        "",
    ],
)
def test_another_range_than_asked_for(site, target, content_range):
    leave_part(site, target)
    said = content_range.format(end=SIZE - 1, size=SIZE)
    start = head("206 Partial Content", ETag='"one"', Content_Range=said)
    site.raw = [[start, bytes(250_000)]]
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [SIZE]


@pytest.mark.parametrize("length", [250_001, SIZE, 1, "x", "-1", "9" * 5000])
def test_the_rest_is_of_another_length_than_its_range(site, target, length):
    leave_part(site, target)
    said = f"bytes 150000-{SIZE - 1}/{SIZE}"
    fields = {"ETag": '"one"', "Content_Range": said, "Content_Length": length}
    site.raw = [[head("206 Partial Content", **fields), DATA[150_000:]]]
    fetch(site.url, target)
    assert target.read_bytes() == DATA


def test_a_part_of_what_was_asked_for_is_taken(site, target):
    leave_part(site, target)
    said = f"bytes 150000-199999/{SIZE}"
    start = head("206 Partial Content", ETag='"one"', Content_Range=said)
    site.raw = [[start, DATA[150_000:200_000]]]
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [200_000]
    assert site.requests[1]["Range"] == "bytes=200000-"


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("last", [199_999, SIZE - 1])
def test_more_than_the_range_that_was_said(site, target, last, count):
    leave_part(site, target)
    said = f"bytes 150000-{last}/{SIZE}"
    start = head("206 Partial Content", ETag='"one"', Content_Range=said)
    more = itertools.islice(endless(), count)
    site.raw = [itertools.chain([start, DATA[150_000 : last + 1]], more)]
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [SIZE]


def test_a_part_that_nobody_asked_for(site, target):
    said = f"bytes 0-99/{SIZE}"
    site.raw = [[head("206 Partial Content", Content_Range=said), DATA[:100]]]
    with pytest.raises(InputError, match="answers 206 Partial Content"):
        fetch(site.url, target)
    assert_clean(target)


@pytest.mark.parametrize(
    "status", ["201 Created", "203 x", "204 No Content", "299 \x1b"]
)
def test_no_other_success_is_a_file(site, target, status):
    site.raw = [[head(status)]]
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert f"answers {status[:3]}" in one_line(error) and "\x1b" not in str(error.value)
    assert_clean(target)


def test_cut_short_without_a_length_in_chunks(site, target):
    start = head(ETag='"one"', Transfer_Encoding="chunked")
    site.raw = [[start, b"100\r\n", DATA[:256], b"\r\n100\r\n", DATA[256:300]]]
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [SIZE - 300]
    target.unlink()
    site.raw = [[start, b"100\r\n", DATA[:256], b"\r\n0\r\n\r\n"]]
    fetch(site.url, target)
    assert target.read_bytes() == DATA[:256]


@pytest.mark.parametrize("etag", ['"one"', 'W/"weak"'])
@pytest.mark.parametrize("content", [DATA, DATA[:150_000], b""])
def test_what_may_be_cut_short_without_a_length_is_refused(site, target, etag, content):
    site.raw = [[head(ETag=etag), content]] * 10
    with pytest.raises(InputError, match="might be incomplete") as error:
        fetch(site.url, target)
    assert site.url in one_line(error)
    assert len(site.requests) == 1
    assert_clean(target)


def test_cut_short_without_a_length_and_a_known_size_or_sum(site, target):
    site.raw = [[head(ETag='"one"'), DATA[:150_000]]]
    fetch(site.url, target, expected_size=SIZE)
    assert target.read_bytes() == DATA and site.sent == [250_000]
    target.unlink()
    site.raw = [[head(ETag='"one"'), DATA[:150_000]]]
    with pytest.raises(InputError, match="SHA-256"):
        fetch(site.url, target, sha256=SHA256)
    assert_clean(target)


@pytest.mark.parametrize("fields", [{}, {"Transfer_Encoding": "chunked"}])
def test_an_endless_body_ends_at_the_expected_length(site, target, fields, monkeypatch):
    def content():
        for piece in endless():
            yield b"10000\r\n" + piece + b"\r\n" if fields else piece

    site.raw = [itertools.chain([head(**fields)], content())]
    with pytest.raises(InputError, match="more than 1000 bytes") as error:
        fetch(site.url, target, expected_size=1000)
    assert site.url in one_line(error)
    assert_clean(target)
    site.raw = [itertools.chain([head(**fields)], content())]
    monkeypatch.setattr(fetching, "_MOST_WITHOUT_LENGTH", 10**6)
    with pytest.raises(InputError, match="more than 1000000 bytes"):
        fetch(site.url, target, sha256=SHA256)
    assert_clean(target)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "", "\xb2", "9" * 18])
def test_lengths_that_are_none(site, target, length):
    site.raw = [[head(Content_Length=length, ETag='"one"'), DATA]]
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert re.search("might be incomplete|are free", one_line(error))
    assert_clean(target)


@pytest.mark.parametrize(
    "note",
    [
        {"validator": 5}, {"validator": ["a"]}, {"validator": {"a": 1}},
        {"validator": '"a"\r\nX: y'}, {"validator": '"\ud800"'}, {"validator": True},
        {"validator": "Tue, 01 Aug 2023 10:00:00 GMT"}, {"validator": None},
        {"size": "400000"}, {"size": -1}, {"size": 10**5000}, {"size": 1e300},
        {"size": []}, {"url": 7}, {"url": None},
    ],
)  # fmt: skip
def test_notes_of_the_wrong_type(site, target, note, request):
    leave_part(site, target)
    path = target.with_name("f.tar.part.json")
    with unlimited_digits():
        path.write_text(json.dumps({"url": site.url, "validator": '"one"'} | note))
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent[-1] == SIZE


@contextlib.contextmanager
def unlimited_digits():
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


def test_a_note_nested_100_000_deep(site, target):
    for note in ("[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000):
        leave_part(site, target)
        target.with_name("f.tar.part.json").write_text(note)
        fetch(site.url, target)
        assert target.read_bytes() == DATA and site.sent == [SIZE]
        target.unlink()


@pytest.mark.parametrize(
    "place",
    ["ftp://127.0.0.1/f", "file:///etc/hosts", "gopher://x/", "data:,x",
     "http://[/", "//h:x/", "\xff\xfe://"],
)  # fmt: skip
def test_redirects_lead_to_the_web_alone(site, target, place):
    site.raw = [[head("302 Found", Location=place, Content_Length=0)]]
    with pytest.raises(InputError, match="check the address") as error:
        fetch(site.url, target, attempts=1)
    assert site.url in one_line(error)
    assert len(site.requests) == 1
    assert_clean(target)


def test_redirects_are_followed(site, target):
    answer = itertools.chain([head("302 Found", Location="/other")], endless())
    site.raw = [answer, [head("307 x", Location=site.url, Content_Length=0)]]
    fetch(site.url, target)
    assert target.read_bytes() == DATA and len(site.requests) == 3
    target.unlink()
    site.raw = [[head("302 Found", Location="/f.tar", Content_Length=0)]] * 50
    with pytest.raises(InputError, match="redirected 10 times"):
        fetch(site.url, target)


@pytest.mark.parametrize(
    ("at_once", "dripping"),
    [
        (head(Content_Length=SIZE), DATA),
        (b"", head(Content_Length=SIZE)),
        (head(Transfer_Encoding="chunked"), b"0" * 1000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
    ],
    ids=["content", "headers", "chunk", "continue"],
)
def test_a_server_that_drips(site, target, at_once, dripping):
    """A byte each 0.05 s is 2 % of the least rate, and never silence."""
    site.raw = [itertools.chain([at_once], slowly(dripping))]
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"does not answer|next to nothing") as error:
        fetch(site.url, target, attempts=1, timeout_seconds=0.3)
    assert time.monotonic() - begun < 3 and site.url in one_line(error)


def test_a_server_that_breaks_off_after_a_few_bytes_is_given_up(site, target):
    site.cut_after = 7
    with pytest.raises(InputError, match="3 times in a row"):
        fetch(site.url, target, attempts=3)
    assert part_of(target).stat().st_size == 21


def test_a_change_behind_equal_dates_and_sizes_is_not_mixed_in(site, target):
    site.modified = "Tue, 01 Aug 2023 10:00:00 GMT"
    for etag in (None, 'W/"one"'):
        site.etag, site.body = etag, DATA
        leave_part(site, target)
        site.body = DATA[::-1]
        fetch(site.url, target)
        assert target.read_bytes() == DATA[::-1] and site.sent == [SIZE]
        target.unlink()


def test_a_change_that_only_the_sum_shows(site, target):
    """Without an ETag the part is gone on with, and the sum has the last word."""
    site.etag = None
    leave_part(site, target)
    site.body = DATA[::-1]
    wanted = hashlib.sha256(site.body).hexdigest()
    with pytest.raises(InputError, match="its SHA-256 is not"):
        fetch(site.url, target, sha256=wanted)
    assert_clean(target)
    fetch(site.url, target, sha256=wanted)
    assert target.read_bytes() == site.body


def test_the_rest_without_an_etag_is_not_trusted(site, target):
    leave_part(site, target)
    said = f"bytes 150000-{SIZE - 1}/{SIZE}"
    site.raw = [[head("206 Partial Content", Content_Range=said), DATA[150_000:]]]
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [SIZE]


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0" * 5000, b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200",
     b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200,
     b"HTTP/1.1 999999999 OK\r\n\r\n", head(Transfer_Encoding="chunked") + b"zz\r\n",
     head(Transfer_Encoding="chunked") + b"-5\r\nabc"],
)  # fmt: skip
def test_what_is_no_http(site, target, answer):
    site.raw = [[answer]] * 2
    with pytest.raises(InputError) as error:
        fetch(site.url, target, attempts=2)
    assert site.url in one_line(error)
    assert not target.exists()


def test_ctrl_c_is_answered_at_once(site, target):
    site.stall_after = 3_000
    with spawn(site, target) as process:
        try:
            wait_for_bytes(target, 3_000)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(5)
            assert time.monotonic() - begun < 3
        finally:
            process.kill()
    assert part_of(target).stat().st_size == 3_000
