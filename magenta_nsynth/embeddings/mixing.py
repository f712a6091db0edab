"""The arithmetic of mixing embeddings: means, lines, grids, stretches, crossfades.

NumPy alone. An embedding is [frames, channels], and the baseline's z [rows, 1984] too.
"""

from collections.abc import Sequence

import numpy as np
from absl import logging

from magenta_nsynth.audio.mixing import normalized_weights
from magenta_nsynth.embeddings.arrays import check_encoding
from magenta_nsynth.errors import InputError

__all__ = [
    "METHODS",
    "crossfade",
    "crossfade_weights",
    "grid_weights",
    "line_weights",
    "mix",
    "time_stretch",
]

METHODS = ("linear", "spherical")
STRETCHES = (0.01, 100.0)
# Where slerp has no direction to take it goes over into the linear mix: from these to
# these values of the angle's distance from half a turn, and of the smaller norm over
# the larger.
_OPPOSITE = (0.1, 0.001)
_VANISHING = (0.01, 0.0001)


def mix(
    embeddings: Sequence[np.ndarray],
    weights: Sequence[float] | np.ndarray | None = None,
    method: str = "linear",
) -> np.ndarray:
    """Mixes embeddings frame by frame.

    Embeddings of different lengths are all cut to the shortest: their frames stand for
    the same times, counted from the attack.

    Args:
      embeddings: one or more, [frames, channels] or [1, frames, channels] each.
      weights: a number for each; they are divided by their sum. None is all equal, so
        that the linear mix is the mean. Below 0 they extrapolate: 1.5 and -0.5 go
        half as far again from the second through the first. [count, frames] change
        from frame to frame.
      method: "linear", the weighted sum; or "spherical", which turns each frame along
        the arc from one direction to the other and takes the weighted mean of the
        norms, so that halfway between two frames is no shorter than they are. Of more
        than two, the third is mixed into the mix of the first two, and so on; weights
        have to be 0 or more. Frames near 0, or nearly opposite, have no arc between
        them: there it goes over smoothly into the linear mix.

    Returns:
      float32 [frames, channels].

    Raises:
      InputError: nothing to mix, arrays that are no embeddings or of different numbers
        of channels, NaN, weights that can't be used.
    """
    if method not in METHODS:
        raise InputError(f"method must be {' or '.join(METHODS)}, not {method!r}.")
    frames = _aligned(embeddings)
    shares = normalized_weights(weights, len(frames))
    num_frames = frames[0].shape[0]
    if shares.ndim == 2 and shares.shape[1] < num_frames:
        raise InputError(f"{shares.shape[1]} weights in time, for {num_frames} frames.")
    shares = shares[:, None] if shares.ndim == 1 else shares[:, :num_frames]
    shares = shares[..., None]  # [count, 1 or frames, 1]
    if method == "linear":
        return np.sum(frames * shares, axis=0).astype(np.float32)
    if (shares < 0).any():
        raise InputError(
            "Weights below 0 go beyond the arc that spherical mixes lie on; make them "
            "0 or more, or mix linearly."
        )
    result, so_far = frames[0], shares[0]
    for frame, share in zip(frames[1:], shares[1:], strict=True):
        so_far = so_far + share
        # Nothing so far, and nothing of this one: any part of it will do.
        part = np.divide(share, so_far, out=np.zeros_like(share), where=so_far > 0)
        result = _slerp(result, frame, part)
    return result.astype(np.float32)


