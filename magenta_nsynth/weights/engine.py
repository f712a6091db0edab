"""Between checkpoints and models: check, load, save and strip weights."""

import hashlib
import os
from collections.abc import Iterable
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from magenta_nsynth.config import (
    CONFIGS,
    H512_BO16,
    Config,
    SpectralConfig,
    WaveNetConfig,
)
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import expand
from magenta_nsynth.models.base import ConfiguredModel
from magenta_nsynth.models.spectral import SpectralAutoencoder
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.progress import Progress
from magenta_nsynth.weights import tables
from magenta_nsynth.weights.checkpoint import (
    Checkpoint,
    CheckpointLike,
    open_checkpoint,
    write_checkpoint,
)

__all__ = [
    "FREE_FIELDS",
    "load_autoencoder",
    "load_part",
    "new_autoencoder",
    "read_config",
    "read_spectral_config",
    "read_wavenet_config",
    "require_model",
    "save_weights",
    "strip_checkpoint",
    "verify",
    "verify_in_full",
    "weights_digest",
]

Autoencoder = WaveNetAutoencoder | SpectralAutoencoder
Model = TypeVar("Model", bound=ConfiguredModel)

_MODEL_NAMES = {
    "wavenet": "a WaveNet autoencoder",
    "baseline": "the spectral baseline autoencoder",
    None: "neither of NSynth's two models",
}
_AUTOENCODERS: dict[str, type[Autoencoder]] = {
    "wavenet": WaveNetAutoencoder,
    "baseline": SpectralAutoencoder,
}
# Config fields that no shape shows; config.json states them, else flags do.
FREE_FIELDS = {"ae_hop_length", "num_stages", "ae_num_stages", "rescale_inputs"}


def require_model(checkpoint: Checkpoint, model: str) -> None:
    """Raises CheckpointError unless it is a checkpoint of `model`."""
    if model not in CONFIGS:
        raise InputError(f"model must be {' or '.join(CONFIGS)}, not {model!r}.")
    if checkpoint.model != model:
        some = ", ".join(list(checkpoint.shapes)[:3])
        raise CheckpointError(
            f"{checkpoint.prefix}: a checkpoint of {_MODEL_NAMES[checkpoint.model]} "
            f"({some}, ...); pass one of {_MODEL_NAMES[model]}."
        )


def read_config(
    checkpoint: Checkpoint,
    hop_length: int | None = None,
    num_stages: int | None = None,
) -> Config:
    """Infers a checkpoint's config from its shapes and its config.json.

    Args:
      checkpoint: the opened checkpoint.
      hop_length: samples per frame of a WaveNet, which no shape depends on. None takes
        it from config.json, or else 512.
      num_stages: layers per cycle of dilations of a WaveNet, likewise, or else 10.

    Raises:
      CheckpointError: neither model's checkpoint, or a config.json that contradicts
        the shapes.
      InputError: a WaveNet's option for the baseline.
    """
    if checkpoint.model == "baseline":
        return read_spectral_config(checkpoint, hop_length, num_stages)
    return read_wavenet_config(checkpoint, hop_length, num_stages)


def read_wavenet_config(
    checkpoint: Checkpoint,
    hop_length: int | None = None,
    num_stages: int | None = None,
) -> WaveNetConfig:
    """As `read_config`, of a checkpoint that has to be a WaveNet's."""
    require_model(checkpoint, "wavenet")
    stated = checkpoint.config_file()
    hop = hop_length or stated.get("ae_hop_length", H512_BO16.ae_hop_length)
    stages = num_stages or stated.get("num_stages", H512_BO16.num_stages)
    try:
        config = tables.wavenet_config(checkpoint.shapes, hop, stages)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.prefix}: {error}.") from None
    _check_stated(checkpoint, config, stated)
    fields = config.to_dict()
    if num_stages is None and "ae_num_stages" in stated:
        fields["ae_num_stages"] = stated["ae_num_stages"]
    fields["rescale_inputs"] = stated.get("rescale_inputs", True)
    return WaveNetConfig.from_dict(fields)


def read_spectral_config(
    checkpoint: Checkpoint,
    hop_length: int | None = None,
    num_stages: int | None = None,
) -> SpectralConfig:
    """As `read_config`, of a checkpoint that has to be the baseline's."""
    require_model(checkpoint, "baseline")
    if hop_length or num_stages:
        raise InputError(
            f"{checkpoint.prefix}: a checkpoint of {_MODEL_NAMES['baseline']}, "
            "which has no --hop_length and no --dilation_cycle; leave them out."
        )
    try:
        config = tables.spectral_config(checkpoint.shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.prefix}: {error}.") from None
    _check_stated(checkpoint, config, checkpoint.config_file())
    return config


def _check_stated(
    checkpoint: Checkpoint, config: Config, stated: dict[str, Any]
) -> None:
    """Raises CheckpointError if config.json contradicts the shapes."""
    differing = [
        f"{name} is {stated[name]} there and {value} in the tensors"
        for name, value in config.to_dict().items()
        if name in stated and name not in FREE_FIELDS and stated[name] != value
    ]
    if differing:
        raise CheckpointError(
            f"{os.path.dirname(checkpoint.prefix) or '.'}/config.json is not this "
            f"checkpoint's: {'; '.join(differing)}. Move it away or correct it."
        )


