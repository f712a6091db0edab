"""A checkpoint's encoder and decoder as one object, for notebooks and binaries."""

from typing import Any

from magenta_nsynth.api.autoencoder import Autoencoder
from magenta_nsynth.api.baseline import Baseline, load_baseline
from magenta_nsynth.api.wavenet import WaveNet, load_wavenet
from magenta_nsynth.weights.checkpoint import CheckpointLike, open_checkpoint
from magenta_nsynth.weights.engine import require_model

__all__ = [
    "Autoencoder",
    "Baseline",
    "WaveNet",
    "load_baseline",
    "load_model",
    "load_wavenet",
]


def load_model(
    checkpoint_path: CheckpointLike,
    model: str = "",
    use_ema: bool = False,
    hop_length: int | None = None,
    num_stages: int | None = None,
    dtype: Any = None,
) -> Autoencoder:
    """Opens a checkpoint of either model. Its tensors show which one it is.

    Args:
      checkpoint_path: a prefix, one of its files, or the folder; "small", the
        bundled one; or an opened checkpoint.
      model: "wavenet" or "baseline", which the checkpoint then has to be.
      use_ema: as for `WaveNet`.
      hop_length: as for `WaveNet`.
      num_stages: as for `WaveNet`.
      dtype: as for `WaveNet` and `Baseline`.

    Returns:
      A `WaveNet` or a `Baseline`.

    Raises:
      CheckpointError: it can't be read, or is another model's.
      InputError: an option of the WaveNet for the baseline.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> nsynth.load_model("checkpoints/small").name
      'wavenet'
      >>> nsynth.load_model("checkpoints/small_baseline").name
      'baseline'
    """
    checkpoint = open_checkpoint(checkpoint_path)
    require_model(checkpoint, model or checkpoint.model or "wavenet")
    if checkpoint.model == "baseline":
        return Baseline(checkpoint, use_ema, hop_length, num_stages, dtype)
    return WaveNet(checkpoint, use_ema, hop_length, num_stages, dtype)
