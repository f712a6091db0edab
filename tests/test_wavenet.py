"""The Keras models against the original's outputs, and every way to run them."""

import pickle

import keras
import numpy as np
import pytest
import recipe
import tensorflow as tf
from conftest import load_encoder

from magenta_nsynth.audio.mu_law import mu_law
from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.errors import InputError
from magenta_nsynth.models.wavenet import (
    WaveNetAutoencoder,
    WaveNetDecoder,
    WaveNetEncoder,
    negative_log_likelihood,
)
from magenta_nsynth.weights.engine import load_autoencoder

SMALL = WaveNetConfig(
    width=6,
    skip_width=5,
    num_layers=4,
    num_stages=3,
    ae_width=7,
    ae_num_layers=5,
    ae_num_stages=2,
    ae_bottleneck_width=3,
    ae_hop_length=32,
)


def relative(ours, reference):
    return np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_tiny_equals_the_original(tiny_checkpoint, golden_tiny, weights):
    model = load_autoencoder(tiny_checkpoint, use_ema=weights == "ema")
    audio = golden_tiny["audio"]
    encoding = model.encoder(audio)
    assert relative(encoding, golden_tiny[f"{weights}_encoding"]) < 2e-5
    predictions = tf.nn.softmax(model(audio)).numpy()[:, ::96]
    for stepped in ("", "fastgen_"):
        reference = golden_tiny[f"{weights}_{stepped}predictions"]
        assert np.abs(predictions - reference).max() < 1e-6
    loss = float(model.negative_log_likelihood(audio))
    assert abs(loss - golden_tiny[f"{weights}_loss"]) < 2e-5


def test_raw_and_averaged_weights_differ(golden_tiny):
    """Or the two cases above would be one."""
    assert relative(golden_tiny["raw_encoding"], golden_tiny["ema_encoding"]) > 1e-2


def test_full_width_equals_the_original(full_checkpoint, golden_full):
    model = load_autoencoder(full_checkpoint)
    audio = golden_full["audio"]
    assert relative(model.encoder(audio), golden_full["encoding"]) < 1e-5
    logits = model(audio)
    predictions = tf.nn.softmax(logits).numpy()[:, ::192]
    assert np.abs(predictions - golden_full["predictions"]).max() < 1e-6
    loss = float(negative_log_likelihood(audio, logits))
    assert abs(loss - golden_full["loss"]) < 2e-5
    four_seconds = recipe.clips(64_000, int(golden_full["audio_long_seed"]), 1)
    encoding = model.encoder(four_seconds)
    assert relative(encoding, golden_full["encoding_long"]) < 1e-5


def test_parameter_count_of_the_released_model():
    model = WaveNetAutoencoder()
    assert model.count_params() == 61_804_048
    assert len(model.variables) == 374
    assert WaveNetEncoder().count_params() == 512 + 30 * 65_792 + 2_064
    assert model.get_config()["config"] == WaveNetConfig().to_dict()


def test_every_layer_carries_its_tf1_name():
    names = {layer.name for layer in WaveNetDecoder(SMALL).layers}
    assert {
        "startconv",
        "skip_start",
        "dilatedconv_4",
        "cond_map_out1",
        "res_4",
    } < names
    names = {layer.name for layer in WaveNetEncoder(SMALL).layers}
    assert {"ae_startconv", "ae_dilatedconv_5", "ae_res_1", "ae_bottleneck"} < names


WAYS = pytest.mark.parametrize(
    "way", ["function", "jit", "unknown shape", "jit, unknown"]
)


def compiled(model, way):
    """The encoding and the probabilities as a graph."""
    signature = [tf.TensorSpec([None, None], tf.float32)] if "unknown" in way else None
    return tf.function(
        lambda audio: (model.encoder(audio), tf.nn.softmax(model(audio))),
        jit_compile="jit" in way,
        input_signature=signature,
    )


@pytest.mark.slow
@WAYS
def test_compiled_in_every_way(tiny_checkpoint, golden_tiny, way):
    run = compiled(load_autoencoder(tiny_checkpoint), way)
    for audio in (golden_tiny["audio"][:, :1024], golden_tiny["audio"]):
        encoding, probabilities = run(tf.constant(audio))
    assert relative(encoding, golden_tiny["raw_encoding"]) < 2e-5
    reference = golden_tiny["raw_predictions"]
    assert np.abs(probabilities.numpy()[:, ::96] - reference).max() < 1e-6


@WAYS
def test_compiled_is_as_called(way):
    """Called as they are, the models equal the original (see above)."""
    keras.utils.set_random_seed(1)
    model = WaveNetAutoencoder(SMALL)
    run = compiled(model, way)
    for length in (64, 160):
        audio = recipe.clips(length, 3)
        encoding, probabilities = run(tf.constant(audio))
        assert relative(encoding, model.encoder(audio)) < 1e-5
        assert np.abs(probabilities - tf.nn.softmax(model(audio))).max() < 1e-6


def test_symbolic_inputs_of_unknown_batch_and_time(tiny_checkpoint, golden_tiny):
    encoder = load_encoder(tiny_checkpoint)
    inputs = keras.Input([None])
    functional = keras.Model(inputs, encoder(inputs))
    assert functional.output_shape[0] is None and functional.output_shape[2] == 16
    encoding = functional.predict(golden_tiny["audio"], verbose=0)
    assert relative(encoding, golden_tiny["raw_encoding"]) < 2e-5


