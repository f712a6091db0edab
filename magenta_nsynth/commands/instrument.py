"""From sounds to an instrument: a page to play, and samples for any sampler."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.api import Autoencoder
from magenta_nsynth.audio import write_audio
from magenta_nsynth.commands.common import Failures, make_folder
from magenta_nsynth.commands.generate import Job, embed, generate_jobs, step_seconds
from magenta_nsynth.commands.instrument_finish import Sample
from magenta_nsynth.commands.instrument_options import Finishing, Shape
from magenta_nsynth.commands.instrument_outputs import (
    check_instrument_folder,
    log_tuning,
    write_instrument,
)
from magenta_nsynth.commands.instrument_plan import (
    UNPROCESSED,
    Plan,
    Sound,
    make_plan,
)
from magenta_nsynth.commands.instrument_sources import (
    MIDDLE,
    Note,
    find_corners,
    note_of,
)
from magenta_nsynth.commands.mix_outputs import sound_options
from magenta_nsynth.commands.options import Workers
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.disk import lock_file, locked_range
from magenta_nsynth.embeddings.embedding import Embedding
from magenta_nsynth.embeddings.interpolation import mix
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import check_folder, expand
from magenta_nsynth.formatting import counted, format_bytes, format_duration
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.options import check_limits
from magenta_nsynth.stores import remote, storage

__all__ = ["Order", "make_instrument"]

_MOST_SECONDS = 4.0  # unless --seconds says more: NSynth's notes are that long
_LOCK = ".generating.lock"
_LARGE_PAGE = 100_000_000  # bytes; decoded, its sounds take five times as many


@dataclasses.dataclass(frozen=True)
class Order:
    """What to make an instrument of, and how.

    Attributes:
      source_path: one to four sounds, or folders or globs of one sound each.
      save_path: the folder to write to.
      rules: how pitches are read from names.
      shape: the grid, the pitches and the length.
      finishing: what is done to generated sounds.
      generation: how they are generated.
      workers: whether other machines make a part of them.
    """

    source_path: Sequence[str | os.PathLike[str]]
    save_path: str | os.PathLike[str]
    rules: NameRules = dataclasses.field(default_factory=NameRules)
    shape: Shape = dataclasses.field(default_factory=Shape)
    finishing: Finishing = dataclasses.field(default_factory=Finishing)
    generation: Generation = dataclasses.field(default_factory=Generation)
    workers: Workers = dataclasses.field(default_factory=Workers)

    def check(self) -> None:
        """Raises InputError for options that can't be used, before anything is read."""
        check_folder(self.save_path)
        check_limits(self.shape)
        _ = self.shape.cells
        index, count = self.workers.shard_index, self.workers.num_shards
        if (index is None) != (count is None):
            raise InputError("--shard_index and --num_shards go together; give both.")
        if index is not None and count is not None and not 0 <= index < count:
            raise InputError(
                f"--shard_index={index} must be from 0 to --num_shards - 1, "
                f"{count - 1}."
            )
        if self.generation.batch_size < 1:
            raise InputError(
                f"--batch_size must be 1 or more, not {self.generation.batch_size}."
            )


