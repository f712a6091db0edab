"""The spectral autoencoder of NSynth, its baseline, as Keras models.

A layer is named after its network and its TF1 scope: `encoder_7_1` is
encoder/7_1_Layer/7_1.

Source: NSynth (arXiv 1704.01279), configuration nfft_1024. Differs: any width; longer
sounds are processed in windows of 256 frames, each with its own z.
"""

from typing import Any

import keras
import tensorflow as tf

from magenta_nsynth.config import NFFT_1024, NUM_PITCHES, SpectralConfig
from magenta_nsynth.errors import InputError
from magenta_nsynth.models.base import ConfiguredModel
from magenta_nsynth.spectral import frequency_weights, specgram, spectral_loss

__all__ = [
    "BATCH_NORM_DECAY",
    "DECODER_LAYERS",
    "ENCODER_LAYERS",
    "SpectralAutoencoder",
    "SpectralDecoder",
    "SpectralEncoder",
    "network_input",
    "network_output",
    "windows_of",
]

BATCH_NORM_DECAY = 0.999  # of the moving averages, per step
_EPSILON, _LEAK = 1e-3, 0.1

# Scope: kernel size, strides along bins and frames, channels as multiples of the width.
Layers = dict[str, tuple[int, tuple[int, int], int]]
ENCODER_LAYERS: Layers = {
    "0": (5, (2, 2), 1),
    "1": (4, (2, 2), 1),
    "2": (4, (2, 2), 1),
    "3": (4, (2, 2), 2),
    "4": (4, (2, 2), 2),
    "5": (4, (2, 2), 2),
    "6": (4, (2, 2), 4),
    "7": (4, (2, 2), 4),
    "7_1": (4, (2, 1), 4),
    "8": (1, (1, 1), 8),
}
DECODER_LAYERS: Layers = {
    "0": (1, (1, 1), 8),
    "1": (4, (2, 2), 4),
    "2": (4, (2, 2), 4),
    "3": (4, (2, 2), 2),
    "4": (4, (2, 2), 2),
    "5": (4, (2, 2), 2),
    "6": (4, (2, 2), 1),
    "7": (4, (2, 2), 1),
    "8": (5, (2, 2), 1),
    "8_1": (5, (2, 1), 1),
}

# The batch norms' means and variances over one batch, in the order of the layers.
Statistics = list[tf.Tensor]


def network_input(audio: Any, config: SpectralConfig = NFFT_1024) -> tf.Tensor:
    """Converts audio to the network's input.

    Args:
      audio: [b, t] floats in [-1, 1] at 16 kHz, t >= 513.
      config: the network's.

    Returns:
      float32 [b, 512, frames, 1] in [0, 1]: the logarithmic magnitude without its top
      bin, padded with zeros to a multiple of 256 frames. 4 s become 256 frames.

    Raises:
      InputError: another rank or dtype, or too few samples.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.models.spectral import network_input
      >>> tuple(network_input(np.zeros([1, 64_000], np.float32)).shape)
      (1, 512, 256, 1)
    """
    audio = tf.convert_to_tensor(audio)
    if audio.shape.rank != 2:
        raise InputError(f"Audio must have shape [batch, time], not {audio.shape}.")
    spec = specgram(audio, config.n_fft, config.hop_length, mag_only=True)
    static = spec.shape[2]
    num_frames = tf.shape(spec)[2] if static is None else static
    missing = -num_frames % config.num_frames
    spec = tf.pad(spec[:, : config.num_bins], [[0, 0], [0, 0], [0, missing], [0, 0]])
    static = None if static is None else num_frames + missing
    return tf.ensure_shape(spec, [None, config.num_bins, static, 1])


def windows_of(spec: Any, config: SpectralConfig = NFFT_1024) -> tf.Tensor:
    """Cuts a `network_input` into windows, the size that the network takes.

    Args:
      spec: [b, 512, 256 * n, 1].
      config: the network's.

    Returns:
      [b * n, 512, 256, 1]: the n windows of the first clip, then those of the next.
    """
    size = config.num_frames
    pieces = tf.reshape(spec, [tf.shape(spec)[0], config.num_bins, -1, size])
    pieces = tf.transpose(pieces, [0, 2, 1, 3])
    return tf.reshape(pieces, [-1, config.num_bins, size, 1])


