"""Interpolation between embeddings: means, lines, grids, crossfades, time stretches.

NumPy alone. An embedding is [frames, channels]; the baseline's z, [rows, 1984], is
mixed in the same way.
"""

from collections.abc import Sequence

import numpy as np
from absl import logging

from magenta_nsynth.audio.loudness import normalized_weights
from magenta_nsynth.embeddings.embedding import check_encoding
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
_STRETCHES = (0.01, 100.0)
# Where slerp has no direction to follow, it blends into the linear mix: between these
# values of the angle's distance from half a turn, and of the smaller norm divided by
# the larger one.
_OPPOSITE = (0.1, 0.001)
_VANISHING = (0.01, 0.0001)


def mix(
    embeddings: Sequence[np.ndarray],
    weights: Sequence[float] | np.ndarray | None = None,
    method: str = "linear",
) -> np.ndarray:
    """Mixes embeddings frame by frame.

    Embeddings of different lengths are cut to the shortest one. Frames with the same
    number stand for the same time after the start of the sound.

    Args:
      embeddings: one or more, each [frames, channels] or [1, frames, channels].
      weights: one number per embedding; they are divided by their sum. None weights
        all equally, so the linear mix is the mean. Weights below 0 extrapolate: 1.5
        and -0.5 go past the first embedding, away from the second, by half the
        distance between them. Weights of shape [count, frames] change over time.
      method: "linear" is the weighted sum. "spherical" rotates each frame along the
        arc from one direction to the other, and takes the weighted mean of the norms,
        so that a mix of two frames is not shorter than they are. With more than two
        embeddings, the third is mixed into the mix of the first two, and so on; the
        weights have to be 0 or more. Frames near 0, or nearly opposite to each other,
        have no arc between them: there the result changes smoothly into the linear
        mix.

    Returns:
      float32 [frames, channels].

    Raises:
      InputError: no embeddings, wrong shapes, different numbers of channels, NaN, or
        weights that can't be used.

    Examples:
      >>> mix([np.zeros([2, 1]), np.ones([2, 1])], weights=[3, 1])
      array([[0.25],
             [0.25]], dtype=float32)
    """
    if method not in METHODS:
        raise InputError(f"method must be {' or '.join(METHODS)}, not {method!r}.")
    frames = _aligned(embeddings)
    shares = normalized_weights(weights, len(frames))
    num_frames = frames[0].shape[0]
    if shares.ndim == 2 and shares.shape[1] < num_frames:
        raise InputError(
            f"The weights are for {shares.shape[1]} frames, and the embeddings have "
            f"{num_frames}."
        )
    shares = shares[:, None] if shares.ndim == 1 else shares[:, :num_frames]
    shares = shares[..., None]  # [count, 1 or frames, 1]
    if method == "linear":
        return np.sum(frames * shares, axis=0).astype(np.float32)
    if (shares < 0).any():
        raise InputError(
            "A spherical mix lies on an arc, and weights below 0 are not on it; use "
            "weights of 0 or more, or the linear method."
        )
    result, so_far = frames[0], shares[0]
    for frame, share in zip(frames[1:], shares[1:], strict=True):
        so_far = so_far + share
        # If all weights up to here are 0, the part does not matter.
        part = np.divide(share, so_far, out=np.zeros_like(share), where=so_far > 0)
        result = _slerp(result, frame, part)
    return result.astype(np.float32)


