"""A folder of sounds in, an embedding per sound out."""

import os
from collections.abc import Sequence

from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import AUDIO_EXTENSIONS
from magenta_nsynth.embeddings.arrays import save_array
from magenta_nsynth.files import expand, find_sources, refuse_collisions
from magenta_nsynth.jobs.common import (
    Failures,
    check_arguments,
    encoded_files,
    make_folder,
    pending,
    writing,
)

__all__ = ["save_embeddings"]


def save_embeddings(
    model: WaveNet,
    source_paths: Sequence[str | os.PathLike],
    save_path: str | os.PathLike,
    sample_length: int = 64_000,
    batch_size: int = 16,
    recursive: bool = False,
    skip_existing: bool = False,
) -> int:
    """Writes `<stem>_embeddings.npy`, float32 [frames, bottleneck], for each sound.

    Args:
      model: the opened checkpoint.
      source_paths: sound files, folders or globs.
      save_path: the folder to write to.
      sample_length: uses at most so many samples, at 16 kHz, of each; 0 uses all.
      batch_size: files that go through the network side by side, at most.
      recursive: descends into folders and mirrors them in `save_path`.
      skip_existing: leaves out sounds whose output exists.

    Returns:
      0, or 1 if some files failed; those are logged, the others done.

    Raises:
      InputError: nothing to read, two sounds with one output, a bad argument.

    Source: NSynth, nsynth_save_embeddings; differs: the list in the README.
    """
    check_arguments(model, save_path, sample_length, batch_size)
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
