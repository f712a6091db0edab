"""What every test may use: the original's outputs and the weights behind them."""

import os
import pathlib
import signal

# Before TensorFlow is imported, or its C++ side reports on every device it looks for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import recipe

# A shell's background jobs ignore Ctrl-C, nohup's a hang-up, and so would the programs
# that tests start and then signal. A handler, unlike SIG_IGN, is not handed on.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

DATA = pathlib.Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    return DATA


@pytest.fixture(scope="session")
def tiny_checkpoint() -> str:
    """The prefix of a training checkpoint made by the original: 1,495 tensors."""
    return str(DATA / "wavenet_tiny" / "model.ckpt-5")


@pytest.fixture(scope="session")
def golden_tiny() -> dict[str, np.ndarray]:
    """The original's outputs for `tiny_checkpoint`."""
    return dict(np.load(DATA / "wavenet_tiny" / "inference.npz"))


@pytest.fixture(scope="session")
def golden_full() -> dict[str, np.ndarray]:
    """The original's outputs for `full_checkpoint`."""
    return dict(np.load(DATA / "wavenet_full" / "inference.npz"))


@pytest.fixture(scope="session")
def full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An h512_bo16 checkpoint with the recipe's weights, raw tensors only (247 MB).

    Written with TensorFlow's own operation: nothing of what is tested made it.
    """
    prefix = str(tmp_path_factory.mktemp("full") / "model.ckpt-200000")
    save_tf1(prefix, recipe_tensors(DATA / "wavenet_full" / "variables.tsv", 0.8))
    return prefix


@pytest.fixture(scope="session")
def baseline_checkpoint() -> str:
    """The prefix of the baseline's training checkpoint made by the original."""
    return str(DATA / "baseline_tiny" / "model.ckpt-3")


@pytest.fixture(scope="session")
def baseline_start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The baseline at a sixteenth of its width with the recipe's weights."""
    prefix = str(tmp_path_factory.mktemp("baseline") / "model.ckpt-0")
    save_tf1(prefix, recipe_tensors(DATA / "baseline_tiny" / "variables.tsv", 2.0))
    return prefix


@pytest.fixture(scope="module")
def driver():
    """The port of a chromedriver."""
    from browser import driver_port

    yield from driver_port()


def load_encoder(path, **options):
    """A checkpoint's encoder; the decoder's weights are not read."""
    from magenta_nsynth.api import load_model

    return load_model(path, **options).encoder


def load_decoder(path, **options):
    """A checkpoint's decoder, likewise."""
    from magenta_nsynth.api import load_model

    return load_model(path, **options).decoder


def recipe_tensors(table: pathlib.Path, gain: float) -> dict[str, np.ndarray]:
    tensors = {}
    for line in table.read_text().splitlines():
        name, _, shape = line.split("\t")
        shape = tuple(int(size) for size in shape.split(",") if size)
        tensors[name] = recipe.weights(name, shape, gain)
    return tensors


def save_tf1(prefix: str, tensors: dict[str, np.ndarray]) -> None:
    import tensorflow as tf

    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
