"""Sounds, TFRecords or z in, the baseline's sounds out."""

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from magenta_nsynth.api import Baseline
from magenta_nsynth.api.baseline import Prepared, check_z
from magenta_nsynth.audio import AUDIO_EXTENSIONS, read_audio, write_audio
from magenta_nsynth.commands.common import (
    Failures,
    SaveSound,
    check_arguments,
    find_sounds_or_npy,
    generated_name,
    make_folder,
    note_file_name,
    pending,
    writing,
)
from magenta_nsynth.commands.save_codes import notes_of, open_records, record_sets
from magenta_nsynth.config import NUM_PITCHES, SpectralConfig
from magenta_nsynth.data.reading import NOTE_SAMPLES
from magenta_nsynth.embeddings.codes import Code, read_codes
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source, expand, refuse_collisions
from magenta_nsynth.notes.clips import Clip
from magenta_nsynth.notes.labelling import SoundLabels, log_pitches
from magenta_nsynth.notes.naming import NameRules, refuse_rules
from magenta_nsynth.progress import Progress

__all__ = ["code_samples", "generate_baseline"]

_NAMING = (
    "name it so that it says it, like flute_C4.wav, flute_midi60.wav or NSynth's "
    "flute_acoustic_002-060-100.wav, or --pitch_from_name to say what in the name it is"
)
_LABELLING = "make its TFRecord anew with it (nsynth_make_tfrecord --csv)"
_BESIDE = "keep beside it the .csv that nsynth_save_embeddings wrote"


class _Sound:
    """One input: a clip, or z.

    Attributes:
      where: what to call it in messages.
      pitch: MIDI, or -1.
      how: what to do where the pitch isn't known.
      num_samples: of what is made of it.
      clip: [t] float32, or None for z.
      prepared: the clip as the network sees it.
      z: [k, num_latent], of a clip once it is encoded.
    """

    def __init__(
        self,
        where: str,
        pitch: int,
        how: str,
        num_samples: int,
        clip: np.ndarray | None = None,
        prepared: Prepared | None = None,
        z: np.ndarray | None = None,
    ) -> None:
        self.where, self.pitch, self.how = where, pitch, how
        self.num_samples = num_samples
        self.clip, self.prepared, self.z = clip, prepared, z

    @property
    def peak(self) -> float:
        """How loud the input is; of z that isn't known."""
        if self.clip is None:
            return 1.0
        return 0.0 if self.prepared.is_silent else float(np.abs(self.clip).max())


class _Inputs(NamedTuple):
    """What there is to work on.

    Attributes:
      sources: the file of each, and its folder.
      names: of each, for its output.
      loaders: functions that read each, in order.
      failures: of whole files.
    """

    sources: list[Source]
    names: list[str]
    loaders: Iterator[Callable[[], _Sound]]
    failures: Failures


class _Job(NamedTuple):
    sounds: tuple[_Sound, ...]  # one, or two to go halfway between
    pitch: int
    output: str


def generate_baseline(
    model: Baseline,
    source_paths: Sequence[str | os.PathLike],
    save_path: str | os.PathLike,
    sample_length: int = 64_000,
    batch_size: int = 1,
    npy_only: bool = False,
    recursive: bool = False,
    skip_existing: bool = False,
    skip_corrupt: bool = False,
    rules: NameRules | None = None,
    seed: int | None = None,
    pitch: int | None = None,
    pitch_shift: int = 0,
    phase: str = "griffin_lim",
    num_iters: int = 1000,
    halfway: bool = False,
    bit_depth: str = "float",
    normalize: bool = False,
    save: SaveSound | None = None,
) -> int:
    """Writes `gen_<name>.wav`, 16 kHz mono, for each sound, note of a TFRecord, or z.

    A sound comes out as long and, at its peak, as loud as it went in.

    Args:
      model: the opened checkpoint.
      source_paths: files, folders or globs, of sounds, of TFRecords, or of .npy files
        of z; of a folder that has sounds and z, the sounds.
      save_path: the folder to write to.
      sample_length: at most so many samples each; 0 is no limit.
      batch_size: sounds that are made side by side.
      npy_only: reads only .npy files.
      recursive: descends into folders and mirrors them in `save_path`.
      skip_existing: leaves out what is there.
      skip_corrupt: leaves out damaged records.
      rules: how pitches are read from the names of sounds; None is by default.
      seed: of Griffin-Lim's start phase; None is fresh.
      pitch: MIDI, for all; None is each note's own, by its record, CSV or name.
      pitch_shift: semitones above that.
      phase: "griffin_lim", or "source" for the sounds' own.
      num_iters: Griffin-Lim's iterations.
      halfway: makes the sounds between each input and the next one, at the pitch of
        the first of the two: `gen_<name>_<name>.wav`.
      bit_depth: "float" or "16".
      normalize: scales each sound to a peak of 1.
      save: as in `generate`.

    Returns:
      0, or 1 if some inputs failed; those are logged, the others done.

    Raises:
      InputError: nothing to read, two inputs with one output, a bad argument.

    Source: NSynth, baseline/models/ae.py's eval_op and utils.py's tf_ispecgram.
    """
    check_arguments(model, save_path, sample_length, batch_size)
    _check_range("pitch", pitch, 0, NUM_PITCHES - 1)
    _check_range("pitch_shift", pitch_shift, 1 - NUM_PITCHES, NUM_PITCHES - 1)
    _check_range("griffin_lim_iterations", num_iters, 1, None)
    if phase == "source" and seed is not None:
        raise InputError("--seed is Griffin-Lim's; leave it out with --phase=source.")
    inputs = _find(
        model,
        source_paths,
        save_path,
        sample_length,
        npy_only,
        recursive,
        skip_corrupt,
        rules,
        are_pitches_wanted=pitch is None,
    )
    sources, names, failures = inputs.sources, inputs.names, inputs.failures
    if halfway:
        if len(names) < 2:
            raise InputError(
                f"--halfway needs two inputs or more, and there is {len(names)}; "
                "repeat --source_path."
            )
        names = [f"{one}_{other}" for one, other in itertools.pairwise(names)]
        sources = sources[:-1]
    outputs = [
        os.path.join(
            expand(save_path), source.subfolder, generated_name(note_file_name(name))
        )
        for source, name in zip(sources, names, strict=True)
    ]
    refuse_collisions(sources, outputs)
    make_folder(save_path)
    num_unreadable = len(failures.messages)
    wanted = {
        output
        for _, output in pending(
            list(zip(sources, outputs, strict=True)), skip_existing
        )
    }
    jobs: list[_Job] = []

    def flush() -> None:
        done = list(jobs)
        jobs.clear()
        try:
            audio = _make(model, done, phase, num_iters, seed, normalize)
        except InputError as error:
            failures.messages += [f"{job.output}: {error}" for job in done]
            return
        for job, clip in zip(done, audio, strict=True):
            with failures.noting(), writing(job.output):
                if save is not None:
                    save(job.output, clip)
                    continue
                depth = bit_depth if bit_depth == "float" else int(bit_depth)
                write_audio(job.output, clip, depth)
        progress.advance(len(done))

    def add(sounds: Sequence[_Sound | NSynthError], output: str) -> None:
        if output not in wanted:
            return
        with failures.noting():
            for sound in sounds:
                if isinstance(sound, NSynthError):
                    also = f" So {output} is not made." if halfway else ""
                    raise type(sound)(f"{sound}{also}")
            jobs.append(
                _Job(tuple(sounds), _pitch(sounds, pitch, pitch_shift, phase), output)
            )
        if len(jobs) >= batch_size:
            flush()

    with Progress(len(wanted), "sounds") as progress:
        before: _Sound | NSynthError | None = None
        for i, load in enumerate(inputs.loaders):
            uses = outputs[max(0, i - 1) : i + 1] if halfway else outputs[i : i + 1]
            sound = _attempt(load) if wanted.intersection(uses) else None
            if not halfway:
                add([sound], outputs[i])
            elif i > 0:
                add([before, sound], outputs[i - 1])
            before = sound
        if jobs:
            flush()
    return failures.report(len(outputs) + num_unreadable)


