"""Clips that are encoded part by part, and several at once."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from magenta_nsynth import WaveNetConfig
from magenta_nsynth.embeddings import clip_encoder
from magenta_nsynth.embeddings.clip_encoder import ClipEncoder
from magenta_nsynth.models.wavenet import WaveNetEncoder
from magenta_nsynth.weights.engine import load_autoencoder

# The farthest sample matters as much as the nearest, and so does every bias.
CONFIG = WaveNetConfig(ae_width=4, ae_num_layers=4, ae_num_stages=3, ae_hop_length=8)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Has parts of a frame or two where the real ones have thousands of samples."""
    sizes = {"CPU": 4 * 4 * 16, "GPU": 4 * 4 * 1024}
    monkeypatch.setattr(clip_encoder, "_LAYER_BYTES", sizes)


def encoder_of(dtype=None, **sizes):
    encoder = WaveNetEncoder(dataclasses.replace(CONFIG, **sizes), dtype=dtype)
    rng = np.random.default_rng(0)
    for variable in encoder.variables:
        variable.assign(rng.normal(size=variable.shape))
    return encoder


def assert_near(found, encoder, clip, tolerance=1e-5):
    """Compares with Keras' layers on the whole clip."""
    whole = np.asarray(encoder(clip[None, : len(clip) // 8 * 8]))[0]
    np.testing.assert_allclose(found, whole, atol=tolerance * np.abs(whole).max())


@pytest.mark.parametrize("length", [8, 16, 24, 26, 40, 320])
def test_parts_are_the_whole(length):
    encoder = encoder_of()
    clip = np.random.default_rng(1).uniform(-1, 1, length).astype(np.float32)
    assert_near(ClipEncoder(encoder)([clip])[0], encoder, clip)


@pytest.mark.parametrize("filter_length", [1, 5])
def test_layers_that_look_less_or_farther(filter_length):
    encoder = encoder_of(ae_filter_length=filter_length)
    clip = np.random.default_rng(1).uniform(-1, 1, 320).astype(np.float32)
    assert_near(ClipEncoder(encoder)([clip])[0], encoder, clip)


def test_the_originals_embedding_in_parts(tiny_checkpoint, golden_tiny):
    encoder = load_autoencoder(tiny_checkpoint).encoder
    found = ClipEncoder(encoder)(list(golden_tiny["audio"]))
    reference = golden_tiny["raw_encoding"]
    assert np.abs(found - reference).max() < 2e-5 * np.abs(reference).max()


def test_parts_in_bfloat16():
    encoder = encoder_of("mixed_bfloat16")
    clip = np.random.default_rng(1).uniform(-1, 1, 320).astype(np.float32)
    assert_near(ClipEncoder(encoder)([clip])[0], encoder, clip, 0.05)


def test_a_clips_numbers_are_the_same_to_the_bit_beside_others():
    encoder = encoder_of()
    rng = np.random.default_rng(1)
    clips = [rng.uniform(-1, 1, n).astype(np.float32) for n in (320, 8, 9000, 40, 320)]
    encode = ClipEncoder(encoder, piece_frames=50)
    for clip, found in zip(clips, encode(clips), strict=True):
        assert np.array_equal(found, encode([clip])[0])


def test_batches_of_a_gpu(monkeypatch):
    """Clips of equal length share a batch; the computation is the processor's."""
    encoder, shapes = encoder_of(), []
    encode_next = clip_encoder.encode_next

    def spy(encoder, audio, *context):
        shapes.append(tuple(audio.shape))
        return encode_next(encoder, audio, *context)

    monkeypatch.setattr(clip_encoder, "encode_next", spy)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: ["a GPU"])
    rng = np.random.default_rng(1)
    lengths = [320, 80, 320, 320, 80, 2400]
    clips = [rng.uniform(-1, 1, n).astype(np.float32) for n in lengths]
    tf.config.run_functions_eagerly(True)  # so that shapes are known
    try:
        found = ClipEncoder(encoder)(clips, batch_size=2)
    finally:
        tf.config.run_functions_eagerly(False)
    long = [(1, 1033), (1, 1024), (1, 343)]  # in parts
    assert shapes == [(2, 80), (2, 320), (1, 320), *long]
    for clip, rows in zip(clips, found, strict=True):
        assert_near(rows, encoder, clip)
