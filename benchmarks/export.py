#!/usr/bin/env python3
"""Times nsynth_export_embeddings at full width, and measures its memory.

    python benchmarks/export.py

Random weights of h512_bo16's shape encode notes of 4 s:

- nsynth_export_embeddings, against the least that is possible: the operations of the
  encoder's convolutions at the rate of large matrix products on the same processor;
- the original's way: batches, and every dilated convolution a dense one between
  time_to_batch and its inverse. Each way has a process of its own, and they take turns,
  so that other work on a shared machine affects both;
- --before=FOLDER: also the export of another version, whose clone is there;
- the start of nsynth_save_embeddings, from nothing to the embedding of a note;
- the error of bfloat16, and the peak memory of the export for two numbers of notes,
  with a narrow network, because the network hardly matters there.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measuring import (
    Figure,
    Usage,
    figure,
    in_a_process,
    measured,
    middle,
    product_rate,
    table,
)

from magenta_nsynth.config import H512_BO16, WaveNetConfig

ROOT = pathlib.Path(__file__).parent.parent
NARROW = WaveNetConfig(width=8, skip_width=8, ae_width=8)
NUM_SAMPLES = 64_000


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
      notes: notes that each way encodes in a turn.
      batch_size: of the original's way; NSynth's script takes 16.
      turns: of each way.
    """

    notes: int = 32
    batch_size: int = 16
    turns: int = 3


def encoder_operations(config: WaveNetConfig, num_samples: int) -> float:
    """The floating-point operations of the encoder's convolutions."""
    size, width = config.ae_filter_length, config.ae_width
    layers = config.ae_num_layers * (size + 1) * width**2
    ends = size * width + width * config.ae_bottleneck_width
    return 2.0 * num_samples * (layers + ends)


def figures(size: Size = Size(), before: str = "") -> Iterator[Figure]:
    """Yields the figures of encoding.

    Args:
      size: how much is measured.
      before: a folder with another version, to compare with.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_weights(folder, {"full": H512_BO16})
        write_notes(f"{folder}/notes.tfrecord", size.notes)
        rates, usages = _take_turns(folder, size, before)
        ours = middle(usages.pop("ours"))
        seconds = encoder_operations(H512_BO16, NUM_SAMPLES) / statistics.median(rates)
        task, busy = "exporting a note of 4 s", f"cores busy {ours.busy:.0%}"
        yield Figure(
            task,
            ours,
            f"its products at {statistics.median(rates) / 1e9:.0f} GFLOP/s a core",
            float("nan"),
            seconds / ours.processor,
            busy,
        )
        for other, values in usages.items():
            yield figure(task, ours, other, middle(values), busy)
        yield _first_embedding(folder, ours)


def _take_turns(
    folder: str, size: Size, before: str
) -> tuple[list[float], dict[str, list[Usage]]]:
    """Returns products per second, and what a note takes in each way, of each turn."""
    ways = {"ours": ("ours", ""), "the original's way": ("original", "")}
    if before:
        ways["the version before"] = ("ours", before)
    rates: list[float] = []
    usages: dict[str, list[Usage]] = {name: [] for name in ways}
    for _ in range(size.turns):
        rates.append(product_rate())
        for name, (way, package) in ways.items():
            words = [f"--way={way}", f"--folder={folder}", f"--notes={size.notes}"]
            words += [f"--batch_size={size.batch_size}"]
            [usage] = in_a_process(__file__, words, package)
            usages[name].append(usage.per(size.notes))
    return rates, usages


def _encode_as(way: str, folder: str, size: Size) -> Usage:
    """Encodes all notes in one way, in this process, after one note to warm up."""
    return (_export if way == "ours" else _encode_as_the_original)(folder, size)


def _export(folder: str, size: Size) -> Usage:
    from magenta_nsynth.commands.export_embeddings import Export, Work, make_shards
    from magenta_nsynth.commands.options import Network, ShardOptions
    from magenta_nsynth.notes.inputs import Inputs
    from magenta_nsynth.notes.naming import NameRules

    export = Export(
        Network(checkpoint_path=f"{folder}/full/model.ckpt-1"),
        Inputs(source_path=[f"{folder}/notes.tfrecord"]),
        tempfile.mkdtemp(dir=folder),
        NameRules(),
        ShardOptions(batch_size=size.batch_size),
    )
    work = Work(export)
    work.model.encode_prepared([np.zeros(NUM_SAMPLES, np.float32)])
    shards = work.shards
    numbers = range(shards.plan.num_shards)

    def make() -> None:
        with shards.locked(numbers):
            shards.begin()
            make_shards(work, numbers)
            assert shards.finish() is not None

    return measured(make)


def _encode_as_the_original(folder: str, size: Size) -> Usage:
    import tensorflow as tf
    from training import compute_as_the_original

    from magenta_nsynth.api import WaveNet

    encoder = WaveNet(f"{folder}/full/model.ckpt-1").encoder
    compute_as_the_original(encoder)
    encode = tf.function(encoder)
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, [size.batch_size, NUM_SAMPLES]).astype(np.float32)
    encode(audio[:, :512])
    for_all = encode.get_concrete_function(tf.TensorSpec(audio.shape, tf.float32))

    def all_notes() -> None:
        for _ in range(size.notes // size.batch_size):
            for_all(tf.constant(audio)).numpy()

    return measured(all_notes)


def _first_embedding(folder: str, ours: Usage) -> Figure:
    """From the start of a program to a note's embedding, against what it must take."""
    from scipy.io import wavfile

    noise = np.random.default_rng(0).uniform(-1, 1, NUM_SAMPLES).astype(np.float32)
    wavfile.write(f"{folder}/note.wav", 16_000, noise)
    words = [
        str(ROOT / "bin" / "nsynth_save_embeddings"),
        f"--source_path={folder}/note.wav",
        f"--checkpoint_path={folder}/full/model.ckpt-1",
        f"--save_path={folder}/embeddings",
        "--log=WARN",
    ]
    imports, _ = program(["-c", "import keras, tensorflow, magenta_nsynth.api"])
    whole, _ = program(words)
    parts = map(dataclasses.astuple, (imports, ours))
    least = Usage(*map(sum, zip(*parts, strict=True)))
    return figure("a program's first embedding", whole, "import and a note", least)


