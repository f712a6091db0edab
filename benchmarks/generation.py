#!/usr/bin/env python3
"""Times our sample-by-sample generation against one session.run per sample.

The baseline is `original_loop.OriginalLoop`, a stand-in for the original's loop. All
run in this process, with the same weights, in alternating chunks, so that other work on
a shared machine affects all of them. The same holds for the yardsticks: the speed of
NumPy's products and of memory. All results are medians over the chunks.
"""

import argparse
import dataclasses
import os
import resource
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from original_loop import OriginalLoop, random_weights

from magenta_nsynth.config import H512_BO16
from magenta_nsynth.generation.stepwise import StepwiseDecoder
from magenta_nsynth.models.wavenet import WaveNetDecoder

# By the name of a row: the engine and its precision.
ENGINES = {
    "compiled": ("compiled", "float32"),
    "float32": ("packed", "float32"),
    "int8": ("packed", "int8"),
}
# In seconds: until then, the threads of what ran before stop spinning.
_REST = 0.1


@dataclasses.dataclass(frozen=True)
class Row:
    """What a step of the whole batch takes: medians over the chunks.

    Attributes:
      name: "original", or one of `ENGINES`.
      batch_size: clips generated side by side.
      milliseconds: by the clock.
      processor: milliseconds of processor time, of all threads.
      page_faults: minor ones.
      ratio: how many times the original's time by the clock is this.
      processor_ratio: the same by processor time.
    """

    name: str
    batch_size: int
    milliseconds: float
    processor: float
    page_faults: float
    ratio: float = 1.0
    processor_ratio: float = 1.0


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


def measure(
    batch_size: int, chunks: int = 4, steps: int = 32
) -> tuple[list[Row], dict[str, float]]:
    """Times the original's step and ours.

    Args:
      batch_size: clips generated side by side.
      chunks: alternations; one more warms up.
      steps: of the original in a chunk. Ours take as many as they look ahead.

    Returns:
      The rows, the original's first; and what the yardsticks measured.
    """
    weights = random_weights(H512_BO16, seed=0)
    # At least as many steps as one or two threads compute ahead in one go.
    our_steps = max(steps, 1024 // batch_size if batch_size >= 8 else 256)
    rng = np.random.default_rng(0)
    frames = -(-(chunks + 1) * our_steps // H512_BO16.ae_hop_length)
    encodings = rng.standard_normal([batch_size, frames, 16]).astype(np.float32)
    decoder = build_decoder(weights)
    ours = {
        name: StepwiseDecoder(decoder, batch_size, engine=engine, precision=precision)
        for name, (engine, precision) in ENGINES.items()
    }
    original = OriginalLoop(H512_BO16, weights, batch_size)
    sticks = {name: (stick, []) for name, stick in yardsticks().items()}
    seen: dict[str, list[list[float]]] = {name: [] for name in ["original", *ENGINES]}
    for _ in range(chunks + 1):
        u = rng.uniform(size=[our_steps, batch_size])
        taken = _timed(steps, original.generate, encodings, u[:steps].T)
        seen["original"].append(taken)
        for name, engine in ours.items():
            seen[name].append(_timed(our_steps, engine.run, encodings, u))
        for stick, values in sticks.values():
            time.sleep(_REST)
            values.append(stick())
    original.close()
    medians = {name: np.median(values[1:], axis=0) for name, values in seen.items()}
    ratios = {name: medians["original"][:2] / m[:2] for name, m in medians.items()}
    rows = [
        Row(name, batch_size, *map(float, m), *map(float, ratios[name]))
        for name, m in medians.items()
    ]
    return rows, {
        name: statistics.median(values[1:]) for name, (_, values) in sticks.items()
    }


def _timed(steps: int, work: Callable[..., object], *arguments: object) -> list[float]:
    """Milliseconds by the clock and of processor time, and page faults, per step."""
    time.sleep(_REST)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    work(*arguments)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faults = after.ru_minflt - before.ru_minflt
    return [1e3 * seconds / steps, 1e3 * processor / steps, faults / steps]


def main() -> None:
    """Parses the options and prints a table per batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_sizes", default="1,8,32,128", help="comma-separated")
    parser.add_argument("--chunks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=32, help="per chunk")
    arguments = parser.parse_args()
    for batch_size in map(int, arguments.batch_sizes.split(",")):
        rows, sticks = measure(batch_size, arguments.chunks, arguments.steps)
        print(f"batch {batch_size}")
        for row in rows:
            print(
                f"  {row.name:8s} {row.milliseconds:6.1f} ms a step, ratio "
                f"{row.ratio:5.2f}; processor {row.processor:6.1f} ms, ratio "
                f"{row.processor_ratio:5.2f}; {row.page_faults:.0f} page faults"
            )
        for name, value in sticks.items():
            print(f"  {value:6.1f}  {name}", flush=True)


if __name__ == "__main__":
    main()
