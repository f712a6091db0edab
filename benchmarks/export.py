#!/usr/bin/env python3
"""Times nsynth_export_embeddings at full width, and measures its memory.

    python benchmarks/export.py

Measures the notes per second of the export and of a bare loop of the encoder over the
same batches, with random weights of h512_bo16's shape; the error of bfloat16; and the
peak memory of the program for two numbers of notes, with a narrow network, because the
network hardly matters there. Rounds alternate in one run, so that other work on a
shared machine affects both alike.

    python benchmarks/export.py --original='python .../nsynth_save_embeddings.py'

also times that program on the same WAV files, including its startup and exit.
"""

import argparse
import os
import pathlib
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from scipy.io import wavfile

from magenta_nsynth.api import WaveNet
from magenta_nsynth.commands.export_embeddings import Export, Work, make_shards
from magenta_nsynth.commands.options import Network, ShardOptions
from magenta_nsynth.config import H512_BO16, WaveNetConfig
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.schema import Note
from magenta_nsynth.weights.engine import new_autoencoder, save_weights

ROOT = pathlib.Path(__file__).parent.parent
NARROW = WaveNetConfig(width=8, skip_width=8, ae_width=8)
NUM_SAMPLES = 64_000


def write_notes(path: str, count: int) -> None:
    """Writes a TFRecord of notes of 4 s."""
    rng = np.random.default_rng(0)
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(count):
            noise = rng.uniform(-1, 1, NUM_SAMPLES).astype(np.float32)
            writer.write(note_to_example(Note(f"note{i}", noise)))


