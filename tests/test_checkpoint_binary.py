"""nsynth_checkpoint: inspect, strip, and what it refuses."""

import os
import shutil

import numpy as np
import pytest
from binaries import error_line, names, run

from magenta_nsynth.api import WaveNet


def test_inspect(tiny_checkpoint):
    result = run("nsynth_checkpoint", "inspect", f"{tiny_checkpoint}.index")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    shown = {
        key: value.strip() for key, _, value in (ln.partition(":") for ln in lines)
    }
    assert shown["checkpoint"] == tiny_checkpoint
    assert shown["model"].startswith("WaveNet autoencoder")
    assert shown["encoder"].startswith("30 layers of width 8, dilations 1..512")
    assert shown["decoder"].startswith("30 layers of width 16, skip width 8")
    assert shown["embedding"].startswith("16 numbers per frame of 512 samples")
    assert shown["step"] == "5"
    # 374 tensors: those of h512_bo16, at these widths.
    assert shown["parameters"].endswith("in 374 tensors")
    assert shown["holds"] == (
        "raw weights (374), averaged weights (374), optimiser state (744)"
    )
    assert shown["size"].startswith("1,495 tensors")
    assert shown["complete"].startswith("yes")


def test_strip(tiny_checkpoint, golden_tiny, tmp_path):
    """Of the averages: the result encodes as the original does with them."""
    out = tmp_path / "new" / "small"
    result = run(
        "nsynth_checkpoint",
        "strip",
        f"--checkpoint_path={os.path.dirname(tiny_checkpoint)}",
        f"--save_path={out}",
        "--use_ema",
    )
    assert (result.returncode, result.stderr) == (0, "")
    prefix = out / "model.ckpt-5"
    assert result.stdout == f"Written: {prefix}\n"
    ending = ("data-00000-of-00001", "index")
    assert names(out) == [
        "checkpoint",
        "config.json",
        *(f"model.ckpt-5.{e}" for e in ending),
    ]
    size = os.path.getsize(f"{prefix}.data-00000-of-00001")
    assert size < os.path.getsize(f"{tiny_checkpoint}.data-00000-of-00001") / 3.9
    encoding = WaveNet(out).encode(golden_tiny["audio"])
    scale = np.abs(golden_tiny["ema_encoding"]).max()
    assert np.abs(encoding - golden_tiny["ema_encoding"]).max() < 2e-5 * scale


def test_a_damaged_checkpoint_is_one_line(tiny_checkpoint, tmp_path):
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(tiny_checkpoint + ending, tmp_path)
    data = tmp_path / "model.ckpt-5.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[10] ^= 1  # in ae_bottleneck/W, the first by name
    data.write_bytes(content)
    out = tmp_path / "out"
    result = run("nsynth_checkpoint", "strip", tmp_path, f"--save_path={out}")
    line = error_line(result)
    assert str(tmp_path / "model.ckpt-5") in line and "damaged" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "inspect, download, strip"),
        (["explain"], "inspect, download, strip"),
        (["inspect", "a", "b"], "'b'"),
        (["inspect", "a", "--checkpoint_path=b"], "'a'"),
        (["strip", "a"], "--save_path"),
        (["strip", "a", f"--save_path={__file__}"], "must be a folder"),
        (["download"], "download wavenet, baseline, train"),
        (
            ["download", "gansynth", "--save_path=x"],
            "download wavenet, baseline, train",
        ),
        (["download", "wavenet"], "--save_path"),
        (["download", "wavenet", f"--save_path={__file__}"], "must be a folder"),
        (["inspect", "a", "--source_path=b"], "source_path"),
    ],
)
def test_wrong_words_are_one_line(arguments, words):
    line = error_line(run("nsynth_checkpoint", *arguments))
    assert line.startswith("nsynth_checkpoint: ") and words in line
