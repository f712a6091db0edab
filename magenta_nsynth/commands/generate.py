"""Generating sounds from sounds, notes or embeddings."""

import collections
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.api import Autoencoder
from magenta_nsynth.audio import read_audio, write_audio
from magenta_nsynth.commands.common import (
    Failures,
    check_arguments,
    check_rules,
    generated_name,
    make_folder,
    pending,
    writing,
)
from magenta_nsynth.commands.options import Output
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.embeddings.embedding import check_finite
from magenta_nsynth.embeddings.files import Embedding
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source, atomic_path, expand, refuse_collisions
from magenta_nsynth.formatting import counted, format_duration
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.clips import Clip, file_name
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules, refuse_rules
from magenta_nsynth.notes.opening import find_sounds_or_npy, open_clips, recognise
from magenta_nsynth.notes.sound_labels import SoundLabels, log_pitches
from magenta_nsynth.progress import Progress
from magenta_nsynth.stores import storage

__all__ = [
    "UNFINISHED",
    "Job",
    "SaveSound",
    "distinct",
    "embed",
    "generate",
    "generate_jobs",
    "step_seconds",
]

# A file with this suffix marks an unfinished sound, for `skip_existing`.
UNFINISHED = ".unfinished"
_TIMED_STEPS = 80

# Writes a finished sound, [t] float32, of a job.
SaveSound = Callable[["Job", np.ndarray], None]


class Job(NamedTuple):
    """A sound to generate, and the file to write it to."""

    embedding: Embedding
    path: str


class _Input(NamedTuple):
    """What a sound is generated from.

    Attributes:
      name: the name of the sound's file, without "gen_" and extension.
      source: the input file.
      load: makes the embedding; raises an NSynthError if that is not possible.
    """

    name: str
    source: Source
    load: Callable[[], Embedding]


def generate(
    model: Autoencoder,
    inputs: Inputs,
    rules: NameRules,
    output: Output,
    options: Generation,
) -> int:
    """Writes `gen_<name>.wav`, 16 kHz mono, for each sound, note or embedding.

    The baseline's sounds have the length and the peak of their sources.

    Args:
      model: the opened checkpoint.
      inputs: sounds, .npy embeddings or TFRecords. Of a folder with both sounds and
        embeddings, the sounds are used.
      rules: how the baseline's pitches are read from the names of sounds.
      output: where to write.
      options: how to generate.

    Returns:
      The exit status: 1 if some failed, with messages, and the others are done; else 0.

    Raises:
      InputError: there is nothing to read, two inputs have the same output, or an
        argument can't be used.
      KeyboardInterrupt: its message says what was kept.

    Source: NSynth, nsynth_generate, and baseline/models/ae.py's eval_op. The
    differences are listed in docs/reference/differences.md.
    """
    length = inputs.sample_length
    check_arguments(model, output.save_path, length, options.batch_size)
    model.check_generation(options)
    check_rules(model, rules)
    failures = Failures()
    found = _find(model, inputs, rules, output, options, failures)
    names, sources = [one.name for one in found], [one.source for one in found]
    if options.halfway:
        if len(found) < 2:
            raise InputError(
                f"--halfway needs two or more inputs, and there is {len(found)}; "
                "repeat --source_path."
            )
        names = [f"{one}_{other}" for one, other in itertools.pairwise(names)]
        sources = sources[:-1]
    folder = expand(output.save_path)
    paths = [
        storage.join(folder, source.mirrored, generated_name(file_name(name)))
        for source, name in zip(sources, names, strict=True)
    ]
    refuse_collisions(sources, paths)
    make_folder(folder)
    num_inputs = len(paths) + len(failures.messages)
    pairs = list(zip(sources, paths, strict=True))
    wanted = {path for _, path in pending(pairs, output.skip_existing, UNFINISHED)}
    jobs = _jobs(model, found, paths, wanted, options, failures)

    num_saved = 0

    def save(job: Job, audio: np.ndarray) -> None:
        nonlocal num_saved
        audio = model.finish(job.embedding, audio, options)
        write_audio(job.path, audio, options.wav_depth)
        num_saved += 1

    generate_jobs(model, jobs, len(wanted), options, save, failures)
    status = failures.report(num_inputs)
    logging.info("Written: %s in %s.", counted(num_saved, "sound"), folder)
    return status


