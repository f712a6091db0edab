"""Downloading the two checkpoints and the dataset that NSynth's authors published."""

import glob
import os
import urllib.parse
from collections.abc import Iterable
from typing import Literal, NamedTuple

from absl import logging

from magenta_nsynth.data.records import read_layout
from magenta_nsynth.disk import disk_errors, remove, require_space
from magenta_nsynth.download.archives import read_members, unpack
from magenta_nsynth.download.fetching import fetch, verify
from magenta_nsynth.errors import CheckpointError, InputError, NSynthError
from magenta_nsynth.files import expand
from magenta_nsynth.stores import storage
from magenta_nsynth.weights.paths import missing_files

__all__ = [
    "FORMATS",
    "RELEASES",
    "SPLITS",
    "Split",
    "download_release",
    "download_split",
]

_BASE = "http://download.magenta.tensorflow.org/"
RELEASES = {
    "wavenet": f"{_BASE}models/nsynth/wavenet-ckpt.tar",
    "baseline": f"{_BASE}models/nsynth/baseline-ckpt.tar",
}
# No checksums of these archives are published, but the sizes of the files are known.
_SIZES = {
    "wavenet": {
        ".data-00000-of-00001": 986_763_532,
        ".index": 63_671,
        ".meta": 7_060_787,
    },
    "baseline": {},
}
FORMATS = ("tfrecord", "jsonwav")


class Split(NamedTuple):
    """A split of the dataset, and its .tfrecord.tar archive."""

    num_notes: int
    num_bytes: int
    sha256: str


SPLITS = {
    "train": Split(
        289_205,
        74_159_943_680,
        "09149ea1420f01a65de10a310b9e94ecc74f1640b85f68fb9122bbca0b5d207a",
    ),
    "valid": Split(
        12_678,
        3_250_995_200,
        "eb535520a9643db461c0cd177307d7fe691c32fe6a4da60fd23ac75f6e18ae07",
    ),
    "test": Split(
        4_096,
        1_050_327_040,
        "65df0d0ada540ca1983849a051cbec4d0d9c51900b6acb8a4c06492560680a71",
    ),
}


def download_release(
    model: str,
    folder: str | os.PathLike,
    url: str | None = None,
    keep_archive: bool = False,
) -> str:
    """Downloads and unpacks a released checkpoint, unless it is in `folder` already.

    Every tensor is read and compared with its checksum.

    Args:
      model: a key of `RELEASES`.
      folder: where to put the checkpoint. Both models may share it.
      url: another address, or an archive on this disk. The sizes of its checkpoint
        are not checked.
      keep_archive: whether to keep an archive that was downloaded.

    Returns:
      The checkpoint's prefix, e.g. ".../model.ckpt-200000".

    Raises:
      InputError: as `fetch` and `unpack`; the model is unknown; there are several
        checkpoints; or a different one with the same name is in the way.
      CheckpointError: the archive contains no checkpoint, a damaged one, or not the
        released one. Nothing of it is kept.
    """
    if model not in RELEASES:
        raise InputError(f"No released model {model!r}; there are {sorted(RELEASES)}.")
    folder, released = _local(folder), not url
    found = _prefixes(glob.glob(f"{glob.escape(folder)}/**/*.index", recursive=True))
    ready = [prefix for prefix in found if _is_ready(prefix, model, released)]
    if ready:
        logging.info("%s is already there and is used.", ready[0])
        return _only(ready, folder)
    archive, is_new = _fetch_into(folder, url or RELEASES[model], f"{model}.tar")
    _refuse_others(archive, folder, found)
    paths = unpack(archive, folder)
    prefixes = _prefixes(path for path in paths if path.endswith(".index"))
    try:
        if not prefixes:
            raise CheckpointError(
                f"{archive}: contains no checkpoint (.index and .data files); "
                f"the {model} model's is at {RELEASES[model]}."
            )
        if len(prefixes) == 1:
            _check(prefixes[0], model, released)
    except NSynthError as error:
        remove(*paths)
        if is_new:
            remove(archive)
            raise
        raise CheckpointError(
            f"{error} It was in {archive}; remove that to download it again."
        ) from None
    prefix = _only(prefixes, archive)
    if is_new and not keep_archive:
        remove(archive)
    return prefix


