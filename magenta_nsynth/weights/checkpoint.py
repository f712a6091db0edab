"""Reads and writes TF1 checkpoint files: tensors by name, errors in one line."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.config import CONFIG_JSON, CONFIGS, Config
from magenta_nsynth.disk import check_claims
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import atomic_path, load_json, read_json, write_json
from magenta_nsynth.mirror import Mirror, folder_beside, staging_folder
from magenta_nsynth.stores import remote, storage
from magenta_nsynth.weights import paths, tables

__all__ = [
    "WRITING",
    "Checkpoint",
    "CheckpointLike",
    "mark_latest",
    "open_checkpoint",
    "write_checkpoint",
]

WRITING = ".writing-checkpoint-"  # prefix of the folders of half-written checkpoints

# What TensorFlow's reader was found to raise on damaged files.
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError, MemoryError)


class Checkpoint:
    """A TF1 checkpoint on disk: the index is read at once, the tensors on demand.

    Attributes:
      prefix: the path without .index.
      shapes: the shape of each tensor, by name.
      dtypes: the NumPy dtype of each tensor, by name.
      model: "wavenet", "baseline", or None if the tensors are neither model's.

    Raises:
      CheckpointError: missing, unreadable, truncated, or not a checkpoint.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.prefix = paths.resolve_checkpoint(path)
        shards = paths.data_files(self.prefix)
        is_remote = storage.is_remote(self.prefix)
        for file in (self.prefix + ".index", *shards):
            _check_readable(file)
        try:
            self._store = _StoreReader(self.prefix, shards) if is_remote else None
            local = self._store.local if self._store else self.prefix
            self._reader = tf.train.load_checkpoint(local)
            shapes = self._reader.get_variable_to_shape_map()
            dtypes = self._reader.get_variable_to_dtype_map()
        except (*_READ_ERRORS, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{self.prefix}.index: damaged, or not the index of a TF1 checkpoint; "
                f"copy or download it again ({_first_line(error)})."
            ) from None
        if not shapes:
            raise CheckpointError(f"{self.prefix}.index: holds no tensors.")
        self.shapes = {name: tuple(shape) for name, shape in sorted(shapes.items())}
        self.dtypes = {name: dtypes[name].as_numpy_dtype for name in self.shapes}
        expected = sum(map(self._num_bytes, self.shapes))
        size = (
            self._store.num_bytes
            if self._store
            else sum(storage.getsize(shard) for shard in shards)
        )
        if size < expected:
            raise CheckpointError(
                f"{shards[-1]}: truncated to {size:,} of {expected:,} bytes; copy or "
                "download it again."
            )
        self.model = tables.model_of(self.shapes)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, value), sorted by name.

        Raises:
          CheckpointError: a tensor doesn't match its checksum, or contains text.
        """
        # Tensors lie in the file sorted by name. In any other order the reader takes
        # twelve times as many bytes from the disk.
        names = sorted(names)
        if self._store:
            self._store.fetch(self._places(names))
            self._reader = tf.train.load_checkpoint(self._store.local)  # no old buffer
        for name in names:
            if self.dtypes[name] is object:  # text, whose length can't be trusted
                raise CheckpointError(
                    f"{self.prefix}: the tensor {name} holds text, not numbers; copy "
                    "or download the checkpoint again."
                )
            try:
                yield name, self._tensor(name)
            except _READ_ERRORS as error:
                raise CheckpointError(
                    f"{self.prefix}: the tensor {name} is damaged on disk; copy or "
                    f"download the checkpoint again ({_first_line(error)})."
                ) from None

    def _tensor(self, name: str) -> np.ndarray:
        try:
            return self._reader.get_tensor(name)
        except _READ_ERRORS:
            if not self._store:
                raise
            self._store.fetch_all()  # it was not where it should lie
            self._reader = tf.train.load_checkpoint(self._store.local)
            return self._reader.get_tensor(name)

    def _num_bytes(self, name: str) -> int:
        """The bytes of a tensor in the file; 0 for text, whose length is unknown."""
        if self.dtypes[name] is object:
            return 0
        return int(np.prod(self.shapes[name])) * np.dtype(self.dtypes[name]).itemsize

    def _places(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """Where tensors should lie in the only data file: one after the other."""
        ends = np.cumsum([self._num_bytes(name) for name in self.shapes]).tolist()
        end = dict(zip(self.shapes, ends, strict=True))
        return [(end[name] - self._num_bytes(name), end[name]) for name in names]

    @property
    def step(self) -> int | None:
        """The number of training steps behind these weights, if it was stored."""
        if tables.GLOBAL_STEP not in self.shapes:
            return None
        return int(next(self.read([tables.GLOBAL_STEP]))[1])

    def config_file(self) -> dict[str, Any]:
        """The fields in the config.json beside the checkpoint; {} without such a file.

        Raises:
          CheckpointError: the file has another form.
        """
        path = storage.join(os.path.dirname(self.prefix) or ".", "config.json")
        try:
            content = load_json(path, CONFIG_JSON)
        except FileNotFoundError:
            return {}
        except InputError as error:
            raise CheckpointError(
                f'{error} Expected {{"model": ..., "config": {{...}}}}; correct or '
                "remove the file."
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


class _StoreReader:
    """A local copy of the files of a checkpoint in a store, as far as it is needed."""

    def __init__(self, prefix: str, shards: list[str]) -> None:
        """Gets the index; a data file too, if it is one of several."""
        self._folder = tempfile.TemporaryDirectory(dir=staging_folder())
        self.local = os.path.join(self._folder.name, "model.ckpt")

        def copy(path: str) -> Mirror:
            local = self.local + path[len(prefix) :]
            return Mirror(path, remote.file_info(path), local)

        copy(prefix + ".index").fetch_all()
        self._mirrors = [copy(shard) for shard in shards]
        self.num_bytes = sum(mirror.size for mirror in self._mirrors)

    def fetch(self, places: list[tuple[int, int]]) -> None:
        """Gets the bytes at these places of the only data file."""
        if len(self._mirrors) > 1:
            self.fetch_all()
        self._mirrors[0].fetch(places)

    def fetch_all(self) -> None:
        """Gets the whole data files."""
        for mirror in self._mirrors:
            mirror.fetch_all()


CheckpointLike = str | os.PathLike | Checkpoint


def open_checkpoint(source: CheckpointLike) -> Checkpoint:
    """Opens a checkpoint, unless it is open already.

    Args:
      source: any form that `resolve_checkpoint` takes, or an opened checkpoint.

    Raises:
      CheckpointError: as for `Checkpoint`.
    """
    return source if isinstance(source, Checkpoint) else Checkpoint(source)


def write_checkpoint(
    prefix: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    config: Config,
    kept: Sequence[str] | None = None,
) -> None:
    """Writes a TF1 checkpoint, with its config, and marks it as the latest.

    A TF1 Saver can restore it. Files are written under a temporary name and renamed
    (in a store: written elsewhere and uploaded), the data before the index, so a
    checkpoint with an index is always complete. Then come config.json and the file
    `checkpoint`.

    Args:
      prefix: such as folder/model.ckpt-200000. The folder is created.
      tensors: values by TF1 name.
      config: the model's.
      kept: base names of older checkpoints in the folder, oldest first, for the file
        `checkpoint` to list before this one. None lists none, nor this one.

    Raises:
      CheckpointError: the checkpoint exists already, the folder is another model's,
        or the disk is full.
    """
    prefix = os.fspath(prefix)
    folder, base = os.path.split(prefix)
    folder = folder or "."
    storage.makedirs(folder)
    if storage.exists(prefix + ".index"):
        raise CheckpointError(
            f"{prefix}: there is a checkpoint of this name already; move it away or "
            "write to another folder."
        )
    description = {"model": config.model_name, "config": config.to_dict()}
    config_path = storage.join(folder, "config.json")
    if storage.exists(config_path) and read_json(config_path) != description:
        raise CheckpointError(
            f"{config_path}: describes another model; a folder can only hold "
            "checkpoints of one model, so write to another folder."
        )
    names = sorted(tensors)
    beside = folder_beside(folder)
    with tempfile.TemporaryDirectory(prefix=WRITING, dir=beside) as temporary:
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
                f"{prefix}: can't be written ({_first_line(error)}); is the disk full?"
            ) from None
        for ending in (".data-00000-of-00001", ".index"):
            _move(written + ending, prefix + ending)
    write_json(config_path, description)
    mark_latest(prefix, kept)


def _move(written: str, path: str) -> None:
    """Moves a file of a checkpoint from beside it, or to a store."""
    if not storage.is_remote(path):
        os.replace(written, path)
        return
    check_claims(path)
    try:
        # Data without an index is what a killed program left.
        remote.upload(written, path, new=path.endswith(".index"))
    except FileExistsError:
        raise CheckpointError(
            f"{path}: another program has written this checkpoint; write to another "
            "folder."
        ) from None


def mark_latest(prefix: str, kept: Sequence[str] | None = None) -> None:
    """Writes the file `checkpoint`, which names the latest checkpoint of a folder.

    Args:
      prefix: the latest.
      kept: as for `write_checkpoint`.
    """
    folder, base = os.path.split(prefix)
    with (
        atomic_path(storage.join(folder, "checkpoint")) as path,
        open(path, "w", encoding="utf-8") as file,
    ):
        file.write(f'model_checkpoint_path: "{base}"\n')
        for name in () if kept is None else (*kept, base):
            file.write(f'all_model_checkpoint_paths: "{name}"\n')


def _check_readable(path: str) -> None:
    if storage.is_remote(path):
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; make it readable (chmod +r) or copy it."
        ) from None


def _first_line(error: Exception) -> str:
    """An error's message without TensorFlow's names of ops and devices."""
    text = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*?\]", "", str(error).strip())
    return (text.splitlines() or [type(error).__name__])[0][-200:]
