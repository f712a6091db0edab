"""The binaries as processes: exit status, one-line errors, help without TensorFlow."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.io import wavfile

ROOT = pathlib.Path(__file__).parent.parent
COMMANDS = ["nsynth_save_embeddings", "nsynth_generate", "nsynth_checkpoint"]


def command(name, *arguments):
    return [sys.executable, str(ROOT / "bin" / name), *map(str, arguments)]


def run(name, *arguments, **options):
    return subprocess.run(
        command(name, *arguments), capture_output=True, text=True, **options
    )


def refused(done, *parts):
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_quick_and_needs_no_tensorflow(name, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = run(name, "--help", env=environment)
        times.append(time.perf_counter() - start)
    assert done.returncode == 0 and done.stderr == ""
    assert "--checkpoint_path" in done.stdout and f"{name} " in done.stdout
    assert min(times) < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_is_one_line(name):
    refused(run(name, "--sauce_path=x"), name, "sauce_path")


def test_leftover_words_and_bad_values():
    refused(run("nsynth_generate", "a.wav", "b.wav"), "a.wav", "--source_path")
    refused(run("nsynth_generate", "--temperature=-1"), "temperature")
    refused(run("nsynth_save_embeddings", "--log=LOUD"), "log")
    refused(run("nsynth_checkpoint"), "inspect")


def test_wrong_checkpoint_is_one_line(tmp_path):
    refused(
        run("nsynth_generate", f"--source_path={tmp_path}", f"--save_path={tmp_path}"),
        "model.ckpt-200000",
        "no such checkpoint",
    )


def test_embeddings_through_the_binary(tiny_checkpoint, golden_tiny, tmp_path):
    wavfile.write(tmp_path / "-a b.wav", 16_000, golden_tiny["audio"][0])
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    done = run(
        "nsynth_save_embeddings",
        f"--source_path={tmp_path}",
        f"--expdir={os.path.dirname(tiny_checkpoint)}",
        f"--save_path={tmp_path}/out",
        "--use_ema",
        "--log=error",
    )
    assert done.returncode == 1
    assert "bad.wav" in done.stderr and "1 of 2 files failed" in done.stderr
    assert "Traceback" not in done.stderr
    encoding = np.load(tmp_path / "out" / "-a b_embeddings.npy")
    reference = golden_tiny["ema_encoding"][0]
    assert np.abs(encoding - reference).max() < 2e-5 * np.abs(reference).max()


def test_kill_and_interrupt_then_skip_existing(tiny_checkpoint, golden_tiny, tmp_path):
    out = tmp_path / "out"
    np.save(tmp_path / "z.npy", np.repeat(golden_tiny["raw_encoding"][0], 20, axis=0))
    arguments = command(
        "nsynth_generate",
        f"--source_path={tmp_path}/z.npy",
        f"--checkpoint_path={tiny_checkpoint}",
        f"--save_path={out}",
        "--seed=1",
        "--samples_per_save=300",
        "--skip_existing",
        "--sample_length=3072",
        "--batch_size=1",
    )

    def broken_off(how):
        # Much to do, so that it is broken off in the middle.
        process = subprocess.Popen(
            [*arguments[:-2], "--sample_length=0"],
            stderr=subprocess.PIPE,
            text=True,
        )
        waited = 0.0
        while not (out / "gen_z.wav").exists() and waited < 120:
            time.sleep(0.05)
            waited += 0.05
        process.send_signal(how)
        return process.wait(60), process.stderr.read()

    status, _ = broken_off(signal.SIGKILL)
    assert status == -signal.SIGKILL
    wavfile.read(out / "gen_z.wav")  # whole as a file, whenever it is looked at
    assert (out / "gen_z.wav.unfinished").exists()
    (out / "gen_z.wav").unlink()
    status, errors = broken_off(signal.SIGINT)
    assert status == 130
    assert "kept in" in errors and "Traceback" not in errors
    subprocess.run(arguments, check=True, capture_output=True)
    assert len(wavfile.read(out / "gen_z.wav")[1]) == 3072
    assert not (out / "gen_z.wav.unfinished").exists()


def test_checkpoint_binary(tiny_checkpoint, tmp_path):
    done = run("nsynth_checkpoint", "inspect", tiny_checkpoint)
    assert done.returncode == 0 and "width 16" in done.stdout
    done = run(
        "nsynth_checkpoint",
        "strip",
        f"--checkpoint_path={tiny_checkpoint}",
        f"--save_path={tmp_path}",
    )
    assert done.returncode == 0 and "model.ckpt-5" in done.stdout
    assert (tmp_path / "model.ckpt-5.index").exists()
    refused(run("nsynth_checkpoint", "inspect", tmp_path / "nothing"), "nothing")
