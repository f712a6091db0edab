"""What the jobs share: their arguments, their clips, and the files that failed."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from absl import logging

from magenta_nsynth.api import Baseline, WaveNet
from magenta_nsynth.audio import read_audio
from magenta_nsynth.embeddings.pipeline import Encoded, encoding
from magenta_nsynth.errors import AudioError, InputError, NSynthError
from magenta_nsynth.files import Source, check_folder, expand, find_sources
from magenta_nsynth.notes.clips import Clip, load_clips
from magenta_nsynth.progress import Progress

__all__ = [
    "Failures",
    "SaveSound",
    "check_arguments",
    "encoded_files",
    "find_sounds_or_npy",
    "generated_name",
    "load_clip",
    "make_folder",
    "note_file_name",
    "pending",
    "writing",
]

# Writes a finished sound, [t] float32, to a path.
SaveSound = Callable[[str, np.ndarray], None]
# After these no other file could be written either.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def check_arguments(
    model: WaveNet | Baseline,
    save_path: str | os.PathLike,
    sample_length: int,
    batch_size: int,
) -> None:
    """Raises InputError for what no job over sounds can work with."""
    check_folder(save_path)
    if sample_length < 0 or 0 < sample_length < model.min_samples:
        raise InputError(
            f"--sample_length={sample_length} is less than the {model.min_samples} "
            "samples that the model needs; 0 uses the whole of each file."
        )
    if batch_size < 1:
        raise InputError(f"--batch_size must be 1 or more, not {batch_size}.")


@contextmanager
def encoded_files(
    model: WaveNet | Baseline,
    work: Sequence[tuple[Source, str]],
    sample_length: int,
    batch_size: int,
    failures: "Failures",
) -> Iterator[Iterator[tuple[Source, str, Encoded]]]:
    """Encodes sound files, while others are read and written in the block.

    Args:
      model: the opened checkpoint.
      work: (source, output) pairs.
      sample_length: cuts each to so many samples; 0 takes all.
      batch_size: files that go through the network side by side, at most.
      failures: takes in those that can't be done.

    Yields:
      An iterator of each of the other pairs with its embedding.
    """
    loaded = load_clips((source for source, _ in work), sample_length)
    clips = (
        (None, audio if isinstance(audio, NSynthError) else Clip(file.path, audio, {}))
        for file, audio in loaded
    )
    with (
        encoding(clips, model, batch_size) as results,
        Progress(len(work), "files") as progress,
    ):

        def good() -> Iterator[tuple[Source, str, Encoded]]:
            for (source, output), (_, result) in zip(work, results, strict=True):
                if isinstance(result, NSynthError):
                    failures.messages.append(str(result))
                else:
                    yield source, output, result
                progress.advance()

        yield good()


def find_sounds_or_npy(
    source_paths: Sequence[str | os.PathLike],
    extensions: Sequence[str],
    npy_only: bool,
    recursive: bool,
    left_out: Sequence[str | os.PathLike],
) -> list[Source]:
    """Of each path the sounds, or where it has none the .npy files.

    Args:
      source_paths: files, folders or globs.
      extensions: of sounds.
      npy_only: leaves sounds out.
      recursive: descends into folders.
      left_out: folders that are not descended into: what an earlier run wrote below
        the sounds is none of them.

    Raises:
      InputError: nothing there.
    """
    if npy_only:
        return find_sources(source_paths, [".npy"], recursive)
    return find_sources(source_paths, extensions, recursive, left_out, [".npy"])


def generated_name(name: str) -> str:
    """The file that a sound made of `name` goes to."""
    return f"gen_{name}.wav"


def note_file_name(name: str) -> str:
    """A note's name as a file's: ids may hold slashes."""
    return name.replace("/", "_").replace("\\", "_").replace("\0", "_")


def load_clip(path: str, sample_length: int, model: WaveNet) -> np.ndarray:
    """A sound file as whole frames of the model, [t] float32, cut to a length.

    Raises:
      AudioError: it can't be read, or has less than one frame.
    """
    return model.check_clip(read_audio(path, sample_length), path)


def pending(
    pairs: list[tuple[Source, str]], skip_existing: bool, unfinished_suffix: str = ""
) -> list[tuple[Source, str]]:
    """The (source, output) pairs still to do; says how many are done already.

    Args:
      pairs: all of them.
      skip_existing: False keeps all.
      unfinished_suffix: a file of the output's name and this beside it means that
        the output isn't finished.
    """
    if not skip_existing:
        return pairs
    left = [
        (source, output)
        for source, output in pairs
        if not os.path.exists(output)
        or (unfinished_suffix and os.path.exists(output + unfinished_suffix))
    ]
    if len(left) < len(pairs):
        logging.info("%d of %d are done already.", len(pairs) - len(left), len(pairs))
    return left


def make_folder(save_path: str | os.PathLike, flag: str = "--save_path") -> None:
    """Creates the output folder; raises InputError unless files can be made there.

    Now, because the first file may be hours of work away.
    """
    folder = expand(save_path)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{save_path}: can't be written to ({error.strerror}); give another {flag}."
        ) from error


@contextmanager
def writing(output: str) -> Iterator[None]:
    """Writing `output` in the block; its folder is there then, and errors name it.

    Raises:
      InputError: this file can't be written; others may be.
      OSError: no space is left, for others neither.
    """
    try:
        os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
        yield
    except (OSError, AudioError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(reason, OSError):
            raise
        if reason.errno in _NO_SPACE:
            raise OSError(reason.errno, reason.strerror, output) from error
        raise InputError(
            f"{output}: can't be written ({reason.strerror or reason})."
        ) from error


class Failures:
    """The files that could not be done, and why."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Notes an `NSynthError` of the block in place of raising it."""
        try:
            yield
        except NSynthError as error:
            self.messages.append(str(error))

    def report(self, num_files: int) -> int:
        """Logs what failed; the exit status of a run over `num_files` files."""
        for message in self.messages:
            logging.error("%s", message)
        if self.messages:
            logging.error(
                "%d of %d files failed; the others are done.",
                *(len(self.messages), num_files),
            )
        return 1 if self.messages else 0
