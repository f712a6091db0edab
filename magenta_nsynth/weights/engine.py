"""The one engine between checkpoints and models: plan, check, apply, save."""

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from magenta_nsynth.config import CONFIGS, H512_BO16
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.files import expand
from magenta_nsynth.models.spectral import (
    SpectralAutoencoder,
    SpectralDecoder,
    SpectralEncoder,
)
from magenta_nsynth.models.wavenet import (
    WaveNetAutoencoder,
    WaveNetDecoder,
    WaveNetEncoder,
)
from magenta_nsynth.progress import Progress
from magenta_nsynth.weights import tables
from magenta_nsynth.weights.checkpoint import Checkpoint, write_checkpoint

__all__ = [
    "load_autoencoder",
    "load_decoder",
    "load_encoder",
    "load_weights",
    "new_autoencoder",
    "read_config",
    "require_model",
    "save_weights",
    "strip_checkpoint",
    "verify",
    "verify_in_full",
    "weights_digest",
]

_MODEL_NAMES = {
    "wavenet": "a WaveNet autoencoder",
    "baseline": "the spectral baseline autoencoder",
    None: "neither of NSynth's two models",
}
_CLASSES = {
    "wavenet": {
        "encoder": WaveNetEncoder,
        "decoder": WaveNetDecoder,
        "autoencoder": WaveNetAutoencoder,
    },
    "baseline": {
        "encoder": SpectralEncoder,
        "decoder": SpectralDecoder,
        "autoencoder": SpectralAutoencoder,
    },
}


def read_config(
    checkpoint: Checkpoint,
    hop_length: int | None = None,
    num_stages: int | None = None,
) -> tables.Config:
    """The config of a checkpoint, from its shapes.

    Args:
      checkpoint: the opened checkpoint.
      hop_length: of a WaveNet, samples per frame, which no shape shows: where None,
        what config.json beside the checkpoint says, or 512.
      num_stages: of a WaveNet, layers in a cycle of dilations, likewise, or 10.

    Returns:
      A `WaveNetConfig` or a `SpectralConfig`.

    Raises:
      CheckpointError: neither model's checkpoint, or a config.json that contradicts
        the shapes.
      InputError: a WaveNet's number for the baseline.
    """
    if checkpoint.model is None:
        require_model(checkpoint, "wavenet")
    stated = checkpoint.config_file()
    try:
        if checkpoint.model == "baseline":
            if hop_length or num_stages:
                raise InputError(
                    f"{checkpoint.prefix}: a checkpoint of {_MODEL_NAMES['baseline']}, "
                    "which has no --hop_length and no --dilation_cycle; leave them out."
                )
            config = tables.spectral_config(checkpoint.shapes)
        else:
            hop = hop_length or stated.get("ae_hop_length", H512_BO16.ae_hop_length)
            stages = num_stages or stated.get("num_stages", H512_BO16.num_stages)
            config = tables.wavenet_config(checkpoint.shapes, hop, stages)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.prefix}: {error}.") from None
    # These have no trace in the shapes; the rest of config.json has to agree.
    free = {"ae_hop_length", "num_stages", "ae_num_stages", "rescale_inputs"}
    read = config.to_dict()
    differing = [
        f"{name} is {stated[name]} there and {value} in the tensors"
        for name, value in read.items()
        if name in stated and name not in free and stated[name] != value
    ]
    if differing:
        raise CheckpointError(
            f"{os.path.dirname(checkpoint.prefix) or '.'}/config.json is not this "
            f"checkpoint's: {'; '.join(differing)}. Move it away or correct it."
        )
    if checkpoint.model == "wavenet":
        if num_stages is None and "ae_num_stages" in stated:
            read["ae_num_stages"] = stated["ae_num_stages"]
        read["rescale_inputs"] = stated.get("rescale_inputs", True)
    return type(config).from_dict(read)


def load_weights(
    model: keras.Model,
    path: str | os.PathLike | Checkpoint,
    use_ema: bool = False,
) -> None:
    """Loads a TF1 checkpoint into an encoder, a decoder or an autoencoder.

    Names and shapes of the whole checkpoint are checked first, from its index; then
    only the model's own tensors are read.

    Args:
      model: one of the encoders, decoders or autoencoders of models/.
      path: any form that `resolve_checkpoint` takes.
      use_ema: the averages of the weights in place of the weights themselves.

    Raises:
      CheckpointError: naming every tensor that is missing, extra or of another shape;
        or the damaged one.
    """
    checkpoint = _opened(path)
    require_model(checkpoint, model.config.model_name)
    rows = tables.table(model.config)
    check(checkpoint, rows, use_ema)
    _apply(model, checkpoint, rows, use_ema)


def _opened(path: str | os.PathLike | Checkpoint) -> Checkpoint:
    return path if isinstance(path, Checkpoint) else Checkpoint(path)


def _apply(
    model: keras.Model,
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
                "so nothing can be made with it; take an earlier checkpoint."
            )
        row, variable = targets[name]
        variable.assign(row.to_keras(value))


