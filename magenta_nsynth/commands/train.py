"""Training an autoencoder of either kind: what bin/nsynth_train does."""

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from magenta_nsynth.commands.evaluate import describe_loss, evaluate_notes
from magenta_nsynth.config import CONFIGS, H512_BO16, NFFT_1024, WaveNetConfig
from magenta_nsynth.data.reading import (
    NoteFilter,
    NoteIndex,
    open_notes,
    training_batches,
)
from magenta_nsynth.errors import (
    AudioError,
    CheckpointError,
    InputError,
    TrainingError,
)
from magenta_nsynth.files import expand
from magenta_nsynth.progress import Progress
from magenta_nsynth.training.distribution import (
    Cluster,
    ReplicatedTrainer,
    choose_strategy,
    distribute,
    lost_workers,
)
from magenta_nsynth.training.evaluation import make_evaluator
from magenta_nsynth.training.folder import TrainingFolder, checkpoints_in
from magenta_nsynth.training.noise import with_noisy_past
from magenta_nsynth.training.recipes import RECIPES, Recipe
from magenta_nsynth.training.schedule import Schedule
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import Trainer, set_up_towers
from magenta_nsynth.weights.checkpoint import Checkpoint
from magenta_nsynth.weights.engine import new_autoencoder, read_config, require_model
from magenta_nsynth.weights.paths import complete_checkpoints
from magenta_nsynth.weights.tables import Config

__all__ = ["TrainOptions", "train"]


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What a training is asked to do; the defaults are the original's.

    None stands for the model's `Recipe`.

    Attributes:
      train_path: TFRecord files, folders or globs.
      logdir: where checkpoints and summaries go; a training in there is gone on with.
      checkpoint_path: where to start from while `logdir` has no checkpoint.
      model: "wavenet" or "baseline"; "" is the checkpoint's, for a new one a WaveNet.
      config: fields of the model's config that were asked for; the others are the
        checkpoint's, or the released model's for a new one.
      batch_size: crops per step, on all devices and machines together.
      crop_length: samples of each note; of a WaveNet whole frames.
      num_steps: the global step to stop at.
      additional_steps: stop so many steps from where it stands, in place of that.
      schedule: the learning rate.
      average_decay: as in `Recipe`.
      past_noise: the greatest standard deviation of the noise on what a WaveNet's
        decoder sees of the past, in steps of mu-law; see `noisy_past`.
      mixed_precision: compute in bfloat16, keep weights in float32.
      seed: of the order of the notes, the crops, noise, and a new model's weights.
      save_secs: seconds between checkpoints.
      num_kept: checkpoints to keep; 0 keeps all.
      summary_secs: seconds between summaries.
      eval_path: notes to measure the loss on, as `train_path`.
      eval_steps: steps between such measurements.
      filters: which notes to train on.
      skip_corrupt: leave out damaged notes.
    """

    train_path: Sequence[str]
    logdir: str
    checkpoint_path: str = ""
    model: str = ""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int | None = None
    crop_length: int | None = None
    num_steps: int | None = None
    additional_steps: int | None = None
    schedule: Schedule | None = None
    average_decay: float | None = None
    past_noise: float = 0.0
    mixed_precision: bool = False
    seed: int = 0
    save_secs: float = 600.0
    num_kept: int = 5
    summary_secs: float = 30.0
    eval_path: Sequence[str] = ()
    eval_steps: int = 1000
    filters: NoteFilter | None = None
    skip_corrupt: bool = False

    @property
    def recipe(self) -> Recipe:
        """The model's; `model` has to be known."""
        return RECIPES[self.model]