def network_output(reconstruction: Any, num_frames: int) -> tf.Tensor:
    """Converts the network's output back to spectrograms.

    Args:
      reconstruction: float32 [b, 512, frames, 1].
      num_frames: how many frames to keep.

    Returns:
      float32 [b, 513, num_frames]. The top bin is zero (-120 dB).
    """
    return tf.pad(reconstruction[:, :, :num_frames, 0], [[0, 0], [0, 1], [0, 0]])


class _Block(keras.layers.Layer):
    """A convolution without bias, batch norm without gamma, and a leaky ReLU."""

    def __init__(
        self,
        name: str,
        in_channels: int,
        filters: int,
        size: int = 1,
        strides: tuple[int, int] = (1, 1),
        transposed: bool = False,
        linear: bool = False,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self._strides, self._transposed, self._linear = strides, transposed, linear
        self._filters = filters
        channels = (filters, in_channels) if transposed else (in_channels, filters)
        # GlorotUniform only uses fan_in + fan_out, which is the same for both layouts.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, *channels),
            initializer=keras.initializers.GlorotUniform(),
        )
        self.beta = self.add_weight(
            name="beta", shape=(filters,), initializer="zeros", autocast=False
        )
        self.moving_mean = self._moving("moving_mean", "zeros")
        self.moving_variance = self._moving("moving_variance", "ones")
        self.built = True

    def _moving(self, name: str, initializer: str) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(self._filters,),
            initializer=initializer,
            trainable=False,
            autocast=False,
        )

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.forward(x, training)

    def forward(
        self, x: tf.Tensor, training: bool, statistics: Statistics | None = None
    ) -> tf.Tensor:
        """`call`, but appends the batch's mean and variance to `statistics`, if given.

        Separate from `call` because Keras passes copies of lists to that.
        """
        x = self._convolve(tf.cast(x, self.compute_dtype))
        normalise = tf.raw_ops.FusedBatchNormV3
        arguments = {
            "x": x,
            "scale": tf.ones_like(self.beta),
            "offset": tf.convert_to_tensor(self.beta),
            "epsilon": _EPSILON,
        }
        if training:
            # It returns the unbiased variance, which the original keeps. Keras' own
            # layer keeps the biased one.
            x, mean, variance, *_ = normalise(
                **arguments, mean=[], variance=[], is_training=True
            )
            if statistics is None:
                self._update(mean, variance)
            else:
                statistics += [mean, variance]
        else:
            x, *_ = normalise(
                **arguments,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                is_training=False,
            )
        return x if self._linear else tf.nn.leaky_relu(x, _LEAK)

    def _convolve(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.cast(self.kernel, x.dtype)
        if not self._transposed:
            return tf.nn.conv2d(x, kernel, self._strides, "SAME")
        shape = tf.shape(x)
        sizes = [shape[1] * self._strides[0], shape[2] * self._strides[1]]
        out = tf.nn.conv2d_transpose(
            x, kernel, [shape[0], *sizes, self._filters], self._strides, "SAME"
        )
        static = [
            None if n is None else n * stride
            for n, stride in zip(x.shape[1:3], self._strides, strict=True)
        ]
        return tf.ensure_shape(out, [x.shape[0], *static, self._filters])

    def _update(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(moving - (moving - value) * (1 - BATCH_NORM_DECAY))


class _SpectralModel(ConfiguredModel):
    """What the three models share: the dtype check and the blocks."""

    config_class = SpectralConfig
    config: SpectralConfig

    def _build_layers(self) -> None:
        # Batch norm has no other kernels.
        if self.dtype_policy.variable_dtype != "float32":
            raise InputError(
                f"{self.name} can't have the dtype {self.dtype_policy.name}; use "
                "float32, mixed_bfloat16 or mixed_float16."
            )

    def _blocks(self, layers: Layers, part: str, channels: int) -> list[_Block]:
        blocks = []
        for scope, (size, strides, multiple) in layers.items():
            filters = multiple * self.config.width
            blocks.append(
                _Block(
                    f"{part}_{scope}",
                    channels,
                    filters,
                    size,
                    strides,
                    transposed=part == "decoder",
                    dtype=self.dtype_policy,
                )
            )
            channels = filters
        return blocks


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class SpectralEncoder(_SpectralModel):
    """Spectrogram [b, 512, 256, 1] -> z [b, 1, 1, 1984]."""

    default_name = "spectral_encoder"

    def _build_layers(self) -> None:
        super()._build_layers()
        self.blocks = self._blocks(ENCODER_LAYERS, "encoder", 1)
        deepest = self.config.width * ENCODER_LAYERS["8"][-1]
        self.z = _Block(
            "encoder_z",
            deepest,
            self.config.num_latent,
            linear=True,
            dtype=self.dtype_policy,
        )

    def call(self, spec: Any, training: bool = False) -> tf.Tensor:
        """Encodes spectrograms.

        Args:
          spec: float32 [b, 512, 256, 1], from `network_input`.
          training: normalises with the batch's statistics instead of the moving
            averages, and updates these.

        Returns:
          float32 [b, 1, 1, 1984].

        Raises:
          InputError: another shape.
        """
        return self.forward(spec, training)

    def forward(
        self, spec: Any, training: bool, statistics: Statistics | None = None
    ) -> tf.Tensor:
        """`call`, but with a list `statistics` no moving average is updated.

        Args:
          spec: as for `call`.
          training: as for `call`.
          statistics: each layer's mean and variance over the batch are appended to it.
        """
        spec = tf.convert_to_tensor(spec)
        config = self.config
        wanted = [config.num_bins, config.num_frames, 1]
        if spec.shape.rank != 4 or not spec.shape[1:].is_compatible_with(wanted):
            raise InputError(
                f"{self.name} takes spectrograms of shape [batch, "
                f"{', '.join(map(str, wanted))}], not {spec.shape}; `network_input` "
                "makes them from audio, and `windows_of` cuts longer ones."
            )
        for block in (*self.blocks, self.z):
            spec = block.forward(spec, training, statistics)
        return tf.cast(spec, tf.float32)


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class SpectralDecoder(_SpectralModel):
    """z and pitch -> spectrogram [b, 512, 256, 1]."""

    default_name = "spectral_decoder"

    def _build_layers(self) -> None:
        super()._build_layers()
        config = self.config
        self.pitch_embedding = keras.layers.Embedding(
            NUM_PITCHES,
            config.pitch_width,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="decoder_PitchEmbedding",
            dtype=self.dtype_policy,
        )
        self.pitch_embedding.build()
        channels = config.num_latent + config.pitch_width
        self.blocks = self._blocks(DECODER_LAYERS, "decoder", channels)
        self.mag = keras.layers.Conv2D(
            1, 1, name="decoder_mag", dtype=self.dtype_policy
        )
        self.mag.build((None, None, None, config.width))

    def call(self, z: Any, pitch: Any, training: bool = False) -> tf.Tensor:
        """Decodes codes.

        Args:
          z: float32 [b, 1, 1, 1984], from the encoder.
          pitch: [b] or [b, 1] integers, MIDI, 0 to 127. Any other number means no
            pitch, without an error.
          training: as for `SpectralEncoder`.

        Returns:
          float32 [b, 512, 256, 1] in [0, 1].

        Raises:
          InputError: another shape.
        """
        return self.forward(z, pitch, training)

    def forward(
        self,
        z: Any,
        pitch: Any,
        training: bool,
        statistics: Statistics | None = None,
    ) -> tf.Tensor:
        """`call`, with `statistics` as in `SpectralEncoder.forward`."""
        h = self.joined(z, pitch)
        for block in self.blocks:
            h = block.forward(h, training, statistics)
        return tf.sigmoid(tf.cast(self.mag(h), tf.float32))

    def joined(self, z: Any, pitch: Any) -> tf.Tensor:
        """The first block's input: z and the embedding of the pitch, [b, 1, 1, n].

        Takes what `call` takes, and raises what it raises.
        """
        z, pitch = tf.convert_to_tensor(z), tf.convert_to_tensor(pitch)
        if z.shape.rank != 4 or not z.shape[1:].is_compatible_with(
            [1, 1, self.config.num_latent]
        ):
            raise InputError(
                f"{self.name} takes z of shape [batch, 1, 1, "
                f"{self.config.num_latent}], not {z.shape}."
            )
        num_pitches = pitch.shape.num_elements()
        if not pitch.dtype.is_integer or (
            None not in (z.shape[0], num_pitches) and z.shape[0] != num_pitches
        ):
            raise InputError(
                f"{self.name} takes a whole number as the pitch of each z, not "
                f"{pitch.dtype.name} of shape {pitch.shape} for {z.shape[0]} z."
            )
        h = tf.cast(z, self.compute_dtype)
        # A product, not a look-up: its gradient is dense, so Adam moves every row.
        one_hot = tf.one_hot(tf.reshape(pitch, [-1]), NUM_PITCHES, dtype=h.dtype)
        table = tf.cast(self.pitch_embedding.embeddings, h.dtype)
        return tf.concat([h, tf.matmul(one_hot, table)[:, None, None]], axis=3)


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class SpectralAutoencoder(_SpectralModel):
    """Encoder and decoder: spectrogram and pitch -> spectrogram."""

    default_name = "spectral"

    def _build_layers(self) -> None:
        super()._build_layers()
        self.encoder = SpectralEncoder(self.config, dtype=self.dtype_policy)
        self.decoder = SpectralDecoder(self.config, dtype=self.dtype_policy)
        self._frequency_weights = frequency_weights(self.config.n_fft)

    def call(self, spec: Any, pitch: Any, training: bool = False) -> tf.Tensor:
        """Encodes and decodes; arguments and result are those of the two parts."""
        return self.forward(spec, pitch, training)

    def forward(
        self,
        spec: Any,
        pitch: Any,
        training: bool,
        statistics: Statistics | None = None,
    ) -> tf.Tensor:
        """`call`, with `statistics` of both parts as in `SpectralEncoder.forward`."""
        z = self.encoder.forward(spec, training, statistics)
        return self.decoder.forward(z, pitch, training, statistics)

    def clip_losses(self, spec: Any, reconstruction: Any) -> tf.Tensor:
        """The loss of each clip, [b] float32: the weighted mean of squared errors.

        Args:
          spec: [b, 512, frames, 1].
          reconstruction: of the same shape.
        """
        return spectral_loss(spec, reconstruction, self._frequency_weights)

    def training_loss(self, batch: dict[str, Any]) -> tuple[tf.Tensor, Statistics]:
        """The loss of a batch, for a training step.

        Args:
          batch: "audio" [b, t] float32 in [-1, 1] at 16 kHz, and "pitch" [b] integers.

        Returns:
          The loss, a float32 scalar; and the mean and the unbiased variance over the
          batch for each batch norm, in the order of the layers.
        """
        return self.spectrogram_loss(
            network_input(batch["audio"], self.config), batch["pitch"]
        )

    def spectrogram_loss(self, spec: Any, pitch: Any) -> tuple[tf.Tensor, Statistics]:
        """As `training_loss`, for spectrograms [b, 512, frames, 1]."""
        statistics: Statistics = []
        reconstruction = self.forward(spec, pitch, True, statistics)
        return tf.reduce_mean(self.clip_losses(spec, reconstruction)), statistics

    @property
    def moving_averages(self) -> list[keras.Variable]:
        """The variables that keep the statistics of `training_loss`, in that order."""
        blocks = [*self.encoder.blocks, self.encoder.z, *self.decoder.blocks]
        return [
            v for block in blocks for v in (block.moving_mean, block.moving_variance)
        ]
