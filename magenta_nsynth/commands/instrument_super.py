"""The files that open-nsynth-super's device reads: a pad of samples, and settings."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from magenta_nsynth.audio.sampler import to_16_bits
from magenta_nsynth.commands.instrument_finish import Sample
from magenta_nsynth.commands.instrument_plan import Plan
from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["pad_name", "pad_rows", "super_settings"]

_SHOWN = 8  # letters of a name on the device's screen
_KEPT = 40  # letters of a name: a file's name, of up to five of them, has 255 at most
_DATA_FOLDER = "/home/pi/pads"
# For each number of sources, that of each corner: top left, top right, bottom left,
# bottom right; None is the mean of the second and the third.
_CORNERS: Mapping[int, Sequence[int | None]] = {
    1: (0, 0, 0, 0),
    2: (0, 1, 0, 1),
    3: (0, 1, 2, None),
    4: (0, 1, 2, 3),
}


def pad_name(names: Sequence[str]) -> str:
    """The name of the pad's file, as the device makes it of the corners' names."""
    return "_".join(_corner_names(names)) + ".bin"


def _corner_names(names: Sequence[str]) -> list[str]:
    # The device joins the names with "_"; letters and digits are safe.
    plain = [re.sub(r"[^A-Za-z0-9]+", "", name).lower()[:_KEPT] for name in names]
    plain = [name or "sound" for name in plain]
    if len(set(plain)) < len(plain):
        plain = [f"{name}{number}" for number, name in enumerate(plain)]
    return [
        plain[1] + plain[2] if number is None else plain[number]
        for number in _CORNERS[len(names)]
    ]


def pad_rows(plan: Plan, samples: Mapping[str, Sample]) -> Iterator[np.ndarray]:
    """The rows of the pad: int16 [length], a sound each, filled up with silence.

    They are in the order of the device: row by row of the grid, from the top left, and
    within a point from the lowest pitch.

    Args:
      plan: the instrument; its grid is square.
      samples: by the keys of the sounds.
    """
    length = pad_length(samples)
    for sounds in plan.places.values():
        for pitch in plan.pitches:
            audio = to_16_bits(samples[sounds[pitch].key].audio)
            yield np.pad(audio, (0, length - len(audio)))


def pad_length(samples: Mapping[str, Sample]) -> int:
    """The number of samples in a row: those of the longest sound."""
    return max(len(sample.audio) for sample in samples.values())


def super_settings(plan: Plan, samples: Mapping[str, Sample]) -> dict[str, Any]:
    """The device's settings.json."""
    return {
        "nsynth": {
            "dataDirectory": _DATA_FOLDER,
            "resolution": plan.cells[0],
            "pitches": list(plan.pitches),
            "length": pad_length(samples),
            "sampleRate": SAMPLE_RATE,
        },
        "corners": [
            {
                "instruments": [
                    {
                        "name": name,
                        "display": name[:_SHOWN].upper(),
                        "abbr": name[:2].upper(),
                    }
                ]
            }
            for name in _corner_names(plan.names)
        ],
        "audio": {"sampleRate": 48_000, "bufferSize": 128},
        "midi": {"device": "/dev/ttyAMA0", "channel": 1},
        "osc": {"in": {"port": 8000}},
    }
