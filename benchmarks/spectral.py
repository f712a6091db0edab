#!/usr/bin/env python3
"""Times spectrograms, Griffin-Lim and the CQT of 16 notes against librosa's.

    pip install librosa==0.10.2
    python benchmarks/spectral.py

librosa runs in two ways, note by note, as the original calls it, and on all notes at
once; the faster one counts. Rounds alternate; the results are medians.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import librosa
import numpy as np
import tensorflow as tf

from magenta_nsynth.config import C2_HZ
from magenta_nsynth.spectral import cqt, griffin_lim, specgram

N_FFT, HOP = 1024, 256


def main() -> None:
    """Parses the options, measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    time_axis = np.arange(64_000) / 16_000
    hz = rng.uniform(60, 1000, [options.notes, 1])
    notes = np.sin(2 * np.pi * hz * time_axis) * np.exp(-time_axis)
    notes = (notes + 0.01 * rng.standard_normal(notes.shape)).astype(np.float32)
    magnitude = np.abs(librosa.stft(notes, n_fft=N_FFT, hop_length=HOP))
    sizes = {"n_fft": N_FFT, "hop_length": HOP}

    def librosa_specgram(audio: np.ndarray) -> np.ndarray:
        mag, _ = librosa.magphase(librosa.stft(audio, **sizes))
        power = {"amin": 1e-13, "top_db": 120.0, "ref": np.max}
        return librosa.power_to_db(mag**2, **power) / 120.0 + 1

    def librosa_griffin_lim(mag: np.ndarray) -> np.ndarray:
        given = {"n_iter": options.iterations, "momentum": 0, **sizes}
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
        f"{options.iterations} Griffin-Lim iterations": {
            "ours": lambda: griffin_lim(
                constant, HOP, options.iterations, seed=0
            ).numpy(),
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
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds + 1):
            for way, call in ways.items():
                start = time.perf_counter()
                call()
                if turn:  # the first turn compiles and warms up
                    seconds[way].append(time.perf_counter() - start)
        medians = {way: statistics.median(times) for way, times in seconds.items()}
        best = min(medians[way] for way in medians if way.startswith("librosa"))
        print(f"{task} ({options.notes} notes of 4 s):")
        for way, median in medians.items():
            ratio = f"  {best / median:.2f} times librosa" if "ours" in way else ""
            print(f"  {way:14} {median * 1000:9.1f} ms{ratio}")


if __name__ == "__main__":
    main()
