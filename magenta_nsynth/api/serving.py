"""Exports a checkpoint's networks as SavedModels, which don't need this package.

Every folder is a TensorFlow SavedModel, for `tf.saved_model.load(folder).signatures`,
TensorFlow Serving and others. These are the tensors by name, for any number b of clips:

    WaveNet: encoder/
      serving_default  audio [b, t] float32 in [-1, 1], whole frames of 512 samples
                       -> embedding [b, t / 512, 16] float32
    WaveNet: decoder_step/
      start            batch_size [] int32
                       -> past [6138, b, 512] float32, newest [b, 2] float32,
                          position [] int64: the state before the first sample
      step             sample [b] int32, the last class 0..255, at first 128
                       (silence); embedding [b, 16] float32, the row for the next
                       sample's frame; past, newest, position
                       -> probabilities [b, 256] and logits [b, 256] float32 of the
                          next sample; past, newest, position
    Baseline: encoder/
      serving_default  audio [b, t] float32, 513 to 65,535 samples
                       -> z [b, 1984] float32
    Baseline: decoder/
      serving_default  z [b, 1984] float32, pitch [b] int32 (MIDI)
                       -> spectrogram [b, 513, 256] float32, as from `specgram`

The sizes are those of h512_bo16 and nfft_1024; other checkpoints differ. The sample for
a class c is sign(x) / 255 * (256 ** |x| - 1) with x = (c - 127.5) / 128, and 0 for 128.
`past` contains each layer's last 2 * dilation inputs.
"""

import contextlib
import logging as python_logging
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from magenta_nsynth.api.baseline import Baseline
from magenta_nsynth.api.wavenet import WaveNet
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand
from magenta_nsynth.generation.stepwise import input_levels
from magenta_nsynth.mirror import folder_beside
from magenta_nsynth.models.spectral import network_input, network_output
from magenta_nsynth.models.wavenet import WaveNetDecoder
from magenta_nsynth.stores import remote, storage

__all__ = ["save_for_serving"]

_Spec = tuple[list[int | None], tf.DType]  # a tensor's shape and dtype

_GRAPH = "saved_model.pb"  # without it the rest of a folder is no SavedModel


def save_for_serving(model: WaveNet | Baseline, folder: str | os.PathLike) -> list[str]:
    """Writes a checkpoint's encoder and decoder as SavedModels.

    Args:
      model: the opened checkpoint.
      folder: the folder for the SavedModels' folders; created if missing.

    Returns:
      The paths of the SavedModels' folders.

    Raises:
      InputError: one of these exists already, or can't be written.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> from magenta_nsynth.api.serving import save_for_serving
      >>> model = nsynth.load_model("checkpoints/small_baseline")
      >>> save_for_serving(model, "served")
      ['served/encoder', 'served/decoder']
    """
    folder = expand(folder)
    parts = _baseline(model) if isinstance(model, Baseline) else _wavenet(model)
    paths = [storage.join(folder, name) for name in parts]
    for path in paths:
        if storage.lexists(path):
            raise InputError(
                f"{path}: exists already; move it away, or give another --save_path."
            )
    storage.makedirs(folder)
    for path, (module, signatures) in zip(paths, parts.values(), strict=True):
        beside = folder_beside(folder)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=beside) as temporary:
            written = os.path.join(temporary, "model")
            try:
                with _only_warnings():
                    tf.saved_model.save(module, written, signatures)
            except tf.errors.OpError as error:
                reason = (error.message.splitlines() or [""])[0]
                raise InputError(f"{path}: can't be written ({reason}).") from None
            _move(written, path)
    return paths


def _move(written: str, path: str) -> None:
    """Moves a SavedModel to its place; in a store its graph comes last."""
    if not storage.is_remote(path):
        os.replace(written, path)
        return
    files = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(written)
        for name in names
    ]
    for file in sorted(files, key=lambda file: (file.endswith(_GRAPH), file)):
        name = os.path.relpath(file, written)
        remote.upload(file, storage.join(path, name))


