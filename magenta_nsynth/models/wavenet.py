"""The WaveNet autoencoder of NSynth as Keras models.

Source: NSynth (arXiv 1704.01279), configuration h512_bo16. Every layer carries the
name of its TF1 variable scope (`ae_res_7`, `dilatedconv_30`), and nothing else does
the pairing with a checkpoint. Differs: native dilated convolutions in place of the
original's time_to_batch (the same numbers), any width, and batch and time that may
be unknown when the model is built.
"""

from typing import Any

import keras
import tensorflow as tf

from magenta_nsynth.audio.mu_law import class_labels, mu_law
from magenta_nsynth.config import H512_BO16, NUM_CLASSES, WaveNetConfig
from magenta_nsynth.errors import InputError
from magenta_nsynth.models.base import ConfiguredModel

__all__ = [
    "WaveNetAutoencoder",
    "WaveNetDecoder",
    "WaveNetEncoder",
    "clip_losses",
    "negative_log_likelihood",
]


class _WaveNetModel(ConfiguredModel):
    """What the three models share: convolutions, and what they do with audio."""

    config_class = WaveNetConfig

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
        return mu_law(audio) / 128.0 if self.config.rescale_inputs else audio


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class WaveNetEncoder(_WaveNetModel):
    """Audio [b, t] -> embedding [b, t / hop, bottleneck]: 30 non-causal layers."""

    def __init__(self, config=H512_BO16, name="wavenet_encoder", dtype=None, **kwargs):
        super().__init__(config, name, dtype, **kwargs)
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
        self.built = True

    def call(self, audio: Any) -> tf.Tensor:
        """Encodes whole clips.

        Args:
          audio: [b, t] or [b, t, 1] float32 in [-1, 1] at 16 kHz; t a multiple of
            the hop length. Beyond its ends every layer sees zeros.

        Returns:
          [b, t / hop, bottleneck] float32, whatever dtype the layers compute in.

        Raises:
          InputError: another rank, or a time that isn't whole frames.
        """
        h = self.ae_startconv(self._network_input(audio))
        for dilatedconv, res in zip(self.ae_dilatedconv, self.ae_res, strict=True):
            d = dilatedconv(tf.nn.relu(h))
            h = h + res(tf.nn.relu(d))
        # Pooled in float32: a mean over 512 values in bfloat16 is off by 8e-3.
        z = tf.cast(self.ae_bottleneck(h), tf.float32)
        channels = self.config.ae_bottleneck_width
        z = tf.reshape(z, [tf.shape(z)[0], -1, self.config.ae_hop_length, channels])
        return tf.reduce_mean(z, axis=2)


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class WaveNetDecoder(_WaveNetModel):
    """Audio and embedding -> logits of each sample, given all samples before it."""

    def __init__(self, config=H512_BO16, name="wavenet_decoder", dtype=None, **kwargs):
        super().__init__(config, name, dtype, **kwargs)
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
            # The last one is in every checkpoint and never used.
            self.res.append(self._conv(f"res_{i}", width, width))
            self.skip.append(self._conv(f"skip_{i}", width, skip))
        self.out1 = self._conv("out1", skip, skip)
        self.cond_map_out1 = self._conv("cond_map_out1", z_width, skip)
        self.logits = self._conv("logits", skip, NUM_CLASSES)
        self.built = True

    def call(self, audio: Any, encoding: Any) -> tf.Tensor:
        """Predicts every sample of `audio` from the ones before it.

        Args:
          audio: [b, t] or [b, t, 1] float32 in [-1, 1] at 16 kHz.
          encoding: [b, t / hop, bottleneck] float32, from `WaveNetEncoder`.

        Returns:
          [b, t, 256] float32 logits; row n is about sample n itself.

        Raises:
          InputError: another rank, or a time that isn't whole frames.
        """
        x = self._network_input(audio)
        l = self.startconv(tf.pad(x, [[0, 0], [1, 0], [0, 0]])[:, :-1])  # noqa: E741
        # TensorFlow makes one sum of a chain of additions, and of the gradients of one
        # tensor used in more than two places, and adds in the order in which the parts
        # are ready. For the same bits in every run the skips are subtracted, and what
        # is used more often is copied, so that its gradient is a sum along an axis.
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
        """Adds c [b, frames, n] to x [b, t, n], each frame held for a hop."""
        channels = x.shape[-1]
        frames = tf.reshape(x, [-1, self.config.ae_hop_length, channels])
        frames = frames + tf.reshape(c, [-1, 1, channels])
        return tf.reshape(frames, tf.shape(x))


@keras.saving.register_keras_serializable(package="magenta_nsynth")
class WaveNetAutoencoder(_WaveNetModel):
    """Encoder and teacher-forced decoder: audio [b, t] -> logits [b, t, 256]."""

    def __init__(self, config=H512_BO16, name="wavenet", dtype=None, **kwargs):
        super().__init__(config, name, dtype, **kwargs)
        self.encoder = WaveNetEncoder(self.config, dtype=self.dtype_policy)
        self.decoder = WaveNetDecoder(self.config, dtype=self.dtype_policy)
        self.built = True

    def call(self, audio: Any) -> tf.Tensor:
        """Encodes `audio` and predicts it; arguments and result as in the decoder."""
        return self.decoder(audio, self.encoder(audio))

    def negative_log_likelihood(self, audio: Any) -> tf.Tensor:
        """The loss of `audio` [b, t], in nats per sample: a float32 scalar."""
        return negative_log_likelihood(audio, self(audio))

    def training_loss(self, batch: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """What a training step needs of a batch.

        Args:
          batch: [b, t] float32 in [-1, 1] at 16 kHz; or a dict of that, "audio", and
            of what the decoder sees of it, "past".

        Returns:
          The loss in nats per sample, a float32 scalar; and no statistics.
        """
        if not isinstance(batch, dict):
            return self.negative_log_likelihood(batch), []
        audio = batch["audio"]
        logits = self.decoder(batch["past"], self.encoder(audio))
        return negative_log_likelihood(audio, logits), []


def negative_log_likelihood(audio: Any, logits: Any) -> tf.Tensor:
    """The loss of the original: mean cross entropy in nats per sample.

    Args:
      audio: [b, t] or [b, t, 1] float32 in [-1, 1]: the sound itself, not shifted.
      logits: [b, t, 256] float32.

    Returns:
      A float32 scalar. Divide by ln 2 for bits per sample.

    Source: NSynth, h512_bo16's loss; differs: a sample of 1.0 has label 255 where
    the original's 256 is one too many for its 256 classes.
    """
    return tf.reduce_mean(_sample_losses(audio, logits))


def clip_losses(audio: Any, logits: Any) -> tf.Tensor:
    """As `negative_log_likelihood`, but of each clip: [b] float32."""
    return tf.reduce_mean(_sample_losses(audio, logits), axis=1)


def _sample_losses(audio: Any, logits: Any) -> tf.Tensor:
    shape = tf.shape(logits)[:2]
    labels = class_labels(mu_law(tf.reshape(tf.cast(audio, tf.float32), shape)))
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
