"""The export as an Apache Beam pipeline: an element is a shard."""

import functools
import pickle
import re
import threading
from collections.abc import Sequence

from magenta_nsynth.commands.export_embeddings import (
    Export,
    Work,
    export_embeddings,
    make_shards,
)
from magenta_nsynth.errors import InputError

__all__ = ["export_with_beam"]

_OURS = "InputError|AudioError|CheckpointError"
_opening = threading.Lock()  # a runner may have several threads in a process


def export_with_beam(export: Export, runner: str, options: Sequence[str]) -> int:
    """`export_embeddings` by workers that Beam starts.

    The workers need this package, the sources and the checkpoint under the same paths,
    and a --save_path that all of them and this machine see.

    Args:
      export: what and how.
      runner: Beam's name for it, such as "DirectRunner".
      options: Beam's own, such as "--direct_num_workers=4".

    Returns:
      As `export_embeddings`.

    Raises:
      InputError: Beam is not installed, or failed; and as `export_embeddings`.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"--runner={runner} needs Apache Beam, which can't be imported ({error}); "
            "pip install 'magenta-nsynth[beam]', or leave --runner out."
        ) from None
    pipeline_options = PipelineOptions([f"--runner={runner}", *options])

    def run(work: Work, missing: list[int]) -> None:
        if not missing:
            return
        try:
            with beam.Pipeline(options=pipeline_options) as pipeline:
                _ = (
                    pipeline
                    | beam.Create(missing)
                    | beam.Reshuffle()
                    | beam.Map(functools.partial(_make_shard, pickle.dumps(export)))
                )
        except Exception as error:  # each runner has kinds of its own
            said = re.findall(rf"(?:{_OURS}): (.*)", str(error))
            lines = said or str(error).splitlines() or [type(error).__name__]
            raise InputError(f"--runner={runner} failed: {lines[-1]}") from error

    return export_embeddings(export, run=run)


def _make_shard(pickled: bytes, number: int) -> None:
    """Makes one shard, in a worker."""
    with _opening:
        work = _opened(pickled)
    work.shards.check()
    with work.shards.locked(range(number, number + 1)):
        make_shards(work, work.shards.missing(range(number, number + 1)))


@functools.lru_cache(1)
def _opened(pickled: bytes) -> Work:
    work = Work(pickle.loads(pickled))
    assert work.shards  # finds the notes and loads the encoder
    return work