@contextlib.contextmanager
def _only_warnings() -> Iterator[None]:
    """Hides TensorFlow's log of the saving."""
    logger = logging.get_absl_logger()
    # Not absl's verbosity: setting that back would set a level where there was none.
    before = logger.level
    logger.setLevel(max(logger.getEffectiveLevel(), python_logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


def _function(
    call: Callable[..., dict[str, tf.Tensor]], **inputs: _Spec
) -> tf.types.experimental.GenericFunction:
    """A tf.function of tensors with these names, shapes and dtypes."""
    specs = [
        tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()
    ]
    return tf.function(call, specs)


def _holding(*models: Any) -> tf.Module:
    """A module through which a SavedModel keeps the variables of Keras models."""
    module = tf.Module()
    module.weights = [v.value for model in models for v in model.variables]
    return module


def _wavenet(model: WaveNet) -> dict[str, tuple[tf.Module, dict[str, Any]]]:
    encoder, step = model.encoder, _DecoderStep(model.decoder)
    width = model.config.ae_bottleneck_width
    encode = _function(
        lambda audio: {"embedding": encoder(audio)}, audio=([None, None], tf.float32)
    )
    state: dict[str, _Spec] = {
        "past": ([step.num_past, None, model.config.width], tf.float32),
        "newest": ([None, model.config.filter_length - 1], tf.float32),
        "position": ([], tf.int64),
    }
    signatures = {
        "start": _function(step.start, batch_size=([], tf.int32)),
        "step": _function(
            step.step,
            sample=([None], tf.int32),
            embedding=([None, width], tf.float32),
            **state,
        ),
    }
    return {
        "encoder": (_holding(encoder), {"serving_default": encode}),
        "decoder_step": (_holding(model.decoder), signatures),
    }


def _baseline(model: Baseline) -> dict[str, tuple[tf.Module, dict[str, Any]]]:
    encoder, decoder, config = model.encoder, model.decoder, model.config

    def encode(audio: tf.Tensor) -> dict[str, tf.Tensor]:
        few = tf.debugging.assert_greater_equal(tf.shape(audio)[1], config.min_samples)
        many = tf.debugging.assert_less_equal(tf.shape(audio)[1], config.max_samples)
        with tf.control_dependencies([few, many]):
            spec = network_input(tf.identity(audio), config)
        # One window, whose size is fixed.
        spec = tf.ensure_shape(spec, [None, config.num_bins, config.num_frames, 1])
        return {"z": encoder(spec)[:, 0, 0]}

    def decode(z: tf.Tensor, pitch: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = network_output(decoder(z[:, None, None], pitch), config.num_frames)
        return {"spectrogram": spec}

    sound: dict[str, _Spec] = {"audio": ([None, None], tf.float32)}
    code: dict[str, _Spec] = {
        "z": ([None, config.num_latent], tf.float32),
        "pitch": ([None], tf.int32),
    }
    return {
        "encoder": (_holding(encoder), {"serving_default": _function(encode, **sound)}),
        "decoder": (_holding(decoder), {"serving_default": _function(decode, **code)}),
    }


class _DecoderStep:
    """One step of the WaveNet's decoder, with the past as input and output.

    It uses the Keras layers' kernels. `StepwiseDecoder` is faster, because it keeps the
    past in place and computes ahead.
    """

    def __init__(self, decoder: WaveNetDecoder) -> None:
        self._decoder, self._config = decoder, decoder.config
        taps = self._config.filter_length - 1
        if not taps:
            raise InputError(
                "A decoder with one tap has no past; it can't be exported."
            )
        self._lengths = [taps * dilation for dilation in self._config.dilations]
        self._starts = np.cumsum([0, *self._lengths[:-1]])
        self.num_past = sum(self._lengths)
        self._levels = tf.constant(input_levels(self._config.rescale_inputs))

    def start(self, batch_size: tf.Tensor) -> dict[str, tf.Tensor]:
        """The state before the first sample."""
        config = self._config
        return {
            "past": tf.zeros([self.num_past, batch_size, config.width]),
            "newest": tf.zeros([batch_size, config.filter_length - 1]),
            "position": tf.constant(0, tf.int64),
        }

    def step(
        self,
        sample: tf.Tensor,
        embedding: tf.Tensor,
        past: tf.Tensor,
        newest: tf.Tensor,
        position: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """The next sample's probabilities, and the state after the step."""
        # Written so that TensorFlow can't merge several additions into one sum, whose
        # order would vary from run to run: see `WaveNetDecoder.call`.
        net, config = self._decoder, self._config
        seen = tf.concat([newest, tf.gather(self._levels, sample)[:, None]], axis=1)
        l = _dense(net.startconv, seen)  # noqa: E741
        minus_s = -_dense(net.skip_start, l)
        rows, inputs = [], []
        for i, dilation in enumerate(config.dilations):
            # A ring: the input of step n is at n % length.
            length = self._lengths[i]
            ages = dilation * np.arange(config.filter_length - 1, 0, -1)
            places = self._starts[i] + (position - ages) % length
            taps = [*tf.unstack(tf.gather(past, places), len(ages)), l]
            rows.append(self._starts[i] + position % length)
            inputs.append(l)
            d = _dense(net.dilatedconv[i], tf.concat(taps, axis=1))
            d = d + _dense(net.cond_map[i], embedding)
            gate, value = tf.split(d, 2, axis=1)
            d = tf.sigmoid(gate) * tf.tanh(value)
            minus_s = minus_s - _dense(net.skip[i], d)
            l = l + _dense(net.res[i], d)  # noqa: E741
        s = _dense(net.out1, tf.nn.relu(-minus_s))
        s = tf.nn.relu(s + _dense(net.cond_map_out1, embedding))
        logits = _dense(net.logits, s)
        return {
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "past": tf.tensor_scatter_nd_update(
                past, tf.stack(rows)[:, None], tf.stack(inputs)
            ),
            "newest": seen[:, 1:],
            "position": position + 1,
        }


def _dense(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """A convolution's product with [b, taps * channels], oldest tap first."""
    kernel = tf.cast(layer.kernel.value, tf.float32)
    product = x @ tf.reshape(kernel, [-1, kernel.shape[-1]])
    return tf.nn.bias_add(product, tf.cast(layer.bias.value, tf.float32))
