"""Describes a checkpoint in a few lines."""

from collections.abc import Collection

import numpy as np

from magenta_nsynth.config import (
    H512_BO16,
    NFFT_1024,
    SAMPLE_RATE,
    Config,
    SpectralConfig,
)
from magenta_nsynth.errors import CheckpointError
from magenta_nsynth.weights import engine, tables
from magenta_nsynth.weights.checkpoint import (
    Checkpoint,
    CheckpointLike,
    open_checkpoint,
)

__all__ = ["summarize"]


def summarize(
    path: CheckpointLike,
    hop_length: int | None = None,
    num_stages: int | None = None,
) -> str:
    """Describes a checkpoint: model, config, step and contents, from its index.

    Args:
      path: any form that `resolve_checkpoint` takes, or an opened checkpoint.
      hop_length: as for `engine.read_config`.
      num_stages: as for `engine.read_config`.

    Raises:
      CheckpointError: it can't be read, or is neither of NSynth's models.

    Examples:
      >>> from magenta_nsynth.weights.summary import summarize
      >>> print(summarize("checkpoints/small"))
      checkpoint:  checkpoints/small/model.ckpt-272485
      model:       WaveNet autoencoder
      encoder:     16 layers of width 32, dilations 1..128, filter 3
      ...
    """
    checkpoint = open_checkpoint(path)
    shapes = checkpoint.shapes
    lines = {"checkpoint": checkpoint.prefix}
    config = engine.read_config(checkpoint, hop_length, num_stages)
    names = {row.name for row in tables.table(config)}
    lines.update(_network(config))
    present = names & set(shapes)
    lines["parameters"] = f"{_elements(shapes, present):,} in {len(present)} tensors"
    step = checkpoint.step
    lines["step"] = "unknown" if step is None else f"{step:,}"
    lines["holds"] = ", ".join(_contents(shapes, names))
    lines["size"] = f"{len(shapes):,} tensors, {_elements(shapes, shapes):,} numbers"
    problem = _problem(checkpoint, config)
    lines["complete"] = problem or "yes, names and shapes are correct"
    return "\n".join(f"{key + ':':12} {value}" for key, value in lines.items())


def _network(config: Config) -> dict[str, str]:
    """A config in words, line by line."""
    if isinstance(config, SpectralConfig):
        is_named = " (nfft_1024, the released model's)" if config == NFFT_1024 else ""
        return {
            "model": f"spectral baseline autoencoder{is_named}",
            "layers": f"{config.width} to {8 * config.width} channels",
            "embedding": f"z of {config.num_latent} numbers for 4 s, and the pitch",
        }
    is_named = " (h512_bo16, the released model's)" if config == H512_BO16 else ""
    milliseconds = 1000 * config.ae_hop_length / SAMPLE_RATE
    return {
        "model": f"WaveNet autoencoder{is_named}",
        "encoder": (
            f"{config.ae_num_layers} layers of width {config.ae_width}, dilations "
            f"1..{max(config.ae_dilations)}, filter {config.ae_filter_length}"
        ),
        "decoder": (
            f"{config.num_layers} layers of width {config.width}, skip width "
            f"{config.skip_width}, dilations 1..{max(config.dilations)}, "
            f"filter {config.filter_length}"
        ),
        "embedding": (
            f"{config.ae_bottleneck_width} numbers per frame of {config.ae_hop_length} "
            f"samples ({milliseconds:g} ms)"
        ),
    }


def _contents(shapes: tables.Shapes, names: set[str]) -> list[str]:
    groups = {
        "raw weights": set(shapes) & names,
        "averaged weights": {n + tables.AVERAGE_SUFFIX for n in names} & set(shapes),
        "optimiser state": {n + s for n in names for s in tables.SLOT_SUFFIXES}
        & set(shapes),
        "pitch head": {n for n in shapes if n.startswith("pitch_head/")},
    }
    return [f"{what} ({len(found)})" for what, found in groups.items() if found]


def _problem(checkpoint: Checkpoint, config: Config) -> str | None:
    try:
        engine.check(checkpoint, tables.table(config), use_ema=False)
    except CheckpointError as error:
        return f"no: {error}"
    return None


def _elements(shapes: tables.Shapes, names: Collection[str]) -> int:
    return sum(int(np.prod(shapes[name])) for name in names)
