"""bin/nsynth_train and bin/nsynth_evaluate, as a user runs them."""

import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import binaries
import numpy as np
import pytest
import tensorflow as tf
from notes import SMALL, SMALL_FLAGS, make_notes

from magenta_nsynth.commands.evaluation_tables import Measured, table
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.schema import Note, parse_note_str
from magenta_nsynth.training.evaluation import NoteLosses
from magenta_nsynth.training.recipes import RECIPES
from magenta_nsynth.weights import engine
from magenta_nsynth.weights.checkpoint import Checkpoint

FLAGS = ["--crop_length=1024", "--batch_size=4", "--learning_rate=1e-3"]


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    return make_notes(tmp_path_factory.mktemp("notes") / "train.tfrecord")


def train_command(notes, logdir, *flags):
    words = [f"--train_path={notes}", f"--logdir={logdir}", *FLAGS, *SMALL_FLAGS]
    return binaries.command("nsynth_train", *words, *flags)


def run_train(notes, logdir, *flags, **options):
    return binaries.finish(train_command(notes, logdir, *flags), **options)


def tensors_of(path):
    checkpoint = Checkpoint(path)
    return dict(checkpoint.read(checkpoint.shapes))


def assert_same_tensors(path, other):
    one, two = tensors_of(path), tensors_of(other)
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(notes, tmp_path_factory):
    """A training of 30 steps in one go."""
    logdir = tmp_path_factory.mktemp("whole") / "logdir"
    extra = ["--num_steps=30", f"--eval_path={notes}", "--eval_steps=20"]
    result = run_train(notes, logdir, *extra, "--save_summaries_secs=0")
    assert result.returncode == 0, result.stderr
    return logdir, result.stderr


def test_what_a_training_leaves(whole):
    logdir, said = whole
    assert "From step 0 to 30: 12 notes, 4 crops of 1024 samples a step." in said
    checkpoint = Checkpoint(logdir)
    assert checkpoint.step == 30
    assert engine.read_config(checkpoint) == SMALL
    layers = 4 * (2 + 4) + 7  # of encoder, of decoder, and the others
    assert len(checkpoint.shapes) == 4 * 2 * layers - 4 + 3
    assert sorted(path.name for path in logdir.glob("*.index")) == [
        "model.ckpt-0.index",
        "model.ckpt-30.index",
    ]
    assert re.search(
        r"Step 20: \d\.\d{4} nats \(\d\.\d{4} bits\) per sample on 12", said
    )
    assert re.search(r"loss \d\.\d{3} +30/30 steps +[\d.]+ steps/\w+", said)


def read_events(logdir):
    """The scalars in a folder's summaries, by name and step; the other names."""
    [events] = logdir.glob("events*")
    scalars, others = {}, set()
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            tensor = tf.make_ndarray(value.tensor)
            if tensor.shape == ():
                scalars.setdefault(value.tag, {})[event.step] = float(tensor)
            else:
                others.add(value.tag)
    return scalars, others


def test_summaries(whole):
    scalars, others = read_events(whole[0])
    assert list(scalars["train/loss_nats"]) == list(range(1, 31))
    losses = list(scalars["train/loss_nats"].values())
    assert math.log(256) - 0.5 < losses[0] < 6.5
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert set(scalars["train/learning_rate"].values()) == {float(np.float32(1e-3))}
    assert min(scalars["train/gradient_norm"].values()) > 0
    assert min(scalars["train/steps_per_second"].values()) > 0
    nats, bits = (scalars[f"eval/loss_{unit}"] for unit in ("nats", "bits"))
    assert list(nats) == [0, 20, 30]
    assert bits[30] == pytest.approx(nats[30] / math.log(2), rel=1e-6)
    names = {"original", "teacher_forced"}
    assert others == names | {f"rainbowgram/{name}" for name in names}


@pytest.mark.slow  # being killed is tested always
def test_stopping_and_going_on_makes_the_same_weights(tmp_path, notes, whole):
    first = run_train(notes, tmp_path / "logdir", "--num_steps=11")
    assert first.returncode == 0, first.stderr
    second = run_train(notes, tmp_path / "logdir", "--additional_steps=19")
    assert "From step 11 to 30" in second.stderr
    assert_same_tensors(whole[0], tmp_path / "logdir")


