"""Pictures: their colours, where things are in them, and that nothing is cut off."""

import itertools
import pathlib
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import magenta_nsynth as nsynth
from magenta_nsynth.errors import InputError
from magenta_nsynth.plotting.figure import draw_figure, save_figure, write_figure
from magenta_nsynth.plotting.options import Look, grid_of
from magenta_nsynth.plotting.panel import (
    Panel,
    curve_colors,
    fit_labels,
    frequency_ticks,
)
from magenta_nsynth.plotting.rainbowgrams import color_of


def tone(hertz, seconds=1.0, level=0.3):
    return level * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)


def picture(seed=0, bins=24, frames=251, **fields):
    image = np.random.default_rng(seed).integers(0, 256, [bins, frames, 3], np.uint8)
    frequencies = np.geomspace(65.4, 4000, bins)
    return Panel(f"p{seed}", image=image, frequencies=frequencies, **fields)


def pixels(figure):
    """[height, width, 3] floats, the top first."""
    FigureCanvasAgg(figure)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)


def bare_axis(width, height):
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    return figure, figure.add_axes((0, 0, 1, 1))


def test_colors_are_those_of_black_over_the_rainbow():
    """Against matplotlib's own blending of the two layers that the spec draws."""
    rng = np.random.default_rng(1)
    magnitude, phase = rng.random([30, 40]), rng.uniform(-1, 1, [30, 40])
    figure, ax = bare_axis(40, 30)
    ax.set_axis_off()
    layers = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
    ax.imshow(phase, cmap="rainbow", vmin=-1, vmax=1, **layers)
    black = np.zeros([30, 40, 4])
    black[..., 3] = 1 - magnitude
    ax.imshow(black, **layers)
    expected = pixels(figure)[::-1]
    assert np.abs(color_of(magnitude, phase) - expected).max() <= 2


def test_silence_is_black_and_full_magnitude_is_the_color():
    image = color_of(np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]]))
    assert image.dtype == np.uint8
    assert (image[0, 0] == 0).all()
    assert (image[0, 1] == [255, 0, 0]).all()  # the rainbow's end
    assert not nsynth.rainbowgram_image(np.zeros(8000)).any()


def test_low_notes_are_at_the_bottom_and_the_attack_on_the_left():
    audio = np.concatenate([np.zeros(16000), tone(110, 3.0)])
    figure, ax = bare_axis(400, 240)
    gram = nsynth.draw_rainbowgram(ax, audio)
    ax.set_axis_off()
    brightness = pixels(figure).sum(axis=2)
    # 110 Hz is nine semitones above C2, 30 of 240 bins.
    assert abs(239 - brightness[:, 300].argmax() - 30) <= 1
    columns = brightness[170:].sum(axis=0)
    assert columns[:60].sum() < 0.05 * columns[140:200].sum()
    assert gram.magnitude.shape == (240, 251)
    assert not ax.get_xticks().size and not ax.get_yticks().size


def test_an_image_has_the_highest_bin_first():
    image = nsynth.rainbowgram_image(np.stack([tone(110), tone(1760)]))
    assert image.shape == (2, 240, 63, 3) and image.dtype == np.uint8
    rows = image[:, :, 30].sum(axis=2, dtype=int).argmax(axis=1)
    assert np.abs(rows - [239 - 30, 239 - 190]).max() <= 1


def test_notes_and_hertz_beside_the_transforms():
    places, labels = frequency_ticks(nsynth.rainbowgram(tone(220)).frequencies, "notes")
    named = dict(zip(labels, places, strict=True))
    assert list(named) == ["C8", "C7", "C6", "C5", "C4", "C3", "C2"]
    # C8 itself is one bin above the highest.
    assert named["C4"] == pytest.approx(80, abs=0.1)
    assert named["C2"] == pytest.approx(0, abs=0.1)
    stft = nsynth.rainbowgram(tone(220), transform="stft").frequencies
    places, labels = frequency_ticks(stft, "hz")
    assert labels[0] == "8k"
    named = dict(zip(labels, places, strict=True))
    assert named["4k"] == pytest.approx(256)
    assert -np.diff(places).max() >= 0.05 * len(stft)
    assert frequency_ticks(stft, "notes")[1] == ["C8", "C7", "C6", "C5"]
    _, labels = frequency_ticks(np.geomspace(261.63, 523.25, 41), "notes")
    assert " ".join(labels) == "C5 B4 A4 G4 F4 E4 D4 C4"


