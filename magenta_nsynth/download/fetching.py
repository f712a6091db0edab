"""Downloading one file over HTTP, resumed after every kind of interruption."""

import contextlib
import dataclasses
import hashlib
import http.client
import os
import queue
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Generator, Iterable, Mapping
from typing import Any, BinaryIO

import requests
from absl import logging

from magenta_nsynth.disk import CHUNK, disk_errors, open_locked, remove, require_space
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import read_json, write_json
from magenta_nsynth.formatting import format_bytes, format_duration, one_line
from magenta_nsynth.progress import Progress
from magenta_nsynth.stores.remote import without_secrets

__all__ = ["fetch", "verify"]

_LONGEST_PAUSE = 60.0  # seconds
# For a file of unknown length. The released checkpoints have 1 GB.
_MOST_WITHOUT_LENGTH = 4 * 10**9
_LEAST_RATE = 1_000  # bytes/s; a modem has 7,000
_CHUNKS_AHEAD = 16  # read from the server before they are written: 1 MB
_MOST_REDIRECTS = 10
_HEADERS = {"User-Agent": "magenta-nsynth", "Accept-Encoding": "identity"}
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another try
# A strong ETag changes whenever the file does. Dates and weak ETags need not.
_ETAG = re.compile(r'"[!#-~]{0,200}"')
_NUMBER = r"(\d{1,18})"
# What is noted beside a part: the file that it is a part of.
_NOTE = {"url": str, "validator": (str, None), "size": (int, None)}
# Without an earlier answer these mean no network, or a mistyped address.
_HOPELESS = (
    socket.gaierror,
    ConnectionRefusedError,
    ssl.SSLCertVerificationError,
    ValueError,  # requests' and urllib's errors for malformed addresses
)


class _BrokenError(Exception):
    """The connection failed, but another attempt may succeed."""


class _WrongFileError(InputError):
    """The downloaded file can't be used."""


def fetch(
    url: str,
    path: str | os.PathLike,
    expected_size: int | None = None,
    sha256: str | None = None,
    *,
    attempts: int = 6,
    pause_seconds: float = 1.0,
    timeout_seconds: float = 60.0,
) -> str:
    """Downloads `url` to `path`, which appears only when it is complete and right.

    The bytes gather in PATH.part, beside a note of the file that they are part of.
    A broken connection is resumed. So is what an earlier run left, however it ended,
    if the server identifies this version of the file by an ETag or the SHA-256 is
    known. A file that has changed on the server is started again. A `path` that exists
    is checked and kept.

    Args:
      url: http:// or https://. Proxies are taken from the environment.
      path: where the file belongs; its folder is created.
      expected_size: in bytes, if known.
      sha256: the file's SHA-256 in hex, if known.
      attempts: how many times in a row a connection may fail with next to nothing
        gained.
      pause_seconds: before the second attempt; doubled each time, up to 60 s.
      timeout_seconds: how long a server may be silent, or nearly so.

    Returns:
      `path`.

    Raises:
      InputError: the address cannot be reached or has no such file; the file is not
        the expected one or may be incomplete; or it cannot be written. What was
        downloaded is kept for the next run, unless it is wrong.
    """
    path = os.fspath(path)
    with disk_errors(path):
        if os.path.exists(path):
            verify(path, expected_size, sha256)
            logging.info("%s is already there and is kept.", path)
            return path
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        part = f"{path}.part"
        in_use = f"{part}: another program is downloading this file; wait for it."
        # Locked: two programs that fetch the same file would mix their bytes.
        with open_locked(part, in_use) as file:
            file.seek(0, os.SEEK_END)
            download = _Download(
                url, path, file, expected_size, sha256, timeout_seconds
            )
            try:
                download.run(attempts, pause_seconds)
                if problem := _problem(part, expected_size, sha256):
                    raise _WrongFileError(
                        f"{download.shown}: {problem}. It was not kept; run again."
                    )
            except BaseException as error:
                if isinstance(error, _WrongFileError):
                    file.truncate(0)
                if os.path.getsize(part) == 0:  # nothing worth resuming
                    remove(part, download.note_path)
                raise
        os.replace(part, path)
        remove(download.note_path)
    return path


