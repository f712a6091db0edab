"""The numbers that define a model, and the arithmetic between samples and frames."""

import dataclasses
import json
import os
from typing import Any

from magenta_nsynth.errors import InputError

__all__ = [
    "H512_BO16",
    "SAMPLE_RATE",
    "WaveNetConfig",
    "read_wavenet_fields",
]

SAMPLE_RATE = 16_000  # Hz. Every model, embedding and output file uses this rate.
NUM_CLASSES = 256  # 8-bit mu-law


@dataclasses.dataclass(frozen=True)
class WaveNetConfig:
    """The shape of a WaveNet autoencoder.

    The defaults are the released model, h512_bo16. Source: NSynth, the
    configuration of the same name; there the numbers are fixed, here any will do.

    Attributes:
      width: channels of the decoder's residual stream.
      skip_width: channels of the decoder's skip stream.
      num_layers: gated layers of the decoder.
      num_stages: the decoder's dilations are 2 ** (i % num_stages) for layer i.
      filter_length: taps of the decoder's dilated convolutions.
      ae_width: channels of the encoder.
      ae_num_layers: residual layers of the encoder.
      ae_num_stages: as num_stages, for the encoder.
      ae_filter_length: as filter_length, for the encoder. Odd.
      ae_bottleneck_width: channels of the embedding.
      ae_hop_length: samples per frame of the embedding.
      rescale_inputs: True feeds the networks mu-law companded audio, as the
        released weights expect; False feeds them linear audio.
    """

    width: int = 512
    skip_width: int = 256
    num_layers: int = 30
    num_stages: int = 10
    filter_length: int = 3
    ae_width: int = 128
    ae_num_layers: int = 30
    ae_num_stages: int = 10
    ae_filter_length: int = 3
    ae_bottleneck_width: int = 16
    ae_hop_length: int = 512
    rescale_inputs: bool = True

    def __post_init__(self) -> None:
        """Refuses what no network can be built from."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            wanted = bool if field.name == "rescale_inputs" else int
            if type(value) is not wanted or (wanted is int and value < 1):
                kind = "True or False" if wanted is bool else "a whole number above 0"
                raise InputError(
                    f"WaveNetConfig.{field.name} must be {kind}, not {value!r}."
                )
        if self.ae_filter_length % 2 == 0:
            raise InputError(
                "WaveNetConfig.ae_filter_length must be odd (the encoder looks as far "
                f"ahead as back), not {self.ae_filter_length}."
            )

    @property
    def dilations(self) -> list[int]:
        """The decoder's dilation per layer, in samples."""
        return [2 ** (i % self.num_stages) for i in range(self.num_layers)]

    @property
    def ae_dilations(self) -> list[int]:
        """The encoder's dilation per layer, in samples."""
        return [2 ** (i % self.ae_num_stages) for i in range(self.ae_num_layers)]

    @property
    def encoder_reach(self) -> int:
        """Samples on either side of a sample that its code depends on."""
        half = (self.ae_filter_length - 1) // 2
        return half * (1 + sum(self.ae_dilations))

    def num_frames(self, num_samples: int) -> int:
        """Whole frames in `num_samples` samples; a shorter tail is no frame."""
        return num_samples // self.ae_hop_length

    def num_samples(self, num_frames: int) -> int:
        """Samples that `num_frames` frames stand for."""
        return num_frames * self.ae_hop_length

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "WaveNetConfig":
        """The reverse of `to_dict`; unknown names are refused."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(
                f"Unknown WaveNetConfig fields {unknown}; known are {sorted(known)}."
            )
        return cls(**values)


H512_BO16 = WaveNetConfig()


def read_wavenet_fields(name: str | os.PathLike) -> dict[str, Any]:
    """The fields of a named configuration, or of a config.json.

    Args:
      name: "h512_bo16", or the path of a config.json that stands beside a checkpoint.

    Raises:
      InputError: neither, or the file isn't of that form.
    """
    if os.fspath(name) == "h512_bo16":
        return H512_BO16.to_dict()
    try:
        with open(name, encoding="utf-8") as file:
            fields = json.load(file)["config"]
        return WaveNetConfig.from_dict(fields).to_dict()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--config={name}: neither h512_bo16 nor a config.json as it stands beside "
            f"a checkpoint ({error})."
        ) from None
