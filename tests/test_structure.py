"""Imports point down only: the rooms of BUILD.md, held."""

import ast
import graphlib
import pathlib
import re

import magenta_nsynth

LEVELS = [
    {
        "bundled",
        "errors",
        "config",
        "files",
        "disk",
        "formatting",
        "mirror",
        "progress",
        "importing",
        "options",
        "parallel",
        "schema",
        "stores",
    },
    {"audio", "download", "spectral"},
    {"models", "data", "plotting"},
    {"weights", "generation", "notes"},
    {"embeddings", "training"},
    {"api"},
    {"commands", "compat"},
    {"cli"},
]
# Within the bottom level the modules stand on each other.
FREE = LEVELS[0]
ROOT = pathlib.Path(magenta_nsynth.__file__).parent


def rooms_imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "magenta_nsynth" and len(parts) > 1:
                yield parts[1]


def room_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def test_imports_point_down():
    level = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
    modules = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]
    assert len(modules) > 20
    wrong = []
    for path in modules:
        room = room_of(path)
        for target in rooms_imported(path):
            if target == room or (room in FREE and target in FREE):
                continue
            if level[target] >= level[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {target}")
    assert not wrong


def test_no_module_imports_itself_by_a_detour():
    """Importing any module first must work; the tests import them in one order."""
    paths = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
        for path in ROOT.rglob("*.py")
    }
    graph = {}
    for name, path in paths.items():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        imports = [node for node in body if isinstance(node, ast.ImportFrom)]
        named = {f"{i.module}.{alias.name}" for i in imports for alias in i.names}
        graph[name] = (named | {i.module for i in imports}) & {*paths}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_tensorflow_v1_is_nowhere():
    for path in ROOT.rglob("*.py"):
        assert "compat.v1" not in path.read_text(encoding="utf-8"), path


def test_tf1_variable_names_are_in_weights_alone():
    for path in ROOT.rglob("*.py"):
        if room_of(path) != "weights":
            text = path.read_text(encoding="utf-8")
            assert "ExponentialMovingAverage" not in text, path
            assert "/biases" not in text, path


def test_matplotlib_is_in_plotting_alone():
    for path in ROOT.rglob("*.py"):
        if room_of(path) != "plotting":
            assert "matplotlib" not in modules_imported(path), path


def test_only_what_draws_imports_plotting():
    """Others import it in the functions that draw, because it imports matplotlib."""
    names = ("picture_panels", "rainbowgram")
    drawing = {ROOT / "commands" / f"{name}.py" for name in names}
    for path in {*ROOT.rglob("*.py")} - drawing:
        if room_of(path) != "plotting":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                module = getattr(node, "module", "")
                if module != "magenta_nsynth.plotting.options":
                    assert not module.startswith("magenta_nsynth.plotting"), path


def modules_imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_json_from_outside_is_read_in_one_place():
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # A copy of one's own is none from outside.
        text = text.replace("json.loads(json.dumps(", "")
        assert path.name == "files.py" or not re.search(r"json\.loads?\(", text), path
