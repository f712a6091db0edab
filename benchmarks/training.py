"""Times a training step against the same network computed in the original's way.

    python benchmarks/training.py --batch_size 8 --crop_length 6144

For every dilation, the original surrounds a dense convolution with time_to_batch and
its inverse, and it runs one operation after the other on all cores. Both ways compute
the whole step: loss, gradients, Adam, averages. They take turns, each in its own
process, because they need different thread settings. The first step of each turn, which
traces, is not counted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time


def main() -> None:
    """Runs the two ways in turns, and prints their times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--crop_length", type=int, default=6144)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--skip_width", type=int, default=64)
    parser.add_argument("--ae_width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="per turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(*time_steps(options))
        return
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.turns):
        for way in WAYS:
            words = [sys.executable, *sys.argv, "--way", way]
            output = subprocess.run(words, check=True, capture_output=True, text=True)
            seconds[way] += map(float, output.stdout.split())
    best = {way: min(values) for way, values in seconds.items()}
    for way, values in seconds.items():
        middle = statistics.median(values)
        notes = options.batch_size / middle
        print(
            f"{way:<10} best {best[way]:.3f} s per step, median {middle:.3f} s: "
            f"{notes:.1f} notes per second"
        )
    middles = [statistics.median(seconds[way]) for way in WAYS]
    print(
        f"the original's way takes {best['original'] / best['ours']:.2f} times as long "
        f"(best), {middles[0] / middles[1]:.2f} times (median)"
    )


WAYS = ("original", "ours")


def time_steps(options: argparse.Namespace) -> list[float]:
    """Returns the seconds of each step, computed in one of the two ways."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from magenta_nsynth.config import WaveNetConfig
    from magenta_nsynth.models.wavenet import WaveNetAutoencoder
    from magenta_nsynth.training.trainer import Trainer, set_up_towers

    num_towers = set_up_towers(options.batch_size) if options.way == "ours" else 1
    model = WaveNetAutoencoder(
        WaveNetConfig(options.width, options.skip_width, ae_width=options.ae_width)
    )
    shape = [options.batch_size, options.crop_length]
    audio = tf.random.stateless_uniform(shape, (1, 2), -0.5, 0.5)
    if options.way == "original":
        loss = float(model.negative_log_likelihood(audio))
        compute_as_the_original(model)
        assert abs(float(model.negative_log_likelihood(audio)) - loss) < 1e-4
    trainer = Trainer(model, num_towers)
    trainer.train_step(audio, 1e-4)
    seconds = []
    for _ in range(options.steps):
        start = time.perf_counter()
        trainer.train_step(audio, 1e-4)
        seconds.append(time.perf_counter() - start)
    return seconds


def compute_as_the_original(model) -> None:
    """Makes every dilated convolution of `model` compute as in the original."""
    import keras
    import tensorflow as tf

    class TimeToBatch(keras.layers.Conv1D):
        """Turns each of `dilation` interleaved parts of the time axis into a clip."""

        def call(self, x):
            [dilation], [size] = self.dilation_rate, self.kernel_size
            batch, length, channels = x.shape
            reach = (size - 1) * dilation
            before = reach if self.padding == "causal" else reach // 2
            whole = -(-length // dilation) * dilation
            after = reach - before + whole - length
            x = tf.pad(x, [[0, 0], [before, after], [0, 0]])
            x = tf.reshape(x, [batch, -1, dilation, channels])
            x = tf.reshape(tf.transpose(x, [2, 0, 1, 3]), [-1, 1, x.shape[1], channels])
            y = tf.nn.conv2d(x, self.kernel[None], 1, "VALID")
            y = tf.nn.bias_add(y, self.bias)
            y = tf.reshape(y, [dilation, batch, -1, self.filters])
            y = tf.reshape(tf.transpose(y, [1, 2, 0, 3]), [batch, -1, self.filters])
            return y[:, :length]

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Conv1D):
            layer.__class__ = TimeToBatch


if __name__ == "__main__":
    main()
