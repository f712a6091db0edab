"""Sounds or embeddings in, generated sounds out."""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import AUDIO_EXTENSIONS, write_audio
from magenta_nsynth.commands.common import (
    Failures,
    SaveSound,
    check_arguments,
    find_sounds_or_npy,
    generated_name,
    load_clip,
    make_folder,
    pending,
    writing,
)
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.embeddings.arrays import check_encoding, check_finite, load_array
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source, expand, refuse_collisions
from magenta_nsynth.formatting import format_duration
from magenta_nsynth.progress import Progress

__all__ = ["UNFINISHED", "generate"]

# Beside a sound that is not finished, so that skip_existing knows.
UNFINISHED = ".unfinished"
_TIMED_STEPS = 80


class _Output(NamedTuple):
    source: Source
    path: str
    encoding: np.ndarray
    num_samples: int


def generate(
    model: WaveNet,
    source_paths: Sequence[str | os.PathLike],
    save_path: str | os.PathLike,
    sample_length: int = 64_000,
    batch_size: int = 1,
    npy_only: bool = False,
    recursive: bool = False,
    skip_existing: bool = False,
    seed: int | None = None,
    temperature: float = 1.0,
    bit_depth: str = "float",
    normalize: bool = False,
    samples_per_save: int = 10_000,
    save: SaveSound | None = None,
) -> int:
    """Writes `gen_<stem>.wav`, 16 kHz mono, for each sound or embedding.

    Args:
      model: the opened checkpoint.
      source_paths: files, folders or globs, of sounds or of .npy embeddings; of a
        folder that has both, the sounds.
      save_path: the folder to write to.
      sample_length: at most so many samples each, in whole frames; 0 is no limit.
      batch_size: files that are generated side by side.
      npy_only: reads only .npy files.
      recursive: descends into folders and mirrors them in `save_path`.
      skip_existing: leaves out what is there and finished.
      seed: each file draws from its own np.random.RandomState(seed).
      temperature: the logits are divided by it; 0 takes the likeliest sample.
      bit_depth: "float" or "16".
      normalize: scales each finished sound to a peak of 1.
      samples_per_save: each file is written again after so many samples.
      save: writes a finished sound, [t] float32, to its path, where that is more than
        `write_audio` at `bit_depth`.

    Returns:
      0, or 1 if some files failed; those are logged, the others done.

    Raises:
      InputError: nothing to read, two files with one output, a bad argument.
      KeyboardInterrupt: with what was kept as its message.

    Source: NSynth, nsynth_generate; differs: the list in the README.
    """
    check_arguments(model, save_path, sample_length, batch_size)
    if not temperature >= 0:
        raise InputError(f"--temperature must be 0 or more, not {temperature}.")
    if samples_per_save < 1:
        raise InputError(
            f"--samples_per_save must be 1 or more, not {samples_per_save}."
        )
    sources = find_sounds_or_npy(
        source_paths, AUDIO_EXTENSIONS, npy_only, recursive, [save_path]
    )
    paths = [
        os.path.join(expand(save_path), s.subfolder, generated_name(s.stem))
        for s in sources
    ]
    refuse_collisions(sources, paths)
    make_folder(save_path)
    pairs = list(zip(sources, paths, strict=True))
    work = pending(pairs, skip_existing, UNFINISHED)
    failures = Failures()
    outputs = _encode(model, work, sample_length, failures)
    # Clips of a batch take as long as its longest.
    outputs.sort(key=lambda output: output.num_samples, reverse=True)
    batches = [outputs[i : i + batch_size] for i in range(0, len(outputs), batch_size)]
    writer = _Writer(bit_depth, normalize, samples_per_save, save)
    if batches:
        _announce(model, batches, temperature)
    total = sum(output.num_samples for output in outputs)
    with Progress(total, "samples") as progress:
        for batch in batches:
            _generate_batch(model, batch, seed, temperature, writer, progress, failures)
    return failures.report(len(sources))


def _encode(
    model: WaveNet,
    work: list[tuple[Source, str]],
    sample_length: int,
    failures: Failures,
) -> list[_Output]:
    """All embeddings first: bad files show before hours of generation begin."""
    outputs = []
    for source, path in work:
        with failures.noting():
            if source.path.lower().endswith(".npy"):
                encoding = _load_encoding(source.path, model)
                limit = sample_length // model.config.ae_hop_length
                if limit and limit < len(encoding):
                    logging.info(
                        "%s: %d frames, cut to the %d of --sample_length=%d.",
                        *(source.path, len(encoding), limit, sample_length),
                    )
                    encoding = encoding[:limit]
            else:
                encoding = model.encode(load_clip(source.path, sample_length, model))
                check_finite(encoding, source.path)
            num_samples = model.config.num_samples(len(encoding))
            outputs.append(_Output(source, path, encoding, num_samples))
    return outputs


