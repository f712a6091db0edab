#!/usr/bin/env python3
"""Times our sample-by-sample generation against one session.run per sample.

The opponent is `original_loop.OriginalLoop`, a stand-in of the original's loop. Both
run in this process, with the same weights, in alternating chunks, so that a shared
machine's mood hits both; the ratio is of the medians.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from original_loop import OriginalLoop, random_weights

from magenta_nsynth.config import H512_BO16
from magenta_nsynth.generation.stepwise import StepwiseDecoder
from magenta_nsynth.models.wavenet import WaveNetDecoder


def build_decoder(weights: dict[str, np.ndarray]) -> WaveNetDecoder:
    """A full-size decoder with `weights` (TF1 names) in it."""
    decoder = WaveNetDecoder(H512_BO16)
    unused = f"res_{H512_BO16.num_layers}"
    for layer in decoder.layers:
        if layer.name == unused:
            continue
        layer.kernel.assign(weights[f"{layer.name}/W"][0])
        layer.bias.assign(weights[f"{layer.name}/biases"])
    return decoder


def compare(batch_size: int, chunks: int, steps: int) -> None:
    """Prints milliseconds per step of both, and the ratio."""
    weights = random_weights(H512_BO16, seed=0)
    rng = np.random.default_rng(0)
    frames = -(-(chunks + 1) * steps // H512_BO16.ae_hop_length)
    encodings = rng.standard_normal([batch_size, frames, 16]).astype(np.float32)
    ours = StepwiseDecoder(build_decoder(weights), batch_size)
    original = OriginalLoop(H512_BO16, weights, batch_size)
    times: dict[str, list[float]] = {"original": [], "ours": []}
    for _ in range(chunks + 1):
        uniforms = rng.uniform(size=[steps, batch_size])
        start = time.perf_counter()
        original.generate(encodings, uniforms.T)
        middle = time.perf_counter()
        ours.run(encodings, uniforms)
        end = time.perf_counter()
        times["original"].append((middle - start) / steps * 1e3)
        times["ours"].append((end - middle) / steps * 1e3)
    original.close()
    # The first chunk is each one's warm-up.
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(
        f"batch {batch_size:3d}:  original {medians['original']:6.1f} ms a step"
        f"  ours {medians['ours']:6.1f} ms"
        f"  ratio {medians['original'] / medians['ours']:4.2f}"
        f"  ({1e3 * batch_size / medians['ours']:5.0f} samples/s)",
        flush=True,
    )


def main() -> None:
    """Reads the options and prints a line per batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_sizes", default="1,8,32", help="separated by commas")
    parser.add_argument("--chunks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="of a chunk")
    arguments = parser.parse_args()
    for batch_size in map(int, arguments.batch_sizes.split(",")):
        compare(batch_size, arguments.chunks, arguments.steps)


if __name__ == "__main__":
    main()
