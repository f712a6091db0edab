"""Saving the embeddings of sounds or notes."""

import itertools
from collections.abc import Iterator

import numpy as np
from absl import logging

from magenta_nsynth.api import Autoencoder
from magenta_nsynth.commands.common import (
    Failures,
    check_arguments,
    check_rules,
    make_folder,
    pending,
    writing,
)
from magenta_nsynth.commands.options import Output
from magenta_nsynth.embeddings.embedding import Embedding
from magenta_nsynth.embeddings.encode_many import encoding
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source, expand, refuse_collisions
from magenta_nsynth.formatting import counted
from magenta_nsynth.notes.clips import Clip, Clips, SoundClips
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.opening import open_clips
from magenta_nsynth.notes.sound_labels import log_pitches
from magenta_nsynth.progress import Progress
from magenta_nsynth.stores import remote, storage

__all__ = ["save_embeddings"]


def save_embeddings(
    model: Autoencoder,
    inputs: Inputs,
    rules: NameRules,
    output: Output,
    batch_size: int = 16,
) -> int:
    """Writes the embedding of each sound or note.

    A WaveNet writes `<name>_embeddings.npy`, float32 [frames, bottleneck]. The baseline
    writes `<name>_z.npy`, float32 [N, 1984], and `<name>_z.csv` with ids and labels: a
    pair for each sound, or for all notes of a set of TFRecords. A sound of more than
    65,535 samples has a row for each 65,536.

    Args:
      model: the opened checkpoint.
      inputs: sounds or notes, as for `open_clips`.
      rules: how the baseline's pitches are read from the names of sounds.
      output: where to write.
      batch_size: on GPUs, the largest number of clips encoded side by side.

    Returns:
      The exit status: 1 if some failed, with messages, and the others are done; else 0.

    Raises:
      InputError: there is nothing to read, two sounds have the same output, or an
        argument can't be used.

    Source: NSynth, nsynth_save_embeddings and baseline/save_embeddings.py. The
    differences are listed in docs/reference/differences.md.
    """
    check_arguments(model, output.save_path, inputs.sample_length, batch_size)
    check_rules(model, rules)
    clips = open_clips(inputs, model.min_samples, rules)
    if inputs.skip_corrupt and clips.files:
        raise InputError("--skip_corrupt is for TFRecords; leave it out.")
    saver = _Saver(model, inputs, output, batch_size)
    return saver.save(clips)


# A clip with its output, and a number that distinguishes clips with the same output.
_Planned = tuple[tuple[str, int], Clip | NSynthError]


class _Done(NSynthError):
    """Represents a note whose embedding exists."""


class _Twice(InputError):
    """A note with the same name as an earlier one."""


def _named(clip: Clip | NSynthError, name: str) -> Clip | NSynthError:
    """Gives a clip the id that its own file contains: the sound's name alone."""
    if isinstance(clip, NSynthError):
        return clip
    return clip._replace(labels={**clip.labels, "note_str": name})


