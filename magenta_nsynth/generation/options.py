"""The options of generating sounds. Nothing here imports TensorFlow."""

import dataclasses
from typing import Literal

from magenta_nsynth.config import NUM_PITCHES, PHASES, PRECISIONS
from magenta_nsynth.options import option

__all__ = ["Generation"]


@dataclasses.dataclass(frozen=True)
class Generation:
    """How sounds are generated."""

    batch_size: int = option(1, "The number of files generated side by side.")
    seed: int | None = option(
        None,
        "The seed that makes the random draws repeatable; the same for each file.",
        low=0,
        high=2**32 - 1,
    )
    bit_depth: str = option(
        "float", "The sample format of the WAV files.", choices=("float", "16")
    )
    normalize: bool = option(False, "Scale each finished sound to a peak of 1.")
    temperature: float = option(
        1.0,
        "WaveNet: divides the logits. Below 1 is more predictable; 0 takes the most "
        "likely sample.",
        low=0,
        model="wavenet",
    )
    precision: str = option(
        PRECISIONS[0],
        "WaveNet: int8 rounds the layers' weights to 8 bits. That is several times as "
        "fast, always runs on processors, and draws other samples than float32, which "
        "draws the original's.",
        choices=PRECISIONS,
        model="wavenet",
    )
    samples_per_save: int = option(
        10_000,
        "WaveNet: save unfinished sounds every so many samples, to listen to their "
        "beginning.",
        low=1,
        model="wavenet",
    )
    pitch: int | None = option(
        None,
        "Baseline: the MIDI pitch of all sounds, instead of their own; 60 is C4.",
        low=0,
        high=NUM_PITCHES - 1,
        model="baseline",
    )
    pitch_shift: int = option(
        0,
        "Baseline: the number of semitones to add to the pitch.",
        low=1 - NUM_PITCHES,
        high=NUM_PITCHES - 1,
        model="baseline",
    )
    griffin_lim_iterations: int = option(
        1000,
        "Baseline: iterations of Griffin-Lim. More than 100 improve little.",
        low=1,
        model="baseline",
    )
    phase: str = option(
        PHASES[0],
        "Baseline: the source of the phase, Griffin-Lim or the original sound.",
        choices=PHASES,
        model="baseline",
    )
    halfway: bool = option(
        False,
        "Baseline: generate the sounds halfway between each input and the next one.",
        model="baseline",
    )

    @property
    def noted_precision(self) -> dict[str, str]:
        """What records of how sounds were made say of it: nothing about float32.

        Records from before there was a choice say nothing either.
        """
        return {} if self.precision == "float32" else {"precision": self.precision}

    @property
    def wav_depth(self) -> Literal["float", 16]:
        """The sample format for `write_audio`."""
        return 16 if self.bit_depth == "16" else "float"