def download_split(
    split: str,
    folder: str | os.PathLike,
    form: Literal["tfrecord", "jsonwav"] = "tfrecord",
    url: str | None = None,
    keep_archive: bool = False,
) -> str:
    """Downloads a split and unpacks its TFRecords, unless that is already done.

    Args:
      split: a key of `SPLITS`.
      folder: the output folder; the TFRecords go into its subfolder `nsynth-<split>`.
      form: "tfrecord", checked by size and SHA-256; or "jsonwav", a .tar.gz for
        `make_tfrecord`, which is not unpacked, and whose SHA-256 is unknown.
      url: another address, or an archive on this disk.
      keep_archive: whether to keep a .tar of TFRecords that was downloaded.

    Returns:
      The folder or file with the TFRecords, or the .tar.gz.

    Raises:
      InputError: as `fetch` and `unpack`; the split or form is unknown; or there is not
        enough space.
    """
    if split not in SPLITS or form not in FORMATS:
        raise InputError(
            f"No {form} of {split!r}; there are {', '.join(FORMATS)} of "
            f"{', '.join(SPLITS)}."
        )
    folder, ending = _local(folder), {"tfrecord": "tar", "jsonwav": "tar.gz"}[form]
    name = f"nsynth-{split}.{form}.{ending}"
    url = url or f"{_BASE}datasets/nsynth/{name}"
    if form == "jsonwav":
        archive, is_new = _fetch_into(folder, url, name)
        if is_new:
            logging.info("%s: not checked, because its SHA-256 is unknown.", archive)
        return archive
    expected, unpacked = SPLITS[split], os.path.join(folder, f"nsynth-{split}")
    files = _files(unpacked)
    if files and _num_notes(files) == expected.num_notes:
        logging.info("%s is already there, with all notes.", unpacked)
        return _place(files)
    _require_space(os.path.join(folder, name), url, expected.num_bytes)
    archive, is_new = _fetch_into(folder, url, name, *expected[1:])
    files = unpack(archive, unpacked)
    if is_new and not keep_archive:
        remove(archive)
    return _place(files)


def _local(folder: str | os.PathLike) -> str:
    """The folder to download to, which must be on a disk, where archives are unpacked.

    Raises:
      InputError: it is in a store.
    """
    path = expand(folder)
    if storage.is_remote(path):
        raise InputError(
            f"{path}: downloads go to a disk; give a local --save_path, and copy what "
            "is in it to the store."
        )
    return path


def _fetch_into(
    folder: str,
    url: str,
    name: str,
    expected_size: int | None = None,
    sha256: str | None = None,
) -> tuple[str, bool]:
    """Downloads an archive into `folder`, unless it is on this disk already.

    Args:
      folder: where the archive belongs.
      url: an address, or the path of an archive, which is checked and not moved.
      name: the archive's name if the address has none.
      expected_size: as for `fetch`.
      sha256: as for `fetch`.

    Returns:
      The archive's path, and whether this call downloaded it.
    """
    path = expand(url)
    if not os.path.exists(path):
        last = os.path.basename(urllib.parse.urlsplit(url).path)
        path = os.path.join(folder, last or name)
        is_new = not os.path.exists(path)
        return fetch(url, path, expected_size, sha256), is_new
    with disk_errors(path):
        verify(path, expected_size, sha256)
    return path, False


def _prefixes(indices: Iterable[str]) -> list[str]:
    """Returns the prefixes that have all their .data files."""
    prefixes = sorted(index.removesuffix(".index") for index in indices)
    return [prefix for prefix in prefixes if not missing_files(prefix)]


def _is_ready(prefix: str, model: str, released: bool) -> bool:
    # The graph in .meta is not needed, so it may have been removed.
    try:
        _check(prefix, model, released, needs_graph=False)
    except NSynthError as error:
        logging.info("%s is not the checkpoint to download: %s", prefix, error)
        return False
    return True


def _check(prefix: str, model: str, released: bool, needs_graph: bool = True) -> None:
    """Raises a CheckpointError unless it is this model's, complete and undamaged."""
    # Imported here, because downloading the dataset does not need TensorFlow.
    from magenta_nsynth.weights.engine import verify_in_full

    for ending, size in _SIZES[model].items() if released else ():
        path = prefix + ending
        found = os.path.getsize(path) if os.path.exists(path) else 0
        if found != size and (needs_graph or ending != ".meta"):
            raise CheckpointError(
                f"{path}: {found:,} bytes instead of the released file's {size:,}; "
                "download it again."
            )
    verify_in_full(prefix, model, released)


def _refuse_others(archive: str, folder: str, found: Iterable[str]) -> None:
    """Raises an InputError if unpacking would replace a complete checkpoint."""
    taken = {os.path.normpath(f"{prefix}.index") for prefix in found}
    for member, _ in read_members(archive):
        path = os.path.normpath(os.path.join(folder, member.name))
        if path in taken:
            raise InputError(
                f"{path}: belongs to a damaged checkpoint, or to another one with this "
                "name; move it away, or give another --save_path."
            )


def _only(prefixes: list[str], place: str) -> str:
    if len(prefixes) > 1:
        raise InputError(f"{place}: several checkpoints; pass one of {prefixes}.")
    return prefixes[0]


def _require_space(path: str, url: str, num_bytes: int) -> None:
    """Checks that there is space for the rest of the archive, and for its contents."""
    needed = num_bytes
    if not any(map(os.path.exists, (path, expand(url)))):
        part = f"{path}.part"
        needed += num_bytes - (os.path.getsize(part) if os.path.exists(part) else 0)
    with disk_errors(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        require_space(path, needed)


def _files(folder: str) -> list[str]:
    """Lists the files in a folder and its subfolders, without hidden ones."""
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )


def _num_notes(files: list[str]) -> int:
    """Counts the records in all files that are complete TFRecords."""
    num_notes = 0
    for path in files:
        try:
            num_notes += len(read_layout(path).record)
        except InputError as error:
            logging.debug("%s", error)
    return num_notes


def _place(files: list[str]) -> str:
    """Returns the only file, or the folder of several."""
    return files[0] if len(files) == 1 else os.path.commonpath(files)
