"""SFZ files, which samplers read: one for each grid point, and one for the grid."""

import itertools
from collections.abc import Mapping, Sequence

from magenta_nsynth.commands.instrument_finish import Sample
from magenta_nsynth.commands.instrument_plan import Plan, Point
from magenta_nsynth.formatting import one_line, readable

__all__ = ["ACROSS", "DOWN", "key_ranges", "sfz_files"]

ACROSS, DOWN = 1, 74  # the MIDI controllers: modulation wheel, and "brightness"
_HIGHEST = 127
_RELEASE = 0.3  # seconds
_GRID = "grid"


def key_ranges(pitches: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The lowest and the highest key that each sampled pitch is played on.

    Every key has the nearest pitch, the higher one of two that are as near.

    Args:
      pitches: ascending MIDI numbers.

    Examples:
      >>> from magenta_nsynth.commands.instrument_sfz import key_ranges
      >>> key_ranges([48, 60])
      {48: (0, 53), 60: (54, 127)}
    """
    bounds = [(low + high + 1) // 2 for low, high in itertools.pairwise(pitches)]
    starts = [0, *bounds]
    ends = [*(bound - 1 for bound in bounds), _HIGHEST]
    return dict(zip(pitches, zip(starts, ends, strict=True), strict=True))


def sfz_files(plan: Plan, samples: Mapping[str, Sample]) -> dict[str, str]:
    """The texts of all SFZ files, by their paths from the instrument's folder.

    Args:
      plan: the instrument.
      samples: by the keys of the sounds.
    """
    ranges = key_ranges(plan.pitches)
    files = {}
    for point, sounds in plan.places.items():
        regions = [
            _region(samples[sounds[pitch].key], ranges[pitch]) for pitch in plan.pitches
        ]
        head = [f"// {_mix(plan, point)}", *_global()]
        files[f"sfz/{point.name}.sfz"] = _text([*head, *regions])
    if len(plan.places) > 1:
        files[f"sfz/{_GRID}.sfz"] = _grid(plan, samples, ranges)
    return files


def _grid(
    plan: Plan,
    samples: Mapping[str, Sample],
    ranges: Mapping[int, tuple[int, int]],
) -> str:
    """All points in one file: two controllers fade between them."""
    rows = sorted({point.row for point in plan.places})
    columns = sorted({point.column for point in plan.places})
    lines = [
        f"// {' x '.join(map(_shown, plan.names))}",
        f"// Controller {ACROSS} goes from left to right, {DOWN} from top to bottom.",
        "<control>",
        f"label_cc{ACROSS}=Left to right",
        f"label_cc{DOWN}=Top to bottom",
        f"set_cc{ACROSS}=0",
        f"set_cc{DOWN}=0",
        *_global(),
    ]
    for point, sounds in plan.places.items():
        fades = [
            *_fades(ACROSS, columns, point.column),
            *_fades(DOWN, rows, point.row),
        ]
        lines += [f"<group> // {_mix(plan, point)}", " ".join(fades)]
        lines += [
            _region(samples[sounds[pitch].key], ranges[pitch]) for pitch in plan.pitches
        ]
    return _text([line for line in lines if line])


def _fades(controller: int, places: Sequence[int], place: int) -> list[str]:
    """The opcodes that let one of several places sound near its controller value."""
    number, last = places.index(place), len(places) - 1
    if not last:
        return []
    values = [round(_HIGHEST * i / last) for i in range(last + 1)]
    here, fades = values[number], []
    if number > 0:
        fades += [
            f"xfin_locc{controller}={values[number - 1]}",
            f"xfin_hicc{controller}={here}",
        ]
    if number < last:
        fades += [
            f"xfout_locc{controller}={here}",
            f"xfout_hicc{controller}={values[number + 1]}",
        ]
    return fades


def _global() -> list[str]:
    # The power of two sounds that fade into each other stays the same.
    return ["<global>", f"ampeg_release={_RELEASE} xf_cccurve=power"]


def _region(sample: Sample, keys: tuple[int, int]) -> str:
    words = [
        f"<region> sample=../{sample.file}",
        f"lokey={keys[0]} hikey={keys[1]} pitch_keycenter={sample.sound.pitch}",
    ]
    if sample.tune:
        words.append(f"tune={round(sample.tune)}")
    if sample.loop is None:
        words.append("loop_mode=no_loop")
    else:
        start, end = sample.loop
        words.append(f"loop_mode=loop_continuous loop_start={start} loop_end={end - 1}")
    return " ".join(words)


def _mix(plan: Plan, point: Point) -> str:
    """What a point consists of, such as "50 % flute, 50 % cello"."""
    weights = plan.weights[point.row, point.column]
    return ", ".join(
        f"{round(100 * weight)} % {_shown(name)}"
        for name, weight in zip(plan.names, weights, strict=True)
        if weight > 0
    )


def _shown(name: str) -> str:
    """A name that can stand in a comment of one line."""
    return one_line(readable(name))


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
