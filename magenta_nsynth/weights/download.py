"""Downloading the two checkpoints that NSynth's authors published."""

import glob
import os
from collections.abc import Callable, Iterable, Mapping

from absl import logging

from magenta_nsynth.archives import read_members, unpack
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
# No checksum of the archives is published, but these are known.
_SIZES = {
    "wavenet": {
        ".data-00000-of-00001": 986_763_532,
        ".index": 63_671,
        ".meta": 7_060_787,
    },
    "baseline": {},
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
      url: another address, or an archive that is already on this disk; its
        checkpoint may be of other sizes than the released one.
      check: given a checkpoint's prefix, raises an NSynthError unless it is this
        model's, complete and undamaged. Without one, any complete set of files will do.
      keep_archive: False removes the archive after use, if it was downloaded now.

    Returns:
      The checkpoint's prefix, e.g. ".../model.ckpt-200000".

    Raises:
      InputError: as `fetch` and `unpack`; an unknown model; several checkpoints; one
        of the same name that is another one.
      CheckpointError: the archive holds no checkpoint, or not the released one; or
        whatever `check` raises. Then nothing of it stays.
    """
    if model not in RELEASES:
        raise InputError(f"No released model {model!r}; there are {sorted(RELEASES)}.")
    folder, sizes = expand(folder), {} if url else _SIZES[model]
    found = _prefixes(glob.glob(f"{glob.escape(folder)}/**/*.index", recursive=True))
    ready = [prefix for prefix in found if _passes(prefix, sizes, check)]
    if ready:
        prefix = _only(ready, folder)
        logging.info("%s is already there and is used.", prefix)
        return prefix
    archive, ours = fetch_into(folder, url or RELEASES[model], f"{model}.tar")
    _refuse_others(archive, folder, found)
    paths = unpack(archive, folder)
    prefixes = _prefixes(path for path in paths if path.endswith(".index"))
    try:
        if not prefixes:
            raise CheckpointError(
                f"{archive}: no checkpoint in it (.index and .data files); "
                f"the {model} model's is at {RELEASES[model]}."
            )
        if len(prefixes) == 1:
            _check(prefixes[0], sizes, check)
    except NSynthError as error:
        remove(*paths)
        if ours:
            remove(archive)
            raise
        raise CheckpointError(
            f"{error} It was in {archive}; remove that, to download it again."
        ) from None
    prefix = _only(prefixes, archive)
    if ours and not keep_archive:
        remove(archive)
    return prefix


def _refuse_others(archive: str, folder: str, found: Iterable[str]) -> None:
    """Raises InputError if the archive's checkpoint would replace another whole one."""
    taken = {os.path.normpath(f"{prefix}.index") for prefix in found}
    for member, _ in read_members(archive):
        path = os.path.normpath(os.path.join(folder, member.name))
        if path in taken:
            raise InputError(
                f"{path}: is of another checkpoint of this name, or damaged; move it "
                "away, or give another --save_path."
            )


def _prefixes(indices: Iterable[str]) -> list[str]:
    """The prefixes whose .data files are all there."""
    prefixes = sorted(index.removesuffix(".index") for index in indices)
    return [prefix for prefix in prefixes if not missing_files(prefix)]


def _check(
    prefix: str, sizes: Mapping[str, int], check: Callable[[str], object] | None
) -> None:
    """Raises an NSynthError unless it is the wanted checkpoint, and undamaged."""
    for ending, size in sizes.items():
        path = prefix + ending
        if (found := os.path.getsize(path) if os.path.exists(path) else 0) != size:
            raise CheckpointError(
                f"{path}: {found:,} bytes, and the released one has {size:,}; "
                "download it again."
            )
    if check is not None:
        check(prefix)


def _passes(
    prefix: str, sizes: Mapping[str, int], check: Callable[[str], object] | None
) -> bool:
    # Nobody needs the graph in .meta, so it may have been removed.
    sizes = {end: size for end, size in sizes.items() if end != ".meta"}
    try:
        _check(prefix, sizes, check)
    except NSynthError as error:
        logging.info("%s is there, but not what is wanted: %s", prefix, error)
        return False
    return True


def _only(prefixes: list[str], place: str) -> str:
    if len(prefixes) > 1:
        raise InputError(f"{place}: several checkpoints; pass one of {prefixes}.")
    return prefixes[0]
