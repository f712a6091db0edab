"""A web server on this machine that misbehaves as a test wants."""

import contextlib
import dataclasses
import http.server
import threading

import pytest
from samples import DATA


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
    raw: list = dataclasses.field(default_factory=list)  # bytes of whole answers
    go_on: threading.Event = dataclasses.field(default_factory=threading.Event)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        site.requests.append(dict(self.headers))
        if site.raw and (pieces := site.raw.pop(0)) is not None:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    self.wfile.write(piece)
            self.close_connection = True
            return
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
        rest = body[start:]
        if site.cut_after is not None and site.cuts > 0:
            site.cuts -= 1
            rest = rest[: site.cut_after]
        stalls = site.stall_after is not None
        if stalls:
            rest = rest[: site.stall_after]
        # Before the headers are out, after which the client may ask again at once.
        site.sent.append(len(rest))
        self.end_headers()
        if stalls:
            self.wfile.write(rest)
            site.go_on.wait(10)
            return
        with contextlib.suppress(OSError):
            self.wfile.write(rest)
        if site.lingers:
            site.go_on.wait(10)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve():
    """Runs the server; yields its `Site`, to be asked and changed meanwhile."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = Site(url=f"http://127.0.0.1:{server.server_port}/f.tar")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("no_proxy", "*")
        yield server.site
    server.site.go_on.set()
    server.shutdown()
    server.server_close()
