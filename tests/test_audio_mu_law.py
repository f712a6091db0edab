"""Mu-law against the original's own numbers."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from magenta_nsynth.audio.mu_law import (
    class_labels,
    class_values,
    inverse_mu_law,
    mu_law,
)

# The arrays mu_* and inv_* that the original graph (TensorFlow compat.v1 on CPU) and
# its NumPy decoder gave; never made with this package.
GOLDEN = np.load(pathlib.Path(__file__).parent / "data" / "audio_mu_law.npz")

WAYS = {
    "eager": lambda op: op,
    "graph": tf.function,
    "xla": lambda op: tf.function(op, jit_compile=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_mu_law_equals_the_original(way):
    quantized = WAYS[way](mu_law)(GOLDEN["mu_in"])
    assert quantized.dtype == tf.float32
    np.testing.assert_array_equal(quantized, GOLDEN["mu_out"])


@pytest.mark.parametrize("way", WAYS)
def test_inverse_equals_the_original(way):
    audio = WAYS[way](inverse_mu_law)(GOLDEN["inv_in"])
    assert audio.dtype == tf.float32
    np.testing.assert_array_equal(audio, GOLDEN["inv_out"])


def test_nothing_is_clamped():
    np.testing.assert_array_equal(mu_law([1.0, 1.5, -1.5, 0.0]), [128, 137, -138, 0])


def test_mu_law_takes_other_floats():
    audio = np.linspace(-1, 1, 101)
    np.testing.assert_array_equal(mu_law(audio), mu_law(audio.astype(np.float32)))


def test_every_class_survives_a_round_trip():
    quantized = np.arange(-128, 128)
    np.testing.assert_array_equal(mu_law(inverse_mu_law(quantized)), quantized)
    np.testing.assert_array_equal(mu_law(class_values()), quantized)


def test_labels_are_clamped_to_the_classes():
    labels = class_labels(tf.constant([-138.0, -128.0, -1.0, 0.0, 127.0, 128.0, 137.0]))
    assert labels.dtype == tf.int32
    np.testing.assert_array_equal(labels, [0, 0, 127, 128, 255, 255, 255])


def test_class_values_equal_the_originals_numpy_decoder():
    values = class_values()
    assert values.shape == (256,)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, GOLDEN["inv_np"][:256])
    assert values[128] == 0.0
    # The two decoders of the original differ, in the last bit.
    assert 0 < np.abs(values - GOLDEN["inv_out"][:256]).max() < 1e-7