def _find(
    model: Autoencoder,
    inputs: Inputs,
    rules: NameRules,
    output: Output,
    options: Generation,
    failures: Failures,
) -> list[_Input]:
    """Lists the inputs in order; files that can't be used at all become failures."""
    keep_audio = options.phase == "source"
    kind = "audio" if inputs.npy_only else recognise(inputs)[0]
    if kind not in ("audio", "list"):
        return list(_notes(model, inputs, rules, keep_audio, failures))
    if inputs.skip_corrupt:
        raise InputError("--skip_corrupt is for TFRecords; leave it out.")
    if kind == "list":
        found = open_clips(inputs, rules=rules).files
    else:
        found = find_sounds_or_npy(inputs, [output.save_path])
    sounds = [source for source in found if not source.is_npy]
    if not sounds:
        refuse_rules(rules, found[0].path)
    labels = SoundLabels(sounds, rules)
    if model.uses_pitch and options.pitch is None:
        log_pitches(sounds, labels)
    results = []
    for source in found:
        if not source.is_npy:
            load = _sound_loader(model, source, labels, inputs, keep_audio)
            results.append(_Input(source.stem, source, load))
            continue
        with failures.noting():
            its = model.files.read(source.path, source.stem, inputs.sample_length)
            names = distinct([embedding.name for embedding in its])
            for name, embedding in zip(names, its, strict=True):
                results.append(_Input(name, source, _returning(embedding)))
    return results


def _returning(embedding: Embedding) -> Callable[[], Embedding]:
    return lambda: embedding


def _sound_loader(
    model: Autoencoder,
    source: Source,
    labels: SoundLabels,
    inputs: Inputs,
    keep_audio: bool,
) -> Callable[[], Embedding]:
    def load() -> Embedding:
        audio = read_audio(source.path, inputs.sample_length)
        clip = Clip(source.path, audio, labels.of(source).fields, source.stem)
        return embed(model, clip, keep_audio)

    return load


def _notes(
    model: Autoencoder,
    inputs: Inputs,
    rules: NameRules,
    keep_audio: bool,
    failures: Failures,
) -> Iterator[_Input]:
    """Yields the notes of data sets; a set with an unusable note becomes a failure."""
    clips = open_clips(inputs, model.min_samples, rules)
    num_damaged = len(clips.lost)
    for path, _, numbers in clips.sets:
        # Reads the set once before any work, for the names and to find damage.
        good, names = [], []
        with failures.noting():
            for number, clip in zip(
                numbers, clips.read(numbers, inputs.sample_length, True), strict=True
            ):
                if not isinstance(clip, NSynthError):
                    good.append(number)
                    names.append(clip.labels["note_str"])
                elif not inputs.skip_corrupt:
                    raise clip
                else:
                    logging.warning("%s Left out.", clip)
                    num_damaged += 1
            reader = _Reader(clips.read(np.array(good), inputs.sample_length))
            for i, name in enumerate(distinct(names)):
                load = functools.partial(reader.embed, i, model, keep_audio)
                yield _Input(name, Source(path, ""), load)
    if num_damaged:
        logging.warning("%d damaged notes are left out.", num_damaged)


class _Reader:
    """Reads clips by number in one pass; the numbers must increase."""

    def __init__(self, clips: Iterator[Clip | NSynthError]) -> None:
        self._numbered = enumerate(clips)

    def embed(self, number: int, model: Autoencoder, keep_audio: bool) -> Embedding:
        """Returns the embedding of a clip; skips those before it."""
        clip = next(clip for i, clip in self._numbered if i == number)
        if isinstance(clip, NSynthError):
            raise clip
        return embed(model, clip, keep_audio)


def embed(model: Autoencoder, clip: Clip, keep_audio: bool = False) -> Embedding:
    """Encodes a clip.

    Args:
      model: the opened checkpoint.
      clip: the clip.
      keep_audio: whether the result also contains the sound.

    Raises:
      NSynthError: the clip is too short, or its embedding contains NaN or infinity.
    """
    audio = model.check_clip(clip.audio, clip.where)
    prepared = model.prepare(audio)
    [rows] = model.encode_prepared([prepared])
    check_finite(rows, clip.where)
    return Embedding(
        clip.name,
        clip.where,
        rows,
        len(audio),
        clip.labels,
        model.peak(audio, prepared),
        audio if keep_audio else None,
    )


