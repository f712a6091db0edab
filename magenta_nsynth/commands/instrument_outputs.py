"""Writing an instrument: samples, SFZ files, the page, and what each file is."""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from absl import logging

import magenta_nsynth
from magenta_nsynth.audio.sampler import sample_bytes, write_sample
from magenta_nsynth.commands.common import writing
from magenta_nsynth.commands.instrument_finish import (
    Sample,
    finish_sounds,
    out_of_tune,
)
from magenta_nsynth.commands.instrument_options import Finishing
from magenta_nsynth.commands.instrument_plan import UNPROCESSED, Plan
from magenta_nsynth.commands.instrument_sfz import ACROSS, DOWN, sfz_files
from magenta_nsynth.commands.instrument_super import (
    pad_name,
    pad_rows,
    super_settings,
)
from magenta_nsynth.config import SAMPLE_RATE
from magenta_nsynth.disk import only_writer, remove
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, load_json, write_json
from magenta_nsynth.stores import storage

__all__ = ["check_instrument_folder", "log_tuning", "write_instrument"]

_PAGE, _MANIFEST = "index.html", "instrument.json"
_SUPER = "nsynth_super"
_ABOUT = (
    "What nsynth_instrument wrote here. It may replace and remove again the files it "
    "lists, but not those in unprocessed/, which are the sounds as generated."
)
_PATIENCE = 60.0  # seconds to wait for another worker that is finishing
# What may stand in the list of files: nothing outside the folder.
_FILE = re.compile(
    r"index\.html|sfz/(?:grid|r\d+c\d+)\.sfz|sounds/r\d+c\d+_\d{3}\.wav|"
    r"nsynth_super/(?:settings\.json|[A-Za-z0-9_]+\.bin)"
)


def check_instrument_folder(folder: str) -> set[str]:
    """The files that an earlier run wrote into a folder, from its instrument.json.

    Raises:
      InputError: the folder has a page or an instrument.json that is not ours.
    """
    path = storage.join(folder, _MANIFEST)
    advice = "give another --save_path, or move it away"
    try:
        files = load_json(path, {"files": [str]})["files"]
    except FileNotFoundError:
        if storage.lexists(storage.join(folder, _PAGE)):
            raise InputError(
                f"{storage.join(folder, _PAGE)}: is there already, and is not of an "
                f"instrument; {advice}."
            ) from None
        return set()
    except InputError as error:
        raise InputError(f"{error} It is not of an instrument; {advice}.") from None
    if not all(_FILE.fullmatch(name) for name in files):
        raise InputError(f"{path}: damaged; {advice}.")
    return set(files)


def write_instrument(
    plan: Plan,
    folder: str,
    finishing: Finishing,
    facts: Mapping[str, Any],
    nsynth_super: bool,
) -> list[Sample]:
    """Finishes the sounds of a plan, all generated, and writes all that is made of it.

    Args:
      plan: the instrument, or its corners.
      folder: the instrument's.
      finishing: which steps to take.
      facts: what instrument.json says of the whole.
      nsynth_super: also write open-nsynth-super's files.

    Returns:
      The samples.

    Raises:
      InputError: a file can't be written, or is in the way.
    """
    samples = finish_sounds(plan.sounds, folder, finishing)
    by_key = {sample.sound.key: sample for sample in samples}
    texts = sfz_files(plan, by_key)
    texts[_PAGE] = _page(plan, samples)
    names = {*texts, *(sample.file for sample in samples)}
    if nsynth_super:
        names |= {f"{_SUPER}/settings.json", f"{_SUPER}/{pad_name(plan.names)}"}
    with _writing(folder, names, _manifest(plan, samples, facts)):
        for sample in samples:
            path = storage.join(folder, sample.file)
            with writing(path):
                write_sample(path, sample.audio, sample.sound.pitch, sample.loop)
        if nsynth_super:
            _write_super(plan, by_key, storage.join(folder, _SUPER))
        for name, text in texts.items():
            path = storage.join(folder, name)
            with writing(path), atomic_path(path) as temporary:
                pathlib.Path(temporary).write_text(text, encoding="utf-8")
    return samples


