"""Which TF1 tensor is which Keras variable: one table per model.

Tables are expanded from a config, so they exist for every width. No other module
contains TF1 variable names.

Source: NSynth's variable scopes, as the released checkpoints store them.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from magenta_nsynth.config import (
    NUM_CLASSES,
    NUM_PITCHES,
    Config,
    SpectralConfig,
    WaveNetConfig,
)
from magenta_nsynth.errors import CheckpointError
from magenta_nsynth.models.spectral import DECODER_LAYERS, ENCODER_LAYERS

__all__ = [
    "AVERAGE_SUFFIX",
    "BETA_POWERS",
    "GLOBAL_STEP",
    "SLOT_SUFFIXES",
    "Row",
    "Shapes",
    "holds_pitch_head",
    "ignored_names",
    "model_of",
    "names_without_gradient",
    "pitch_head_rows",
    "spectral_config",
    "step_tensor",
    "table",
    "wavenet_config",
]

Shapes = Mapping[str, tuple[int, ...]]

AVERAGE_SUFFIX = "/ExponentialMovingAverage"
GLOBAL_STEP = "global_step"
SLOT_SUFFIXES = ("/Adam", "/Adam_1")
BETA_POWERS = ("beta1_power", "beta2_power")
BOOKKEEPING = (GLOBAL_STEP, *BETA_POWERS)
_STEP_DTYPES = {"wavenet": np.int32, "baseline": np.int64}

_PITCH_HEAD = ("pitch_head/W", "pitch_head/biases")
_MOVING = ("moving_mean", "moving_variance")


class Row(NamedTuple):
    """A tensor of a checkpoint and the Keras variable that it belongs to.

    Attributes:
      name: the TF1 name.
      shape: the shape in the checkpoint.
      variable: the Keras variable as "layer/name".
    """

    name: str
    shape: tuple[int, ...]
    variable: str

    @property
    def part(self) -> str:
        """The part of the autoencoder that the variable belongs to."""
        return "encoder" if re.match("ae_|encoder/", self.name) else "decoder"

    @property
    def _is_conv1d(self) -> bool:
        """Whether it is [1, filter, in, out] here and [filter, in, out] in Keras."""
        return self.name.endswith("/W")

    def to_keras(self, tensor: np.ndarray) -> np.ndarray:
        """A TF1 tensor, or a slot or average of it, in the Keras variable's shape."""
        return tensor[0] if self._is_conv1d else tensor

    def to_tf1(self, value: np.ndarray) -> np.ndarray:
        """The inverse of `to_keras`."""
        return value[None] if self._is_conv1d else value


def table(config: Config) -> list[Row]:
    """The rows of a model, sorted by name."""
    if isinstance(config, SpectralConfig):
        return sorted(_spectral_rows(config))
    return sorted(_wavenet_rows(config))


def _wavenet_rows(config: WaveNetConfig) -> list[Row]:
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
    return rows


def pitch_head_rows(config: WaveNetConfig) -> list[Row]:
    """The rows of the pitch head, which training keeps beside a WaveNet's weights."""
    kernel = (config.ae_bottleneck_width, NUM_PITCHES)
    return [
        Row(_PITCH_HEAD[0], (1, 1, *kernel), "pitch_head/kernel"),
        Row(_PITCH_HEAD[1], kernel[-1:], "pitch_head/bias"),
    ]


def _spectral_rows(config: SpectralConfig) -> list[Row]:
    c = config
    encoder = {**ENCODER_LAYERS, "z": (1, (1, 1), None)}
    rows = []
    for part, layers, channels in (
        ("encoder", encoder, 1),
        ("decoder", DECODER_LAYERS, c.num_latent + c.pitch_width),
    ):
        for scope, (size, _, multiple) in layers.items():
            filters = c.num_latent if multiple is None else multiple * c.width
            pair = (channels, filters) if part == "encoder" else (filters, channels)
            tf1, layer = f"{part}/{scope}_Layer/{scope}", f"{part}_{scope}"
            rows.append(Row(f"{tf1}/weights", (size, size, *pair), f"{layer}/kernel"))
            rows += [
                Row(f"{tf1}/BatchNorm/{name}", (filters,), f"{layer}/{name}")
                for name in ("beta", *_MOVING)
            ]
            channels = filters
    pitches = "decoder/PitchEmbedding/embedding_weights"
    shape = (NUM_PITCHES, c.pitch_width)
    rows.append(Row(pitches, shape, "decoder_PitchEmbedding/embeddings"))
    mag = "decoder/mag_Layer/mag"
    rows.append(Row(f"{mag}/weights", (1, 1, c.width, 1), "decoder_mag/kernel"))
    rows.append(Row(f"{mag}/biases", (1,), "decoder_mag/bias"))
    return rows


def names_without_gradient(config: Config) -> set[str]:
    """The tensors that the optimiser never changes.

    These are the WaveNet's last `res`, which nothing uses, and the baseline's moving
    averages.
    """
    if isinstance(config, WaveNetConfig):
        return {f"res_{config.num_layers}/{name}" for name in ("W", "biases")}
    names = (row.name for row in _spectral_rows(config))
    return {name for name in names if name.endswith(_MOVING)}


def wavenet_config(shapes: Shapes, hop_length: int, num_stages: int) -> WaveNetConfig:
    """Infers a config from a checkpoint's shapes.

    Args:
      shapes: of the checkpoint's tensors, by TF1 name.
      hop_length: samples per frame, which no shape depends on.
      num_stages: layers per cycle of dilations, which no shape depends on.

    Raises:
      CheckpointError: a tensor is missing or has another rank.
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
    except ValueError as error:  # a shape of another rank, or no layers
        raise CheckpointError(f"its shapes are not a WaveNet's ({error})") from None


def spectral_config(shapes: Shapes) -> SpectralConfig:
    """Infers a config from a checkpoint's shapes.

    Raises:
      CheckpointError: a tensor is missing or has another rank.
    """
    try:
        return SpectralConfig(
            width=shapes["encoder/0_Layer/0/weights"][-1],
            num_latent=shapes["encoder/z_Layer/z/weights"][-1],
            pitch_width=shapes["decoder/PitchEmbedding/embedding_weights"][-1],
        )
    except KeyError as error:
        raise CheckpointError(f"the tensor {error.args[0]} is missing") from None
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"its shapes are not the baseline's ({error})") from None


def model_of(shapes: Shapes) -> str | None:
    """The model that a checkpoint's names are from: "wavenet", "baseline" or None."""
    if any(re.fullmatch(r"(ae_)?dilatedconv_\d+/W", name) for name in shapes):
        return "wavenet"
    if any(re.match(r"(encoder|decoder)/\w+_Layer/", name) for name in shapes):
        return "baseline"
    return None


def holds_pitch_head(shapes: Shapes) -> bool:
    """Whether a checkpoint holds a pitch head."""
    return _PITCH_HEAD[0] in shapes


def ignored_names(names: set[str], shapes: Shapes) -> set[str]:
    """The tensors in `shapes` that training keeps beside the weights `names`.

    These are a WaveNet's pitch head, Adam's two slots and the average of each weight,
    Adam's beta powers and the global step.
    """
    head = set(_PITCH_HEAD) if model_of(shapes) == "wavenet" else set()
    names = names | head
    allowed = {name + end for name in names for end in (*SLOT_SUFFIXES, AVERAGE_SUFFIX)}
    return (allowed | head | set(BOOKKEEPING)) & set(shapes)


def step_tensor(config: Config, step: int) -> np.ndarray:
    """The global step as the model's checkpoints store it, a scalar."""
    return np.asarray(step, _STEP_DTYPES[config.model_name])
