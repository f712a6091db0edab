#!/usr/bin/env python3
"""Times spectrograms, Griffin-Lim and the CQT of 16 notes against librosa's.

    pip install librosa==0.10.2
    python benchmarks/spectral.py

librosa runs in two ways, note by note, as the original calls it, and on all notes at
once; the faster one counts. Rounds alternate; the results are medians.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import librosa
import numpy as np
import tensorflow as tf
from measuring import Figure, Usage, figure, measured, middle, size_parser, table

from magenta_nsynth.config import C2_HZ
from magenta_nsynth.spectral import cqt, griffin_lim, specgram

N_FFT, HOP = 1024, 256


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    notes: int = 16
    iterations: int = 100
    rounds: int = 3


def figures(size: Size = Size()) -> Iterator[Figure]:
    """Yields the figures of spectrograms, Griffin-Lim and the CQT."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(64_000) / 16_000
    hz = rng.uniform(60, 1000, [size.notes, 1])
    notes = np.sin(2 * np.pi * hz * time_axis) * np.exp(-time_axis)
    notes = (notes + 0.01 * rng.standard_normal(notes.shape)).astype(np.float32)
    magnitude = np.abs(librosa.stft(notes, n_fft=N_FFT, hop_length=HOP))
    sizes = {"n_fft": N_FFT, "hop_length": HOP}

    def librosa_specgram(audio: np.ndarray) -> np.ndarray:
        mag, _ = librosa.magphase(librosa.stft(audio, **sizes))
        power = {"amin": 1e-13, "top_db": 120.0, "ref": np.max}
        return librosa.power_to_db(mag**2, **power) / 120.0 + 1

    def librosa_griffin_lim(mag: np.ndarray) -> np.ndarray:
        given = {"n_iter": size.iterations, "momentum": 0, **sizes}
        return librosa.griffinlim(mag, **given)

    def librosa_cqt(audio: np.ndarray) -> np.ndarray:
        given = {"sr": 16_000, "hop_length": HOP, "fmin": C2_HZ, "n_bins": 240}
        return librosa.cqt(audio, bins_per_octave=40, filter_scale=0.8, **given)

    constant = tf.constant(magnitude)
    compiled_cqt = tf.function(cqt, reduce_retracing=True)
    compiled = tf.function(
        lambda audio: specgram(audio, N_FFT, HOP, mag_only=True), autograph=False
    )
    tasks = {
        "spectrogram": {
            "ours": lambda: compiled(tf.constant(notes)).numpy(),
            "ours, eager": lambda: specgram(notes, N_FFT, HOP, mag_only=True).numpy(),
            "librosa, each": lambda: [librosa_specgram(note) for note in notes],
            "librosa, all": lambda: librosa_specgram(notes),
        },
        f"{size.iterations} Griffin-Lim iterations": {
            "ours": lambda: griffin_lim(constant, HOP, size.iterations, seed=0).numpy(),
            "librosa, each": lambda: [librosa_griffin_lim(mag) for mag in magnitude],
            "librosa, all": lambda: librosa_griffin_lim(magnitude),
        },
        "constant-Q transform": {
            "ours": lambda: compiled_cqt(tf.constant(notes)).numpy(),
            "librosa, each": lambda: [librosa_cqt(note) for note in notes],
            "librosa, all": lambda: librosa_cqt(notes),
        },
    }
    tasks["constant-Q transform of the first note"] = {
        "ours": lambda: compiled_cqt(tf.constant(notes[:1])).numpy(),
        "librosa": lambda: librosa_cqt(notes[0]),
    }
    for task, ways in tasks.items():
        yield from _compare(f"{task} ({size.notes} notes)", ways, size.rounds)


def _compare(task: str, ways: dict[str, Callable], rounds: int) -> Iterator[Figure]:
    """Yields our ways, each against the faster one of librosa's."""
    usages: dict[str, list[Usage]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way, call in ways.items():
            usage = measured(call)
            if turn:  # the first turn compiles and warms up
                usages[way].append(usage)
    middles = {way: middle(values) for way, values in usages.items()}
    best = min((w for w in ways if "librosa" in w), key=lambda w: middles[w].clock)
    for way in ways:
        if "ours" in way:
            named = task + way.removeprefix("ours")
            yield figure(named, middles[way], best, middles[best])


def main() -> None:
    """Parses the options, measures and prints the results."""
    options = size_parser(__doc__, Size).parse_args()
    for line in table(figures(Size(**vars(options)))):
        print(line, flush=True)


if __name__ == "__main__":
    main()
