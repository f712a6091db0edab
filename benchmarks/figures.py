#!/usr/bin/env python3
"""Prints all figures of the documentation, from one run on this machine.

    python benchmarks/figures.py

A line per task: what ours takes by the clock, of processor time and in page faults, and
how many times as long the other takes. On a machine with other work the ratios of
processor time say most. Whatever is compared takes turns. --quick measures less: some
minutes in place of an hour. On a machine with a GPU the same lines say what it does.

Generation's lines are of one step, a sample of each of 1, 8 or 32 sounds, in float32
and with weights of 8 bits.
"""

import argparse
import importlib
import os
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import export
import generation
import reading
import training
from measuring import Figure, Usage, machine, table


def generation_figures(quick: bool) -> Iterator[Figure]:
    """Yields the steps of generation, each against the original's."""
    for batch_size in (1, 8, 32):
        rows, _ = generation.measure(batch_size, *((2, 8) if quick else ()))
        for row in rows[1:]:
            usage = Usage(row.milliseconds / 1e3, row.processor / 1e3, row.page_faults)
            yield Figure(
                f"a step of {batch_size} sounds, {row.name}",
                usage,
                "the original's way",
                row.ratio,
                row.processor_ratio,
            )


def spectral_figures(quick: bool) -> Iterator[Figure]:
    """Yields the transforms, each against librosa's; nothing without librosa."""
    try:
        spectral = importlib.import_module("spectral")
    except ModuleNotFoundError as error:
        if error.name != "librosa":
            raise
        print("(pip install librosa==0.10.2 to compare spectra with its.)")
        return
    yield from spectral.figures(spectral.Size(rounds=1 if quick else 3))


def figures(quick: bool, before: str) -> Iterator[Figure]:
    """Yields all figures.

    Args:
      quick: measures less.
      before: as for `export.figures`.
    """
    size = export.Size(4, 4, 1) if quick else export.Size()
    yield from export.figures(size, before)
    yield from generation_figures(quick)
    few_steps = training.Size(steps=2, turns=1)
    yield from training.figures(few_steps if quick else training.Size())
    yield from spectral_figures(quick)
    few = reading.Size(notes=200, files=2, rounds=2)
    yield from reading.figures(few if quick else reading.Size())


def main() -> None:
    """Parses the options and prints the machine and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="measure less")
    parser.add_argument("--before", default="", help="a clone of another version")
    options = parser.parse_args()
    print(machine(), end="\n\n")
    for line in table(figures(options.quick, options.before)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
