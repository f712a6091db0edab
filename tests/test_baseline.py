"""The spectral autoencoder against the original's outputs."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import load_decoder, load_encoder, recipe_tensors, save_tf1

from magenta_nsynth.config import NFFT_1024, SpectralConfig, read_fields
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.models.spectral import (
    BATCH_NORM_DECAY,
    SpectralAutoencoder,
    SpectralDecoder,
    SpectralEncoder,
    network_input,
    network_output,
    windows_of,
)
from magenta_nsynth.training.trainer import Trainer
from magenta_nsynth.weights import engine
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.summary import summarize

TINY = SpectralConfig(width=8, num_latent=124)


@pytest.fixture(scope="module")
def trace(data):
    return dict(np.load(data / "baseline_tiny" / "train_trace.npz"))


@pytest.fixture(scope="module", params=["baseline_tiny", "baseline_full"])
def pair(request, data, tmp_path_factory):
    """A model with the recipe's weights, and the original's outputs."""
    prefix = str(tmp_path_factory.mktemp(request.param) / "model.ckpt-351648")
    save_tf1(prefix, recipe_tensors(data / request.param / "variables.tsv", 2.0))
    golden = dict(np.load(data / request.param / "inference.npz"))
    return engine.load_autoencoder(prefix), golden


def test_the_released_size():
    model = SpectralAutoencoder()
    assert model.count_params() == 36_779_713
    assert len(model.weights) == 87
    assert model.config == NFFT_1024


def test_outputs_are_the_originals(pair):
    model, golden = pair
    spec = network_input(golden["audio"])
    np.testing.assert_allclose(spec, golden["spectrogram"], rtol=0, atol=1e-4)

    taps = {}
    h = golden["spectrogram"]
    for block in model.encoder.blocks:
        h = block(h)
        taps[block.name] = h
    z = model.encoder(golden["spectrogram"])
    np.testing.assert_array_equal(z, model.encoder.z(h))
    largest = np.abs(golden["z"]).max()
    np.testing.assert_allclose(z, golden["z"], rtol=0, atol=1e-5 * largest)

    decoded = model.decoder(z, golden["pitch"])
    np.testing.assert_allclose(decoded[:, ::8, ::8], golden["xhat"], rtol=0, atol=1e-5)
    losses = model.clip_losses(golden["spectrogram"], decoded).numpy()
    np.testing.assert_allclose(losses.mean(), golden["loss"], rtol=0, atol=2e-5)
    assert losses[0] != losses[1]

    # The decoder's blocks, by what goes into each.
    h = tf.concat(
        [
            tf.constant(golden["z"]),
            tf.gather(
                model.decoder.pitch_embedding.embeddings, golden["pitch"][:, :, None]
            ),
        ],
        axis=3,
    )
    for block in model.decoder.blocks:
        h = block(h)
        taps[block.name] = h
    assert len(taps) == 20
    for name, tap in taps.items():
        part, _, scope = name.partition("_")
        mean, deviation, most = golden[f"tap:{part}/{scope}_Layer/Maximum"]
        got = [np.mean(tap), np.std(tap), np.abs(tap).max()]
        np.testing.assert_allclose(
            got, [mean, deviation, most], rtol=0, atol=1e-5 * most, err_msg=name
        )


def test_a_batch_is_its_notes(pair):
    model, golden = pair
    alone = model(golden["spectrogram"][:1], golden["pitch"][:1])
    both = model(golden["spectrogram"], golden["pitch"])
    np.testing.assert_allclose(both[:1], alone, rtol=0, atol=1e-5)


def test_three_steps_are_the_originals(baseline_start, baseline_checkpoint, trace):
    trainer = Trainer(engine.load_autoencoder(baseline_start))
    # The original's spectrograms in place of our own, which differ in their last bits.
    trainer.model.training_loss = lambda batch: trainer.model.spectrogram_loss(
        batch["spectrogram"], batch["pitch"]
    )
    batch = {name: tf.constant(trace[name]) for name in ("spectrogram", "pitch")}
    losses = [trainer.train_step(batch, 1e-4)[0] for _ in range(3)]
    np.testing.assert_allclose(losses, trace["losses"], rtol=0, atol=2e-4)

    state = {name: v.numpy() for name, v in named_variables(trainer).items()}
    golden = Checkpoint(baseline_checkpoint)
    names = [name for name in golden.shapes if "/moving_" in name]
    assert len(names) == 42
    for name, wanted in golden.read(names):
        limit = 1e-3 * np.abs(wanted).max()
        assert np.abs(state[name] - wanted).max() <= limit, name


def named_variables(trainer):
    rows = trainer.state._rows
    return {row.name: v for row, v in zip(rows, trainer.state.variables, strict=True)}


def test_audio_trains_as_its_spectrogram(baseline_start, trace):
    import recipe

    audio = recipe.clips(64_000, 11, 8)
    trainer = Trainer(engine.load_autoencoder(baseline_start))
    batch = {"audio": tf.constant(audio), "pitch": tf.constant(trace["pitch"][:, 0])}
    loss, norm, _ = trainer.train_step(batch, 1e-4)
    np.testing.assert_allclose(loss, trace["losses"][0], rtol=0, atol=2e-4)
    assert np.isfinite(norm)


def test_what_is_saved_is_the_originals_kind(
    tmp_path, baseline_start, baseline_checkpoint, trace
):
    trainer = Trainer(engine.load_autoencoder(baseline_start))
    batch = {
        "audio": tf.random.stateless_uniform([2, 64_000], [0, 0], -1, 1),
        "pitch": tf.constant([0, 127]),
    }
    trainer.train_step(batch, 1e-4)
    trainer.train_step(batch, 1e-4)
    trainer.train_step(batch, 1e-4)
    trainer.state.save(tmp_path / "model.ckpt-3")
    golden, saved = Checkpoint(baseline_checkpoint), Checkpoint(tmp_path)
    assert saved.shapes == golden.shapes
    assert saved.dtypes == golden.dtypes
    assert saved.step == 3
    powers = ["beta1_power", "beta2_power"]
    assert dict(saved.read(powers)) == dict(golden.read(powers))
    # And goes on from there to the bit.
    again = Trainer(engine.load_autoencoder(tmp_path))
    again.state.restore(tmp_path)
    assert again.train_step(batch, 1e-4) == trainer.train_step(batch, 1e-4)
    for one, other in zip(trainer.state.variables, again.state.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    for moments in ("first_moments", "second_moments"):
        for one, other in zip(
            getattr(trainer.state, moments), getattr(again.state, moments), strict=True
        ):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_array_equal(one, other)


def test_a_trained_checkpoint_by_its_moving_averages(baseline_checkpoint, trace):
    model = engine.load_autoencoder(baseline_checkpoint)
    z = model.encoder(trace["spectrogram"])
    largest = np.abs(trace["z"]).max()
    np.testing.assert_allclose(z, trace["z"], rtol=0, atol=1e-5 * largest)
    decoded = model.decoder(trace["z"], trace["pitch"])
    np.testing.assert_allclose(decoded[:, ::8, ::8], trace["xhat"], rtol=0, atol=1e-5)


def test_training_mode_normalises_by_the_batch(baseline_start, trace):
    model = engine.load_autoencoder(baseline_start)
    before = [average.numpy() for average in model.moving_averages]
    statistics = []
    z = model.encoder.forward(trace["spectrogram"], True, statistics)
    # Wherever a channel hardly varies, float noise is divided by next to nothing.
    np.testing.assert_allclose(z, trace["train_mode_z"], rtol=0, atol=2e-3)
    assert len(statistics) == 22
    for average, value in zip(model.moving_averages, before, strict=True):
        np.testing.assert_array_equal(average, value)
    # As Keras calls it, the averages move.
    model.encoder(trace["spectrogram"], training=True)
    for average, value, batch in zip(
        model.moving_averages[:22], before, statistics, strict=False
    ):
        wanted = BATCH_NORM_DECAY * value + (1 - BATCH_NORM_DECAY) * batch
        np.testing.assert_allclose(average, wanted, rtol=1e-4, atol=1e-6)


def test_the_variance_that_is_kept_is_unbiased(trace):
    model = SpectralAutoencoder(TINY)
    statistics = []
    model.encoder.forward(trace["spectrogram"], True, statistics)
    assert len(statistics) == 22
    h = trace["spectrogram"]
    for block in model.encoder.blocks:
        h = block.forward(h, True, [])
    # Of the deepest layer there are only 8 values: a biased one is off by an eighth.
    out = tf.nn.conv2d(h, model.encoder.z.kernel, (1, 1), "SAME").numpy()
    assert out.shape == (8, 1, 1, 124)
    np.testing.assert_allclose(statistics[-2], out.mean(axis=(0, 1, 2)), atol=1e-5)
    unbiased = out.var(axis=(0, 1, 2), ddof=1, dtype=np.float64)
    np.testing.assert_allclose(statistics[-1], unbiased, rtol=1e-3)


@pytest.mark.parametrize("part", ["encoder", "decoder", "autoencoder"])
def test_keras_saves_and_loads_it(tmp_path, part, trace):
    cls = {
        "encoder": SpectralEncoder,
        "decoder": SpectralDecoder,
        "autoencoder": SpectralAutoencoder,
    }[part]
    model = cls(TINY)
    z = np.random.default_rng(0).normal(size=[2, 1, 1, 124]).astype(np.float32)
    spec, pitch = trace["spectrogram"][:2], np.array([0, 127])
    arguments = {
        "encoder": (spec,),
        "decoder": (z, pitch),
        "autoencoder": (spec, pitch),
    }
    wanted = model(*arguments[part])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.config == TINY
    np.testing.assert_allclose(again(*arguments[part]), wanted, rtol=0, atol=1e-6)


def test_it_trains_with_keras(trace):
    """As any Keras model, by its call: the averages move with it."""
    model = SpectralAutoencoder(TINY)
    spec, pitch = trace["spectrogram"][:2], trace["pitch"][:2]
    before = model.moving_averages[0].numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            model.clip_losses(spec, model(spec, pitch, training=True))
        )
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert len(gradients) == 45
    assert all(g is not None for g in gradients)
    assert np.abs(model.moving_averages[0] - before).max() > 0


def test_mixed_precision(trace):
    spec, pitch = trace["spectrogram"][:2], trace["pitch"][:2]
    model = SpectralAutoencoder(TINY, dtype="mixed_bfloat16")
    exact = SpectralAutoencoder(TINY)
    exact.set_weights(model.get_weights())
    decoded = model(spec, pitch)
    assert decoded.dtype == tf.float32
    assert {v.dtype for v in model.variables} == {"float32"}
    difference = np.abs(decoded - exact(spec, pitch)).max()
    assert 0 < difference < 0.1


def test_longer_clips_go_in_windows():
    clip = np.random.default_rng(1).uniform(-1, 1, [2, 70_000]).astype(np.float32)
    spec = network_input(clip)
    assert spec.shape == (2, 512, 512, 1)
    windows = windows_of(spec)
    assert windows.shape == (4, 512, 256, 1)
    np.testing.assert_array_equal(windows[1], spec[0, :, 256:])
    np.testing.assert_array_equal(windows[2], spec[1, :, :256])
    # 1 + 70,000 // 256 frames, then zeros.
    assert np.all(spec[:, :, 274:] == 0)
    assert np.any(spec[:, :, 273] != 0)
    assert network_input(clip[:, :65_535]).shape[2] == 256
    assert network_input(clip[:, :65_536]).shape[2] == 512
    out = network_output(spec, 251)
    assert out.shape == (2, 513, 251)
    assert not np.any(out[:, 512])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.encoder(np.zeros([1, 513, 256, 1])), "takes spectrograms of"),
        (lambda m: m.encoder(np.zeros([1, 512, 512, 1])), "`windows_of` cuts longer"),
        (
            lambda m: m.decoder(np.zeros([1, 1, 1, 16]), np.array([60])),
            "takes z of shape",
        ),
        (lambda m: m.decoder(np.zeros([2, 1, 1, 124]), np.array([1])), "pitch of each"),
        (lambda m: m.decoder(np.zeros([1, 1, 1, 124]), np.array([1.5])), "pitch of ea"),
        (
            lambda _: network_input(np.zeros(900, np.float32)),
            "must have shape .batch, time",
        ),
        (
            lambda _: SpectralEncoder(TINY, dtype="float64"),
            "can't have the dtype float64",
        ),
        (lambda _: SpectralConfig(width=0), "SpectralConfig.width must be a whole"),
    ],
)
def test_wrong_shapes_are_said(call, words):
    with pytest.raises(InputError, match=words):
        call(SpectralAutoencoder(TINY))


def test_loading_is_checked(tmp_path, data, baseline_checkpoint, tiny_checkpoint):
    tensors = recipe_tensors(data / "baseline_tiny" / "variables.tsv", 2.0)
    name = "decoder/7_Layer/7/BatchNorm/moving_mean"
    prefix = str(tmp_path / "model.ckpt-1")
    save_tf1(prefix, {n: v for n, v in tensors.items() if n != name})
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        load_encoder(prefix)
    save_tf1(prefix, {**tensors, name: np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match="of another shape"):
        load_decoder(prefix)
    with pytest.raises(CheckpointError, match="WaveNet autoencoder"):
        engine.load_autoencoder(tiny_checkpoint, model="baseline")
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        engine.load_autoencoder(baseline_checkpoint, use_ema=True)
    with pytest.raises(InputError, match="no --hop_length"):
        load_encoder(baseline_checkpoint, hop_length=256)


def test_every_tensor_goes_where_it_belongs(tmp_path, data):
    """With every number of the file another, a swap or a transpose shows."""
    count, distinct = 0, {}
    for name, value in recipe_tensors(
        data / "baseline_tiny" / "variables.tsv", 1.0
    ).items():
        distinct[name] = np.arange(count, count + value.size, dtype=np.float32)
        distinct[name] = distinct[name].reshape(value.shape)
        count += value.size
    prefix = str(tmp_path / "in" / "model.ckpt-7")
    (tmp_path / "in").mkdir()
    save_tf1(prefix, {**distinct, "global_step": np.int64(7)})
    model = engine.load_autoencoder(prefix)
    engine.save_weights(model, tmp_path / "out" / "model.ckpt-7", 7)
    back = Checkpoint(tmp_path / "out")
    assert back.dtypes["global_step"] == np.int64
    for name, value in back.read(distinct):
        np.testing.assert_array_equal(value, distinct[name])
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {
        "model": "baseline",
        "config": {"width": 8, "num_latent": 124, "pitch_width": 128},
    }
    kernel = model.decoder.blocks[3].kernel
    np.testing.assert_array_equal(kernel, distinct["decoder/3_Layer/3/weights"])
    wanted = distinct["encoder/7_1_Layer/7_1/BatchNorm/beta"]
    np.testing.assert_array_equal(model.encoder.blocks[8].beta, wanted)


def test_inspect_strip_and_config(tmp_path, baseline_checkpoint):
    text = summarize(baseline_checkpoint)
    assert "spectral baseline" in text
    assert "169,453 in 87 tensors" in text
    assert "optimiser state (90)" in text
    assert "complete:    yes" in text
    prefix = engine.strip_checkpoint(baseline_checkpoint, tmp_path / "stripped")
    stripped = Checkpoint(prefix)
    assert len(stripped.shapes) == 88
    assert stripped.step == 3
    assert stripped.dtypes["global_step"] == np.int64
    model, fields = read_fields(tmp_path / "stripped" / "config.json")
    assert (model, fields) == ("baseline", TINY.to_dict())
    assert read_fields("nfft_1024") == ("baseline", NFFT_1024.to_dict())


def test_the_forms_that_people_pass(tmp_path, baseline_checkpoint):
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(
            baseline_checkpoint + ending, tmp_path / f"model.ckpt-351648{ending}"
        )
    (tmp_path / "model.ckpt-351648.meta").write_bytes(b"a graph")
    prefix = tmp_path / "model.ckpt-351648"
    for path in (tmp_path, prefix, f"{prefix}.meta", f"{prefix}.index"):
        assert load_encoder(path).config == TINY
