"""The examples that widen a WaveNet and train a baseline write states of training."""

import sys

import numpy as np
import pytest
import tfrecords
from binaries import ROOT, finish, run

from magenta_nsynth import load_model
from magenta_nsynth.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

WAVENET = ["--width=8", "--skip_width=8", "--num_layers=4", "--num_stages=2"]
WAVENET += ["--ae_width=8", "--ae_num_layers=4", "--ae_num_stages=2"]
WAVENET += ["--batch_size=1", "--crop_length=2048", "--pitch_weight=0.2"]


def notes(tmp_path, length):
    records = tfrecords.examples(range(4), length=length)
    return f"--train_path={tfrecords.write(tmp_path / 'notes.tfrecord', records)}"


def start(name, *words):
    program = str(ROOT / "examples" / name)
    return finish([sys.executable, program, *words], timeout=300)


def example(name, *words):
    result = start(name, *words)
    assert result.returncode == 0, result.stderr + result.stdout


def refused(name, *words):
    result = start(name, *words)
    assert result.returncode == 1, result.stderr + result.stdout
    return result.stderr.splitlines()[-1]


def train(*words):
    result = run("nsynth_train", *words)
    assert result.returncode == 0, result.stderr


def values(path):
    checkpoint = Checkpoint(path)
    return dict(checkpoint.read(checkpoint.shapes))


def test_a_wider_wavenet_computes_the_same_and_trains_on(tmp_path):
    data, logdir = notes(tmp_path, 4096), tmp_path / "logs"
    train(data, f"--logdir={logdir}", "--num_steps=3", *WAVENET)
    wider = ["--width=12", "--skip_width=10", "--ae_width=14"]
    words = [f"--checkpoint_path={logdir}", f"--logdir={tmp_path / 'wide'}"]
    example("widen.py", *words, *wider)
    assert refused("widen.py", *words, *wider).endswith("give a new folder.")
    before, after = (
        load_model(tmp_path / name, use_ema=True) for name in ("logs", "wide")
    )
    assert after.config.width == 12
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, 2048).astype(np.float32)
    frames = before.encode(sound)
    assert np.abs(frames).max() > 0
    np.testing.assert_allclose(after.encode(sound), frames, rtol=1e-4, atol=1e-6)
    samples = [
        model.generate(frames, temperature=0.0, seed=1) for model in (before, after)
    ]
    np.testing.assert_array_equal(*samples)

    old = values(tmp_path / "wide")
    train(data, f"--logdir={tmp_path / 'wide'}", "--num_steps=4", *WAVENET[-3:])
    new = values(tmp_path / "wide")
    moved = np.abs(new["dilatedconv_1/W"] - old["dilatedconv_1/W"])
    # Gate and value, each 8 old and 4 new: all but those read the new channels.
    assert (moved[0, :, 8:, :8] > 0).any()
    assert (old["dilatedconv_1/W"][0, :, 8:, [*range(8), *range(12, 20)]] == 0).all()


def test_a_baseline_learns_from_codes_and_then_from_its_encoder(tmp_path):
    data, logdir = notes(tmp_path, 64_000), f"--logdir={tmp_path / 'logs'}"
    words = [data, logdir, "--learning_rate=1e-3", "--batch_size=4"]
    words += ["--width=4", "--num_latent=8"]
    example("train_baseline.py", *words, "--codes", "--num_steps=2")
    with_codes = values(tmp_path / "logs" / "model.ckpt-2")
    untrained = values(tmp_path / "logs" / "model.ckpt-0")
    # The shape is the run's.
    example("train_baseline.py", *words[:-2], "--num_steps=3")
    with_encoder = values(tmp_path / "logs")
    assert with_encoder["beta1_power"] == 0.5**2  # Adam started afresh
    line = refused("train_baseline.py", *words, "--codes", "--num_steps=5")
    assert "--codes comes first" in line
    assert "at step 3 already" in refused("train_baseline.py", *words, "--num_steps=3")
    train(data, logdir, "--model=baseline", "--num_steps=4", "--batch_size=4")
    assert Checkpoint(tmp_path / "logs").step == 4
    for name, value in untrained.items():
        if not name.startswith(("encoder", "decoder")):
            continue
        is_encoder = name.startswith("encoder")
        assert np.array_equal(with_codes[name], value) == is_encoder, name
        assert not np.array_equal(with_encoder[name], with_codes[name]), name