def compare_with_bare(folder: str, batch_size: int, batches: int, rounds: int) -> None:
    """Prints the notes per second of the export and of the bare loop, and the ratio."""
    records, checkpoint = f"{folder}/notes.tfrecord", f"{folder}/full/model.ckpt-1"
    write_notes(records, batch_size * batches)
    rng = np.random.default_rng(0)
    clips = rng.uniform(-1, 1, [batch_size, NUM_SAMPLES]).astype(np.float32)
    count = batch_size * batches
    model = WaveNet(checkpoint)
    model.encode_prepared(clips)  # compiles
    ratios, processor_ratios = [], []
    for i in range(rounds):
        per_shard = batch_size * max(1, batches // 2)
        export = Export(
            Network(checkpoint_path=checkpoint),
            Inputs(source_path=[records]),
            f"{folder}/out{i}",
            NameRules(),
            ShardOptions(batch_size=batch_size, notes_per_shard=per_shard),
        )
        work = Work(export)
        work.model = model
        os.makedirs(work.shards.folder)
        start, used = time.perf_counter(), time.process_time()
        for _ in range(batches):
            model.encode_prepared(clips)
        middle, used_by_bare = time.perf_counter(), time.process_time()
        with work.shards.locked(range(work.shards.plan.num_shards)):
            work.shards.begin()
            make_shards(work, range(work.shards.plan.num_shards))
            assert work.shards.finish() is not None
        end, used_by_both = time.perf_counter(), time.process_time()
        bare, ours = (middle - start) / count, (end - middle) / count
        used_bare = (used_by_bare - used) / count
        used_ours = (used_by_both - used_by_bare) / count
        ratios.append(bare / ours)
        processor_ratios.append(used_bare / used_ours)
        print(
            f"round {i + 1}, {count} notes: bare {1 / bare:.3f} notes/s, "
            f"{used_bare:.2f} s of processor time per note; export {1 / ours:.3f} and "
            f"{used_ours:.2f}; ratios {ratios[-1]:.3f} and {processor_ratios[-1]:.3f}",
            flush=True,
        )
    print(
        f"batch {batch_size}: median ratio {statistics.median(ratios):.3f} in wall-"
        f"clock time, {statistics.median(processor_ratios):.3f} in processor time"
    )


def measure_bfloat16(checkpoint: str, clips: np.ndarray) -> None:
    """Prints the error of bfloat16's embeddings, and the time of both."""
    results, seconds = {}, {}
    for dtype in ("float32", "mixed_bfloat16"):
        model = WaveNet(checkpoint, dtype=dtype)
        model.encode_prepared(clips[:1])
        start = time.perf_counter()
        results[dtype] = np.concatenate(model.encode_prepared(clips))
        seconds[dtype] = (time.perf_counter() - start) / len(clips)
    exact = results["float32"]
    error = np.abs(results["mixed_bfloat16"] - exact)
    print(
        f"bfloat16, {checkpoint}: largest error {error.max() / np.abs(exact).max():.2%}"
        f" of the largest value, mean error {error.mean() / np.abs(exact).mean():.2%};"
        f" {seconds['mixed_bfloat16']:.2f} s per note, float32 {seconds['float32']:.2f}"
    )


def measure_memory(folder: str, counts: list[int]) -> None:
    """Prints the program's peak memory for each number of notes."""
    for count in counts:
        records = f"{folder}/{count}.tfrecord"
        write_notes(records, count)
        words = [
            sys.executable,
            str(ROOT / "bin" / "nsynth_export_embeddings"),
            f"--checkpoint_path={folder}/narrow/model.ckpt-1",
            f"--source_path={records}",
            f"--save_path={folder}/memory{count}",
            "--log=WARN",
        ]
        start = time.perf_counter()
        pid = os.spawnve(os.P_NOWAIT, sys.executable, words, environment())
        _, status, usage = os.wait4(pid, 0)
        assert not status, status
        seconds = time.perf_counter() - start
        print(f"{count} notes: {usage.ru_maxrss / 1e6:.3f} GB, {seconds:.0f} s")


def environment() -> dict[str, str]:
    """Returns this process's environment, with the package on PYTHONPATH."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def compare_with_original(folder: str, original: str, count: int) -> None:
    """Prints the time of both programs on the same WAV files."""
    sounds = pathlib.Path(folder, "sounds")
    sounds.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        noise = rng.uniform(-1, 1, NUM_SAMPLES).astype(np.float32)
        wavfile.write(sounds / f"{i:02}.wav", 16_000, noise)
    ours = shlex.join([sys.executable, f"{ROOT}/bin/nsynth_export_embeddings"])
    programs = {"the original": original, "nsynth_export_embeddings": ours}
    for name, program in programs.items():
        words = [
            *shlex.split(program),
            f"--source_path={sounds}",
            f"--save_path={folder}/{name.replace(' ', '_')}",
            f"--checkpoint_path={folder}/full/model.ckpt-1",
            f"--batch_size={min(16, count)}",
        ]
        # The original needs the user's PYTHONPATH to find its own package.
        env = dict(os.environ) if program == original else environment()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True, env=env)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(
            f"{count} files, {name}: {seconds:.0f} s, {used:.0f} s of processor time",
            flush=True,
        )


def main() -> None:
    """Parses the options and runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=2, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="100,1000", help="numbers of notes")
    parser.add_argument("--original", default="", help="the original's command")
    parser.add_argument("--files", type=int, default=64, help="number of files for it")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, config in {"full": H512_BO16, "narrow": NARROW}.items():
            save_weights(new_autoencoder(config), f"{folder}/{name}/model.ckpt-1")
        compare_with_bare(
            folder, arguments.batch_size, arguments.batches, arguments.rounds
        )
        rng = np.random.default_rng(1)
        clips = rng.uniform(-1, 1, [2, NUM_SAMPLES]).astype(np.float32)
        measure_bfloat16(f"{folder}/full/model.ckpt-1", clips)
        notes = sorted((ROOT / "checkpoints" / "notes").glob("*.wav"))
        small = [wavfile.read(note)[1][:15_872] / np.float32(32768) for note in notes]
        measure_bfloat16(str(ROOT / "checkpoints" / "small"), np.stack(small))
        if arguments.original:
            compare_with_original(folder, arguments.original, arguments.files)
        measure_memory(folder, [int(text) for text in arguments.memory.split(",")])


if __name__ == "__main__":
    main()