def test_an_embedding_is_a_curve_in_its_own_color_for_each_channel():
    encoding = np.random.default_rng(2).normal(size=[25, 16])
    _, ax = bare_axis(100, 100)
    nsynth.draw_embedding(ax, encoding)
    assert len(ax.lines) == 16
    assert (
        len(
            {
                line.get_color()
                if isinstance(line.get_color(), str)
                else tuple(line.get_color())
                for line in ax.lines
            }
        )
        == 16
    )
    np.testing.assert_allclose(ax.lines[3].get_ydata(), encoding[:, 3], rtol=1e-6)
    # Frame k is centred on its 512 samples.
    np.testing.assert_allclose(
        ax.lines[0].get_xdata(), (np.arange(25) + 0.5) * 512 / 16000
    )
    assert len({tuple(color) for color in curve_colors(64)}) == 64


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        (np.zeros([1, 1984]), "1984 channels"),
        (np.zeros(16), r"shape \[16\]"),
        (np.zeros([2, 4, 16]), r"shape \[2, 4, 16\]"),
        (np.zeros([0, 16]), r"shape \[0, 16\]"),
        (np.full([3, 16], np.nan), "not finite numbers"),
        (np.full([3, 16], 1e300), "not finite numbers"),
    ],
)
def test_what_is_no_embedding_over_time_is_refused(encoding, words):
    with pytest.raises(InputError, match=words):
        nsynth.draw_embedding(bare_axis(50, 50)[1], encoding)


def test_other_arguments_that_can_not_be_used():
    _, ax = bare_axis(50, 50)
    with pytest.raises(InputError, match="axis must be"):
        nsynth.draw_rainbowgram(ax, tone(220), axis="bark")
    with pytest.raises(InputError, match="'rainbo' is not one of"):
        nsynth.draw_rainbowgram(ax, tone(220), colormap="rainbo")
    with pytest.raises(InputError, match="one clip"):
        nsynth.draw_rainbowgram(ax, np.stack([tone(220)] * 2))
    for audio, words in (
        (np.full(900, np.nan), "finite floats"),
        (np.zeros(900, np.int16), "divide by 32768"),
        ([[0.1], [0.1, 0.2]], "finite floats"),
    ):
        with pytest.raises(InputError, match=words):
            nsynth.draw_rainbowgram(ax, audio)
        with pytest.raises(InputError, match=words):
            nsynth.rainbowgram_image(audio)
    with pytest.raises(InputError, match="above 0"):
        nsynth.draw_embedding(ax, np.ones([2, 4]), hop_length=0)


def test_grids():
    assert grid_of(1) == (1, 1)
    assert grid_of(6) == (2, 3)
    assert grid_of(33, rows=3) == (3, 11)
    assert grid_of(33, columns=11) == (3, 11)
    with pytest.raises(InputError, match="-1 x 0"):
        grid_of(3, -1, 0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 11)])
def test_every_cell_has_its_picture_in_reading_order(rows, columns):
    panels = [picture(seed=i) for i in range(rows * columns)]
    figure = draw_figure(panels, rows, columns, Look(height=0.5))
    assert len(figure.axes) == rows * columns
    places = [ax.get_position() for ax in figure.axes]
    for i, place in enumerate(places):
        row, column = divmod(i, columns)
        assert place.x0 == pytest.approx(places[column].x0)
        assert place.y0 == pytest.approx(places[row * columns].y0)
        assert not figure.axes[i].get_xticks().size
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(places[:columns]))
    np.testing.assert_array_equal(
        figure.axes[-1].images[0].get_array(), panels[-1].image
    )


