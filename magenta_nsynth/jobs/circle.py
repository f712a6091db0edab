"""The sounds of the announcement's figures: reconstructions, and circles of mixes."""

import collections
import dataclasses
import os
import pathlib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import read_audio
from magenta_nsynth.audio.mixing import sum_signals
from magenta_nsynth.embeddings.arrays import save_array
from magenta_nsynth.embeddings.mixing import mix
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import expand, load_json, write_json
from magenta_nsynth.jobs.common import (
    generated_name,
    load_clip,
    make_folder,
    writing,
)
from magenta_nsynth.jobs.generate import generate
from magenta_nsynth.jobs.panels import PanelMaker
from magenta_nsynth.jobs.pictured import Item, Items
from magenta_nsynth.jobs.rainbowgram import finish_figure, make_place
from magenta_nsynth.plotting.figure import check_figure
from magenta_nsynth.plotting.look import Look

__all__ = ["draw_circle", "reconstruct", "sounds_beside"]

_SETTINGS = "settings.json"
_ROWS = ("Sum of the signals", "Mean of the embeddings")


def sounds_beside(save_path: str, page_path: str) -> str:
    """Where generated sounds go, if nothing else is said."""
    base = os.path.splitext(save_path)[0] or page_path
    return f"{base.rstrip(os.sep)}_sounds"


def reconstruct(model: WaveNet, found: Items, folder: str, **options: Any) -> None:
    """Generates the reconstruction of each sound, unless it is there.

    Args:
      model: the opened checkpoint.
      found: the sounds.
      folder: to write `gen_<stem>.wav` to, mirroring folders.
      **options: sample_length, seed, temperature and batch_size, as of
        `generate`.

    Raises:
      InputError: no sounds, or the folder holds those of another network or setting.
    """
    items = [] if found.are_notes else list(found.items)
    if not items or any(item.path.lower().endswith(".npy") for item in items):
        raise InputError(
            "--reconstructions are made of sound files; write the notes of TFRecords "
            "as such with nsynth_make_tfrecord, and give sounds in place of .npy."
        )
    sources = {
        os.path.join(item.subfolder, generated_name(item.name)): _checksum(item)
        for item in items
    }
    _claim(folder, model, options, sources)
    folders: dict[str, list[str]] = collections.defaultdict(list)
    for item in items:
        folders[item.subfolder].append(item.path)
    for subfolder, paths in folders.items():
        place = os.path.join(expand(folder), subfolder)
        # There before, so that no "$" in a sound's folder is taken for a variable.
        with writing(place):
            os.makedirs(place, exist_ok=True)
        generate(model, paths, place, skip_existing=True, **options)
    logging.info("%s: the generated sounds.", folder)


def _checksum(item: Item) -> int:
    try:
        return zlib.crc32(pathlib.Path(item.path).read_bytes())
    except OSError:
        return 0  # reading it as a sound says what is wrong


def _claim(
    folder: str, model: WaveNet, options: dict[str, Any], sources: Mapping[str, int]
) -> None:
    """Notes how a folder's sounds are made, for only such may be taken from there.

    A sound that was made of something else goes, to be made again.

    Args:
      folder: of the sounds.
      model: that makes them.
      options: of generation.
      sources: checksums of what each file is made of.

    Raises:
      InputError: they were made by another network, or with other options.
    """
    make_folder(folder, "--sounds_path")
    folder = expand(folder)
    path = os.path.join(folder, _SETTINGS)
    settings = {
        "checkpoint": os.path.abspath(model.checkpoint_path),
        "use_ema": model.use_ema,
        **{key: options[key] for key in sorted(options) if key != "batch_size"},
    }
    try:
        before = load_json(path, {"made_of": {str: int}})
        made_of = before.pop("made_of")
    except FileNotFoundError:
        before, made_of = settings, {}
    except InputError as error:
        raise InputError(f"{error} Remove it, or give another --sounds_path.") from None
    if before != settings:
        raise InputError(
            f"{folder}: holds sounds that were made with another checkpoint or other "
            f"settings ({_SETTINGS} in there says which); give another --sounds_path, "
            "or remove it."
        )
    for name, checksum in sources.items():
        if made_of.get(name) != checksum:
            with writing(os.path.join(folder, name)):
                pathlib.Path(folder, name).unlink(missing_ok=True)
    settings["made_of"] = {**made_of, **sources}
    with writing(path):
        write_json(path, settings)


