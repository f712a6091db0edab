"""Interpolation and loudness against closed forms: means, arcs, lines, corners."""

import subprocess
import sys

import numpy as np
import pytest

import magenta_nsynth as nsynth
from magenta_nsynth.audio.loudness import loudness_scale, normalized_weights, rms
from magenta_nsynth.embeddings.interpolation import crossfade_weights
from magenta_nsynth.errors import InputError


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    return [rng.normal(size=[n, 16]).astype(np.float32) for n in (125, 125, 125, 125)]


def angle(a, b):
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.arccos(np.clip(cosine, -1, 1))


def test_it_is_imported_without_tensorflow():
    code = "import sys, magenta_nsynth as n; n.mix, n.sum_signals, n.match_loudness; "
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("equal", [None, 1.0, 0.3])
def test_equal_weights_are_the_mean(embeddings, count, equal):
    weights = None if equal is None else [equal] * count
    mean = np.mean(np.asarray(embeddings[:count], np.float64), axis=0)
    result = nsynth.mix(embeddings[:count], weights)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, mean, rtol=1e-7, atol=1e-9)
    if count == 2:
        np.testing.assert_array_equal(result, (embeddings[0] + embeddings[1]) / 2)


def test_weights_are_divided_by_their_sum(embeddings):
    a, b, c, _ = embeddings
    wanted = 0.5 * a + 0.125 * b + 0.375 * c
    for weights in ([4, 1, 3], [-4, -1, -3], [0.5, 0.125, 0.375]):
        np.testing.assert_allclose(nsynth.mix([a, b, c], weights), wanted, atol=1e-6)
    beyond = nsynth.mix([a, b], [1.5, -0.5])
    np.testing.assert_allclose(beyond, a + (a - b) / 2, atol=1e-6)


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_the_ends_are_the_sources_to_the_bit(embeddings, method):
    for i in range(3):
        weights = np.eye(3)[i]
        result = nsynth.mix(embeddings[:3], weights, method)
        np.testing.assert_array_equal(result, embeddings[i])


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_all_are_cut_to_the_shortest(embeddings, method, caplog):
    a, b = embeddings[0], embeddings[1][:3]
    with caplog.at_level("INFO", logger="absl"):
        result = nsynth.mix([a, b], [1, 2], method)
    assert "125, 3 frames are cut to the shortest, 3" in caplog.text
    np.testing.assert_array_equal(result, nsynth.mix([a[:3], b], [1, 2], method))
    one_clip = nsynth.mix([a[None], b], [1, 2], method)
    np.testing.assert_array_equal(one_clip, result)


def test_spherical_turns_evenly_and_keeps_the_norm(embeddings):
    a, b = embeddings[0].astype(np.float64), 3 * embeddings[1].astype(np.float64)
    whole = angle(a, b)
    for part in (0.2, 0.5, 0.9):
        m = nsynth.mix([a, b], [1 - part, part], "spherical")
        norms = [np.linalg.norm(z, axis=1) for z in (a, b, m)]
        np.testing.assert_allclose(
            norms[2], (1 - part) * norms[0] + part * norms[1], rtol=1e-6
        )
        np.testing.assert_allclose(angle(a, m), part * whole, atol=1e-5)
        np.testing.assert_allclose(angle(m, b), (1 - part) * whole, atol=1e-5)


def test_spherical_in_closed_form():
    x, y, z = np.eye(3, dtype=np.float32)[:, None]
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        nsynth.mix([x, 3 * y], method="spherical"), [[2 * half, 2 * half, 0]], rtol=1e-6
    )
    third = nsynth.mix([x, y], [2, 1], "spherical")
    np.testing.assert_allclose(third, [[np.sqrt(0.75), 0.5, 0]], atol=1e-7)
    # Three on an octant: a third of the way from the middle of two to the last.
    middle = nsynth.mix([x, y, z], method="spherical")
    a = np.pi / 6
    np.testing.assert_allclose(
        middle, [[half * np.cos(a), half * np.cos(a), np.sin(a)]], atol=1e-6
    )
    # With a weight of 0, the arc between the other two is left.
    for weights in ([0, 2, 1], [2, 0, 1], [2, 1, 0]):
        pair = [v for v, w in zip((x, y, z), weights, strict=True) if w]
        np.testing.assert_allclose(
            nsynth.mix([x, y, z], weights, "spherical"),
            nsynth.mix(pair, [2, 1], "spherical"),
            atol=1e-7,
        )