def test_going_on_with_noise_makes_the_same_weights(tmp_path, notes, whole):
    flags = ["--past_noise=3", "--past_detune=0.5", "--pitch_weight=0.2"]
    flags += ["--num_steps=4", "--save_summaries_secs=0"]
    assert run_train(notes, tmp_path / "whole", *flags).returncode == 0
    for stop in ("--num_steps=2", "--num_steps=4"):
        assert run_train(notes, tmp_path / "parts", *flags, stop).returncode == 0
    assert_same_tensors(tmp_path / "whole", tmp_path / "parts")
    assert run_train(notes, tmp_path / "clean", "--num_steps=4").returncode == 0
    noisy, clean = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "clean")
    assert not np.array_equal(noisy["logits/W"], clean["logits/W"])
    assert np.abs(noisy["pitch_head/W"]).max() > 0
    scalars = read_events(tmp_path / "whole")[0]["train/pitch_loss_nats"]
    # At first all 128 pitches have the same chance.
    assert scalars[1] == pytest.approx(math.log(128), abs=1e-5)
    assert scalars[4] < scalars[1]


def test_a_finished_training_says_so(notes, whole):
    line = binaries.error_line(run_train(notes, whole[0], "--num_steps=30"))
    assert "step 30" in line and "--additional_steps" in line


def kill_until_done(notes, logdir, num_steps, seed, kills):
    """Starts a training again and again, and ends it at random moments."""
    draw = random.Random(seed)
    words = train_command(notes, logdir, f"--num_steps={num_steps}", "--save_secs=0")
    for number in kills:
        process = binaries.start(words)
        seen = len(list(logdir.glob("*.index")))
        deadline = time.monotonic() + 60
        while len(list(logdir.glob("*.index"))) <= seen and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            if seen >= 5:  # the oldest is removed for each new one
                break
        time.sleep(draw.uniform(0, 1.5))
        process.send_signal(number)
        result = binaries.finish_started(process)
        errors = result.stderr
        assert "Traceback" not in errors, errors
        if result.returncode == 130:
            assert "Saved step" in errors or "stopped." in errors, errors
        for path in logdir.glob("*.index"):
            Checkpoint(str(path))  # none is broken


