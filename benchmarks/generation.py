#!/usr/bin/env python3
"""Times our sample-by-sample generation against one session.run per sample.

The baseline is `original_loop.OriginalLoop`, a stand-in for the original's loop. Both
run in this process, with the same weights, in alternating chunks, so that other work on
a shared machine affects both. The same holds for the yardsticks: the speed of NumPy's
products and of memory. All results are medians over the chunks.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from original_loop import OriginalLoop, random_weights

from magenta_nsynth.config import H512_BO16
from magenta_nsynth.generation.stepwise import StepwiseDecoder
from magenta_nsynth.models.wavenet import WaveNetDecoder

# Parameters of the past taps, which are read once for many steps. All others have to be
# read at every step.
_PAST = H512_BO16.num_layers * (H512_BO16.filter_length - 1) * 2 * H512_BO16.width**2

ENGINES = ("compiled", "packed")
# In seconds: until then, the threads of what ran before stop spinning.
_REST = 0.1


def build_decoder(weights: dict[str, np.ndarray]) -> WaveNetDecoder:
    """Returns a full-size decoder with these weights, by their TF1 names."""
    decoder = WaveNetDecoder(H512_BO16)
    unused = f"res_{H512_BO16.num_layers}"
    for layer in decoder.layers:
        if layer.name == unused:
            continue
        layer.kernel.assign(weights[f"{layer.name}/W"][0])
        layer.bias.assign(weights[f"{layer.name}/biases"])
    return decoder


def yardsticks() -> dict[str, Callable[[], float]]:
    """Returns functions that measure the speed this process can reach now."""
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    x, wide, narrow = matrix(128, 512), matrix(512, 1024), matrix(512, 768)
    square, long = matrix(1536, 1536), matrix(2**25)

    def rate(work: Callable[[], object], amount: float) -> float:
        start = time.perf_counter()
        work()
        return amount / (time.perf_counter() - start) / 1e9

    def pairs() -> None:
        for _ in range(10):
            np.dot(x, wide)
            np.dot(x, narrow)

    return {
        "np.dot [128,512]x[512,1024] and x[512,768], GFLOP/s": lambda: rate(
            pairs, 10 * 2 * 128 * 512 * 1792
        ),
        "np.dot of 1536 x 1536, GFLOP/s": lambda: rate(
            lambda: square @ square, 2 * 1536**3
        ),
        "reading memory (a dot product), GB/s": lambda: rate(
            lambda: np.dot(long, long), long.nbytes
        ),
    }


def compare(batch_size: int, chunks: int, steps: int) -> None:
    """Prints both times per step, their ratio, and the fraction of the limits."""
    weights = random_weights(H512_BO16, seed=0)
    parameters = sum(w.size for name, w in weights.items() if name.endswith("/W"))
    # At least as many steps as one or two threads compute ahead in one go.
    our_steps = max(steps, 512 // batch_size if batch_size >= 8 else 256)
    rng = np.random.default_rng(0)
    frames = -(-(chunks + 1) * our_steps // H512_BO16.ae_hop_length)
    encodings = rng.standard_normal([batch_size, frames, 16]).astype(np.float32)
    decoder = build_decoder(weights)
    ours = {e: StepwiseDecoder(decoder, batch_size, engine=e) for e in ENGINES}
    original = OriginalLoop(H512_BO16, weights, batch_size)
    sticks = yardsticks()
    seen: dict[str, list[float]] = {"original": [], **{e: [] for e in ENGINES}}
    for _ in range(chunks + 1):
        uniforms = rng.uniform(size=[our_steps, batch_size])
        time.sleep(_REST)
        start = time.perf_counter()
        original.generate(encodings, uniforms[:steps].T)
        seen["original"].append((time.perf_counter() - start) / steps * 1e3)
        for name, engine in ours.items():
            time.sleep(_REST)
            start = time.perf_counter()
            engine.run(encodings, uniforms)
            seen[name].append((time.perf_counter() - start) / our_steps * 1e3)
        for name, measure in sticks.items():
            time.sleep(_REST)
            seen.setdefault(name, []).append(measure())
    original.close()
    # The first chunk warms up.
    medians = {name: statistics.median(values[1:]) for name, values in seen.items()}
    best = {name: min(values[1:]) for name, values in seen.items()}
    dot, peak, memory = (medians[name] for name in sticks)
    print(
        f"batch {batch_size:3d}: original {medians['original']:6.1f} ms per step (best "
        f"{best['original']:.1f}); the machine reaches {dot:.0f} GFLOP/s in "
        f"[128,512] products, {peak:.0f} in large ones, {memory:.1f} GB/s",
    )
    for name in ENGINES:
        milliseconds = medians[name]
        flops = 2 * parameters * batch_size / milliseconds / 1e6
        bandwidth = 4 * (parameters - _PAST) / milliseconds / 1e6
        print(
            f"    {name:8s} {milliseconds:6.1f} ms (best {best[name]:.1f})  ratio "
            f"{medians['original'] / milliseconds:4.2f} (of the best "
            f"{best['original'] / best[name]:.2f})  "
            f"{1e3 * batch_size / milliseconds:5.0f} samples/s, {flops:.0f} GFLOP/s: "
            f"{flops / dot:.0%} and {flops / peak:.0%}; {bandwidth:.1f} GB/s of "
            f"weights: {bandwidth / memory:.0%}",
            flush=True,
        )


def main() -> None:
    """Parses the options and prints three lines per batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_sizes", default="1,8,32,128", help="comma-separated")
    parser.add_argument("--chunks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=32, help="per chunk")
    arguments = parser.parse_args()
    for batch_size in map(int, arguments.batch_sizes.split(",")):
        compare(batch_size, arguments.chunks, arguments.steps)


if __name__ == "__main__":
    main()