def test_spherical_of_one_direction_is_linear():
    a = np.array([[1.0, 2.0, -1.0], [3.0, 0.0, 4.0]])
    for other in (2 * a, a * (1 + 1e-9), a):
        weights = [0.3, 0.7]
        np.testing.assert_allclose(
            nsynth.mix([a, other], weights, "spherical"),
            nsynth.mix([a, other], weights),
            rtol=1e-6,
        )


def test_spherical_of_nothing_and_of_opposites():
    a = np.array([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    b = np.array([[0.0, 0.0], [0.0, 0.0], [2.0, -4.0], [-3.0, 0.0]])
    for part in (0.25, 0.5):
        result = nsynth.mix([a, b], [1 - part, part], "spherical")
        np.testing.assert_allclose(result, (1 - part) * a + part * b, atol=1e-6)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.7])
def test_spherical_has_no_jumps(part):
    """The path goes through the opposite direction, and through 0, in small steps."""
    turns = np.pi + np.linspace(-0.3, 0.3, 20_001)
    paths = [np.stack([np.cos(turns), np.sin(turns)], axis=1)]
    small = np.linspace(-0.05, 0.05, 20_001)[:, None]
    paths.append(small * np.array([[0.6, 0.8]]))
    for path in paths:
        fixed = np.broadcast_to([[1.0, 0.0]], path.shape)
        result = nsynth.mix([fixed, path], [1 - part, part], "spherical")
        assert np.isfinite(result).all()
        steps = np.abs(np.diff(result, axis=0)).max()
        assert steps < 200 * np.abs(np.diff(path, axis=0)).max()


def bad(array, where, value):
    array = array.copy()
    array[where] = value
    return array


