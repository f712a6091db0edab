"""From files to figures: nsynth_rainbowgram, and its flags."""

import dataclasses
import json
import os
import signal
import sys
import time
import zlib

import numpy as np
import pytest
import tfrecords
from binaries import (
    command,
    environment,
    error_line,
    finish,
    run,
    run_and_signal,
)
from matplotlib.image import imread

from magenta_nsynth.api import load_wavenet
from magenta_nsynth.audio import load_audio, save_audio
from magenta_nsynth.commands.picture_labels import bare_names, listed, split_start
from magenta_nsynth.commands.picture_options import (
    Additions,
    PictureOutput,
    RainbowgramOptions,
)
from magenta_nsynth.commands.picture_panels import (
    Companions,
    PanelMaker,
    Subject,
    find_subjects,
)
from magenta_nsynth.commands.picture_sounds import reconstruct, settings_of
from magenta_nsynth.commands.rainbowgram import (
    draw_each,
    draw_one_figure,
    draw_rainbowgrams,
)
from magenta_nsynth.data.filters import NoteFilter
from magenta_nsynth.disk import only_writer
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.files import Source
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.parallel import in_processes
from magenta_nsynth.plotting import figure as figure_module
from magenta_nsynth.plotting.options import Look


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_wavenet(tiny_checkpoint)


