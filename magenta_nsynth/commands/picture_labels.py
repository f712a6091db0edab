"""What pictures are called: titles and labels in a figure, captions on a page."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from magenta_nsynth.formatting import counted
from magenta_nsynth.plotting.options import Look

__all__ = ["labelled", "labelled_alone", "listed"]

_PAIR = ("Original", "Reconstruction")
_MOST_NAMED = 4  # in a heading


class Labelled(NamedTuple):
    """A figure and a page, labelled.

    Attributes:
      look: of the figure.
      captions: of the pictures on the page.
      heading: of the page.
    """

    look: Look
    captions: list[str]
    heading: str


def labelled(
    look: Look,
    names: Sequence[str],
    columns: int,
    per_subject: int,
    with_names: bool | None,
) -> Labelled:
    """Labels pairs, and names what nothing else identifies.

    Args:
      look: what the user gave, which is kept.
      names: of the pictures, row by row.
      columns: of the grid.
      per_subject: 2 if reconstructions stand beside their originals, else 1.
      with_names: whether names stand above the pictures; None if nothing else
        identifies them.
    """
    common, titles = "", bare_names(names)
    if not look.title:  # which is shown where the common start would be
        common, titles = split_start(titles)
    captions = _captions(look, titles, columns, per_subject)
    heading = look.title or _heading(common, titles)
    named = _named(look, titles, columns, per_subject, with_names)
    if common and (named.titles, named.row_labels) != (look.titles, look.row_labels):
        named = dataclasses.replace(named, title=common)
    return Labelled(named, captions, heading)


def _named(
    look: Look,
    titles: list[str],
    columns: int,
    per_subject: int,
    with_names: bool | None,
) -> Look:
    has_labels = bool(look.row_labels or look.column_labels)
    if per_subject == 2 and not look.column_labels:
        look = dataclasses.replace(look, column_labels=_PAIR * (columns // 2))
    if look.titles or with_names is False:
        return look
    if with_names is None:
        if per_subject == 2 and columns == 2 and not look.row_labels:
            return dataclasses.replace(look, row_labels=titles[::2])
        if has_labels:
            return look
    return dataclasses.replace(look, titles=titles)


def labelled_alone(
    look: Look, name: str, per_subject: int, with_names: bool | None
) -> Look:
    """The look of a figure of one sound, or of a sound and its reconstruction.

    Args:
      look: without labels.
      name: of the sound.
      per_subject: as for `labelled`.
      with_names: as for `labelled`.
    """
    [name] = bare_names([name])
    if per_subject == 1:
        titles = () if with_names is False else (name,)
        return dataclasses.replace(look, titles=titles)
    title = "" if with_names is False else name
    return dataclasses.replace(look, title=title, column_labels=_PAIR)


def _captions(
    look: Look, names: Sequence[str], columns: int, per_subject: int
) -> list[str]:
    """What a page calls each panel: its title and labels in the figure."""
    captions = list(look.titles or names)
    if per_subject == 2 and not look.titles:
        captions = [f"{name}: {_PAIR[i % 2].lower()}" for i, name in enumerate(names)]
    for labels, number in ((look.row_labels, 0), (look.column_labels, 1)):
        if labels:
            captions = [
                f"{caption} - {labels[divmod(i, columns)[number]]}"
                for i, caption in enumerate(captions)
            ]
    return captions


def _heading(common: str, names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return f"{common}: {counted(len(names), 'sound')}" if common else listed(names)


def listed(names: Sequence[str]) -> str:
    """Some names in words, such as "flute, organ and 4 more"."""
    if len(names) > _MOST_NAMED:
        names = [*names[:2], f"{len(names) - 2} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def bare_names(names: Sequence[str]) -> list[str]:
    """Names without "gen_" and "_embeddings", where they remain different."""
    bare = [re.sub(r"^gen_(?=.)|(?<=.)_embeddings$", "", name) for name in names]
    return list(names) if len(set(bare)) < len(set(names)) else bare


def split_start(names: Sequence[str]) -> tuple[str, list[str]]:
    """Splits names into what all start with and the rest, so that they fit.

    Returns:
      The words that all names start with, and the names without them: "a+b" and
      ["r0c0", "r0c1"] of ["a+b_r0c0", "a+b_r0c1"]. "" and the names if there are none.
    """
    words = [re.findall(r"[^-_ ]*[-_ ]*", name) for name in names]
    together = zip(*words, strict=False)  # as far as the shortest name goes
    equal = itertools.takewhile(lambda same: len(set(same)) == 1, together)
    start = "".join(word for word, *_ in equal)
    rest = [name[len(start) :] for name in names]
    return (start.rstrip("-_ "), rest) if start and all(rest) else ("", list(names))