def program(words: list[str]) -> tuple[Usage, int]:
    """What a Python program takes from start to end, and its peak memory in kB."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], env=env, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert not process.returncode, words
    seconds = time.perf_counter() - start
    processor = usage.ru_utime + usage.ru_stime
    return Usage(seconds, processor, usage.ru_minflt), usage.ru_maxrss


def measure_bfloat16(checkpoint: str, clips: np.ndarray) -> None:
    """Prints the error of bfloat16's embeddings, and the time of both."""
    from magenta_nsynth.api import WaveNet

    results, usages = {}, {}
    for dtype in ("float32", "mixed_bfloat16"):
        model = WaveNet(checkpoint, dtype=dtype)
        model.encode_prepared(clips[:1])
        usages[dtype] = measured(
            lambda model=model, dtype=dtype: results.update(
                {dtype: np.concatenate(model.encode_prepared(clips))}
            )
        ).per(len(clips))
    exact = results["float32"]
    error = np.abs(results["mixed_bfloat16"] - exact)
    half, single = usages["mixed_bfloat16"], usages["float32"]
    print(
        f"bfloat16, {checkpoint}: largest error {error.max() / np.abs(exact).max():.2%}"
        f" of the largest value, mean error {error.mean() / np.abs(exact).mean():.2%};"
        f" {half.processor:.2f} s of processor time per note, float32 "
        f"{single.processor:.2f}"
    )


def measure_memory(folder: str, counts: list[int]) -> None:
    """Prints the program's peak memory for each number of notes."""
    for count in counts:
        records = f"{folder}/{count}.tfrecord"
        write_notes(records, count)
        usage, peak = program(
            [
                str(ROOT / "bin" / "nsynth_export_embeddings"),
                f"--checkpoint_path={folder}/narrow/model.ckpt-1",
                f"--source_path={records}",
                f"--save_path={folder}/memory{count}",
                "--log=WARN",
            ]
        )
        print(f"{count} notes: {peak / 1e6:.3f} GB, {usage.clock:.0f} s")


def write_weights(folder: str, configs: dict[str, WaveNetConfig]) -> None:
    """Writes checkpoints with random weights, each into a folder of its name."""
    import keras

    from magenta_nsynth.weights.engine import new_autoencoder, save_weights

    keras.utils.set_random_seed(0)
    for name, config in configs.items():
        save_weights(new_autoencoder(config), f"{folder}/{name}/model.ckpt-1", 1)


def write_notes(path: str, count: int) -> None:
    """Writes a TFRecord of notes of 4 s."""
    import tensorflow as tf

    from magenta_nsynth.data.writing import note_to_example
    from magenta_nsynth.schema import Note

    pathlib.Path(path).parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(count):
            noise = rng.uniform(-1, 1, NUM_SAMPLES).astype(np.float32)
            writer.write(note_to_example(Note(f"note{i}", noise)))


def main() -> None:
    """Parses the options and runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=32, help="per turn")
    parser.add_argument("--batch_size", type=int, default=16, help="the original's")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--before", default="", help="a clone of another version")
    parser.add_argument("--memory", default="100,1000", help="numbers of notes")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = Size(arguments.notes, arguments.batch_size, arguments.turns)
    if arguments.way:
        usage = _encode_as(arguments.way, arguments.folder, size)
        print(json.dumps([dataclasses.astuple(usage)]))
        return
    for line in table(figures(size, arguments.before)):
        print(line, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        counts = [int(text) for text in arguments.memory.split(",")]
        write_weights(folder, {"full": H512_BO16, "narrow": NARROW})
        measure_memory(folder, counts)
        rng = np.random.default_rng(1)
        clips = rng.uniform(-1, 1, [2, NUM_SAMPLES]).astype(np.float32)
        measure_bfloat16(f"{folder}/full/model.ckpt-1", clips)
        from magenta_nsynth import load_audio

        notes = sorted((ROOT / "checkpoints" / "notes").glob("*.wav"))
        small = np.stack([load_audio(note)[:15_872] for note in notes])
        measure_bfloat16(str(ROOT / "checkpoints" / "small"), small)


if __name__ == "__main__":
    main()