@pytest.mark.parametrize(
    "kills",
    [
        [signal.SIGINT, signal.SIGKILL],
        pytest.param(
            [signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL] * 5,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["two", "twenty"],
)
def test_killed_at_random_moments(tmp_path, notes, kills):
    num_steps = 60 * len(kills)
    kill_until_done(notes, tmp_path / "killed", num_steps, 1, kills)
    last = run_train(notes, tmp_path / "killed", f"--num_steps={num_steps}")
    assert last.returncode == 0 or "is reached" in last.stderr, last.stderr
    through = run_train(notes, tmp_path / "through", f"--num_steps={num_steps}")
    assert through.returncode == 0
    assert_same_tensors(tmp_path / "killed", tmp_path / "through")
    assert not list((tmp_path / "killed").glob(".writing-*"))


def test_starting_from_another_checkpoint(tmp_path, notes, tiny_checkpoint):
    """Of the original's own training; hop and cycle are its defaults."""
    words = [f"--train_path={notes}", *FLAGS, "--additional_steps=1"]
    words += [f"--logdir={tmp_path}", f"--checkpoint_path={tiny_checkpoint}"]
    result = binaries.run("nsynth_train", *words, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "From step 5 to 6" in result.stderr
    assert len(Checkpoint(tmp_path).shapes) == 1495


def test_the_folders_own_checkpoint_comes_first(tmp_path, notes, whole):
    start = f"--checkpoint_path={whole[0] / 'model.ckpt-0'}"
    for begin, end in ((0, 2), (2, 4)):
        result = run_train(notes, tmp_path, start, "--additional_steps=2")
        assert f"From step {begin} to {end}" in result.stderr


def test_another_width_is_refused(tmp_path, notes, tiny_checkpoint):
    start = f"--checkpoint_path={tiny_checkpoint}"
    words = [f"--train_path={notes}", f"--logdir={tmp_path / 'logdir'}", start]
    line = binaries.error_line(binaries.run("nsynth_train", *words, "--width=32"))
    assert "width is 16 there and 32 was asked for" in line
    line = binaries.error_line(
        binaries.run("nsynth_train", *words, "--config=h512_bo16")
    )
    assert "width is 16 there and 512 was asked for" in line
    assert not list((tmp_path / "logdir").glob("*.index"))


def test_a_loss_that_is_not_finite(tmp_path, notes):
    prefix = tmp_path / "bad" / "model.ckpt-3"
    model = WaveNetAutoencoder(SMALL)
    model.decoder.logits.bias.assign(np.full(256, np.nan, np.float32))
    engine.save_weights(model, prefix, 3)
    result = run_train(
        notes, tmp_path / "logdir", f"--checkpoint_path={prefix}", "--save_secs=0"
    )
    line = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert "loss is not finite at step 4" in line and "model.ckpt-3" in line
    assert "the one before" in line  # for what was saved last leads there
    assert Checkpoint(tmp_path / "logdir").step == 3


def test_bad_requests(tmp_path, notes):
    logdir = tmp_path / "logdir"
    for flags, words in {
        ("--train_path=",): "--train_path",
        ("--logdir=",): "--logdir",
        ("--train_path=/nowhere/*.tfrecord",): "/nowhere/*.tfrecord",
        ("--crop_length=1000",): "multiple of 512",
        ("--crop_length=8192",): "4,096 samples",
        ("--batch_size=0",): "batch_size",
        ("--config=nfft_1024",): "pass one of the spectral baseline",
        ("--config=nfft_512",): "neither h512_bo16 nor nfft_1024 nor a checkpoint's",
        ("--master=grpc://a:1",): "TF_CONFIG",
        ("--ps_tasks=1",): "TF_CONFIG",
        ("--worker_replicas=2",): "TF_CONFIG",
        ("--families=drums",): "drums",
        ("--seed=-1",): "seed",
        ("--average_decay=nan",): "average_decay",
        ("--past_noise=nan",): "past_noise",
        ("--pitch_weight=inf",): "pitch_weight must be finite",
        ("--past_detune=1.5",): "past_detune",
        ("--past_noise=1", "--config=nfft_1024"): "pass one of the spectral baseline",
        ("--no_such_flag",): "no_such_flag",
        ("more",): "more",
    }.items():
        base = [f"--train_path={notes}", f"--logdir={logdir}", *SMALL_FLAGS]
        if flags[0].startswith("--train_path"):
            base = base[1:]
        result = binaries.run("nsynth_train", *base, "--num_steps=2", *flags)
        assert result.returncode == 1, flags
        line = result.stderr.splitlines()[-1]
        assert words.lower() in line.lower() and "Traceback" not in result.stderr, line


def test_refused_flags_need_no_tensorflow(tmp_path):
    """Nor does the process that waits for a worker: both import the same modules."""
    words = binaries.command("nsynth_train", "--train_path=x", f"--logdir={tmp_path}")
    words = [words[0], "-X", "importtime", *words[1:], "--average_decay=nan"]
    result = binaries.finish(words)
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "magenta_nsynth.training.workers" in imported
    assert not imported & {"tensorflow", "keras", "numpy"}
    assert "--average_decay must be" in result.stderr.splitlines()[-1]


def test_the_originals_flags_at_their_defaults(tmp_path, notes):
    words = [f"--train_path={notes}", f"--logdir={tmp_path / 'l'}", *SMALL_FLAGS]
    words += ["--total_batch_size=2", "--worker_replicas=1", "--ps_tasks=0"]
    words += ["--task=0", "--master=", "--log=WARN", "--crop_length=512"]
    result = binaries.run("nsynth_train", *words, "--num_steps=1")
    assert result.returncode == 0, result.stderr
    assert "INFO" not in result.stderr


def test_what_no_shape_shows_is_compared_too(notes, whole):
    for flag in ("--num_stages=2", "--ae_num_stages=2", "--ae_hop_length=256"):
        result = run_train(notes, whole[0], "--num_steps=40", flag)
        line = binaries.error_line(result)
        assert flag.split("=")[0][2:] in line and "change its shape" in line


def test_damaged_bytes_in_the_newest_checkpoint(tmp_path, notes, whole):
    shutil.copytree(whole[0], tmp_path / "logdir")
    data = tmp_path / "logdir" / "model.ckpt-30.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)
    result = run_train(notes, tmp_path / "logdir", "--num_steps=31")
    assert result.returncode == 0, result.stderr
    assert "damaged" in result.stderr and "Trying an older one" in result.stderr
    assert "From step 0 to 31" in result.stderr


def test_a_bad_note_is_named(tmp_path):
    bad = tmp_path / "bad.tfrecord"
    with tf.io.TFRecordWriter(str(bad)) as writer:
        for i in range(40):
            audio = np.full(1024, np.nan if i == 33 else 0.1, np.float32)
            name = f"bass_acoustic_001-{i:03}-100"
            writer.write(note_to_example(Note(name, audio, **parse_note_str(name))))
    result = run_train(bad, tmp_path / "logdir", "--num_steps=100")
    line = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert "bad.tfrecord, record 33" in line and "NaN" in line and "--skip" in line
    words = ["--num_steps=12", "--skip_corrupt"]
    result = run_train(bad, tmp_path / "logdir", *words)
    assert result.returncode == 0 and "Left out 1 damaged notes" in result.stderr
    words = [f"--checkpoint_path={tmp_path / 'logdir'}", f"--source_path={bad}"]
    words += ["--sample_length=1024"]
    line = binaries.run("nsynth_evaluate", *words).stderr.splitlines()[-1]
    assert "record 33" in line and "NaN" in line
    result = binaries.run("nsynth_evaluate", *words, "--skip_corrupt")
    assert result.stdout.splitlines()[-1].split()[:2] == ["all", "39"]


def test_mixed_precision(tmp_path, notes, whole):
    result = run_train(notes, tmp_path, "--mixed_precision", "--num_steps=3")
    assert result.returncode == 0, result.stderr
    mixed, full = tensors_of(tmp_path), tensors_of(whole[0])
    assert {name: value.dtype for name, value in mixed.items()} == {
        name: value.dtype for name, value in full.items()
    }
    assert all(np.isfinite(value).all() for value in mixed.values())


def losses_of(logdir):
    losses = {}
    for path in logdir.glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "train/loss_nats":
                    losses[event.step] = float(tf.make_ndarray(value.tensor))
    return losses


def start_workers(notes, logdir, *flags):
    ports = []
    for _ in range(2):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            ports.append(server.getsockname()[1])
    workers = []
    for index in range(2):
        config = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
        environment = {**binaries.environment(), "TF_CONFIG": json.dumps(config)}
        workers.append(
            subprocess.Popen(
                train_command(notes, logdir, *flags),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return workers


def test_two_workers_have_the_losses_of_one(tmp_path, notes, whole):
    flags = ["--num_steps=8", "--save_summaries_secs=0", f"--eval_path={notes}"]
    flags.append("--reconstruct_steps=4")  # the chief makes them, the other waits
    workers = start_workers(notes, tmp_path / "two", *flags)
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
        assert ("Step 4: 12 reconstructions" in errors) == (worker is workers[0])
    one, two = losses_of(whole[0]), losses_of(tmp_path / "two")
    assert sorted(two) == list(range(1, 9))
    for step, loss in two.items():
        assert loss == pytest.approx(one[step], abs=1e-4)
    weights = tensors_of(tmp_path / "two")
    assert weights["global_step"] == 8


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_good_checkpoint(tmp_path, notes):
    logdir = tmp_path / "logdir"
    flags = ("--num_steps=100000", "--save_secs=0")
    workers = start_workers(notes, logdir, *flags)
    deadline = time.monotonic() + 90
    while not (logdir / "checkpoint").exists() or Checkpoint(logdir).step < 3:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-P", str(workers[1].pid)], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    for worker, reason in zip(
        workers, ("Lost another worker", "was killed"), strict=True
    ):
        _, errors = worker.communicate(timeout=180)
        assert worker.returncode == 1
        line = errors.splitlines()[-1]
        assert reason in line and "model.ckpt-" in line, errors
    assert Checkpoint(logdir).step >= 3


REPLICAS = """
import sys, numpy as np, tensorflow as tf
sys.path[:0] = {paths!r}
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from notes import SMALL
from magenta_nsynth.data.index import open_notes
from magenta_nsynth.models.wavenet import WaveNetAutoencoder
from magenta_nsynth.training.batches import run_batches
from magenta_nsynth.training.options import Steps
from magenta_nsynth.training.trainer import Trainer

notes = open_notes([{notes!r}])
steps = Steps(batch_size=4, crop_length=1024, past_detune=0.5, pitch_weight=0.2)
def train(strategy):
    keras.utils.set_random_seed(0)
    trainer = Trainer(WaveNetAutoencoder(SMALL), strategy=strategy, pitch_weight=0.2)
    batches = run_batches(notes, steps.recipe("wavenet"), steps, strategy=strategy)
    return trainer, [trainer.train_step(next(batches), 1e-3) for _ in range(6)]
one, alone = train(None)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    two, both = train(strategy)
np.testing.assert_allclose(both, alone, atol=1e-4)
for a, b in zip(one.state.variables, two.state.variables):
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-3)
    copies = strategy.experimental_local_results(b)
    assert len(copies) == 2
    np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy())
for a, b in zip(one.state.averages, two.state.averages):
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-3)
assert one.state.beta1_power.numpy() == two.state.beta1_power.numpy()
print("same", len(both))
"""


def test_two_devices_have_the_losses_of_one(notes):
    script = REPLICAS.format(
        paths=[str(binaries.ROOT / "tests"), str(binaries.ROOT)], notes=str(notes)
    )
    result = binaries.finish([sys.executable, "-c", script])
    assert result.stdout == "same 6\n", result.stderr


def test_evaluate_prints_a_table(tmp_path, notes, whole):
    flute = make_notes(tmp_path / "flute.tfrecord", 3, family="flute")
    words = [f"--checkpoint_path={whole[0]}", "--sample_length=1024"]
    words += [f"--source_path={notes}", f"--source_path={flute}"]
    result = binaries.run("nsynth_evaluate", *words, "--batch_size=4")
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        ["family", "notes"], ["bass", "12"], ["flute", "3"], ["all", "15"],
    ]  # fmt: skip
    values = {row[0]: [float(text) for text in row[1:]] for row in rows[1:]}
    mean = (12 * values["bass"][1] + 3 * values["flute"][1]) / 15
    assert values["all"][1] == pytest.approx(mean, abs=2e-4)
    assert values["all"][2] == pytest.approx(values["all"][1] / math.log(2), abs=2e-4)

    only = binaries.run("nsynth_evaluate", *words, "--families=flute", "--use_ema")
    assert only.stdout.splitlines()[1].split()[:2] == ["flute", "3"]
    whole = binaries.run("nsynth_evaluate", *words[:1], *words[3:], "--sample_length=0")
    assert whole.stdout.splitlines()[-1].split()[:2] == ["all", "3"], whole.stderr


def test_evaluate_agrees_with_the_library(tmp_path, whole):
    import recipe

    from magenta_nsynth import load_wavenet

    path = make_notes(tmp_path / "notes.tfrecord", 2)
    clips = recipe.clips(4096, seed=3, batch=2)
    model = load_wavenet(whole[0])
    words = [f"--checkpoint_path={whole[0]}", f"--tfrecord_path={path}"]
    for length, parts in ((1024, clips[:, 1536:2560]), (0, clips)):
        result = binaries.run("nsynth_evaluate", *words, f"--sample_length={length}")
        nats = float(result.stdout.splitlines()[-1].split()[2])
        assert nats == pytest.approx(np.mean([model.nll(p) for p in parts]), abs=1e-4)


def test_the_table_of_unknown_families():
    recipe = RECIPES["wavenet"]
    losses = NoteLosses(np.float32([1, 2, 4]), np.array([-1, 10, 99]), None)
    lines = table(Measured(recipe, losses)).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["vocal", "1", "2.0000"], ["unknown", "2", "2.5000"], ["all", "3", "2.3333"],
    ]  # fmt: skip


def test_training_from_raw_weights_alone(tmp_path, notes):
    model = WaveNetAutoencoder(SMALL)
    engine.save_weights(model, tmp_path / "raw" / "model.ckpt-40", 40)
    start = f"--checkpoint_path={tmp_path / 'raw'}"
    result = run_train(notes, tmp_path / "l", start, "--num_steps=42")
    assert result.returncode == 0, result.stderr
    assert "Adam" in result.stderr
    assert "From step 40 to 42" in result.stderr
