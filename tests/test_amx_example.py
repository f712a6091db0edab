"""The example that trains on AMX tiles has the Keras model's loss and gradients."""

import pathlib
import shutil
import sys

import numpy as np
import pytest
import tfrecords
from binaries import ROOT, finish, run

from magenta_nsynth.weights.checkpoint import Checkpoint

CPU = pathlib.Path("/proc/cpuinfo")
HAS_AMX = CPU.exists() and "amx_bf16" in CPU.read_text() and shutil.which("g++")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_AMX, reason="needs g++ and a processor with AMX")
def test_a_step_is_that_of_nsynth_train(tmp_path):
    records = tfrecords.examples(range(4), length=4096)
    data = tfrecords.write(tmp_path / "notes.tfrecord", records)
    flags = [f"--train_path={data}", f"--logdir={tmp_path / 'logs'}"]
    flags += ["--batch_size=2", "--crop_length=2048", "--num_steps=1"]
    network = ["--width=32", "--skip_width=32", "--num_layers=4", "--num_stages=2"]
    network += ["--ae_width=32", "--ae_num_layers=4", "--ae_num_stages=2"]
    result = run("nsynth_train", *flags, *network)
    assert result.returncode == 0, result.stderr
    program = str(ROOT / "examples" / "amx_training" / "train.py")
    words = [sys.executable, program, *flags, "--pitch_weight=0.2"]
    words += ["--past_detune=0.9"]
    result = finish([*words, "--check"], timeout=300)
    assert result.returncode == 0, result.stderr + result.stdout
    assert result.stdout.count("gradients off by") == 2

    # The second run starts with the head that the first one saved.
    heads = []
    for num_steps in (2, 3):
        result = finish([*words, f"--num_steps={num_steps}"], timeout=300)
        assert result.returncode == 0, result.stderr + result.stdout
        checkpoint = Checkpoint(tmp_path / "logs")
        assert checkpoint.step == num_steps
        heads += [head for _, head in checkpoint.read(["pitch_head/W"])]
    assert np.abs(heads[0]).max() > 0
    moved = np.abs(heads[1] - heads[0]).max()
    assert 0 < moved < 1.5 * np.abs(heads[0]).max()