def _load_encoding(path: str, model: WaveNet) -> np.ndarray:
    encoding = load_array(path)
    return check_encoding(encoding, model.config.ae_bottleneck_width, path)


def _announce(model: WaveNet, batches: list[list[_Output]], temperature: float) -> None:
    """Says how long it will take, from a few steps of the first batch."""
    first = batches[0]
    frames = -(-_TIMED_STEPS // model.config.ae_hop_length)
    encodings = [output.encoding[:frames] for output in first]
    marks = []  # of each block: when it was done, and its length
    for block in model.stream(encodings, None, 0, temperature):
        marks.append((time.perf_counter(), block.shape[1]))
        if sum(length for _, length in marks) >= _TIMED_STEPS:
            break
    if len(marks) < 2:
        return  # too little to generate for its time to be of interest
    # The first block also compiles.
    counted = sum(length for _, length in marks[1:])
    seconds_per_step = (marks[-1][0] - marks[0][0]) / counted
    steps = sum(batch[0].num_samples for batch in batches)
    seconds = sum(output.num_samples for batch in batches for output in batch)
    logging.info(
        "Sounds to generate: %d, %.1f s in all, %d at a time. Expected time: %s "
        "(%.1f ms a step).",
        *(sum(map(len, batches)), seconds / SAMPLE_RATE, len(first)),
        *(format_duration(steps * seconds_per_step), seconds_per_step * 1000),
    )


class _Writer:
    """Writes the sounds of a batch as they grow, each whole and renamed."""

    def __init__(
        self,
        bit_depth: str,
        normalize: bool,
        samples_per_save: int,
        save: SaveSound | None,
    ) -> None:
        self._bit_depth = bit_depth if bit_depth == "float" else int(bit_depth)
        self._normalize = normalize
        self.samples_per_save = samples_per_save
        self._save = save

    def save(self, output: _Output, audio: np.ndarray) -> None:
        """Writes [t] of a sound, finished where that is all of it."""
        audio = audio[: output.num_samples]
        finished = len(audio) == output.num_samples
        marker = output.path + UNFINISHED
        with writing(output.path):
            if not finished:
                with open(marker, "w", encoding="utf-8") as file:
                    file.write("Generation of the sound beside this was broken off.\n")
            elif self._normalize:
                audio = audio / max(np.abs(audio).max(), 1e-9)
            if finished and self._save is not None:
                self._save(output.path, audio)
            else:
                write_audio(output.path, audio, self._bit_depth)
            if finished and os.path.exists(marker):
                os.unlink(marker)


def _generate_batch(
    model: WaveNet,
    batch: list[_Output],
    seed: int | None,
    temperature: float,
    writer: _Writer,
    progress: Progress,
    failures: Failures,
) -> None:
    audio = np.zeros([len(batch), batch[0].num_samples], np.float32)
    done = saved = 0
    left = list(batch)
    encodings = [output.encoding for output in batch]
    try:
        for block in model.stream(encodings, None, seed, temperature):
            before, after = done, done + block.shape[1]
            audio[:, before:after] = block
            done = after
            progress.advance(
                sum(
                    min(done, o.num_samples) - min(before, o.num_samples) for o in batch
                )
            )
            full = done - saved >= writer.samples_per_save
            for output, clip in zip(batch, audio, strict=True):
                if before < output.num_samples <= done:
                    with failures.noting():
                        writer.save(output, clip)
                    left.remove(output)
                elif full and done < output.num_samples:
                    _save_beginning(writer, output, clip[:done])
            saved = done if full else saved
    except KeyboardInterrupt:
        if not done or not left:
            raise KeyboardInterrupt("No unfinished sound is left behind.") from None
        for output, clip in zip(batch, audio, strict=True):
            if output in left:
                writer.save(output, clip[:done])
        raise KeyboardInterrupt(
            f"The first {done / SAMPLE_RATE:.2f} s are kept in "
            f"{', '.join(output.path for output in left)}; --skip_existing starts "
            "unfinished sounds again."
        ) from None


def _save_beginning(writer: _Writer, output: _Output, audio: np.ndarray) -> None:
    """Saves a sound on the way; the whole one may still get through later."""
    try:
        writer.save(output, audio)
    except NSynthError as error:
        logging.warning("%s", error)
