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

__all__ = ["encode_next", "layer_specs", "silence"]


def layer_specs(
    encoder: WaveNetEncoder, batch_size: int | None = None
) -> list[tf.TensorSpec]:
    """What `encode_next` takes as `past`, and as `after`.

    Args:
      encoder: the network.
      batch_size: the number of clips; None for any.

    Returns:
      [b, 1, samples, channels] in the layer's dtype for each layer that looks back.
    """
    return [
        tf.TensorSpec([batch_size, 1, None, layer.kernel.shape[1]], layer.compute_dtype)
        for layer in [encoder.ae_startconv, *encoder.ae_dilatedconv]
    ]


def silence(encoder: WaveNetEncoder, batch_size: int) -> list[tf.Tensor]:
    """What the layers see before and after clips: zeros, as far as each one looks.

    Args:
      encoder: the network.
      batch_size: the number of clips.

    Returns:
      Tensors as `layer_specs` describes them. `[x[:, :, :0] for x in ...]` is no
      silence at all.
    """
    layers = [encoder.ae_startconv, *encoder.ae_dilatedconv]
    return [
        tf.zeros([batch_size, 1, _reach(layer), spec.shape[-1]], spec.dtype)
        for layer, spec in zip(layers, layer_specs(encoder), strict=True)
    ]


def encode_next(
    encoder: WaveNetEncoder,
    audio: Any,
    past: Sequence[tf.Tensor],
    after: Sequence[tf.Tensor],
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Encodes the next part of clips, with the numbers of `encoder(whole_clips)`.

    The result is `encoder_reach` samples behind the audio, until the last part.

    Args:
      encoder: the network.
      audio: [b, t] float32 in [-1, 1] at 16 kHz. The audio of all calls so far is
        `encoder_reach` samples and at least one frame, in whole frames; with the last
        part, whole frames.
      past: the last call's; at first, `silence`.
      after: `silence` if the clips end here, else none.

    Returns:
      The next frames, [b, n, bottleneck] float32; and the past of the next call.

    Source: NSynth, the encoder of h512_bo16. Differs: in parts.
    """
    contexts = zip(past, after, strict=True)
    kept = []

    def with_context(layer: keras.layers.Conv1D, x: tf.Tensor) -> tf.Tensor:
        before, behind = next(contexts)
        x = tf.concat([before, tf.cast(x, before.dtype), behind], axis=2)
        reach = _reach(layer)
        kept.append(x[:, :, -2 * reach :] if reach else before)
        return x

    x = encoder.companded(tf.cast(audio, tf.float32)[:, None, :, None])
    h = _convolve(encoder.ae_startconv, with_context(encoder.ae_startconv, x))
    for dilatedconv, res in zip(encoder.ae_dilatedconv, encoder.ae_res, strict=True):
        h = with_context(dilatedconv, h)
        d = _convolve(dilatedconv, tf.nn.relu(h))
        h = _without_ends(h, _reach(dilatedconv)) + _convolve(res, tf.nn.relu(d))
    return encoder.pooled(_convolve(encoder.ae_bottleneck, h)[:, 0]), kept


def _reach(layer: keras.layers.Conv1D) -> int:
    """How many samples before and after a sample a layer looks at."""
    return layer.dilation_rate[0] * (layer.kernel_size[0] // 2)


def _without_ends(x: tf.Tensor, reach: int) -> tf.Tensor:
    """X [b, 1, t, c] without the first and last `reach` samples."""
    end = -reach or None
    if x.shape[0] != 1:
        return x[:, :, reach:end]
    # Rows of a matrix are taken without a copy.
    channels = x.shape[3]
    return tf.reshape(tf.reshape(x, [-1, channels])[reach:end], [1, 1, -1, channels])


def _convolve(layer: keras.layers.Conv1D, x: tf.Tensor) -> tf.Tensor:
    """Convolves [b, 1, t, c] without padding.

    Keras moves the samples of a dilated convolution apart and together again, which
    takes a sixth of the encoder's time. TensorFlow's own dilation has no gradient on
    all processors, but none is needed here.
    """
    kernel = tf.expand_dims(tf.cast(layer.kernel, x.dtype), 0)
    dilations = [1, 1, *layer.dilation_rate, 1]
    x = tf.nn.conv2d(x, kernel, 1, "VALID", dilations=dilations)
    return tf.nn.bias_add(x, tf.cast(layer.bias, x.dtype))