def distinct(names: Sequence[str]) -> list[str]:
    """Returns the names; appends the index to duplicates."""
    counts = collections.Counter(names)
    digits = len(str(len(names) - 1))
    return [
        name if counts[name] == 1 else f"{name}_{i:0{digits}}"
        for i, name in enumerate(names)
    ]


def _jobs(
    model: Autoencoder,
    found: Sequence[_Input],
    outputs: Sequence[str],
    wanted: set[str],
    options: Generation,
    failures: Failures,
) -> Iterator[Job]:
    """Yields the sounds to generate; those that can't be become failures."""
    loaded: dict[int, Embedding | NSynthError] = {}

    def load(i: int) -> Embedding:
        if i not in loaded:
            loaded.pop(i - 2, None)
            try:
                loaded[i] = found[i].load()
            except NSynthError as error:
                loaded[i] = error
        result = loaded[i]
        if isinstance(result, NSynthError):
            raise result
        return result

    for i, path in enumerate(outputs):
        if path not in wanted:
            continue
        with failures.noting():
            if options.halfway:
                try:
                    embedding = _between(load(i), load(i + 1))
                except NSynthError as error:
                    raise type(error)(f"{error} So {path} is not written.") from None
            else:
                embedding = load(i)
            model.check_generation(options, [embedding])
            yield Job(embedding, path)


def _between(one: Embedding, other: Embedding) -> Embedding:
    """Returns the embedding halfway between two, at the pitch of the first."""
    num_rows = min(len(one.rows), len(other.rows))
    num_samples = min(one.num_samples, other.num_samples)
    audio = None
    if one.audio is not None and other.audio is not None:
        audio = np.mean([one.audio[:num_samples], other.audio[:num_samples]], axis=0)
    return Embedding(
        one.name,
        one.where,
        np.mean([one.rows[:num_rows], other.rows[:num_rows]], axis=0),
        num_samples,
        one.labels,
        float(np.mean([one.peak, other.peak])),
        audio,
    )


def generate_jobs(
    model: Autoencoder,
    jobs: Iterable[Job],
    num_jobs: int,
    options: Generation,
    save: SaveSound,
    failures: Failures,
) -> None:
    """Generates sounds, several side by side, and saves them as they grow.

    Args:
      model: the opened checkpoint.
      jobs: the sounds to generate.
      num_jobs: the largest possible number of jobs.
      options: how to generate.
      save: writes a finished sound.
      failures: receives the sounds that can't be generated.

    Raises:
      KeyboardInterrupt: its message says what was kept.
    """
    size = options.batch_size
    if num_jobs:  # the first sound takes a while
        logging.info("Preparing %s ...", counted(num_jobs, "sound"))
    if not model.makes_steps:
        jobs = iter(jobs)
        with Progress(num_jobs, "sounds") as progress:
            while batch := list(itertools.islice(jobs, size)):
                _Batch(model, batch, options, save, failures).run()
                progress.advance(len(batch))
        return
    # Makes all embeddings first, so that unusable files are reported before hours of
    # generation. Sorted, because a batch takes as long as its longest clip.
    order = sorted(jobs, key=lambda job: job.embedding.num_samples, reverse=True)
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    if batches:
        _announce(model, batches, options)
    with Progress(
        sum(job.embedding.num_samples for job in order), "samples"
    ) as progress:
        for batch in batches:
            _Batch(model, batch, options, save, failures).run(progress.advance)


def _announce(
    model: Autoencoder, batches: Sequence[Sequence[Job]], options: Generation
) -> None:
    """Logs how long it will take, judging by a few steps of the first batch."""
    first = batches[0]
    seconds_per_step = step_seconds(model, [job.embedding for job in first], options)
    if seconds_per_step is None:
        return
    steps = sum(batch[0].embedding.num_samples for batch in batches)
    samples = sum(job.embedding.num_samples for batch in batches for job in batch)
    logging.info(
        "Sounds to generate: %d, %.1f s in all, %d at a time. Expected time: %s "
        "(%.1f ms a step).",
        *(sum(map(len, batches)), samples / SAMPLE_RATE, len(first)),
        *(format_duration(steps * seconds_per_step), seconds_per_step * 1000),
    )