def _aligned(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """All embeddings, cut to the shortest: float64 [count, frames, channels]."""
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
    """Spherical interpolation of each frame.

    Args:
      first: float64 [frames, channels].
      second: float64 [frames, channels].
      part: how far to go from `first` (0) to `second` (1): [1 or frames, 1].
    """
    tiny = np.finfo(np.float64).tiny
    norms = [np.linalg.norm(z, axis=1, keepdims=True) for z in (first, second)]
    one, other = (
        z / np.maximum(norm, tiny)
        for z, norm in zip((first, second), norms, strict=True)
    )
    # The arc cosine is inaccurate at small angles.
    angle = 2 * np.arctan2(
        np.linalg.norm(one - other, axis=1, keepdims=True),
        np.linalg.norm(one + other, axis=1, keepdims=True),
    )
    # sin(p a) / sin(a), written so that it is defined at an angle of 0 too.
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
    """Changes smoothly from 0 at the first limit to 1 at the second."""
    x = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    return x * x * (3 - 2 * x)


def time_stretch(embedding: np.ndarray, factor: float) -> np.ndarray:
    """Makes an embedding longer or shorter, by linear interpolation between frames.

    Args:
      embedding: [frames, channels].
      factor: 0.01 to 100. 2 doubles the length and 0.5 halves it.

    Returns:
      float32 [round(frames * factor), channels]. The first and the last frame stay
      the same.

    Raises:
      InputError: a factor out of range, or so small that no frame is left; or not an
        embedding.

    Examples:
      >>> time_stretch(np.array([[0.0], [3.0]]), 2)
      array([[0.],
             [1.],
             [2.],
             [3.]], dtype=float32)
    """
    values = check_encoding(embedding, None, "the embedding")
    low, high = _STRETCHES
    if not (np.isscalar(factor) and low <= factor <= high):
        raise InputError(f"The stretch must be {low:g} to {high:g}, not {factor}.")
    count = round(len(values) * factor)
    if count < 1:
        raise InputError(
            f"A stretch of {factor:g} leaves no frame of {len(values)}; use a larger "
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
      second: [frames, channels]; the longer one is cut to the length of the other.
      start: where the second begins to fade in, as a fraction of that length.
      end: where the first has faded out. If it equals `start`, the result is a cut.
      method: as in `mix`.

    Returns:
      float32 [frames, channels].

    Raises:
      InputError: not 0 <= start <= end <= 1, or as in `mix`.

    Examples:
      >>> crossfade(np.zeros([3, 1]), np.ones([3, 1]))
      array([[0. ],
             [0.5],
             [1. ]], dtype=float32)
    """
    num_frames = min(np.shape(np.atleast_2d(z))[-2] for z in (first, second))
    return mix([first, second], crossfade_weights(num_frames, start, end), method)


def crossfade_weights(
    num_frames: int, start: float = 0.0, end: float = 1.0
) -> np.ndarray:
    """The weights of the two sounds of a crossfade: float64 [2, frames].

    Args:
      num_frames: frames, or samples, of the crossfade.
      start: as in `crossfade`.
      end: as in `crossfade`.

    Raises:
      InputError: not 0 <= start <= end <= 1.
    """
    if not 0 <= start <= end <= 1:
        raise InputError(
            "The start and the end of a crossfade are fractions of the length, with "
            f"0 <= start <= end <= 1, not {start} and {end}."
        )
    time = np.linspace(0, 1, num_frames)
    if start == end:
        second = (time >= start).astype(np.float64)
    else:
        second = np.clip((time - start) / (end - start), 0, 1)
    return np.stack([1 - second, second])


def line_weights(steps: int) -> np.ndarray:
    """Weights for evenly spaced mixes on the line between two sounds.

    Args:
      steps: how many mixes, including the two sounds themselves; 1 is halfway.

    Returns:
      float64 [steps, 2].

    Raises:
      InputError: `steps` is not a whole number above 0.

    Examples:
      >>> line_weights(3)
      array([[1. , 0. ],
             [0.5, 0.5],
             [0. , 1. ]])
    """
    _check_count("steps", steps)
    second = np.linspace(0, 1, steps) if steps > 1 else np.array([0.5])
    return np.stack([1 - second, second], axis=1)


def grid_weights(rows: int, columns: int, corners: int = 4) -> np.ndarray:
    """Bilinear weights of a grid with 2 to 4 sounds in its corners.

    The first sound is in the top left corner, the second in the top right, the third
    in the bottom left and the fourth in the bottom right. With three sounds, the
    bottom right corner is the mean of the second and the third. With two, the first is
    the left edge and the second the right edge; in a single column, they are its top
    and its bottom. Otherwise a single row or column lies in the middle of the grid,
    and 1 x 1 is the mean of all sounds.

    Args:
      rows: 1 or more.
      columns: 1 or more.
      corners: how many sounds there are, 2 to 4.

    Returns:
      float64 [rows, columns, corners].

    Raises:
      InputError: an argument out of range.

    Examples:
      >>> grid_weights(2, 2, corners=3)[1]
      array([[0. , 0. , 1. ],
             [0. , 0.5, 0.5]])
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
