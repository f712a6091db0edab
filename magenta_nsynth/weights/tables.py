"""Which TF1 tensor is which Keras variable: one table per model.

The tables are data, expanded from a config, so every width works. The only place with
TF1 variable names. Source: NSynth's variable scopes, as the released checkpoints
store them.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from magenta_nsynth.config import NUM_CLASSES, WaveNetConfig
from magenta_nsynth.errors import CheckpointError

__all__ = [
    "AVERAGE_SUFFIX",
    "BETA_POWERS",
    "GLOBAL_STEP",
    "SLOT_SUFFIXES",
    "Row",
    "Shapes",
    "baseline_shapes",
    "ignored_names",
    "model_of",
    "names_without_gradient",
    "wavenet_config",
    "wavenet_table",
]

Shapes = Mapping[str, tuple[int, ...]]

AVERAGE_SUFFIX = "/ExponentialMovingAverage"
GLOBAL_STEP = "global_step"
SLOT_SUFFIXES = ("/Adam", "/Adam_1")
BETA_POWERS = ("beta1_power", "beta2_power")
BOOKKEEPING = (GLOBAL_STEP, *BETA_POWERS)


class Row(NamedTuple):
    """One tensor of a checkpoint and the variable that holds it in Keras.

    Attributes:
      name: the TF1 name.
      shape: its shape in the checkpoint.
      variable: the Keras variable as "layer/kernel" or "layer/bias".
    """

    name: str
    shape: tuple[int, ...]
    variable: str

    @property
    def part(self) -> str:
        """The model that the variable belongs to."""
        return "encoder" if self.name.startswith("ae_") else "decoder"

    def to_keras(self, tensor: np.ndarray) -> np.ndarray:
        """A TF1 kernel [1, filter, in, out] as Conv1D's [filter, in, out]."""
        return tensor[0] if tensor.ndim == 4 else tensor

    def to_tf1(self, value: np.ndarray) -> np.ndarray:
        """The reverse of `to_keras`."""
        return value[None] if len(self.shape) == 4 else value


def wavenet_table(config: WaveNetConfig) -> list[Row]:
    """The rows of a WaveNet autoencoder, sorted by name as files are best read."""
    c, z = config, config.ae_bottleneck_width
    layers = {
        "ae_startconv": (c.ae_filter_length, 1, c.ae_width),
        "ae_bottleneck": (1, c.ae_width, z),
        "startconv": (c.filter_length, 1, c.width),
        "skip_start": (1, c.width, c.skip_width),
        "out1": (1, c.skip_width, c.skip_width),
        "cond_map_out1": (1, z, c.skip_width),
        "logits": (1, c.skip_width, NUM_CLASSES),
    }
    for i in range(1, c.ae_num_layers + 1):
        layers[f"ae_dilatedconv_{i}"] = (c.ae_filter_length, c.ae_width, c.ae_width)
        layers[f"ae_res_{i}"] = (1, c.ae_width, c.ae_width)
    for i in range(1, c.num_layers + 1):
        layers[f"dilatedconv_{i}"] = (c.filter_length, c.width, 2 * c.width)
        layers[f"cond_map_{i}"] = (1, z, 2 * c.width)
        layers[f"res_{i}"] = (1, c.width, c.width)
        layers[f"skip_{i}"] = (1, c.width, c.skip_width)
    rows = []
    for layer, kernel in layers.items():
        rows.append(Row(f"{layer}/W", (1, *kernel), f"{layer}/kernel"))
        rows.append(Row(f"{layer}/biases", kernel[-1:], f"{layer}/bias"))
    return sorted(rows)


def names_without_gradient(config: WaveNetConfig) -> set[str]:
    """The tensors that training never changes: those of the last, unused `res`."""
    return {f"res_{config.num_layers}/{name}" for name in ("W", "biases")}


