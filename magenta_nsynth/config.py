"""The sizes that define a model, and conversions between samples and frames."""

import dataclasses
import os
from typing import Any, ClassVar, TypeVar

from magenta_nsynth.errors import InputError
from magenta_nsynth.files import load_json

__all__ = [
    "C2_HZ",
    "CONFIGS",
    "CONFIG_JSON",
    "H512_BO16",
    "NFFT_1024",
    "PHASES",
    "PRECISIONS",
    "SAMPLE_RATE",
    "Config",
    "SpectralConfig",
    "WaveNetConfig",
    "read_fields",
]

SAMPLE_RATE = 16_000  # Hz. Every model, embedding and output file uses this rate.
NUM_CLASSES = 256  # 8-bit mu-law
NUM_PITCHES = 128  # MIDI
C2_HZ = 65.40639132514966  # the lowest bin of a rainbowgram
PHASES = ("griffin_lim", "source")  # sources of the phase of the baseline's sounds
PRECISIONS = ("float32", "int8")  # of the weights that generate

_C = TypeVar("_C", bound="_Config")


@dataclasses.dataclass(frozen=True)
class _Config:
    """What both configurations share: fields with checked, plain values."""

    model_name: ClassVar[str]  # in checkpoints, flags and config.json

    def __post_init__(self) -> None:
        """Refuses values that no network can be built from."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            wanted: type = type(field.default)
            fits = type(value) is wanted
            if not fits or (wanted is int and not 0 < value < 2**31):
                kind = "True or False" if wanted is bool else "a whole number above 0"
                raise InputError(
                    f"{type(self).__name__}.{field.name} must be {kind}, not {value!r}."
                )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[_C], values: dict[str, Any]) -> _C:
        """The inverse of `to_dict`.

        Raises:
          InputError: an unknown field, or a value that no network can have.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(
                f"Unknown {cls.__name__} fields {unknown}; known are {sorted(known)}."
            )
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class WaveNetConfig(_Config):
    """The sizes of a WaveNet autoencoder.

    The defaults are those of the released model, h512_bo16.

    Source: NSynth, the configuration h512_bo16. Differs: NSynth's sizes are fixed.

    Attributes:
      width: channels of the decoder's residual stream.
      skip_width: channels of the decoder's skip stream.
      num_layers: gated layers of the decoder.
      num_stages: layer i of the decoder has the dilation 2 ** (i % num_stages).
      filter_length: taps of the decoder's dilated convolutions.
      ae_width: channels of the encoder.
      ae_num_layers: residual layers of the encoder.
      ae_num_stages: like num_stages, for the encoder.
      ae_filter_length: like filter_length, for the encoder. Odd.
      ae_bottleneck_width: channels of the embedding.
      ae_hop_length: samples per frame of the embedding.
      rescale_inputs: True feeds the networks mu-law companded audio, as the released
        weights expect. False feeds them linear audio.

    Raises:
      InputError: a value that no network can have.

    Examples:
      >>> from magenta_nsynth import WaveNetConfig
      >>> small = WaveNetConfig(width=64, skip_width=64, ae_width=32)
      >>> small.num_frames(64_000)
      125
    """

    model_name: ClassVar[str] = "wavenet"

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
        """Refuses values that no network can be built from."""
        super().__post_init__()
        if self.ae_filter_length % 2 == 0:
            raise InputError(
                "WaveNetConfig.ae_filter_length must be odd (the encoder looks as far "
                f"ahead as back), not {self.ae_filter_length}."
            )

    @property
    def dilations(self) -> list[int]:
        """The dilation of each layer of the decoder, in samples."""
        return [2 ** (i % self.num_stages) for i in range(self.num_layers)]

    @property
    def ae_dilations(self) -> list[int]:
        """The dilation of each layer of the encoder, in samples."""
        return [2 ** (i % self.ae_num_stages) for i in range(self.ae_num_layers)]

    @property
    def encoder_reach(self) -> int:
        """How many samples before and after a sample affect its code."""
        half = (self.ae_filter_length - 1) // 2
        return half * (1 + sum(self.ae_dilations))

    def num_frames(self, num_samples: int) -> int:
        """The number of whole frames in `num_samples` samples."""
        return num_samples // self.ae_hop_length

    def num_samples(self, num_frames: int) -> int:
        """The number of samples that `num_frames` frames represent."""
        return num_frames * self.ae_hop_length


@dataclasses.dataclass(frozen=True)
class SpectralConfig(_Config):
    """The sizes of a spectral autoencoder, the baseline.

    The defaults are those of the released model, nfft_1024.

    Source: NSynth, the configuration nfft_1024. Differs: NSynth's sizes are fixed.

    Attributes:
      width: channels of the outermost layers. The others have 2, 4 and 8 times as many.
      num_latent: size of the code z.
      pitch_width: size of the decoder's embedding of a pitch.
      n_fft: samples in a frame of the spectrogram.
      hop_length: samples between frames.
      num_bins: bins that the network sees, all but the top one.
      num_frames: frames that one z represents. Shorter clips are padded.

    Raises:
      InputError: a value that no network can have.

    Examples:
      >>> from magenta_nsynth import NFFT_1024
      >>> NFFT_1024.min_samples, NFFT_1024.max_samples, NFFT_1024.frames_of(64_000)
      (513, 65535, 251)
    """

    model_name: ClassVar[str] = "baseline"
    # The layers halve 512 bins nine times and 256 frames eight times, down to 1 x 1.
    n_fft: ClassVar[int] = 1024
    hop_length: ClassVar[int] = 256
    num_bins: ClassVar[int] = 512
    num_frames: ClassVar[int] = 256

    width: int = 128
    num_latent: int = 1984
    pitch_width: int = 128

    @property
    def min_samples(self) -> int:
        """The shortest clip: half a frame, for the reflection, plus one sample."""
        return self.n_fft // 2 + 1

    @property
    def max_samples(self) -> int:
        """The longest clip that one z represents."""
        return self.num_frames * self.hop_length - 1

    def frames_of(self, num_samples: int) -> int:
        """The number of frames in a clip's spectrogram."""
        return 1 + num_samples // self.hop_length


Config = WaveNetConfig | SpectralConfig

H512_BO16 = WaveNetConfig()
NFFT_1024 = SpectralConfig()

_NAMED: dict[str, Config] = {"h512_bo16": H512_BO16, "nfft_1024": NFFT_1024}
CONFIGS: dict[str, type[Config]] = {
    "wavenet": WaveNetConfig,
    "baseline": SpectralConfig,
}
# The form of config.json, for `load_json`.
CONFIG_JSON = {"model": (str, None), "config": {str: (int, bool)}}


def read_fields(name: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """Reads a named configuration or a config.json.

    Args:
      name: "h512_bo16", "nfft_1024", or the path of a checkpoint's config.json.

    Returns:
      "wavenet" or "baseline", and the fields of its config.

    Raises:
      InputError: an unknown name, or a file of another form.
    """
    named = _NAMED.get(os.fspath(name))
    if named is not None:
        return named.model_name, named.to_dict()
    try:
        content = load_json(name, CONFIG_JSON)
        config = CONFIGS[content.get("model") or "wavenet"].from_dict(content["config"])
        return config.model_name, config.to_dict()
    except (OSError, InputError, KeyError) as error:
        raise InputError(
            f"--config={name}: neither {' nor '.join(_NAMED)} nor a checkpoint's "
            f"config.json ({error})."
        ) from None