def _aligned(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """All as float64 [count, frames, channels], of the shortest's frames."""
    if not len(embeddings):
        raise InputError("There are no embeddings to mix.")
    values = [
        check_encoding(z, None, f"embedding {i}") for i, z in enumerate(embeddings)
    ]
    for i, z in enumerate(values):
        if z.shape[1] != values[0].shape[1]:
            raise InputError(
                f"embedding {i} has {z.shape[1]} channels and embedding 0 has "
                f"{values[0].shape[1]}; mix embeddings of one model."
            )
    lengths = [len(z) for z in values]
    num_frames = min(lengths)
    if num_frames < max(lengths):
        logging.info(
            "Embeddings of %s frames are cut to the shortest, %d.",
            *(", ".join(map(str, lengths)), num_frames),
        )
    return np.stack([z[:num_frames] for z in values]).astype(np.float64)


def _slerp(first: np.ndarray, second: np.ndarray, part: np.ndarray) -> np.ndarray:
    """From `first` (part 0) to `second` (1), [frames, channels] each, along arcs."""
    tiny = np.finfo(np.float64).tiny
    norms = [np.linalg.norm(z, axis=1, keepdims=True) for z in (first, second)]
    one, other = (
        z / np.maximum(norm, tiny)
        for z, norm in zip((first, second), norms, strict=True)
    )
    # Not the arc cosine, which is blind at small angles.
    angle = 2 * np.arctan2(
        np.linalg.norm(one - other, axis=1, keepdims=True),
        np.linalg.norm(one + other, axis=1, keepdims=True),
    )
    # sin(p a) / sin(a), as quotients that hold at an angle of 0 too.
    whole = np.maximum(np.sinc(angle / np.pi), 1e-12)
    direction = sum(
        p * np.sinc(p * angle / np.pi) / whole * unit
        for p, unit in ((1 - part, one), (part, other))
    )
    arc = direction * ((1 - part) * norms[0] + part * norms[1])
    line = (1 - part) * first + part * second
    ratio = np.minimum(*norms) / np.maximum(np.maximum(*norms), tiny)
    straight = np.maximum(_fade(np.pi - angle, _OPPOSITE), _fade(ratio, _VANISHING))
    return arc * (1 - straight) + line * straight


def _fade(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """0 at the first limit and beyond, 1 at the second, smooth between."""
    x = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    return x * x * (3 - 2 * x)


def time_stretch(embedding: np.ndarray, factor: float) -> np.ndarray:
    """Makes an embedding longer or shorter, by linear interpolation between frames.

    Args:
      embedding: [frames, channels].
      factor: 2 is twice as long, 0.5 half; 0.01 to 100.

    Returns:
      float32 [round(frames * factor), channels], from the same first frame to the same
      last one.

    Raises:
      InputError: another factor, one that leaves no frame, or no embedding.
    """
    values = check_encoding(embedding, None, "the embedding")
    low, high = STRETCHES
    if not (np.isscalar(factor) and low <= factor <= high):
        raise InputError(f"A stretch has to be {low:g} to {high:g}, not {factor}.")
    count = round(len(values) * factor)
    if count < 1:
        raise InputError(
            f"A stretch by {factor:g} leaves no frame of {len(values)}; take a larger "
            "factor."
        )
    where = np.linspace(0, len(values) - 1, count)
    before = np.minimum(where.astype(int), max(len(values) - 2, 0))
    after = np.minimum(before + 1, len(values) - 1)
    part = (where - before)[:, None]
    return ((1 - part) * values[before] + part * values[after]).astype(np.float32)


def crossfade(
    first: np.ndarray,
    second: np.ndarray,
    start: float = 0.0,
    end: float = 1.0,
    method: str = "linear",
) -> np.ndarray:
    """Goes from one embedding to another over time.

    Args:
      first: [frames, channels].
      second: likewise; the longer of the two is cut to the other's length.
      start: where the second one begins to come in, as a part of that length.
      end: where nothing is left of the first; at `start` it is a cut.
      method: as in `mix`.

    Returns:
      float32 [frames, channels].

    Raises:
      InputError: as in `mix`; or not 0 <= start <= end <= 1.
    """
    num_frames = min(np.shape(np.atleast_2d(z))[-2] for z in (first, second))
    return mix([first, second], crossfade_weights(num_frames, start, end), method)


def crossfade_weights(
    num_frames: int, start: float = 0.0, end: float = 1.0
) -> np.ndarray:
    """The weights of the first and the second in a crossfade: float64 [2, frames]."""
    if not 0 <= start <= end <= 1:
        raise InputError(
            "A crossfade goes from a start to an end between 0 and 1, parts of the "
            f"length, not from {start} to {end}."
        )
    time = np.linspace(0, 1, num_frames)
    if start == end:
        second = (time >= start).astype(np.float64)
    else:
        second = np.clip((time - start) / (end - start), 0, 1)
    return np.stack([1 - second, second])


def line_weights(steps: int) -> np.ndarray:
    """Weights of two sounds on the line between them: float64 [steps, 2].

    Args:
      steps: how many, evenly from the first sound to the second, both included; 1 is
        halfway.
    """
    _check_count("steps", steps)
    second = np.linspace(0, 1, steps) if steps > 1 else np.array([0.5])
    return np.stack([1 - second, second], axis=1)


def grid_weights(rows: int, columns: int, corners: int = 4) -> np.ndarray:
    """Bilinear weights of 2 to 4 sounds in a grid: float64 [rows, columns, corners].

    The first sound is in the top left corner, the second in the top right, the third
    in the bottom left, the fourth in the bottom right. Of three, the bottom right
    corner is the mean of its neighbours, the second and third, so that the bottom and
    right edges are mixes as well. Of two, the first is on the left and the second on
    the right edge of every row; a single column goes from the first at its top to
    the second at its bottom. A grid of one column or row otherwise lies in the middle
    of what it has no room for, and 1 x 1 is the mean of all.

    Args:
      rows: of the grid.
      columns: of the grid.
      corners: 2 to 4.
    """
    _check_count("rows", rows)
    _check_count("columns", columns)
    if corners not in (2, 3, 4):
        raise InputError(f"A grid has 2 to 4 corners, not {corners}.")
    x = line_weights(columns)  # [columns, (left, right)]
    y = line_weights(rows)  # [rows, (top, bottom)]
    if corners == 2:
        line = x[None].repeat(rows, 0) if columns > 1 or rows == 1 else y[:, None]
        return line.copy()
    grid = (y[:, None, :, None] * x[None, :, None, :]).reshape(rows, columns, 4)
    if corners == 3:
        grid[..., 1:3] += grid[..., 3:] / 2
    return grid[..., :corners]


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a whole number above 0, not {value!r}.")