def test_mixed_bfloat16_stays_near_the_original(tiny_checkpoint, golden_tiny):
    model = load_autoencoder(tiny_checkpoint, dtype="mixed_bfloat16")
    assert model.encoder.ae_startconv.compute_dtype == "bfloat16"
    assert all(variable.dtype == "float32" for variable in model.variables)
    encoding = model.encoder(golden_tiny["audio"])
    logits = model(golden_tiny["audio"])
    assert encoding.dtype == logits.dtype == tf.float32
    assert 1e-5 < relative(encoding, golden_tiny["raw_encoding"]) < 3e-2
    loss = float(negative_log_likelihood(golden_tiny["audio"], logits))
    assert abs(loss - golden_tiny["raw_loss"]) < 1e-2


@pytest.mark.parametrize("part", ["", "encoder", "decoder"])
@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_saved_and_loaded_as_keras_files(tmp_path, part, dtype):
    whole = WaveNetAutoencoder(SMALL, dtype=dtype)
    model = getattr(whole, part) if part else whole
    audio = recipe.clips(128, 3)
    arguments = (audio, whole.encoder(audio)) if part == "decoder" else (audio,)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is type(model) and again.config == model.config
    assert again.dtype_policy.name == model.dtype_policy.name
    np.testing.assert_array_equal(again(*arguments), model(*arguments))


def test_config_is_pickled_and_refuses_nonsense():
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    assert WaveNetConfig.from_dict(SMALL.to_dict()) == SMALL
    for wrong in ({"width": 0}, {"num_layers": 2.0}, {"ae_filter_length": 2}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            WaveNetConfig(**wrong)
    with pytest.raises(InputError, match="widht"):
        WaveNetConfig.from_dict({"widht": 3})


def test_any_config_runs_and_learns():
    keras.utils.set_random_seed(1)
    model = WaveNetAutoencoder(SMALL)
    audio = recipe.clips(128, 3)
    assert model.encoder(audio).shape == (2, 4, 3)
    with tf.GradientTape() as tape:
        loss = model.negative_log_likelihood(audio)
    assert abs(float(loss) - np.log(256)) < 1
    gradients = tape.gradient(loss, model.trainable_variables)
    without = {
        variable.path.split("/")[-2]
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None
    }
    assert without == {"res_4"}  # the one layer that the original never uses


def test_initial_kernels_are_the_originals():
    keras.utils.set_random_seed(1)
    kernel = WaveNetDecoder(WaveNetConfig(width=64)).dilatedconv[0].kernel.numpy()
    limit = np.sqrt(3 / (3 * 64))
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.std() / (limit / np.sqrt(3)) - 1) < 0.02


def test_the_decoder_does_not_look_ahead():
    model = WaveNetDecoder(SMALL)
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, [1, 96]).astype(np.float32)
    encoding = rng.normal(size=[1, 3, 3]).astype(np.float32)
    before = model(audio, encoding).numpy()
    audio[0, 50] *= -1
    after = model(audio, encoding).numpy()
    np.testing.assert_array_equal(before[0, :51], after[0, :51])
    assert np.abs(before[0, 51] - after[0, 51]).max() > 0


@pytest.mark.parametrize("shape", [(2, 100), (2, 0), (96,), (2, 96, 2)])
def test_other_shapes_are_refused_with_advice(shape):
    with pytest.raises(InputError, match=r"frames of 32|takes audio of shape"):
        WaveNetEncoder(SMALL)(np.zeros(shape, np.float32))


def test_three_dimensional_and_float64_audio(tiny_checkpoint, golden_tiny):
    encoder = load_encoder(tiny_checkpoint)
    audio = golden_tiny["audio"].astype(np.float64)[..., None]
    assert relative(encoder(audio), golden_tiny["raw_encoding"]) < 2e-5


@pytest.mark.parametrize("graph", [False, True])
def test_mu_law_falls_on_the_originals_side_of_every_step(data, graph):
    """Within 8 float32 steps of each of the 256 edges, as the original's graph."""
    edges = np.load(data / "mu_law_edges.npz")
    quantize = tf.function(mu_law) if graph else mu_law
    quantized = quantize(tf.constant(edges["audio"]))
    np.testing.assert_array_equal(quantized, edges["quantized"])


def test_label_of_full_scale_is_the_last_class():
    logits = np.zeros([1, 32, 256], np.float32)
    logits[..., 255] = 5
    loss = float(negative_log_likelihood(np.ones([1, 32], np.float32), logits))
    assert loss == pytest.approx(np.log(np.exp(5) + 255) - 5, rel=1e-5)


def test_linear_input_when_the_config_says_so(tiny_checkpoint, golden_tiny):
    config = load_encoder(tiny_checkpoint).config
    linear = WaveNetEncoder(
        WaveNetConfig.from_dict(config.to_dict() | {"rescale_inputs": False})
    )
    source = load_encoder(tiny_checkpoint)
    linear.set_weights(source.get_weights())
    # Fed with what the other sees, it has to see the same.
    companded = golden_tiny["quantized"].astype(np.float32) / 128
    assert relative(linear(companded), golden_tiny["raw_encoding"]) < 2e-5
