#!/usr/bin/env python3
"""Draws a map of exported embeddings: a point per note, a colour per family.

    nsynth_export_embeddings --source_path=nsynth-test --save_path=exported ...
    python examples/embedding_map.py exported map.png

A note's position is the mean of its rows, projected onto the two axes along which notes
vary most (principal components). Notes without a family, as those of sound files, have
the first word of their names as one. Up to 60 notes have their names beside them.
"""

import argparse
import re
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

import magenta_nsynth as nsynth

MOST_NAMED = 60  # more names would hide each other
MOST_COLOURS = 19  # of families; the others share one


def group_of(note_str: str, family: str) -> str:
    """The family, or the first word of a name: "flute" of "flute_060"."""
    word = re.match(r"[^\W\d_]+", note_str)
    return family or (word[0].lower() if word else "unknown")


def project(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projects rows onto the two axes along which they vary most.

    Args:
      means: [n, channels] of 3 notes or more.

    Returns:
      Positions [n, 2], and the two axes' shares of the variance.
    """
    centred = means - means.mean(axis=0)
    _, scales, axes = np.linalg.svd(centred, full_matrices=False)
    shares = scales**2 / max(float(np.sum(scales**2)), np.finfo(np.float32).tiny)
    return centred @ axes[:2].T, shares[:2]


def draw(
    names: Sequence[str], groups: Sequence[str], means: np.ndarray, picture: str
) -> None:
    """Writes the map.

    Args:
      names: of the notes.
      groups: the group of each note.
      means: [n, channels], the mean row of each note.
      picture: the file to write.
    """
    positions, shares = project(means)
    kinds, counts = np.unique(groups, return_counts=True)
    kinds = kinds[np.argsort(-counts, kind="stable")]
    numbers = {kind: min(i, MOST_COLOURS) for i, kind in enumerate(kinds)}
    colours = np.array([numbers[group] for group in groups])
    named = len(names) <= MOST_NAMED
    figure, plot = plt.subplots(figsize=(9, 7), layout="constrained")
    for number in np.unique(colours):
        label = kinds[number] if number < MOST_COLOURS else "others"
        x, y = positions[colours == number].T
        colour = plt.get_cmap("tab20")(number)
        plot.scatter(x, y, s=40 if named else 8, color=colour, label=label)
    if named:
        middle = (positions[:, 0].min() + positions[:, 0].max()) / 2
        for name, position in zip(names, positions, strict=True):
            on_left = position[0] > middle  # so that no name leaves the picture
            plot.annotate(
                name, position, xytext=(-5 if on_left else 5, 3), size=8,
                textcoords="offset points", ha="right" if on_left else "left",
            )  # fmt: skip
    plot.margins(0.1)
    plot.legend(
        title="Family", markerscale=1 if named else 2, loc="center left",
        bbox_to_anchor=(1, 0.5),
    )  # fmt: skip
    plot.set_xlabel(f"First principal component ({shares[0]:.0%} of the variance)")
    plot.set_ylabel(f"Second principal component ({shares[1]:.0%})")
    plot.set_title(f"Mean embeddings of {len(names)} notes")
    figure.savefig(picture, dpi=150)


def main() -> None:
    """Parses the arguments, reads the export and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="the --save_path of nsynth_export_embeddings")
    parser.add_argument("picture", help="the picture to write, such as map.png")
    arguments = parser.parse_args()

    try:
        embeddings = nsynth.open_embeddings(arguments.folder)
        notes = [(note.note_str, note.instrument_family) for note in embeddings]
        means = embeddings.means()
    except nsynth.NSynthError as error:
        raise SystemExit(str(error)) from None
    if len(notes) < 3:
        raise SystemExit(f"{arguments.folder}: a map needs at least three notes.")
    names = [name for name, _ in notes]
    groups = [group_of(*note) for note in notes]
    try:
        draw(names, groups, means, arguments.picture)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{arguments.picture}: can't be written ({error}).") from None


if __name__ == "__main__":
    main()
