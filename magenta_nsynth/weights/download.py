"""Downloading the two checkpoints that NSynth's authors published."""

import glob
import os
from collections.abc import Callable, Iterable

from absl import logging

from magenta_nsynth.archives import unpack
from magenta_nsynth.disk import remove
from magenta_nsynth.errors import CheckpointError, InputError, NSynthError
from magenta_nsynth.fetching import fetch_into
from magenta_nsynth.files import expand
from magenta_nsynth.weights.paths import missing_files

__all__ = ["RELEASES", "download_release"]

_BASE = "http://download.magenta.tensorflow.org/models/nsynth/"
RELEASES = {
    "wavenet": _BASE + "wavenet-ckpt.tar",
    "baseline": _BASE + "baseline-ckpt.tar",
}


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
    archive, ours = fetch_into(folder, url, f"{model}.tar")
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
        remove(archive)
    return prefix


def _prefixes(indices: Iterable[str]) -> list[str]:
    """The prefixes whose .data files are all there."""
    prefixes = sorted(index.removesuffix(".index") for index in indices)
    return [prefix for prefix in prefixes if not missing_files(prefix)]


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
