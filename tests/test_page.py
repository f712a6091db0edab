"""The page of pictures that play: its folder, and what a browser does with it."""

import dataclasses
import html.parser
import os
import pathlib
import time

import numpy as np
import pytest
from browser import Browser
from matplotlib.image import imread

from magenta_nsynth.audio import load_audio
from magenta_nsynth.errors import InputError
from magenta_nsynth.plotting import page as page_module
from magenta_nsynth.plotting.page import write_page
from magenta_nsynth.plotting.panel import Panel

RATE = 16_000
CAPTIONS = ['a <b> & "c"', "dos/tres: original", "鐘", "alone", "e", "f"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two sounds of 2 and 3 s, with and without curves, and one that failed."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, [240, 126, 3], np.uint8)
    curves = rng.normal(size=[63, 16]).astype(np.float32)
    panels = [
        Panel("a", image=image, curves=curves),
        Panel("b", image=image),
        Panel("c", message="c.wav: the file is <empty>"),
        Panel("d", curves=np.tile(curves, [2, 1])),
        Panel("e", image=image),
        Panel("f", image=image, curves=curves),
    ]
    sounds = [0.1 * np.sin(np.arange(n * RATE) / 9) for n in (2, 3)] + [None] * 4
    panels = [
        dataclasses.replace(panel, audio=sound, caption=caption)
        for panel, sound, caption in zip(panels, sounds, CAPTIONS, strict=True)
    ]
    folder = tmp_path_factory.mktemp("page")
    return pathlib.Path(write_page(folder, panels, 3, "T & <t>"))


def pictures(*captions):
    """The panels of a small page, with sounds."""
    image, audio = np.zeros([24, 12, 3], np.uint8), np.zeros(100, np.float32)
    return [Panel(caption, image=image, audio=audio) for caption in captions]


def files(folder):
    """The content of all in a folder but of the page and its record."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("index.html", ".nsynth_page.json")
    }


def test_a_smaller_page_removes_what_an_earlier_one_wrote_and_nothing_else(tmp_path):
    foreign = ["sounds/01_kick.wav", "pictures/2024_holiday.png", "pictures/1_c.png"]
    for name in foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_page(tmp_path, pictures("a", "b", "c"), 2, "")
    assert len(files(tmp_path)) == 3 + 6
    write_page(tmp_path, pictures("a"), 2, "")
    left = {*foreign, "pictures/1_a.png", "sounds/1_a.wav"}
    assert files(tmp_path).keys() == left
    assert all((tmp_path / name).read_text() == name for name in foreign)


def test_a_folder_with_somebody_elses_page_or_picture_is_refused(tmp_path):
    (tmp_path / "index.html").write_text("<html>mine</html>")
    with pytest.raises(
        InputError, match=r"index\.html: already exists and is not from"
    ):
        write_page(tmp_path, pictures("a"), 1, "")
    assert os.listdir(tmp_path) == ["index.html"]
    (tmp_path / "index.html").unlink()
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds/1_a.wav").write_text("mine")
    with pytest.raises(InputError, match=r"sounds/1_a\.wav: already exists and is not"):
        write_page(tmp_path, pictures("a"), 1, "")
    assert files(tmp_path) == {"sounds/1_a.wav": b"mine"}


def test_a_page_without_a_record_owns_what_it_refers_to(tmp_path):
    page = pathlib.Path(write_page(tmp_path, pictures("a", "b"), 2, ""))
    (tmp_path / ".nsynth_page.json").unlink()
    # As versions wrote it that kept no record.
    lines = [line for line in page.read_text().splitlines() if "generator" not in line]
    page.write_text("\n".join(lines))
    (tmp_path / "pictures/3_c.png").write_text("mine")
    write_page(tmp_path, pictures("b"), 1, "")
    own = {"pictures/1_b.png", "sounds/1_b.wav"}
    assert files(tmp_path).keys() == {*own, "pictures/3_c.png"}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"files": {}}',
        '{"files": [1]}',
        '{"files": ["../a.wav"]}',
        '{"files": ["sounds/../../1_a.wav"]}',
        "{",
    ],
)
def test_a_damaged_record_is_named_and_nothing_is_removed(tmp_path, content):
    write_page(tmp_path, pictures("a", "b"), 2, "")
    (tmp_path / ".nsynth_page.json").write_text(content)
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"\.nsynth_page\.json: damaged"):
        write_page(tmp_path, pictures("a"), 1, "")
    assert files(tmp_path) == before


def test_what_a_broken_run_wrote_is_its_own(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(page_module, "write_audio", broken)
    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path, pictures("a"), 1, "")
    monkeypatch.undo()
    assert files(tmp_path).keys() == {"pictures/1_a.png"}
    write_page(tmp_path, pictures("b"), 1, "")
    assert files(tmp_path).keys() == {"pictures/1_b.png", "sounds/1_b.wav"}


def test_names_that_are_no_utf_8_are_on_the_page(tmp_path):
    page = write_page(tmp_path, pictures("a\udcff", "\U0001f600"), 2, "t\udcff")
    text = pathlib.Path(page).read_text(encoding="utf-8")
    assert "<span>a\ufffd</span>" in text and "<span>\U0001f600</span>" in text


class Links(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.tags, self.data = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.found += [v for k, v in attrs if k in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.data += data


def test_all_that_a_page_needs_lies_in_its_folder(page):
    text = page.read_text(encoding="utf-8")
    links = Links(text)
    assert len(links.found) == 9  # seven pictures, two sounds
    for link in links.found:
        assert (page.parent / link).is_file(), link
    assert "http:" not in text and "https:" not in text and "url(" not in text
    for caption in (*CAPTIONS, "T & <t>", "c.wav: the file is <empty>"):
        assert caption in links.data
    sounds = [attrs["src"] for tag, attrs in links.tags if tag == "audio"]
    assert len(load_audio(page.parent / sounds[1])) == 3 * RATE
    buttons = [attrs for tag, attrs in links.tags if tag == "button"]
    assert buttons[0]["aria-label"] == f"Play {CAPTIONS[0]}"


@pytest.fixture
def browser(driver, page, request):
    width = getattr(request, "param", 1200)
    browser = Browser(driver, f"--window-size={width},800")
    browser.go(page.as_uri())
    yield browser
    browser.close()


STATE = """return [...document.querySelectorAll('audio')].map((audio, i) => ({
  time: audio.currentTime, paused: audio.paused, error: audio.error && 1,
  line: document.querySelectorAll('.line')[i].getBoundingClientRect().left
      - document.querySelectorAll('button')[i].getBoundingClientRect().left,
  seen: getComputedStyle(document.querySelectorAll('.line')[i]).visibility,
  pressed: document.querySelectorAll('button')[i].getAttribute('aria-pressed')}));"""


@pytest.mark.parametrize("browser", [800, 1200], indirect=True)
def test_pictures_of_a_row_are_level_and_keep_a_width(browser):
    boxes = browser.run(
        "return [...document.querySelectorAll('.shown')].map("
        "x => [x.getBoundingClientRect().top, x.clientWidth])"
    )
    tops = [round(top) for top, _ in boxes]
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4] == tops[5]
    assert min(width for _, width in boxes) >= 150


def wait_for(browser, condition):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        state = browser.run(STATE)
        if condition(state):
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def test_a_click_plays_and_the_line_moves(browser):
    first, second = browser.find("button")
    assert [s["seen"] for s in browser.run(STATE)] == ["hidden", "hidden"]
    browser.click(first)
    state = wait_for(browser, lambda s: s[0]["time"] > 0.3)
    assert not state[0]["paused"] and state[0]["pressed"] == "true"
    assert state[0]["seen"] == "visible" and state[0]["error"] is None
    width = browser.run("return document.querySelector('button').clientWidth")
    # Where it is in the sound of 2 s, as far as a redraw ago. The cell is for 4 s.
    assert 0.05 < state[0]["line"] / width <= state[0]["time"] / 4 + 0.01
    browser.click(second)  # one at a time
    state = wait_for(browser, lambda s: s[1]["time"] > 0.1)
    assert state[0]["paused"] and state[0]["pressed"] == "false"
    browser.click(second)
    assert wait_for(browser, lambda s: s[1]["paused"])


def test_the_keyboard_plays_and_moves(browser):
    _, second = browser.find("button")
    browser.press(second, " ")
    wait_for(browser, lambda s: s[1]["time"] > 0.05)
    browser.press(second, " ")
    before = wait_for(browser, lambda s: s[1]["paused"])[1]
    browser.press(second, "\ue014")  # arrow right
    after = wait_for(browser, lambda s: s[1]["time"] > before["time"] + 0.2)[1]
    assert after["line"] > before["line"]
    browser.press(second, "\ue011")  # home
    wait_for(browser, lambda s: s[1]["time"] == 0)


def test_shorter_sounds_are_narrower_unless_each_has_its_own_width(browser, tmp_path):
    panels = [
        Panel(str(n), image=np.zeros([24, n * 50, 3], np.uint8), curves=np.ones([9, 2]))
        for n in (1, 4)
    ]
    widths = (
        "return [...document.querySelectorAll('img')].map(x => "
        "x.getBoundingClientRect().width / x.parentElement.clientWidth)"
    )
    for own_width, shares in ((False, [1 / 4, 1 / 4, 1, 1]), (True, [1] * 4)):
        page = write_page(tmp_path, panels, 2, "t", own_width)
        browser.go(pathlib.Path(page).as_uri())
        assert browser.run(widths) == pytest.approx(shares, abs=0.005)


@pytest.mark.parametrize("browser", [1280], indirect=True)
def test_a_circle_of_three_has_room(browser, tmp_path):
    browser.go(pathlib.Path(write_page(tmp_path, pictures(*"a" * 14), 7, "t")).as_uri())
    beyond = "const x = document.querySelector('.grid'); return x.scrollWidth - "
    assert browser.run(f"{beyond}x.clientWidth") <= 0
    columns = browser.run(
        "return getComputedStyle(document.querySelector('ul')).gridTemplateColumns"
    )
    assert len(columns.split()) == 7


def test_curves_have_no_background_of_their_own(page):
    [first, *_] = sorted((page.parent / "pictures").glob("*_embedding.png"))
    pixels = imread(first)
    assert pixels[0, 0, 3] == 0 and pixels[..., 3].max() == 1


@pytest.mark.parametrize("browser", [390], indirect=True)
def test_a_phone_has_no_need_to_scroll_sideways(browser):
    width = "return document.documentElement.scrollWidth - innerWidth"
    assert browser.run(width) <= 0
    columns = browser.run(
        "return getComputedStyle(document.querySelector('ul')).gridTemplateColumns"
    )
    assert len(columns.split()) == 2
    beyond = browser.run(
        "return [...document.querySelectorAll('img, .failed')].map("
        "x => x.getBoundingClientRect().right - x.closest('li').getBoundingClientRect()"
        ".right)"
    )
    assert len(beyond) == 8 and max(beyond) <= 0
    # Of two rows, what stands one above the other elsewhere is side by side here.
    tops = browser.run(
        "return [...document.querySelectorAll('li')].map("
        "x => Math.round(x.getBoundingClientRect().top))"
    )
    assert tops[:3] == tops[3:] == sorted(set(tops))
