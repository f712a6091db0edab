"""Downloading the released weights: files fetched and unpacked so that none is partial.

Three parts, each used on its own as well: `fetch` (one file over HTTP, resumed after
every kind of interruption), `unpack` (a tar archive, which is not trusted) and
`download_release` (both, for the two checkpoints that NSynth's authors published).
"""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import http.client
import io
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator

from absl import logging

from magenta_nsynth.errors import CheckpointError, InputError, NSynthError
from magenta_nsynth.files import atomic_path, expand
from magenta_nsynth.progress import Progress, format_bytes, format_duration

__all__ = ["RELEASES", "download_release", "fetch", "unpack"]

_BASE = "http://download.magenta.tensorflow.org/models/nsynth/"
RELEASES = {
    "wavenet": _BASE + "wavenet-ckpt.tar",
    "baseline": _BASE + "baseline-ckpt.tar",
}

_CHUNK = 1 << 16  # bytes
_LONGEST_PAUSE = 60.0  # seconds
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}  # statuses worth another try
_USER_AGENT = "magenta-nsynth"


# ---------------------------------------------------------------------- fetching


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
    if os.path.exists(path):
        with _disk_errors(path):
            _verify(path, path, expected_size, sha256)
        logging.info("%s is already there and is kept.", path)
        return path
    part = f"{path}.part"
    with _disk_errors(path):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        # Opened once, for appending, and locked: two programs that fetch the same
        # file would otherwise mix their bytes.
        with open(part, "ab") as file:
            _lock(file, part)
            download = _Download(url, path, file, expected_size, sha256)
            try:
                download.run(attempts, pause_seconds, timeout_seconds)
                file.flush()
                _verify(part, url, expected_size, sha256)
            except BaseException as error:
                if isinstance(error, _WrongFileError):
                    file.truncate(0)
                if os.path.getsize(part) == 0:  # nothing worth resuming
                    _remove(part, download.note_path)
                raise
        os.replace(part, path)
        _remove(download.note_path)
    return path


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
                if size > furthest:
                    failures, furthest = 0, size
                failures += 1
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
        note = self._read_note()
        size = self.file.tell()
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        if size and not note.get("validator") and not self.sha256:
            # Nothing would show that these bytes are of the file as it is now. They
            # stay until it really comes: the address may be a slip.
            size = 0
        if size:
            headers["Range"] = f"bytes={size}-"
            if note.get("validator"):
                headers["If-Range"] = note["validator"]
        response = self._open(headers, timeout)
        with response:
            if response.status == 416:
                self._accept_end(response, note, size)
                return
            total = self._accept(response, note)
            progress.total = total
            progress.update(self.file.tell())
            self._copy(response, progress)
        size = self.file.tell()
        if total is not None and size < total:
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
            reason = error
            if isinstance(error, urllib.error.URLError):  # wraps the real one
                reason = error.reason
            text = _network_reason(reason)
            # Offline, or a mistyped host: say so at once. But a connection that has
            # worked may come back.
            hopeless = isinstance(reason, socket.gaierror | ConnectionRefusedError)
            never = isinstance(reason, ssl.SSLCertVerificationError)
            if never or (hopeless and not self.answered):
                raise InputError(
                    f"{self.url}: {text}; check the network (and http_proxy, "
                    f"https_proxy). {self._other_way}"
                ) from None
            raise _BrokenError(text) from None
        self.answered = True
        return response

    def _accept(
        self, response: http.client.HTTPResponse, note: dict[str, str]
    ) -> int | None:
        """Makes the .part file ready for the answer; returns the file's whole size."""
        headers, size = response.headers, self.file.tell()
        if response.status == 206:
            content_range = headers.get("Content-Range", "")
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip())
            if (
                match is None
                or int(match[1]) != size
                or not self._is_same(response, note, match[2])
            ):
                self._begin_again("the server sent another part or another file")
                raise _BrokenError("the rest does not fit what is there")
            total = None if match[2] == "*" else int(match[2])
            self._check_size(total)
            return self.expected_size if total is None else total
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        self._check_size(total)
        if size:
            self._begin_again("it has changed, or the server can't resume")
        _require_space(self.path, total or 0)
        note = {"url": self.url, "validator": _validator(headers), "size": total}
        with open(self.note_path, "w", encoding="utf-8") as file:
            json.dump(note, file)
        return self.expected_size if total is None else total

    def _accept_end(
        self, response: urllib.error.HTTPError, note: dict[str, str], size: int
    ) -> None:
        """Status 416: nothing comes after what is there. Is that all of it?"""
        content_range = response.headers.get("Content-Range", "").strip()
        match = re.fullmatch(r"bytes \*/(\d+)", content_range)
        total = match[1] if match else str(note.get("size") or self.expected_size)
        if total == str(size) and self._is_same(response, note, total):
            return
        self._begin_again("it does not fit the file on the server")
        raise _BrokenError("there was nothing to resume")

    def _copy(self, response: http.client.HTTPResponse, progress: Progress) -> None:
        while True:
            try:
                # Not read(): it waits for the whole chunk, and loses what had come
                # when the connection fails meanwhile.
                chunk = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenError(_network_reason(error)) from None
            if not chunk:
                return
            self.file.write(chunk)
            self.file.flush()  # what is here survives a kill
            progress.advance(len(chunk))

    def _is_same(
        self, response: http.client.HTTPResponse, note: dict[str, str], total: str
    ) -> bool:
        """Whether a partial answer is of the file that the .part file is of."""
        # Not every server heeds If-Range, and a right one need not repeat the rest.
        if note.get("size") and total not in ("*", str(note["size"])):
            return False
        now, known = _validator(response.headers), note.get("validator")
        comparable = now and known and now.startswith('"') == known.startswith('"')
        return now == known if comparable else True

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

    def _read_note(self) -> dict[str, str]:
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