def load_autoencoder(
    source: CheckpointLike,
    model: str = "",
    use_ema: bool = False,
    hop_length: int | None = None,
    num_stages: int | None = None,
    dtype: Any = None,
) -> Autoencoder:
    """Loads an autoencoder.

    Args:
      source: any form that `resolve_checkpoint` takes, or an opened checkpoint.
      model: "wavenet" or "baseline", which the checkpoint then has to be.
      use_ema: loads the averages of the weights instead of the weights themselves.
      hop_length: as for `read_config`.
      num_stages: as for `read_config`.
      dtype: a Keras dtype or policy, such as "mixed_bfloat16".

    Raises:
      CheckpointError: naming every tensor that is missing, unexpected or of another
        shape, or the damaged one.

    Examples:
      >>> from magenta_nsynth.weights.engine import load_autoencoder
      >>> model = load_autoencoder("checkpoints/small")
      >>> model.config.width, model.count_params()
      (64, 727120)
    """
    checkpoint = open_checkpoint(source)
    if model:
        require_model(checkpoint, model)
    config = read_config(checkpoint, hop_length, num_stages)
    kind = _AUTOENCODERS[config.model_name]
    return load_part(kind, checkpoint, config, use_ema, dtype)


def load_part(
    kind: type[Model],
    checkpoint: Checkpoint,
    config: Config,
    use_ema: bool = False,
    dtype: Any = None,
) -> Model:
    """Builds an encoder, a decoder or an autoencoder and loads its weights.

    The names and shapes of the whole checkpoint are checked first, from its index.
    Then only the part's own tensors are read.

    Args:
      kind: its class, one of those in models/.
      checkpoint: the opened checkpoint.
      config: the checkpoint's, from `read_config`.
      use_ema: as for `load_autoencoder`.
      dtype: as for `load_autoencoder`.

    Raises:
      CheckpointError: as for `load_autoencoder`.
    """
    # Eagerly, even when a model is first used while a function is being traced.
    with tf.init_scope():
        # Checked before the model is built, which takes longer.
        rows = tables.table(config)
        check(checkpoint, rows, use_ema)
        part = kind(config, dtype=dtype)
        _assign(part, checkpoint, rows, use_ema)
    return part


def check(checkpoint: Checkpoint, rows: Iterable[tables.Row], use_ema: bool) -> None:
    """Raises one CheckpointError that lists every difference from the table."""
    shapes = checkpoint.shapes
    suffix = tables.AVERAGE_SUFFIX if use_ema else ""
    wanted = {row.name + suffix: row.shape for row in rows}
    if use_ema and not any(name.endswith(suffix) for name in shapes):
        raise CheckpointError(
            f"{checkpoint.prefix}: holds no averaged weights; load it without use_ema."
        )
    names = {row.name for row in rows}
    extra = set(shapes) - names - tables.ignored_names(names, shapes)
    problems = {
        "missing": sorted(set(wanted) - set(shapes)),
        "not the model's": sorted(extra),
        "of another shape": [
            f"{name} {list(shapes[name])} where the config needs {list(shape)}"
            for name, shape in wanted.items()
            if name in shapes and shapes[name] != shape
        ],
    }
    found = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
    if found:
        raise CheckpointError(
            f"{checkpoint.prefix}: does not fit the model. Tensors {'; '.join(found)}. "
            "Pass a whole checkpoint of this model, or --hop_length and "
            "--dilation_cycle if those differ."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else "")


def plan(
    model: ConfiguredModel, rows: Iterable[tables.Row]
) -> list[tuple[tables.Row, keras.Variable]]:
    """Pairs each variable of `model` with its row, one to one.

    Raises:
      CheckpointError: a variable without a row, or a row of one of the model's parts
        without a variable. Either is a bug in this package or in a modified model.
    """
    variables = {"/".join(v.path.split("/")[-2:]): v for v in model.variables}
    parts = {row.part for row in rows if row.variable in variables}
    wanted = {row.variable: row for row in rows if row.part in parts}
    if set(wanted) != set(variables) or len(variables) != len(model.variables):
        raise CheckpointError(
            f"{model.name} and its table of names differ: "
            f"{sorted(set(wanted) ^ set(variables))}."
        )
    return [(row, variables[name]) for name, row in wanted.items()]


def _assign(
    model: ConfiguredModel,
    checkpoint: Checkpoint,
    rows: Iterable[tables.Row],
    use_ema: bool,
) -> None:
    """Assigns a checked checkpoint's tensors to the model's variables."""
    suffix = tables.AVERAGE_SUFFIX if use_ema else ""
    targets = {
        row.name + suffix: (row, variable) for row, variable in plan(model, rows)
    }
    for name, value in checkpoint.read(targets):
        if not np.isfinite(value).all():
            raise CheckpointError(
                f"{checkpoint.prefix}: the tensor {name} holds NaN or infinite values, "
                "which make the model unusable; use an earlier checkpoint."
            )
        row, variable = targets[name]
        variable.assign(row.to_keras(value))


