"""How to train and to evaluate, as options. Nothing here imports TensorFlow."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from magenta_nsynth.config import read_fields
from magenta_nsynth.errors import InputError
from magenta_nsynth.options import check_limits, option
from magenta_nsynth.training.recipes import RECIPES, Recipe, Schedule

__all__ = [
    "Evaluation",
    "NetworkShape",
    "OriginalCluster",
    "Saving",
    "Steps",
    "TrainingNotes",
]


@dataclasses.dataclass(frozen=True)
class TrainingNotes:
    """The notes to train on.

    Raises:
      InputError: there are none.
    """

    train_path: Sequence[str] = option(
        (),
        "TFRecords of notes to train on: a file, a folder or a quoted glob",
        repeated=True,
    )
    eval_path: Sequence[str] = option(
        (),
        "TFRecords of notes to measure the loss on, every --eval_steps",
        repeated=True,
    )
    skip_corrupt: bool = option(
        False, "Leave out damaged notes and count them, instead of stopping."
    )

    def __post_init__(self) -> None:
        """Checks that there is something to train on."""
        if not any(self.train_path):
            raise InputError(
                "Nothing to train on: give --train_path, made by nsynth_make_tfrecord."
            )


@dataclasses.dataclass(frozen=True)
class NetworkShape:
    """The shape of a new network, where it differs from the released one's."""

    config: str = option(
        "",
        "h512_bo16, nfft_1024 (the baseline) or a config.json. The flags below change "
        "single numbers of it.",
    )
    width: int | None = option(
        None, "Decoder channels, or those of the baseline's outermost layers.", low=1
    )
    num_latent: int | None = option(None, "Size of z.", low=1, model="baseline")
    skip_width: int | None = option(
        None, "Decoder skip channels.", low=1, model="wavenet"
    )
    num_layers: int | None = option(None, "Decoder layers.", low=1, model="wavenet")
    num_stages: int | None = option(
        None, "Decoder layers per cycle of dilations.", low=1, model="wavenet"
    )
    filter_length: int | None = option(
        None, "Taps of the decoder's dilated convolutions.", low=1, model="wavenet"
    )
    ae_width: int | None = option(None, "Encoder channels.", low=1, model="wavenet")
    ae_num_layers: int | None = option(None, "Encoder layers.", low=1, model="wavenet")
    ae_num_stages: int | None = option(
        None, "Encoder layers per cycle of dilations.", low=1, model="wavenet"
    )
    ae_filter_length: int | None = option(
        None, "Taps of the encoder's dilated convolutions.", low=1, model="wavenet"
    )
    ae_bottleneck_width: int | None = option(
        None, "Size of a frame's embedding.", low=1, model="wavenet"
    )
    ae_hop_length: int | None = option(
        None, "Samples per frame.", low=1, model="wavenet"
    )

    def requested(self, model: str) -> tuple[str, dict[str, Any]]:
        """The model and the fields of its config that were asked for.

        Args:
          model: "wavenet", "baseline", or "" for either.

        Returns:
          The model, or "" if nothing decides it; and the fields, by name.

        Raises:
          InputError: `config` can't be read, or is another model's.
        """
        fields: dict[str, Any] = {}
        if self.config:
            owner, fields = read_fields(self.config)
            if model not in ("", owner):
                raise InputError(
                    f"--config={self.config} is for --model={owner}, not for "
                    f"--model={model}; leave one of them out."
                )
            model = owner
        numbers = dataclasses.asdict(self)
        del numbers["config"]
        given = {name: value for name, value in numbers.items() if value is not None}
        return model, {**fields, **given}


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of the training. The defaults are the published ones.

    Raises:
      InputError: a value out of range.
    """

    batch_size: int | None = option(
        None,
        "Notes per step, on all devices together. By default 1, or 8 for the baseline. "
        "The paper's WaveNet was trained with 32.",
        low=1,
    )
    crop_length: int | None = option(
        None,
        "Samples of each note per step. By default 6144, or 64000 for the baseline.",
        low=1,
    )
    num_steps: int | None = option(
        None,
        "The global step to stop at. By default that of the released weights, 200000, "
        "or 351648 for the baseline.",
        low=1,
    )
    additional_steps: int | None = option(
        None, "Stop after this many more steps, whatever --num_steps is.", low=1
    )
    learning_rate: str = option(
        "",
        "One rate, or step:rate pairs (0:2e-4,90000:1e-4), instead of the published "
        "schedule.",
    )
    average_decay: float | None = option(
        None,
        "WaveNet: the highest decay of the averaged weights, by default 0.9999. "
        "Baseline: the decay of the batch norms' averages, by default 0.999. Use 0.99 "
        "to 0.999 for a run of a few thousand steps.",
        low=0,
        high=1,
    )
    past_noise: float = option(
        0.0,
        "WaveNet: adds noise to the past that the decoder sees, so that it relies on "
        "the embedding and copes with its own errors when it generates. Each note's "
        "standard deviation is drawn between 0 and this, in steps of mu-law. 4 is a "
        "lot.",
        low=0,
        model="wavenet",
    )
    past_detune: float = option(
        0.0,
        "WaveNet: the share of notes whose beginning is detuned in the past that the "
        "decoder sees, so that it learns to return to the embedding's pitch. The loss "
        "counts what comes after.",
        low=0,
        high=1,
        model="wavenet",
    )
    pitch_weight: float = option(
        0.0,
        "WaveNet: the weight of a second loss, in training alone: a linear classifier "
        "has to tell the pitch from each frame of the embedding, so that the embedding "
        "holds it. 0.2 is usual. Needs notes of known pitch.",
        low=0,
        model="wavenet",
    )
    shortest_note: int = option(
        0,
        "Baseline: silences the end of half of the notes, at random, but leaves this "
        "many samples or more, so that the network copes with sounds shorter than "
        "those of the dataset. 0 leaves notes whole.",
        low=0,
        model="baseline",
    )
    mixed_precision: bool = option(
        False, "Compute in bfloat16 and keep the weights in float32."
    )
    seed: int = option(
        0,
        "Seed for note order, noise and weight initialisation.",
        low=0,
        high=2**32 - 1,
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_limits(self)
        for name in ("past_noise", "pitch_weight"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise InputError(f"--{name} must be finite, not {value}.")
        if self.learning_rate:
            Schedule.parse(self.learning_rate)

    def recipe(self, model: str) -> Recipe:
        """The model's published recipe with the values that were given.

        Args:
          model: "wavenet" or "baseline".
        """
        names = ("batch_size", "crop_length", "num_steps")
        given = {name: getattr(self, name) for name in names}
        if self.learning_rate:
            given["schedule"] = Schedule.parse(self.learning_rate)
        given = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(RECIPES[model], **given)

    def with_labels(self, recipe: Recipe) -> Recipe:
        """The recipe for the notes to train on; the pitch head needs their pitch."""
        if not self.pitch_weight:
            return recipe
        return dataclasses.replace(recipe, features=("audio", "pitch"))


@dataclasses.dataclass(frozen=True)
class Saving:
    """Checkpoints and summaries.

    Raises:
      InputError: no folder, or a value out of range.
    """

    logdir: str = option(
        "",
        "The folder for checkpoints and summaries. If it contains a run, that run is "
        "resumed.",
    )
    save_secs: float = option(600.0, "Seconds between checkpoints.", low=0)
    num_checkpoints: int = option(
        5, "How many checkpoints to keep, the newest ones; 0 keeps all.", low=0
    )
    save_summaries_secs: float = option(
        30.0, "Seconds between TensorBoard summaries.", low=0
    )
    eval_steps: int = option(
        1000, "Steps between measurements of the loss on --eval_path.", low=1
    )
    reconstruct_steps: int = option(
        0,
        "Steps between reconstructions of 16 notes of --eval_path; 0 makes none. "
        "TensorBoard shows how many are in tune, and more. A WaveNet generates a "
        "second of each with the averaged weights, which can take minutes.",
        low=0,
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_limits(self)
        if not self.logdir:
            raise InputError("No --logdir given: name the folder to write to.")


@dataclasses.dataclass(frozen=True)
class OriginalCluster:
    """The original's way to several machines; only the defaults are accepted."""

    master: str = option("", "Does nothing; set TF_CONFIG instead.")
    task: int = option(0, "Does nothing; set TF_CONFIG instead.")
    ps_tasks: int = option(0, "Does nothing; set TF_CONFIG instead.")
    worker_replicas: int = option(1, "Does nothing; set TF_CONFIG instead.")


