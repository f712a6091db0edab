"""SavedModels of a checkpoint: the original's numbers, without this package."""

import os
import subprocess
import sys

import pytest
from absl import logging

from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.api.serving import save_for_serving
from magenta_nsynth.errors import InputError

# Run by itself: the package can't be imported in there.
WAVENET = """
import sys
sys.modules["magenta_nsynth"] = None
import numpy as np, tensorflow as tf
folder, golden = sys.argv[1], dict(np.load(sys.argv[2]))
encode = tf.saved_model.load(folder + "/encoder").signatures["serving_default"]
z = encode(audio=tf.constant(golden["audio"]))["embedding"].numpy()
scale = np.abs(golden["raw_encoding"]).max()
assert np.abs(z - golden["raw_encoding"]).max() < 2e-5 * scale
assert encode(audio=tf.zeros([1, 1024]))["embedding"].shape == (1, 2, 16)

decoder = tf.saved_model.load(folder + "/decoder_step")
step, start = decoder.signatures["step"], decoder.signatures["start"]
uniforms, z = golden["raw_free_uniforms"], golden["raw_encoding"]
sample, state = np.array([128, 128], np.int32), start(batch_size=tf.constant(2))
assert sorted(state) == ["newest", "past", "position"]
for n in range(600):  # far enough for the longest dilation
    state = dict(step(
        sample=tf.constant(sample), embedding=tf.constant(z[:, n // 512]), **state))
    probabilities = state.pop("probabilities").numpy()
    state.pop("logits")
    below = np.cumsum(probabilities, axis=1) < uniforms[n][:, None]
    sample = below.sum(axis=1).astype(np.int32)
    x = np.where(sample == 128, 0, (sample - 127.5) / 128)
    sound = np.sign(x) / 255 * (256 ** np.abs(x) - 1)
    assert np.abs(sound - golden["raw_free_audio"][:, n]).max() < 1e-6, n

mu_law = golden["quantized"].astype(np.int32) + 128
state = start(batch_size=tf.constant(2))
for n in range(200):
    before = mu_law[:, n - 1] if n else np.array([128, 128], np.int32)
    state = dict(step(
        sample=tf.constant(before), embedding=tf.constant(z[:, n // 512]), **state))
    probabilities = state.pop("probabilities").numpy()
    state.pop("logits")
    if n % 96 == 0:
        reference = golden["raw_fastgen_predictions"][:, n // 96]
        assert np.abs(probabilities - reference).max() < 1e-6, n
print("the same")
"""

BASELINE = """
import sys
sys.modules["magenta_nsynth"] = None
import numpy as np, tensorflow as tf
folder, golden = sys.argv[1], dict(np.load(sys.argv[2]))
encode = tf.saved_model.load(folder + "/encoder").signatures["serving_default"]
z = encode(audio=tf.constant(golden["audio"]))["z"].numpy()
reference = golden["z"][:, 0, 0]
assert np.abs(z - reference).max() < 1e-5 * np.abs(reference).max()
decode = tf.saved_model.load(folder + "/decoder").signatures["serving_default"]
pitch = tf.constant(golden["pitch"][:, 0].astype(np.int32))
spec = decode(z=tf.constant(reference), pitch=pitch)["spectrogram"].numpy()
assert spec.shape == (2, 513, 256)
assert np.abs(spec[:, :512:8, ::8] - golden["xhat"][..., 0]).max() < 1e-5
for wrong in (100, 70_000):
    try:
        encode(audio=tf.zeros([1, wrong]))
    except tf.errors.InvalidArgumentError:
        continue
    raise AssertionError(wrong)
print("the same")
"""


def run_alone(script, tmp_path, golden):
    """The script, where nothing of this package is on the path."""
    kept = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", script, str(tmp_path), str(golden)]
    done = subprocess.run(
        words, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "the same\n", done.stderr[-2000:]


@pytest.mark.slow
def test_the_wavenets_savedmodels(tiny_checkpoint, tmp_path, data):
    paths = save_for_serving(WaveNet(tiny_checkpoint), tmp_path)
    assert [os.path.basename(p) for p in paths] == ["encoder", "decoder_step"]
    run_alone(WAVENET, tmp_path, data / "wavenet_tiny" / "inference.npz")
    with pytest.raises(InputError, match="exists already"):
        save_for_serving(WaveNet(tiny_checkpoint), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["decoder_step", "encoder"]


def test_the_baselines_savedmodels(baseline_start, tmp_path, data):
    logger = logging.get_absl_logger()
    level = logger.level
    save_for_serving(Baseline(baseline_start), tmp_path)
    assert logger.level == level  # or progress is silent from now on
    run_alone(BASELINE, tmp_path, data / "baseline_tiny" / "inference.npz")