def make_instrument(model: Autoencoder, order: Order) -> int:
    """Makes an instrument, or a worker's share of its sounds; resumes a broken run.

    Generated sounds are kept in unprocessed/, under a checksum of all that they depend
    on. So the same command goes on where it was stopped, and another grid uses what is
    there. As soon as the corners are generated, they are an instrument of their own.

    Args:
      model: the opened checkpoint.
      order: what to make.

    Returns:
      0, or 1 if some sounds could not be generated; those are logged.

    Raises:
      InputError: an option or a source that can't be used.
      AudioError: a source that can't be read.
      KeyboardInterrupt: with what was kept as its message.
    """
    order.check()
    model.check_generation(order.generation)
    folder = expand(order.save_path)
    check_instrument_folder(folder)
    plan, facts = _plan(model, order)
    make_folder(storage.join(folder, UNPROCESSED))
    status = _generate(model, order, plan, folder, functools.partial(_write, facts))
    missing = len(_unmade(plan.sounds, folder))
    if missing:
        logging.info(
            "%d of %d sounds are still missing, so the instrument is not written yet.",
            *(missing, len(plan.sounds)),
        )
        return status
    samples = _write(facts, plan, folder, order)
    log_tuning(samples, order.finishing.tune)
    size = storage.getsize(storage.join(folder, "index.html"))
    if size > _LARGE_PAGE:
        logging.warning(
            "index.html has %s, which may be too much for a browser; a smaller --grid, "
            "fewer --pitches or less --seconds make it smaller.",
            format_bytes(size),
        )
    logging.info(
        "%s: open index.html in a browser, or an .sfz file of sfz/ in a sampler.",
        folder,
    )
    return status


def _plan(model: Autoencoder, order: Order) -> tuple[Plan, dict[str, Any]]:
    """The plan, and what instrument.json says of the whole."""
    shape, save_path = order.shape, os.fspath(order.save_path)
    corners = find_corners(order.source_path, order.rules, save_path)
    pitches = shape.pitches or sorted(
        set().union(*(c.pitches for c in corners)) or {MIDDLE}
    )
    lengths = [len(audio) for c in corners for _, audio in c.sounds.values()]
    seconds = shape.seconds or min(max(lengths) / SAMPLE_RATE, _MOST_SECONDS)
    silence = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    num_samples = len(model.check_clip(silence, f"--seconds={seconds:g}"))
    notes = {
        pitch: [
            note_of(corners, number, pitch, num_samples, model.uses_pitch)
            for number in range(len(corners))
        ]
        for pitch in pitches
    }
    options = sound_options(order.generation, model.name)
    made_with = {"model": model.name, "use_ema": model.use_ema, "options": options}
    index = _content(model.checkpoint_path + ".index")
    identity = {
        **made_with,
        "config": model.config.to_dict(),
        # It holds a checksum of each tensor.
        "weights": hashlib.sha256(index).hexdigest(),
        "num_samples": num_samples,
    }
    plan = make_plan(corners, shape.cells, notes, identity)
    facts = {
        **made_with,
        "checkpoint": storage.abspath(model.checkpoint_path),
        "sources": [
            {"name": c.name, "files": {str(p): s[0] for p, s in c.sounds.items()}}
            for c in corners
        ],
        "grid": list(shape.cells),
        "generated_samples": num_samples,
        "finishing": dataclasses.asdict(order.finishing),
    }
    return plan, facts


def _write(
    facts: dict[str, Any], plan: Plan, folder: str, order: Order
) -> list[Sample]:
    # The device needs the whole grid.
    is_whole = len(plan.places) == math.prod(plan.cells)
    with_super = order.shape.nsynth_super and is_whole
    return write_instrument(plan, folder, order.finishing, facts, with_super)


def _generate(
    model: Autoencoder,
    order: Order,
    plan: Plan,
    folder: str,
    write: Callable[[Plan, str, Order], Any],
) -> int:
    """Generates this worker's sounds that are missing; returns the exit status.

    `write` is called for the corners once they are there, if others are missing.
    """
    corners = plan.corners().sounds
    rest = plan.sounds[len(corners) :]
    first, step = order.workers.shard_index or 0, order.workers.num_shards or 1
    own = [group[first::step] for group in (corners, rest)]
    failures = Failures()
    with _locked(folder, [sound for group in own for sound in group]):
        left = [_unmade(group, folder) for group in own]
        groups = [_jobs(model, group, folder) for group in left]
        _announce(model, order, plan, groups)
        try:
            for jobs in groups:
                _generate_group(model, jobs, order.generation, failures)
                others = _unmade(rest, folder)
                if others and jobs and not _unmade(corners, folder):
                    write(plan.corners(), folder, order)
                    logging.info("The corners can be played: %s/index.html.", folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "Finished sounds are kept, and the same command makes the others."
            ) from None
    return failures.report(sum(map(len, groups)))