def train(options: TrainOptions) -> int:
    """Trains until the last step, Ctrl-C, or a loss that isn't finite.

    Args:
      options: what to do.

    Returns:
      The exit status, 0.

    Raises:
      InputError: an option or a file of notes that can't be used.
      CheckpointError: the starting point can't be read, or is of another shape.
      TrainingError: the loss is NaN or infinite.
      KeyboardInterrupt: with the step that was saved.

    Source: NSynth, train.py; differs: the list in the README.
    """
    cluster = Cluster()
    options = _completed(options)
    # Before anything else: TensorFlow takes both at its start alone.
    num_towers = _set_up_towers(options, cluster)
    strategy = choose_strategy(cluster)
    notes, eval_notes = (
        open_notes(
            paths,
            filters,
            options.skip_corrupt,
            features=options.recipe.features,
            min_samples=options.crop_length,
            needs_pitch=options.recipe.needs_pitch,
        )
        if any(paths)
        else None
        for paths, filters in (
            (options.train_path, options.filters),
            (options.eval_path, None),
        )
    )
    if notes is None:
        raise InputError(
            "Nothing to train on: give --train_path, made by nsynth_make_tfrecord."
        )
    with contextlib.ExitStack() as stack:
        folder = None
        if cluster.is_chief:
            folder = TrainingFolder(options.logdir, options.num_kept)
            stack.callback(folder.close)
        starts = checkpoints_in(options.logdir)
        if not starts and options.checkpoint_path:
            starts = [Checkpoint(options.checkpoint_path)]
        elif options.checkpoint_path:
            logging.info(
                "%s holds a training, which is gone on with; --checkpoint_path is not "
                "looked at.",
                options.logdir,
            )
        config = _config(options, starts[0] if starts else None)
        _check_crop(options, config)
        stop = _last_step(options, starts[0] if starts else None)
        keras.utils.set_random_seed(options.seed)  # for the weights of a new model
        if strategy is not None:
            stack.enter_context(strategy.scope())
        dtype = "mixed_bfloat16" if options.mixed_precision else None
        model = new_autoencoder(config, dtype)
        trainer = Trainer(model, num_towers, options.average_decay)
        damaged = _restore_first_whole(trainer, starts)
        if folder is not None:
            folder.damaged.update(damaged)
        run = _Run(options, trainer, strategy, folder, notes, eval_notes, num_towers)
        run.steps(stop)
    return 0


def _completed(options: TrainOptions) -> TrainOptions:
    """The options with the model and all that its recipe says."""
    start, model = _first_readable(options), options.model
    if start is not None:
        model = model or start.model or "wavenet"
        require_model(start, model)
    model = model or "wavenet"
    known = {field.name for field in dataclasses.fields(CONFIGS[model])}
    others = [name for name in options.config if name not in known]
    if others:
        raise InputError(
            f"--{others[0]} is no number of this network, {model}, which has "
            f"{', '.join(sorted(known))}; leave it out."
        )
    if not 0 <= options.past_noise < math.inf:
        raise InputError(
            f"--past_noise must be 0 steps of mu-law or more, not {options.past_noise}."
        )
    if options.past_noise and model != "wavenet":
        raise InputError(
            "--past_noise is on the past that a WaveNet sees; the baseline sees none: "
            "leave it out."
        )
    options = dataclasses.replace(options, model=model)
    missing = {
        name: getattr(options.recipe, name)
        for name in (
            "batch_size",
            "crop_length",
            "num_steps",
            "schedule",
            "average_decay",
        )
        if getattr(options, name) is None
    }
    return dataclasses.replace(options, **missing)


def _first_readable(options: TrainOptions) -> Checkpoint | None:
    """The checkpoint that tells the model; `checkpoints_in` says what is damaged."""
    folder = expand(options.logdir)
    if os.path.isdir(folder):
        for prefix in reversed(complete_checkpoints(folder)):
            with contextlib.suppress(CheckpointError):
                return Checkpoint(prefix)
    return Checkpoint(options.checkpoint_path) if options.checkpoint_path else None


def _set_up_towers(options: TrainOptions, cluster: Cluster) -> int:
    if options.batch_size < 1:
        raise InputError(f"--batch_size must be 1 or more, not {options.batch_size}.")
    if not 0 <= options.average_decay <= 1:
        raise InputError(
            f"--average_decay must be 0 to 1, not {options.average_decay}."
        )
    # The baseline's batch norms see the whole batch; with several workers each is a
    # device of its own.
    if options.model == "baseline" or cluster.num_workers > 1:
        return 1
    return set_up_towers(options.batch_size)