@contextmanager
def _writing(folder: str, names: set[str], content: dict[str, Any]) -> Iterator[None]:
    """These files are written in the block; then those of earlier runs go."""
    path = storage.join(folder, _MANIFEST)
    with only_writer(folder, patience=_PATIENCE):
        old = check_instrument_folder(folder)
        # Before the files, so that a killed run leaves none that nobody owns.
        _write_manifest(path, {**content, "files": sorted(old | names)})
        yield
        remove(*(storage.join(folder, name) for name in old - names))
        _write_manifest(path, {**content, "files": sorted(names)})


def _write_manifest(path: str, content: Mapping[str, Any]) -> None:
    with writing(path):
        write_json(path, content)


def _write_super(plan: Plan, samples: Mapping[str, Sample], folder: str) -> None:
    path = storage.join(folder, pad_name(plan.names))
    with (
        writing(path),
        atomic_path(path) as temporary,
        open(temporary, "wb") as file,
    ):
        for row in pad_rows(plan, samples):
            file.write(row.tobytes())
    path = storage.join(folder, "settings.json")
    with writing(path):
        write_json(path, super_settings(plan, samples))


def _manifest(
    plan: Plan, samples: Sequence[Sample], facts: Mapping[str, Any]
) -> dict[str, Any]:
    by_key = {sample.sound.key: sample for sample in samples}
    return {
        "about": _ABOUT,
        "software": f"magenta_nsynth {magenta_nsynth.__version__}",
        **facts,
        "rate": SAMPLE_RATE,
        "pitches": list(plan.pitches),
        "controllers": {"left_to_right": ACROSS, "top_to_bottom": DOWN},
        "points": [
            {
                **point._asdict(),
                "sfz": f"sfz/{point.name}.sfz",
                "weights": plan.weights[point].tolist(),
                "sounds": {
                    str(pitch): by_key[sound.key].file
                    for pitch, sound in sounds.items()
                },
            }
            for point, sounds in plan.places.items()
        ],
        "sounds": {sample.file: _sound_facts(sample) for sample in samples},
        "out_of_tune": [sample.file for sample in out_of_tune(samples)],
    }


def _sound_facts(sample: Sample) -> dict[str, Any]:
    sound = sample.sound
    return {
        "pitch": sound.pitch,
        "unprocessed": f"{UNPROCESSED}/{sound.key}.wav",
        "sources": [
            {
                "source": note.corner,
                "path": note.path,
                "weight": weight,
                "made_of_pitch": note.made_of,
                "playback_rate": round(note.rate, 6),
            }
            for note, weight in sound.parts
        ],
        **sample.facts,
    }


def _page(plan: Plan, samples: Sequence[Sample]) -> str:
    # Imported here because matplotlib takes a second.
    from magenta_nsynth.plotting.instrument_page import (
        PagePoint,
        PageSound,
        instrument_page,
    )
    from magenta_nsynth.plotting.rainbowgrams import rainbowgram_image

    sounds = [
        PageSound(
            sample.sound.pitch,
            sample_bytes(sample.audio, sample.sound.pitch, sample.loop),
            sample.tune,
            sample.loop
            and (sample.loop.start / SAMPLE_RATE, sample.loop.end / SAMPLE_RATE),
            len(sample.audio) / SAMPLE_RATE,
            rainbowgram_image(sample.audio),
        )
        for sample in samples
    ]
    numbers = {sample.sound.key: i for i, sample in enumerate(samples)}
    rows, columns = plan.cells
    points = [
        PagePoint(
            point.column / (columns - 1) if columns > 1 else 0.5,
            point.row / (rows - 1) if rows > 1 else 0.5,
            plan.weights[point].tolist(),
            [numbers[places[pitch].key] for pitch in plan.pitches],
        )
        for point, places in plan.places.items()
    ]
    controllers = {"across": ACROSS, "down": DOWN}
    return instrument_page(plan.names, plan.pitches, points, sounds, controllers)


def log_tuning(samples: Sequence[Sample], is_tuned: bool) -> None:
    """Says how many sounds are corrected, and which can't be."""
    wrong = out_of_tune(samples)
    offs = [abs(sample.cents) for sample in samples if sample not in wrong]
    if offs:
        logging.info(
            "%d of %d sounds are at their pitch, within %.0f cents%s.",
            *(len(offs), len(samples), max(offs)),
            ", and are played in tune" if is_tuned else "",
        )
    for sample in wrong:
        hz = sample.facts["fundamental_hz"]
        found = "no clear pitch" if hz is None else f"a fundamental of {hz:.1f} Hz"
        logging.warning(
            "%s: %s instead of pitch %d.", sample.file, found, sample.sound.pitch
        )
