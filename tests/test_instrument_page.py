"""The page of an instrument, in a browser: what sounds is recorded and measured."""

import base64
import json
import math
import re

import numpy as np
import pytest
from binaries import ROOT
from browser import Browser
from instruments import SumModel, make, tone, write_sounds

RATE = 48_000  # of the recordings
PITCHES = (48, 60, 72)
SPACE, LEFT, RIGHT, SHIFT = "\ue00d", "\ue012", "\ue014", "\ue008"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Four tones, which differ in their partials, in a grid of 3 x 3 at 3 pitches."""
    folder = tmp_path_factory.mktemp("instrument")
    partials = {"low": (1,), "odd": (1, 0, 0.5), "even": (1, 0.8), "<b>&": (1, 1, 1)}
    for name, shares in partials.items():
        (folder / name).mkdir()
        for pitch in PITCHES:
            sound = tone(pitch, 0.8, cents=20, partials=shares)
            write_sounds(folder / name, **{f"x_{pitch}": sound})
    sources = [folder / name for name in partials]
    assert make(SumModel(folder), sources, folder / "made") == 0
    return folder / "made" / "index.html"


@pytest.fixture(scope="module")
def started(driver):
    browser = Browser(driver, "--autoplay-policy=no-user-gesture-required")
    yield browser
    browser.close()


@pytest.fixture
def browser(started, page, request):
    """The page, loaded anew."""
    width, height = getattr(request, "param", (1200, 900))
    browser = started
    browser.emulate(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    browser.go(page.as_uri())
    browser.wait("await nsynth.ready;")
    return browser


# An engine of the page's that plays into an OfflineAudioContext.
OFFLINE = f"""
const context = new OfflineAudioContext(1, SECONDS * {RATE}, {RATE});
const buffers = await nsynth.decodeAll(context);
const engine = new nsynth.Engine(context, buffers, nsynth.grid);
BODY
const audio = (await context.startRendering()).getChannelData(0);
const bytes = new Uint8Array(audio.buffer, audio.byteOffset, audio.byteLength);
let text = "";
for (let i = 0; i < bytes.length; i += 8192)
  text += String.fromCharCode(...bytes.subarray(i, i + 8192));
return btoa(text);
"""


def rendered(browser, seconds, body):
    """What an engine plays: [t] float32."""
    script = OFFLINE.replace("SECONDS", str(seconds)).replace("BODY", body)
    return np.frombuffer(base64.b64decode(browser.wait(script)), np.float32)


def peak_hz(audio, near):
    """The frequency of the strongest partial within 3 % of `near`."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 8 * len(audio)))
    hz = np.arange(len(power)) * RATE / (8 * len(audio))
    return hz[np.argmax(np.where(abs(hz / near - 1) < 0.03, power, 0))]


