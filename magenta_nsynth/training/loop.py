"""The loop over training steps: it trains, saves, measures and writes summaries."""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from magenta_nsynth.data.reading import NoteIndex
from magenta_nsynth.errors import (
    AudioError,
    CheckpointError,
    InputError,
    TrainingError,
)
from magenta_nsynth.progress import Progress
from magenta_nsynth.training.batches import run_batches
from magenta_nsynth.training.evaluation import Evaluator, evaluate_notes
from magenta_nsynth.training.folder import TrainingFolder
from magenta_nsynth.training.options import Saving, Steps
from magenta_nsynth.training.recipes import Recipe
from magenta_nsynth.training.reconstruction import Reconstructions
from magenta_nsynth.training.summaries import Summaries
from magenta_nsynth.training.trainer import StepResult, Trainer
from magenta_nsynth.training.workers import WorkersLostError

__all__ = ["TrainingLoop"]

_LOST_CONNECTION = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
)


@dataclasses.dataclass
class TrainingLoop:
    """A training run, from the step that the trainer has reached.

    Attributes:
      trainer: the model in training.
      recipe: the run's.
      steps: its options.
      saving: when to save, measure and write summaries.
      folder: where to; None for all workers but the chief, which do nothing of it.
      notes: the notes to train on.
      eval_notes: the notes to measure the loss on, if any.
      evaluator: measures it.
      strategy: divides the batches among devices; None for a single device.
      reconstruct: measures reconstructions by a checkpoint, given its prefix; None if
        there are none to make.
    """

    trainer: Trainer
    recipe: Recipe
    steps: Steps
    saving: Saving
    folder: TrainingFolder | None
    notes: NoteIndex
    eval_notes: NoteIndex | None
    evaluator: Evaluator
    strategy: tf.distribute.Strategy | None = None
    reconstruct: Callable[[str], Reconstructions] | None = None

    def __post_init__(self) -> None:
        """Opens the summaries."""
        self._last_saved = ""  # the prefix of the last checkpoint
        self._save_time = self._summary_time = time.monotonic()
        self._summary_step = self._step
        self._summaries = Summaries(self.folder.path) if self.folder else None

    @property
    def _step(self) -> int:
        return int(self.trainer.state.global_step.numpy())

    def run(self, stop: int) -> None:
        """Trains up to the global step `stop`, and saves.

        Raises:
          InputError: a note can't be used. The step before it is saved.
          TrainingError: the loss or the gradient is NaN or infinite, or another worker
            was lost.
          KeyboardInterrupt: says which step was saved, and where.
        """
        logging.info(
            "From step %d to %d: %d notes, %d crops of %d samples a step.",
            *(self._step, stop, self.notes.num_notes),
            *(self.recipe.batch_size, self.recipe.crop_length),
        )
        if self.notes.num_skipped:
            logging.warning("Left out %d damaged notes.", self.notes.num_skipped)
        self._save()  # at once: if that fails, hours of training would be lost
        batches = run_batches(
            self.notes, self.recipe, self.steps, self._step, self.strategy
        )
        digits = 3 if self.recipe.is_likelihood else 5
        self._save_time = self._summary_time = time.monotonic()
        with (
            Progress(stop, "steps", initial=self._step) as progress,
            self._saving_when_stopped(stop),
            self.notes.errors(),
        ):
            # At the start too: for comparison, and to find damaged notes now.
            self._measure()
            while self._step < stop:
                rate = float(self.recipe.schedule(self._step))
                result = self.trainer.train_step(next(batches), rate)
                self._check(result)
                progress.label = f"loss {result.loss:.{digits}f}"
                progress.update(self._step)
                self._after_step(result, rate, self._step == stop)
        self._save()
        if self.folder:
            logging.info("Saved step %d: %s", self._step, self._last_saved)

    def _check(self, result: StepResult) -> None:
        if math.isfinite(result.loss) and math.isfinite(result.norm):
            return
        what = "loss" if not math.isfinite(result.loss) else "gradient"
        advice = "resume from it"
        if self._last_saved.endswith(f"-{self._step - 1}"):
            # It has not been shown yet that the last checkpoint is any good.
            advice += "; if that fails too, remove it to resume from the one before"
        raise TrainingError(
            f"Training stops: the {what} is not finite at step {self._step}. The last "
            f"checkpoint is {self._last_saved}. Lower --learning_rate and {advice}."
        )

    def _after_step(self, result: StepResult, rate: float, is_last: bool) -> None:
        """Writes summaries, measures and saves, if it is time to."""
        now, saving = time.monotonic(), self.saving
        if now - self._summary_time >= saving.save_summaries_secs or is_last:
            self._summarise(result, rate, now)
        if self._step % saving.eval_steps == 0 or is_last:
            self._measure()
        every = saving.reconstruct_steps
        if every and (self._step % every == 0 or is_last):
            self._measure_reconstructions()
        if now - self._save_time >= saving.save_secs and not is_last:
            self._try_to_save()
            self._save_time = time.monotonic()

    def _summarise(self, result: StepResult, rate: float, now: float) -> None:
        if self._summaries is None:
            return
        step, seconds = self._step, now - self._summary_time
        losses = self.recipe.losses(result.loss)
        values = {f"train/{name}": value for name, value in losses.items()}
        if result.pitch_loss is not None:
            values["train/pitch_loss_nats"] = result.pitch_loss
        values["train/learning_rate"] = rate
        values["train/gradient_norm"] = result.norm
        values["train/steps_per_second"] = (step - self._summary_step) / seconds
        self._summaries.scalars(step, values)
        self._summary_step, self._summary_time = step, now

    def _measure(self) -> None:
        """Measures the loss on the other notes."""
        if self.eval_notes is None or self._summaries is None:
            return
        recipe, step = self.recipe, self._step
        result = evaluate_notes(self.evaluator, self.eval_notes, recipe)
        logging.info(
            "Step %d: %s on %d notes.",
            *(step, recipe.describe(result.mean), len(result.losses)),
        )
        result.summarise(self._summaries, step, recipe)
        self.evaluator.show(self._summaries, step, result.first)

    def _measure_reconstructions(self) -> None:
        """Saves, and reconstructs notes with what was saved, as a user would."""
        if self.reconstruct is None or self._summaries is None:
            return
        if not self._try_to_save():
            return
        result, step = self.reconstruct(self._last_saved), self._step
        logging.info("Step %d: %s.", step, result.describe())
        result.summarise(self._summaries, step)

    def _save(self) -> None:
        if self.folder is not None:
            with _uninterrupted():
                self._last_saved = self.folder.save(self.trainer.state)

    def _try_to_save(self) -> bool:
        """Saves, or logs why not and goes on: next time the disk may have room."""
        try:
            self._save()
        except (CheckpointError, OSError) as error:
            logging.error("%s Training continues; saving will be tried again.", error)
            return False
        return True

    @contextlib.contextmanager
    def _saving_when_stopped(self, stop: int) -> Iterator[None]:
        """Saves before Ctrl-C or a bad note ends the training; names a lost worker."""
        try:
            yield
        except _LOST_CONNECTION as error:
            if self.strategy is None:
                raise
            raise WorkersLostError("Lost another worker.") from error
        except KeyboardInterrupt:
            if self.folder is None:
                raise
            # Seen from here, a step changes all of the state or nothing.
            self._save()
            advice = "Run the same command again to resume."
            if self.steps.additional_steps is not None:
                advice = f"Resume with --num_steps={stop}, without --additional_steps."
            raise KeyboardInterrupt(
                f"Saved step {self._step}: {self._last_saved}. {advice}"
            ) from None
        except (InputError, AudioError):
            self._save()
            raise


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Postpones Ctrl-C and other requests to stop until the end of the block."""
    asked = []
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) == signal.default_int_handler
    ]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread is interrupted, and can set handlers
    for number in numbers:
        signal.signal(number, lambda *_: asked.append(True))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt
