"""Times a training step against the same network computed in the original's way.

    python benchmarks/training.py --batch_size 8 --crop_length 6144

For every dilation, the original surrounds a dense convolution with time_to_batch and
its inverse, and it runs one operation after the other on all cores. Both ways compute
the whole step: loss, gradients, Adam, averages. They take turns, each in its own
process, because they need different thread settings. The first step of each turn, which
traces, is not counted.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Iterator

from measuring import (
    Figure,
    Usage,
    figure,
    in_a_process,
    measured,
    middle,
    size_parser,
    table,
)


@dataclasses.dataclass(frozen=True)
class Size:
    """The network, the batch, and how often it is measured."""

    batch_size: int = 8
    crop_length: int = 6144
    width: int = 64
    skip_width: int = 64
    ae_width: int = 32
    steps: int = 5
    turns: int = 2


WAYS = ("original", "ours")


def figures(size: Size = Size()) -> Iterator[Figure]:
    """Yields the figure of a training step, after both ways have taken turns."""
    words = [f"--{name}={value}" for name, value in dataclasses.asdict(size).items()]
    usages: dict[str, list[Usage]] = {way: [] for way in WAYS}
    for _ in range(size.turns):
        for way in WAYS:
            usages[way] += in_a_process(__file__, [*words, f"--way={way}"])
    original, ours = (middle(usages[way]) for way in WAYS)
    task = f"a training step of {size.batch_size} crops, width {size.width}"
    yield figure(task, ours, "the original's way", original)


def main() -> None:
    """Parses the options, runs the two ways in turns, and prints their times."""
    parser = size_parser(__doc__, Size)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    way, size = options.pop("way"), Size(**options)
    if way:
        usages = measure_steps(size, way)
        print(json.dumps([dataclasses.astuple(usage) for usage in usages]))
        return
    for line in table(figures(size)):
        print(line, flush=True)


def measure_steps(size: Size, way: str) -> list[Usage]:
    """Returns what each step takes, computed in one of the two ways."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from magenta_nsynth.config import WaveNetConfig
    from magenta_nsynth.models.wavenet import WaveNetAutoencoder
    from magenta_nsynth.training.trainer import Trainer, set_up_towers

    num_towers = set_up_towers(size.batch_size) if way == "ours" else 1
    model = WaveNetAutoencoder(
        WaveNetConfig(size.width, size.skip_width, ae_width=size.ae_width)
    )
    shape = [size.batch_size, size.crop_length]
    audio = tf.random.stateless_uniform(shape, (1, 2), -0.5, 0.5)
    if way == "original":
        loss = float(model.negative_log_likelihood(audio))
        compute_as_the_original(model)
        assert abs(float(model.negative_log_likelihood(audio)) - loss) < 1e-4
    trainer = Trainer(model, num_towers)
    trainer.train_step(audio, 1e-4)
    return [
        measured(lambda: trainer.train_step(audio, 1e-4)) for _ in range(size.steps)
    ]


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
