#!/usr/bin/env python3
"""Times the reading of training crops from NSynth's TFRecords.

The comparison is with the bare TFRecordDataset (no parsing, no cropping: the limit) and
with the pipeline of TensorFlow Datasets, in plain tf.data: 16 files interleaved in
blocks of 16, every feature of each record parsed, then a random crop. Its users shuffle
afterwards; that is omitted here, in its favour. All read the same files in this
process, in alternating rounds; the results are medians.
"""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measuring import Figure, Usage, figure, measured, middle, size_parser, table

from magenta_nsynth.data.features import FEATURES
from magenta_nsynth.data.reading import open_notes, training_batches
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.schema import Note

AUTOTUNE = tf.data.AUTOTUNE


def make_files(folder: pathlib.Path, num_notes: int, num_files: int) -> list[str]:
    """Writes notes of 4 s, 256 kB each; returns the files' paths."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, 64_000 * 2).astype(np.float32)
    paths = []
    for k in range(num_files):
        paths.append(str(folder / f"notes.tfrecord-{k:05d}-of-{num_files:05d}"))
        with tf.io.TFRecordWriter(paths[-1]) as writer:
            for number in range(
                k * num_notes // num_files, (k + 1) * num_notes // num_files
            ):
                name = f"bass_synthetic_{number % 1000:03d}"
                start = rng.integers(64_000)
                note = Note(
                    note_str=f"{name}-060-100",
                    audio=noise[start : start + 64_000],
                    pitch=60,
                    velocity=100,
                    instrument_str=name,
                    instrument_family=0,
                    instrument_source=2,
                    note=number,
                )
                writer.write(note_to_example(note))
    return paths


def bare(paths: list[str]) -> tf.data.Dataset:
    """Raw records, file after file."""
    return tf.data.TFRecordDataset(paths).repeat()


def bare_parallel(paths: list[str]) -> tf.data.Dataset:
    """The same, with one thread per core."""
    cores = os.cpu_count()
    return (
        tf.data.Dataset.from_tensor_slices(paths)
        .repeat()
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=cores,
            num_parallel_calls=cores,
            deterministic=False,
        )
    )


def tensorflow_datasets(
    paths: list[str], crop_length: int, batch_size: int
) -> tf.data.Dataset:
    """The pipeline of TensorFlow Datasets 4.9 with shuffled files, then crops."""
    spec = {
        name: tf.io.FixedLenFeature([64_000] if name == "audio" else [10], kind.dtype)
        if name in ("audio", "qualities")
        else tf.io.FixedLenFeature([], kind.dtype)
        for name, kind in FEATURES.items()
        if name != "qualities_str"
    }
    return (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths), seed=0)
        .repeat()
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=16,
            block_length=16,
            num_parallel_calls=AUTOTUNE,
            deterministic=False,
        )
        .map(lambda record: tf.io.parse_single_example(record, spec), AUTOTUNE)
        .map(lambda note: tf.image.random_crop(note["audio"], [crop_length]), AUTOTUNE)
        .batch(batch_size)
        .prefetch(AUTOTUNE)
    )


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is read: passes over the notes in each round."""

    notes: int = 2000
    files: int = 8
    crop_length: int = 6144
    batch_size: int = 32
    passes: int = 10
    rounds: int = 5


def read(dataset: tf.data.Dataset, num_notes: int) -> None:
    """Reads that many notes, or a few more."""
    done = 0
    for element in dataset:
        done += element.shape[0] if element.shape.rank else 1
        if done >= num_notes:
            break


def figures(size: Size = Size()) -> Iterator[Figure]:
    """Yields what a note takes, against the other ways to read it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(pathlib.Path(folder), size.notes, size.files)
        crop = size.crop_length, size.batch_size
        ways = {
            "bare TFRecordDataset": bare(paths),
            "bare, a thread per core": bare_parallel(paths),
            "as TensorFlow Datasets": tensorflow_datasets(paths, *crop),
            "ours": training_batches(open_notes(paths), *crop, seed=0),
        }
        usages: dict[str, list[Usage]] = {name: [] for name in ways}
        for _ in range(size.rounds):
            for name, dataset in ways.items():
                count = size.passes * size.notes
                usage = measured(lambda d=dataset, n=count: read(d, n))
                usages[name].append(usage.per(count))
    middles = {name: middle(values) for name, values in usages.items()}
    ours = middles.pop("ours")
    for name, usage in middles.items():
        yield figure("reading a crop for training", ours, name, usage)


def main() -> None:
    """Parses the options and prints a line per pipeline."""
    options = size_parser(__doc__, Size).parse_args()
    for line in table(figures(Size(**vars(options)))):
        print(line, flush=True)


if __name__ == "__main__":
    main()
