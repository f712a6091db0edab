"""A web server's answer, which can be given up at any time."""

import http.client
import queue
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from magenta_nsynth.disk import CHUNK
from magenta_nsynth.errors import InputError

__all__ = ["Answer", "BrokenError", "check_address", "root_cause"]

_LEAST_RATE = 1_000  # bytes/s, of which 60 s bring one of 7 kB; a modem has 7,000
_CHUNKS_AHEAD = 16  # read and not yet asked for: 1 MB
_MOST_REDIRECTS = 10
_HEADERS = {"User-Agent": "magenta-nsynth", "Accept-Encoding": "identity"}


class BrokenError(Exception):
    """The connection failed in a way that may pass."""


class Answer:
    """A server's answer, read in a thread of its own.

    So nothing that a server, a proxy or the resolver of names does not do, or does a
    byte at a time, holds the program up.

    Attributes:
      status: such as 200.
      headers: by name, in any case.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float) -> None:
        """Asks for `url`.

        Args:
          url: http:// or https://.
          headers: of the request, beside our own.
          timeout: seconds that the server may be silent, or slower than `_LEAST_RATE`.

        Raises:
          InputError: it leads to an address that is not of the web.
          BrokenError: there is no answer in time.
          Exception: whatever requests raises; see `root_cause`.
        """
        self._timeout = timeout
        self._items: queue.Queue[Any] = queue.Queue(_CHUNKS_AHEAD)
        self._given_up = threading.Event()
        arguments = (url, {**_HEADERS, **headers})
        threading.Thread(target=self._read, args=arguments, daemon=True).start()
        try:
            self.status, self.headers = self._next()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def least_bytes(seconds: float) -> float:
        """What has to come in that time, or the server is as good as silent."""
        return _LEAST_RATE * seconds

    @property
    def is_chunked(self) -> bool:
        """Whether the end of the content shows by itself."""
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def chunks(self) -> Iterator[bytes]:
        """The content, in the pieces in which it comes.

        Raises:
          BrokenError: the connection fails, or is too slow.
        """
        begun, count = time.monotonic(), 0
        while chunk := self._next_chunk():
            yield chunk
            count += len(chunk)
            seconds = time.monotonic() - begun
            if seconds > self._timeout:
                if count < self.least_bytes(seconds):
                    raise BrokenError("the server sends next to nothing")
                begun, count = time.monotonic(), 0

    def close(self) -> None:
        """Gives it up."""
        self._given_up.set()

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> Any:
        try:
            item = self._items.get(timeout=self._timeout)
        except queue.Empty:
            raise BrokenError("the server does not answer") from None
        if isinstance(item, Exception):
            raise item
        return item

    def _next_chunk(self) -> bytes:
        try:
            return self._next()
        except BrokenError:
            raise
        except Exception as error:
            raise BrokenError(root_cause(error)[1]) from None

    def _read(self, url: str, headers: Mapping[str, str]) -> None:
        """Puts status and headers into the queue, then the content and b"", or why not.

        The thread's own.
        """
        try:
            with (
                _Session() as session,
                _follow(session, url, headers, self._timeout) as response,
            ):
                self._put((response.status_code, response.headers))
                chunk = b"more"
                while chunk and not self._given_up.is_set():
                    # Not read(): it waits for the whole chunk, and loses what had
                    # come when the connection fails meanwhile.
                    chunk = response.raw.read1(CHUNK, decode_content=False)
                    self._put(chunk)
        except Exception as error:  # half of three libraries' errors
            self._put(error)

    def _put(self, item: object) -> None:
        while not self._given_up.is_set():
            try:
                self._items.put(item, timeout=1)
                return
            except queue.Full:
                pass


class _Session(requests.Session):
    """Follows no redirect: requests would read what comes with it, of any length."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _follow(
    session: _Session, url: str, headers: Mapping[str, str], timeout: float
) -> requests.Response:
    """The answer at the end of all redirects."""
    for _ in range(_MOST_REDIRECTS):
        response = session.get(url, headers=headers, timeout=timeout, stream=True)
        if not response.is_redirect:
            return response
        response.close()
        target = response.headers["Location"]
        try:
            url = urllib.parse.urljoin(url, target.encode("latin-1").decode())
        except ValueError:
            raise InputError(f"{url}: is sent to what is not an address.") from None
        check_address(url)
    raise InputError(f"{url}: is sent from address to address; is it right?")


def check_address(url: str) -> None:
    """Raises InputError unless it is one of the web."""
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname
        fits = fits and parts.port != 0 and not re.search(r"[^!-~]", url)
    except ValueError:  # e.g. half a bracket, or no number for a port
        fits = False
    if not fits:
        raise InputError(
            f"{url[:200]}: not an address that begins with http:// or https://."
        )


def root_cause(error: BaseException) -> tuple[BaseException, str]:
    """What made a connection fail, and the words for it."""
    known = (
        *(socket.gaierror, ConnectionRefusedError, TimeoutError),
        *(ssl.SSLError, http.client.IncompleteRead),
    )
    while not isinstance(error, known):
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    if isinstance(error, socket.gaierror):
        return error, "the host's name can't be resolved"
    if isinstance(error, TimeoutError):
        return error, "the server does not answer"
    if isinstance(error, http.client.IncompleteRead):
        return error, "the connection broke off"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error, f"its certificate is not valid ({error.verify_message})"
    reason = "".join(c if c.isprintable() else " " for c in str(error))
    return error, " ".join(f"the connection failed ({reason[:200]})".split())
