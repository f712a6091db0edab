"""The WaveNet autoencoder of NSynth as Keras models.

Every layer is named after its TF1 variable scope (`ae_res_7`, `dilatedconv_30`). Only
this name pairs it with a checkpoint.

Source: NSynth (arXiv 1704.01279), configuration h512_bo16. Differs: native dilated
convolutions instead of the original's time_to_batch, which computes the same numbers;
any width; batch size and time may be unknown when the model is built.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from magenta_nsynth.audio.mu_law import class_labels, mu_law
from magenta_nsynth.config import NUM_CLASSES, WaveNetConfig
from magenta_nsynth.errors import InputError
from magenta_nsynth.models.base import ConfiguredModel

__all__ = [
    "WaveNetAutoencoder",
    "WaveNetDecoder",
    "WaveNetEncoder",
    "clip_losses",
    "negative_log_likelihood",
    "pitch_head_loss",
]


class _WaveNetModel(ConfiguredModel):
    """What the three models share: convolutions and how they take audio."""

    config_class = WaveNetConfig
    config: WaveNetConfig

    def _conv(
        self,
        name: str,
        in_channels: int,
        filters: int,
        filter_length: int = 1,
        dilation: int = 1,
        padding: str = "causal",
    ) -> keras.layers.Conv1D:
        layer = keras.layers.Conv1D(
            filters,
            filter_length,
            dilation_rate=dilation,
            padding=padding,
            # U(-s, s) with s = sqrt(3 / (filter_length * in_channels)).
            kernel_initializer=keras.initializers.VarianceScaling(
                1.0, "fan_in", "uniform"
            ),
            name=name,
            dtype=self.dtype_policy,
        )
        layer.build((None, None, in_channels))
        return layer

    def _network_input(self, audio: Any) -> tf.Tensor:
        """[b, t] or [b, t, 1] audio -> [b, t, 1] float32, companded to [-1, 1)."""
        audio = tf.cast(audio, tf.float32)
        if audio.shape.rank == 2:
            audio = audio[..., None]
        if audio.shape.rank != 3 or audio.shape[-1] != 1:
            raise InputError(
                f"{self.name} takes audio of shape [batch, time] or [batch, time, 1], "
                f"not {tuple(audio.shape)}."
            )
        num_samples, hop = audio.shape[1], self.config.ae_hop_length
        if num_samples is not None and (num_samples == 0 or num_samples % hop):
            raise InputError(
                f"{self.name} takes whole frames of {hop} samples, not {num_samples} "
                f"samples: cut to {num_samples // hop * hop}, or pad."
            )
        return self.companded(audio)

    def companded(self, audio: tf.Tensor) -> tf.Tensor:
        """What the layers take: float32 audio of any shape, companded to [-1, 1)."""
        return mu_law(audio) / 128.0 if self.config.rescale_inputs else audio


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class WaveNetEncoder(_WaveNetModel):
    """Audio [b, t] -> embedding [b, t / hop, bottleneck]: non-causal layers.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> from magenta_nsynth.models.wavenet import WaveNetEncoder
      >>> encoder = WaveNetEncoder(nsynth.WaveNetConfig(ae_width=8, ae_num_layers=3))
      >>> tuple(encoder(np.zeros([2, 1024], np.float32)).shape)
      (2, 2, 16)
    """

    default_name = "wavenet_encoder"

    def _build_layers(self) -> None:
        config, width = self.config, self.config.ae_width
        size = config.ae_filter_length
        self.ae_startconv = self._conv("ae_startconv", 1, width, size, padding="same")
        self.ae_dilatedconv = []
        self.ae_res = []
        for i, dilation in enumerate(config.ae_dilations, start=1):
            self.ae_dilatedconv.append(
                self._conv(f"ae_dilatedconv_{i}", width, width, size, dilation, "same")
            )
            self.ae_res.append(self._conv(f"ae_res_{i}", width, width))
        self.ae_bottleneck = self._conv(
            "ae_bottleneck", width, config.ae_bottleneck_width
        )

    def call(self, audio: Any) -> tf.Tensor:
        """Encodes whole clips.

        Args:
          audio: [b, t] or [b, t, 1] float32 in [-1, 1] at 16 kHz, where t is a multiple
            of the hop length. Every layer sees zeros beyond the ends.

        Returns:
          [b, t / hop, bottleneck] float32, whatever dtype the layers compute in.

        Raises:
          InputError: another rank, or a partial frame.
        """
        h = self.ae_startconv(self._network_input(audio))
        for dilatedconv, res in zip(self.ae_dilatedconv, self.ae_res, strict=True):
            d = dilatedconv(tf.nn.relu(h))
            h = h + res(tf.nn.relu(d))
        return self.pooled(self.ae_bottleneck(h))

    def pooled(self, z: tf.Tensor) -> tf.Tensor:
        """The mean of each frame: [b, t, bottleneck] -> [b, t / hop, bottleneck]."""
        # Pooled in float32: in bfloat16 the mean of 512 values has an error of 8e-3.
        z = tf.cast(z, tf.float32)
        channels = self.config.ae_bottleneck_width
        z = tf.reshape(z, [tf.shape(z)[0], -1, self.config.ae_hop_length, channels])
        return tf.reduce_mean(z, axis=2)


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class WaveNetDecoder(_WaveNetModel):
    """Audio and embedding -> the logits of each sample, given all samples before it.

    Examples:
      >>> import numpy as np
      >>> import magenta_nsynth as nsynth
      >>> from magenta_nsynth.models.wavenet import WaveNetDecoder
      >>> config = nsynth.WaveNetConfig(width=8, skip_width=8, num_layers=3)
      >>> audio, z = np.zeros([2, 1024], np.float32), np.zeros([2, 2, 16], np.float32)
      >>> tuple(WaveNetDecoder(config)(audio, z).shape)
      (2, 1024, 256)
    """

    default_name = "wavenet_decoder"

    def _build_layers(self) -> None:
        config, width, skip = self.config, self.config.width, self.config.skip_width
        size, z_width = config.filter_length, self.config.ae_bottleneck_width
        self.startconv = self._conv("startconv", 1, width, size)
        self.skip_start = self._conv("skip_start", width, skip)
        self.dilatedconv, self.cond_map, self.res, self.skip = [], [], [], []
        for i, dilation in enumerate(config.dilations, start=1):
            self.dilatedconv.append(
                self._conv(f"dilatedconv_{i}", width, 2 * width, size, dilation)
            )
            self.cond_map.append(self._conv(f"cond_map_{i}", z_width, 2 * width))
            # The last one is in every checkpoint, but nothing uses it.
            self.res.append(self._conv(f"res_{i}", width, width))
            self.skip.append(self._conv(f"skip_{i}", width, skip))
        self.out1 = self._conv("out1", skip, skip)
        self.cond_map_out1 = self._conv("cond_map_out1", z_width, skip)
        self.logits = self._conv("logits", skip, NUM_CLASSES)

    def call(self, audio: Any, encoding: Any) -> tf.Tensor:
        """Predicts every sample of `audio` from the samples before it.

        Args:
          audio: [b, t] or [b, t, 1] float32 in [-1, 1] at 16 kHz.
          encoding: [b, t / hop, bottleneck] float32, from `WaveNetEncoder`.

        Returns:
          [b, t, 256] float32 logits. Row n predicts sample n.

        Raises:
          InputError: another rank, or a partial frame.
        """
        x = self._network_input(audio)
        l = self.startconv(tf.pad(x, [[0, 0], [1, 0], [0, 0]])[:, :-1])  # noqa: E741
        # TensorFlow merges a chain of additions into one sum, and likewise the
        # gradients of a tensor with more than two uses. It adds in the order in which
        # the parts are ready, so the last bit varies from run to run. To prevent that,
        # the skips are subtracted, and tensors with more uses are copied: then their
        # gradient is a sum along an axis.
        l, first = self._copies(l, 2)  # noqa: E741
        minus_s = -self.skip_start(first)
        *encodings, last_encoding = self._copies(encoding, self.config.num_layers + 1)
        layers = zip(
            self.dilatedconv, self.cond_map, encodings, self.res, self.skip, strict=True
        )
        for i, (dilatedconv, cond_map, z, res, skip) in enumerate(layers, start=1):
            d = self._condition(dilatedconv(l), cond_map(z))
            gate, value = tf.split(d, 2, axis=-1)
            d = tf.sigmoid(gate) * tf.tanh(value)
            minus_s = minus_s - skip(d)
            if i < self.config.num_layers:
                l = l + res(d)  # noqa: E741
        s = self.out1(tf.nn.relu(-minus_s))
        s = tf.nn.relu(self._condition(s, self.cond_map_out1(last_encoding)))
        return tf.cast(self.logits(s), tf.float32)

    def _copies(self, x: tf.Tensor, count: int) -> list[tf.Tensor]:
        return tf.unstack(tf.tile(x[None], [count, 1, 1, 1]))

    def _condition(self, x: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
        """Adds c [b, frames, n] to x [b, t, n], repeating each frame for a hop."""
        channels = x.shape[-1]
        frames = tf.reshape(x, [-1, self.config.ae_hop_length, channels])
        frames = frames + tf.reshape(c, [-1, 1, channels])
        return tf.reshape(frames, tf.shape(x))


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class WaveNetAutoencoder(_WaveNetModel):
    """Encoder and teacher-forced decoder: audio [b, t] -> logits [b, t, 256]."""

    default_name = "wavenet"

    def _build_layers(self) -> None:
        self.encoder = WaveNetEncoder(self.config, dtype=self.dtype_policy)
        self.decoder = WaveNetDecoder(self.config, dtype=self.dtype_policy)

    def call(self, audio: Any) -> tf.Tensor:
        """Encodes and predicts `audio`; arguments and result are the decoder's."""
        return self.decoder(audio, self.encoder(audio))

    def negative_log_likelihood(self, audio: Any) -> tf.Tensor:
        """The loss of `audio` [b, t] in nats per sample, a float32 scalar."""
        return negative_log_likelihood(audio, self(audio))

    def training_loss(
        self, batch: Any, pitch_head: Sequence[tf.Variable] = ()
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The loss of a batch, for a training step.

        Args:
          batch: [b, t] float32 in [-1, 1] at 16 kHz; or a dict with that as "audio",
            and perhaps with what the decoder sees of it as "past", likewise, and with
            the samples' "weights" in the loss, likewise, whose mean is 1. With a pitch
            head also "pitch" [b], integers from 0 to 127.
          pitch_head: kernel and bias, as for `pitch_head_loss`; none by default.

        Returns:
          The decoder's loss in nats per sample, a float32 scalar; and [the pitch
          head's], or [] without one.
        """
        if not isinstance(batch, dict):
            return self.negative_log_likelihood(batch), []
        audio = batch["audio"]
        encoding = self.encoder(audio)
        logits = self.decoder(batch.get("past", audio), encoding)
        losses = _sample_losses(audio, logits)
        if "weights" in batch:
            losses = losses * batch["weights"]
        loss = tf.reduce_mean(losses)
        if not pitch_head:
            return loss, []
        return loss, [pitch_head_loss(encoding, batch["pitch"], *pitch_head)]


def negative_log_likelihood(audio: Any, logits: Any) -> tf.Tensor:
    """The mean cross entropy in nats per sample.

    Args:
      audio: [b, t] or [b, t, 1] float32 in [-1, 1]: the sound itself, not shifted.
      logits: [b, t, 256] float32, from `WaveNetDecoder`.

    Returns:
      A float32 scalar. Divide by ln 2 for bits per sample.

    Source: NSynth, the loss of h512_bo16. Differs: a sample of 1.0 has the label 255.
    The original's label, 256, is beyond its 256 classes.
    """
    return tf.reduce_mean(_sample_losses(audio, logits))


def clip_losses(audio: Any, logits: Any) -> tf.Tensor:
    """As `negative_log_likelihood`, but for each clip: [b] float32."""
    return tf.reduce_mean(_sample_losses(audio, logits), axis=1)


def pitch_head_loss(
    encoding: tf.Tensor, pitch: tf.Tensor, kernel: Any, bias: Any
) -> tf.Tensor:
    """The mean cross entropy of a linear classifier of the pitch, in nats per frame.

    Args:
      encoding: [b, frames, bottleneck] float32.
      pitch: [b] integers, MIDI numbers from 0 to 127.
      kernel: [1, bottleneck, 128] float32.
      bias: [128] float32.

    Returns:
      A float32 scalar.
    """
    logits = tf.tensordot(encoding, kernel[0], 1) + bias
    labels = tf.repeat(pitch[:, None], tf.shape(encoding)[1], axis=1)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_mean(losses)


def _sample_losses(audio: Any, logits: Any) -> tf.Tensor:
    shape = tf.shape(logits)[:2]
    labels = class_labels(mu_law(tf.reshape(tf.cast(audio, tf.float32), shape)))
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