def new_autoencoder(config: Config, dtype: Any = None) -> Autoencoder:
    """The autoencoder of a config, with random weights."""
    return _AUTOENCODERS[config.model_name](config, dtype=dtype)


def weights_digest(model: ConfiguredModel) -> str:
    """The SHA-256 of a model's weights; it depends on nothing but their values."""
    digest = hashlib.sha256()
    for variable in sorted(model.variables, key=lambda variable: variable.path):
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable), "<f4")
        digest.update(f"{variable.path} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def save_weights(
    model: Autoencoder,
    prefix: str | os.PathLike,
    step: int | None = None,
) -> None:
    """Writes an autoencoder's weights as a TF1 checkpoint.

    The tensors have the original's names, so its Saver can restore them.

    Args:
      model: a whole autoencoder.
      prefix: such as folder/model.ckpt-200000.
      step: stored as the scalar global_step, if given.

    Raises:
      CheckpointError: only a part of an autoencoder, or the checkpoint exists already.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> from magenta_nsynth.models.wavenet import WaveNetAutoencoder
      >>> from magenta_nsynth.weights.engine import save_weights
      >>> config = nsynth.WaveNetConfig(width=8, skip_width=8, ae_width=8)
      >>> save_weights(WaveNetAutoencoder(config), "new/model.ckpt-0", step=0)
      >>> nsynth.load_wavenet("new").config == config
      True
    """
    rows = tables.table(model.config)
    pairs = plan(model, rows)
    if len(pairs) != len(rows):
        raise CheckpointError(
            f"{model.name} is only a part of an autoencoder; a checkpoint holds the "
            "whole."
        )
    tensors = {
        row.name: row.to_tf1(keras.ops.convert_to_numpy(variable))
        for row, variable in pairs
    }
    if step is not None:
        tensors[tables.GLOBAL_STEP] = tables.step_tensor(model.config, step)
    write_checkpoint(expand(prefix), tensors, model.config)


def verify(source: CheckpointLike, model: str) -> None:
    """Checks from the index that a checkpoint holds a whole model.

    Args:
      source: as for `load_autoencoder`.
      model: "wavenet" or "baseline".

    Raises:
      CheckpointError: what is missing or different.
    """
    checkpoint = open_checkpoint(source)
    require_model(checkpoint, model)
    check(checkpoint, tables.table(read_config(checkpoint)), use_ema=False)


def verify_in_full(path: str | os.PathLike, model: str, released: bool = False) -> None:
    """As `verify`, but also reads every tensor and compares its checksum.

    Args:
      path: any form that `resolve_checkpoint` takes.
      model: "wavenet" or "baseline".
      released: whether it has to have the released model's widths.

    Raises:
      CheckpointError: what is missing, damaged or different.
    """
    checkpoint = Checkpoint(path)
    verify(checkpoint, model)
    if released:
        check(checkpoint, tables.table(CONFIGS[model]()), use_ema=False)
    names, label = checkpoint.shapes, os.path.basename(checkpoint.prefix)
    with Progress(len(names), "tensors", f"checking {label}") as progress:
        for _ in checkpoint.read(names):  # TensorFlow compares the checksum
            progress.advance()


def strip_checkpoint(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    use_ema: bool = False,
    hop_length: int | None = None,
    num_stages: int | None = None,
    keep_averages: bool = False,
) -> str:
    """Writes a checkpoint of the weights alone, without the training state.

    Args:
      path: a training checkpoint, in any form `resolve_checkpoint` takes.
      folder: the folder for model.ckpt-STEP.
      use_ema: writes the averages, under the names of the raw weights.
      hop_length: as for `read_config`; stored in config.json.
      num_stages: likewise.
      keep_averages: writes both raw weights and averages, each under its own name.

    Returns:
      The new checkpoint's prefix.

    Raises:
      CheckpointError: it can't be read or isn't whole, or the output exists already.
      InputError: both `use_ema` and `keep_averages`.
    """
    if use_ema and keep_averages:
        raise InputError(
            "--use_ema writes the averages instead of the raw weights, --keep_averages "
            "writes both: pass one of them, not the two together."
        )
    checkpoint = Checkpoint(path)
    config = read_config(checkpoint, hop_length, num_stages)
    rows = tables.table(config)
    check(checkpoint, rows, use_ema)
    suffix = tables.AVERAGE_SUFFIX if use_ema else ""
    values = checkpoint.read(row.name + suffix for row in rows)
    tensors = {name.removesuffix(suffix): value for name, value in values}
    if keep_averages:
        check(checkpoint, rows, use_ema=True)
        tensors.update(
            checkpoint.read(row.name + tables.AVERAGE_SUFFIX for row in rows)
        )
    step = checkpoint.step
    if step is not None:
        tensors[tables.GLOBAL_STEP] = tables.step_tensor(config, step)
    base = "model.ckpt" if step is None else f"model.ckpt-{step}"
    prefix = os.path.join(expand(folder), base)
    write_checkpoint(prefix, tensors, config)
    return prefix