def _attempt(load: Callable[[], _Sound]) -> "_Sound | NSynthError":
    try:
        return load()
    except NSynthError as error:
        return error


def _check_range(name: str, value: int | None, low: int, high: int | None) -> None:
    if value is None or (value >= low and (high is None or value <= high)):
        return
    wanted = f"{low} to {high}" if high is not None else f"{low} or more"
    raise InputError(f"--{name} must be {wanted}, not {value}.")


def _find(
    model: Baseline,
    source_paths: Sequence[str | os.PathLike],
    save_path: str | os.PathLike,
    sample_length: int,
    npy_only: bool,
    recursive: bool,
    skip_corrupt: bool,
    rules: NameRules | None,
    are_pitches_wanted: bool,
) -> _Inputs:
    sets = {}
    if not npy_only:
        sets = record_sets(source_paths, recursive, skip_corrupt, rules)
    if sets:
        return _records(model, sets, sample_length, skip_corrupt)
    found = find_sounds_or_npy(
        source_paths, AUDIO_EXTENSIONS, npy_only, recursive, [save_path]
    )
    inputs = _Inputs([], [], iter(()), Failures())
    loaders: list[Callable[[], _Sound]] = []
    sounds = [s for s in found if not s.path.lower().endswith(".npy")]
    if not sounds:
        refuse_rules(rules, found[0].path)
    labels = SoundLabels(sounds, rules)
    if are_pitches_wanted:
        log_pitches(sounds, labels)
    for source in found:
        if not source.path.lower().endswith(".npy"):
            inputs.sources.append(source)
            inputs.names.append(source.stem)
            loaders.append(_sound_loader(model, source, labels, sample_length))
            continue
        with inputs.failures.noting():
            codes = read_codes(source.path, model.config.num_latent, check_z)
            names = _distinct([code.name or source.stem for code in codes])
            for i, (code, name) in enumerate(zip(codes, names, strict=True)):
                inputs.sources.append(source)
                inputs.names.append(name)
                where = f"{source.path}, row {i}" if len(codes) > 1 else source.path
                loaders.append(_code_loader(model, code, where, sample_length))
    return inputs._replace(loaders=iter(loaders))


def _distinct(names: list[str]) -> list[str]:
    """The names, those that several have with their number in the list."""
    counts = collections.Counter(names)
    digits = len(str(len(names) - 1))
    return [
        name if counts[name] == 1 else f"{name}_{i:0{digits}}"
        for i, name in enumerate(names)
    ]


def _sound_loader(
    model: Baseline, source: Source, labels: SoundLabels, sample_length: int
) -> Callable[[], _Sound]:
    def load() -> _Sound:
        clip = model.check_clip(read_audio(source.path, sample_length), source.path)
        pitch = int(labels.of(source).fields["pitch"])
        return _Sound(source.path, pitch, _NAMING, len(clip), clip, model.prepare(clip))

    return load


def _code_loader(
    model: Baseline, code: Code, where: str, sample_length: int
) -> Callable[[], _Sound]:
    def load() -> _Sound:
        num_samples = code_samples(code, model.config, where, sample_length)
        return _Sound(where, code.pitch, _BESIDE, num_samples, z=np.array(code.z))

    return load


