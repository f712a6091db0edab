"""The library as a notebook uses it."""

import ast
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import recipe
import tensorflow as tf
from scipy.io import wavfile

import magenta_nsynth as nsynth
from magenta_nsynth.embeddings.clip_encoder import ClipEncoder
from magenta_nsynth.models import wavenet
from magenta_nsynth.weights import engine


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return nsynth.load_wavenet(tiny_checkpoint)


@pytest.fixture(scope="module")
def near(golden_tiny):
    def check(encoding, reference):
        scale = np.abs(golden_tiny["raw_encoding"]).max()
        assert np.abs(np.asarray(encoding) - reference).max() < 2e-5 * scale

    return check


def test_public_names_exist_and_importing_is_cheap():
    for name in nsynth.__all__:
        assert getattr(nsynth, name) is not None
    with pytest.raises(AttributeError):
        _ = nsynth.no_such_name
    code = (
        "import sys, time; start = time.perf_counter(); import magenta_nsynth;"
        "print(time.perf_counter() - start);"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'numpy')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 0.2


def test_type_checkers_see_the_public_names():
    """The imports for type checkers are those that `__getattr__` makes."""
    tree = ast.parse(pathlib.Path(nsynth.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert block.test.id == "TYPE_CHECKING"
    names = {node.names[0].asname: node.module for node in block.body}
    assert names == {name: f"magenta_nsynth.{m}" for name, m in nsynth._HOME.items()}


def test_a_checkpoint_is_opened_once(tiny_checkpoint, baseline_checkpoint, monkeypatch):
    opened = []
    real = tf.train.load_checkpoint

    def load_checkpoint(prefix):
        opened.append(prefix)
        return real(prefix)

    monkeypatch.setattr(tf.train, "load_checkpoint", load_checkpoint)
    for path, name in ((tiny_checkpoint, "wavenet"), (baseline_checkpoint, "baseline")):
        model = nsynth.load_model(path)
        assert (model.name, model.checkpoint_path) == (name, path)
        model.decoder(*decoder_inputs(model))
        assert model.encode(np.zeros(2048, np.float32)).shape[1] == model.num_latent
        engine.load_autoencoder(model.checkpoint)
    assert opened == [tiny_checkpoint, baseline_checkpoint]


def decoder_inputs(model):
    if model.name == "wavenet":
        return np.zeros([1, 512], np.float32), np.zeros([1, 1, 16], np.float32)
    return np.zeros([1, 1, 1, model.num_latent], np.float32), np.array([60])


def test_every_form_of_audio(model, golden_tiny, near, tmp_path):
    audio, reference = golden_tiny["audio"], golden_tiny["raw_encoding"]
    path = tmp_path / "a note.wav"
    wavfile.write(path, 16_000, audio[1])
    near(model.encode(audio[0]), reference[0])
    near(model.encode(list(audio[0])), reference[0])
    near(model.encode(audio), reference)
    near(model.encode(audio[..., None]), reference)
    near(model.encode(audio.astype(np.float64)), reference)
    near(model.encode(path), reference[1])
    near(model.encode(str(path)), reference[1])
    several = model.encode([audio[0], path, audio[1, :2100]])
    assert isinstance(several, list)
    assert [z.shape for z in several] == [(12, 16), (12, 16), (4, 16)]
    near(several[0], reference[0])
    near(several[1], reference[1])
    assert model.encode(audio, sample_length=1100).shape == (2, 2, 16)
    for encoding in (model.encode(audio), several[0]):
        assert encoding.dtype == np.float32


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros([2, 6144, 2]), "mix several channels"),
        (np.zeros(6144, np.int16), "divide 16-bit integers by"),
        (np.full(6144, np.nan), "NaN"),
        (np.zeros(511), "511"),
        ([], "empty"),
        (np.zeros([0, 6144]), "batch"),
        ("no such file.wav", "no such file.wav"),
    ],
)
def test_what_cannot_be_encoded(model, audio, message):
    with pytest.raises(nsynth.NSynthError, match=message):
        model.encode(audio)


def test_neighbours_batches_and_pieces_change_nothing(model, golden_tiny, near):
    """Against the original's embedding of the clip alone."""
    audio, reference = golden_tiny["audio"], golden_tiny["raw_encoding"]
    noise = np.random.default_rng(0).uniform(-1, 1, 9000).astype(np.float32)
    mixed = [noise[:700], audio[0], noise, audio[1], noise[:6144]]
    for batch_size in (1, 2, 16):
        encodings = model.encode(mixed, batch_size=batch_size)
        near(encodings[1], reference[0])
        near(encodings[3], reference[1])