def levels(audio, size=RATE // 50):
    """The RMS of each 20 ms."""
    return np.sqrt(
        np.mean(np.square(audio[: len(audio) // size * size].reshape(-1, size)), 1)
    )


def hertz(note):
    return 440 * 2 ** ((note - 69) / 12)


@pytest.mark.parametrize("note", [48, 60, 65, 73])
def test_a_note_has_its_pitch_though_the_sounds_are_sharp(browser, note):
    audio = rendered(browser, 1, f"engine.noteOn({note}, 100, 0);")
    found = peak_hz(audio[RATE // 4 : RATE * 3 // 4], hertz(note))
    assert abs(1200 * math.log2(found / hertz(note))) < 3


NOTES = [48, 52, 55, 60, 64, 67, 72, 76]


def test_eight_held_notes_neither_clip_nor_pause_nor_click(browser):
    on = f"for (const note of {NOTES}) engine.noteOn(note, 127, 0.1);"
    off = f"for (const note of {NOTES}) engine.noteOff(note, 3.0);"
    audio = rendered(browser, 4, on + off)
    for note in NOTES:
        found = peak_hz(audio[RATE // 2 : RATE], hertz(note))
        assert abs(1200 * math.log2(found / hertz(note))) < 5
    # So far from full scale, it is a sum that nothing bends.
    assert 0.2 < np.abs(audio).max() < 0.7
    soft = rendered(browser, 4, on.replace("127", "40") + off)
    np.testing.assert_allclose(soft, audio * (40 / 127) ** 1.6, atol=1e-4)
    # The sounds are 0.8 s long, and go on in their loops.
    held = levels(audio[RATE // 5 : 3 * RATE - RATE // 10])
    assert held.min() > 0.5 * np.median(held)
    # No jump is larger than those of the tones themselves.
    steps = np.abs(np.diff(audio, 3))
    assert steps[RATE : 3 * RATE].max() < 1.3 * steps[RATE // 2 : RATE].max()
    assert np.abs(audio[: RATE // 10 - 1]).max() == 0
    assert np.abs(audio[-RATE // 20 :]).max() < 1e-4


def test_more_and_louder_notes_than_fit_are_rounded_off(browser):
    notes = [*range(40, 70)]
    on = f"engine.volume = 1; for (const note of {notes}) engine.noteOn(note, 127, 0);"
    audio = rendered(browser, 1, on)
    assert 0.8 < np.abs(audio).max() < 1
    _, counts = np.unique(np.round(audio, 6), return_counts=True)
    assert counts[0] < 20 and counts[-1] < 20  # it does not stick to its limits


def test_velocity_attack_and_release(browser):
    body = """engine.attack = 0.2; engine.release = 0.2; engine.move(0, 0, 0);
      engine.noteOn(60, VELOCITY, 0); engine.noteOff(60, 0.6);"""
    loud, soft = (
        rendered(browser, 1.2, body.replace("VELOCITY", velocity))
        for velocity in ("127", "40")
    )
    loud, soft = levels(loud), levels(soft)
    assert soft[25] / loud[25] == pytest.approx((40 / 127) ** 1.6, rel=0.02)
    assert loud[4] / loud[25] == pytest.approx(0.45, abs=0.06)  # 90 of 200 ms
    assert loud[40] / loud[25] == pytest.approx(math.exp(-5.25), rel=0.5)  # 0.21 s
    assert loud[-1] == 0


def test_a_corner_is_its_source_alone_and_the_middle_all_of_them(browser):
    def share(audio, partial):
        part = audio[RATE // 4 : RATE * 3 // 4] * np.hanning(RATE // 2)
        time = np.arange(len(part)) / RATE
        found = [
            abs(np.dot(part, np.exp(-2j * np.pi * hertz(60) * n * time)))
            for n in (1, partial)
        ]
        return found[1] / found[0]

    for x, y, second in (
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0.8),
        (1, 1, 1),
        (0.5, 0.5, 0.304),
    ):
        audio = rendered(
            browser, 1, f"engine.move({x}, {y}, 0); engine.noteOn(60, 100, 0);"
        )
        assert share(audio, 2) == pytest.approx(second, abs=0.06), (x, y)


def test_moving_on_the_pad_fades_a_held_note_without_a_gap(browser):
    # Powers of unlike sounds add up, so of tones in phase the sum may be 3 dB more.
    moves = "".join(
        f"engine.move({i / 100}, {1 - i / 100}, {0.3 + i / 100});" for i in range(101)
    )
    audio = rendered(
        browser, 1.6, f"engine.move(0, 1, 0); engine.noteOn(60, 100, 0); {moves}"
    )
    level = levels(audio[RATE // 10 : RATE * 3 // 2])
    assert level.min() > 0.4 * level.max()
    steps = np.abs(np.diff(audio, 3))
    still = max(steps[RATE // 10 : RATE // 4].max(), steps[-RATE // 10 :].max())
    assert steps[RATE // 4 :].max() < 2.5 * still


def test_a_key_is_heard_at_once_and_until_it_is_let_go(browser):
    """The page itself, through its own AudioContext."""
    browser.run(
        """window.heard = []; const c = nsynth.context;
        const tap = c.createScriptProcessor(1024, 1, 1);
        tap.onaudioprocess = (event) => heard.push(
          Math.max(...event.inputBuffer.getChannelData(0).map(Math.abs)));
        nsynth.engine.end.connect(tap); tap.connect(c.destination);
        const noteOn = nsynth.engine.noteOn.bind(nsynth.engine);
        window.delays = [];
        addEventListener("keydown", () => { window.downAt = c.currentTime; }, true);
        nsynth.engine.noteOn = (...all) => {
          const voice = noteOn(...all);
          delays.push(voice.time - downAt);
          return voice; };"""
    )
    browser.wait("await nsynth.context.resume();")
    key, pause = {"type": "keyDown", "value": "d"}, {"type": "pause", "duration": 400}
    browser.act(
        "key",
        {"type": "keyDown", "value": "a"},
        pause,
        {**key, "type": "keyUp", "value": "a"},
    )
    browser.act("key", key, pause, {**key, "type": "keyUp"}, {**pause, "duration": 900})
    delays = browser.run("return delays")
    assert len(delays) == 2 and max(delays) < 0.02
    heard = browser.run("return heard")
    assert max(heard) > 0.05 and heard[-1] < 1e-3
    assert browser.run("return nsynth.engine.voices.length") == 0


def voices(browser):
    return browser.run(
        "return nsynth.engine.voices.filter(v => v.releasedAt === undefined)"
        ".map(v => v.note)"
    )


def text_of(browser, name):
    return browser.run(f"return document.getElementById('{name}').textContent")


def test_the_pad_is_dragged_and_moved_by_arrow_keys(browser):
    x, y, width, height = browser.run(
        "const box = document.getElementById('field').getBoundingClientRect();"
        "return [box.left, box.top, box.width, box.height].map(Math.round)"
    )
    move = {"type": "pointerMove", "duration": 50, "x": x, "y": y}
    browser.act(
        "pointer",
        move,
        {"type": "pointerDown", "button": 0},
        {**move, "x": x + width, "y": y + height},
        {"type": "pointerUp", "button": 0},
    )
    assert browser.run("return [nsynth.engine.x, nsynth.engine.y]") == [1, 1]
    assert text_of(browser, "mix") == "100 % <b>&"
    [pad] = browser.find("#pad")
    browser.press(pad, LEFT * 10 + SHIFT + RIGHT)
    x, y = browser.run("return [nsynth.engine.x, nsynth.engine.y]")
    assert x == pytest.approx(0.51) and y == 1
    shown = browser.run(
        "const pad = document.getElementById('pad');"
        "return [pad.getAttribute('aria-valuenow'), pad.getAttribute('aria-valuetext')]"
    )
    assert shown == ["51", "49 % even, 51 % <b>&"]


def test_keys_by_mouse_and_by_keyboard_alone(browser):
    note = "#keys [data-note='62']"
    x, y = browser.run(
        f'const box = document.querySelector("{note}").getBoundingClientRect();'
        "return [box.left + box.width / 2, box.bottom - 9].map(Math.round)"
    )
    move = {"type": "pointerMove", "duration": 0, "x": x, "y": y}
    browser.act("pointer", move, {"type": "pointerDown", "button": 0})
    browser.wait("await new Promise(done => setTimeout(done, 50));")
    assert voices(browser) == [62]
    assert browser.run(
        f'return document.querySelector("{note}").classList.contains("held")'
    )
    browser.act("pointer", {"type": "pointerUp", "button": 0})
    assert voices(browser) == []
    # One stop for the Tab key; arrows move within; Space plays while it is down.
    assert len(browser.find("#keys [tabindex='0']")) == 1
    browser.run("document.querySelector('#keys [tabindex=\"0\"]').focus()")
    press = [{"type": kind, "value": RIGHT} for kind in ("keyDown", "keyUp")]
    browser.act("key", *press, *press, {"type": "keyDown", "value": SPACE})
    browser.wait("await new Promise(done => setTimeout(done, 50));")
    assert voices(browser) == [browser.run("return nsynth.state.base") + 2]
    browser.act("key", {"type": "keyUp", "value": SPACE})
    assert voices(browser) == []


def test_hold_keeps_notes_and_the_octave_shifts(browser):
    base = browser.run("return nsynth.state.base")
    [hold], [higher] = browser.find("#hold"), browser.find("#higher")
    browser.click(hold)
    tap = [
        {"type": "keyDown", "value": "a"},
        {"type": "pause", "duration": 60},
        {"type": "keyUp", "value": "a"},
    ]
    browser.act("key", *tap)
    browser.click(higher)
    browser.act("key", *tap)
    assert voices(browser) == [base, base + 12]
    browser.click(hold)
    assert voices(browser) == []


def test_midi_plays_bends_and_moves(browser):
    """A device that is not there: the page asks the browser, which the test answers."""
    browser.run(
        """window.port = {name: "a <keyboard>"};
        navigator.requestMIDIAccess = async () => ({inputs: new Map([[1, port]])});"""
    )
    browser.click(*browser.find("#midi"))
    send = "port.onmidimessage({data: %s}); await new Promise(r => setTimeout(r, 50));"
    browser.wait(send % [0x90, 60, 127])
    browser.wait(send % [0x91, 64, 1])
    assert voices(browser) == [60, 64]
    assert text_of(browser, "midi") == "MIDI: a <keyboard>"
    browser.wait(send % [0xB0, 1, 127])
    browser.wait(send % [0xB0, 74, 0])
    assert text_of(browser, "mix") == "100 % odd"
    browser.wait(send % [0xE0, 0, 64 + 32])
    assert browser.run("return nsynth.engine.bend") == 1
    browser.wait(send % [0xB0, 64, 127])  # the pedal
    browser.wait(send % [0x90, 60, 0])
    browser.wait(send % [0x81, 64, 0])
    assert voices(browser) == [60, 64]
    browser.wait(send % [0xB0, 64, 0])
    assert voices(browser) == []


@pytest.mark.parametrize("browser", [(390, 844), (1200, 900)], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser, scheme):
    browser.emulate(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    wide = browser.run("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    # The pad and the keyboard are on the screen together.
    bottom = browser.run(
        "const box = document.getElementById('keys').getBoundingClientRect();"
        "return box.bottom - innerHeight"
    )
    assert bottom <= 0
    # Contrast of what is written, as WCAG computes it.
    low = browser.run(
        """const lightness = (text) => {
          const [r, g, b] = text.match(/[\\d.]+/g).map(Number).slice(0, 3).map(
            v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const behind = (one) => {
          const color = getComputedStyle(one).backgroundColor;
          return /, 0\\)$/.test(color) ? behind(one.parentElement) : color; };
        return Math.min(...[...document.querySelectorAll(
            "h1, .corner, figcaption span, label, output, button, .letter, .help"
          )].filter(one => one.textContent.trim() && one.offsetParent).map(one => {
            const colors = [getComputedStyle(one).color, behind(one)];
            const [a, b] = colors.map(lightness).sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05); }));"""
    )
    assert low >= 4.5
    names = browser.run(
        """return [...document.querySelectorAll("button, input, [role=slider]")]
          .filter(one => !(one.getAttribute("aria-label") || one.textContent.trim()
            || one.closest("label")?.textContent.trim())).length"""
    )
    assert names == 0


def test_it_is_one_file_that_asks_for_nothing(page, browser):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|fetch\(|XMLHttp|import\(|url\((?!data)", text)
    assert "<b>&" not in text.split("<script")[0]
    assert browser.run("return performance.getEntriesByType('resource').filter("
                       "one => !one.name.startsWith('data:')).length") == 0  # fmt: skip
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["points"]) == 9 and len(data["sounds"]) == 27
    assert data["names"] == ["low", "odd", "even", "<b>&"]
    assert (ROOT / "magenta_nsynth/plotting/instrument.js").is_file()