def verify(path: str, expected_size: int | None, sha256: str | None) -> None:
    """Checks an existing file.

    Raises:
      InputError: it is not a file, or not the expected one.
      OSError: it cannot be read.
    """
    if problem := _problem(path, expected_size, sha256):
        raise InputError(f"{path}: {problem}; remove it and run again.")


@dataclasses.dataclass
class _Download:
    """One file in progress: its first part, and the requests for the rest."""

    url: str
    path: str
    file: BinaryIO
    expected_size: int | None
    sha256: str | None
    timeout: float
    answered: bool = False  # the server has answered at least once

    @property
    def shown(self) -> str:
        """The address without credentials, for messages."""
        return without_secrets(self.url)

    @property
    def noted(self) -> str:
        """What the note says of the address; a hash stands for credentials."""
        if self.shown == self.url:
            return self.url
        return f"{self.shown} {hashlib.sha256(self.url.encode()).hexdigest()[:16]}"

    @property
    def note_path(self) -> str:
        return f"{self.path}.part.json"

    def run(self, attempts: int, pause: float) -> None:
        """Requests the file until it is complete."""
        failures, furthest = 0, self.file.tell()
        label = os.path.basename(self.path)
        with Progress(None, "B", label, initial=furthest) as progress:
            while True:
                try:
                    self._attempt(progress)
                    return
                except _BrokenError as error:
                    reason = str(error)
                # A few new bytes do not count, or a server that breaks off again and
                # again would be asked for ever.
                size = self.file.tell()
                has_gained = size - furthest >= _LEAST_RATE * self.timeout
                failures = 1 if has_gained else failures + 1
                furthest = max(furthest, size)
                if failures >= attempts:
                    kept = f" ({format_bytes(size)} are kept)" if size else ""
                    raise InputError(
                        f"{self.shown}: {reason}, {failures} times in a row. Run the "
                        f"same command again later{kept}. {self._other_way}"
                    )
                seconds = min(_LONGEST_PAUSE, pause * 2 ** (failures - 1))
                logging.warning(
                    "%s: %s, after %s; trying again in %s.",
                    self.shown,
                    reason,
                    format_bytes(size),
                    format_duration(seconds),
                )
                time.sleep(seconds)

    @property
    def _other_way(self) -> str:
        return f"Or download {self.shown} in a browser and pass the file with --url."

    def _attempt(self, progress: Progress) -> None:
        """Makes one request, for what is missing if that can be had alone."""
        note, size = read_json(self.note_path, _NOTE) or {}, self.file.tell()
        if note.get("url") != self.noted:
            note = {}
        if size and size == note.get("size"):  # stopped just before the end
            return
        etag = _strong(note.get("validator"))
        headers = {}
        # Without either, nothing would show that the bytes here are of the file as it
        # is now. They stay until it really comes: the address may be mistyped.
        if size and (etag or self.sha256):
            headers["Range"] = f"bytes={size}-"
            if etag:
                headers["If-Range"] = etag
        with contextlib.closing(self._answer(headers)) as answer:
            response = next(answer)
            end, total = self._accept(response, note, bool(headers))
            progress.total = total
            progress.update(self.file.tell())
            self._copy(answer, end, response.status_code == 206, progress)
        if total is not None and self.file.tell() < total:
            raise _BrokenError("the connection broke off")

    def _answer(self, headers: Mapping[str, str]) -> Generator[Any, None, None]:
        """Asks for the file; yields the `requests.Response`, then pieces of its body.

        The server is read in a thread of its own. So nothing that a server, a proxy
        or a name server fails to do, or does one byte at a time, blocks the program.
        """
        items: queue.Queue[Any] = queue.Queue(_CHUNKS_AHEAD)
        given_up = threading.Event()
        request = self.url, {**_HEADERS, **headers}, self.timeout
        threading.Thread(
            target=_read, args=(*request, items, given_up), daemon=True
        ).start()
        begun, count = time.monotonic(), 0
        try:
            while True:
                try:
                    item = items.get(timeout=self.timeout)
                except queue.Empty:
                    raise _BrokenError("the server does not answer") from None
                if isinstance(item, Exception):
                    raise self._failure(item)
                if item == b"":
                    return
                self.answered = True
                yield item
                count += len(item) if isinstance(item, bytes) else 0
                seconds = time.monotonic() - begun
                if seconds > self.timeout:
                    if count < _LEAST_RATE * seconds:
                        raise _BrokenError("the server sends next to nothing")
                    begun, count = time.monotonic(), 0
        finally:
            given_up.set()
            with contextlib.suppress(queue.Empty):  # the thread may wait for room
                while True:
                    items.get_nowait()

    def _failure(self, error: Exception) -> Exception:
        """What to raise for an error of the connection: is it worth another try?"""
        if isinstance(error, InputError):
            return error
        cause = _root_cause(error)
        if isinstance(cause, socket.gaierror):
            reason = "the host's name cannot be resolved"
        elif isinstance(cause, TimeoutError):
            reason = "the server does not answer"
        elif isinstance(cause, http.client.IncompleteRead):
            reason = "the connection broke off"
        else:
            reason = one_line(f"the connection failed ({str(cause)[:200]})")
        if isinstance(cause, _HOPELESS) and not self.answered:
            return InputError(
                f"{self.shown}: {reason}; check the address and the network (and "
                f"http_proxy, https_proxy). {self._other_way}"
            )
        return _BrokenError(reason)

    def _accept(
        self, response: requests.Response, note: Mapping[str, Any], resuming: bool
    ) -> tuple[int | None, int | None]:
        """Prepares the file for what the server sends.

        Args:
          response: the server's.
          note: what the bytes that are here are part of.
          resuming: whether only the rest was asked for.

        Returns:
          Where in the file the body ends, and the whole file's size; None if unknown.
        """
        status = response.status_code
        if status == 200:
            size = self._accept_all(response.headers)
            return size, size
        if resuming and status in (206, 416):
            return self._accept_rest(response, note)
        phrase = http.client.responses.get(status, "")
        reason = f"the server answers {status} {phrase}".rstrip()
        if status in _MAY_PASS:
            raise _BrokenError(reason)
        raise InputError(f"{self.shown}: {reason}; is the address right?")

    def _accept_all(self, headers: Mapping[str, str]) -> int | None:
        """Status 200: the file from its beginning. Returns its size, if known."""
        is_chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        length = re.fullmatch(_NUMBER, headers.get("Content-Length", ""), re.ASCII)
        size = int(length[1]) if length and not is_chunked else None
        self._check_size(size)
        # The connection's end would be the file's end, or any interruption.
        if size is None and not (is_chunked or self.expected_size or self.sha256):
            raise InputError(
                f"{self.shown}: the server does not say how long the file is, so it "
                f"might be incomplete. {self._other_way}"
            )
        if self.file.tell():
            self._begin_again("it has changed, or the server cannot resume")
        require_space(self.path, size or self.expected_size or 0)
        etag = _strong(headers.get("ETag"))
        write_json(self.note_path, {"url": self.noted, "validator": etag, "size": size})
        return self.expected_size if size is None else size

    def _accept_rest(
        self, response: requests.Response, note: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Status 206: what is missing or a part of it. 416: there is nothing more."""
        content_range = response.headers.get("Content-Range", "").strip()
        form = rf"bytes {_NUMBER}-{_NUMBER}/{_NUMBER}"
        match = re.fullmatch(form, content_range, re.ASCII)
        if match and response.status_code == 206:
            first, last, total = map(int, match.groups())
            # Not every server honours If-Range.
            now = _strong(response.headers.get("ETag"))
            known = _strong(note.get("validator"))
            is_same = note.get("size") in (None, total) and (
                now == known if now and known else now or self.sha256
            )
            if is_same and self.file.tell() == first <= last < total:
                self._check_size(total)
                return last + 1, total
        self._begin_again("the server sent another part or another file")
        raise _BrokenError("the rest does not fit the first part")

    def _copy(
        self,
        chunks: Iterable[bytes],
        end: int | None,
        resuming: bool,
        progress: Progress,
    ) -> None:
        """Appends the body, which must not go beyond `end`."""
        most = _MOST_WITHOUT_LENGTH if end is None else end
        for chunk in chunks:
            kept = chunk[: most - self.file.tell()]
            self.file.write(kept)
            self.file.flush()  # what is written survives a kill
            progress.advance(len(kept))
            if len(kept) == len(chunk):
                continue
            if resuming:
                self._begin_again("the server sent more than it announced")
                raise _BrokenError("the rest does not fit the first part")
            raise _WrongFileError(
                f"{self.shown}: has more than {most} bytes, so it is not the expected "
                "file. It was not kept; is the address right?"
            )

    def _check_size(self, total: int | None) -> None:
        if None not in (total, self.expected_size) and total != self.expected_size:
            raise InputError(
                f"{self.shown}: has {total} bytes, not {self.expected_size}; it is not "
                "the expected file. Is the address right?"
            )

    def _begin_again(self, reason: str) -> None:
        logging.info("%s: downloading it from the beginning: %s.", self.path, reason)
        self.file.truncate(0)
        self.file.seek(0)


class _Session(requests.Session):
    """Follows no redirect: requests would read a redirect's body, of any length."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _read(
    url: str,
    headers: Mapping[str, str],
    timeout: float,
    items: queue.Queue[Any],
    given_up: threading.Event,
) -> None:
    """Puts the response into a queue, then its body and b"", or the error instead."""
    try:
        with (
            _Session() as session,
            _follow(session, url, headers, timeout) as response,
        ):
            items.put(response)
            chunk = b"more"
            while chunk and not given_up.is_set():
                # Not read(): it waits for the whole chunk, and loses what had come
                # when the connection fails meanwhile.
                chunk = response.raw.read1(CHUNK, decode_content=False)
                items.put(chunk)
    except Exception as error:  # half of three libraries' errors
        items.put(error)


