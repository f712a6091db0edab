"""Downloading the NSynth dataset, a split at a time."""

import os
from typing import Literal, NamedTuple

from absl import logging

from magenta_nsynth.archives import unpack
from magenta_nsynth.data.records import read_layout
from magenta_nsynth.disk import disk_errors, remove, require_space
from magenta_nsynth.errors import InputError
from magenta_nsynth.fetching import fetch_into
from magenta_nsynth.files import expand

__all__ = ["FORMATS", "SPLITS", "Split", "download_split"]

_BASE = "http://download.magenta.tensorflow.org/datasets/nsynth/"
FORMATS = ("tfrecord", "jsonwav")


class Split(NamedTuple):
    """A part of the dataset, and its .tfrecord.tar archive."""

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


def download_split(
    split: str,
    folder: str | os.PathLike,
    form: Literal["tfrecord", "jsonwav"] = "tfrecord",
    url: str | None = None,
    keep_archive: bool = False,
) -> str:
    """Downloads a split, and unpacks its TFRecords, unless that has been done before.

    Args:
      split: a key of `SPLITS`.
      folder: where to; the TFRecords come into `nsynth-<split>` below it.
      form: "tfrecord", checked by size and SHA-256; or "jsonwav", of which no sum is
        known, and which is kept as the .tar.gz that commands.make_tfrecord reads.
      url: another address, or an archive on this disk.
      keep_archive: False removes the .tar of TFRecords after use, if it was downloaded
        now.

    Returns:
      The folder or file with the TFRecords, or the .tar.gz.

    Raises:
      InputError: as `fetch` and `unpack`; an unknown split or form; no room.
    """
    if split not in SPLITS or form not in FORMATS:
        raise InputError(
            f"No {form} of {split!r}; there are {', '.join(FORMATS)} of "
            f"{', '.join(SPLITS)}."
        )
    folder, ending = expand(folder), {"tfrecord": "tar", "jsonwav": "tar.gz"}[form]
    name = f"nsynth-{split}.{form}.{ending}"
    url = url or _BASE + name
    if form == "jsonwav":
        archive, new = fetch_into(folder, url, name)
        if new:
            logging.info("%s: no SHA-256 of it is known, so it isn't checked.", archive)
        return archive
    wanted, unpacked = SPLITS[split], os.path.join(folder, f"nsynth-{split}")
    files = _files(unpacked)
    if files and _num_notes(files) == wanted.num_notes:
        logging.info("%s is already there, with all notes.", unpacked)
        return _place(files)
    _require_space(os.path.join(folder, name), url, wanted.num_bytes)
    archive, new = fetch_into(folder, url, name, wanted.num_bytes, wanted.sha256)
    files = unpack(archive, unpacked)
    if (num_notes := _num_notes(files)) != wanted.num_notes:
        logging.warning("%s: %d notes, not %d.", unpacked, num_notes, wanted.num_notes)
    if new and not keep_archive:
        remove(archive)
    elif not new:
        logging.info("%s was there before and is left; it is unpacked now.", archive)
    return _place(files)


def _require_space(path: str, url: str, num_bytes: int) -> None:
    """Room for the archive, what is missing of it, and for what is in it."""
    needed = num_bytes
    if not any(map(os.path.exists, (path, expand(url)))):
        there = os.path.getsize(f"{path}.part") if os.path.exists(f"{path}.part") else 0
        needed += num_bytes - there
    with disk_errors(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        require_space(path, needed)


def _files(folder: str) -> list[str]:
    """The files in a folder and below, but for hidden ones."""
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )


def _num_notes(files: list[str]) -> int:
    """The records in those of the files that are whole TFRecord files."""
    num_notes = 0
    for path in files:
        try:
            num_notes += len(read_layout(path).record)
        except InputError as error:
            logging.debug("%s", error)
    return num_notes


def _place(files: list[str]) -> str:
    """What to pass on: the one file, or the folder of several."""
    return files[0] if len(files) == 1 else os.path.commonpath(files)
