"""examples/embedding_map.py: what the map says."""

import importlib.util
import pathlib

import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[1] / "examples" / "embedding_map.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("embedding_map", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def drawn(example, monkeypatch, tmp_path):
    """Draws notes; returns the axes of the map."""
    axes = []
    subplots = example.plt.subplots

    def record(*arguments, **options):
        figure, plot = subplots(*arguments, **options)
        axes.append(plot)
        return figure, plot

    monkeypatch.setattr(example.plt, "subplots", record)

    def draw(names, groups):
        means = np.random.default_rng(0).normal(size=[len(names), 16])
        example.draw(names, groups, means, str(tmp_path / "map.png"))
        assert (tmp_path / "map.png").stat().st_size
        return axes[-1]

    yield draw
    example.plt.close("all")


def test_a_few_notes_have_names_and_families_colours(drawn):
    names = ["flute_060", "organ_060", "organ_062", "cello_050"]
    plot = drawn(names, [name.split("_")[0] for name in names])
    assert [text.get_text() for text in plot.texts] == names
    families = [text.get_text() for text in plot.get_legend().get_texts()]
    assert families == ["organ", "cello", "flute"]  # the largest first
    colours = [tuple(dots.get_facecolor()[0]) for dots in plot.collections]
    assert len(set(colours)) == 3
    assert [len(dots.get_offsets()) for dots in plot.collections] == [2, 1, 1]
    assert "First" in plot.get_xlabel() and "%" in plot.get_ylabel()


def test_many_notes_have_no_names_and_small_families_share_a_colour(drawn):
    groups = [f"group_{i % 30}" for i in range(61)]
    plot = drawn([str(i) for i in range(61)], groups)
    assert not plot.texts
    families = [text.get_text() for text in plot.get_legend().get_texts()]
    assert len(families) == 20 and families[0] == "group_0" and families[-1] == "others"


def test_the_axes_are_those_of_the_variance(example):
    means = np.zeros([4, 16])
    means[:, 3] = [-3, -1, 1, 3]
    means[:, 7] = [1, -1, -1, 1]
    positions, shares = example.project(means)
    np.testing.assert_allclose(np.abs(positions), np.abs(means[:, [3, 7]]), atol=1e-12)
    np.testing.assert_allclose(shares, [20 / 24, 4 / 24])
    assert example.project(np.ones([3, 16]))[1].tolist() == [0, 0]  # all are the same


@pytest.mark.parametrize(
    ("name", "family", "group"),
    [
        ("flute_060", "", "flute"),
        ("x", "keyboard", "keyboard"),
        ("Organ-C4", "", "organ"),
        ("060", "", "unknown"),
    ],
)
def test_groups(example, name, family, group):
    assert example.group_of(name, family) == group
