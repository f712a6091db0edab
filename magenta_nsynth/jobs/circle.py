"""The sounds of the blog's figures: reconstructions, and the circle of mixtures."""

import dataclasses
import json
import os
import pathlib
import re
import zlib
from typing import Any

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import load_audio
from magenta_nsynth.audio.mixing import sum_signals
from magenta_nsynth.embeddings.arrays import save_array
from magenta_nsynth.embeddings.mixing import mix
from magenta_nsynth.errors import InputError
from magenta_nsynth.files import atomic_path, expand
from magenta_nsynth.jobs.common import load_clip, make_folder, writing
from magenta_nsynth.jobs.generate import generate
from magenta_nsynth.jobs.panels import PanelMaker
from magenta_nsynth.jobs.pictured import Inputs, find_items
from magenta_nsynth.jobs.rainbowgram import finish_figure
from magenta_nsynth.plotting.look import Look

__all__ = ["draw_circle", "reconstruct", "sounds_beside"]

_SETTINGS = "settings.json"
_ROWS = ("Sum of the signals", "Mean of the embeddings")


def sounds_beside(save_path: str, page_path: str) -> str:
    """Where generated sounds go, if nothing else is said."""
    base = os.path.splitext(save_path)[0] or page_path
    return f"{base.rstrip(os.sep)}_sounds"


def reconstruct(model: WaveNet, inputs: Inputs, folder: str, **options: Any) -> None:
    """Generates the reconstruction of each sound, unless it is there.

    Args:
      model: the opened checkpoint.
      inputs: the sounds.
      folder: to write `gen_<stem>.wav` to.
      **options: seed, temperature and batch_size, as of `generate`.

    Raises:
      InputError: no sounds, or the folder holds those of another network or setting.
    """
    items = find_items(inputs)
    if items.are_notes or any(
        item.path.lower().endswith(".npy") for item in items.items
    ):
        raise InputError(
            "--reconstructions are made of sound files; write the notes of TFRecords "
            "as such with nsynth_make_tfrecord, and give sounds in place of .npy."
        )
    _claim(folder, model, {**options, "sample_length": inputs.sample_length})
    paths = [item.path for item in items.items] if inputs.limit else inputs.paths
    generate(
        model,
        paths,
        folder,
        sample_length=inputs.sample_length,
        recursive=inputs.recursive,
        skip_existing=True,
        **options,
    )
    logging.info("%s: the generated sounds.", folder)


def _claim(folder: str, model: WaveNet, options: dict[str, Any]) -> None:
    """Notes how a folder's sounds are made, for only such may be taken from there.

    Raises:
      InputError: they were made in another way.
    """
    make_folder(folder, "--sounds_path")
    settings = {
        "checkpoint": os.path.abspath(model.checkpoint_path),
        "use_ema": model.use_ema,
        **{key: options[key] for key in sorted(options) if key != "batch_size"},
    }
    path = pathlib.Path(expand(folder)) / _SETTINGS
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        before = settings
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read ({error}); remove it.") from None
    if before != settings:
        raise InputError(
            f"{folder}: holds sounds that were made with another checkpoint or other "
            f"settings ({_SETTINGS} in there says which); give another --sounds_path, "
            "or remove it."
        )
    with writing(str(path)), atomic_path(path) as temporary:
        text = json.dumps(settings, indent=2) + "\n"
        pathlib.Path(temporary).write_text(text, encoding="utf-8")


def draw_circle(
    model: WaveNet,
    inputs: Inputs,
    maker: PanelMaker,
    sounds_path: str,
    save_path: str,
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
      inputs: two sounds or more, in order.
      maker: of the panels.
      sounds_path: where generated sounds go; what is finished there is taken.
      save_path: the figure's, or "".
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
    items = find_items(inputs)
    if items.are_notes or items.count < 2:
        raise InputError("--circle needs two sound files or more.")
    items = list(items.items)
    clips = [load_clip(i.path, inputs.sample_length, model) for i in items]
    encodings = [model.encode(clip) for clip in clips]
    columns = _columns(len(items))
    mixes = [mix([encodings[i] for i in members]) for members in columns]
    sums = [sum_signals([clips[i] for i in members]) for members in columns]
    _claim(
        sounds_path,
        model,
        {**options, "embeddings": [zlib.crc32(z.tobytes()) for z in mixes]},
    )
    names = [" + ".join(items[i].name for i in members) for members in columns]
    paths = [
        _save_encoding(sounds_path, *pair) for pair in zip(names, mixes, strict=True)
    ]
    status = generate(
        model,
        list(dict.fromkeys(paths)),
        sounds_path,
        sample_length=0,
        skip_existing=True,
        **options,
    )
    cells = [
        maker.cell(name, audio, model.encode(audio) if curves else None)
        for name, audio in zip(names, sums, strict=True)
    ]
    for name, path, z in zip(names, paths, mixes, strict=True):
        folder, file = os.path.split(path)
        sound = os.path.join(folder, f"gen_{file.removesuffix('.npy')}.wav")
        cells.append(maker.cell(name, load_audio(sound), z if curves else None))
    cells = [
        cell._replace(caption=f"{cell.caption}: {row.lower()}")
        for cell, row in zip(cells, np.repeat(_ROWS, len(columns)), strict=True)
    ]
    look = look or Look()
    if not look.row_labels:
        look = dataclasses.replace(look, row_labels=_ROWS)
    if not look.column_labels:
        look = dataclasses.replace(look, column_labels=names)
    finish_figure(cells, save_path, 2, len(columns), look, page_path)
    return status or maker.failures.report(len(cells))


def _columns(count: int) -> list[tuple[int, ...]]:
    """Which sounds are in each column: one, or two neighbours."""
    if count == 2:
        return [(0,), (0, 1), (1,)]
    return [
        members for i in range(count) for members in ((i,), (i, (i + 1) % count))
    ] + [(0,)]


def _save_encoding(folder: str, name: str, encoding: np.ndarray) -> str:
    """Writes an embedding to be generated from; its path."""
    stem = re.sub(r"[^\w+.-]+", "_", name.replace(" + ", "+"))[:100]
    path = os.path.join(expand(folder), f"{stem}_embeddings.npy")
    with writing(path):
        save_array(path, encoding)
    return path
