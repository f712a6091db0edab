#!/usr/bin/env python3
"""Measures what generating with weights of 8 bits costs.

Each step gets the samples of a real clip instead of its own draws, so that both
precisions predict the same samples: with the bundled network along its notes, and at
full width with the random weights and clips of the tests.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from magenta_nsynth import load_audio
from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio.mu_law import class_labels, mu_law
from magenta_nsynth.config import H512_BO16
from magenta_nsynth.generation import packed
from magenta_nsynth.generation.stepwise import StepwiseDecoder
from magenta_nsynth.models.wavenet import WaveNetDecoder

_REPOSITORY = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Quality:
    """Means over all samples of all clips.

    Attributes:
      network: what was measured.
      loss: float32's negative log likelihood, in nats per sample.
      increase: how much larger it is with 8 bits.
      divergence: Kullback and Leibler's, of 8 bits from float32, in nats.
      equal_draws: the share of samples that both draw from one uniform.
    """

    network: str
    loss: float
    increase: float
    divergence: float
    equal_draws: float


def measure(num_samples: int) -> Iterator[Quality]:
    """Yields the bundled network's and full width's, for clips cut to num_samples."""
    small = WaveNet(str(_REPOSITORY / "checkpoints" / "small"))
    notes = sorted((_REPOSITORY / "checkpoints" / "notes").glob("*.wav"))
    audio = np.stack([load_audio(str(note))[:num_samples] for note in notes])
    yield _quality("checkpoints/small", small.decoder, audio, small.encode(audio))
    sys.path.insert(0, str(_REPOSITORY / "tests"))
    import recipe  # the tests' weights and clips

    decoder = WaveNetDecoder(H512_BO16)
    for layer in decoder.layers:
        for name, variable in (("W", layer.kernel), ("biases", layer.bias)):
            shape = (1, *variable.shape) if name == "W" else tuple(variable.shape)
            values = recipe.weights(f"{layer.name}/{name}", shape, 0.8)
            variable.assign(values.reshape(variable.shape))
    audio = recipe.clips(num_samples, seed=0, batch=4)
    z = np.random.default_rng(0).normal(size=[4, num_samples // 512, 16])
    yield _quality("full width, random weights", decoder, audio, z)


def _quality(
    network: str, decoder: WaveNetDecoder, audio: np.ndarray, z: np.ndarray
) -> Quality:
    """Compares the precisions along clips [b, t] with embeddings [b, frames, 16]."""
    classes = class_labels(mu_law(audio)).numpy()
    exact, rounded = (
        _log_probabilities(decoder, precision, classes, z)
        for precision in ("float32", "int8")
    )
    losses = [
        -np.take_along_axis(p, classes[..., None], axis=2) for p in (exact, rounded)
    ]
    uniforms = np.random.default_rng(1).uniform(size=[*classes.shape, 1])
    draws = [
        (np.exp(p).cumsum(axis=2) < uniforms).sum(axis=2) for p in (exact, rounded)
    ]
    return Quality(
        network,
        losses[0].mean(),
        (losses[1] - losses[0]).mean(),
        (np.exp(exact) * (exact - rounded)).sum(axis=2).mean(),
        (draws[0] == draws[1]).mean(),
    )


def _log_probabilities(
    decoder: WaveNetDecoder, precision: str, classes: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """Of the next class, [b, t, 256], when the clips' classes [b, t] are fed."""
    seen: list[np.ndarray] = []

    def follow(logits: np.ndarray, uniforms: np.ndarray, _: float) -> np.ndarray:
        # Engines with some of the clips each would need to know which.
        if len(logits) != len(classes):
            raise SystemExit("Fewer clips are needed: one engine has to draw them all.")
        del uniforms
        seen.append(logits.astype(np.float64))
        return classes[:, len(seen) - 1]

    engine = StepwiseDecoder(
        decoder, len(classes), engine="packed", precision=precision
    )
    with mock.patch.object(packed, "sample", follow):
        engine.run(z.astype(np.float32), np.zeros(classes.T.shape))
    logits = np.stack(seen, axis=1)
    logits -= logits.max(axis=2, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))


def main() -> None:
    """Parses the options and prints a line per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_samples", type=int, default=4096, help="of each clip")
    for q in measure(parser.parse_args().num_samples):
        print(
            f"{q.network}: loss {q.loss:.4f} nats, with 8 bits {q.increase:+.5f}; "
            f"divergence {q.divergence:.5f}; equal draws {q.equal_draws:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
