"""From generated sounds to samples: the chain of finishing steps, and tuning."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from magenta_nsynth.audio import read_audio
from magenta_nsynth.audio.finishing import (
    FADE_OUT,
    fade_ends,
    onset,
    remove_clicks,
    remove_offset,
)
from magenta_nsynth.audio.looping import Loop, add_loop, seam_db
from magenta_nsynth.audio.perceived import equal_gains, perceived_loudness
from magenta_nsynth.audio.pitch import cents_off, fundamental
from magenta_nsynth.audio.sampler import to_16_bits
from magenta_nsynth.commands.instrument_options import Finishing
from magenta_nsynth.commands.instrument_plan import Sound
from magenta_nsynth.errors import AudioError

__all__ = ["Sample", "finish_sounds", "out_of_tune"]

_CLICK_DB = -60.0  # the seam of a loop may not exceed this
_MOST_CENTS = 100.0  # a sound further off has another pitch


@dataclasses.dataclass(frozen=True)
class Sample:
    """A finished sound.

    Attributes:
      sound: what it is.
      audio: [t] float32, exactly as its 16-bit file stores it.
      loop: what to repeat while a note is held, or None.
      cents: how far it is above its pitch; NaN if it has none.
      tune: the cents that correct that.
      facts: what was found and done, as JSON values.
    """

    sound: Sound
    audio: np.ndarray
    loop: Loop | None
    cents: float
    tune: float
    facts: dict[str, Any]

    @property
    def file(self) -> str:
        """The path of its file from the instrument's folder."""
        return f"sounds/{self.sound.name}.wav"


def finish_sounds(
    sounds: Sequence[Sound], folder: str, finishing: Finishing
) -> list[Sample]:
    """Makes samples of all sounds of an instrument, which have been generated.

    Args:
      sounds: the sounds.
      folder: the instrument's.
      finishing: which steps to take.

    Raises:
      AudioError: a generated file can't be read.
    """
    cleaned = [_clean(sound.unprocessed(folder), finishing) for sound in sounds]
    gains = [1.0] * len(sounds)
    if finishing.match_loudness:
        gains = equal_gains([audio for audio, _ in cleaned])
    return [
        _sample(sound, audio * np.float32(gain), {**facts, "gain": gain}, finishing)
        for sound, (audio, facts), gain in zip(sounds, cleaned, gains, strict=True)
    ]


def _clean(path: str, finishing: Finishing) -> tuple[np.ndarray, dict[str, Any]]:
    """The steps that need no other sound; and what they did."""
    facts = {"clicks_removed": 0, "samples_trimmed": 0}
    try:
        audio = read_audio(path)
    except AudioError:
        raise AudioError(
            f"{path}: damaged; remove it, and the same command makes it again."
        ) from None
    if finishing.remove_offset:
        audio = remove_offset(audio)
    if finishing.remove_clicks:
        audio, facts["clicks_removed"] = remove_clicks(audio)
    if finishing.trim:
        first = onset(audio)
        audio, facts["samples_trimmed"] = audio[first:], first
    return (fade_ends(audio) if finishing.fade else audio), facts


def _sample(
    sound: Sound, audio: np.ndarray, facts: dict[str, Any], finishing: Finishing
) -> Sample:
    loop = None
    if finishing.loop:
        looped, loop = add_loop(audio[:-FADE_OUT])
        stored = np.concatenate([looped, audio[-FADE_OUT:]])
        if loop is not None and seam_db(_stored(stored), loop) > _CLICK_DB:
            loop = None
        audio = audio if loop is None else stored
    audio = _stored(audio)
    loudness, hz = perceived_loudness(audio), fundamental(audio)
    cents = cents_off(hz, sound.pitch)
    is_near = abs(cents) < _MOST_CENTS  # not if it is NaN
    tune = round(-cents, 2) if finishing.tune and is_near else 0.0
    facts |= {
        "samples": len(audio),
        "loop": loop and {"start": loop.start, "end": loop.end},
        "loop_seam_db": loop and round(seam_db(audio, loop), 1),
        "loudness_lufs": round(loudness, 2) if math.isfinite(loudness) else None,
        "fundamental_hz": None if math.isnan(hz) else round(hz, 3),
        "cents_off": None if math.isnan(cents) else round(cents, 2),
        "tune_cents": tune,
    }
    return Sample(sound, audio, loop, cents, tune, facts)


def _stored(audio: np.ndarray) -> np.ndarray:
    """The audio as 16 bits hold it."""
    return to_16_bits(audio).astype(np.float32) / np.float32(32768)


def out_of_tune(samples: Iterable[Sample]) -> list[Sample]:
    """The samples without a pitch, or with another one than they are named after."""
    return [sample for sample in samples if not abs(sample.cents) < _MOST_CENTS]
