"""README and the documentation: every command and every Python block is run.

On short notes and tiny networks; the bundled ones' turn comes in a slow test. A comment
above a block, `<!-- not run: why -->`, leaves it out (downloads, clusters, installing).
Then the flags of its commands are parsed all the same.
"""

import ast
import functools
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

import pytest
from binaries import ROOT, environment, run
from scipy.io import wavfile

from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.weights.engine import new_autoencoder
from magenta_nsynth.weights.training_state import TrainingState

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>.+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>.*)\n(?P<text>(?:.*\n)*?)(?P=indent)```$",
    re.MULTILINE,
)
NOT_RUN = (
    *("cd", "export", "git", "make", "moto_server", "pip", "python", "python3"),
    "tensorboard",
)
SAMPLES = 4096  # of each note here
SLOW = ("baseline.md", "rainbowgrams.md", "training.md")  # 5 to 15 s each


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    is_run: bool

    def commands(self):
        """The words of each command of a shell's block."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks(page):
    text = page.read_text(encoding="utf-8")
    found = [
        Block(
            match["language"],
            "".join(
                line.removeprefix(match["indent"])
                for line in match["text"].splitlines(keepends=True)
            ),
            match["reason"] is None,
        )
        for match in BLOCK.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall("^ *```", text, re.MULTILINE)), page
    return found


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The checkpoints/ of a clone, with networks of two layers and short notes."""
    folder = tmp_path_factory.mktemp("clone") / "checkpoints"
    config = WaveNetConfig(
        width=8, skip_width=8, num_layers=2, ae_width=8, ae_num_layers=2
    )
    TrainingState(new_autoencoder(config)).save(folder / "small" / "model.ckpt-0")
    (folder / "training").symlink_to(folder / "small")
    (folder / "small_baseline").symlink_to(ROOT / "tests" / "data" / "baseline_tiny")
    (folder / "notes").mkdir()
    notes = ROOT / "checkpoints" / "notes"
    for path in notes.rglob("*.wav"):
        rate, audio = wavfile.read(path)
        short = folder / "notes" / path.relative_to(notes)
        short.parent.mkdir(exist_ok=True)
        wavfile.write(short, rate, audio[:SAMPLES])
    return folder.parent


def run_page(page, clone, folder, monkeypatch):
    """Runs a page's blocks in order, in a folder like a clone and one Python."""
    (folder / "checkpoints").symlink_to(clone / "checkpoints")
    (folder / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    # Where the bundled notes and "small" are looked for.
    package = str(folder / "magenta_nsynth")
    monkeypatch.setattr("magenta_nsynth.bundled._PACKAGE", package)
    names = {"__name__": "docs"}
    for block in blocks(page):
        if block.language == "python" and block.is_run:
            exec(compile(block.text, name_of(page), "exec"), names)
        elif block.language == "sh" and block.is_run:
            for words in block.commands():
                run_command(words)


def run_command(words):
    program, *arguments = words
    if program == "python":
        result = subprocess.run(
            [sys.executable, *arguments],
            env=environment(), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    else:
        assert program.startswith("nsynth_"), f"{words}: mark the block as not run"
        result = run(program, *arguments, cwd=os.getcwd())
    assert result.returncode == 0, f"{shlex.join(words)}\n{result.stderr}"


def pages_to_run():
    for page in PAGES:
        if any(block.is_run and block.language != "text" for block in blocks(page)):
            marks = pytest.mark.slow if page.name in SLOW else ()
            yield pytest.param(page, marks=marks, id=name_of(page))


@pytest.mark.parametrize("page", [*pages_to_run()])
def test_a_page_works_from_top_to_bottom(page, clone, tmp_path, monkeypatch):
    run_page(page, clone, tmp_path, monkeypatch)


@pytest.mark.slow
def test_readme_works_as_it_stands(tmp_path, monkeypatch):
    """With the bundled networks and notes."""
    run_page(ROOT / "README.md", ROOT, tmp_path, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_is_right_as_far_as_can_be_seen(page):
    for block in blocks(page):
        assert block.language in ("sh", "python", "text")
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "sh" and not block.is_run:
            for words in block.commands():
                check_command(words)
    # And in the text: a flag has to exist.
    text = page.read_text(encoding="utf-8")
    flags = set(re.findall(r"`--(\w+)", text)) - OTHER_FLAGS
    assert not flags - all_flags()


# Of Slurm, and the form of a flag.
OTHER_FLAGS = {"array", "name", "noname"}


def check_command(words):
    program, *arguments = words
    if program.startswith("nsynth_"):
        numbers = [re.sub(r"\$\w+", "0", word) for word in arguments]  # of a cluster
        result = run(program, *numbers, "--help")
        assert result.returncode == 0, f"{shlex.join(words)}\n{result.stderr}"
        return
    assert os.path.basename(program) in NOT_RUN
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in arguments:
            assert re.search(f"^{target}:", makefile, re.MULTILINE), target


@functools.cache
def all_flags():
    """The flags of all commands, from their --help."""
    names = sorted(path.name for path in (ROOT / "bin").glob("nsynth_*"))
    text = "\n".join(run(name, "--help").stdout for name in names)
    found = re.findall(r"^  --(\[no\])?(\w+)", text, re.MULTILINE)
    off = {f"no{name}" for can_be_off, name in found if can_be_off}
    return {"help", *off, *(name for _, name in found)}


def test_extras_and_files_that_the_pages_name_exist():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    for page, text in texts.items():
        for extra in re.findall(r"pip install '\.\[(\w+)\]'", text):
            assert f'"{extra}": [' in setup, f"{page}: {extra}"
        for path in re.findall(
            r"`((?:examples|checkpoints|benchmarks)/[\w/.]+)`", text
        ):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_links_lead_somewhere():
    """On GitHub too, where pages are read as files. mkdocs checks the site's links."""
    made = {f"docs/commands/{path.name}.md" for path in (ROOT / "bin").glob("nsynth_*")}
    made |= {
        f"docs/reference/{name}.md"
        for name in ("benchmarks", "bundled", "building", "changes")
    }
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", text)
        for link in itertools.chain.from_iterable(links):
            if link and not link.startswith("http"):
                path = pathlib.Path(
                    os.path.normpath(page.parent / "".join(link.split()))
                )
                assert path.exists() or str(path.relative_to(ROOT)) in made, (
                    page,
                    link,
                )


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 180
