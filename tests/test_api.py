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
from magenta_nsynth.api.sounds import as_clips
from magenta_nsynth.embeddings.clip_encoder import ClipEncoder
from magenta_nsynth.embeddings.embedding import Embedding
from magenta_nsynth.embeddings.exported import ExportedNote
from magenta_nsynth.importing import tensorflow_import
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


def test_help_begins_with_the_public_names():
    for name in nsynth._HOME:
        assert name in nsynth.__doc__, name
    assert dir(nsynth) == sorted(nsynth.__all__)


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
    ("dtype", "offset", "scale"),
    [
        ("int8", 0, 2**7),
        ("uint8", 2**7, 2**7),
        ("int16", 0, 2**15),
        ("int32", 0, 2**31),
        ("float16", 0, 1),
        ("float64", 0, 1),
        ("longdouble", 0, 1),
        (tf.bfloat16.as_numpy_dtype, 0, 1),
    ],
)
def test_every_type_of_sample(dtype, offset, scale):
    steps = np.array([-0.5, -0.25, 0.0, 0.75])  # exact in each of them
    [clip], _ = as_clips((steps * scale + offset).astype(dtype), 0, lambda x, _: x)
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip, steps)


class Tensor:
    """As those of other libraries: NumPy can read it, or not if it is elsewhere."""

    def __init__(self, values, device="cpu"):
        self.values, self.device = values, device

    def __array__(self, dtype=None, copy=None):
        if self.device != "cpu":
            raise TypeError(f"can't convert {self.device} tensor to numpy.")
        return np.asarray(self.values, dtype)


def test_arrays_of_other_libraries(model, golden_tiny, near):
    audio, reference = golden_tiny["audio"], golden_tiny["raw_encoding"]
    near(model.encode(Tensor(audio[0])), reference[0])
    near(model.encode(Tensor(audio[0][:, None])), reference[0])  # a table's column
    near(model.encode(tf.constant(audio)), reference)
    one, other = model.encode([Tensor(audio[0]), tf.constant(audio[1])])
    near(one, reference[0])
    near(other, reference[1])
    with pytest.raises(nsynth.InputError, match=r"Tensor .*can't convert cuda tensor"):
        model.encode(Tensor(audio[0], "cuda"))
    sound = model.generate(Tensor(one), 20, seed=0)
    np.testing.assert_array_equal(sound, model.generate(one, 20, seed=0))


def test_a_column_of_paths(model, golden_tiny, near, tmp_path):
    paths = [str(tmp_path / f"{i}.wav") for i in range(2)]
    for path, audio in zip(paths, golden_tiny["audio"], strict=True):
        wavfile.write(path, 16_000, audio)
    for column in (np.array(paths), np.array(paths, object)):
        encodings = model.encode(column)
        near(encodings[1], golden_tiny["raw_encoding"][1])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros([2, 6144, 2]), "mix several channels"),
        (np.zeros([6144, 2]), r"the last axis .* 2 channels"),
        ([np.zeros([6144, 2])], r"sound 0: the last axis .* 2 channels"),
        ((16_000, np.zeros(6144)), "a rate and samples"),
        ((np.zeros(6144), 16_000), "a rate and samples"),
        (np.zeros(6144, np.int64), "not int64"),
        (np.zeros(6144, np.complex64), "not complex64"),
        (None, "not NoneType"),
        (np.full(6144, 9000.0), "divide by 32768"),
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


@pytest.mark.slow
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


def test_reconstruction_is_encoding_and_generating(model, golden_tiny):
    audio = golden_tiny["audio"]
    wanted = model.generate(model.encode(audio[0, :700]), seed=3, temperature=0.5)
    sound = model.reconstruct(audio[0], 700, seed=3, temperature=0.5)
    np.testing.assert_array_equal(sound, wanted)
    assert model.reconstruct(audio, 600, seed=0).shape == (2, 512)


def test_progress(model, golden_tiny, capsys):
    z, seen = model.encode(golden_tiny["audio"][0]), []
    model.generate(z, 100, seed=0)
    assert capsys.readouterr().err == ""
    model.generate(z, 100, seed=0, progress=True)
    assert "100/100 samples" in capsys.readouterr().err
    model.generate(z, 100, seed=0, progress=lambda *pair: seen.append(pair))
    assert seen[-1] == (100, 100) and capsys.readouterr().err == ""


def test_what_models_say_of_themselves(tiny_checkpoint, baseline_checkpoint, capsys):
    model = nsynth.load_wavenet(tiny_checkpoint, use_ema=True)
    assert repr(model) == (
        f"<WaveNet {tiny_checkpoint!r}: 16 numbers per 512 samples, width 16, "
        "averaged weights>"
    )
    model.summary()
    baseline = nsynth.load_baseline(baseline_checkpoint)
    assert repr(baseline).startswith(f"<Baseline {baseline_checkpoint!r}: z of")
    baseline.summary()
    text = capsys.readouterr().out
    assert "WaveNet autoencoder" in text and "spectral baseline" in text


def test_the_repr_of_an_embedding():
    rows = np.zeros([125, 16], np.float32)
    embedding = Embedding("flute", "flute.wav", rows, 64_000, {"pitch": 60})
    text = "<Embedding 'flute': float32 [125, 16], 64,000 samples, pitch 60>"
    assert repr(embedding) == text
    note = ExportedNote("a", 60, 75, "flute", "acoustic", (), 64_000, rows)
    assert repr(note).endswith("num_samples=64000, embedding='float32 [125, 16]')")


def test_the_bundled_checkpoint_has_a_name(tmp_path, monkeypatch, tiny_checkpoint):
    monkeypatch.chdir(tmp_path)
    assert nsynth.load_wavenet("small").config.width == 64
    notes = nsynth.example_notes()
    assert len(notes) == 6 and nsynth.load_audio(notes[1]).shape == (64_000,)
    (tmp_path / "small").symlink_to(os.path.dirname(tiny_checkpoint))
    assert nsynth.load_wavenet("small").config.width == 16
    (tmp_path / "small").unlink()
    (tmp_path / "small").mkdir()
    with pytest.raises(nsynth.CheckpointError, match="nsynth_checkpoint download"):
        nsynth.load_wavenet("small")


def test_a_numpy_that_does_not_fit_is_named(monkeypatch):
    versions = {"numpy": "2.4.6", "tensorflow": "2.17.1"}
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    monkeypatch.delitem(sys.modules, "tensorflow")
    message = pytest.raises(nsynth.NSynthError, match=r"NumPy 2\.4 .* 2\.17 .*numpy<2")
    with message, tensorflow_import():
        pass
    for fitting in ({"numpy": "1.26.4"}, {"tensorflow": "2.18.0"}):
        monkeypatch.setattr("importlib.metadata.version", {**versions, **fitting}.get)
        with tensorflow_import():
            pass


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
