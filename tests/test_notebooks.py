"""The notebooks of examples/: they run, with short lengths, and show what they say."""

import ast
import importlib
import json
import os
import pathlib
import re
import signal
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# In place of values of the cell that is tagged "parameters".
SHORT = {
    "hear_it": "SECONDS = 0.128; MIXES = 2",
    "explore_embeddings": "SHIFTS = range(-2, 3); SECONDS = 0.256",
    "fine_tune": "STEPS = 3; BATCH_SIZE = 1; CROP_LENGTH = 1024; SECONDS = 0.128",
}


def imported(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"needs {name}: pip install '.[dev]'")


def source(cell):
    return "".join(cell["source"])


def parameters(cells):
    [number] = [
        i for i, c in enumerate(cells) if "parameters" in c["metadata"].get("tags", ())
    ]
    return number


def assigned(text):
    nodes = ast.walk(ast.parse(text))
    return {n.id for n in nodes if isinstance(n, ast.Name) and type(n.ctx) is ast.Store}


def test_notebooks_have_no_outputs_and_one_first_cell():
    assert {path.stem for path in NOTEBOOKS} == set(SHORT)
    first = set()
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(not c["outputs"] and c["execution_count"] is None for c in code)
        first.add(source(code[0]))
        names = assigned(source(cells[parameters(cells)]))
        assert assigned(SHORT[path.stem]) <= names
    [text] = first
    assert "%pip install --quiet --no-deps {SOURCE} av" in text


@pytest.fixture
def executed(request, tmp_path, monkeypatch):
    """An executed notebook, and the folder that it ran in."""
    nbformat, nbclient = imported("nbformat"), imported("nbclient")
    imported("ipykernel")
    path = [str(ROOT / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where TensorBoard says who it is
    notebook = nbformat.read(ROOT / "examples" / f"{request.param}.ipynb", as_version=4)
    short = nbformat.v4.new_code_cell(SHORT[request.param])
    notebook.cells.insert(parameters(notebook.cells) + 1, short)
    try:
        nbclient.NotebookClient(
            notebook,
            timeout=300,
            resources={"metadata": {"path": str(tmp_path)}},
            coalesce_streams=True,  # as Jupyter shows them: "\r" moves back
        ).execute()
        yield notebook, tmp_path
    finally:
        for path in tmp_path.glob(".tensorboard-info/pid-*.info"):
            os.kill(int(path.stem.removeprefix("pid-")), signal.SIGTERM)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def texts(notebook):
    """What each cell prints."""
    return [o.text for o in outputs(notebook) if o.output_type == "stream"]


def shown(notebook, kind):
    """How many outputs of a kind, such as "image/png", there are."""
    return sum(kind in output.get("data", ()) for output in outputs(notebook))


@pytest.mark.slow
@pytest.mark.parametrize("executed", ["hear_it"], indirect=True)
def test_hear_it(executed):
    notebook, folder = executed
    assert (shown(notebook, "image/png"), shown(notebook, "text/html")) == (6, 7)
    assert (folder / "turned.wav").stat().st_size > 2048
    bars = [text for text in texts(notebook) if "samples/s" in text]
    assert len(bars) == 3
    assert all(bar.count("\n") == 1 for bar in bars)  # one line that moves


@pytest.mark.slow
@pytest.mark.parametrize("executed", ["explore_embeddings"], indirect=True)
def test_explore_embeddings(executed):
    notebook, _ = executed
    assert shown(notebook, "image/png") == 2
    text = "".join(texts(notebook))
    assert "30/30 notes" in text and "<Embeddings 'exported': 30 notes" in text
    pitch = re.search(r"Pitch: ([\d.]+) semitones off; without embeddings (.+)\.", text)
    family = re.search(r"Family: (\d+)% right; without embeddings (\d+)%", text)
    assert float(pitch[1]) < float(pitch[2])
    assert float(family[1]) > float(family[2])


@pytest.mark.slow
@pytest.mark.parametrize("executed", ["fine_tune"], indirect=True)
def test_fine_tune(executed):
    notebook, folder = executed
    assert len(list(folder.glob("fine_tuned/model.ckpt-*.index"))) == 2
    # Three sounds, and TensorBoard.
    assert (shown(notebook, "image/png"), shown(notebook, "text/html")) == (2, 4)
    text = "".join(texts(notebook))
    before, after = re.findall(r"(?:before|after): ([\d.]+) nats per sample", text)
    assert before != after
