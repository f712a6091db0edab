"""The examples in docstrings do what they show."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples():
    for path in sorted((ROOT / "magenta_nsynth").rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__")


def export(folder):
    """Exports the bundled notes, for the examples that read them."""
    from magenta_nsynth.commands.export_embeddings import Export, export_embeddings
    from magenta_nsynth.commands.options import Network, ShardOptions
    from magenta_nsynth.notes.inputs import Inputs
    from magenta_nsynth.notes.naming import NameRules

    network = Network(checkpoint_path=str(ROOT / "checkpoints/small"))
    inputs = Inputs(source_path=[str(ROOT / "checkpoints/notes")])
    rules, files = NameRules(), ShardOptions()
    assert export_embeddings(Export(network, inputs, folder, rules, files)) == 0


@pytest.mark.parametrize("name", [*modules_with_examples()])
def test_examples(name, tmp_path, monkeypatch):
    """With the bundled checkpoints below the working directory, as in a clone."""
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    if name == "magenta_nsynth.embeddings.exported":
        export("exported")
    results = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert results.attempted
    assert not results.failed