def draw_circle(
    model: WaveNet,
    found: Items,
    maker: PanelMaker,
    sounds_path: str,
    save_path: str,
    sample_length: int = 0,
    look: Look | None = None,
    curves: bool = False,
    page_path: str = "",
    **options: Any,
) -> int:
    """Draws sounds and what lies between neighbours, around a circle.

    The columns are the first sound, the first and second, the second, and so on to the
    last and first, and the first again (two sounds: a line). Above is the mean of the
    signals, below what is generated from the mean of the embeddings.

    Args:
      model: the opened checkpoint.
      found: two sounds or more, in order.
      maker: of the panels.
      sounds_path: where generated sounds go; what is finished there is taken.
      save_path: the figure's, or "".
      sample_length: uses at most so many samples of each; 0 uses all.
      look: of the figure; its labels are those of the circle unless it says others.
      curves: draws the embeddings below the pictures.
      page_path: the page's folder, or "".
      **options: seed, temperature and batch_size, as of `generate`.

    Returns:
      0, or 1 if something failed; that is logged.

    Raises:
      InputError: too few sounds, one that can't be used, or as `reconstruct`.

    Source: the figure of NSynth's announcement.
    """
    if found.are_notes or found.count < 2:
        raise InputError("--circle needs two sound files or more.")
    items = list(found.items)
    columns = _columns(len(items))
    names = [" + ".join(items[i].name for i in members) for members in columns]
    look = _labelled(look or Look(), names)
    # Before hours of work.
    check_figure(2 * len(columns), 2, len(columns), look)
    make_place(save_path, page_path)
    clips = [load_clip(item.path, sample_length, model) for item in items]
    encodings = [model.encode(clip) for clip in clips]
    mixes = [mix([encodings[i] for i in members]) for members in columns]
    sums = [sum_signals([clips[i] for i in members]) for members in columns]
    sounds, status = _generate(model, sounds_path, names, columns, mixes, options)
    cells = [
        maker.cell(name, audio, model.encode(audio) if curves else None)
        for name, audio in zip(names, sums, strict=True)
    ]
    cells += [
        maker.cell(name, audio, z if curves else None)
        for name, audio, z in zip(names, sounds, mixes, strict=True)
    ]
    cells = [
        cell._replace(caption=f"{cell.caption}: {row.lower()}")
        for cell, row in zip(cells, np.repeat(_ROWS, len(columns)), strict=True)
    ]
    finish_figure(cells, save_path, 2, len(columns), look, page_path)
    return max(status, maker.report(len(cells)))


def _columns(count: int) -> list[tuple[int, ...]]:
    """Which sounds are in each column: one, or two neighbours."""
    if count == 2:
        return [(0,), (0, 1), (1,)]
    around = [((i,), (i, (i + 1) % count)) for i in range(count)]
    return [members for pair in around for members in pair] + [(0,)]


def _labelled(look: Look, names: Sequence[str]) -> Look:
    return dataclasses.replace(
        look,
        row_labels=look.row_labels or _ROWS,
        column_labels=look.column_labels or names,
    )


def _generate(
    model: WaveNet,
    folder: str,
    names: Sequence[str],
    columns: Sequence[tuple[int, ...]],
    mixes: Sequence[np.ndarray],
    options: dict[str, Any],
) -> tuple[list[np.ndarray], int]:
    """The sound of each column, and the exit status; equal columns are made once."""
    stems, sources = {}, {}
    for name, members, z in zip(names, columns, mixes, strict=True):
        # Numbers tell sounds of one name apart, and what is cut off.
        number = "+".join(str(i + 1) for i in members)
        words = re.sub(r"[^\w+.-]+", "_", name.replace(" + ", "+"))[:60]
        stems[members] = f"{number}_{words}_embeddings"
        sources[generated_name(stems[members])] = zlib.crc32(z.tobytes())
    _claim(folder, model, options, sources)
    paths = {}
    for members, z in zip(columns, mixes, strict=True):
        paths[members] = os.path.join(expand(folder), f"{stems[members]}.npy")
        with writing(paths[members]):
            save_array(paths[members], z)
    status = generate(
        model,
        list(paths.values()),
        folder,
        sample_length=0,
        skip_existing=True,
        **options,
    )
    made = [
        os.path.join(expand(folder), generated_name(stems[members]))
        for members in columns
    ]
    return [read_audio(path) for path in made], status