def _unmade(sounds: Sequence[Sound], folder: str) -> list[Sound]:
    look = remote.listing()
    return [sound for sound in sounds if not sound.is_made(folder, look)]


def _content(path: str) -> bytes:
    with storage.open_binary(path) as file:
        return file.read()


@contextlib.contextmanager
def _locked(folder: str, sounds: Sequence[Sound]) -> Iterator[None]:
    """Locks sounds, each by a byte of a file, against programs that generate them."""
    path = storage.join(folder, UNPROCESSED, _LOCK)
    in_use = (
        f"{folder}: another program is generating these sounds; wait for it, or give "
        "each program its own --shard_index."
    )
    with lock_file(path) as file, contextlib.ExitStack() as stack:
        for sound in sounds:
            place = int(sound.key.rpartition("_")[2], 16)
            stack.enter_context(locked_range(file, place, 1, in_use))
        yield


def _jobs(model: Autoencoder, sounds: Sequence[Sound], folder: str) -> list[Job]:
    """The mixes of embeddings to generate. Each source is encoded once."""
    encoded: dict[str, Embedding] = {}

    def embedding_of(note: Note) -> Embedding:
        if note.digest not in encoded:
            name = pathlib.Path(note.path).stem
            clip = Clip(note.path, note.audio, {"pitch": note.pitch}, name)
            encoded[note.digest] = embed(model, clip)
        return encoded[note.digest]

    jobs = []
    for sound in sounds:
        parts = [embedding_of(note) for note, _ in sound.parts]
        weights = [weight for _, weight in sound.parts]
        peaks = [part.peak for part in parts]
        mixed = Embedding(
            sound.key,
            sound.name,
            mix([part.rows for part in parts], weights),
            parts[0].num_samples,
            {"pitch": sound.pitch},
            float(np.dot(weights, peaks) / sum(weights)),
        )
        jobs.append(Job(mixed, sound.unprocessed(folder)))
    return jobs


def _announce(
    model: Autoencoder, order: Order, plan: Plan, groups: Sequence[Sequence[Job]]
) -> None:
    """Says how many sounds there are, and how long they will take."""
    counts = [len(jobs) for jobs in groups]
    samples = max((j.embedding.num_samples for g in groups for j in g), default=0)
    logging.info(
        "%s, %s at %s. To generate here: %d of the corners, then %d others, %.1f s "
        "each.",
        counted(len(plan.sounds), "sound"),
        counted(len(plan.places), "grid point"),
        counted(len(plan.pitches), "pitch", "pitches"),
        *(*counts, samples / SAMPLE_RATE),
    )
    if not model.makes_steps or not any(counts):
        return
    expected = 0.0
    for jobs in filter(None, groups):
        options = _batched(order.generation, len(jobs))
        batch = [job.embedding for job in jobs[: options.batch_size]]
        seconds = step_seconds(model, batch, options)
        if seconds is None:
            return
        expected += seconds * samples * -(-len(jobs) // options.batch_size)
    logging.info("Expected time in all: %s.", format_duration(expected))


def _batched(options: Generation, count: int) -> Generation:
    """As few batches as the batch size allows, all of about one size."""
    num_batches = -(-count // options.batch_size)
    return dataclasses.replace(options, batch_size=-(-count // num_batches))


def _generate_group(
    model: Autoencoder, jobs: Sequence[Job], options: Generation, failures: Failures
) -> None:
    def save(job: Job, audio: np.ndarray) -> None:
        write_audio(job.path, model.finish(job.embedding, audio, options), "float")

    if jobs:
        options = _batched(options, len(jobs))
        generate_jobs(model, jobs, len(jobs), options, save, failures)
