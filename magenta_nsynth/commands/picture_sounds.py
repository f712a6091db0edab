"""Generated sounds for pictures, in a folder from which a later run takes them."""

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import write_audio
from magenta_nsynth.commands.common import (
    Failures,
    check_arguments,
    generated_name,
    make_folder,
    pending,
    writing,
)
from magenta_nsynth.commands.generate import UNFINISHED, Job, embed, generate_jobs
from magenta_nsynth.commands.picture_panels import Subject, Subjects
from magenta_nsynth.disk import only_writer
from magenta_nsynth.embeddings.files import Embedding
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import Source, expand, load_json, open_file, write_json
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.stores import storage

__all__ = ["claimed_folder", "generate_missing", "reconstruct", "settings_of"]

_SETTINGS = "settings.json"


def reconstruct(
    model: WaveNet,
    subjects: Subjects,
    folder: str,
    sample_length: int,
    generation: Generation,
) -> None:
    """Generates the reconstruction of each sound that has none yet.

    Sounds that can't be reconstructed are logged.

    Args:
      model: the opened checkpoint.
      subjects: sound files.
      folder: to write `gen_<stem>.wav` to, mirroring folders.
      sample_length: the sounds were cut to this many samples; 0 is not at all.
      generation: how.

    Raises:
      InputError: no sound files, or the folder's sounds are of another network or
        other settings.
    """
    if not subjects.are_files or any(s.source.is_npy for s in subjects.subjects):
        raise InputError(
            "--reconstructions are made of sound files. Write the notes of TFRecords "
            "to files with nsynth_make_tfrecord, and give sounds instead of .npy."
        )
    make_folder(folder, "--sounds_path")
    check_arguments(model, folder, sample_length, generation.batch_size)
    sounds = {
        storage.join(s.source.mirrored, generated_name(s.name)): s
        for s in subjects.subjects
    }
    settings = settings_of(model, generation, sample_length)
    checksums = {name: _checksum(subject) for name, subject in sounds.items()}
    with claimed_folder(folder, settings, checksums):
        generate_missing(
            model,
            {
                storage.join(expand(folder), name): functools.partial(
                    _embed, model, subject
                )
                for name, subject in sounds.items()
            },
            generation,
        )
    logging.info("%s: the generated sounds.", folder)


def _embed(model: WaveNet, subject: Subject) -> Embedding:
    return embed(model, subject.load_sound())


def _checksum(subject: Subject) -> int:
    try:
        with open_file(subject.source.path) as file:
            return zlib.crc32(file.read())
    except (OSError, InputError):
        return 0  # reading it as a sound reports the error


def settings_of(
    model: WaveNet, generation: Generation, sample_length: int | None = None
) -> dict[str, Any]:
    """How sounds are made, for `claimed_folder`.

    Args:
      model: the opened checkpoint.
      generation: the other options.
      sample_length: of what the sounds are made of; None if that does not count.
    """
    cut = {} if sample_length is None else {"sample_length": sample_length}
    return {
        "checkpoint": storage.abspath(model.checkpoint_path),
        "use_ema": model.use_ema,
        **cut,
        "seed": generation.seed,
        "temperature": generation.temperature,
        **generation.noted_precision,
    }


def generate_missing(
    model: WaveNet,
    embeddings: Mapping[str, Callable[[], Embedding]],
    generation: Generation,
) -> int:
    """Generates those sounds that are not finished yet.

    Args:
      model: the opened checkpoint.
      embeddings: for the path of each sound, what makes its embedding.
      generation: how.

    Returns:
      0, or 1 if some failed; those are logged, the others done.
    """
    failures = Failures()
    pairs = [(Source(path, ""), path) for path in embeddings]
    wanted = [path for _, path in pending(pairs, True, UNFINISHED)]

    def jobs() -> Iterator[Job]:
        for path in wanted:
            with failures.noting():
                yield Job(embeddings[path](), path)

    def save(job: Job, audio: np.ndarray) -> None:
        write_audio(job.path, audio, generation.wav_depth)

    generate_jobs(model, jobs(), len(wanted), generation, save, failures)
    return failures.report(len(embeddings))


@contextlib.contextmanager
def claimed_folder(
    folder: str, settings: Mapping[str, Any], checksums: Mapping[str, int]
) -> Iterator[None]:
    """Reserves a folder in the block for sounds that are made in one way.

    The settings are recorded in the folder, because only sounds that were made with
    the same ones can be used again. A sound that an earlier run made of something else
    is removed.

    Args:
      folder: of the sounds; exists.
      settings: how sounds are made.
      checksums: for each file, by its path in the folder, of what it is made.

    Raises:
      InputError: there are sounds that were made with other settings or by something
        else, or another program is writing there.
    """
    folder = expand(folder)
    with only_writer(folder, "--sounds_path"):
        made_of = _made_of(folder, settings)
        changed = [name for name, crc in checksums.items() if made_of.get(name) != crc]
        for name in changed:
            path = storage.join(folder, name)
            if name not in made_of and storage.lexists(path):
                raise InputError(
                    f"{path}: already exists and was not generated by this command; "
                    "give another --sounds_path, or --reconstructions_path to use "
                    "finished sounds."
                )
        for name in changed:
            path = storage.join(folder, name)
            with writing(path), contextlib.suppress(FileNotFoundError):
                storage.unlink(path)
        path = storage.join(folder, _SETTINGS)
        with writing(path):
            write_json(path, {**settings, "made_of": {**made_of, **checksums}})
        yield


def _made_of(folder: str, settings: Mapping[str, Any]) -> dict[str, int]:
    """The checksums that an earlier run recorded.

    Raises:
      InputError: it had other settings, or the record can't be read.
    """
    path = storage.join(folder, _SETTINGS)
    try:
        before = load_json(path, {"made_of": {str: int}})
        made_of = before.pop("made_of")
    except FileNotFoundError:
        return {}
    except InputError as error:
        raise InputError(f"{error} Remove it, or give another --sounds_path.") from None
    if before != settings:
        raise InputError(
            f"{folder}: its sounds were made with another checkpoint or other "
            f"settings ({_SETTINGS} in there lists them); give another --sounds_path, "
            "or remove it."
        )
    return made_of