def test_pieces_of_a_long_clip_join_without_a_seam(model):
    """The whole clip in one piece, as the original would, is the reference."""
    rng = np.random.default_rng(1)
    clip = rng.uniform(-1, 1, 70 * 512).astype(np.float32)
    whole = np.asarray(model.encoder(clip[None]))[0]
    scale = np.abs(whole).max()
    for piece_frames in (1, 7, 12, 64, 125):
        pieces = ClipEncoder(model.encoder, piece_frames)([clip])[0]
        assert np.abs(pieces - whole).max() < 1e-5 * scale


def test_pieces_have_all_of_their_context():
    """In a network whose farthest sample matters as much as the nearest."""
    config = nsynth.WaveNetConfig(
        ae_width=4, ae_num_layers=4, ae_num_stages=3, ae_hop_length=8
    )
    assert config.encoder_reach == 9  # a frame and a sample
    encoder = wavenet.WaveNetEncoder(config)
    rng = np.random.default_rng(0)
    for variable in encoder.variables:
        variable.assign(rng.normal(size=variable.shape))
    clip = rng.uniform(-1, 1, 30 * 8).astype(np.float32)
    whole = np.asarray(encoder(clip[None]))[0]
    for piece_frames in (1, 2, 5):
        pieces = ClipEncoder(encoder, piece_frames)([clip])[0]
        np.testing.assert_allclose(pieces, whole, atol=1e-5 * np.abs(whole).max())


def test_five_minutes(model):
    clip = np.tile(recipe.clips(60_000, 5, 1)[0], 80)
    encoding = model.encode(clip)
    assert encoding.shape == (len(clip) // 512, 16) and np.isfinite(encoding).all()
    # 512 * 375 is a whole number of the repeated clip, so the middle repeats too.
    np.testing.assert_allclose(encoding[1000:1300], encoding[2875:3175], atol=1e-4)


def test_encoding_never_builds_the_decoder(tiny_checkpoint, golden_tiny, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the decoder was built")

    monkeypatch.setattr(wavenet.WaveNetDecoder, "__init__", refuse)
    nsynth.load_wavenet(tiny_checkpoint).encode(golden_tiny["audio"])


def test_nll_is_the_originals(tiny_checkpoint, golden_tiny):
    for weights in ("raw", "ema"):
        model = nsynth.load_wavenet(tiny_checkpoint, use_ema=weights == "ema")
        nll = model.nll(golden_tiny["audio"])
        assert abs(nll - golden_tiny[f"{weights}_loss"]) < 2e-5


def test_nll_of_a_long_clip_is_the_whole_models(model):
    clip = recipe.clips(100 * 512, 9, 1)
    logits = model.decoder(clip, model.encoder(clip))
    whole = float(wavenet.negative_log_likelihood(clip, logits))
    assert abs(model.nll(clip[0]) - whole) < 2e-5


def test_generate_takes_what_encode_gives(model, golden_tiny):
    audio = golden_tiny["audio"]
    one = model.encode(audio[0])
    assert model.generate(one, 100, seed=0).shape == (100,)
    assert model.generate(one[None], 100, seed=0).shape == (1, 100)
    assert model.generate(model.encode(audio), 100, seed=0).shape == (2, 100)
    several = model.encode([audio[0], audio[1, :1024]])
    assert [len(clip) for clip in model.generate(several, seed=0)] == [6144, 1024]


def test_config_and_options(tiny_checkpoint):
    model = nsynth.load_wavenet(tiny_checkpoint, hop_length=1024, num_stages=5)
    assert model.config == nsynth.WaveNetConfig(
        width=16,
        skip_width=8,
        ae_width=8,
        ae_hop_length=1024,
        num_stages=5,
        ae_num_stages=5,
    )
    assert nsynth.WaveNetConfig() == nsynth.H512_BO16
    assert os.path.basename(model.checkpoint_path) == "model.ckpt-5"
    with pytest.raises(nsynth.CheckpointError, match="no such checkpoint"):
        nsynth.load_wavenet("nowhere/model.ckpt-1")
