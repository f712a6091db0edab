"""How sounds are generated, as options. Nothing here imports TensorFlow."""

import dataclasses

from magenta_nsynth.config import NUM_PITCHES, PHASES
from magenta_nsynth.options import option

__all__ = ["Generation"]


@dataclasses.dataclass(frozen=True)
class Generation:
    """How sounds are generated."""

    batch_size: int = option(1, "Files that are generated side by side.")
    seed: int | None = option(
        None,
        "Makes the random draws repeatable; the same for every file.",
        low=0,
        high=2**32 - 1,
    )
    bit_depth: str = option(
        "float", "The sample format of the WAV files.", choices=("float", "16")
    )
    normalize: bool = option(False, "Scale each finished sound to a peak of 1.")
    temperature: float = option(
        1.0,
        "WaveNet: divides the logits. Below 1 is safer, 0 takes the likeliest sample.",
        low=0,
        model="wavenet",
    )
    samples_per_save: int = option(
        10_000,
        "WaveNet: write each unfinished file again after this many samples, so that "
        "you can listen to its start.",
        low=1,
        model="wavenet",
    )
    pitch: int | None = option(
        None,
        "Baseline: the MIDI pitch of all sounds, instead of their own. 60 is C4.",
        low=0,
        high=NUM_PITCHES - 1,
        model="baseline",
    )
    pitch_shift: int = option(
        0,
        "Baseline: semitones above the pitch.",
        low=1 - NUM_PITCHES,
        high=NUM_PITCHES - 1,
        model="baseline",
    )
    griffin_lim_iterations: int = option(
        1000,
        "Baseline: iterations of Griffin-Lim. After 100 there is little left to gain.",
        low=1,
        model="baseline",
    )
    phase: str = option(
        PHASES[0],
        "Baseline: where the phase comes from, Griffin-Lim or the source's own sound.",
        choices=PHASES,
        model="baseline",
    )
    halfway: bool = option(
        False,
        "Baseline: make the sounds between each input and the next one.",
        model="baseline",
    )

    @property
    def wav_depth(self) -> str | int:
        """The sample format as `write_audio` takes it."""
        return self.bit_depth if self.bit_depth == "float" else int(self.bit_depth)