@pytest.fixture
def sounds(tmp_path):
    """A folder of three notes, of 0.1, 0.2 and 0.3 s, and one of silence."""
    folder = tmp_path / "sounds"
    for i, name in enumerate("abc"):
        seconds = np.arange(1600 * (i + 1)) / 16000
        sound = 0.4 * np.sin(2 * np.pi * 220 * (i + 1) * seconds)
        save_audio(folder / f"{name}.wav", sound)
    save_audio(folder / "silence.wav", np.zeros(3200))
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, as (panels, rows, columns, look)."""
    calls = []
    draw = figure_module.draw_figure

    def record(*arguments):
        calls.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(figure_module, "draw_figure", record)
    return calls


def subjects_of(*paths, note_filter=None, left_out=(), **options):
    inputs = Inputs(paths, **{"sample_length": 0, **options})
    return find_subjects(inputs, note_filter or NoteFilter(), left_out)


def panel_maker(model=None, keep_audio=False, **additions):
    options = RainbowgramOptions(), Additions(**additions)
    return PanelMaker(*options, model, keep_audio=keep_audio)


def one_figure(path, save_path, maker=None, look=None, **options):
    output = PictureOutput(str(save_path), **options)
    maker = maker or panel_maker()
    return draw_one_figure(subjects_of(path), maker, output, look or Look())


def each(subjects, save_path, **options):
    output = PictureOutput(str(save_path), **{"num_workers": 1, **options})
    return draw_each(subjects, panel_maker(), output, Look())


def test_a_folder_becomes_one_figure_with_names(sounds, tmp_path, drawn):
    assert one_figure(sounds, tmp_path / "f.png") == 0
    [(panels, rows, columns, look)] = drawn
    assert (rows, columns) == (2, 2)
    assert look.titles == ["a", "b", "c", "silence"]
    assert [panel.image.shape for panel in panels] == [
        (240, 7, 3), (240, 13, 3), (240, 19, 3), (240, 13, 3),
    ]  # fmt: skip
    assert not panels[3].image.any()
    assert panels[0].image.any()
    assert imread(tmp_path / "f.png").std() > 0.1


def test_names_give_way_to_labels(sounds, tmp_path, drawn):
    labels = {"row_labels": ["x", "y"], "column_labels": ["p", "q"]}
    one_figure(sounds, tmp_path / "f.png", look=Look(**labels))
    one_figure(sounds, tmp_path / "f.png", look=Look(titles=list("wxyz")))
    one_figure(sounds, tmp_path / "f.png", names=False)
    one_figure(sounds / "a.wav", tmp_path / "f.png")
    one_figure(sounds / "a.wav", tmp_path / "f.png", names=True)
    titles = [list(look.titles) for *_, look in drawn]
    assert titles == [[], list("wxyz"), [], ["a"], ["a"]]


def test_a_bad_file_keeps_its_cell_and_is_reported(sounds, tmp_path, drawn, caplog):
    (sounds / "b.wav").write_bytes(b"")
    assert one_figure(sounds, tmp_path / "f.png") == 1
    panels = drawn[0][0]
    assert "b.wav" in panels[1].message and panels[2].image is not None
    assert "missing of 1 of 4 sounds" in caplog.text
    for name in ("a", "c", "silence"):
        (sounds / f"{name}.wav").write_bytes(b"")
    assert one_figure(sounds, tmp_path / "none.png") == 1
    assert not (tmp_path / "none.png").exists()


def test_originals_stand_beside_their_reconstructions(sounds, tmp_path, drawn, caplog):
    again = tmp_path / "again"
    for name in ("a", "b", "silence"):
        save_audio(again / f"gen_{name}.wav", np.full(800, 0.1))
    maker = panel_maker(reconstructions_path=str(again))
    assert one_figure(sounds, tmp_path / "f.png", maker) == 1
    [(panels, rows, columns, look)] = drawn
    assert (rows, columns) == (4, 2)
    assert list(look.row_labels) == ["a", "b", "c", "silence"]
    assert list(look.column_labels) == ["Original", "Reconstruction"]
    assert [panel.image.shape[1] for panel in panels[:4]] == [7, 4, 13, 4]
    assert "c.wav" in panels[5].message and "found no file" in panels[5].message
    maker = panel_maker(reconstructions_path=str(again))
    one_figure(sounds, tmp_path / "f.png", maker, grid="2x4")
    assert drawn[1][1:3] == (2, 4)
    assert list(drawn[1][3].titles) == list(np.repeat(["a", "b", "c", "silence"], 2))
    with pytest.raises(InputError, match="even number"):
        one_figure(sounds, tmp_path / "f.png", maker, grid="3x3")
    caplog.clear()


def test_curves_come_from_npy_files(sounds, tmp_path, drawn, caplog):
    encodings = np.random.default_rng(0).normal(size=[6, 16])
    np.save(sounds / "a_embeddings.npy", encodings)
    np.save(sounds / "b.npy", encodings[:2])
    np.save(sounds / "c.npy", np.zeros([1, 1984]))
    maker = panel_maker(embeddings_path=str(sounds))
    assert one_figure(sounds, tmp_path / "f.png", maker) == 1
    panels = drawn[0][0]
    np.testing.assert_array_equal(panels[0].curves, encodings.astype(np.float32))
    assert panels[1].curves.shape == (2, 16)
    # A picture without curves is better than none.
    assert panels[2].curves is None and panels[2].image is not None
    assert "1984 channels" in caplog.text and "silence.wav" in caplog.text
    # The embeddings alone are curves alone.
    path = sounds / "a_embeddings.npy"
    assert one_figure(path, tmp_path / "g.png", names=True) == 0
    [panel], look = drawn[1][0], drawn[1][3]
    assert panel.image is None and panel.curves.shape == (6, 16)
    assert look.titles == ["a"]


def test_curves_come_from_a_checkpoint(model, tmp_path, golden_tiny, drawn, caplog):
    """The original's encodings of its clip."""
    save_audio(tmp_path / "a.wav", golden_tiny["audio"][0])
    save_audio(tmp_path / "b.wav", np.zeros(100))
    maker = panel_maker(model, embeddings=True)
    assert one_figure(str(tmp_path / "*.wav"), tmp_path / "f.svg", maker) == 1
    expected = golden_tiny["raw_encoding"][0]
    found = drawn[0][0][0].curves
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert drawn[0][0][0].seconds_per_row == model.config.ae_hop_length / 16000
    assert "b: " in caplog.text and "too few" in caplog.text


def test_each_sound_has_a_file(sounds, tmp_path, caplog):
    (sounds / "deep").mkdir()
    (sounds / "a.wav").rename(sounds / "deep" / "a.wav")
    (sounds / "b.wav").write_bytes(b"no sound")
    out = tmp_path / "out"

    def draw(**options):
        return each(subjects_of(sounds, recursive=True), out, **options)

    assert draw() == 1
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert written == ["c.png", "deep/a.png", "silence.png"]
    assert "b.wav" in caplog.text
    first = (out / "c.png").read_bytes()
    (out / "c.png").unlink()
    (out / "silence.png").write_bytes(b"mine")
    draw(skip_existing=True)
    assert (out / "c.png").read_bytes() == first
    assert (out / "silence.png").read_bytes() == b"mine"
    draw(format="pdf")
    assert (out / "deep" / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_file_of_one_sound_shows_its_name(sounds, tmp_path, drawn):
    for names in (None, False):
        output = PictureOutput(str(tmp_path / "out"), names=names, num_workers=1)
        draw_each(subjects_of(sounds / "a.wav"), panel_maker(), output, Look())
    assert [list(look.titles) for *_, look in drawn] == [["a"], []]
    again = tmp_path / "again"
    save_audio(again / "gen_a.wav", np.full(800, 0.1))
    maker = panel_maker(reconstructions_path=str(again))
    output = PictureOutput(str(tmp_path / "out"), num_workers=1)
    draw_each(subjects_of(sounds / "a.wav"), maker, output, Look())
    assert (drawn[2][3].title, list(drawn[2][3].titles)) == ("a", [])


def test_names_are_without_what_they_have_in_common(sounds, tmp_path, drawn):
    mixes = tmp_path / "mixes"
    stems = [f"gen_a_1+b_2_r0c{i}_{i}_{1 - i}_embeddings" for i in (0, 1)]
    for stem in stems:
        save_audio(mixes / f"{stem}.wav", np.full(800, 0.1))
    page = tmp_path / "page"
    one_figure(mixes, tmp_path / "f.png", html=str(page))
    text = (page / "index.html").read_text()
    assert "<h1>a_1+b_2: 2 sounds</h1>" in text and "<span>r0c1_1_0</span>" in text
    one_figure(mixes, tmp_path / "f.png", look=Look(title="Mixes"))
    (*_, look), (*_, titled) = drawn
    assert (look.title, list(look.titles)) == ("a_1+b_2", ["r0c0_0_1", "r0c1_1_0"])
    assert titled.title == "Mixes" and titled.titles[0] == "a_1+b_2_r0c0_0_1"


@pytest.mark.parametrize(
    ("names", "start", "rest"),
    [
        (["a_0.5_0.5", "a_0.25_0.75"], "a", ["0.5_0.5", "0.25_0.75"]),
        (["a_b", "a_b_c"], "a", ["b", "b_c"]),
        (["a_", "a_b"], "", ["a_", "a_b"]),
        (["abc", "abx"], "", ["abc", "abx"]),
        (["a_b", "a_b"], "", ["a_b", "a_b"]),
    ],
)
def test_what_names_start_with(names, start, rest):
    assert split_start(names) == (start, rest)


def test_names_stay_different():
    assert bare_names(["gen_a", "b_embeddings", "gen_"]) == ["a", "b", "gen_"]
    assert bare_names(["gen_a", "a"]) == ["gen_a", "a"]


def test_sounds_in_a_heading():
    assert listed(["a"]) == "a" and listed(list("abcd")) == "a, b, c and d"
    assert listed(list("abcde")) == "a, b and 3 more"


def test_several_processes_draw_the_same(sounds, tmp_path):
    for i in range(8):
        save_audio(sounds / f"more_{i}.wav", np.sin(np.arange(1000.0) * (i + 1) / 9))
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        (out / "a.png").mkdir(parents=True)  # so a.png can't be written
        assert each(subjects_of(sounds), out, num_workers=workers) == 1
    one, two = tmp_path / "out1", tmp_path / "out2"
    drawn = sorted(path.name for path in one.glob("*.png") if path.is_file())
    assert len(drawn) == 11
    for name in drawn:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_worker_that_dies_is_said():
    with pytest.raises(NSynthError, match="fewer --num_workers"):
        list(in_processes(os._exit, [("", (1,))], 2))


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    program = f"""
import multiprocessing, time
from magenta_nsynth.parallel import in_processes
if __name__ == "__main__":
    calls = in_processes(time.sleep, [(i, (0 if i < 7 else 600,)) for i in range(9)], 2)
    next(calls)
    workers = multiprocessing.active_children()
    with open({str(tmp_path / "workers")!r}, "w") as file:
        print(*[worker.pid for worker in workers], file=file)
    time.sleep(600)
"""
    (tmp_path / "program.py").write_text(program)
    words = [sys.executable, str(tmp_path / "program.py")]
    run_and_signal(words, tmp_path / "workers", signal.SIGKILL)
    deadline = time.monotonic() + 30
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 2
    while any(os.path.exists(f"/proc/{pid}/fd/0") for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_can_not_be_written_stops_nothing_else(sounds, tmp_path, caplog):
    save_audio(sounds / "deep" / "a.wav", np.ones(900) / 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").touch()
    assert each(subjects_of(sounds, recursive=True), tmp_path / "out") == 1
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
    assert "deep" in caplog.text


def test_what_was_made_is_not_read(sounds, tmp_path):
    save_audio(sounds / "made" / "gen_a.wav", np.ones(900) / 2)
    save_audio(sounds / "page" / "a.wav", np.ones(900) / 2)
    left_out = [sounds / "made", sounds / "page"]
    assert subjects_of(sounds, recursive=True, left_out=left_out).number == 4
    found = subjects_of(sounds, limit=2)
    assert [s.name for s in found.subjects] == ["a", "b"] and found.number == 2


def test_companions_by_the_names_that_the_tools_give(tmp_path):
    for name in ("gen_a", "a", "gen_b_embeddings", "gen_gen_b_embeddings"):
        save_audio(tmp_path / f"{name}.wav", np.ones(900) / 2)
    found = Companions(tmp_path, [".wav"], "--x")
    for name, companion in (
        ("a", "gen_a"), ("b", "gen_b_embeddings"),
        ("gen_b_embeddings", "gen_gen_b_embeddings"),
    ):  # fmt: skip
        subject = Subject(name, Source(str(tmp_path / f"{name}.wav"), ""), None)
        assert found.of(subject) == str(tmp_path / f"{companion}.wav")
    with pytest.raises(InputError, match="--x"):
        found.of(Subject("gen_gen_b_embeddings", Source(found.of(subject), ""), None))


def test_captions_say_what_titles_and_labels_say(sounds, tmp_path):
    again = tmp_path / "again"
    for name in ("a", "b", "c", "silence"):
        save_audio(again / f"gen_{name}.wav", np.full(800, 0.1))
    maker = panel_maker(reconstructions_path=str(again), keep_audio=True)
    page = tmp_path / "page"
    one_figure(sounds, "", maker, grid="2x4", html=str(page))
    text = (page / "index.html").read_text()
    assert "<span>a: original</span>" in text
    assert "<span>a: reconstruction</span>" in text
    look = Look(row_labels=["x", "y"], column_labels=["p", "q"])
    one_figure(sounds, "", look=look, html=str(page))
    assert "<span>c - y - p</span>" in (page / "index.html").read_text()
    # What the larger page had is gone.
    assert len(list((page / "pictures").iterdir())) == 4
    assert not list((page / "sounds").iterdir())


def test_two_sounds_with_one_picture_are_refused(sounds, tmp_path):
    save_audio(sounds / "deep" / "a.wav", np.ones(900) / 2)
    with pytest.raises(InputError, match="both be written"):
        each(subjects_of(sounds, sounds / "deep"), tmp_path / "out")


def test_notes_of_a_tfrecord(tmp_path, drawn, caplog):
    records = tfrecords.examples([0, 1, 2, 3, 1], length=900)
    path = tfrecords.write(tmp_path / "notes.tfrecord", records)
    out = tmp_path / "out"
    assert each(subjects_of(path), out) == 1
    assert len(list(out.iterdir())) == 4
    assert "another note has the same name" in caplog.text
    found = subjects_of(path, limit=2, sample_length=600)
    output = PictureOutput(str(tmp_path / "f.png"))
    draw_one_figure(found, panel_maker(), output, Look())
    panels, look = drawn[-1][0], drawn[-1][3]
    assert [panel.image.shape[1] for panel in panels] == [3, 3]
    assert look.titles[0].startswith(tfrecords.FAMILIES[0])
    chosen = NoteFilter(min_pitch=3, max_pitch=3)
    assert subjects_of(path, note_filter=chosen).number == 1
    with pytest.raises(InputError, match="for folders of sounds"):
        subjects_of(path, recursive=True)
    save_audio(tmp_path / "a.wav", np.zeros(900))
    for options in ({"note_filter": chosen}, {"skip_corrupt": True}):
        with pytest.raises(InputError, match="for TFRecords"):
            subjects_of(tmp_path / "a.wav", **options)


def test_a_list_of_sounds(sounds, tmp_path):
    (tmp_path / "list.txt").write_text("sounds/c.wav\nsounds/a.wav\n")
    found = subjects_of(tmp_path / "list.txt")
    assert [subject.name for subject in found.subjects] == ["c", "a"]


def test_where_things_go(sounds, tmp_path):
    assert PictureOutput(str(tmp_path / "new" / "f.png")).is_figure
    assert PictureOutput("", html=str(tmp_path / "page")).is_figure
    assert not PictureOutput(str(tmp_path / "pictures")).is_figure
    (tmp_path / "odd.png").mkdir()
    assert not PictureOutput(str(tmp_path / "odd.png")).is_figure
    for output, words in (
        (PictureOutput(str(tmp_path / "f.jpg")), r"\.png, \.svg, \.pdf"),
        (PictureOutput("pictures", html="page"), "--html needs one figure"),
        (PictureOutput(), "Give --save_path"),
    ):
        with pytest.raises(InputError, match=words):
            output.check(Look())
    with pytest.raises(InputError, match="can't be written to"):
        one_figure(sounds, "/proc/nowhere/f.png")
    with pytest.raises(InputError, match="Titles"):
        one_figure(sounds, tmp_path / "new" / "f.png", look=Look(titles=["a"]))
    assert not (tmp_path / "new").exists()


def test_reconstructions_are_made_once_and_not_of_other_settings(
    model, tmp_path, golden_tiny, monkeypatch
):
    save_audio(tmp_path / "a.wav", golden_tiny["audio"][0][:1024])
    folder, options = str(tmp_path / "made"), Generation(batch_size=2, seed=31)

    def make(options=options, sounds="*.wav"):
        reconstruct(model, subjects_of(tmp_path / sounds), folder, 0, options)

    make()
    made = load_audio(tmp_path / "made" / "gen_a.wav")
    expected = model.generate(model.encode(golden_tiny["audio"][0][:1024]), seed=31)
    np.testing.assert_array_equal(made, expected)
    crc = zlib.crc32((tmp_path / "a.wav").read_bytes())
    # As every version writes it: an earlier run's sounds are used again.
    assert (tmp_path / "made" / "settings.json").read_text() == (
        f'{{\n "checkpoint": "{model.checkpoint_path}",\n "use_ema": false,\n'
        ' "sample_length": 0,\n "seed": 31,\n "temperature": 1.0,\n'
        f' "made_of": {{\n  "gen_a.wav": {crc}\n }}\n}}\n'
    )
    with monkeypatch.context() as patch:
        patch.setattr(model, "stream", None)  # nothing is left to generate
        make()
    with pytest.raises(InputError, match="other settings"):
        make(dataclasses.replace(options, seed=5))
    # Another sound of that name is not taken for the first one's reconstruction.
    save_audio(tmp_path / "a.wav", golden_tiny["audio"][1][:512])
    make()
    assert len(load_audio(tmp_path / "made" / "gen_a.wav")) == 512
    np.save(tmp_path / "z.npy", np.zeros([1, 16]))
    with pytest.raises(InputError, match="made of sound files"):
        make(sounds="z.npy")
    with pytest.raises(InputError, match="--sample_length=100 is less"):
        reconstruct(model, subjects_of(tmp_path / "a.wav"), folder, 100, options)


def test_reconstructions_mirror_folders(model, tmp_path, golden_tiny, caplog):
    for name in ("a.wav", "x/a.wav", "x/$y/b.wav"):
        save_audio(tmp_path / "in" / name, golden_tiny["audio"][0][:512])
    save_audio(tmp_path / "in" / "short.wav", np.zeros(100))
    found = subjects_of(tmp_path / "in", recursive=True)
    folder = tmp_path / "made"
    reconstruct(model, found, str(folder), 0, Generation(seed=1))
    made = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.wav"))
    assert made == ["gen_a.wav", "x/$y/gen_b.wav", "x/gen_a.wav"]
    assert "short.wav" in caplog.text


def test_sounds_of_somebody_elses_are_not_made_again(model, tmp_path):
    save_audio(tmp_path / "a.wav", np.ones(512) / 2)
    mine = tmp_path / "mine" / "gen_a.wav"
    mine.parent.mkdir()
    mine.write_text("mine")
    subjects, folder = subjects_of(tmp_path / "a.wav"), str(mine.parent)
    arguments = (model, subjects, folder, 0, Generation(seed=1))
    with pytest.raises(InputError, match=r"gen_a\.wav: already exists"):
        reconstruct(*arguments)
    assert mine.read_text() == "mine" and len(os.listdir(folder)) == 1
    mine.unlink()
    with (
        only_writer(folder),
        pytest.raises(InputError, match=r"another program .* --sounds_path"),
    ):
        reconstruct(*arguments)
    for content in ("[]", '{"made_of": []}'):
        (mine.parent / "settings.json").write_text(content)
        with pytest.raises(
            InputError, match=r"settings\.json: .* another --sounds_path"
        ):
            reconstruct(*arguments)


def test_the_circle(model, tmp_path, golden_tiny, drawn, monkeypatch):
    clips = {"bass": golden_tiny["audio"][0][:512]}
    clips["organ"] = golden_tiny["audio"][1][:1024]
    clips["flute"] = golden_tiny["audio"][1][1024:1536] / 2
    order = ("bass", "organ", "flute")
    for name in order:
        save_audio(tmp_path / f"{name}.wav", clips[name])
    save_audio(tmp_path / "other" / "bass.wav", clips["flute"])
    paths = [tmp_path / f"{name}.wav" for name in order[:2]]
    paths.append(tmp_path / "other" / "bass.wav")  # two of one name

    def draw(paths=paths, look=None):
        made = str(tmp_path / "made")
        return draw_rainbowgrams(
            model,
            Inputs(paths, sample_length=0),
            NoteFilter(),
            PictureOutput(str(tmp_path / "circle.png")),
            RainbowgramOptions(),
            look or Look(),
            Additions(embeddings=True, circle=True, sounds_path=made),
            Generation(batch_size=6, seed=1),
        )

    assert draw() == 0
    [(panels, rows, columns, look)] = drawn
    assert (rows, columns) == (2, 7)
    assert list(look.column_labels) == [
        "bass", "bass + organ", "organ", "organ + bass", "bass", "bass + bass", "bass",
    ]  # fmt: skip
    assert "sums" in look.row_labels[0] and "means" in look.row_labels[1]
    captions = [panels[i].caption for i in (0, 1, 7, 8)]
    assert captions == [
        "bass: original", "bass + organ: sum of the signals",
        "bass: reconstruction", "bass + organ: mean of the embeddings",
    ]  # fmt: skip
    # Above: the embedding of the signals' mean; below: the mean of the embeddings.
    half = (clips["bass"] + clips["organ"][:512]) / 2
    np.testing.assert_allclose(panels[1].curves, model.encode(half), atol=1e-5)
    both = (model.encode(clips["bass"]) + model.encode(clips["organ"])[:1]) / 2
    np.testing.assert_allclose(panels[8].curves, both, atol=1e-6)
    expected = panel_maker().sound("", model.generate(both, seed=1))
    np.testing.assert_array_equal(panels[8].image, expected.image)
    assert (panels[7].curves != panels[11].curves).any()
    assert (panels[7].image != panels[11].image).any()
    # Again: nothing is generated, and the picture is the same.
    first = (tmp_path / "circle.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(model, "stream", None)
        assert draw() == 0
    assert (tmp_path / "circle.png").read_bytes() == first
    settings = json.loads((tmp_path / "made" / "settings.json").read_text())
    assert list(settings) == ["checkpoint", "use_ema", "seed", "temperature", "made_of"]
    rounded = Generation(seed=1, precision="int8")
    assert settings_of(model, rounded)["precision"] == "int8"
    with monkeypatch.context() as patch:  # before hours of work
        patch.setattr(model, "encode_prepared", None)
        with pytest.raises(InputError, match="Titles"):
            draw(look=Look(titles=["a"]))
    np.save(tmp_path / "z.npy", np.zeros([1, 16]))
    for too_few in (paths[:1], [paths[0], tmp_path / "z.npy"]):
        with pytest.raises(InputError, match="two sound files or more"):
            draw(too_few)


# In place of the modules that need TensorFlow; prints the options that they get.
STUB = """
import json, os, runpy, sys, types
def draw_rainbowgrams(*arguments):
    print(json.dumps([repr(argument) for argument in arguments]))
stub = types.ModuleType("magenta_nsynth.commands.rainbowgram")
stub.draw_rainbowgrams = draw_rainbowgrams
sys.modules[stub.__name__] = stub
from magenta_nsynth import cli
from magenta_nsynth.commands.options import Network
from magenta_nsynth.notes.inputs import Inputs
cli.load_tensorflow = lambda: None
Network.open = lambda self: self
Network.check = Inputs.check = lambda self: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def given(*arguments):
    """What the binary calls the command with, as texts."""
    words = command("nsynth_rainbowgram", "--source_path=a", *arguments)
    words[1:2] = ["-c", STUB, words[1]]
    result = finish(words, env=environment())
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_flags_reach_the_command():
    arguments = ["--save_path=f.png", "--grid=3X11", "--title=t", "--limit=5"]
    arguments += ["--row_labels=a,b,c", "--axis=hz", "--dpi=99", "--height=1.5"]
    arguments += ["--colormap=hsv", "--peak_db=60", "--demodulate", "--num_bins=84"]
    arguments += ["--bins_per_octave=12", "--fmin=55", "--transform_hop_length=128"]
    arguments += ["--filter_scale=1", "--recursive", "--min_pitch=3", "--html=p"]
    arguments += ["--embeddings", "--checkpoint_path=c", "--names", "--use_ema"]
    arguments += ["--reconstructions_path=r", "--sample_length=9"]
    network, *options = given(*arguments)
    assert "'c', model='wavenet', use_ema=True" in network
    expected = [
        Inputs(("a",), recursive=True, sample_length=9, limit=5),
        NoteFilter(min_pitch=3),
        PictureOutput("f.png", "p", "3X11", True),
        RainbowgramOptions(
            hop_length=128, peak_db=60.0, demodulate=True, fmin=55.0, num_bins=84,
            bins_per_octave=12, filter_scale=1.0, colormap="hsv",
        ),
        Look("hz", 99, 1.5, title="t", row_labels=("a", "b", "c")),
        Additions(embeddings=True, reconstructions_path="r"),
        Generation(batch_size=16),
    ]  # fmt: skip
    assert options == [repr(one) for one in expected]


def test_flags_reach_the_circle_and_the_files():
    arguments = ["--save_path=f.png", "--checkpoint_path=c", "--circle"]
    arguments += ["--seed=4", "--temperature=0.5", "--batch_size=3"]
    *_, additions, generation = given(*arguments)
    assert additions == repr(Additions(circle=True))
    assert generation == repr(Generation(3, seed=4, temperature=0.5))
    arguments = ["--save_path=o", "--format=svg", "--skip_existing", "--num_workers=3"]
    network, _, _, output, *_ = given(*arguments)
    assert network == "None"
    assert output == repr(
        PictureOutput("o", format="svg", skip_existing=True, num_workers=3)
    )


FIGURE = "--save_path=f.png"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([FIGURE, "--grid=3"], "rows x columns"),
        ([FIGURE, "--grid=0x3"], "rows x columns"),
        (
            [FIGURE, "--transform=stft", "--fmin=9"],
            "--fmin does nothing with --transform=stft",
        ),
        ([FIGURE, "--n_fft=9"], "--n_fft does nothing"),
        ([FIGURE, "--limit=-1"], "limit"),
        ([FIGURE, "--names", "--titles=a"], "--names does nothing with --titles"),
        ([FIGURE, "--checkpoint_path=c"], "--checkpoint_path does nothing"),
        ([FIGURE, "--use_ema"], "--use_ema does nothing"),
        ([FIGURE, "--seed=1"], "--seed does nothing"),
        ([FIGURE, "--batch_size=1"], "--batch_size does nothing"),
        ([FIGURE, "--sounds_path=a"], "--sounds_path does nothing"),
        ([FIGURE, "--skip_existing"], "--skip_existing does nothing for one figure"),
        ([FIGURE, "--embeddings"], "Give --checkpoint_path"),
        ([FIGURE, "--circle"], "Give --checkpoint_path"),
        ([FIGURE, "--circle", "--limit=3"], "--limit does not go with --circle"),
        ([FIGURE, "--circle", "--grid=1x2"], "--grid does not go with --circle"),
        ([FIGURE, "--circle", "--reconstructions"], "does not go with --circle"),
        (["--save_path=o", "--circle"], "--circle makes one figure"),
        (["--save_path=o", "--title=x"], "--title does nothing"),
        (["--save_path=o", "--html=p"], "--html needs one figure"),
        (["--html=p", "--dpi=99"], "--dpi does nothing without a figure"),
        ([FIGURE, "--axis=bark"], "<none|notes|hz>"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments, words):
    result = run("nsynth_rainbowgram", "--source_path=a", *arguments)
    assert words in error_line(result)


def test_the_binary_draws_without_a_display(sounds, tmp_path):
    result = run(
        "nsynth_rainbowgram",
        *(f"--source_path={sounds}", f"--save_path={tmp_path / 'f.pdf'}"),
        *("--axis=notes", f"--html={tmp_path / 'page'}", "--log=WARN"),
    )
    assert result.returncode == 0 and result.stdout == ""
    assert (tmp_path / "f.pdf").stat().st_size > 5000
    assert (tmp_path / "page" / "index.html").exists()
