"""Fetching one file over HTTP, resumed after every kind of interruption."""

import dataclasses
import hashlib
import http.client
import io
import json
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from absl import logging

from magenta_nsynth.disk import CHUNK, disk_errors, lock, remove, require_space
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.formatting import format_bytes, format_duration
from magenta_nsynth.progress import Progress

__all__ = ["fetch", "fetch_into"]

_LONGEST_PAUSE = 60.0  # seconds
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another try
_USER_AGENT = "magenta-nsynth"


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

    The bytes gather in PATH.part, with a note beside it of what they are part of. A
    connection that breaks is taken up again, and so is what an earlier run left,
    however that ended. A file that has changed on the server is begun again. A `path`
    that exists is checked and kept.

    Args:
      url: http:// or https://. Proxies are taken from the environment.
      path: where the file belongs; its folder is created.
      expected_size: in bytes, if known.
      sha256: the file's SHA-256 in hex, if known.
      attempts: how often in a row a connection may fail without one new byte.
      pause_seconds: before the second attempt; doubled each time, 60 s at most.
      timeout_seconds: how long a server may be silent.

    Returns:
      `path`, with `~` and environment variables replaced.

    Raises:
      InputError: the address can't be reached or has no such file, the file is not
        the expected one, or it can't be written. What was downloaded is kept for the
        next try, unless it is wrong.
    """
    path = expand(path)
    _check_address(url)
    part = f"{path}.part"
    with disk_errors(path):
        if os.path.exists(path):
            _verify(path, path, expected_size, sha256)
            logging.info("%s is already there and is kept.", path)
            return path
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        # Opened once, for appending, and locked: two programs that fetch the same
        # file would otherwise mix their bytes.
        with open(part, "ab") as file:
            in_use = f"{part}: another program is downloading this file; wait for it."
            lock(file, in_use)
            download = _Download(url, path, file, expected_size, sha256)
            try:
                download.run(attempts, pause_seconds, timeout_seconds)
                file.flush()
                _verify(part, url, expected_size, sha256)
            except BaseException as error:
                if isinstance(error, _WrongFileError):
                    file.truncate(0)
                if os.path.getsize(part) == 0:  # nothing worth resuming
                    remove(part, download.note_path)
                raise
        os.replace(part, path)
        remove(download.note_path)
    return path


def fetch_into(
    folder: str,
    url: str,
    name: str,
    expected_size: int | None = None,
    sha256: str | None = None,
) -> tuple[str, bool]:
    """Fetches `url` into `folder`, unless it is a file on this disk already.

    Args:
      folder: where the file belongs.
      url: an address, or a path, which is checked and left where it is.
      name: the file's name where the address doesn't say one.
      expected_size: as for `fetch`.
      sha256: as for `fetch`.

    Returns:
      The file's path, and whether it was downloaded now.

    Raises:
      InputError: as `fetch`.
    """
    local = expand(url)
    if os.path.exists(local):
        with disk_errors(local):
            _verify(local, local, expected_size, sha256)
        return local, False
    last = os.path.basename(urllib.parse.urlsplit(url).path)
    path = os.path.join(folder, last or name)
    new = not os.path.exists(path)
    return fetch(url, path, expected_size, sha256), new


class _BrokenError(Exception):
    """The connection failed in a way that may pass."""


class _WrongFileError(InputError):
    """What was downloaded is complete, and of no use."""


@dataclasses.dataclass
class _Download:
    """One file on its way: what is there of it, and the requests for the rest."""

    url: str
    path: str
    file: io.BufferedWriter
    expected_size: int | None
    sha256: str | None
    answered: bool = False  # the server has answered at least once

    @property
    def note_path(self) -> str:
        return f"{self.path}.part.json"

    def run(self, attempts: int, pause: float, timeout: float) -> None:
        """Requests the file until it is whole."""
        failures, furthest = 0, self.file.tell()
        label = os.path.basename(self.path)
        with Progress(None, "B", label, initial=furthest) as progress:
            while True:
                try:
                    self._attempt(timeout, progress)
                    return
                except _BrokenError as error:
                    reason = str(error)
                # Only new bytes count as success, or a server that breaks off and
                # can't resume would be asked for ever.
                size = self.file.tell()
                failures = 1 if size > furthest else failures + 1
                furthest = max(furthest, size)
                if failures >= attempts:
                    kept = f" ({format_bytes(size)} are kept)" if size else ""
                    raise InputError(
                        f"{self.url}: {reason}, {failures} times in a row. Run the "
                        f"same command again later{kept}. {self._other_way}"
                    )
                seconds = min(_LONGEST_PAUSE, pause * 2 ** (failures - 1))
                logging.warning(
                    "%s: %s, with %s there; trying again in %s.",
                    self.url,
                    reason,
                    format_bytes(size),
                    format_duration(seconds),
                )
                time.sleep(seconds)

    @property
    def _other_way(self) -> str:
        return f"Or download it in a browser from {self.url} and pass the file."

    def _attempt(self, timeout: float, progress: Progress) -> None:
        """One request, for what is missing where that can be had."""
        note, size = self._read_note(), self.file.tell()
        validator = note.get("validator")
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        # Without either, nothing would show that these bytes are of the file as it is
        # now. They stay until it really comes: the address may be a slip.
        if size and (validator or self.sha256):
            headers["Range"] = f"bytes={size}-"
            if validator:
                headers["If-Range"] = validator
        with self._open(headers, timeout) as response:
            if response.status == 416:
                self._accept_end(response, note)
                return
            if response.status == 206:
                total = self._accept_rest(response, note)
            else:
                total = self._accept_all(response)
            if total is None:
                total = self.expected_size
            progress.total = total
            progress.update(self.file.tell())
            self._copy(response, progress)
        if total is not None and self.file.tell() < total:
            raise _BrokenError("the connection broke off")

    def _open(
        self, headers: dict[str, str], timeout: float
    ) -> http.client.HTTPResponse | urllib.error.HTTPError:
        """The answer: status 200, 206 or 416. Everything else is an error."""
        try:
            request = urllib.request.Request(self.url, headers=headers)
            response = urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            self.answered = True
            if error.code == 416 and "Range" in headers:
                return error
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            if error.code in _MAY_PASS:
                raise _BrokenError(reason) from None
            raise InputError(f"{self.url}: {reason}; is the address right?") from None
        except (http.client.InvalidURL, ValueError) as error:
            raise InputError(f"{self.url}: not a valid address ({error}).") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._not_connected(error) from None
        self.answered = True
        return response

    def _not_connected(self, error: Exception) -> Exception:
        """What to raise when there is no answer: is it worth another try?"""
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = _network_reason(reason)
        # Offline, or a mistyped host: say so at once. But a connection that has
        # worked may come back.
        hopeless = isinstance(reason, socket.gaierror | ConnectionRefusedError)
        never = isinstance(reason, ssl.SSLCertVerificationError)
        if never or (hopeless and not self.answered):
            return InputError(
                f"{self.url}: {text}; check the network (and http_proxy, "
                f"https_proxy). {self._other_way}"
            )
        return _BrokenError(text)

    def _accept_all(self, response: http.client.HTTPResponse) -> int | None:
        """Status 200: the file from its beginning. Returns its size, where known."""
        headers = response.headers
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        self._check_size(total)
        if self.file.tell():
            self._begin_again("it has changed, or the server can't resume")
        require_space(self.path, total or 0)
        note = {"url": self.url, "validator": _validator(headers), "size": total}
        with open(self.note_path, "w", encoding="utf-8") as file:
            json.dump(note, file)
        return total

    def _accept_rest(
        self, response: http.client.HTTPResponse, note: dict[str, Any]
    ) -> int | None:
        """Status 206: what is missing. Returns the whole file's size, where known."""
        content_range = response.headers.get("Content-Range", "").strip()
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        fits = match and int(match[1]) == self.file.tell()
        if not fits or not self._is_same(response, note, match[2]):
            self._begin_again("the server sent another part or another file")
            raise _BrokenError("the rest does not fit what is there")
        total = None if match[2] == "*" else int(match[2])
        self._check_size(total)
        return total

    def _accept_end(
        self, response: urllib.error.HTTPError, note: dict[str, Any]
    ) -> None:
        """Status 416: nothing comes after what is there. Is that all of it?"""
        content_range = response.headers.get("Content-Range", "").strip()
        match = re.fullmatch(r"bytes \*/(\d+)", content_range)
        total = match[1] if match else str(note.get("size") or self.expected_size)
        if total == str(self.file.tell()) and self._is_same(response, note, total):
            return
        self._begin_again("it does not fit the file on the server")
        raise _BrokenError("there was nothing to resume")

    def _copy(self, response: http.client.HTTPResponse, progress: Progress) -> None:
        while True:
            try:
                # Not read(): it waits for the whole chunk, and loses what had come
                # when the connection fails meanwhile.
                chunk = response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenError(_network_reason(error)) from None
            if not chunk:
                return
            self.file.write(chunk)
            self.file.flush()  # what is here survives a kill
            progress.advance(len(chunk))

    def _is_same(
        self,
        response: http.client.HTTPResponse | urllib.error.HTTPError,
        note: dict[str, Any],
        total: str,
    ) -> bool:
        """Whether a partial answer is of the file that the .part file is of."""
        # Not every server heeds If-Range, and a right one need not repeat the rest.
        if note.get("size") and total not in ("*", str(note["size"])):
            return False
        now, known = _validator(response.headers), note.get("validator")
        comparable = now and known and now.startswith('"') == known.startswith('"')
        return not comparable or now == known

    def _check_size(self, total: int | None) -> None:
        if None not in (total, self.expected_size) and total != self.expected_size:
            raise InputError(
                f"{self.url}: has {total} bytes, not {self.expected_size}; it is not "
                "the expected file. Is the address right?"
            )

    def _begin_again(self, reason: str) -> None:
        logging.info("%s: downloading it from its beginning: %s.", self.path, reason)
        self.file.truncate(0)
        self.file.seek(0)

    def _read_note(self) -> dict[str, Any]:
        """What an earlier answer said; {} if there was none, or of another address."""
        try:
            with open(self.note_path, encoding="utf-8") as file:
                note = json.load(file)
        except (OSError, ValueError):
            return {}
        same = isinstance(note, dict) and note.get("url") == self.url
        return note if same else {}


