"""Reading and writing TF1 checkpoint files: tensors by name, errors in one line."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import CONFIG_JSON, CONFIGS
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import atomic_path, load_json, read_json, write_json
from magenta_nsynth.weights import paths, tables

__all__ = ["WRITING", "Checkpoint", "mark_latest", "write_checkpoint"]

WRITING = ".writing-checkpoint-"  # how folders of half-written checkpoints begin

# What TensorFlow's reader raises on damaged files, found by damaging them.
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError, MemoryError)


class Checkpoint:
    """A TF1 checkpoint on disk: its index is read at once, tensors when asked for.

    Attributes:
      prefix: the path without .index.
      shapes: shape of each tensor by name.
      dtypes: NumPy dtype of each tensor by name.
      model: "wavenet", "baseline" or None, where the names are neither's.

    Raises:
      CheckpointError: missing, unreadable, truncated, or not a checkpoint.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.prefix = paths.resolve_checkpoint(path)
        shards = paths.data_files(self.prefix)
        for file in (self.prefix + ".index", *shards):
            _check_readable(file)
        try:
            self._reader = tf.train.load_checkpoint(self.prefix)
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
        except (*_READ_ERRORS, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{self.prefix}.index: not a TF1 checkpoint's index, or damaged; copy "
                f"or download it again ({_first_line(error)})."
            ) from None
        if not shapes:
            raise CheckpointError(f"{self.prefix}.index: holds no tensors.")
        self.shapes = {name: tuple(shape) for name, shape in sorted(shapes.items())}
        self.dtypes = {name: dtypes[name].as_numpy_dtype for name in self.shapes}
        expected = sum(
            int(np.prod(shape)) * np.dtype(self.dtypes[name]).itemsize
            for name, shape in self.shapes.items()
            if self.dtypes[name] is not object
        )
        size = sum(os.path.getsize(shard) for shard in shards)
        if size < expected:
            raise CheckpointError(
                f"{shards[-1]}: truncated, {size:,} of {expected:,} bytes are there; "
                "copy or download it again."
            )
        self.model = tables.model_of(self.shapes)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, value) in the order in which the file is read fastest.

        Raises:
          CheckpointError: a tensor's bytes don't match their checksum.
        """
        # Sorted by name is sorted by place in the file: a twelfth of the bytes read.
        for name in sorted(names):
            if self.dtypes[name] is object:  # of any announced length
                raise CheckpointError(
                    f"{self.prefix}: the tensor {name} holds text, not numbers; copy "
                    "or download the checkpoint again."
                )
            try:
                yield name, self._reader.get_tensor(name)
            except _READ_ERRORS as error:
                raise CheckpointError(
                    f"{self.prefix}: the tensor {name} is damaged on disk; copy or "
                    f"download the checkpoint again ({_first_line(error)})."
                ) from None

    @property
    def step(self) -> int | None:
        """The number of updates that made these weights, where the file says it."""
        if tables.GLOBAL_STEP not in self.shapes:
            return None
        return int(next(self.read([tables.GLOBAL_STEP]))[1])

    def config_file(self) -> dict[str, Any]:
        """What config.json beside the checkpoint says; {} where there is none.

        Raises:
          CheckpointError: the file is there and isn't ours.
        """
        path = os.path.join(os.path.dirname(self.prefix) or ".", "config.json")
        try:
            content = load_json(path, CONFIG_JSON)
        except FileNotFoundError:
            return {}
        except InputError as error:
            raise CheckpointError(
                f'{error} Expected is {{"model": ..., "config": {{...}}}}; mend or '
                "remove it."
            ) from None
        model, stated = content.get("model") or "wavenet", content["config"]
        if model != self.model:
            return {}
        known = CONFIGS[model]().to_dict().keys() & stated
        try:
            CONFIGS[model].from_dict({name: stated[name] for name in known})
        except InputError as error:
            raise CheckpointError(f"{path}: {error}") from None
        return stated


def write_checkpoint(
    prefix: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    model: str,
    config: Mapping[str, Any],
    kept: Sequence[str] | None = None,
) -> None:
    """Writes a TF1 checkpoint that a TF1 Saver restores, and marks it as the latest.

    Written beside and renamed, data before index, so that a checkpoint with an index
    is always complete. config.json and the file `checkpoint` follow.

    Args:
      prefix: such as folder/model.ckpt-200000; the folder is created.
      tensors: values by TF1 name.
      model: "wavenet" or "baseline".
      config: the config's fields.
      kept: base names of the older checkpoints in the folder, oldest first, that
        the file `checkpoint` lists with this one as its writer's; None lists none.

    Raises:
      CheckpointError: a checkpoint of that name is there already, or one of another
        model.
    """
    prefix = os.fspath(prefix)
    folder, base = os.path.split(prefix)
    folder = folder or "."
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(prefix + ".index"):
        raise CheckpointError(
            f"{prefix}: there is a checkpoint of this name already; move it away or "
            "write to another folder."
        )
    description = {"model": model, "config": dict(config)}
    config_path = os.path.join(folder, "config.json")
    if os.path.exists(config_path) and read_json(config_path) != description:
        raise CheckpointError(
            f"{config_path}: describes another model, whose checkpoints could not "
            "be read beside this one; write to another folder."
        )
    names = sorted(tensors)
    with tempfile.TemporaryDirectory(prefix=WRITING, dir=folder) as temporary:
        written = os.path.join(temporary, base)
        try:
            tf.raw_ops.SaveV2(
                prefix=written,
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[tf.constant(tensors[name]) for name in names],
            )
        except tf.errors.OpError as error:
            raise CheckpointError(
                f"{prefix}: could not be written ({_first_line(error)}); "
                "is the disk full?"
            ) from None
        for ending in (".data-00000-of-00001", ".index"):
            os.replace(written + ending, prefix + ending)
    write_json(config_path, description)
    mark_latest(prefix, kept)


def mark_latest(prefix: str, kept: Sequence[str] | None = None) -> None:
    """Writes the file `checkpoint`, which says which one is the latest in a folder.

    Args:
      prefix: the latest.
      kept: as in `write_checkpoint`.
    """
    folder, base = os.path.split(prefix)
    with (
        atomic_path(os.path.join(folder, "checkpoint")) as path,
        open(path, "w", encoding="utf-8") as file,
    ):
        file.write(f'model_checkpoint_path: "{base}"\n')
        for name in () if kept is None else (*kept, base):
            file.write(f'all_model_checkpoint_paths: "{name}"\n')


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; make it readable (chmod +r) or copy it."
        ) from None


def _first_line(error: Exception) -> str:
    """What an error says, without TensorFlow's names of ops and devices."""
    text = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*?\]", "", str(error).strip())
    return (text.splitlines() or [type(error).__name__])[0][-200:]
