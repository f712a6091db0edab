"""The loss of a split, per family: what bin/nsynth_evaluate does."""

import math
from collections.abc import Sequence

import numpy as np
from absl import logging

from magenta_nsynth.api import WaveNet
from magenta_nsynth.data.reading import NoteFilter, NoteIndex, open_notes, read_notes
from magenta_nsynth.data.schema import FAMILIES
from magenta_nsynth.errors import InputError
from magenta_nsynth.progress import Progress
from magenta_nsynth.training.evaluation import Evaluator
from magenta_nsynth.training.trainer import set_up_towers
from magenta_nsynth.weights.engine import load_autoencoder

__all__ = ["evaluate", "evaluate_notes", "table"]

_NUM_SOUNDS = 3  # that summaries show


def evaluate_notes(
    evaluator: Evaluator, notes: NoteIndex, length: int, batch_size: int
) -> dict[str, np.ndarray]:
    """The loss of the centre of every note.

    Args:
      evaluator: of the model.
      notes: which ones.
      length: samples of each note, whole frames.
      batch_size: notes side by side.

    Returns:
      "nats": [n] float32, nats per sample of each note; "family": [n] int64;
      "first_clips": [3 or fewer, length] float32, the first of the notes.

    Source: NSynth's evaluation, which takes the centre of each note.
    """
    nats, families, clips = [], [], []
    features = ("audio", "instrument_family")
    with notes.errors(), Progress(notes.num_notes, "notes", "evaluating") as progress:
        for batch in read_notes(notes, features, length, batch_size):
            audio = batch["audio"].numpy()
            if sum(map(len, clips)) < _NUM_SOUNDS:
                clips.append(audio)
            nats.append(evaluator(audio))
            families.append(batch["instrument_family"].numpy().ravel())
            progress.advance(len(audio))
    return {
        "nats": np.concatenate(nats),
        "family": np.concatenate(families),
        "first_clips": np.concatenate(clips)[:_NUM_SOUNDS],
    }


def evaluate(
    checkpoint_path: str,
    source_paths: Sequence[str],
    *,
    use_ema: bool = False,
    hop_length: int | None = None,
    num_stages: int | None = None,
    sample_length: int = 6144,
    batch_size: int = 8,
    filters: NoteFilter | None = None,
    skip_corrupt: bool = False,
) -> int:
    """Prints the mean loss of a checkpoint on TFRecords' notes, per family.

    Args:
      checkpoint_path: in any form that `resolve_checkpoint` takes.
      source_paths: TFRecord files, folders or globs.
      use_ema: the averaged weights.
      hop_length: as in `load_wavenet`.
      num_stages: as in `load_wavenet`.
      sample_length: the centre of each note that is used, in samples; 0 is all of it.
      batch_size: notes side by side.
      filters: which notes.
      skip_corrupt: leaves out damaged notes.

    Returns:
      The exit status, 0.

    Raises:
      InputError: an argument or a file of notes that can't be used.
      CheckpointError: the checkpoint can't be read.
    """
    if batch_size < 1:
        raise InputError(f"--batch_size must be 1 or more, not {batch_size}.")
    num_towers = set_up_towers(batch_size)
    model = WaveNet(checkpoint_path, use_ema, hop_length, num_stages)
    hop = model.config.ae_hop_length
    if sample_length % hop:
        raise InputError(
            f"--sample_length must be a multiple of {hop} samples (a frame) or 0, not "
            f"{sample_length}."
        )
    notes = open_notes(
        source_paths, filters, skip_corrupt, min_samples=sample_length or hop
    )
    if sample_length:
        autoencoder = load_autoencoder(
            checkpoint_path,
            use_ema=use_ema,
            hop_length=hop_length,
            num_stages=num_stages,
        )
        evaluator = Evaluator(autoencoder, num_towers)
        result = evaluate_notes(evaluator, notes, sample_length, batch_size)
    else:
        result = _evaluate_whole_notes(model, notes)
    if notes.num_skipped:
        logging.warning("%d damaged notes are left out.", notes.num_skipped)
    print(table(result["nats"], result["family"]))
    return 0


def _evaluate_whole_notes(model: WaveNet, notes: NoteIndex) -> dict[str, np.ndarray]:
    nats, families = [], []
    features = ("audio", "instrument_family", "file", "record")
    hop = model.config.ae_hop_length
    with notes.errors(), Progress(notes.num_notes, "notes", "evaluating") as progress:
        for note in read_notes(notes, features, batch_size=None):
            audio = note["audio"].numpy()
            if len(audio) < hop:
                raise InputError(
                    f"{note['file'].numpy().decode()}, record "
                    f"{int(note['record'])} (from 0): {len(audio)} samples are less "
                    f"than one frame of {hop}; leave such records out by "
                    "--skip_corrupt."
                )
            nats.append(model.nll(audio[: len(audio) // hop * hop]))
            families.append(int(note["instrument_family"].numpy().ravel()[0]))
            progress.advance()
    return {"nats": np.array(nats), "family": np.array(families)}


def table(nats: np.ndarray, family: np.ndarray) -> str:
    """Lines of family, number of notes, and their mean loss in nats and bits.

    Args:
      nats: [n] nats per sample of each note.
      family: [n] indices of `FAMILIES`; others are shown as unknown.
    """
    names = np.array([*FAMILIES, "unknown"])
    labels = names[np.where((family < 0) | (family >= len(FAMILIES)), -1, family)]
    lines = [f"{'family':<12} {'notes':>7} {'nats':>8} {'bits':>8}"]
    for name in [*(name for name in names if name in labels), "all"]:
        values = nats if name == "all" else nats[labels == name]
        mean = float(values.mean(dtype=np.float64))
        bits = mean / math.log(2)
        lines.append(f"{name:<12} {len(values):>7} {mean:>8.4f} {bits:>8.4f}")
    return "\n".join(lines)
