"""Sounds or notes of TFRecords in, an embedding of each out."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import AUDIO_EXTENSIONS
from magenta_nsynth.commands.common import (
    Failures,
    check_arguments,
    encoded_files,
    make_folder,
    note_file_name,
    pending,
    writing,
)
from magenta_nsynth.commands.save_codes import record_sets
from magenta_nsynth.embeddings.arrays import save_array
from magenta_nsynth.embeddings.pipeline import encoding
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import expand, find_sources, refuse_collisions
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.record_clips import RecordClips
from magenta_nsynth.progress import Progress

__all__ = ["save_embeddings"]


def save_embeddings(
    model: WaveNet,
    source_paths: Sequence[str | os.PathLike],
    save_path: str | os.PathLike,
    sample_length: int = 64_000,
    batch_size: int = 16,
    recursive: bool = False,
    skip_existing: bool = False,
    skip_corrupt: bool = False,
) -> int:
    """Writes `<stem>_embeddings.npy`, float32 [frames, bottleneck], for each sound.

    Of TFRecords it is `<note_str>_embeddings.npy` for each note.

    Args:
      model: the opened checkpoint.
      source_paths: sound files or TFRecords; files, folders or globs.
      save_path: the folder to write to.
      sample_length: uses at most so many samples, at 16 kHz, of each; 0 uses all.
      batch_size: files that go through the network side by side, at most.
      recursive: descends into folders and mirrors them in `save_path`.
      skip_existing: leaves out sounds whose output exists.
      skip_corrupt: damaged records are left out and counted, and no failures.

    Returns:
      0, or 1 if some files failed; those are logged, the others done.

    Raises:
      InputError: nothing to read, two sounds with one output, a bad argument.

    Source: NSynth, nsynth_save_embeddings; differs: the list in the README.
    """
    check_arguments(model, save_path, sample_length, batch_size)
    sets = record_sets(source_paths, recursive, skip_corrupt)
    if sets:
        paths = [path for paths in sets.values() for path in paths]
        notes = RecordClips(paths, model.min_samples, skip_corrupt)
        make_folder(save_path)
        saver = _NoteSaver(model, expand(save_path), skip_existing, skip_corrupt)
        return saver.save(notes, sample_length, batch_size)
    sources = find_sources(source_paths, AUDIO_EXTENSIONS, recursive)
    outputs = [
        os.path.join(expand(save_path), s.subfolder, f"{s.stem}_embeddings.npy")
        for s in sources
    ]
    refuse_collisions(sources, outputs)
    make_folder(save_path)
    work = pending(list(zip(sources, outputs, strict=True)), skip_existing)
    failures = Failures()
    with encoded_files(model, work, sample_length, batch_size, failures) as encoded:
        for _, output, result in encoded:
            with failures.noting(), writing(output):
                save_array(output, result.z)
            logging.debug("%s: %s", output, result.z.shape)
    return failures.report(len(sources))


class _Done(NSynthError):
    """Stands for a note whose embedding is there already."""


class _Twice(InputError):
    """A note of a name that another had before it."""


class _NoteSaver:
    """Saves the embeddings of records, and counts what could not be."""

    def __init__(
        self, model: WaveNet, folder: str, skip_existing: bool, skip_corrupt: bool
    ) -> None:
        self._model, self._folder = model, folder
        self._skip_existing, self._skip_corrupt = skip_existing, skip_corrupt
        self._failures = Failures()
        self._num_there = self._num_damaged = 0

    def save(self, notes: RecordClips, sample_length: int, batch_size: int) -> int:
        """Saves all notes; the exit status."""
        clips = notes.read(np.arange(notes.num_clips), sample_length)
        todo = ((None, clip) for clip in self._with_outputs(clips))
        with (
            encoding(todo, self._model, batch_size) as results,
            Progress(notes.num_clips, "notes") as progress,
        ):
            for _, result in results:
                if isinstance(result, NSynthError):
                    self._note(result)
                else:
                    output = result.labels["output"]
                    with self._failures.noting(), writing(output):
                        save_array(output, result.z)
                progress.advance()
        if self._num_there:
            logging.info("%d of %d are done already.", self._num_there, notes.num_clips)
        if num_damaged := self._num_damaged + len(notes.lost):
            logging.warning("%d damaged notes are left out.", num_damaged)
        return self._failures.report(notes.num_clips)

    def _note(self, error: NSynthError) -> None:
        if isinstance(error, _Done):
            self._num_there += 1
        elif self._skip_corrupt and not isinstance(error, _Twice):
            self._num_damaged += 1
            logging.warning("%s Left out.", error)
        else:
            self._failures.messages.append(str(error))

    def _with_outputs(
        self, clips: Iterator[Clip | NSynthError]
    ) -> Iterator[Clip | NSynthError]:
        """The clips with the file that each goes to, in place of their labels."""
        taken: dict[str, str] = {}
        for clip in clips:
            if isinstance(clip, NSynthError):
                yield clip
                continue
            name = note_file_name(clip.labels["note_str"])
            output = os.path.join(self._folder, f"{name}_embeddings.npy")
            first = taken.setdefault(output, clip.where)
            if first != clip.where:
                yield _Twice(
                    f"{clip.where}: would be saved as {output}, as {first} is; only "
                    "that one is saved."
                )
            elif self._skip_existing and os.path.exists(output):
                yield _Done(output)
            else:
                yield clip._replace(labels={"output": output})