def wavenet_config(shapes: Shapes, hop_length: int, num_stages: int) -> WaveNetConfig:
    """Reads a config off a checkpoint's shapes.

    Args:
      shapes: of the checkpoint's tensors, by TF1 name.
      hop_length: samples per frame, which no shape shows.
      num_stages: layers in a cycle of dilations, which no shape shows.

    Raises:
      CheckpointError: a tensor that the config is read from isn't there.
    """

    def layers(prefix: str) -> int:
        pattern = re.compile(rf"{prefix}_(\d+)/W")
        return max((int(m[1]) for m in map(pattern.fullmatch, shapes) if m), default=0)

    try:
        _, ae_filter_length, _, ae_width = shapes["ae_startconv/W"]
        _, filter_length, _, width = shapes["startconv/W"]
        return WaveNetConfig(
            width=width,
            skip_width=shapes["skip_start/W"][-1],
            num_layers=layers("dilatedconv"),
            num_stages=num_stages,
            filter_length=filter_length,
            ae_width=ae_width,
            ae_num_layers=layers("ae_dilatedconv"),
            ae_num_stages=num_stages,
            ae_filter_length=ae_filter_length,
            ae_bottleneck_width=shapes["ae_bottleneck/W"][-1],
            ae_hop_length=hop_length,
        )
    except KeyError as error:
        raise CheckpointError(f"the tensor {error.args[0]} is missing") from None
    except ValueError as error:  # a shape of another rank, or no layer at all
        raise CheckpointError(f"its shapes are not a WaveNet's ({error})") from None


def baseline_shapes() -> dict[str, tuple[int, ...]]:
    """The 87 tensors of the released spectral autoencoder (nfft_1024), and shapes."""
    # name: (kernel, stored transposed, input channels, output channels)
    convs = {}
    encoder = "0:5:128 1:4:128 2:4:128 3:4:256 4:4:256 5:4:256 6:4:512 7:4:512 "
    encoder += "7_1:4:512 8:1:1024 z:1:1984"
    decoder = "0:1:1024 1:4:512 2:4:512 3:4:256 4:4:256 5:4:256 6:4:128 7:4:128 "
    decoder += "8:5:128 8_1:5:128"
    for scope, layers, channels in (
        ("encoder", encoder, 1),
        ("decoder", decoder, 1984 + 128),
    ):
        for layer in layers.split():
            name, size, width = layer.split(":")
            pair = (channels, int(width))
            pair = pair if scope == "encoder" else pair[::-1]
            convs[f"{scope}/{name}_Layer/{name}"] = (int(size), int(size), *pair)
            channels = int(width)
    shapes = {}
    for name, shape in convs.items():
        shapes[f"{name}/weights"] = shape
        width = shape[-1] if name.startswith("encoder") else shape[-2]
        for statistic in ("beta", "moving_mean", "moving_variance"):
            shapes[f"{name}/BatchNorm/{statistic}"] = (width,)
    shapes["decoder/PitchEmbedding/embedding_weights"] = (128, 128)
    shapes["decoder/mag_Layer/mag/weights"] = (1, 1, 128, 1)
    shapes["decoder/mag_Layer/mag/biases"] = (1,)
    return shapes


def model_of(shapes: Shapes) -> str | None:
    """Whose checkpoint it is: "wavenet", "baseline" or None, from its names alone."""
    if any(re.fullmatch(r"(ae_)?dilatedconv_\d+/W", name) for name in shapes):
        return "wavenet"
    if any(re.match(r"(encoder|decoder)/\w+_Layer/", name) for name in shapes):
        return "baseline"
    return None


def ignored_names(names: set[str], shapes: Shapes) -> set[str]:
    """What training keeps beside the tensors `names`: no part of the model itself.

    The rules are Adam's two slots and the average of each tensor in `names`, Adam's
    beta powers and the global step.
    """
    allowed = {name + end for name in names for end in (*SLOT_SUFFIXES, AVERAGE_SUFFIX)}
    return (allowed | set(BOOKKEEPING)) & set(shapes)
