"""Making sharded TFRecords from sounds, and JSON/WAV from TFRecords."""

import contextlib
import os
from typing import Any

from absl import logging

from magenta_nsynth.commands.common import Failures, make_folder
from magenta_nsynth.commands.options import Making
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.data.writing import RecordShards, locked
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import check_folder, expand
from magenta_nsynth.notes.archive import make_from_archive
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.json_wav import LABELS_FILE, export_json_wav, plan_folder
from magenta_nsynth.notes.naming import NameRules
from magenta_nsynth.notes.opening import recognise
from magenta_nsynth.notes.own_sounds import Cut, plan_own_audio
from magenta_nsynth.notes.record_making import Target, make_from_items
from magenta_nsynth.notes.unread import shuffled
from magenta_nsynth.options import options_of

__all__ = ["make_tfrecord"]

_LONGEST_NOTE = 600.0  # seconds
_ALLOWED = {
    "audio": {
        *("csv", "note_seconds", "pad", "name", "num_shards", "shuffle_seed"),
        *("pitch_from_name", "middle_c"),
    },
    "jsonwav": {"name", "num_shards", "shuffle_seed"},
    "archive": {"name", "num_shards"},
    "tfrecord": {"float"},
}
_ALWAYS = ("num_threads", "overwrite")
_DESCRIPTIONS = {
    "audio": "your own sounds",
    "jsonwav": "a JSON/WAV folder",
    "archive": "an archive",
    "tfrecord": "TFRecords",
}


def make_tfrecord(
    inputs: Inputs,
    rules: NameRules,
    save_path: str | os.PathLike[str],
    making: Making,
) -> int:
    """Makes `<name>.tfrecord-<i>-of-<n>` from sounds, or JSON/WAV from TFRecords.

    Args:
      inputs: folders, files or globs of sounds; or an NSynth JSON/WAV folder, or its
        .tar or .tar.gz archive; or TFRecord files.
      rules: how pitches are read from the names of sounds.
      save_path: the folder to write to.
      making: how to make them.

    Returns:
      The exit status: 1 if some notes failed, with messages, and the others are done;
      else 0.

    Raises:
      InputError: there is nothing to read, an argument can't be used, other files are
        in the way, or the disk is full.
    """
    check_folder(save_path)
    kind, paths = recognise(inputs, deep=True)
    _refuse_unused(kind, paths[0], making, rules)
    folder, num_threads = expand(save_path), making.num_threads or os.cpu_count() or 1
    if kind == "tfrecord":
        return _export(paths, folder, making.as_float, num_threads, making.overwrite)
    name = "notes" if making.name is None else making.name
    if not name or name.startswith(".") or os.path.basename(name) != name:
        raise InputError(f"--name={name} can't start a file's name; give another.")
    num_shards = making.num_shards
    if num_shards is not None and not 1 <= num_shards <= 99_999:
        raise InputError(f"--num_shards={num_shards} must be from 1 to 99999.")
    target = Target(folder, name, num_shards, num_threads, making.overwrite)
    identity: dict[str, Any] = {
        "source": kind,
        "num_shards": num_shards,
        "shuffle_seed": making.shuffle_seed,
    }
    if kind == "archive":
        make_folder(folder)
        with _locked(folder):
            shards = make_from_archive(paths[0], identity, target)
        return _report(shards, [], shards.plan.num_notes)
    problems: list[str] = []
    if kind == "jsonwav":
        notes, problems = plan_folder(paths[0])
    else:
        cut = Cut(_note_length(making.note_seconds), making.pad is not False)
        # Another decoder gives other samples, which must not be mixed with these.
        identity |= {"note_length": cut.length, "pad": cut.pad, "decoder": "PyAV"}
        notes = plan_own_audio(paths, making.csv, cut, num_threads, folder, rules)
    make_folder(folder)
    with _locked(folder):
        notes = shuffled(notes, making.shuffle_seed)
        shards = make_from_items(notes, identity, target)
    return _report(shards, problems, len({note.path for note in notes}) + len(problems))


def _refuse_unused(kind: str, path: str, making: Making, rules: NameRules) -> None:
    """Raises InputError for options that do nothing with this kind of source."""
    if kind not in _ALLOWED:
        raise InputError(
            f"{path}: TFRecords can't be made from this; give a folder of sounds."
        )
    for options in (making, rules):
        for field, _, flag in options_of(type(options)):
            is_given = getattr(options, field.name) != field.default
            if is_given and flag not in (*_ALLOWED[kind], *_ALWAYS):
                raise InputError(
                    f"--{flag} can't be used with {_DESCRIPTIONS[kind]} ({path}); "
                    "leave it out, or set --read_as to another kind of source."
                )


def _locked(folder: str) -> contextlib.AbstractContextManager[None]:
    endings = ("tfrecord-*", "json", "wav")
    return locked(folder, *(f".writing-*.{ending}" for ending in endings))


def _note_length(note_seconds: float | None) -> int:
    seconds = 4.0 if note_seconds is None else note_seconds
    length = round(seconds * SAMPLE_RATE) if 0 <= seconds <= _LONGEST_NOTE else -1
    if length < 0 or (seconds and not length):
        raise InputError(
            f"--note_seconds={seconds:g} must be from 1/{SAMPLE_RATE} to "
            f"{_LONGEST_NOTE:g}, or 0 for one note per file."
        )
    return length


def _report(shards: RecordShards, problems: list[str], num_files: int) -> int:
    failures = Failures()
    failures.messages += [*shards.failures, *problems]
    status = failures.report(num_files)
    logging.info("%d notes are in %s.", shards.num_written, shards.pattern)
    return status


def _export(
    paths: list[str], folder: str, as_float: bool, num_threads: int, overwrite: bool
) -> int:
    make_folder(folder)
    with locked(folder, ".writing-*.json", "audio/.writing-*.wav"):
        done = export_json_wav(paths, folder, as_float, num_threads, overwrite)
    failures = Failures()
    failures.messages += done.failed
    status = failures.report(done.num_notes + len(done.failed))
    if done.num_rounded:
        logging.warning(
            "%d of %d notes have samples that are not 16-bit numbers, e.g. %s. They "
            "were rounded%s; --float writes them without loss.",
            *(done.num_rounded, done.num_notes, done.first_rounded),
            f", and {done.num_clipped} clipped at full level" * bool(done.num_clipped),
        )
    form = "float" if as_float else "16-bit"
    loss = "" if done.num_rounded else ", without loss"
    where = os.path.join(folder, LABELS_FILE)
    logging.info("%d notes as %s WAV%s: %s.", done.num_notes, form, loss, where)
    return status