def code_samples(
    code: Code, config: SpectralConfig, where: str, sample_length: int
) -> int:
    """The samples of the sound of z; a cut to `sample_length` is logged.

    Raises:
      InputError: its rows don't hold as many; `where` is what that calls it.
    """
    num_samples = code.num_samples or NOTE_SAMPLES
    if 0 < sample_length < num_samples:
        logging.info("%s: %d samples are cut to %d.", where, num_samples, sample_length)
        num_samples = sample_length
    most = len(code.z) * (config.max_samples + 1) - 1
    if not config.min_samples <= num_samples <= most:
        raise InputError(
            f"{where}: {num_samples} samples can't be made of {len(code.z)} rows "
            f"of z; mend the CSV beside it, or move that away and give --pitch."
        )
    return num_samples


def _records(
    model: Baseline, sets: dict[str, list[str]], sample_length: int, skip_corrupt: bool
) -> _Inputs:
    inputs, indices = _Inputs([], [], iter(()), Failures()), []
    # All of it once before any work: two notes of one name are told apart, and a set
    # with a damaged record is left out as a whole, as nsynth_save_embeddings does.
    for first, paths in sets.items():
        with inputs.failures.noting():
            index = open_records(paths, model, skip_corrupt)
            notes = notes_of(index, model, sample_length, quiet=True)
            names = _distinct([note.labels["note_str"] for note in notes])
            inputs.names.extend(names)
            inputs.sources.extend([Source(first, "")] * len(names))
            indices.append(index)

    def loaders() -> Iterator[Callable[[], _Sound]]:
        for index in indices:
            for note in notes_of(index, model, sample_length):
                yield functools.partial(_sound_of, note)

    def _sound_of(note: Clip) -> _Sound:
        pitch, clip = int(note.labels["pitch"]), note.audio
        prepared = model.prepare(clip)
        return _Sound(note.where, pitch, _LABELLING, len(clip), clip, prepared)

    return inputs._replace(loaders=loaders())


def _pitch(sounds: Sequence[_Sound], pitch: int | None, shift: int, phase: str) -> int:
    """The pitch to make; InputError if it, or the phase, isn't known."""
    first = sounds[0]
    pitch = first.pitch if pitch is None else pitch
    if not 0 <= pitch < NUM_PITCHES:
        raise InputError(
            f"{first.where}: its pitch is not known; give --pitch (MIDI, 60 is C4), or "
            f"{first.how}."
        )
    for sound in sounds:
        if phase == "source" and sound.clip is None:
            raise InputError(
                f"{sound.where}: --phase=source takes the phase of a sound, and z has "
                "none; give the sound, or leave it out."
            )
    shifted = min(max(pitch + shift, 0), NUM_PITCHES - 1)
    if shifted != pitch + shift:
        logging.info(
            "%s: pitch %d is out of range, %d is made.",
            *(first.where, pitch + shift, shifted),
        )
    return shifted


def _make(
    model: Baseline,
    jobs: list[_Job],
    phase: str,
    num_iters: int,
    seed: int | None,
    normalize: bool,
) -> list[np.ndarray]:
    """The jobs' sounds, [t] float32 each."""
    sounds = {id(sound): sound for job in jobs for sound in job.sounds}
    clips = [sound for sound in sounds.values() if sound.z is None]
    if clips:
        codes = model.encode_prepared([sound.prepared for sound in clips])
        for sound, z in zip(clips, codes, strict=True):
            sound.z = z
    codes, lengths, peaks, phases = [], [], [], []
    for job in jobs:
        num_rows = min(len(sound.z) for sound in job.sounds)
        length = min(sound.num_samples for sound in job.sounds)
        codes.append(np.mean([sound.z[:num_rows] for sound in job.sounds], axis=0))
        lengths.append(length)
        peak = float(np.mean([sound.peak for sound in job.sounds]))
        peaks.append(1.0 if normalize and peak else peak)
        if phase == "source":
            mean = np.mean([sound.clip[:length] for sound in job.sounds], axis=0)
            phases.append(model.phase(mean))
    return model.generate(
        codes,
        [job.pitch for job in jobs],
        lengths,
        num_iters,
        seed,
        phases or None,
        peaks,
    )