@pytest.mark.parametrize(
    ("embeddings", "weights", "method", "words"),
    [
        ([], None, "linear", "no embeddings"),
        ([np.ones([3, 16]), np.ones([3, 15])], None, "linear", "embedding 1 has 15"),
        ([np.ones([3, 16]), bad(np.ones([3, 16]), (1, 2), np.nan)], None, "linear",
         "embedding 1: contains"),
        ([np.ones([3, 16]), np.ones([0, 16])], None, "linear", "embedding 1: an"),
        ([np.ones([2, 3, 16])], None, "linear", "2 clips"),
        ([np.ones(16)], None, "linear", "[frames, channels]"),
        ([np.ones([3, 2])] * 2, [1], "linear", "Weights 1: 2 sources need 2"),
        ([np.ones([3, 2])] * 2, [1, np.inf], "linear", "finite"),
        ([np.ones([3, 2])] * 2, [1, -1], "linear", "sum to 0"),
        ([np.ones([3, 2])] * 2, [0, 0], "linear", "sum to 0"),
        ([np.ones([3, 2])] * 2, ["a", "b"], "linear", "a, b"),
        ([np.ones([3, 2])] * 2, [2, -1], "spherical", "below 0"),
        ([np.ones([3, 2])] * 2, np.ones([2, 2]), "linear", "weights are for 2 frames"),
        ([np.ones([3, 2])] * 2, None, "cubic", "linear or spherical"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed(embeddings, weights, method, words):
    with pytest.raises(InputError) as error:
        nsynth.mix(embeddings, weights, method)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_stretch_keeps_the_ends_and_is_linear():
    ramp = np.stack([np.arange(5.0), 10 - 2 * np.arange(5.0)], axis=1)
    for factor, count in ((2, 10), (0.5, 2), (1.5, 8), (1, 5), (0.2, 1), (100, 500)):
        result = nsynth.time_stretch(ramp, factor)
        time = np.linspace(0, 4, count)
        assert result.dtype == np.float32
        np.testing.assert_allclose(
            result, np.stack([time, 10 - 2 * time], axis=1), atol=1e-5
        )
    np.testing.assert_array_equal(
        nsynth.time_stretch(np.ones([1, 2]), 3), np.ones([3, 2])
    )
    noise = np.random.default_rng(1).normal(size=[7, 3]).astype(np.float32)
    np.testing.assert_array_equal(nsynth.time_stretch(noise, 1), noise)
    np.testing.assert_allclose(
        nsynth.time_stretch(noise, 13 / 7)[::2], noise, atol=1e-6
    )
    for factor in (0, -1, 0.009, 101, np.nan, np.inf):
        with pytest.raises(InputError, match=r"0\.01 to 100"):
            nsynth.time_stretch(ramp, factor)
    with pytest.raises(InputError, match="no frame of 5"):
        nsynth.time_stretch(ramp, 0.05)


def test_a_crossfade():
    a, b = np.zeros([5, 2]), np.ones([9, 2])

    def second(*times):
        return nsynth.crossfade(a, b, *times)[:, 0]

    np.testing.assert_allclose(second(), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(second(0.25, 0.75), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(second(0.5, 0.5), [0, 0, 1, 1, 1])
    np.testing.assert_allclose(second(0, 0), [1, 1, 1, 1, 1])
    np.testing.assert_allclose(second(0.5), [0, 0, 0, 0.5, 1])
    assert len(nsynth.crossfade(b, a)) == 5
    x, y = (np.tile(v, [3, 1]) for v in np.eye(2))
    turned = nsynth.crossfade(x, y, method="spherical")
    np.testing.assert_allclose(
        turned, [[1, 0], [0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6
    )
    for times in ((-0.1, 1), (0.6, 0.5), (0, 1.1), (np.nan, 1)):
        with pytest.raises(InputError, match="start <= end"):
            nsynth.crossfade(a, b, *times)


def test_lines():
    np.testing.assert_array_equal(nsynth.line_weights(1), [[0.5, 0.5]])
    np.testing.assert_array_equal(nsynth.line_weights(2), [[1, 0], [0, 1]])
    np.testing.assert_array_equal(nsynth.line_weights(5)[:, 1], [0, 0.25, 0.5, 0.75, 1])
    for steps in (0, -1, 1.5):
        with pytest.raises(InputError, match="steps"):
            nsynth.line_weights(steps)


def test_grids():
    grid = nsynth.grid_weights(3, 5)
    assert grid.shape == (3, 5, 4)
    np.testing.assert_allclose(grid.sum(-1), 1)
    corners = grid[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_array_equal(corners, np.eye(4))
    np.testing.assert_allclose(grid[1, 1], [0.375, 0.125, 0.375, 0.125])
    # Bilinear: the mean of any four around a cell.
    np.testing.assert_allclose(
        grid[1, 2], (grid[0, 2] + grid[2, 2] + grid[1, 1] + grid[1, 3]) / 4
    )
    three = nsynth.grid_weights(3, 3, 3)
    corners = three[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_array_equal(corners, [*np.eye(3), [0, 0.5, 0.5]])
    np.testing.assert_allclose(three.sum(-1), 1)
    two = nsynth.grid_weights(2, 3, 2)
    np.testing.assert_array_equal(two, [nsynth.line_weights(3)] * 2)
    np.testing.assert_array_equal(
        nsynth.grid_weights(3, 1, 2)[:, 0], nsynth.line_weights(3)
    )
    for corners, middle in ((4, [0.25] * 4), (3, [0.25, 0.375, 0.375]), (2, [0.5] * 2)):
        np.testing.assert_array_equal(nsynth.grid_weights(1, 1, corners), [[middle]])
    assert nsynth.grid_weights(3, 11).shape == (3, 11, 4)
    for wrong in ((0, 1, 4), (1, 0, 4), (2, 2, 5), (2, 2, 1)):
        with pytest.raises(InputError):
            nsynth.grid_weights(*wrong)


def test_the_sum_of_signals(caplog):
    a, b = np.array([1.0, -0.5, 0.25]), np.array([0.5, 0.5, 0.5, 0.5])
    result = nsynth.sum_signals([a, b])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [0.75, 0, 0.375])
    np.testing.assert_allclose(
        nsynth.sum_signals([a, b], [3, 1]), [0.875, -0.25, 0.3125]
    )
    with caplog.at_level("INFO", logger="absl"):
        loud = nsynth.sum_signals([a, b], [3, -1])  # [1.25, -1, 0.125]
        np.testing.assert_allclose(loud, [1, -0.8, 0.1], rtol=1e-6)
        assert "scaled by 0.800" in caplog.text
    kept = nsynth.sum_signals([a, b], [3, -1], prevent_clipping=False)
    np.testing.assert_allclose(kept, [1.25, -1, 0.125])
    faded = nsynth.sum_signals([a, b], crossfade_weights(3))
    np.testing.assert_allclose(faded, [1, 0, 0.5])
    for wrong in ([], [a, bad(b, 1, np.nan)], [a, b.astype(int)], [a, b[None]]):
        with pytest.raises(InputError):
            nsynth.sum_signals(wrong)


def test_the_loudness_of_the_sources(caplog):
    t = np.arange(16_000) / 16_000
    sine = np.sin(2 * np.pi * 440 * t)
    sources = [0.1 * sine, 0.4 * np.ones(8_000)]
    levels = [0.1 * 0.5**0.5, 0.4]
    for weights, level in (
        (None, np.mean(levels)),
        ([3, 1], 0.75 * levels[0] + 0.25 * levels[1]),
        ([3, -1], 0.75 * levels[0] + 0.25 * levels[1]),
        ([0, 1], levels[1]),
    ):
        result = nsynth.match_loudness(0.05 * sine, sources, weights)
        assert result.dtype == np.float32
        np.testing.assert_allclose(rms(result), level, rtol=1e-6)
    fading = loudness_scale(sine, levels, crossfade_weights(101))
    np.testing.assert_allclose(fading, np.mean(levels) * 2**0.5, rtol=1e-6)
    click = np.zeros(1000)
    click[3] = -0.5
    with caplog.at_level("INFO", logger="absl"):
        result = nsynth.match_loudness(click, sources)
    assert np.abs(result).max() == 1
    # The goal is the mean of the levels; the result has one 1 in 1,000 samples.
    assert f"{20 * np.log10(np.mean(levels) * 1000**0.5):.1f} dB below" in caplog.text
    with caplog.at_level("INFO", logger="absl"):
        noise = nsynth.match_loudness(1e-5 * sine, sources)
    np.testing.assert_allclose(noise, 1e-3 * sine, rtol=1e-6)
    assert "the noise of silence audible" in caplog.text
    np.testing.assert_array_equal(nsynth.match_loudness(np.zeros(5), sources), 0)
    np.testing.assert_array_equal(nsynth.match_loudness(sine, [np.zeros(9)] * 2), 0)
    with pytest.raises(InputError, match="source 1"):
        nsynth.match_loudness(sine, [sine, bad(sine, 0, np.inf)])


def test_weights():
    np.testing.assert_array_equal(normalized_weights(None, 4), [0.25] * 4)
    np.testing.assert_allclose(normalized_weights([[1, 0], [3, 2]], 2).sum(0), 1)
    with pytest.raises(InputError, match="sum to 0"):
        normalized_weights([[1, 1], [1, -1]], 2)
