"""Downloading and unpacking, against a server on this machine that misbehaves."""

import contextlib
import dataclasses
import errno
import functools
import gzip
import hashlib
import http.server
import io
import os
import pathlib
import random
import socket
import subprocess
import sys
import tarfile
import threading
import time

import pytest

from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.weights import download

DATA = random.Random(0).randbytes(400_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
ROOT = pathlib.Path(__file__).resolve().parents[1]
fetch = functools.partial(download.fetch, pause_seconds=0.001, timeout_seconds=10)


@dataclasses.dataclass
class Site:
    """What the server does, and what it was asked."""

    body: bytes = DATA
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True  # understands Range
    heeds_if_range: bool = True
    shift: int = 0  # a wrong start in Content-Range
    cut_after: int | None = None  # bytes per answer
    cuts: int = 10**9  # how many answers are cut
    stall_after: int | None = None  # then silence until `go_on`
    statuses: list[int] = dataclasses.field(default_factory=list)
    length: bool = True  # sends Content-Length
    lingers: bool = False  # keeps the connection open after the last byte
    after_answer: object = None  # called with the number of answers so far
    requests: list[dict] = dataclasses.field(default_factory=list)
    sent: list[int] = dataclasses.field(default_factory=list)
    go_on: threading.Event = dataclasses.field(default_factory=threading.Event)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        site.requests.append(dict(self.headers))
        if site.statuses and (status := site.statuses.pop(0)):
            self.send_error(status)
            return
        self.answer(site)
        if site.after_answer:
            site.after_answer(len(site.requests))

    def answer(self, site):
        body, start, size = site.body, 0, len(site.body)
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if condition and site.heeds_if_range:
            asked = asked if condition in (site.etag, site.modified) else None
        if asked and site.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                site.sent.append(0)
                self.end_headers()
                return
            self.send_response(206)
            first = start + site.shift
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        else:
            self.send_response(200)
        if site.length:
            self.send_header("Content-Length", str(size - start))
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.modified:
            self.send_header("Last-Modified", site.modified)
        self.end_headers()
        rest = body[start:]
        if site.cut_after is not None and site.cuts > 0:
            site.cuts -= 1
            rest = rest[: site.cut_after]
        if site.stall_after is not None:
            site.sent.append(len(rest[: site.stall_after]))
            self.wfile.write(rest[: site.stall_after])
            site.go_on.wait(10)
            return
        site.sent.append(len(rest))
        with contextlib.suppress(OSError):
            self.wfile.write(rest)
        if site.lingers:
            site.go_on.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = Site(url=f"http://127.0.0.1:{server.server_port}/f.tar")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.site
    server.site.go_on.set()
    server.shutdown()
    server.server_close()


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


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", "?"))
    return text


def assert_clean(target, *names):
    assert sorted(os.listdir(target.parent)) == sorted(names)


# ---------------------------------------------------------------------- fetching


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
        download.fetch(site.url, target, attempts=9, pause_seconds=1)
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

    monkeypatch.setattr(download, "open", limited, raising=False)
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert "No space left" in one_line(error) and str(target) in str(error.value)
    assert "make room" in str(error.value)
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    kept = part_of(target).stat().st_size
    assert kept > 100_000
    site.sent.clear()
    fetch(site.url, target)
    assert site.sent == [len(DATA) - kept] and target.read_bytes() == DATA


def test_too_little_space_is_said_before_downloading(site, target, monkeypatch):
    usage = shutil_usage(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", usage)
    with pytest.raises(InputError) as error:
        fetch(site.url, target)
    assert "400 kB are needed and 1.0 kB are free" in one_line(error)
    assert_clean(target)


def shutil_usage(free):
    return lambda _: type("usage", (), {"free": free})


def test_places_that_can_not_be_written(site, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as error:
        fetch(site.url, tmp_path / "file" / "f.tar")
    assert "choose another folder" in one_line(error)
    with pytest.raises(InputError, match="not a file"):
        fetch(site.url, tmp_path)

    def denied(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(download, "open", denied, raising=False)
    with pytest.raises(InputError) as error:
        fetch(site.url, tmp_path / "f.tar")
    assert "may write" in one_line(error) and not site.requests


def spawn(site, target):
    code = (
        "import sys; from magenta_nsynth.weights import download; "
        "download.fetch(*sys.argv[1:])"
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


# --------------------------------------------------------------------- unpacking


def tar_bytes(members, mode="w"):
    """A tar of (name or TarInfo, content) pairs; content None makes a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


def special(name, kind, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def files_below(folder):
    return {
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
    }


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_unpack(tmp_path, mode):
    archive, folder = tmp_path / "a", tmp_path / "out"
    archive.write_bytes(
        tar_bytes(
            [
                ("./", None),
                ("./top", b"1"),
                ("deep", None),
                ("deep/er/big", DATA),
                ("deep/._big", b"macOS"),
                ("empty", b""),
                ("top", b"2"),
            ],
            mode,
        )
    )
    paths = download.unpack(archive, folder)
    names = ["top", "deep/er/big", "empty"]
    assert paths == [str(folder / name) for name in names]
    assert files_below(folder) == set(names)
    assert (folder / "deep/er/big").read_bytes() == DATA
    assert (folder / "top").read_bytes() == b"2"
    assert download.unpack(archive, folder) == paths  # again, over the old files


@pytest.mark.parametrize(
    "bad",
    [
        "../evil",
        "a/../../evil",
        "/tmp/evil-of-a-test",
        "C:\\evil",
        "a\\..\\..\\evil",
        special("link", tarfile.SYMTYPE, "good"),
        special("hard", tarfile.LNKTYPE, "good"),
        special("device", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
        special("../folder", tarfile.DIRTYPE),
    ],
    ids=str,
)
def test_unpack_refuses_before_writing(tmp_path, bad):
    archive, folder = tmp_path / "a.tar", tmp_path / "out"
    archive.write_bytes(tar_bytes([("good", b"1"), (bad, b"")]))
    with pytest.raises(InputError) as error:
        download.unpack(archive, folder)
    name = bad if isinstance(bad, str) else bad.name
    assert repr(name) in one_line(error) and str(archive) in str(error.value)
    assert files_below(tmp_path) == {"a.tar"}


def test_unpack_refuses_links_that_were_there_before(tmp_path):
    archive, folder, outside = tmp_path / "a", tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "sub").symlink_to(outside)
    archive.write_bytes(tar_bytes([("good", b"1"), ("sub/evil", b"2")]))
    with pytest.raises(InputError, match="sub/evil"):
        download.unpack(archive, folder)
    assert not os.listdir(outside) and os.listdir(folder) == ["sub"]


def test_unpack_replaces_a_link_and_not_what_it_points_to(tmp_path):
    archive, folder = tmp_path / "a", tmp_path / "out"
    folder.mkdir()
    (tmp_path / "precious").write_bytes(b"1")
    (folder / "name").symlink_to(tmp_path / "precious")
    archive.write_bytes(tar_bytes([("name", b"2")]))
    download.unpack(archive, folder)
    assert (tmp_path / "precious").read_bytes() == b"1"
    assert (folder / "name").read_bytes() == b"2"


def damaged_archives():
    whole = tar_bytes([("first", DATA[:1000]), ("second", DATA[:70_000])])
    zipped = gzip.compress(whole)
    flipped = bytearray(zipped)
    flipped[-5] ^= 1  # in the checksum
    header = bytearray(whole)
    header[1536 + 5] ^= 1  # the second member's name
    return {
        "data": whole[:50_000],
        "between members": whole[:1536],
        "in a header": whole[:1700],
        "bad header": bytes(header),
        "end mark": whole[: 1536 + 512 + 70_144],
        "gz": zipped[: len(zipped) // 2],
        "gz end": zipped[:-4],
        "gz checksum": bytes(flipped),
    }


@pytest.mark.parametrize("name", damaged_archives())
def test_unpack_damaged(tmp_path, name):
    archive = tmp_path / "a.tar"
    archive.write_bytes(damaged_archives()[name])
    with pytest.raises(InputError) as error:
        download.unpack(archive, tmp_path / "out")
    text = one_line(error)
    assert str(archive) in text and "damaged" in text and "again" in text
    assert files_below(tmp_path) == {"a.tar"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "empty"), (b"\n<!DOCTYPE html>", "web page"), (DATA, "something else")],
)
def test_unpack_what_is_no_archive(tmp_path, content, kind):
    archive = tmp_path / "a.tar"
    archive.write_bytes(content)
    with pytest.raises(InputError) as error:
        download.unpack(archive, tmp_path / "out")
    assert kind in one_line(error)
    with pytest.raises(InputError, match="No such file"):
        download.unpack(tmp_path / "missing.tar", tmp_path / "out")


def test_unpack_without_space_or_place(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes([("name", DATA)]))
    (tmp_path / "out" / "name").mkdir(parents=True)
    with pytest.raises(InputError) as error:
        download.unpack(archive, tmp_path / "out")
    assert str(tmp_path / "out" / "name") in one_line(error)
    assert files_below(tmp_path) == {"a.tar"}
    monkeypatch.setattr(download.shutil, "disk_usage", shutil_usage(free=5))
    with pytest.raises(InputError) as error:
        download.unpack(archive, tmp_path / "other")
    assert "are free" in one_line(error)


# ---------------------------------------------------------------------- releases


def release(prefix="model.ckpt-7", extra=()):
    return tar_bytes(
        [
            (f"{prefix}.index", b"i"),
            (f"{prefix}.data-00000-of-00001", b"d"),
            (f"{prefix}.meta", b"m"),
            *extra,
        ]
    )


def test_releases():
    base = "http://download.magenta.tensorflow.org/models/nsynth/"
    assert {
        "wavenet": f"{base}wavenet-ckpt.tar",
        "baseline": f"{base}baseline-ckpt.tar",
    } == download.RELEASES


def test_download_release(site, tmp_path):
    site.body, checked = release("sub/er/model.ckpt-7"), []
    prefix = download.download_release("wavenet", tmp_path, site.url, checked.append)
    assert prefix == str(tmp_path / "sub/er/model.ckpt-7") and checked == [prefix]
    assert "f.tar" not in os.listdir(tmp_path)
    again = download.download_release("wavenet", tmp_path, site.url, checked.append)
    assert again == prefix and len(site.requests) == 1 and len(checked) == 2


def test_download_release_keeps_archives(site, tmp_path):
    site.body = release()
    download.download_release("wavenet", tmp_path / "a", site.url, keep_archive=True)
    assert "f.tar" in os.listdir(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "f.tar").write_bytes(site.body)  # from a browser
    prefix = download.download_release("wavenet", tmp_path / "b", site.url)
    assert os.path.exists(f"{prefix}.index") and len(site.requests) == 1
    assert "f.tar" in os.listdir(tmp_path / "b")
    local = str(tmp_path / "b" / "f.tar")
    prefix = download.download_release("wavenet", tmp_path / "c", local)
    assert prefix == str(tmp_path / "c" / "model.ckpt-7") and os.path.exists(local)


def test_download_release_beside_another_model_or_a_rest(site, tmp_path):
    def check(prefix):
        if "ckpt-1" in prefix:
            raise CheckpointError(f"{prefix}: another model.")

    for name in ("model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"):
        (tmp_path / name).touch()
    (tmp_path / "model.ckpt-7.index").touch()  # its data never came
    (tmp_path / "model.ckpt-8.index").touch()
    (tmp_path / "model.ckpt-8.data-00000-of-00002").touch()
    site.body = release()
    prefix = download.download_release("wavenet", tmp_path, site.url, check)
    assert prefix == str(tmp_path / "model.ckpt-7") and len(site.requests) == 1


def test_download_release_refusals(site, tmp_path):
    with pytest.raises(InputError, match="baseline"):
        download.download_release("wavnet", tmp_path)
    site.body = tar_bytes([("readme", b""), ("model.index", b"")])
    with pytest.raises(CheckpointError, match="no checkpoint"):
        download.download_release("wavenet", tmp_path / "a", site.url)
    site.body = release("x", [("y.index", b""), ("y.data-00000-of-00001", b"")])
    with pytest.raises(InputError, match="several"):
        download.download_release("wavenet", tmp_path / "b", site.url)
    with pytest.raises(InputError, match="several"):
        download.download_release("wavenet", tmp_path / "b", site.url)

    def check(prefix):
        raise CheckpointError("incomplete")

    site.body = release()
    with pytest.raises(CheckpointError, match="incomplete"):
        download.download_release("wavenet", tmp_path / "c", site.url, check)
