"""TensorFlow Datasets' `nsynth` as clips, where that package is installed."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from magenta_nsynth.data.clips import Clip
from magenta_nsynth.data.schema import QUALITIES
from magenta_nsynth.errors import InputError, NSynthError

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
        self.num_clips = int(info.num_examples)
        self.lost: list[str] = []
        self._path = path
        self.identity = {
            "kind": "tfds",
            "name": builder.info.full_name,
            "split": match["split"],
        }

    def fingerprint(self, first: int, end: int) -> str:
        """As `ClipSource.fingerprint`: nothing that a version's name does not say."""
        del first, end
        return ""

    def read(
        self, numbers: np.ndarray, sample_length: int
    ) -> Iterator[Clip | NSynthError]:
        """As `ClipSource.read`."""
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
            if not len(run):
                continue
            part = self._data.skip(int(run[0])).take(len(run))
            for number, values in zip(run, part.as_numpy_iterator(), strict=True):
                yield _clip(f"{self._path}, note {number}", values, sample_length)


def _clip(where: str, values: dict[str, Any], sample_length: int) -> Clip | NSynthError:
    name = values["id"].decode("utf-8", "surrogateescape")
    where = f"{where} ({name})"
    audio = np.asarray(values["audio"], np.float32)[: sample_length or None]
    if not np.isfinite(audio).all():
        return InputError(
            f"{where}: has NaN or infinite samples; leave it out by --skip_corrupt."
        )
    labels = {
        "note_str": name,
        "pitch": int(values["pitch"]),
        "velocity": int(values["velocity"]),
        "instrument_family": int(values["instrument"]["family"]),
        "instrument_source": int(values["instrument"]["source"]),
        "qualities": tuple(int(values["qualities"][q]) for q in QUALITIES),
    }
    return Clip(where, audio, labels)
