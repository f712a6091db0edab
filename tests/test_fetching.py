"""Fetching, from a server on this machine that misbehaves."""

import errno
import functools
import hashlib
import io
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
from http_server import serve
from samples import DATA, one_line, set_free_space

from magenta_nsynth import fetching
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


def test_no_content_length(site, target):
    site.length = False
    fetch(site.url, target)
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


def test_resumes_by_date_when_there_is_no_strong_etag(site, target):
    site.etag, site.modified = 'W/"weak"', "Tue, 01 Aug 2023 10:00:00 GMT"
    leave_part(site, target)
    fetch(site.url, target)
    assert site.requests[0]["If-Range"] == site.modified
    assert site.sent == [250_000] and target.read_bytes() == DATA


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


def test_complete_part_and_416(site, target):
    leave_part(site, target)
    part_of(target).write_bytes(DATA)
    fetch(site.url, target)
    assert target.read_bytes() == DATA and site.sent == [0]


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
    assert "name can't be resolved" in one_line(error)
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


class FullDisk(io.BytesIO):
    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, chunk):
        if self._file.tell() > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(chunk)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def fileno(self):
        return self._file.fileno()

    def tell(self):
        return self._file.tell()

    def flush(self):
        self._file.flush()


def test_full_disk(site, target, monkeypatch):
    def limited(path, mode="r", **kwargs):
        file = open(path, mode, **kwargs)  # noqa: SIM115
        return FullDisk(file) if mode == "ab" else file

    monkeypatch.setattr(fetching, "open", limited, raising=False)
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert "No space left" in one_line(error) and str(target) in str(error.value)
    assert "make room" in str(error.value)
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
    assert "400 kB are needed and 1.0 kB are free" in one_line(error)
    assert_clean(target)


def test_places_that_can_not_be_written(site, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        fetch(site.url, tmp_path / "file" / "f.tar")
    assert "choose another folder" in one_line(error)
    with pytest.raises(InputError, match="not a file"):
        fetch(site.url, tmp_path)

    def denied(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(fetching, "open", denied, raising=False)
    with pytest.raises(InputError) as error:
        fetch(site.url, tmp_path / "f.tar")
    assert "may write" in one_line(error) and not site.requests


def spawn(site, target):
    code = (
        "import sys; from magenta_nsynth import fetching as f; f.fetch(*sys.argv[1:])"
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