def step_seconds(
    model: Autoencoder, embeddings: Sequence[Embedding], options: Generation
) -> float | None:
    """How long a sample of sounds that are generated side by side takes.

    Args:
      model: one that makes steps; it generates the first samples.
      embeddings: of the sounds.
      options: how they are generated.

    Returns:
      Seconds; None for sounds so short that their time does not matter.
    """
    marks = []  # for each block the time when it was done, and its length
    for block in model.sounds(embeddings, options):
        marks.append((time.perf_counter(), block.shape[1]))
        if sum(length for _, length in marks) >= _TIMED_STEPS:
            break
    if len(marks) < 2:
        return None
    # The first block also compiles.
    counted = sum(length for _, length in marks[1:])
    return (marks[-1][0] - marks[0][0]) / counted


class _Batch:
    """Sounds that are generated side by side."""

    def __init__(
        self,
        model: Autoencoder,
        jobs: Sequence[Job],
        options: Generation,
        save: SaveSound,
        failures: Failures,
    ) -> None:
        self._model, self._jobs, self._options = model, jobs, options
        self._save_finished, self._failures = save, failures
        self._left = set(range(len(jobs)))
        longest = max(job.embedding.num_samples for job in jobs)
        self._audio = np.zeros([len(jobs), longest], np.float32)
        self._done = self._saved = 0

    def run(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Generates and saves all; `advance` is called with the number of samples."""
        embeddings = [job.embedding for job in self._jobs]
        try:
            for block in self._model.sounds(embeddings, self._options):
                advance(self._add(block))
        except InputError as error:
            self._failures.messages += [
                f"{self._jobs[i].path}: {error}" for i in sorted(self._left)
            ]
        except KeyboardInterrupt:
            self._keep()

    def _keep(self) -> None:
        """Saves what there is after Ctrl-C, and raises that again with a message."""
        if not self._done or not self._left:
            raise KeyboardInterrupt("No unfinished sound is left behind.") from None
        left = [self._jobs[i] for i in sorted(self._left)]
        for i in sorted(self._left):
            self._save(self._jobs[i], self._audio[i, : self._done])
        raise KeyboardInterrupt(
            f"The first {self._done / SAMPLE_RATE:.2f} s are kept in "
            f"{', '.join(job.path for job in left)}; --skip_existing starts "
            "unfinished sounds again."
        ) from None

    def _add(self, block: np.ndarray) -> int:
        """Appends a block and saves what it completes.

        Returns:
          The number of samples that belong to sounds, without those beyond their ends.
        """
        before, done = self._done, self._done + block.shape[1]
        self._audio[:, before:done] = block
        self._done, count = done, 0
        is_full = done - self._saved >= self._options.samples_per_save
        for i, job in enumerate(self._jobs):
            length = job.embedding.num_samples
            count += min(done, length) - min(before, length)
            if before < length <= done:
                with self._failures.noting():
                    self._save(job, self._audio[i])
                self._left.discard(i)
            elif is_full and done < length:
                self._save_beginning(job, self._audio[i, :done])
        self._saved = done if is_full else self._saved
        return count

    def _save(self, job: Job, audio: np.ndarray) -> None:
        """Writes samples [t] of a sound, which is finished if these are all."""
        length = job.embedding.num_samples
        audio = audio[:length]
        marker = job.path + UNFINISHED
        with writing(job.path):
            if len(audio) == length:
                self._save_finished(job, audio)
                if storage.exists(marker):
                    storage.unlink(marker)
                return
            with atomic_path(marker) as path, open(path, "w", encoding="utf-8") as file:
                file.write("Generation of the sound beside this was broken off.\n")
            write_audio(job.path, audio, self._options.wav_depth)

    def _save_beginning(self, job: Job, audio: np.ndarray) -> None:
        """Saves an unfinished sound; a failure is only logged."""
        try:
            self._save(job, audio)
        except NSynthError as error:
            logging.warning("%s", error)
