"""From what people pass as a checkpoint to the prefix that TensorFlow wants."""

import contextlib
import glob
import os
import re

from absl import logging

from magenta_nsynth.download.archives import is_archive, read_members
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import expand

__all__ = [
    "complete_checkpoints",
    "data_files",
    "latest_checkpoint",
    "listed_checkpoints",
    "missing_files",
    "resolve_checkpoint",
]

_MOST_CHARACTERS = 1 << 24  # of a file named `checkpoint`: 100,000 paths
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


def resolve_checkpoint(path: str | os.PathLike) -> str:
    """The prefix of the TF1 checkpoint that `path` means.

    Args:
      path: a prefix (model.ckpt-200000), one of its files (.index, .meta or
        .data-00000-of-00001), or a folder, which stands for its latest checkpoint.

    Returns:
      The prefix, whose .index and .data files exist.

    Raises:
      CheckpointError: nothing there, a file missing, an archive not yet unpacked.
    """
    path = os.fspath(path)
    if not os.path.lexists(path + ".index"):  # a prefix is no file itself
        path = expand(path)
    if not path:
        raise CheckpointError(
            "No checkpoint given: pass a prefix such as model.ckpt-200000, or a folder."
        )
    if os.path.basename(path) == "checkpoint" and os.path.isfile(path):
        path = os.path.dirname(path) or "."
    if os.path.isdir(path):
        return latest_checkpoint(path)
    prefix = _SUFFIX.sub("", path)
    missing = missing_files(prefix)
    if not missing:
        return prefix
    if os.path.isfile(path) and not _SUFFIX.search(path):
        raise CheckpointError(_advice_for_file(path))
    if len(missing) < 2 or os.path.exists(path):
        raise CheckpointError(
            f"{prefix}: {' and '.join(missing)} is missing beside it; a checkpoint "
            "needs its .index and .data files in one folder."
        )
    near = sorted(glob.glob(glob.escape(prefix) + "*.index"))
    hint = f" Did you mean {_SUFFIX.sub('', near[-1])}?" if near else ""
    raise CheckpointError(
        f"{path}: no such checkpoint. Pass the folder that holds it, or its prefix, "
        f"such as model.ckpt-200000.{hint}"
    )


def data_files(prefix: str) -> list[str]:
    """The paths of a checkpoint's data files that are there, sorted."""
    return sorted(
        path
        for path in glob.glob(glob.escape(prefix) + ".data-*-of-*")
        if _SUFFIX.fullmatch(path[len(prefix) :])
    )


def missing_files(prefix: str) -> list[str]:
    """What a checkpoint lacks: a list of endings, empty when it is complete."""
    missing = [] if os.path.isfile(prefix + ".index") else [".index"]
    counts = {int(shard[-5:]) for shard in data_files(prefix)}
    expected = counts.pop() if len(counts) == 1 else 1
    for i in range(expected):
        shard = f".data-{i:05d}-of-{expected:05d}"
        if not os.path.isfile(prefix + shard):
            missing.append(shard)
    return missing


def latest_checkpoint(folder: str) -> str:
    """The prefix of the newest complete checkpoint in `folder`.

    The file named `checkpoint` there decides, read by base name: its absolute paths
    may be another machine's. Without it, or where what it names is not there, it is
    the highest step.

    Raises:
      CheckpointError: no complete checkpoint is in the folder.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise CheckpointError(f"{folder}: {error.strerror}.") from None
    prefixes = _prefixes(folder, names)
    complete = complete_checkpoints(folder)
    if not complete:
        archives = [name for name in names if re.search(r"\.(tar|tar\.gz|tgz)$", name)]
        if archives:
            raise CheckpointError(_advice_for_file(os.path.join(folder, archives[0])))
        half = f" ({prefixes[-1]} lacks its .data file)" if prefixes else ""
        advice = _advice_for_folder(folder)
        raise CheckpointError(
            f"{folder}: no checkpoint in this folder{half}; {advice}."
        )
    [named] = _named_in_state_file(folder, "model_checkpoint_path")[:1] or [None]
    if named in complete:
        return named
    latest = complete[-1]
    if named is not None:
        logging.warning(
            "%s/checkpoint names %s, which is not there in full; using %s.",
            *(folder, os.path.basename(named), os.path.basename(latest)),
        )
    return latest


def complete_checkpoints(folder: str) -> list[str]:
    """The prefixes in `folder` whose files are all there, by ascending step."""
    prefixes = _prefixes(folder, sorted(os.listdir(folder)))
    complete = [prefix for prefix in prefixes if not missing_files(prefix)]
    return sorted(complete, key=_step_and_time)


def listed_checkpoints(folder: str) -> list[str]:
    """The prefixes that the file `checkpoint` lists as its writer's, oldest first."""
    return _named_in_state_file(folder, "all_model_checkpoint_paths")


def _prefixes(folder: str, names: list[str]) -> list[str]:
    return [
        os.path.join(folder, name.removesuffix(".index"))
        for name in names
        if name.endswith(".index") and not name.startswith(".")
    ]


def _step_and_time(prefix: str) -> tuple[int, float]:
    step = re.search(r"-(\d+)$", prefix)
    return int(step[1]) if step else -1, os.path.getmtime(prefix + ".index")


def _named_in_state_file(folder: str, field: str) -> list[str]:
    """The prefixes that the file named `checkpoint` gives for `field`."""
    try:
        with open(os.path.join(folder, "checkpoint"), encoding="utf-8") as state:
            text = state.read(_MOST_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return []
    found = re.findall(rf'^{field}: "(.*)"', text, re.M)
    # Another machine's path may have its separators too.
    return [os.path.join(folder, re.split(r"[/\\]", path)[-1]) for path in found]


def _advice_for_folder(folder: str) -> str:
    """Where the checkpoint may be, if not in this folder."""
    below = [
        entry.path
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if entry.is_dir() and not entry.name.startswith(".")
    ]
    for path in below:
        with contextlib.suppress(OSError):
            if complete_checkpoints(path):
                return f"there is one in the folder below: --checkpoint_path={path}"
    return "get one by 'nsynth_checkpoint download', or give another --checkpoint_path"


def _advice_for_file(path: str) -> str:
    """One line for a file that is no part of an unpacked checkpoint."""
    if not is_archive(path):
        return (
            f"{path}: not a TF1 checkpoint. Pass a prefix such as model.ckpt-200000 "
            "(the files' name without .index, .data or .meta), or its folder."
        )
    folder = os.path.dirname(path) or "."
    try:
        names = (member.name for member, _ in read_members(path))
        inside = next((name for name in names if name.endswith(".index")), "")
    except InputError:
        return f"{path}: this archive is damaged; download it again."
    prefix = os.path.join(folder, _SUFFIX.sub("", inside)) if inside else folder
    return (
        f"{path}: an archive that has to be unpacked first: run "
        f"`tar -xf '{path}' -C '{folder}'` and pass --checkpoint_path='{prefix}'."
    )
