"""Fetching one file over HTTP, resumed after every kind of interruption."""

import dataclasses
import hashlib
import http
import io
import os
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from absl import logging

from magenta_nsynth.answers import Answer, BrokenError, check_address, root_cause
from magenta_nsynth.disk import disk_errors, lock, remove, require_space
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, read_json, write_json
from magenta_nsynth.formatting import format_bytes, format_duration
from magenta_nsynth.progress import Progress

__all__ = ["fetch", "fetch_into"]

_LONGEST_PAUSE = 60.0  # seconds
# Of a file whose length the server does not say. The released checkpoints have 1 GB.
_MOST_WITHOUT_LENGTH = 4 * 10**9
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another try
# A strong one: it is another one for every change of the file. No date is so good.
_ETAG = re.compile(r'"[!#-~]{0,200}"')
_NUMBER = r"(\d{1,18})"
_NOTE = {"url": str, "validator": (str, None), "size": (int, None)}


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
    however that ended, if the server names this version of the file by an ETag, or
    its SHA-256 is known. A file that has changed on the server is begun again. A
    `path` that exists is checked and kept.

    Args:
      url: http:// or https://. Proxies are taken from the environment.
      path: where the file belongs; its folder is created.
      expected_size: in bytes, if known.
      sha256: the file's SHA-256 in hex, if known.
      attempts: how often in a row a connection may fail and bring next to nothing.
      pause_seconds: before the second attempt; doubled each time, 60 s at most.
      timeout_seconds: how long a server may be silent, or as good as.

    Returns:
      `path`.

    Raises:
      InputError: the address can't be reached or has no such file, the file is not
        the expected one or may not be whole, or it can't be written. What was
        downloaded is kept for the next try, unless it is wrong.
    """
    path = os.fspath(path)
    check_address(url)
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
            download = _Download(
                url, path, file, expected_size, sha256, timeout_seconds
            )
            try:
                download.run(attempts, pause_seconds)
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


class _WrongFileError(InputError):
    """What was downloaded is of no use."""


@dataclasses.dataclass
class _Download:
    """One file on its way: what is there of it, and the requests for the rest."""

    url: str
    path: str
    file: io.BufferedWriter
    expected_size: int | None
    sha256: str | None
    timeout: float
    answered: bool = False  # the server has answered at least once

    @property
    def note_path(self) -> str:
        return f"{self.path}.part.json"

    def run(self, attempts: int, pause: float) -> None:
        """Requests the file until it is whole."""
        failures, furthest = 0, self.file.tell()
        label = os.path.basename(self.path)
        with Progress(None, "B", label, initial=furthest) as progress:
            while True:
                try:
                    self._attempt(progress)
                    return
                except BrokenError as error:
                    reason = str(error)
                # Only new bytes count as success, and not a few, or a server that
                # breaks off again and again would be asked for ever.
                size = self.file.tell()
                worth = size - furthest >= Answer.least_bytes(self.timeout)
                failures = 1 if worth else failures + 1
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

    def _attempt(self, progress: Progress) -> None:
        """One request, for what is missing where that can be had."""
        note, size = read_json(self.note_path, _NOTE) or {}, self.file.tell()
        if note.get("url") != self.url:
            note = {}
        etag = _strong(note.get("validator"))
        headers = {}
        # Without either, nothing would show that these bytes are of the file as it is
        # now. They stay until it really comes: the address may be a slip.
        if size and (etag or self.sha256):
            headers["Range"] = f"bytes={size}-"
            if etag:
                headers["If-Range"] = etag
        with self._ask(headers) as answer:
            if answer.status == 416:
                self._accept_end(answer.headers, note)
                return
            if answer.status == 206:
                end, total = self._accept_rest(answer.headers, note)
            else:
                end = total = self._accept_all(answer)
            progress.total = total
            progress.update(self.file.tell())
            self._copy(answer, end, progress)
        if total is not None and self.file.tell() < total:
            raise BrokenError("the connection broke off")
        if total is None and not (answer.is_chunked or self.sha256):
            # The connection has ended: at the file's end, or somewhere in it? A
            # server that can go on from here says so.
            etag = _strong(answer.headers.get("ETag"))
            if headers or not etag or not self.file.tell():
                raise _WrongFileError(
                    f"{self.url}: the server does not say how long the file is, so it "
                    f"may not be whole. It was not kept. {self._other_way}"
                )
            self._attempt(progress)

    def _ask(self, headers: dict[str, str]) -> Answer:
        """The answer: status 200, 206 or 416. Everything else is an error."""
        try:
            answer = Answer(self.url, headers, self.timeout)
        except (BrokenError, InputError):
            raise
        except Exception as error:
            raise self._not_connected(error) from None
        self.answered = True
        if answer.status == 200 or ("Range" in headers and answer.status in (206, 416)):
            return answer
        answer.close()
        names = {status.value: f" {status.phrase}" for status in http.HTTPStatus}
        reason = f"the server answers {answer.status}{names.get(answer.status, '')}"
        if answer.status in _MAY_PASS:
            raise BrokenError(reason)
        raise InputError(f"{self.url}: {reason}; is the address right?")

    def _not_connected(self, error: Exception) -> Exception:
        """What to raise when there is no answer: is it worth another try?"""
        cause, text = root_cause(error)
        # Offline, or a mistyped host: say so at once. But a connection that has
        # worked may come back.
        hopeless = isinstance(cause, socket.gaierror | ConnectionRefusedError)
        never = isinstance(cause, ssl.SSLCertVerificationError)
        if never or (hopeless and not self.answered):
            return InputError(
                f"{self.url}: {text}; check the network (and http_proxy, "
                f"https_proxy). {self._other_way}"
            )
        return BrokenError(text)

    def _accept_all(self, answer: Answer) -> int | None:
        """Status 200: the file from its beginning. Returns its size, where known."""
        size = None if answer.is_chunked else self._length(answer.headers)
        self._check_size(size)
        if self.file.tell():
            self._begin_again("it has changed, or the server can't resume")
        require_space(self.path, size or self.expected_size or 0)
        etag = _strong(answer.headers.get("ETag"))
        note = {"url": self.url, "validator": etag, "size": size}
        write_json(self.note_path, note)
        return self.expected_size if size is None else size

    def _accept_rest(
        self, headers: Mapping[str, str], note: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Status 206: what is missing, or a part of it.

        Returns:
          Where that ends, and the whole file's size.
        """
        content_range = headers.get("Content-Range", "").strip()
        form = rf"bytes {_NUMBER}-{_NUMBER}/{_NUMBER}"
        if match := re.fullmatch(form, content_range, re.ASCII):
            first, last, total = map(int, match.groups())
            fits = self.file.tell() == first <= last < total and self._is_same(
                headers, note, total
            )
            if fits and (self.sha256 or _strong(headers.get("ETag"))):
                self._check_size(total)
                return last + 1, total
        self._begin_again("the server sent another part or another file")
        raise BrokenError("the rest does not fit what is there")

    def _accept_end(self, headers: Mapping[str, str], note: Mapping[str, Any]) -> None:
        """Status 416: nothing comes after what is there. Is that all of it?"""
        content_range = headers.get("Content-Range", "").strip()
        match = re.fullmatch(rf"bytes \*/{_NUMBER}", content_range, re.ASCII)
        total = int(match[1]) if match else note.get("size") or self.expected_size
        if total == self.file.tell() and self._is_same(headers, note, total):
            return
        self._begin_again("it does not fit the file on the server")
        raise BrokenError("there was nothing to resume")

    def _copy(self, answer: Answer, end: int | None, progress: Progress) -> None:
        """Appends the content, which is not to go beyond `end`."""
        most = _MOST_WITHOUT_LENGTH if end is None else end
        for chunk in answer.chunks():
            kept = chunk[: most - self.file.tell()]
            self.file.write(kept)
            self.file.flush()  # what is here survives a kill
            progress.advance(len(kept))
            if len(kept) == len(chunk):
                continue
            if answer.status == 206:
                self._begin_again("the server sent more than it said")
                raise BrokenError("the rest does not fit what is there")
            raise _WrongFileError(
                f"{self.url}: has more than {most} bytes, so it is not the expected "
                "file. It was not kept; is the address right?"
            )

    def _is_same(
        self, headers: Mapping[str, str], note: Mapping[str, Any], total: int
    ) -> bool:
        """Whether a partial answer is of the file that the .part file is of."""
        # Not every server heeds If-Range.
        now, known = _strong(headers.get("ETag")), _strong(note.get("validator"))
        return note.get("size") in (None, total) and (now or known) == (known or now)

    def _length(self, headers: Mapping[str, str]) -> int | None:
        """The content's length, if the server says it."""
        text = headers.get("Content-Length")
        if text is not None and not re.fullmatch(_NUMBER, text.strip(), re.ASCII):
            raise InputError(f"{self.url}: the server says a length that is none.")
        return None if text is None else int(text)

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


def _strong(etag: object) -> str | None:
    """An ETag that names this very version of a file."""
    return etag if isinstance(etag, str) and _ETAG.fullmatch(etag) else None


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
