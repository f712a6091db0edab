"""Pages that are made when the site is built, and a check of what was built.

A page per command, from the flags of bin/; and the Markdown files of the clone that
are pages too. No page may fetch anything from elsewhere when it is viewed.
"""

import html.parser
import pathlib
import re
import runpy
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from magenta_nsynth import cli  # noqa: E402
from magenta_nsynth.options import Option  # noqa: E402

# Pages that are files of the clone.
CLONE = {
    "reference/benchmarks.md": ["benchmarks/README.md"],
    "reference/bundled.md": ["checkpoints/README.md", "checkpoints/notes/README.md"],
    "reference/changes.md": ["CHANGELOG.md"],
    "reference/building.md": ["BUILD.md"],
}
_FETCHED = {"script": "src", "img": "src", "audio": "src", "source": "src",
            "iframe": "src", "link": "href"}  # fmt: skip
_CSS_URL = re.compile(
    r"url\(\s*[\"']?((?:https?:)?//[^)\"']+)|@import\s+[\"'](.+?)[\"']"
)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the commands and of the clone."""
    pages = {path: "\n\n".join(map(_text, names)) for path, names in CLONE.items()}
    for program in sorted((ROOT / "bin").glob("nsynth_*")):
        pages[f"commands/{program.name}.md"] = command_page(program)
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_post_build(config: Any) -> None:
    """Fails if a page or a style fetches something from elsewhere."""
    site = pathlib.Path(config["site_dir"])
    found = [
        f"{path.relative_to(site)}: {url}"
        for path in sorted(site.rglob("*"))
        if path.suffix in (".html", ".css")
        for url in _fetched(path)
    ]
    if found:
        raise PluginError("Pages fetch from elsewhere:\n" + "\n".join(found))


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def command_page(program: pathlib.Path) -> str:
    """The page of a command: its own text, and a definition of each flag."""
    binary = runpy.run_path(str(program))
    text = binary["DOC"].strip().format(program=program.name)
    parts = [f"# {program.name}\n\n```text\n{text}\n```\n\n## Flags"]
    for one in binary["OPTIONS"]:
        group = one if isinstance(one, cli.Flags) else cli.Flags(one)
        heading = (group.cls.__doc__ or "").splitlines()[0].rstrip(".")
        parts.append(f"### {heading}")
        hints = get_type_hints(group.cls)
        parts += [
            _flag(name, option, field.default, option.kind(hints[field.name]))
            for field, option, name in group.fields()
        ]
    parts.append("### General\n")
    parts.append("`--help`, `--version`: print this text, or the version, and stop.")
    parts.append("`--log`: the least severe messages to show. Default: `INFO`.")
    for alias, name in binary.get("ALIASES", {}).items():
        parts.append(f"`--{alias}`: the original's name of `--{name}`.")
    return "\n\n".join(parts) + "\n"


def _flag(name: str, option: Option, default: Any, kind: str) -> str:
    spelling = f"--[no]{name}" if kind == "boolean" else f"--{name}"
    facts = list(_facts(option, default, kind))
    last = f" *{' '.join(facts)}*" if facts else ""
    text = " ".join(option.help.split()).rstrip(".")
    return f"`{spelling}`{{ .flag }}\n:   {text}.{last}"


def _facts(option: Option, default: Any, kind: str) -> Iterator[str]:
    if option.choices:
        yield f"One of {', '.join(choice for choice in option.choices if choice)}."
    if option.low is not None or option.high is not None:
        low, high = option.low, option.high
        yield f"{low} or more." if high is None else f"{low} to {high}."
    if kind == "multi_string":
        yield "It can be repeated."
    elif kind == "list":
        yield "Separated by commas."
    if kind == "boolean" and default is not None:
        yield f"Default: {'on' if default else 'off'}."
    elif default not in (None, "", ()):
        yield f"Default: {default}."


class _Fetches(html.parser.HTMLParser):
    """Collects the addresses that a browser fetches for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        url = values.get(_FETCHED.get(tag, "")) or ""
        is_reference = tag == "link" and values.get("rel") in (
            "canonical",
            "next",
            "prev",
        )
        if re.match(r"(https?:)?//", url) and not is_reference:
            self.urls.append(url)


def _fetched(path: pathlib.Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return [first or second for first, second in _CSS_URL.findall(text)]
    parser = _Fetches()
    parser.feed(text)
    return parser.urls