def _config(options: TrainOptions, start: Checkpoint | None) -> Config:
    """The starting point's config, which has to agree with what was asked for."""
    asked = options.config
    if start is None:
        released = H512_BO16 if options.model == "wavenet" else NFFT_1024
        return type(released).from_dict({**released.to_dict(), **asked})
    stated = start.config_file()
    config = read_config(start)
    # What no shape shows and no config.json says, the flags may say.
    shapeless = {"ae_hop_length", "num_stages", "ae_num_stages", "rescale_inputs"}
    config = dataclasses.replace(
        config,
        **{
            name: value
            for name, value in asked.items()
            if name in shapeless and name not in stated
        },
    )
    differing = [
        f"{name} is {getattr(config, name)} there and {value} was asked for"
        for name, value in asked.items()
        if getattr(config, name) != value
    ]
    if differing:
        raise CheckpointError(
            f"{start.prefix}: {'; '.join(differing)}. A checkpoint's network can't "
            "change its shape: leave those flags out, or train a new one in another "
            "--logdir."
        )
    return config


def _check_crop(options: TrainOptions, config: Config) -> None:
    if not isinstance(config, WaveNetConfig):
        least, most = config.min_samples, config.max_samples
        if not least <= options.crop_length <= most:
            raise InputError(
                f"--crop_length must be {least} to {most} samples for the baseline, "
                f"not {options.crop_length}."
            )
        return
    hop = config.ae_hop_length
    if options.crop_length < hop or options.crop_length % hop:
        raise InputError(
            f"--crop_length must be a multiple of {hop} samples (a frame), not "
            f"{options.crop_length}."
        )


def _restore_first_whole(trainer: Trainer, starts: list[Checkpoint]) -> list[str]:
    """Takes over the first checkpoint whose bytes are all right; names the others."""
    for i, start in enumerate(starts):
        try:
            trainer.state.restore(start)
        except CheckpointError as error:
            if i == len(starts) - 1:
                raise
            logging.warning("%s An older one is used.", error)
        else:
            logging.info("Starting from %s.", start.prefix)
            return [damaged.prefix for damaged in starts[:i]]
    return []


def _last_step(options: TrainOptions, start: Checkpoint | None) -> int:
    step = (start.step or 0) if start else 0
    if options.additional_steps is not None:
        if options.additional_steps < 1:
            raise InputError("--additional_steps must be 1 or more.")
        return step + options.additional_steps
    if step >= options.num_steps:
        raise InputError(
            f"{start.prefix if start else options.logdir}: stands at step {step:,}, "
            f"and --num_steps={options.num_steps} is reached; raise it, or give "
            "--additional_steps."
        )
    return options.num_steps