class _Saver:
    """Saves the embeddings of clips, and counts what could not be saved."""

    def __init__(
        self,
        model: Autoencoder,
        inputs: Inputs,
        output: Output,
        batch_size: int,
    ) -> None:
        self._model, self._inputs, self._batch_size = model, inputs, batch_size
        self._folder = expand(output.save_path)
        self._skip_existing = output.skip_existing
        self._failures = Failures()
        self._num_done = self._num_damaged = self._num_written = 0

    def save(self, clips: Clips) -> int:
        """Saves all clips; returns the exit status."""
        if clips.files:
            planned, num_clips = self._of_files(clips)
            num_outputs = clips.num_clips
        elif self._model.files.holds_sets:
            planned, num_clips = self._of_sets(clips)
            num_outputs = len(clips.sets)
        else:
            make_folder(self._folder)
            planned, num_clips = self._of_notes(clips), clips.num_clips
            num_outputs = clips.num_clips
        with (
            encoding(planned, self._model, self._batch_size, True) as results,
            Progress(num_clips, "files" if clips.files else "notes") as progress,
        ):
            if num_clips:
                progress.update(0)  # a bar at once; the first batch takes a while
            for (output, _), group in itertools.groupby(results, lambda pair: pair[0]):
                self._save(output, (result for _, result in group), progress)
        if self._num_done:
            logging.info("%d of %d are done already.", self._num_done, num_outputs)
        if num_damaged := self._num_damaged + len(clips.lost):
            logging.warning("%d damaged notes are left out.", num_damaged)
        status = self._failures.report(num_outputs)
        what = "file of embeddings", "files of embeddings"
        if not self._model.files.holds_sets:
            what = "embedding", "embeddings"
        logging.info(
            "Written: %s in %s.", counted(self._num_written, *what), self._folder
        )
        return status

    def _save(
        self,
        output: str,
        results: Iterator[Embedding | NSynthError],
        progress: Progress,
    ) -> None:
        """Writes one file of embeddings, unless one of them can't be used."""
        with self._failures.noting(), writing(output):
            good = self._good(results, progress)
            if first := next(good, None):
                with self._model.files.writing(output) as writer:
                    for result in itertools.chain([first], good):
                        writer.add(result)
                self._num_written += 1
        for _ in results:  # those after a failure
            progress.advance()

    def _good(
        self, results: Iterator[Embedding | NSynthError], progress: Progress
    ) -> Iterator[Embedding]:
        """Yields the embeddings; raises or counts errors."""
        for result in results:
            progress.advance()
            if isinstance(result, _Done):
                self._num_done += 1
            elif not isinstance(result, NSynthError):
                yield result
            elif self._inputs.skip_corrupt and not isinstance(result, _Twice):
                self._num_damaged += 1
                logging.warning("%s Left out.", result)
            else:
                raise result

    def _of_files(self, clips: Clips) -> tuple[Iterator[_Planned], int]:
        """Returns clips that are files, each with its output, and their number."""
        outputs = [self._path(storage.join(s.mirrored, s.stem)) for s in clips.files]
        refuse_collisions(clips.files, outputs)
        make_folder(self._folder)
        pairs = list(zip(clips.files, outputs, strict=True))
        todo = {output for _, output in pending(pairs, self._skip_existing)}
        if self._model.uses_pitch and isinstance(clips, SoundClips):
            log_pitches(clips.files, clips.labels)
        numbers = np.array([i for i, o in enumerate(outputs) if o in todo], np.int64)
        read = clips.read(numbers, self._inputs.sample_length)
        planned = (
            ((outputs[i], i), _named(clip, clips.files[i].stem))
            for i, clip in zip(numbers.tolist(), read, strict=True)
        )
        return planned, len(numbers)

    def _of_sets(self, clips: Clips) -> tuple[Iterator[_Planned], int]:
        """Returns the clips of sets of shards, one output per set, and their number."""
        sources = [Source(its.path, "") for its in clips.sets]
        outputs = [self._path(its.name) for its in clips.sets]
        refuse_collisions(sources, outputs)
        make_folder(self._folder)
        pairs = list(zip(sources, outputs, strict=True))
        todo = {output for _, output in pending(pairs, self._skip_existing)}
        sets = [
            (output, its.numbers)
            for output, its in zip(outputs, clips.sets, strict=True)
            if output in todo
        ]
        read = (
            ((output, 0), clip)
            for output, numbers in sets
            for clip in clips.read(numbers, self._inputs.sample_length)
        )
        return read, sum(len(numbers) for _, numbers in sets)

    def _of_notes(self, clips: Clips) -> Iterator[_Planned]:
        """Yields clips whose outputs are named by their ids, which must be read."""
        taken: dict[str, str] = {}
        look = remote.listing()
        read = clips.read(np.arange(clips.num_clips), self._inputs.sample_length)
        for number, clip in enumerate(read):
            if isinstance(clip, NSynthError):
                yield ("", number), clip
                continue
            output = self._path(clip.name)
            first = taken.setdefault(output, clip.where)
            if first != clip.where:
                twice = _Twice(
                    f"{clip.where}: not saved, because {first} is already saved as "
                    f"{output}."
                )
                yield (output, number), twice
            elif self._skip_existing and storage.exists(output, look):
                yield (output, number), _Done(output)
            else:
                yield (output, number), clip

    def _path(self, name: str) -> str:
        return storage.join(self._folder, name + self._model.files.suffix)
