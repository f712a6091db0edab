"""The WaveNet encoder, part by part of a clip.

A part of some thousand samples goes through all layers within the processor's caches. A
layer of dilation d waits for the d samples that follow a sample, and keeps those that
it has to look back to; so nothing is computed twice, and a clip of any length takes
little memory.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from magenta_nsynth.models.wavenet import WaveNetEncoder

__all__ = ["encode_next", "first_past", "past_specs"]


def first_past(encoder: WaveNetEncoder, batch_size: int) -> list[tf.Tensor]:
    """What the layers see before clips: zeros, the first `past` of `encode_next`.

    Args:
      encoder: the network.
      batch_size: the number of clips.

    Returns:
      For each layer that looks back, [b, 1, samples, channels] in the layer's dtype.
    """
    return [
        tf.zeros(
            [batch_size, 1, _reach(layer), layer.kernel.shape[1]], layer.compute_dtype
        )
        for layer in _layers_with_past(encoder)
    ]


def past_specs(
    encoder: WaveNetEncoder, batch_size: int | None = None
) -> list[tf.TensorSpec]:
    """The shapes and dtypes of any `past` of `encode_next`."""
    return [
        tf.TensorSpec([batch_size, 1, None, layer.kernel.shape[1]], layer.compute_dtype)
        for layer in _layers_with_past(encoder)
    ]


def encode_next(
    encoder: WaveNetEncoder, audio: Any, past: Sequence[tf.Tensor], is_last: Any
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Encodes the next part of clips, with the numbers of `encoder(whole_clips)`.

    The result is `encoder_reach` samples behind the audio, until the last part.

    Args:
      encoder: the network.
      audio: [b, t] float32 in [-1, 1] at 16 kHz. The audio of all calls so far is
        `encoder_reach` samples and at least one frame, in whole frames; with the last
        part, whole frames.
      past: the last call's; at first, `first_past`.
      is_last: a scalar bool: whether the clips end here.

    Returns:
      The next frames, [b, n, bottleneck] float32; and the past of the next call.

    Source: NSynth, the encoder of h512_bo16. Differs: in parts.
    """
    befores, kept = iter(past), []

    def with_context(layer: keras.layers.Conv1D, x: tf.Tensor) -> tf.Tensor:
        x = _with_context(layer, next(befores), x, is_last)
        kept.append(x[:, :, tf.shape(x)[2] - 2 * _reach(layer) :])
        return x

    x = encoder.companded(tf.cast(audio, tf.float32))[:, None, :, None]
    h = _convolve(encoder.ae_startconv, with_context(encoder.ae_startconv, x))
    for dilatedconv, res in zip(encoder.ae_dilatedconv, encoder.ae_res, strict=True):
        h = with_context(dilatedconv, h)
        d = _convolve(dilatedconv, tf.nn.relu(h))
        own = _middle(h, _reach(dilatedconv), tf.shape(d))
        h = own + _convolve(res, tf.nn.relu(d))
    return encoder.pooled(_convolve(encoder.ae_bottleneck, h)[:, 0]), kept


def _layers_with_past(encoder: WaveNetEncoder) -> list[keras.layers.Conv1D]:
    return [encoder.ae_startconv, *encoder.ae_dilatedconv]


def _reach(layer: keras.layers.Conv1D) -> int:
    """How many samples before and after a sample a layer looks at."""
    return layer.dilation_rate[0] * (layer.kernel_size[0] // 2)


def _with_context(
    layer: keras.layers.Conv1D, past: tf.Tensor, x: tf.Tensor, is_last: Any
) -> tf.Tensor:
    """A layer's input [b, 1, t, c] behind its past, and before zeros at the end."""
    x = tf.cast(x, layer.compute_dtype)
    shape = tf.shape(x)
    num_zeros = tf.where(is_last, _reach(layer), 0)
    return tf.concat(
        [past, x, tf.zeros([shape[0], 1, num_zeros, shape[3]], x.dtype)], axis=2
    )


def _middle(x: tf.Tensor, start: int, shape: tf.Tensor) -> tf.Tensor:
    """The part of x [b, 1, t, c] with this shape, from `start` on."""
    if x.shape[0] != 1:
        return x[:, :, start : start + shape[2]]
    # Rows of a matrix are taken without a copy.
    rows = tf.reshape(x, [-1, x.shape[3]])[start : start + shape[2]]
    return tf.reshape(rows, shape)


def _convolve(layer: keras.layers.Conv1D, x: tf.Tensor) -> tf.Tensor:
    """Convolves [b, 1, t, c] without padding.

    Keras moves the samples of a dilated convolution apart and together again, which
    takes a sixth of the encoder's time. TensorFlow's own dilation has no gradient on
    all processors, but none is needed here.
    """
    kernel = tf.cast(layer.kernel, x.dtype)[None]
    dilations = [1, 1, *layer.dilation_rate, 1]
    x = tf.nn.conv2d(x, kernel, 1, "VALID", dilations=dilations)
    return tf.nn.bias_add(x, tf.cast(layer.bias, x.dtype))
