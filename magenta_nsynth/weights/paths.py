"""Resolves what users pass as a checkpoint to the prefix that TensorFlow expects."""

import contextlib
import glob
import os
import re

from absl import logging

from magenta_nsynth.bundled import CHECKPOINTS, bundled
from magenta_nsynth.download.archives import is_archive, read_members
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import expand, open_file
from magenta_nsynth.stores import remote, storage

__all__ = [
    "complete_checkpoints",
    "data_files",
    "latest_checkpoint",
    "listed_checkpoints",
    "missing_files",
    "resolve_checkpoint",
]

_MOST_CHARACTERS = 1 << 24  # read from a file named `checkpoint`: 100,000 paths
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


def resolve_checkpoint(path: str | os.PathLike) -> str:
    """Finds a TF1 checkpoint.

    Args:
      path: a prefix (model.ckpt-200000), one of its files (.index, .meta or
        .data-00000-of-00001), or a folder, which means its latest checkpoint. "small"
        is the bundled WaveNet, unless a path of that name exists.

    Returns:
      The prefix. Its .index and .data files exist.

    Raises:
      CheckpointError: nothing is there, a file is missing, or it is an archive that
        has to be unpacked.

    Examples:
      >>> from magenta_nsynth.weights.paths import resolve_checkpoint
      >>> resolve_checkpoint("checkpoints/small")
      'checkpoints/small/model.ckpt-272485'
    """
    path = os.fspath(path)
    # `expand` leaves existing paths alone, but a prefix is not itself a file.
    if storage.is_remote(path) or not storage.lexists(path + ".index"):
        path = expand(path)
        if path in CHECKPOINTS and not storage.lexists(path):
            path = bundled(path)
    if not path:
        raise CheckpointError(
            "No checkpoint given: pass a prefix such as model.ckpt-200000, or a folder."
        )
    if os.path.basename(path) == "checkpoint" and storage.isfile(path):
        path = os.path.dirname(path) or "."
    if storage.isdir(path):
        return latest_checkpoint(path)
    prefix = _SUFFIX.sub("", path)
    missing = missing_files(prefix)
    if not missing:
        return prefix
    if storage.isfile(path) and not _SUFFIX.search(path):
        raise CheckpointError(_advice_for_file(path))
    if len(missing) < 2 or storage.exists(path):
        raise CheckpointError(
            f"{prefix}: {' and '.join(missing)} is missing; a checkpoint needs its "
            ".index and .data files in one folder."
        )
    near = sorted(storage.glob(glob.escape(prefix) + "*.index"))
    hint = f" Did you mean {_SUFFIX.sub('', near[-1])}?" if near else ""
    raise CheckpointError(
        f"{path}: no such checkpoint. Pass the folder that holds it, or its prefix, "
        "such as model.ckpt-200000; 'nsynth_checkpoint download wavenet "
        f"--save_path=weights' downloads the released weights.{hint}"
    )


def data_files(prefix: str) -> list[str]:
    """The paths of a checkpoint's existing data files, sorted."""
    if storage.is_remote(prefix) and remote.is_web(prefix):  # which can't be listed
        path = prefix + ".data-00000-of-00001"
        return [path] if storage.isfile(path) else []
    return sorted(
        path
        for path in storage.glob(glob.escape(prefix) + ".data-*-of-*")
        if _SUFFIX.fullmatch(path[len(prefix) :])
    )


def missing_files(prefix: str) -> list[str]:
    """The endings of a checkpoint's missing files; [] if it is complete."""
    missing = [] if storage.isfile(prefix + ".index") else [".index"]
    counts = {int(shard[-5:]) for shard in data_files(prefix)}
    expected = counts.pop() if len(counts) == 1 else 1
    for i in range(expected):
        shard = f".data-{i:05d}-of-{expected:05d}"
        if not storage.isfile(prefix + shard):
            missing.append(shard)
    return missing


