"""The deterministic weights and clips behind the reference outputs (numpy only)."""

import zlib

import numpy as np


def weights(name, shape, gain):
    """One TF1 tensor's values: gain 0.8 for wavenet_*, 2.0 for baseline_*."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("moving_variance"):
        return rng.uniform(0.5, 1.5, size=shape).astype(np.float32)
    if len(shape) > 1:
        fan_in = int(np.prod(shape[:-1]))
        return (rng.uniform(-1, 1, size=shape) * gain * np.sqrt(3.0 / fan_in)).astype(
            np.float32
        )
    return (rng.uniform(-1, 1, size=shape) * 0.05).astype(np.float32)


def clips(num_samples, seed, batch=2):
    """Note-like audio [batch, num_samples] float32 in [-1, 1] at 16 kHz."""
    rng = np.random.Generator(np.random.PCG64(seed))
    t = np.arange(num_samples) / 16000.0
    out = []
    for _ in range(batch):
        f0 = 110 * 2 ** (rng.integers(0, 36) / 12.0)
        y = np.zeros(num_samples)
        for h in range(1, 12):
            if f0 * h < 7800:
                y += (
                    rng.uniform(0.2, 1)
                    / h
                    * np.sin(2 * np.pi * f0 * h * t + rng.uniform(0, 6.28))
                )
        y *= np.exp(-t * rng.uniform(0.5, 3))
        y += 0.003 * rng.standard_normal(num_samples)
        y *= 0.8 / np.abs(y).max()
        out.append(y)
    return np.asarray(out, np.float32)
