"""The export as an Apache Beam pipeline, whose elements are shards."""

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
from magenta_nsynth.errors import InputError, NSynthError

__all__ = ["export_with_beam"]

_OUR_ERRORS = "|".join(kind.__name__ for kind in NSynthError.__subclasses__())
_opening = threading.Lock()  # a runner may use several threads in a process


def export_with_beam(export: Export, runner: str, options: Sequence[str]) -> int:
    """Runs `export_embeddings` with workers started by Beam.

    The workers need this package, and the sources, the checkpoint and --save_path at
    the same paths: in an object store, or on a disk that all of them share.

    Args:
      export: what to export, and how.
      runner: Beam's name of the runner, such as "DirectRunner".
      options: the runner's options, such as "--direct_num_workers=4".

    Returns:
      The exit status, as of `export_embeddings`.

    Raises:
      InputError: Beam is not installed or failed; or as `export_embeddings`.
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
        except Exception as error:  # every runner has its own errors
            ours = re.findall(rf"(?:{_OUR_ERRORS}): (.*)", str(error))
            lines = ours or str(error).splitlines() or [type(error).__name__]
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