def latest_checkpoint(folder: str) -> str:
    """The prefix of the newest complete checkpoint in `folder`.

    This is the one that the file `checkpoint` names, by its base name: the file's
    absolute paths may be from another machine. Without that file, or if the named
    checkpoint is missing or incomplete, it is the one with the highest step.

    Raises:
      CheckpointError: the folder contains no complete checkpoint.
    """
    try:
        names = sorted(storage.listdir(folder))
    except OSError as error:
        raise CheckpointError(f"{folder}: {error.strerror}.") from None
    prefixes = _prefixes(folder, names)
    complete = complete_checkpoints(folder)
    if not complete:
        archives = [name for name in names if re.search(r"\.(tar|tar\.gz|tgz)$", name)]
        if archives:
            raise CheckpointError(_advice_for_file(storage.join(folder, archives[0])))
        half = f" ({prefixes[-1]} lacks its .data file)" if prefixes else ""
        advice = _advice_for_folder(folder)
        raise CheckpointError(
            f"{folder}: no checkpoint in this folder{half}; {advice}."
        )
    named = next(iter(_named_in_state_file(folder, "model_checkpoint_path")), None)
    if named in complete:
        return named
    latest = complete[-1]
    if named is not None:
        logging.warning(
            "%s/checkpoint names %s, which is missing or incomplete; using %s.",
            *(folder, os.path.basename(named), os.path.basename(latest)),
        )
    return latest


def complete_checkpoints(folder: str) -> list[str]:
    """The prefixes in `folder` whose files are all present, by ascending step."""
    prefixes = _prefixes(folder, sorted(storage.listdir(folder)))
    complete = [prefix for prefix in prefixes if not missing_files(prefix)]
    return sorted(complete, key=_step_and_time)


def listed_checkpoints(folder: str) -> list[str]:
    """The prefixes that the file `checkpoint` lists, oldest first."""
    return _named_in_state_file(folder, "all_model_checkpoint_paths")


def _prefixes(folder: str, names: list[str]) -> list[str]:
    return [
        storage.join(folder, name.removesuffix(".index"))
        for name in names
        if name.endswith(".index") and not name.startswith(".")
    ]


def _step_and_time(prefix: str) -> tuple[int, float]:
    step = re.search(r"-(\d+)$", prefix)
    return int(step[1]) if step else -1, storage.getmtime(prefix + ".index")


def _named_in_state_file(folder: str, field: str) -> list[str]:
    """The prefixes in a field of the file `checkpoint`."""
    try:
        with open_file(storage.join(folder, "checkpoint")) as state:
            text = state.read(_MOST_CHARACTERS).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    found = re.findall(rf'^{field}: "(.*)"', text, re.M)
    # A path from another machine may have that system's separators.
    return [storage.join(folder, re.split(r"[/\\]", path)[-1]) for path in found]


def _advice_for_folder(folder: str) -> str:
    """Where to look for a checkpoint, if not in this folder."""
    for path in storage.subfolders(folder):
        if os.path.basename(path).startswith("."):
            continue
        with contextlib.suppress(OSError):
            if complete_checkpoints(path):
                return f"there is one in a subfolder: --checkpoint_path={path}"
    if storage.is_remote(folder):
        return "pass another --checkpoint_path"
    return (
        f"'nsynth_checkpoint download wavenet --save_path={folder}' puts the released "
        "weights there, or resumes a download; or pass another --checkpoint_path"
    )


def _advice_for_file(path: str) -> str:
    """One line about a file that is not part of an unpacked checkpoint."""
    if not is_archive(path):
        return (
            f"{path}: not a TF1 checkpoint. Pass a prefix such as model.ckpt-200000 "
            "(the files' name without .index, .data or .meta), or its folder."
        )
    if storage.is_remote(path):
        return f"{path}: an archive; unpack it, and pass the checkpoint that was in it."
    folder = os.path.dirname(path) or "."
    try:
        names = (member.name for member, _ in read_members(path))
        inside = next((name for name in names if name.endswith(".index")), "")
    except InputError:
        return f"{path}: this archive is damaged; download it again."
    prefix = storage.join(folder, _SUFFIX.sub("", inside)) if inside else folder
    return (
        f"{path}: an archive; unpack it first: run "
        f"`tar -xf '{path}' -C '{folder}'` and pass --checkpoint_path='{prefix}'."
    )