def _follow(
    session: _Session, url: str, headers: Mapping[str, str], timeout: float
) -> requests.Response:
    """The response at the end of all redirects."""
    for _ in range(_MOST_REDIRECTS):
        response = session.get(url, headers=headers, timeout=timeout, stream=True)
        if not response.is_redirect:
            return response
        response.close()
        target = response.headers["Location"].encode("latin-1").decode()
        url = urllib.parse.urljoin(url, target)
    raise InputError(
        f"{without_secrets(url)}: redirected {_MOST_REDIRECTS} times; is the address "
        "right?"
    )


def _root_cause(error: BaseException) -> BaseException:
    """The error that made a connection fail, beneath what libraries wrap around it."""
    known = (*_HOPELESS, TimeoutError, ssl.SSLError, http.client.HTTPException)
    while not isinstance(error, known):
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return error


def _strong(etag: object) -> str | None:
    """An ETag that identifies this very version of a file; else None."""
    return etag if isinstance(etag, str) and _ETAG.fullmatch(etag) else None


def _problem(path: str, expected_size: int | None, sha256: str | None) -> str | None:
    """Why a file is not the expected one; None if it is."""
    size = os.path.getsize(path)
    if not os.path.isfile(path):
        return "not a file"
    if expected_size not in (None, size):
        return f"{size} bytes, not {expected_size}"
    if sha256 is not None and _sha256(path, size) != sha256.lower():
        return f"its SHA-256 is not {sha256}"
    return None


def _sha256(path: str, size: int) -> str:
    digest = hashlib.sha256()
    label = f"checking {os.path.basename(path)}"
    with open(path, "rb") as file, Progress(size, "B", label) as progress:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            progress.advance(len(chunk))
    return digest.hexdigest()
