"""TensorFlow Datasets' `nsynth` as clips, if that package is installed."""

import re
from collections.abc import Iterator, Sequence
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
    """The notes of a split of a dataset that TensorFlow Datasets has prepared."""

    def __init__(self, path: str) -> None:
        """Opens a dataset that was prepared before; downloads nothing.

        Args:
          path: "tfds:<name>@<split>", such as "tfds:nsynth/full@test".

        Raises:
          InputError: the path has another form, the package is not installed, or the
            dataset was not prepared.
        """
        match = _NAME.fullmatch(path)
        if match is None:
            raise InputError(
                f"{path}: name a dataset and its split, such as "
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
            # One file after the other, so that the order is always the same.
            self._data = builder.as_dataset(
                split=match["split"],
                shuffle_files=False,
                read_config=tfds.ReadConfig(interleave_cycle_length=1),
            )
        except Exception as error:  # it raises a dozen kinds, none of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{path}: TensorFlow Datasets can't open it ({reason[:200]}); prepare "
                "it first with `tfds build nsynth`, and set TFDS_DATA_DIR if it is "
                "not in the default folder."
            ) from None
        self._rate = _rate_of(builder.info)
        self._has_logged = False
        self.num_clips = int(info.num_examples)
        self.lost: list[str] = []
        self.files: Sequence[Source] = ()
        name = file_name(path.removeprefix(PREFIX))
        self.sets: Sequence[ClipSet] = [ClipSet(path, name, np.arange(self.num_clips))]
        self._path = path
        self.identity: dict[str, Any] = {
            "kind": "tfds",
            "name": builder.info.full_name,
            "split": match["split"],
        }

    def fingerprint(self, first: int, end: int) -> str:
        """As `Clips.fingerprint`; "", since the name has the dataset's version."""
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
        if missing and not self._has_logged:
            self._has_logged = True
            logging.info(
                "%s: has no %s, nor have the others.", where, ", ".join(missing)
            )
        audio = np.asarray(values.get("audio", ()))
        if audio.dtype.kind != "f" or audio.ndim != 1 or not len(audio):
            return InputError(
                f"{where}: its audio is {audio.dtype} of {list(audio.shape)}, not "
                "floats in [-1, 1] of [time]; leave it out with --skip_corrupt."
            )
        if problem := level_problem(float(np.abs(audio).max())):
            return InputError(f"{where}: {problem}; leave it out with --skip_corrupt.")
        audio = resample(audio.astype(np.float32), self._rate)
        known = {label: v for label, v in labels.items() if v is not None}
        audio = audio[: sample_length or None]
        return Clip(where, audio, {"note_str": name, **known}, file_name(name))


def _rate_of(info: Any) -> int:
    """The sample rate of a dataset's audio; 16,000 if it does not say."""
    try:
        return int(info.features["audio"].sample_rate or SAMPLE_RATE)
    except (AttributeError, KeyError, TypeError):
        return SAMPLE_RATE


def _labels(values: dict[str, Any]) -> dict[str, Any]:
    """The labels; None for one that the dataset does not have."""

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