def _lock(file: io.BufferedWriter, part: str) -> None:
    try:
        import fcntl  # not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{part}: another program is downloading this file; wait for it."
        ) from None
    except OSError as error:  # some network drives have no locks
        logging.info("%s: can't be locked (%s).", part, error.strerror)


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def _disk_errors(path: str) -> Iterator[None]:
    """Turns what the operating system refuses into one line with advice."""
    try:
        yield
    except OSError as error:
        name = error.filename2 or error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "make room and run again; what is there is kept"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            advice = "choose a folder that you may write to"
        else:
            advice = "choose another folder"
        raise InputError(f"{name}: {error.strerror or error}; {advice}.") from error


def _require_space(path: str, num_bytes: int) -> None:
    """Raises InputError unless `num_bytes` more fit beside `path`."""
    free = shutil.disk_usage(os.path.dirname(path) or ".").free
    if num_bytes > free:
        raise InputError(
            f"{path}: {format_bytes(num_bytes)} are needed and {format_bytes(free)} "
            "are free; make room or choose another folder."
        )


# --------------------------------------------------------------------- unpacking


def unpack(archive: str | os.PathLike, folder: str | os.PathLike) -> list[str]:
    """Unpacks a .tar or .tar.gz archive into `folder`.

    The archive is read through and checked before anything is written. Each file
    appears only when it is whole, with the rights that any new file gets; one of the
    same name is replaced. Left out are folders without files, and what macOS adds
    ("._name").

    Args:
      archive: the file; what it is shows in its content, not its name.
      folder: where to unpack; created where it is missing.

    Returns:
      The files' paths, in the archive's order.

    Raises:
      InputError: no archive or a damaged one, a member that is neither file nor
        folder or would land outside `folder`, or the disk refuses.
    """
    archive, folder = expand(archive), expand(folder)
    advice = "remove and download it again, or unpack it yourself and pass the folder"
    try:
        with _open_tar(archive) as tar:
            members = _checked_members(tar, archive, folder)
            with _disk_errors(folder):
                os.makedirs(folder, exist_ok=True)
                total = sum(member.size for member in members)
                _require_space(os.path.join(folder, "."), total)
            label = f"unpacking {os.path.basename(archive)}"
            with Progress(total, "B", label) as progress:
                paths = [_write(tar, member, folder, progress) for member in members]
    except (EOFError, tarfile.TarError, zlib.error):
        raise InputError(f"{archive}: damaged or cut off; {advice}.") from None
    except OSError as error:  # of reading; those of writing are InputErrors by now
        reason = error.strerror or "damaged"
        raise InputError(f"{archive}: {reason}; {advice}.") from None
    return list(dict.fromkeys(paths))


def _open_tar(archive: str) -> tarfile.TarFile:
    with open(archive, "rb") as file:
        beginning = file.read(256)
    zipped = beginning.startswith(b"\x1f\x8b")
    try:
        return tarfile.open(archive, "r:gz" if zipped else "r:")
    except tarfile.ReadError:
        page = beginning.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
        kind = "a web page" if page else "something else" if beginning else "empty"
        raise InputError(
            f"{archive}: not a .tar or .tar.gz archive but {kind}; remove and download "
            "it again."
        ) from None


def _checked_members(
    tar: tarfile.TarFile, archive: str, folder: str
) -> list[tarfile.TarInfo]:
    """The members to write, after reading all of the archive's headers."""
    members = []
    for member in tar:
        name = member.name
        if os.path.basename(name.rstrip("/")).startswith("._"):
            continue
        problem = _problem(member, folder)
        if problem:
            raise InputError(
                f"{archive}: member {name!r} {problem}; nothing was unpacked. "
                "Is the archive from where you think it is?"
            )
        if member.isreg():
            members.append(member)
    # tarfile takes a broken-off archive for a finished one where the break falls
    # between two members; a whole one ends with blocks of zeros.
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark")
    while tar.fileobj.read(_CHUNK):  # to a compressed file's checksum
        pass
    return members


def _problem(member: tarfile.TarInfo, folder: str) -> str | None:
    if not (member.isreg() or member.isdir()):
        return "is a link or a device, not a file or folder"
    # Windows' reading of a path knows both kinds of slashes, and drives.
    path = pathlib.PureWindowsPath(member.name)
    if path.anchor or ".." in path.parts or "\0" in member.name:
        return "would land outside the folder"
    if member.isreg() and not path.parts:
        return "has no name"
    # A link that was in the folder before leads outside as well.
    parent = os.path.realpath(os.path.join(folder, os.path.dirname(member.name)))
    root = os.path.realpath(folder)
    if os.path.commonpath([root, parent]) != root:
        return "would land outside the folder, through a link in it"
    return None


def _write(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str, progress: Progress
) -> str:
    path = os.path.join(folder, *pathlib.PurePosixPath(member.name).parts)
    with (
        _disk_errors(path),
        atomic_path(path) as temporary,
        tar.extractfile(member) as source,
        open(temporary, "wb") as target,
    ):
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            progress.advance(len(chunk))
    return path


# ---------------------------------------------------------------------- releases


def download_release(
    model: str,
    folder: str | os.PathLike,
    url: str | None = None,
    check: Callable[[str], object] | None = None,
    keep_archive: bool = False,
) -> str:
    """Downloads and unpacks a released checkpoint, unless it is in `folder` already.

    Args:
      model: a key of `RELEASES`.
      folder: where the checkpoint belongs. Both models may share it.
      url: another address, or an archive that is already on this disk.
      check: given a checkpoint's prefix, raises an NSynthError unless it is this
        model's and complete. Without one, any complete set of files will do.
      keep_archive: False removes the archive after use, if it was downloaded now.

    Returns:
      The checkpoint's prefix, e.g. ".../model.ckpt-200000".

    Raises:
      InputError: as `fetch` and `unpack`; an unknown model; several checkpoints.
      CheckpointError: the archive holds no checkpoint; or whatever `check` raises.
    """
    if model not in RELEASES:
        raise InputError(f"No released model {model!r}; there are {sorted(RELEASES)}.")
    folder, url = expand(folder), url or RELEASES[model]
    found = _prefixes(glob.glob(f"{glob.escape(folder)}/**/*.index", recursive=True))
    ready = [prefix for prefix in found if _passes(prefix, check)]
    if ready:
        prefix = _only(ready, folder)
        logging.info("%s is already there and is used.", prefix)
        return prefix
    local = expand(url)
    if os.path.exists(local):
        archive, ours = local, False
    else:
        name = os.path.basename(urllib.parse.urlsplit(url).path) or f"{model}.tar"
        archive = os.path.join(folder, name)
        ours = not os.path.exists(archive)
        fetch(url, archive)
    paths = unpack(archive, folder)
    prefixes = _prefixes(path for path in paths if path.endswith(".index"))
    if not prefixes:
        raise CheckpointError(
            f"{archive}: no checkpoint in it (.index and .data files); "
            f"the {model} model's is at {RELEASES[model]}."
        )
    prefix = _only(prefixes, archive)
    if check is not None:
        check(prefix)
    if ours and not keep_archive:
        _remove(archive)
    return prefix


def _prefixes(indices: Iterator[str] | list[str]) -> list[str]:
    """The prefixes whose .data files are all there."""
    prefixes = []
    for index in indices:
        prefix = index.removesuffix(".index")
        shards = glob.glob(f"{glob.escape(prefix)}.data-?????-of-?????")
        if shards and len(shards) == int(shards[0][-5:]):
            prefixes.append(prefix)
    return sorted(prefixes)


def _passes(prefix: str, check: Callable[[str], object] | None) -> bool:
    try:
        if check is not None:
            check(prefix)
    except NSynthError as error:
        logging.info("%s is there, but not what is wanted: %s", prefix, error)
        return False
    return True


def _only(prefixes: list[str], place: str) -> str:
    if len(prefixes) > 1:
        raise InputError(f"{place}: several checkpoints; pass one of {prefixes}.")
    return prefixes[0]