@dataclasses.dataclass
class _Run:
    """One run of the loop over steps."""

    options: TrainOptions
    trainer: Trainer
    strategy: tf.distribute.Strategy | None
    folder: TrainingFolder | None  # of the chief alone
    notes: NoteIndex
    eval_notes: NoteIndex | None
    num_towers: int
    last_saved: str = ""

    def __post_init__(self) -> None:
        if self.strategy is not None:
            replicas = self.strategy.num_replicas_in_sync
            if self.options.batch_size % replicas:
                raise InputError(
                    f"--batch_size={self.options.batch_size} can't be divided among "
                    f"{replicas} devices; take a multiple of {replicas}."
                )
        else:
            replicas = 1
        if self.options.model == "baseline" and self.options.batch_size < 2 * replicas:
            raise InputError(
                f"--batch_size must be {2 * replicas} or more for the baseline, 2 for "
                "each device: its innermost batch norms have one value of each note, "
                "and of a single one nothing is left."
            )
        self.evaluator = make_evaluator(self.trainer.model, self.num_towers)

    @property
    def step(self) -> int:
        return int(self.trainer.state.global_step.numpy())

    def steps(self, stop: int) -> None:
        """Trains up to the step `stop`, and saves."""
        options = self.options
        logging.info(
            "From step %d to %d: %d notes, %d crops of %d samples a step.",
            *(self.step, stop, self.notes.num_notes),
            *(options.batch_size, options.crop_length),
        )
        if self.notes.num_skipped:
            logging.warning("%d damaged notes are left out.", self.notes.num_skipped)
        self._save()  # now: whether it can be done, and hours could be lost
        train_step, batches = self._on_devices()
        digits = 3 if options.recipe.is_likelihood else 5
        summaries = Summaries(self.folder.path) if self.folder else None
        saved = summed = time.monotonic()
        summed_step = self.step
        with (
            Progress(stop, "steps", initial=self.step) as progress,
            self._tidy_stop(stop),
            self.notes.errors(),
        ):
            # At the start too: for comparison, and to find damage in these notes now.
            self._evaluate(summaries, self.step)
            while self.step < stop:
                rate = options.schedule(self.step)
                loss, norm = train_step(next(batches), rate)
                step = self.step
                self._check(loss, norm, step)
                progress.label = f"loss {loss:.{digits}f}"
                progress.update(step)
                now = time.monotonic()
                if summaries and (now - summed >= options.summary_secs or step == stop):
                    losses = options.recipe.losses(loss).items()
                    values = {
                        **{f"train/{name}": value for name, value in losses},
                        "train/learning_rate": float(rate),
                        "train/gradient_norm": norm,
                        "train/steps_per_second": (step - summed_step) / (now - summed),
                    }
                    summaries.scalars(step, values)
                    summed, summed_step = now, step
                if step % options.eval_steps == 0 or step == stop:
                    self._evaluate(summaries, step)
                if now - saved >= options.save_secs and step < stop:
                    self._try_to_save()
                    saved = time.monotonic()
        self._save()
        if self.folder:
            logging.info("Step %d is saved: %s", self.step, self.last_saved)

    def _on_devices(self) -> tuple[Callable[..., Any], Iterator[Any]]:
        """The step's function and the batches that it takes."""
        options, first = self.options, self.step

        def dataset(shard: tuple[int, int]) -> tf.data.Dataset:
            batches = training_batches(
                self.notes,
                options.crop_length,
                options.batch_size,
                options.seed,
                first_batch=first,
                shard=shard,
                features=options.recipe.features,
                needs_pitch=options.recipe.needs_pitch,
            )
            batches = batches.map(options.recipe.batch)
            if not options.past_noise:
                return batches
            return with_noisy_past(
                batches, options.past_noise, options.seed, first, shard
            )

        if self.strategy is None:
            return self.trainer.train_step, iter(dataset((0, 1)))
        replicated = ReplicatedTrainer(self.trainer, self.strategy)
        batches = distribute(self.strategy, dataset, options.batch_size)
        return replicated.train_step, batches

    @contextlib.contextmanager
    def _tidy_stop(self, stop: int) -> Iterator[None]:
        """Saves before Ctrl-C or a bad note ends it; a lost worker is told as such."""
        try:
            with lost_workers() if self.strategy else contextlib.nullcontext():
                yield
        except KeyboardInterrupt:
            if self.folder is None:
                raise
            # A step changes all or nothing of the state, as seen from here.
            self._save()
            again = "The same command goes on from it."
            if self.options.additional_steps is not None:
                again = f"Go on with --num_steps={stop}, not --additional_steps."
            raise KeyboardInterrupt(
                f"Step {self.step} is saved: {self.last_saved}. {again}"
            ) from None
        except (InputError, AudioError):
            self._save()
            raise

    def _check(self, loss: float, norm: float, step: int) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        advice = "go on from it"
        if self.last_saved.endswith(f"-{step - 1}"):
            # Nothing yet has shown that what was saved last is any good.
            advice = "if that fails again, remove it to go on from the one before"
        raise TrainingError(
            f"The {what} is not finite at step {step}, so training stops. The last "
            f"checkpoint is {self.last_saved}; lower --learning_rate, and {advice}."
        )

    def _evaluate(self, summaries: Summaries | None, step: int) -> None:
        if self.eval_notes is None or summaries is None:  # the chief's work alone
            return
        result = evaluate_notes(
            self.evaluator,
            self.eval_notes,
            self.options.recipe,
            self.options.crop_length,
            self.options.batch_size,
        )
        loss = float(result["loss"].mean())
        logging.info(
            "Step %d: %s on %d notes.",
            *(step, describe_loss(self.options.recipe, loss), len(result["loss"])),
        )
        losses = self.options.recipe.losses(loss).items()
        summaries.scalars(step, {f"eval/{name}": value for name, value in losses})
        self.evaluator.show(summaries, step, result["first"])

    def _save(self) -> None:
        if self.folder is not None:
            with _uninterrupted():
                self.last_saved = self.folder.save(self.trainer.state)

    def _try_to_save(self) -> None:
        """Saves, or says why not and trains on: the disk may have room next time."""
        try:
            self._save()
        except (CheckpointError, OSError) as error:
            logging.error("%s Training goes on; the next save will be tried.", error)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts off Ctrl-C and other requests to end until the block is done."""
    asked = []
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) == signal.default_int_handler
    ]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread is interrupted, and may put it off
    for number in numbers:
        signal.signal(number, lambda *_: asked.append(True))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt
