"""What a wheel and an sdist contain, and that a package uses its own data."""

import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from binaries import ROOT, environment

SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
FOLDERS = ("bin", "magenta_nsynth", "checkpoints")
BUILD = """
import sys
from setuptools import build_meta
build_meta.{}(sys.argv[1])
"""
USE = """
import os
import magenta_nsynth as nsynth
from magenta_nsynth.weights.paths import resolve_checkpoint
print(os.path.relpath(resolve_checkpoint("small")))
print(*map(os.path.basename, nsynth.example_notes()))
print(len(nsynth.load_audio(nsynth.example_notes()[1])))
"""


def run(text, folder, *arguments, **env):
    words = [sys.executable, "-c", text, *map(str, arguments)]
    options = {"env": environment() | env, "capture_output": True, "text": True}
    return subprocess.run(words, cwd=folder, check=True, **options).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of a clone, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    clone = folder / "clone"
    clone.mkdir()
    for name in (*SOURCES, "CITATION.bib"):
        shutil.copy(ROOT / name, clone)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, clone / name, ignore=ignored)
    run(BUILD.format("build_sdist"), clone, folder)
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    run(BUILD.format("build_wheel"), folder / sdist.name[: -len(".tar.gz")], folder)
    [wheel] = folder.glob("*.whl")
    return sdist, wheel


def test_packages_are_small_and_have_all(built):
    sdist, wheel = built
    with tarfile.open(sdist) as tar, zipfile.ZipFile(wheel) as archive:
        contents = tar.getnames(), archive.namelist()
    binaries = [path.name for path in (ROOT / "bin").iterdir()]
    modules = [path.name for path in (ROOT / "magenta_nsynth").rglob("*.py")]
    notes = (ROOT / "checkpoints" / "notes").rglob("*.wav")
    data = [path.name for path in notes]
    data += [path.name for path in (ROOT / "checkpoints" / "small").iterdir()]
    for path, content in zip(built, contents, strict=True):
        assert path.stat().st_size < 12_000_000
        names = {name.split("/")[-1] for name in content}
        assert {*binaries, *modules, *data, "page.html", "py.typed"} <= names
        assert not any("small_baseline" in name for name in content)
    assert "CITATION.bib" in {name.split("/")[-1] for name in contents[0]}


def test_an_installed_package_uses_its_own_data(built, tmp_path):
    """Unpacked, as pip does; far from the clone."""
    site = tmp_path / "site"
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(site)
    lines = run(USE, tmp_path, PYTHONPATH=str(site)).splitlines()
    assert lines[0].startswith("site/magenta_nsynth/bundled/small/model.ckpt-")
    assert len(lines[1].split()) == 6 and lines[2] == "64000"