def plan(
    model: keras.Model, rows: Iterable[tables.Row]
) -> list[tuple[tables.Row, keras.Variable]]:
    """Pairs each variable of `model` with its row; a bijection, or an error.

    Raises:
      CheckpointError: a variable without a row, or a row of the model's parts
        without a variable. That is a bug, of this package or of a changed model.
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


def check(checkpoint: Checkpoint, rows: Iterable[tables.Row], use_ema: bool) -> None:
    """Raises one CheckpointError that lists all that differs from the table."""
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


def load_encoder(
    path: str | os.PathLike, **options: Any
) -> WaveNetEncoder | SpectralEncoder:
    """An encoder with a checkpoint's weights; the decoder's are not read.

    Args:
      path: any form that `resolve_checkpoint` takes.
      **options: `model`, "wavenet" or "baseline", which the checkpoint then has to be;
        `use_ema`, `hop_length`, `num_stages` as in `load_weights` and `read_config`;
        and `dtype`, Keras' dtype or policy such as "mixed_bfloat16".
    """
    return _load("encoder", path, **options)


def load_decoder(
    path: str | os.PathLike, **options: Any
) -> WaveNetDecoder | SpectralDecoder:
    """A decoder with a checkpoint's weights; options as in `load_encoder`."""
    return _load("decoder", path, **options)


def load_autoencoder(
    path: str | os.PathLike, **options: Any
) -> WaveNetAutoencoder | SpectralAutoencoder:
    """An autoencoder with its weights; options as in `load_encoder`."""
    return _load("autoencoder", path, **options)


def new_autoencoder(
    config: tables.Config, dtype: Any = None
) -> WaveNetAutoencoder | SpectralAutoencoder:
    """The autoencoder of a config, with random weights."""
    return _CLASSES[config.model_name]["autoencoder"](config, dtype=dtype)


def _load(
    part: str,
    path: str | os.PathLike,
    model: str | None = None,
    use_ema: bool = False,
    hop_length: int | None = None,
    num_stages: int | None = None,
    dtype: Any = None,
) -> Any:
    # Eagerly, also when the first use of a model is inside a function being traced.
    with tf.init_scope():
        checkpoint = Checkpoint(path)
        if model is not None:
            require_model(checkpoint, model)
        config = read_config(checkpoint, hop_length, num_stages)
        # Before the model is built, which takes longer than to see that it won't fit.
        rows = tables.table(config)
        check(checkpoint, rows, use_ema)
        loaded = _CLASSES[config.model_name][part](config, dtype=dtype)
        _apply(loaded, checkpoint, rows, use_ema)
    return loaded


def weights_digest(model: keras.Model) -> str:
    """The SHA-256 of a model's weights: the same for the same numbers, wherever from.

    Args:
      model: an encoder, a decoder or an autoencoder.
    """
    digest = hashlib.sha256()
    for variable in sorted(model.variables, key=lambda variable: variable.path):
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable), "<f4")
        digest.update(f"{variable.path} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def save_weights(
    model: WaveNetAutoencoder | SpectralAutoencoder,
    prefix: str | os.PathLike,
    step: int | None = None,
) -> None:
    """Writes the weights as a TF1 checkpoint, as the original's Saver names them.

    Args:
      model: a whole autoencoder.
      prefix: such as folder/model.ckpt-200000.
      step: stored as the scalar global_step, where given.

    Raises:
      CheckpointError: not a whole autoencoder, or a checkpoint of that name exists.
    """
    rows = tables.table(model.config)
    pairs = plan(model, rows)
    if len(pairs) != len(rows):
        raise CheckpointError(
            f"{model.name} is only a part of the autoencoder; "
            "a checkpoint holds the whole."
        )
    tensors = {
        row.name: row.to_tf1(keras.ops.convert_to_numpy(variable))
        for row, variable in pairs
    }
    if step is not None:
        tensors[tables.GLOBAL_STEP] = tables.STEP_DTYPES[model.config.model_name](step)
    config = model.config
    write_checkpoint(expand(prefix), tensors, config.model_name, config.to_dict())


def verify(path: str | os.PathLike | Checkpoint, model: str) -> None:
    """Checks from the index that a checkpoint holds all of a model.

    Args:
      path: any form that `resolve_checkpoint` takes.
      model: "wavenet" or "baseline".

    Raises:
      CheckpointError: what is missing or differs.
    """
    checkpoint = _opened(path)
    require_model(checkpoint, model)
    check(checkpoint, tables.table(read_config(checkpoint)), False)


def verify_in_full(path: str | os.PathLike, model: str, released: bool = False) -> None:
    """As `verify`, and compares every tensor with its checksum.

    Args:
      path: as of `verify`.
      model: as of `verify`.
      released: whether it has to be of the released model's widths.

    Raises:
      CheckpointError: what is missing, damaged or differs.
    """
    checkpoint = Checkpoint(path)
    verify(checkpoint, model)
    if released:
        check(checkpoint, tables.table(CONFIGS[model]()), False)
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
    """Writes an inference checkpoint: the weights alone, without what training keeps.

    Args:
      path: a training checkpoint, in any form `resolve_checkpoint` takes.
      folder: where model.ckpt-STEP goes.
      use_ema: writes the averages, under the raw names.
      hop_length: as in `read_config`; it goes into config.json.
      num_stages: likewise.
      keep_averages: writes raw weights and averages, each under its own name.

    Returns:
      The new checkpoint's prefix.

    Raises:
      CheckpointError: it can't be read or isn't whole, or the output exists.
      InputError: both `use_ema` and `keep_averages`.
    """
    if use_ema and keep_averages:
        raise InputError(
            "Either --use_ema, the averages in place of the raw weights, or "
            "--keep_averages, both; not the two together."
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
        tensors[tables.GLOBAL_STEP] = tables.STEP_DTYPES[config.model_name](step)
    base = "model.ckpt" if step is None else f"model.ckpt-{step}"
    prefix = os.path.join(expand(folder), base)
    write_checkpoint(prefix, tensors, config.model_name, config.to_dict())
    return prefix


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


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else "")