def _check_address(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:  # e.g. half a bracket
        fits = False
    if not fits:
        raise InputError(f"{url}: not an address that begins with http:// or https://.")


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """What names this very version of the file: a strong ETag, or else its date."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _network_reason(error: object) -> str:
    if isinstance(error, socket.gaierror):
        return "the host's name can't be resolved"
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    return " ".join(f"the connection failed ({error})".split())


def _verify(
    path: str, name: str, expected_size: int | None, sha256: str | None
) -> None:
    """Raises InputError unless the file at `path` is the expected one."""
    size = os.path.getsize(path)
    if not os.path.isfile(path):
        problem = "not a file"
    elif expected_size is not None and size != expected_size:
        problem = f"{size} bytes, not {expected_size}"
    elif sha256 is not None and _sha256(path, size) != sha256.lower():
        problem = f"its SHA-256 is not {sha256}"
    else:
        return
    if path == name:
        raise InputError(f"{path}: {problem}; remove it and run again.")
    raise _WrongFileError(f"{name}: {problem}. It was not kept; run again.")


def _sha256(path: str, size: int) -> str:
    digest = hashlib.sha256()
    label = f"checking {os.path.basename(path)}"
    with open(path, "rb") as file, Progress(size, "B", label) as progress:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            progress.advance(len(chunk))
    return digest.hexdigest()