def _orders(words: Sequence[str]) -> tuple[int, ...]:
    try:
        orders = tuple(int(word) for word in words)
        if any(order < 1 for order in orders):
            raise ValueError
    except ValueError:
        raise InputError(
            f"--linear_predictor={','.join(words)}: give numbers of samples, 1 or "
            "more, separated by commas, such as 16,64."
        ) from None
    return orders


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is measured, and how.

    Raises:
      InputError: a value out of range.
    """

    sample_length: int | None = option(
        None,
        "Samples to use of each note; 0 uses whole notes. The loss is that of the "
        "note's centre, by default of 6144 samples, or 64000 for the baseline. "
        "Reconstructed is the note's beginning, by default 16384 samples, or 64000.",
        low=0,
    )
    batch_size: int = option(8, "Notes that are computed side by side.", low=1)
    limit: int = option(
        0, "The most notes to use, evenly spaced over all; 0 uses all.", low=0
    )
    reconstruct: bool = option(
        False,
        "Also generate each note from its embedding, and measure pitch, level and "
        "spectrum; the same for the originals, for noise with their envelopes, and the "
        "pitch of the best constant tone.",
    )
    linear_predictor: Sequence[int] = option(
        (),
        "WaveNet: also show the loss of a linear predictor of this many samples (16,64 "
        "for two of them), fitted to each note, to compare with.",
        parse=_orders,
        model="wavenet",
    )
    save_path: str = option(
        "",
        "The JSON file to write the figures to, or a folder for evaluation.json.",
    )
    logdir: str = option(
        "",
        "A folder for TensorBoard: the figures, and the first notes with their "
        "reconstructions.",
    )

    def __post_init__(self) -> None:
        """Checks the values."""
        check_limits(self)
