"""Files in object stores and on web servers, through fsspec.

Paths are URLs such as s3://bucket/notes/a.wav. Every request is repeated, with growing
pauses, while the store can't be reached. What a store refuses is a `StoreError`; what
is missing, a FileNotFoundError. fsspec is imported with the first request.
"""

import contextlib
import errno
import functools
import glob
import importlib
import os
import re
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from logging import CRITICAL, getLogger
from typing import Any, BinaryIO, NamedTuple, TypeVar

from absl import logging

from magenta_nsynth.errors import InputError, StoreError

__all__ = [
    "Info",
    "Look",
    "clean",
    "delete",
    "download",
    "file_info",
    "glob_files",
    "info",
    "is_remote",
    "is_web",
    "kept_locally",
    "list_folder",
    "listing",
    "put",
    "read",
    "read_ranges",
    "refuse_one_slash",
    "upload",
    "without_secrets",
]

Result = TypeVar("Result")

_PATIENCE = 180.0  # seconds that a store may be out of reach
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0  # seconds between tries
_LONGEST_SILENCE = 60.0  # seconds until a web server's answer goes on
_PIECE = 16 << 20  # bytes of one request, when a file is downloaded

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Of a web address, and of others, where keys may hold "/" but "host:8020/" is no login.
_WEB_LOGIN = re.compile(r"^(https?://)([^/?#]*)@", re.IGNORECASE)
_LOGIN = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+://)([^/@:?]*:(?!\d+(?:/|$)).*)@")
_ONE_SLASH = re.compile(r"^(s3a?|gs|az|abfss?|hdfs|https?):/(?!/)", re.IGNORECASE)
_WEB = ("http", "https")

# The setting to check, by scheme, and what has to be installed.
_AMAZON = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), AWS_REGION and, for "
    "another server than Amazon's, AWS_ENDPOINT_URL"
)
_AZURE = (
    "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or "
    "AZURE_STORAGE_CONNECTION_STRING"
)
_GOOGLE = (
    "GOOGLE_APPLICATION_CREDENTIALS and, for another server than Google's, "
    "STORAGE_EMULATOR_HOST"
)
_SETTINGS = {
    "s3": _AMAZON,
    "s3a": _AMAZON,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "adl": _AZURE,
    "hdfs": "HADOOP_HOME and CLASSPATH (from `hadoop classpath --glob`), and pyarrow",
    "http": "the address",
    "https": "the address",
}
# Stores that write a file only if it is new, when asked to.
_CREATING = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
# Environment variables whose values appear in no message.
_SECRETS = re.compile(r"^(AWS|AZURE|GOOGLE|FSSPEC)_.*(SECRET|TOKEN|KEY|STRING)")
# Exceptions of the libraries below fsspec that a later try may not meet, by name, as
# these libraries need not be installed.
_PASSING = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "FSTimeoutError",
    "HTTPClientError",
    "ResponseStreamingError",
    "ServiceRequestError",
    "ServiceResponseError",
    "TimeoutError",
    "TransportError",
}
# Those of wrong certificates, and of a server without encryption.
_SECURITY = re.compile("SSL|Certificate")
# What they say of a missing bucket; of a missing file they say different things.
_BUCKET_IS_MISSING = re.compile("specified (bucket|container)|such container")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_queries: dict[str, str] = {}  # of signed URLs, by the URL without it
_logins: dict[str, str] = {}  # user:password, by scheme and host


class Info(NamedTuple):
    """What a store knows of a file or folder.

    Attributes:
      is_folder: whether it is a folder: there are files below it.
      size: bytes of a file; None if a web server does not tell.
      stamp: changes when the file does.
      time: when the file was written, in seconds since 1970; 0 if unknown.
      has_ranges: whether parts of the file can be read.
    """

    is_folder: bool
    size: int | None
    stamp: str
    time: float
    has_ranges: bool


Look = Callable[[str], Info | None]


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is a URL, such as s3://bucket/notes, and not on a disk."""
    return isinstance(path, str) and "://" in path and bool(_REMOTE.match(path))


def refuse_one_slash(path: str) -> None:
    """Raises InputError for s3:/bucket, which would be a folder "s3:" on the disk."""
    if found := _ONE_SLASH.match(path):
        scheme = found[1]
        rest = path[found.end() :]
        raise InputError(f"{path}: has one slash; give {scheme}://{rest}.")


def is_web(path: str) -> bool:
    """Whether a path is on a web server: it can be read, but not listed or written."""
    return _scheme(path) in _WEB


def _scheme(path: str) -> str:
    return path.partition("://")[0].lower()


def clean(url: str) -> str:
    """A URL without credentials, which are kept in memory for its requests.

    So they get into no message and no file. "//" and "/" at the end are taken away.

    Args:
      url: perhaps https://user:password@host/a.wav or https://host/a.wav?signature=b.

    Raises:
      InputError: credentials in the URL of an object store, two web addresses that
        only differ after "?", or no bucket or host.
    """
    scheme = _scheme(url)
    login = (_WEB_LOGIN if scheme in _WEB else _LOGIN).match(url)
    if login:
        url = url[: login.end(1)] + url[login.end() :]
        if scheme not in _WEB:
            raise InputError(
                f"{url}: leave user and password out of the path, and set "
                f"{_SETTINGS.get(scheme, 'them in the environment')}."
            )
        _logins["/".join(url.split("/")[:3])] = login[2]
    query = ""
    if scheme in _WEB:
        url, _, query = url.partition("?")
    head, _, rest = url.partition("://")
    rest = re.sub(r"/{2,}", "/", rest).rstrip("/")
    if scheme != "hdfs":  # where no host is the default one
        rest = rest.removeprefix("/")
    is_pattern = scheme not in _WEB and glob.has_magic(rest.partition("/")[0])
    if not rest or is_pattern:
        what = "host" if scheme in _WEB else "bucket"
        raise InputError(f"{url}: names no {what}; give {scheme}://{what}/path.")
    url = f"{scheme if head.lower() == scheme else head}://{rest}"
    if query and _queries.setdefault(url, query) != query:
        raise InputError(
            f"{url}: given twice, with different queries; download the files."
        )
    return url


def _address(path: str) -> str:
    """A path with the credentials that it was given with."""
    query = _queries.get(path, "")
    host = "/".join(path.split("/")[:3])
    if host in _logins:
        scheme, _, rest = path.partition("://")
        path = f"{scheme}://{_logins[host]}@{rest}"
    return f"{path}?{query}" if query else path


def without_secrets(text: str) -> str:
    """A text without passwords, signatures and the environment's secrets."""
    text = re.sub(r"(://)[^/@\s]*:[^/@\s]*@", r"\1", text)
    text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)
    for name, value in os.environ.items():
        if len(value) > 5 and _SECRETS.match(name) and name != "AWS_ACCESS_KEY_ID":
            text = text.replace(value, "...")
    return text


@functools.cache
def _file_system(scheme: str) -> Any:
    advice = "pip install 'magenta-nsynth[cloud]'"
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise StoreError(
            f"{scheme}:// paths need fsspec, which can't be imported ({error}); "
            f"{advice}."
        ) from None
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        options |= _amazon_options()
    # gcsfs logs tracebacks of what it raises, and Google's packages warn of Pythons
    # that they will not support in some years.
    getLogger("gcsfs").setLevel(CRITICAL)
    try:
        if scheme in _WEB:
            options |= _web_options()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise StoreError(
            f"{scheme}:// paths need a package that can't be imported "
            f"({_first_line(error)}); {advice}."
        ) from None
    except ValueError as error:
        known = ", ".join(f"{name}://" for name in _SETTINGS)
        raise StoreError(
            f"{scheme}://: can't be used ({_first_line(error)}); give a local path, or "
            f"one of {known}, and check {_SETTINGS.get(scheme, 'its settings')}."
        ) from None


def _amazon_options() -> dict[str, Any]:
    """What TensorFlow's own variables say, which botocore doesn't read."""
    endpoint = os.environ.get("S3_ENDPOINT")
    options: dict[str, Any] = {}
    if endpoint and not os.environ.get("AWS_ENDPOINT_URL"):
        if "://" not in endpoint:
            is_plain = os.environ.get("S3_USE_HTTPS") == "0"
            endpoint = f"http{'' if is_plain else 's'}://{endpoint}"
        options["endpoint_url"] = endpoint
    if os.environ.get("S3_VERIFY_SSL") == "0":
        options["client_kwargs"] = {"verify": False}
    return options


def _web_options() -> dict[str, Any]:
    """No limit on the time of a download, but on that of a pause in it."""
    aiohttp = importlib.import_module("aiohttp")
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_LONGEST_SILENCE, sock_read=_LONGEST_SILENCE
    )
    return {"client_kwargs": {"trust_env": True, "timeout": timeout}}


def _trying(path: str, request: Callable[[Any, str], Result]) -> Result:
    """Makes a request, again and again while the store can't be reached.

    Raises:
      FileNotFoundError: the store has no such file.
      FileExistsError: a file that was to be new exists.
      StoreError: any other answer, or none for `_PATIENCE` seconds.
    """
    end, pause = time.monotonic() + _PATIENCE, _FIRST_PAUSE
    while True:
        try:
            return request(_file_system(_scheme(path)), _address(path))
        except (FileExistsError, StoreError):
            raise
        except Exception as found:  # each library below has its own
            error = _cause(found)
            if isinstance(error, FileNotFoundError) or _status(error) == 404:
                raise _missing(path, error) from None
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise  # of the local copy
            answer = without_secrets(_first_line(error))
            setting = _SETTINGS.get(_scheme(path), "the settings of this store")
            if not _may_pass(error):
                raise StoreError(
                    f"{path}: the store answered: {answer}; check {setting}."
                ) from None
            if time.monotonic() + pause > end:
                raise StoreError(
                    f"{path}: the store can't be reached for {_PATIENCE:.0f} s "
                    f"({answer}); check that it runs, and {setting}. Run again to go "
                    "on; what is finished is kept."
                ) from None
            if pause == _FIRST_PAUSE:
                logging.warning(
                    "%s: the store can't be reached (%s); trying for %.0f s.",
                    *(path, answer, _PATIENCE),
                )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _cause(error: Exception) -> BaseException:
    """What is behind an error: fsspec takes all that web servers refuse for missing."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    if _status(cause) in (404, 410):
        return error
    return cause if _status(cause) or _may_pass(cause) else error


def _missing(path: str, error: BaseException) -> FileNotFoundError:
    """An error that names the path as it was given, without credentials."""
    answer = without_secrets(_first_line(error))
    if not _BUCKET_IS_MISSING.search(answer):
        answer = os.strerror(errno.ENOENT)
    return FileNotFoundError(errno.ENOENT, answer, path)


def _may_pass(error: BaseException) -> bool:
    """Whether a request that failed like this may succeed later."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if any(map(_SECURITY.search, names)):
        return False
    # Before the status: aiohttp gives answers that were cut off one of its own.
    if names & _PASSING:
        return True
    status = _status(error)
    if status:
        return status >= 500 or status in (408, 429)
    return type(error) is OSError and error.__cause__ is None and not error.errno


def _status(error: BaseException) -> int:
    """The HTTP status of the store's answer; 0 if there is none in the error."""
    for source in (error, error.__cause__):
        response = getattr(source, "response", None)
        if isinstance(response, dict):  # botocore
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        for name in ("status", "status_code", "code"):  # aiohttp, Azure, gcsfs
            value = getattr(source, name, None)
            if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
                return int(value)
    return 403 if str(error).startswith("Forbidden: ") else 0  # of gcsfs


def _first_line(error: BaseException) -> str:
    """An error's first line, and the next one if that only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if len(lines) > 1 and re.search(r":$|^Forbidden: ", lines[0]):
        lines[0] = " ".join(lines[:2])
    return (lines or [type(error).__name__])[0].rstrip(".")[-300:]


def info(path: str) -> Info | None:
    """What the store knows of a path; None if nothing is there."""

    def request(files: Any, address: str) -> dict[str, Any]:
        return files.info(address)

    try:
        return _info(path, _trying(path, request))
    except FileNotFoundError:
        return None


def listing() -> Look:
    """As `info`, for many files: each of their folders is listed once, when needed.

    What changes in a folder later is not noticed. Where a folder may not be listed, and
    on web servers, it is asked for each file.
    """
    folders: dict[str, dict[str, Info] | None] = {}
    listing_one = threading.Lock()

    def look(path: str) -> Info | None:
        folder, _, name = path.rpartition("/")
        if is_web(path) or folder.endswith("/"):  # a bucket
            return info(path)
        with listing_one:
            if folder not in folders:
                folders[folder] = _listed(folder)
        found = folders[folder]
        return info(path) if found is None else found.get(name)

    return look


def _listed(folder: str) -> dict[str, Info] | None:
    """A folder's files; None if one may read them, but not list them."""
    try:
        return list_folder(folder)
    except FileNotFoundError:
        return {}
    except StoreError as error:
        answer = error.__context__
        if answer is None or _status(answer) not in (401, 403):
            raise
        return None


def file_info(path: str, look: Look = info) -> Info:
    """What the store knows of a file.

    Raises:
      FileNotFoundError: there is no such file.
    """
    found = look(path)
    if found is None or found.is_folder:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found


def _info(path: str, found: dict[str, Any]) -> Info:
    times = ("LastModified", "last_modified", "mtime", "updated")
    written = next((found[name] for name in times if found.get(name)), None)
    moment = getattr(written, "timestamp", None)
    marks = ("ETag", "etag", "md5Hash", "Last-Modified")  # the last is of web servers
    mark = next((found[name] for name in marks if found.get(name)), written)
    size = found.get("size")
    return Info(
        is_folder=found.get("type") == "directory",
        size=None if size is None else int(size),
        stamp=f"{size}-{mark}",
        time=moment() if moment else 0.0,
        has_ranges=not is_web(path) or bool(found.get("partial")),
    )


def list_folder(path: str) -> dict[str, Info]:
    """The files and folders in a folder, by name.

    Raises:
      StoreError: it is on a web server.
    """
    if is_web(path):
        raise StoreError(f"{path}: a web server has no folders; name a file.")

    def request(files: Any, address: str) -> list[dict[str, Any]]:
        return files.ls(address, detail=True)

    found = {}
    for entry in _trying(path, request):
        name = entry["name"].rstrip("/").rpartition("/")[2]
        if name and entry["name"].strip("/") != path.partition("://")[2]:
            found[name] = _info(path, entry)
    return dict(sorted(found.items()))


def glob_files(pattern: str) -> list[str]:
    """The paths that match a glob, sorted; "**" is any number of folders.

    Raises:
      StoreError: there is no such bucket, or the store can't be used.
    """
    if is_web(pattern):
        return [pattern] if info(pattern) else []
    scheme = pattern.partition("://")[0]
    try:
        found = _trying(pattern, lambda files, address: files.glob(address))
    except FileNotFoundError as error:
        raise StoreError(f"{pattern}: {error.strerror}; check the path.") from None
    return sorted(f"{scheme}://{path.lstrip('/')}" for path in found)


def read(path: str, start: int = 0, end: int | None = None) -> bytes:
    """The bytes of a file from `start` to `end`, fewer at its end.

    Raises:
      FileNotFoundError: there is no such file.
    """
    if end is not None and end <= start:
        return b""

    def request(files: Any, address: str) -> bytes:
        whole = start == 0 and end is None
        try:
            return (
                files.cat_file(address)
                if whole
                else files.cat_file(address, start=start, end=end)
            )
        except Exception as error:
            if _is_past_end(error):
                return b""
            raise

    return _trying(path, request)


def _is_past_end(error: BaseException) -> bool:
    """Whether a range was asked for that begins at the file's end or later."""
    return _status(error) == 416 or "InvalidRange" in str(error)


def read_ranges(path: str, ranges: list[tuple[int, int]]) -> list[bytes]:
    """The bytes of several ranges of a file, requested side by side."""
    if not ranges:
        return []

    def request(files: Any, address: str) -> list[bytes]:
        starts, ends = zip(*ranges, strict=True)
        paths = [address] * len(ranges)
        found = files.cat_ranges(paths, list(starts), list(ends), on_error="return")
        for k, piece in enumerate(found):
            if isinstance(piece, BaseException):
                if not _is_past_end(piece):
                    raise piece
                found[k] = b""
        return found

    return _trying(path, request)


@contextlib.contextmanager
def kept_locally(path: str) -> Iterator[None]:
    """Writes a local copy of a store's file in the block; says if there is no room.

    Raises:
      StoreError: the disk with the folder for temporary files is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StoreError(
            f"{path}: no room for a copy in {tempfile.gettempdir()} "
            f"({error.strerror}); free some space, or set TMPDIR to another folder."
        ) from None


def download(path: str, file: BinaryIO) -> None:
    """Copies a file of a store to an open local one, in pieces.

    Raises:
      FileNotFoundError: there is no such file.
      StoreError: the store can't be used, or the disk is full.
    """
    with kept_locally(path):
        _download(path, file)


def _download(path: str, file: BinaryIO) -> None:
    if not is_web(path):
        start = file.write(read(path, 0, _PIECE))
        if start == _PIECE:  # else that was all, in one request
            _download_from(path, start, file_info(path).size or 0, file)
        return
    found = file_info(path)
    if not found.has_ranges:
        _trying(path, lambda files, address: _copy(files, address, file))
    elif found.size is None or found.size <= _PIECE:
        file.write(read(path))
    else:
        _download_from(path, 0, found.size, file)


def _download_from(path: str, start: int, size: int, file: BinaryIO) -> None:
    for first in range(start, size, 4 * _PIECE):
        end = min(first + 4 * _PIECE, size)
        starts = range(first, end, _PIECE)
        file.writelines(read_ranges(path, [(s, min(s + _PIECE, end)) for s in starts]))


def _copy(files: Any, address: str, file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()  # what an earlier try has written
    files.get_file(address, file)


def upload(local: str, path: str, new: bool = False) -> None:
    """Copies a local file to a store, where it appears whole or not at all.

    Args:
      local: the file.
      path: where it belongs.
      new: nothing may be there yet.

    Raises:
      FileExistsError: with `new`, a file of another content is there.
      StoreError: the store refuses it.
    """
    _refuse_web(path)
    mode = {"mode": "create"} if new and _scheme(path) in _CREATING else {}
    try:
        if new and not mode and info(path) is not None:
            raise FileExistsError
        _trying(path, lambda files, address: files.put_file(local, address, **mode))
    # A try may have succeeded though its answer was lost. Then the next one finds the
    # file, or, if it was sent in parts, no longer the parts.
    except FileExistsError:
        if not _holds(path, local):
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST), path
            ) from None
    except FileNotFoundError as error:
        if not _holds(path, local):
            raise _no_bucket(path, error) from None


def _holds(path: str, local: str) -> bool:
    """Whether a store's file has the content of a local one."""
    found, size = info(path), os.path.getsize(local)
    if found is None or found.size != size:
        return False
    with open(local, "rb") as file:
        return all(
            read(path, start, start + _PIECE) == file.read(_PIECE)
            for start in range(0, size, _PIECE)
        )


def put(path: str, content: bytes) -> None:
    """Writes a small file; raises StoreError if the store refuses it."""
    _refuse_web(path)
    try:
        _trying(path, lambda files, address: files.pipe_file(address, content))
    except FileNotFoundError as error:
        raise _no_bucket(path, error) from None


def _no_bucket(path: str, error: FileNotFoundError) -> StoreError:
    return StoreError(
        f"{path}: can't be written; the store answered: {error.strerror}. Create the "
        "bucket, or check the path."
    )


def delete(path: str) -> None:
    """Removes a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        _trying(path, lambda files, address: files.rm_file(address))


def _refuse_web(path: str) -> None:
    if is_web(path):
        raise StoreError(
            f"{path}: a web server can only be read; give a local path or one of an "
            "object store."
        )
