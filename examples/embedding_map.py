#!/usr/bin/env python3
"""Draws a map of exported embeddings: a point per note, a colour per family.

    nsynth_export_embeddings --source_path=nsynth-test --save_path=exported ...
    python examples/embedding_map.py exported map.png

A note's position is the mean of its rows, projected onto the two axes along which notes
vary most.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

from magenta_nsynth.embeddings.exported import open_embeddings
from magenta_nsynth.errors import NSynthError


def main() -> None:
    """Parses the arguments, reads the export and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="the --save_path of nsynth_export_embeddings")
    parser.add_argument("picture", help="the picture to write, such as map.png")
    arguments = parser.parse_args()

    try:
        notes = open_embeddings(arguments.folder)
        means = notes.means()
        families = np.array([note.instrument_family or "unknown" for note in notes])
    except NSynthError as error:
        raise SystemExit(str(error)) from None
    if len(notes) < 3:
        raise SystemExit(f"{arguments.folder}: a map needs at least three notes.")
    centred = means - means.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    x, y = (centred @ axes[:2].T).T

    figure, plot = plt.subplots(figsize=(8, 8))
    colours = plt.get_cmap("tab20")
    for i, family in enumerate(np.unique(families)):
        chosen = families == family
        plot.scatter(x[chosen], y[chosen], s=8, color=colours(i), label=family)
    plot.legend(markerscale=2)
    plot.set_title(f"{len(notes)} notes by family")
    figure.savefig(arguments.picture, dpi=150)


if __name__ == "__main__":
    main()