def test_longer_sounds_share_a_scale_of_time_with_shorter_ones():
    panels = [picture(frames=751), picture(frames=251)]
    long, short = draw_figure(panels).axes
    assert long.get_xlim() == short.get_xlim() == pytest.approx((-0.008, 12.008))
    assert short.images[0].get_extent()[:2] == pytest.approx((-0.008, 4.008))
    long, short = draw_figure(panels, look=Look(own_width=True)).axes
    assert short.get_xlim() == pytest.approx((-0.008, 4.008))


def test_curves_lie_under_their_picture_in_time_and_on_one_scale():
    curves = np.random.default_rng(3).normal(size=[125, 16]).astype(np.float32)
    panels = [picture(curves=curves), picture(curves=3 * curves)]
    above, below, _, other = draw_figure(panels).axes
    assert below.get_position().x0 == pytest.approx(above.get_position().x0)
    assert below.get_position().y1 < above.get_position().y0
    assert below.get_xlim() == above.get_xlim()
    assert below.get_ylim() == other.get_ylim()
    assert below.get_ylim()[1] > 3 * curves.max()


LONG = "an_instrument_with_a_long_name_that_goes_on_and_on_" * 3


@pytest.mark.parametrize(
    ("axis", "frames"), [("none", 251), ("notes", 251), ("hz", 13), ("notes", 37_501)]
)
def test_no_label_is_cut_off_or_lies_on_another(axis, frames):
    curves = np.ones([125, 16], np.float32)
    panels = [picture(i, frames=frames, curves=curves) for i in range(6)]
    look = Look(
        axis=axis,
        title=LONG,
        titles=[LONG, "short", "$x_1$ costs", LONG.replace("_", ""), "e", "f"],
        row_labels=[LONG, "b"],
        column_labels=["one", LONG, "three"],
    )
    figure = draw_figure(panels, 2, 3, look)
    pixels(figure)
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [ax.get_tightbbox(renderer) for ax in figure.axes]
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        for other in boxes[i + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            along = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 1 or along < 1, (box, other)
    assert not any(text.get_parse_math() for text in figure.texts)
    texts = [text.get_text() for text in figure.texts]
    assert "short" in texts and "$x_1$ costs" in texts


def test_labels_are_broken_between_names():
    names = ["string_cello_050", "flute_flute_060"]
    for label in (" + ".join(names), "+".join(names)):
        [text], _ = fit_labels([label], 1.4, 9)
        assert [line.strip("+ ") for line in text.split("\n")] == names
    [text], _ = fit_labels([" + ".join(names)], 0.8, 9)  # no size is small enough
    assert "…" in text or text.count("\n") == 1


def test_columns_are_labelled_above_the_first_row():
    look = Look(title="heading", column_labels=["one", "two"], titles=list("abcd"))
    figure = draw_figure([picture(i) for i in range(4)], 2, 2, look)
    heights = {text.get_text(): text.get_position()[1] for text in figure.texts}
    assert heights["heading"] > heights["one"] == heights["two"] > heights["a"]
    assert heights["a"] > figure.axes[0].get_position().y1


def test_curves_alone_have_a_cell_to_themselves():
    curves = np.ones([125, 16], np.float32)
    figure = draw_figure([picture(curves=curves), Panel("z", curves=curves)])
    above, below, alone = (ax.get_position() for ax in figure.axes)
    assert alone.y1 == pytest.approx(above.y1) and alone.y0 == pytest.approx(below.y0)


def test_words_stand_in_the_place_of_a_picture():
    panels = [picture(), Panel("bad", message="bad.wav: the file is empty")]
    figure = draw_figure(panels)
    assert figure.axes[1].texts[0].get_text() == "bad.wav: the file is empty"


@pytest.mark.parametrize(
    ("count", "grid", "look", "words"),
    [
        (0, (0, 0), {}, "nothing to draw"),
        (4, (1, 3), {}, "don't fit a grid of 1 x 3"),
        (2, (1, 2), {"titles": ["a"]}, "Titles: 1 were given, but 2"),
        (2, (1, 2), {"row_labels": ["a", "b"]}, "Row labels: 2 .* 1"),
        (2, (1, 2), {"column_labels": ["a"]}, "Column labels: 1 .* 2"),
        (1, (1, 1), {"axis": "x"}, "axis must be"),
        (1, (1, 1), {"dpi": 1}, "10 to 2400"),
        (900, (1, 900), {}, "30000 pixels"),
    ],
)
def test_figures_that_can_not_be(count, grid, look, words):
    panels = [picture(bins=2, frames=251)] * count
    with pytest.raises(InputError, match=words):
        draw_figure(panels, *grid, Look(**look))


def test_very_many_pictures_get_smaller():
    figure = draw_figure([picture(bins=2)] * 60, 1, 60, Look(dpi=300))
    assert max(figure.get_size_inches()) * 300 <= 30_000


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_file_is_the_same_every_time_and_whatever_the_users_style(tmp_path, ending):
    panels = [picture(curves=np.ones([3, 16], np.float32))]
    look = Look(titles=["a"], axis="notes")
    one, other = tmp_path / f"1.{ending}", tmp_path / f"2.{ending}"
    write_figure(one, panels, look=look)
    style = {"image.origin": "upper", "savefig.bbox": "tight", "axes.facecolor": "red"}
    with matplotlib.rc_context(style):
        write_figure(other, panels, look=look)
    assert one.read_bytes() == other.read_bytes()
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert one.read_bytes().startswith(start)


def test_a_figure_that_can_not_be_written_leaves_nothing(tmp_path):
    figure = draw_figure([picture()])
    with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf"):
        save_figure(figure, tmp_path / "a.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        save_figure(figure, tmp_path / "file" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_figures_path_is_expanded_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "there")
    figure = draw_figure([Panel("a", message="x")])
    save_figure(figure, "$PLACE/a.png")
    write_figure("$PLACE/b.png", [Panel("a", message="x")])
    assert (tmp_path / "there" / "a.png").exists()
    assert (tmp_path / "$PLACE" / "b.png").exists()


def test_a_missing_font_is_refused_and_a_missing_letter_is_a_box(tmp_path, recwarn):
    with pytest.raises(InputError, match="No font 'No Such Font 7'"):
        draw_figure([picture()], look=Look(font="No Such Font 7"))
    look = Look(titles=["\U0010fffd x"], font="serif")
    write_figure(tmp_path / "a.png", [picture()], look=look)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_the_package_data_is_there():
    import magenta_nsynth.plotting.page as page

    assert (pathlib.Path(page.__file__).parent / "page.html").exists()


DRAWING = """
import sys
import numpy as np
from magenta_nsynth.plotting.figure import write_figure
from magenta_nsynth.plotting.options import Look
from magenta_nsynth.plotting.page import write_page
from magenta_nsynth.plotting.panel import Panel

panels = [Panel("a\\udcff", image=np.zeros([4, 4, 3], np.uint8))]
look = Look(title="\\udcff", titles=["\\ud800"])
for kind in ("png", "svg", "pdf"):
    write_figure(f"{sys.argv[1]}/a.{kind}", panels, look=look)
write_page(sys.argv[1], panels, 1, "")
import matplotlib
assert not {"matplotlib.pyplot", "tkinter"} & set(sys.modules)
assert "tensorflow" not in sys.modules
print(matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize(
    ("backend", "kept"),
    [("module://not_there.backend", ""), ("TkAgg", "tkagg"), ("nonsense", "")],
)
def test_pictures_need_no_backend(tmp_path, backend, kept):
    """A notebook hands its own on to what it starts, which may not have it."""
    home = tmp_path / "home"
    home.mkdir(0o555)
    result = subprocess.run(
        [sys.executable, "-c", DRAWING, tmp_path],
        env={"MPLBACKEND": backend, "HOME": str(home), "LANG": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    if kept:
        assert result.stdout.strip().lower() == kept
    assert (tmp_path / "a.pdf").stat().st_size > 1000


@pytest.mark.parametrize("transform", ["cqt", "stft"])
def test_what_overflows_in_a_spectrum_is_not_drawn(transform):
    with pytest.raises(InputError, match=r"a\.wav: too loud to be drawn"):
        nsynth.make_panel("a.wav", 1e38 * tone(440, 0.3), transform=transform)
