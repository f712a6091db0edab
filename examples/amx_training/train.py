#!/usr/bin/env python3
"""Continues a run of nsynth_train five times as fast, on processors with AMX.

nsynth_train computes in float32. step.cpp computes matrix products in bfloat16, on the
tiles of Xeon Scalable processors of the 4th generation and later, where TensorFlow's
mixed precision is slower than float32. Batches, checkpoints and summaries are those of
nsynth_train, so that either can resume the other's run. The run must have at least one
step:

    nsynth_train --train_path=data/train --logdir=training --num_steps=1 --width=64 ...
    python examples/amx_training/train.py --train_path=data/train --logdir=training \
        --learning_rate=1.5e-3 --past_noise=3 --past_detune=0.5 --pitch_weight=0.2 \
        --num_steps=200000

It requires Linux and g++. Widths must be multiples of 32, filters must have 3 taps, the
bottleneck must be 16 and the hop 512. SIGTERM or Ctrl-C saves a checkpoint and stops.
--check compares a batch's loss and gradients with the Keras model's, in float32 and in
bfloat16.
"""

import argparse
import ctypes
import dataclasses
import math
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.audio.mu_law import class_labels, mu_law
from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.data.reading import NoteIndex, open_notes, training_batches
from magenta_nsynth.training.batches import with_past
from magenta_nsynth.training.evaluation import WaveNetEvaluator, evaluate_notes
from magenta_nsynth.training.folder import TrainingFolder, checkpoints_in
from magenta_nsynth.training.options import Steps as StepOptions
from magenta_nsynth.training.recipes import RECIPES, Schedule, average_decay
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import Trainer
from magenta_nsynth.weights.engine import new_autoencoder, read_config
from magenta_nsynth.weights.training_state import TrainingState

