"""A checkpoint's encoder and decoder as one object, for notebooks and binaries."""

import os
from typing import Any

from magenta_nsynth.api.baseline import Baseline, load_baseline
from magenta_nsynth.api.wavenet import WaveNet, load_wavenet
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.engine import require_model

__all__ = ["Baseline", "WaveNet", "load_baseline", "load_model", "load_wavenet"]


def load_model(
    checkpoint_path: str | os.PathLike, model: str = "", **options: Any
) -> WaveNet | Baseline:
    """Opens a checkpoint of either model, which its tensors tell.

    Args:
      checkpoint_path: a prefix, one of its files, or the folder.
      model: "wavenet" or "baseline", which it then has to be.
      **options: those of `WaveNet`; of them `Baseline` has `dtype` alone.

    Raises:
      CheckpointError: it can't be read, or is another model's.
      InputError: options of the other model.
    """
    checkpoint = Checkpoint(checkpoint_path)
    require_model(checkpoint, model or checkpoint.model or "wavenet")
    if checkpoint.model == "baseline":
        return Baseline(checkpoint_path, **options)
    return WaveNet(checkpoint_path, **options)
