"""TensorFlow Datasets' `nsynth` as clips, where that package is installed."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.audio.level import level_problem
from magenta_nsynth.audio.resample import resample
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source
from magenta_nsynth.notes.clips import Clip, ClipSet, file_name
from magenta_nsynth.schema import QUALITIES

__all__ = ["PREFIX", "TFDSClips"]

PREFIX = "tfds:"
_NAME = re.compile(rf"{PREFIX}(?P<name>[^@]+)@(?P<split>.+)")


class TFDSClips:
    """The notes of a split of a data set that TensorFlow Datasets has prepared."""

    def __init__(self, path: str) -> None:
        """Opens what was prepared before; nothing is downloaded.

        Args:
          path: "tfds:<name>@<split>", such as "tfds:nsynth/full@test".

        Raises:
          InputError: another form, the package is not installed, or the data set was
            not prepared.
        """
        match = _NAME.fullmatch(path)
        if match is None:
            raise InputError(
                f"{path}: name a data set and its split, such as "
                f"{PREFIX}nsynth/full@test."
            )
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise InputError(
                f"{path}: TensorFlow Datasets can't be imported ({error}); pip install "
                "tensorflow-datasets, or give TFRecord files."
            ) from None
        try:
            builder = tfds.builder(match["name"])
            info = builder.info.splits[match["split"]]
            # One file after the other: the order is the same every time.
            self._data = builder.as_dataset(
                split=match["split"],
                shuffle_files=False,
                read_config=tfds.ReadConfig(interleave_cycle_length=1),
            )
        except Exception as error:  # of a dozen kinds, and none of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{path}: TensorFlow Datasets can't open it ({reason[:200]}); prepare "
                "it first, with `tfds build nsynth`, and set TFDS_DATA_DIR if it is "
                "not in the usual folder."
            ) from None
        self._rate = _rate_of(builder.info)
        self._said = False
        self.num_clips = int(info.num_examples)
        self.lost: list[str] = []
        self.files: list[Source] = []
        name = file_name(path.removeprefix(PREFIX))
        self.sets = [ClipSet(path, name, np.arange(self.num_clips))]
        self._path = path
        self.identity = {
            "kind": "tfds",
            "name": builder.info.full_name,
            "split": match["split"],
        }

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`: nothing that a version's name does not say."""
        del first, end
        return ""

    def read(
        self, numbers: np.ndarray, sample_length: int, quiet: bool = False
    ) -> Iterator[Clip | NSynthError]:
        """As `Clips.read`."""
        del quiet
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
            if not len(run):
                continue
            part = self._data.skip(int(run[0])).take(len(run))
            for number, values in zip(run, part.as_numpy_iterator(), strict=True):
                yield self._clip(int(number), values, sample_length)

    def _clip(
        self, number: int, values: dict[str, Any], sample_length: int
    ) -> Clip | NSynthError:
        name = values.get("id", b"").decode("utf-8", "surrogateescape")
        name = name or f"{self._path.removeprefix(PREFIX)}-{number}"
        where = f"{self._path}, note {number} ({name})"
        labels = _labels(values)
        missing = [label for label, value in labels.items() if value is None]
        if missing and not self._said:
            self._said = True
            logging.info(
                "%s: has no %s, and others neither.", where, ", ".join(missing)
            )
        audio = np.asarray(values.get("audio", ()))
        if audio.dtype.kind != "f" or audio.ndim != 1 or not len(audio):
            return InputError(
                f"{where}: its audio is {audio.dtype} of {list(audio.shape)}, not "
                "floats in [-1, 1] of [time]; leave it out by --skip_corrupt."
            )
        if problem := level_problem(float(np.abs(audio).max())):
            return InputError(f"{where}: {problem}; leave it out by --skip_corrupt.")
        audio = resample(audio.astype(np.float32), self._rate)
        known = {label: v for label, v in labels.items() if v is not None}
        audio = audio[: sample_length or None]
        return Clip(where, audio, {"note_str": name, **known}, file_name(name))


def _rate_of(info: Any) -> int:
    """What a data set says of its audio's rate; 16,000 where it says nothing."""
    try:
        return int(info.features["audio"].sample_rate or SAMPLE_RATE)
    except (AttributeError, KeyError, TypeError):
        return SAMPLE_RATE


def _labels(values: dict[str, Any]) -> dict[str, Any]:
    """The labels, None where the data set doesn't have one."""

    def number(*path: str) -> int | None:
        value: Any = values
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else int(value)

    qualities = tuple(number("qualities", quality) for quality in QUALITIES)
    return {
        "pitch": number("pitch"),
        "velocity": number("velocity"),
        "instrument_family": number("instrument", "family"),
        "instrument_source": number("instrument", "source"),
        "qualities": None if None in qualities else qualities,
    }