RECIPE = RECIPES["wavenet"]
# Sound, past and labels, each [b, t]; and pitches, [b].
Inputs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Parses the arguments, and trains or checks."""
    options = parse()
    # The steps use their own threads.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if options.crop_length % 512 or not 0 < options.crop_length <= 64 * 512:
        sys.exit("--crop_length must be 1 to 64 whole frames of 512 samples.")
    starts = checkpoints_in(options.logdir)
    if not starts:
        sys.exit(f"{options.logdir}: contains no run; start one with nsynth_train.")
    config = read_config(starts[0])
    decay, weight = options.average_decay, options.pitch_weight
    trainer = Trainer(new_autoencoder(config), 1, decay, pitch_weight=weight)
    trainer.state.restore(starts[0])
    first = int(trainer.state.global_step.numpy())
    batches = inputs(options, first)
    if options.check:
        check(options, trainer, config, next(batches))
        return
    folder = TrainingFolder(options.logdir, options.num_checkpoints)
    steps = Steps(options, trainer.state, config, build(config, "uint16_t"))
    print(f"From step {first:,} to {options.num_steps:,}.", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        train(options, steps, trainer, folder, batches)
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    save(steps, folder)


def parse() -> argparse.Namespace:
    """Parses the arguments; those of nsynth_train have the same meaning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_path", required=True)
    parser.add_argument("--eval_path", default="")
    parser.add_argument("--logdir", required=True)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--crop_length", type=int, default=2048)
    parser.add_argument("--num_steps", type=int, default=RECIPE.num_steps)
    parser.add_argument("--learning_rate", type=Schedule.parse, default=RECIPE.schedule)
    parser.add_argument("--average_decay", type=float, default=0.999)
    parser.add_argument("--past_noise", type=float, default=0.0)
    parser.add_argument("--past_detune", type=float, default=0.0)
    parser.add_argument("--past_octaves", type=float, default=0.0)
    parser.add_argument("--pitch_weight", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval_steps", type=int, default=10_000)
    parser.add_argument("--save_secs", type=float, default=300)
    parser.add_argument("--num_checkpoints", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


def inputs(options: argparse.Namespace, first: int) -> Iterator[Inputs]:
    """Yields the batches that nsynth_train would use from step `first` on."""
    steps = StepOptions(
        past_noise=options.past_noise,
        past_detune=options.past_detune,
        past_octaves=options.past_octaves,
        pitch_weight=options.pitch_weight,
        seed=options.seed,
    )
    features = ("audio", "pitch")
    batches = training_batches(
        notes_of(options.train_path, options.crop_length, features),
        options.crop_length,
        options.batch_size,
        options.seed,
        first_batch=first,
        features=features,
        needs_pitch=steps.with_labels(RECIPE).needs_pitch,
    )

    def companded(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        q = mu_law(batch["audio"])
        labels = class_labels(q)
        if "weights" in batch:
            labels = tf.where(batch["weights"] > 0, labels, -1)
        pitch = tf.cast(batch["pitch"], tf.int32)
        return q / 128, mu_law(batch["past"]) / 128, labels, pitch

    batches = with_past(batches, steps, first).map(companded)
    return batches.prefetch(8).as_numpy_iterator()


def notes_of(path: str, crop_length: int, features: tuple[str, ...]) -> NoteIndex:
    """Opens the notes of TFRecords that are at least as long as a crop."""
    return open_notes([path], features=features, min_samples=crop_length)


def build(config: WaveNetConfig, real: str) -> ctypes.CDLL:
    """Compiles step.cpp for a network's widths.

    Args:
      config: the network's shape.
      real: "uint16_t" for bfloat16, or "float".

    Returns:
      The library.
    """
    if (config.filter_length, config.ae_filter_length) != (3, 3):
        sys.exit("Filters must have 3 taps.")
    if (config.ae_bottleneck_width, config.ae_hop_length) != (16, 512):
        sys.exit("The bottleneck must be 16 and the hop 512.")
    widths = {
        "WIDTH": config.width,
        "SKIP_WIDTH": config.skip_width,
        "AE_WIDTH": config.ae_width,
    }
    if any(width % 32 for width in widths.values()) or not config.rescale_inputs:
        sys.exit("Widths must be multiples of 32, and inputs companded.")
    if "amx_bf16" not in pathlib.Path("/proc/cpuinfo").read_text():
        sys.exit("This processor has no AMX; use nsynth_train.")
    flags = [
        "-O3",
        "-march=sapphirerapids",
        "-fopenmp",
        "-fno-math-errno",
        "-std=c++17",
    ]
    defines = [f"-D{name}={value}" for name, value in widths.items()]
    source = pathlib.Path(__file__).with_name("step.cpp")
    with tempfile.TemporaryDirectory() as temporary:
        library = f"{temporary}/step.so"
        words = ["g++", *flags, "-shared", "-fPIC", *defines, f"-DREAL={real}"]
        subprocess.run([*words, source, "-o", library], check=True)
        loaded = ctypes.CDLL(library)
    loaded.net_new.restype = ctypes.c_void_p
    loaded.net_array.restype = ctypes.POINTER(ctypes.c_float)
    loaded.net_step.restype = ctypes.c_double
    return loaded


@dataclasses.dataclass
class Steps:
    """The training state as flat arrays, and the step that updates them.

    Attributes:
      options: the program's options.
      state: the source of weights, moments and averages; `put_back` writes to it.
      config: the network's shape.
      library: the result of `build`.
      step: the number of updates so far.
    """

    options: argparse.Namespace
    state: TrainingState
    config: WaveNetConfig
    library: ctypes.CDLL

    def __post_init__(self) -> None:
        """Creates the arrays and copies the state into them."""
        state, config, options = self.state, self.config, self.options
        self._sizes = [int(np.prod(v.shape)) for v in state.variables]
        padded = [-(-size // 16) * 16 for size in self._sizes]
        self._starts = [int(start) for start in np.cumsum([0, *padded])]
        where = {
            id(v): at for v, at in zip(state.variables, self._starts, strict=False)
        }
        in_order = [*_in_order(state.model), *state.pitch_head[:1]]
        offsets = np.array([where[id(v)] for v in in_order] + [0], np.int64)
        size = ctypes.c_int64(self._starts[-1])
        self._net = ctypes.c_void_p(
            self.library.net_new(
                *(config.num_layers, config.num_stages),
                *(config.ae_num_layers, config.ae_num_stages),
                *(options.crop_length, options.batch_size, size, _pointer(offsets)),
            )
        )
        *self._arrays, self.gradients = (
            np.ctypeslib.as_array(self.library.net_array(self._net, i), (size.value,))
            for i in range(5)
        )
        for variable, part in self._parts():
            part[:] = variable.numpy()
        self.step = int(state.global_step.numpy())
        self._powers = [state.beta1_power.numpy(), state.beta2_power.numpy()]

    def _parts(self) -> Iterator[tuple[tf.Variable, np.ndarray]]:
        state = self.state
        groups = (
            *(state.variables, state.first_moments),
            *(state.second_moments, state.averages),
        )
        for group, array in zip(groups, self._arrays, strict=True):
            for i, variable in enumerate(group):
                if variable is not None:
                    yield variable, self.part(array, i)

    def part(self, array: np.ndarray, i: int) -> np.ndarray:
        """The part of `array` for the i-th variable, in the variable's shape."""
        flat = array[self._starts[i] : self._starts[i] + self._sizes[i]]
        return flat.reshape(self.state.variables[i].shape)

    def put_back(self) -> None:
        """Writes everything back to the state."""
        for variable, part in self._parts():
            variable.assign(part)
        state = self.state
        state.global_step.assign(self.step)
        state.beta1_power.assign(self._powers[0])
        state.beta2_power.assign(self._powers[1])

    def __call__(
        self, batch: Inputs, rate: float, update: bool = True
    ) -> tuple[float, float, float]:
        """Runs one step.

        Args:
          batch: sound, past, labels and pitches.
          rate: the learning rate.
          update: False leaves weights, moments and averages unchanged.

        Returns:
          The loss in nats per sample that counts, the norm of the gradients, and the
          loss of the pitch head in nats per frame.
        """
        one = np.float32(1)
        correction = np.sqrt(one - self._powers[1]) / (one - self._powers[0])
        decay = average_decay(self.step + 1, self.options.average_decay)
        figures = (ctypes.c_double * 2)()
        arrays = [np.ascontiguousarray(array) for array in batch]
        loss = self.library.net_step(
            *(self._net, *map(_pointer, arrays)),
            ctypes.c_float(self.options.pitch_weight),
            *(ctypes.c_float(rate * correction), ctypes.c_float(decay)),
            *(int(update), figures),
        )
        if update:
            self.step += 1
            betas = self.state.betas
            self._powers = [
                np.float32(power * np.float32(beta))
                for power, beta in zip(self._powers, betas, strict=True)
            ]
        return loss, figures[0], figures[1]


def _in_order(model: Any) -> list[tf.Variable]:
    """The variables in the order in which step.cpp expects their offsets."""
    d, e = model.decoder, model.encoder
    layers = [d.startconv, d.skip_start, d.out1, d.cond_map_out1, d.logits]
    layers += [e.ae_startconv, e.ae_bottleneck]
    for four in zip(d.dilatedconv, d.cond_map, d.res, d.skip, strict=True):
        layers += four
    for two in zip(e.ae_dilatedconv, e.ae_res, strict=True):
        layers += two
    return [v.value for layer in layers for v in (layer.kernel, layer.bias)]


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def train(
    options: argparse.Namespace,
    steps: Steps,
    trainer: Trainer,
    folder: TrainingFolder,
    batches: Iterator[Inputs],
) -> None:
    """Trains up to the last step; prints a line every minute, and saves regularly."""
    summaries = Summaries(folder.path)
    saved = told = time.monotonic()
    losses, norms, heads = [], [], []
    while steps.step < options.num_steps:
        rate = options.learning_rate(steps.step)
        loss, norm, head = steps(next(batches), rate)
        if not math.isfinite(loss + norm):
            sys.exit(f"Step {steps.step}: {loss} nats, gradients of norm {norm}.")
        losses.append(loss)
        norms.append(norm)
        heads.append(head)
        now = time.monotonic()
        if now - told > 60:
            values = {
                "train/loss_nats": float(np.mean(losses)),
                "train/gradient_norm": float(np.median(norms)),
                "train/learning_rate": float(rate),
                "train/steps_per_second": len(losses) / (now - told),
            }
            if options.pitch_weight:
                values["train/pitch_loss_nats"] = float(np.mean(heads))
            print(time.strftime("%H:%M:%S"), f"step {steps.step}", end=" ")
            print(
                *(f"{k.split('/')[1]} {v:.5g}" for k, v in values.items()), flush=True
            )
            summaries.scalars(steps.step, values)
            told, losses, norms, heads = now, [], [], []
        if options.eval_path and steps.step % options.eval_steps == 0:
            evaluate(options, steps, trainer, summaries)
        if now - saved > options.save_secs:
            save(steps, folder)
            saved = time.monotonic()


def save(steps: Steps, folder: TrainingFolder) -> None:
    """Writes a checkpoint."""
    steps.put_back()
    print(time.strftime("%H:%M:%S"), "saved", folder.save(steps.state), flush=True)


def evaluate(
    options: argparse.Namespace, steps: Steps, trainer: Trainer, summaries: Summaries
) -> None:
    """Measures the loss on other notes, with raw and with averaged weights."""
    notes = notes_of(options.eval_path, options.crop_length, RECIPE.features)
    recipe = dataclasses.replace(
        RECIPE, crop_length=options.crop_length, batch_size=options.batch_size
    )
    evaluator = WaveNetEvaluator(trainer.model)
    steps.put_back()
    state = steps.state
    raw = [variable.numpy() for variable in state.variables]
    losses = {}
    for name, values in (("loss_nats", raw), ("averaged_loss_nats", state.averages)):
        for variable, value in zip(state.variables, values, strict=True):
            variable.assign(value)
        losses[f"eval/{name}"] = evaluate_notes(evaluator, notes, recipe).mean
    for variable, value in zip(state.variables, raw, strict=True):
        variable.assign(value)
    print(time.strftime("%H:%M:%S"), f"step {steps.step}", losses, flush=True)
    summaries.scalars(steps.step, losses)


def check(
    options: argparse.Namespace, trainer: Trainer, config: WaveNetConfig, batch: Inputs
) -> None:
    """Compares the loss and gradients of a batch with the Keras model's."""
    state = trainer.state
    trained = [i for i, has in enumerate(state.has_gradient) if has]
    random = np.random.default_rng(0)
    for variable in state.pitch_head:
        variable.assign(random.normal(size=variable.shape))
    loss, *values = trainer.gradients(uncompanded(batch))
    ours = np.concatenate([np.ravel(v) for v in values[: len(trained)]])
    pitch_loss = float(values[-1]) if options.pitch_weight else 0.0
    for real in ("float", "uint16_t"):
        steps = Steps(options, state, config, build(config, real))
        got, _, got_pitch = steps(batch, 0.0, update=False)
        theirs = [np.ravel(steps.part(steps.gradients, i)) for i in trained]
        error = np.linalg.norm(np.concatenate(theirs) - ours) / np.linalg.norm(ours)
        print(
            f"{real}: loss {got:.7f}, Keras {float(loss):.7f}; gradients off by ",
            end="",
        )
        print(f"{error:.1e} of their norm")
        if options.pitch_weight and abs(got_pitch - pitch_loss) > 1e-2 * pitch_loss:
            sys.exit("The losses of the pitch head differ.")
        if abs(got - loss) > (1e-5 if real == "float" else 1e-2) * float(loss):
            sys.exit("The losses differ.")
        if error > (3e-5 if real == "float" else 3e-2):
            sys.exit("The gradients differ.")


def uncompanded(batch: Inputs) -> dict[str, tf.Tensor]:
    """A batch of `inputs` in the form that the Keras model takes."""
    sound, past, labels, pitch = batch

    def audio(companded: np.ndarray) -> tf.Tensor:
        # The middle of a step, which companding maps back to that step.
        middle = (companded * 128 + 0.5) / 128
        return tf.constant(np.sign(middle) * (256.0 ** np.abs(middle) - 1) / 255)

    counts = (labels >= 0).astype(np.float32)
    return {
        "audio": audio(sound),
        "past": audio(past),
        "weights": tf.constant(counts / counts.mean()),
        "pitch": tf.constant(pitch),
    }


if __name__ == "__main__":
    main()
