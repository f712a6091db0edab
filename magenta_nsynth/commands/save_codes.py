"""Sounds or TFRecords in, the baseline's z out."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence

from magenta_nsynth.api import Baseline
from magenta_nsynth.audio import AUDIO_EXTENSIONS
from magenta_nsynth.commands.common import (
    Failures,
    check_arguments,
    encoded_files,
    make_folder,
    pending,
    writing,
)
from magenta_nsynth.data.features import Demand
from magenta_nsynth.data.finding import find_records
from magenta_nsynth.data.reading import NoteIndex, open_notes
from magenta_nsynth.embeddings.codes import CodesWriter, csv_path
from magenta_nsynth.embeddings.pipeline import encoding
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import (
    Source,
    atomic_path,
    expand,
    find_sources,
    matches_of,
    refuse_collisions,
)
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.json_wav import LABELS_FILE
from magenta_nsynth.notes.labelling import SoundLabels, log_pitches
from magenta_nsynth.notes.naming import NameRules, refuse_rules
from magenta_nsynth.notes.record_clips import read_notes_as_clips
from magenta_nsynth.progress import Progress

__all__ = ["notes_of", "open_records", "record_sets", "save_codes", "writing_codes"]

_SHARD = re.compile(r"-(\d+)-of-(\d+)(\.gz)?$")


def save_codes(
    model: Baseline,
    source_paths: Sequence[str | os.PathLike],
    save_path: str | os.PathLike,
    sample_length: int = 64_000,
    batch_size: int = 16,
    recursive: bool = False,
    skip_existing: bool = False,
    skip_corrupt: bool = False,
    rules: NameRules | None = None,
) -> int:
    """Writes `<stem>_z.npy`, float32 [N, 1984], for each sound or set of TFRecords.

    Beside it is `<stem>_z.csv`, with the id and the labels of each note. A sound of
    more than 65,535 samples has a row for each 65,536.

    Args:
      model: the opened checkpoint.
      source_paths: sound files, or TFRecords; files, folders or globs. All shards of
        one set of TFRecords go into one file.
      save_path: the folder to write to.
      sample_length: uses at most so many samples, at 16 kHz, of each note; 0 uses all.
      batch_size: notes that go through the network side by side, at most.
      recursive: descends into folders of sounds and mirrors them in `save_path`.
      skip_existing: leaves out what is there.
      skip_corrupt: leaves out damaged records, and counts them.
      rules: how pitches are read from the names of sounds; None is by default.

    Returns:
      0, or 1 if some files failed; those are logged, the others done.

    Raises:
      InputError: nothing to read, two inputs with one output, a bad argument.

    Source: NSynth, baseline/save_embeddings.py; differs: the list in the README.
    """
    check_arguments(model, save_path, sample_length, batch_size)
    sets = record_sets(source_paths, recursive, skip_corrupt, rules)
    if sets:
        sources = [Source(name, "") for name in sets]
        stems = [_set_stem(paths) for paths in sets.values()]
    else:
        sources = find_sources(source_paths, AUDIO_EXTENSIONS, recursive)
        stems = [source.stem for source in sources]
    outputs = [
        os.path.join(expand(save_path), source.subfolder, f"{stem}_z.npy")
        for source, stem in zip(sources, stems, strict=True)
    ]
    refuse_collisions(sources, outputs)
    make_folder(save_path)
    work = pending(list(zip(sources, outputs, strict=True)), skip_existing)
    failures = Failures()
    if sets:
        for source, output in work:
            with failures.noting():
                paths = sets[source.path]
                _save_records(
                    model, paths, output, sample_length, batch_size, skip_corrupt
                )
        return failures.report(len(sources))
    known = SoundLabels(sources, rules)
    log_pitches(sources, known)
    with encoded_files(model, work, sample_length, batch_size, failures) as encoded:
        for source, output, result in encoded:
            labels = {**known.of(source).fields, "note_str": source.stem}
            with (
                failures.noting(),
                writing_codes(output, model.config.num_latent) as writer,
            ):
                writer.add(result.z, labels, result.num_samples)
    return failures.report(len(sources))


def record_sets(
    paths: Sequence[str | os.PathLike],
    recursive: bool,
    skip_corrupt: bool,
    rules: NameRules | None = None,
) -> dict[str, list[str]]:
    """TFRecords by the first of each set's files; {} where the paths are of sounds.

    Raises:
      InputError: of both kinds, NSynth's JSON/WAV, or an option of the other kind.
    """
    matches = [
        match
        for path in paths
        if os.fspath(path)
        for match in matches_of(expand(path), "give another --source_path")
    ]
    kinds = {_holds_records(path, recursive) for path in matches}
    if len(kinds) > 1:
        raise InputError(
            f"{', '.join(matches)}: both TFRecords and others; give one kind at a time."
        )
    if kinds != {True}:
        if skip_corrupt:
            raise InputError("--skip_corrupt is for TFRecords; leave it out.")
        return {}
    if recursive:
        raise InputError(
            "--recursive is for folders of sounds; give TFRecords by a quoted glob, "
            "such as 'data/**/*.tfrecord*'."
        )
    refuse_rules(rules, matches[0])
    sets: dict[str, list[str]] = {}
    for path in find_records(matches):
        shard = _SHARD.search(path)
        sets.setdefault(path[: shard.start()] if shard else path, []).append(path)
    result = {}
    for paths_of_set in sets.values():
        shard = _SHARD.search(paths_of_set[0])
        if shard and len(paths_of_set) != int(shard[2]):
            result.update({path: [path] for path in paths_of_set})
        else:
            result[paths_of_set[0]] = paths_of_set
    return result


def _holds_records(path: str, recursive: bool) -> bool:
    """Whether a path is a TFRecord, or a folder of them and not of sounds."""
    if not os.path.isdir(path):
        return _is_record(path)
    try:
        names = [name for name in os.listdir(path) if not name.startswith(".")]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}.") from None
    records = [name for name in names if _is_record(name)]
    sounds = [name for name in names if name.lower().endswith(AUDIO_EXTENSIONS)]
    if records and sounds:
        raise InputError(
            f"{path}: holds TFRecords ({records[0]}) and sounds ({sounds[0]}); give "
            "the files by a quoted glob."
        )
    if LABELS_FILE in names and not (records or sounds or recursive):
        raise InputError(
            f"{path}: make TFRecords of it with nsynth_make_tfrecord, or give the "
            "folder of its sounds."
        )
    return bool(records)


def _is_record(name: str) -> bool:
    name = os.path.basename(name).lower()
    return ".tfrecord" in name and not name.endswith((*AUDIO_EXTENSIONS, ".npy"))


def _set_stem(paths: list[str]) -> str:
    """What is before .tfrecord, as in the original; of one shard its number too."""
    name, _, rest = os.path.basename(paths[0]).partition(".tfrecord")
    shard = _SHARD.search(rest)
    if shard and len(paths) != int(shard[2]):
        name += f"-{shard[1]}-of-{shard[2]}"
    return name


def open_records(
    paths: Sequence[str], model: Baseline, skip_corrupt: bool
) -> NoteIndex:
    """The index of TFRecords whose notes `notes_of` reads.

    Raises:
      InputError: a file that can't be used.
    """
    least = model.config.min_samples
    return open_notes(paths, None, skip_corrupt, min_samples=least)


def notes_of(
    index: NoteIndex, model: Baseline, sample_length: int, quiet: bool = False
) -> Iterator[Clip]:
    """The notes of TFRecords, one after the other.

    Args:
      index: of `open_records`.
      model: that they are for.
      sample_length: cuts each to so many samples, which is logged; 0 takes all.
      quiet: leaves that out.

    Raises:
      InputError: a record that can't be used.
    """
    demand = Demand(("audio",), model.config.min_samples)
    clips = read_notes_as_clips(index, demand, sample_length=sample_length, quiet=quiet)
    for clip in clips:
        yield clip._replace(audio=model.check_clip(clip.audio, clip.where))


@contextlib.contextmanager
def writing_codes(output: str, num_latent: int) -> Iterator[CodesWriter]:
    """Both files, whole or not at all; the .npy last, whose presence means done."""
    with (
        writing(output),
        atomic_path(output) as npy,
        open(npy, "wb") as file,
        atomic_path(csv_path(output)) as table,
        open(
            table, "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as text,
    ):
        writer = CodesWriter(file, text, num_latent)
        yield writer
        writer.close()
        file.flush()
        text.flush()
        # An older pair goes now: no moment has the one's .npy beside the other's .csv.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(output)


def _save_records(
    model: Baseline,
    paths: list[str],
    output: str,
    sample_length: int,
    batch_size: int,
    skip_corrupt: bool,
) -> None:
    index = open_records(paths, model, skip_corrupt)
    clips = ((None, note) for note in notes_of(index, model, sample_length))
    with (
        writing_codes(output, model.config.num_latent) as writer,
        encoding(clips, model, batch_size) as results,
        Progress(index.num_notes, "notes", os.path.basename(output)) as progress,
    ):
        for _, result in results:
            if isinstance(result, NSynthError):
                raise result
            writer.add(result.z, result.labels, result.num_samples)
            progress.advance()
