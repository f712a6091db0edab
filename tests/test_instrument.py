"""An instrument's sounds, files and resuming. Most need no weights."""

import json
import logging
import math
import os
import signal
import struct
import subprocess

import numpy as np
import pytest
from binaries import command, environment, error_line, run
from instruments import (
    HOP,
    RATE,
    SumModel,
    TransposingModel,
    files,
    make,
    tone,
    write_sounds,
)

from magenta_nsynth.audio import load_audio, save_audio
from magenta_nsynth.audio.pitch import cents_off, fundamental
from magenta_nsynth.commands.instrument_super import pad_name
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.notes.naming import NameRules

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def model(tmp_path):
    return SumModel(tmp_path)


@pytest.fixture
def sources(tmp_path):
    """Four tones of different pitches' classes of partials, all at 60."""
    partials = [(1,), (1, 0.5), (1, 0, 0.5), (1, 1, 1)]
    for name, shares in zip(NAMES, partials, strict=True):
        write_sounds(tmp_path, **{f"{name}_C4": tone(60, 0.5, partials=shares)})
    return [tmp_path / f"{name}_C4.wav" for name in NAMES]


def manifest(folder):
    return json.loads((folder / "instrument.json").read_text())


def unprocessed(folder, row, column, pitch=60):
    content = manifest(folder)
    [point] = [p for p in content["points"] if (p["row"], p["column"]) == (row, column)]
    sound = content["sounds"][point["sounds"][str(pitch)]]
    return load_audio(folder / sound["unprocessed"])


@pytest.mark.parametrize(("count", "num_sounds"), [(1, 1), (2, 3), (3, 9), (4, 9)])
def test_one_to_four_corners(model, sources, tmp_path, count, num_sounds):
    out = tmp_path / "out"
    assert make(model, sources[:count], out) == 0
    content = manifest(out)
    assert len(content["sounds"]) == num_sounds == len(model.made)
    assert len(content["points"]) == 9
    names = {f"sfz/r{r}c{c}.sfz" for r in range(3) for c in range(3)}
    expected = {*names, "sfz/grid.sfz", "index.html", *content["sounds"]}
    assert set(content["files"]) == expected
    raw = {sound["unprocessed"] for sound in content["sounds"].values()}
    assert files(out) == expected | raw | {"instrument.json"}
    # Every mix is the mean of its sources, by its weights.
    tones = [load_audio(path)[: 8000 // HOP * HOP] for path in sources[:count]]
    for point in content["points"]:
        made = unprocessed(out, point["row"], point["column"])
        mean = np.tensordot(point["weights"], tones, 1)
        np.testing.assert_allclose(made, mean, atol=1e-6)
    corner = {1: [1], 2: [0, 1], 3: [0, 0.5, 0.5], 4: [0, 0, 0, 1]}[count]
    assert content["points"][-1]["weights"] == corner


def test_five_sources_and_none_are_refused(model, sources, tmp_path):
    with pytest.raises(InputError, match="5 sources"):
        make(model, [*sources, sources[0]], tmp_path / "out")
    with pytest.raises(InputError, match="--source_path"):
        make(model, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_corners_are_an_instrument_before_the_rest(model, sources, tmp_path):
    out, seen = tmp_path / "out", []
    generate = model.sounds

    def sounds(embeddings, options):
        seen.append((len(embeddings), (out / "index.html").exists()))
        if len(seen) == 2:
            content = manifest(out)
            places = [(p["row"], p["column"]) for p in content["points"]]
            assert places == [(0, 0), (0, 2), (2, 0), (2, 2)]
            assert "r2c2" in (out / "sfz/grid.sfz").read_text()
            assert not (out / "nsynth_super").exists()
        return generate(embeddings, options)

    model.sounds = sounds
    assert make(model, sources, out, nsynth_super=True, batch_size=32) == 0
    assert seen == [(4, False), (5, True)]
    assert len(manifest(out)["points"]) == 9 and (out / "nsynth_super").exists()


def test_batches_are_as_few_as_allowed_and_alike(model, sources, tmp_path):
    sizes, generate = [], model.sounds
    model.sounds = lambda these, options: (
        sizes.append(len(these)) or generate(these, options)
    )
    make(model, sources, tmp_path / "out", grid="3x5", batch_size=6)
    assert sizes == [4, 6, 5]


def test_the_same_command_makes_only_what_is_missing(model, sources, tmp_path, caplog):
    out = tmp_path / "out"
    make(model, sources, out, grid="2x2", seed=1)
    before = {name: (out / name).read_bytes() for name in files(out)}
    assert len(model.made) == 4
    make(model, sources, out, grid="2x2", seed=1)
    assert len(model.made) == 4
    next((out / "unprocessed").glob("*.wav")).unlink()
    make(model, sources, out, grid="2x2", seed=1)
    assert len(model.made) == 5
    # A sound that was broken off has a mark.
    next((out / "unprocessed").glob("*.wav")).with_suffix(".wav.unfinished").touch()
    make(model, sources, out, grid="2x2", seed=1)
    assert len(model.made) == 6
    assert before == {name: (out / name).read_bytes() for name in files(out)}
    # Another grid has the same corners; another seed does not.
    make(model, sources, out, grid="3x3", seed=1)
    assert len(model.made) == 6 + 5
    make(model, sources, out, grid="3x3", seed=2)
    assert len(model.made) == 11 + 9


def test_a_smaller_grid_removes_what_is_no_longer_part_of_it(model, sources, tmp_path):
    out = tmp_path / "out"
    make(model, sources, out, nsynth_super=True)
    raw = {name for name in files(out) if name.startswith("unprocessed")}
    (out / "sounds/mine.wav").write_text("mine")
    make(model, sources, out, grid="1x2")
    content = manifest(out)
    assert files(out) == raw | {"instrument.json", "sounds/mine.wav"} | set(
        content["files"]
    ) | {s["unprocessed"] for s in content["sounds"].values()}
    assert len(content["sounds"]) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.html", "<html>"),
        ("instrument.json", "{}"),
        ("instrument.json", '{"files": ["../a.wav"]}'),
        ("instrument.json", '{"files": ["sounds/../../a_060.wav"]}'),
    ],
)
def test_a_folder_of_somebody_else_is_refused(model, sources, tmp_path, name, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        make(model, sources, out)
    assert files(out) == {name} and not model.made


def test_shards_make_what_one_program_makes(model, sources, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make(model, sources, whole, seed=1)
    model.made.clear()
    for index in (1, 0):
        assert make(model, sources, parts, seed=1, shard_index=index, num_shards=2) == 0
        assert (parts / "index.html").exists() == (index == 0)
    assert len(model.made) == 9
    assert files(whole) == files(parts)
    for name in files(whole):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shard_index": 2, "num_shards": 2}, "--shard_index=2"),
        ({"shard_index": 0}, "go together"),
        ({"grid": "3"}, "--grid=3"),
        ({"grid": "0x3"}, "--grid=0x3"),
        ({"grid": ""}, "--grid"),
        ({"grid": "2x3", "nsynth_super": True}, "as many rows as columns"),
        ({"grid": "129x1"}, "--grid=129x1: give at most 128"),
        ({"seconds": math.nan}, "--seconds must be 0.2 to 60"),
        ({"batch_size": 0}, "--batch_size"),
    ],
)
def test_wrong_options_are_refused_first(model, sources, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        make(model, sources, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def sources_at(folder, name, *pitches, **options):
    (folder / name).mkdir()
    named = {f"{name}_{pitch}": tone(pitch, 0.5, **options) for pitch in pitches}
    return write_sounds(folder / name, **named)


def test_a_pitch_that_only_some_have_is_played_faster_or_slower(
    model, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "absl")
    one = sources_at(tmp_path, "one", 48, 60, 72)
    other = sources_at(tmp_path, "other", 54, partials=(1, 0.3))
    out = tmp_path / "out"
    make(model, [one, other], out, grid="1x2")
    content = manifest(out)
    assert content["pitches"] == [48, 54, 60, 72]
    for pitch in content["pitches"]:
        for column in (0, 1):
            made = unprocessed(out, 0, column, pitch)
            assert abs(cents_off(fundamental(made), pitch)) < 5
    found = content["sounds"]["sounds/r0c1_072.wav"]["sources"]
    assert found[0]["made_of_pitch"] == 54
    assert found[0]["playback_rate"] == pytest.approx(2**1.5, abs=1e-6)
    assert "other has no pitch 72: it is made of 54, played at 2.828" in caplog.text
    # Of two that are as near, the lower one.
    found = content["sounds"]["sounds/r0c0_054.wav"]["sources"]
    assert found[0]["made_of_pitch"] == 48


def test_a_model_that_takes_a_pitch_transposes(tmp_path, caplog):
    caplog.set_level(logging.INFO, "absl")
    model, out = TransposingModel(tmp_path), tmp_path / "out"
    one = sources_at(tmp_path, "one", 60)
    make(model, [one], out, grid="1x1", pitches=(60, 67))
    assert sorted(model.made) == [60, 67]
    np.testing.assert_array_equal(
        unprocessed(out, 0, 0, 60), unprocessed(out, 0, 0, 67)
    )
    assert "one has no pitch 67: the model makes it of 60" in caplog.text


def test_lengths(model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "absl")
    write_sounds(tmp_path, a_C4=tone(60, 0.3), b_C4=tone(60, 0.8))
    paths, out = [tmp_path / "a_C4.wav", tmp_path / "b_C4.wav"], tmp_path / "out"
    make(model, paths, out, grid="1x2")
    short, long = (unprocessed(out, 0, column) for column in (0, 1))
    assert len(short) == len(long) == int(0.8 * RATE) // HOP * HOP
    assert not short[int(0.3 * RATE) :].any() and long[int(0.5 * RATE) :].any()
    make(model, paths, out, grid="1x2", seconds=0.5)
    assert len(unprocessed(out, 0, 1)) == int(0.5 * RATE) // HOP * HOP
    assert "b at 60: the first 0.50 of 0.80 s are used" in caplog.text


def test_a_silent_source(model, sources, tmp_path, caplog):
    save_audio(tmp_path / "none_C4.wav", np.zeros(8000, np.float32))
    out = tmp_path / "out"
    make(model, [sources[0], tmp_path / "none_C4.wav"], out, grid="1x3")
    content = manifest(out)
    silent = content["sounds"]["sounds/r0c2_060.wav"]
    assert silent["loop"] is None and silent["loudness_lufs"] is None
    assert silent["gain"] == 1 and silent["cents_off"] is None
    assert content["out_of_tune"] == ["sounds/r0c2_060.wav"]
    assert not load_audio(out / "sounds/r0c2_060.wav").any()
    levels = [content["sounds"][f"sounds/r0c{c}_060.wav"] for c in (0, 1)]
    assert levels[0]["loudness_lufs"] == pytest.approx(
        levels[1]["loudness_lufs"], abs=0.1
    )
    assert "r0c2_060.wav: no clear pitch instead of pitch 60" in caplog.text


def test_the_noise_of_silence_is_not_made_loud(model, sources, tmp_path):
    noise = np.random.default_rng(0).normal(0, 5e-4, 8000).astype(np.float32)
    save_audio(tmp_path / "none_C4.wav", noise)
    out = tmp_path / "out"
    make(model, [sources[0], tmp_path / "none_C4.wav"], out, grid="1x2")
    facts = manifest(out)["sounds"]["sounds/r0c1_060.wav"]
    assert facts["gain"] == 1 and facts["loop"] is None
    assert np.abs(load_audio(out / "sounds/r0c1_060.wav")).max() < 0.003


def test_tuning(model, tmp_path, caplog):
    write_sounds(
        tmp_path,
        sharp_C4=tone(60, 0.6, cents=30),
        other_C4=tone(64, 0.6),
        noise_C4=np.random.default_rng(0).normal(0, 0.1, 9600).astype(np.float32),
    )
    paths = [tmp_path / f"{name}_C4.wav" for name in ("sharp", "other", "noise")]
    out = tmp_path / "out"
    make(model, paths, out, grid="2x2")
    content = manifest(out)
    sharp = content["sounds"]["sounds/r0c0_060.wav"]
    assert sharp["tune_cents"] == pytest.approx(-30, abs=1.5)
    assert "tune=-30" in (out / "sfz/r0c0.sfz").read_text()
    assert {"sounds/r0c1_060.wav", "sounds/r1c0_060.wav"} <= set(content["out_of_tune"])
    assert content["sounds"]["sounds/r0c1_060.wav"]["tune_cents"] == 0
    assert "r0c1_060.wav: a fundamental of 329.6 Hz instead of pitch 60" in caplog.text
    make(model, paths, out, grid="2x2", tune=False)
    sharp = manifest(out)["sounds"]["sounds/r0c0_060.wav"]
    assert sharp["tune_cents"] == 0 and abs(sharp["cents_off"] - 30) < 1.5
    assert "tune=" not in (out / "sfz/r0c0.sfz").read_text()


STEPS = ("remove_offset", "remove_clicks", "trim", "fade", "match_loudness", "loop")


@pytest.fixture
def rough(tmp_path):
    """A tone at -40 dB with an offset and a click, 0.1 s after its beginning."""
    sound = np.concatenate([np.zeros(1600), 0.01 * tone(60, 0.9) / 0.5])
    sound[7000] += 0.01
    save_audio(tmp_path / "rough_C4.wav", (sound + 0.001).astype(np.float32))
    return tmp_path / "rough_C4.wav"


def test_without_finishing_the_sample_is_the_generated_sound(model, rough, tmp_path):
    out = tmp_path / "out"
    make(model, [rough], out, grid="1x1", **dict.fromkeys(STEPS, False))
    made, raw = load_audio(out / "sounds/r0c0_060.wav"), unprocessed(out, 0, 0)
    np.testing.assert_array_equal(made, np.round(raw * 32768) / 32768)


def test_every_step_of_finishing_does_its_part(model, rough, tmp_path):
    found = {}
    for left_out in ("", *STEPS):
        out = tmp_path / f"without_{left_out}"
        options = {left_out: False} if left_out else {}
        make(model, [rough], out, grid="1x1", **options)
        audio = load_audio(out / "sounds/r0c0_060.wav")
        [facts] = manifest(out)["sounds"].values()
        assert unprocessed(out, 0, 0)[7000] == load_audio(rough)[7000]
        found[left_out] = audio, facts
    whole, facts = found[""]
    assert facts["samples"] == len(whole)
    assert abs(whole.mean()) < 1e-3 * whole.max()
    raw, _ = found["remove_offset"]
    assert raw.mean() > 0.05 * raw.max()
    assert facts["clicks_removed"] == 1
    assert found["remove_clicks"][1]["clicks_removed"] == 0
    assert 1500 < facts["samples_trimmed"] < 1700
    assert found["trim"][1]["samples_trimmed"] == 0
    assert whole[0] == whole[-1] == 0
    assert np.abs(whole).max() > 0.5 and facts["gain"] > 30
    assert np.abs(found["match_loudness"][0]).max() < 0.02
    assert facts["loop"] and facts["loop_seam_db"] < -60
    assert found["loop"][1]["loop"] is None


def test_neighbours_are_equally_loud_and_none_clips(model, tmp_path):
    rng = np.random.default_rng(0)
    pulses = np.zeros(8000, np.float32)
    pulses[::80] = 0.9
    sounds = {
        "a_C4": tone(60, 0.5, 0.9),
        "b_C4": tone(60, 0.5, 0.02),
        "c_C4": rng.normal(0, 0.1, 8000).astype(np.float32),
        "d_C4": pulses,
    }
    write_sounds(tmp_path, **sounds)
    out = tmp_path / "out"
    make(model, [tmp_path / f"{name}.wav" for name in sounds], out)
    found = [s["loudness_lufs"] for s in manifest(out)["sounds"].values()]
    assert max(found) - min(found) < 0.2
    for path in (out / "sounds").glob("*.wav"):
        assert np.abs(load_audio(path)).max() < 0.9


def chunks(path):
    content = path.read_bytes()
    assert content[:4] == b"RIFF" and content[8:12] == b"WAVE"
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    place, found = 12, {}
    while place < len(content):
        name, size = struct.unpack("<4sI", content[place : place + 8])
        found[name] = content[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    return found


def opcodes(path):
    """The opcodes of each region of an SFZ file."""
    regions = []
    for line in path.read_text().splitlines():
        if line.startswith("<region>"):
            regions.append(dict(word.split("=") for word in line.split()[1:]))
    return regions


def test_samples_and_sfz_agree(model, tmp_path):
    out = tmp_path / "out"
    make(model, [sources_at(tmp_path, "one", 48, 60, 71)], out, grid="1x1")
    regions = opcodes(out / "sfz/r0c0.sfz")
    keys = [key for r in regions for key in range(int(r["lokey"]), int(r["hikey"]) + 1)]
    assert keys == [*range(128)]
    for region, pitch in zip(regions, (48, 60, 71), strict=True):
        assert region["pitch_keycenter"] == str(pitch)
        parts = chunks(out / "sfz" / region["sample"])
        note = struct.unpack("<9I", parts[b"smpl"][:36])
        assert note[2] == 62_500 and note[3] == pitch and note[7] == 1
        loop = struct.unpack("<6I", parts[b"smpl"][36:])
        assert [str(loop[2]), str(loop[3])] == [
            region["loop_start"],
            region["loop_end"],
        ]
        assert region["loop_mode"] == "loop_continuous"
        assert loop[3] < len(parts[b"data"]) // 2
    assert not (out / "sfz/grid.sfz").exists()


def test_the_grid_fades_between_all_points(model, sources, tmp_path):
    """At every place of the controllers the powers of the points add up to 1."""
    out = tmp_path / "out"
    make(model, sources, out, grid="2x3")
    groups = (out / "sfz/grid.sfz").read_text().split("<group>")[1:]
    fades = [
        dict(w.split("=") for w in g.splitlines()[1].split() if "=" in w)
        for g in groups
    ]
    assert len(fades) == 6

    def power(fade, controller, value):
        shares = 1.0
        for kind in ("in", "out"):
            low = fade.get(f"xf{kind}_locc{controller}")
            if low is not None:
                high = int(fade[f"xf{kind}_hicc{controller}"])
                part = np.clip((value - int(low)) / (high - int(low)), 0, 1)
                shares *= part if kind == "in" else 1 - part
        return shares

    for across in (0, 20, 64, 100, 127):
        for down in (0, 33, 127):
            powers = [power(f, 1, across) * power(f, 74, down) for f in fades]
            assert sum(powers) == pytest.approx(1)
    assert [power(f, 1, 64) * power(f, 74, 127) for f in fades] == [0, 0, 0, 0, 1, 0]


def test_the_names_of_a_pad_are_distinct_and_fit_a_file_name():
    assert pad_name(["a1", "a", "a"]) == "a10_a1_a2_a1a2.bin"
    assert pad_name(["", "-", "Ä b"]) == "sound0_sound1_b2_sound1b2.bin"
    assert pad_name(["x"]) == "x_x_x_x.bin"
    longest = pad_name([letter * 200 for letter in "abc"])
    assert len(longest) < 220 and longest.count("_") == 3


def test_nsynth_super(model, sources, tmp_path):
    out = tmp_path / "out"
    for folder, source in zip(NAMES, sources, strict=True):
        (tmp_path / folder).mkdir()
        audio = load_audio(source)
        write_sounds(tmp_path / folder, x_60=audio, x_48=tone(48, 0.5))
    make(model, [tmp_path / name for name in NAMES], out, grid="2x2", nsynth_super=True)
    settings = json.loads((out / "nsynth_super/settings.json").read_text())
    nsynth = settings["nsynth"]
    assert nsynth["resolution"] == 2 and nsynth["pitches"] == [48, 60]
    assert nsynth["sampleRate"] == 16_000
    names = [corner["instruments"][0]["name"] for corner in settings["corners"]]
    pad = np.fromfile(out / "nsynth_super" / ("_".join(names) + ".bin"), "<i2")
    rows = pad.reshape(2 * 2 * 2, nsynth["length"])
    # As the device finds them: (y * resolution + x) * pitches + pitch.
    for row, (y, x, pitch) in enumerate(np.ndindex(2, 2, 2)):
        point = manifest(out)["points"][2 * y + x]
        assert (point["row"], point["column"]) == (y, x)
        audio = load_audio(out / point["sounds"][str(nsynth["pitches"][pitch])])
        np.testing.assert_array_equal(rows[row, : len(audio)], audio * 32768)
        assert not rows[row, len(audio) :].any()


@pytest.mark.parametrize(
    ("stems", "name", "pitches"),
    [
        (["organ_60"], "organ", [60]),
        (["organ_24", "organ_28", "organ_84"], "organ", [24, 28, 84]),
        (["flute_acoustic_073-052-100"], "flute_acoustic_073", [52]),
        (["Grand Piano F#3"], "Grand Piano", [54]),
        (["pad midi 48"], "pad", [48]),
        (["take2"], "take", [57]),  # by its fundamental
        (["60"], "60", [60]),
    ],
)
def test_names_and_pitches(model, tmp_path, stems, name, pitches):
    folder = tmp_path / "in"
    folder.mkdir()
    write_sounds(folder, **{stem: tone(57, 0.4) for stem in stems})
    path = folder / "*.wav" if len(stems) > 1 else folder / f"{stems[0]}.wav"
    out = tmp_path / "out"
    make(model, [path], out, grid="1x1")
    [source] = manifest(out)["sources"]
    assert source["name"] == name
    assert [int(pitch) for pitch in source["files"]] == pitches


def test_of_one_pitch_the_loudest_velocity_is_taken(model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "absl")
    folder = tmp_path / "in"
    folder.mkdir()
    names = [f"bass_synthetic_033-048-{v:03}" for v in (25, 127, 100)]
    write_sounds(folder, **{name: tone(48, 0.4) for name in names})
    make(model, [folder], tmp_path / "out", grid="1x1")
    [source] = manifest(tmp_path / "out")["sources"]
    assert source["files"] == {"48": str(folder / f"{names[1]}.wav")}
    assert caplog.text.count("is left out") == 2


def test_an_unpitched_sound_is_at_60_and_rules_are_followed(model, tmp_path, caplog):
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    write_sounds(tmp_path, snare=noise, x_C3=tone(60, 0.5))
    make(model, [tmp_path / "snare.wav"], tmp_path / "out", grid="1x1")
    assert manifest(tmp_path / "out")["pitches"] == [60]
    assert "snare.wav: has no clear pitch; it is taken to be 60" in caplog.text
    rules, path = NameRules(middle_c="C3"), tmp_path / "x_C3.wav"
    make(model, [path], tmp_path / "other", grid="1x1", rules=rules)
    assert manifest(tmp_path / "other")["pitches"] == [60]


def test_a_sound_without_a_pitch_adds_none(model, sources, tmp_path, caplog):
    save_audio(tmp_path / "silent.wav", np.zeros(8000, np.float32))
    write_sounds(tmp_path, x_E3=tone(52, 0.5))
    out = tmp_path / "out"
    make(model, [tmp_path / "x_E3.wav", tmp_path / "silent.wav"], out, grid="1x2")
    assert manifest(out)["pitches"] == [52]
    assert "silent.wav: has no clear pitch; it is taken to be 60" in caplog.text


def test_a_folder_of_folders_gets_advice_that_can_be_followed(model, tmp_path):
    (tmp_path / "in" / "below").mkdir(parents=True)
    with pytest.raises(InputError, match=r"in: no .* subfolders are not read\.$"):
        make(model, [tmp_path / "in"], tmp_path / "out")


def test_samples_are_not_their_own_sources(model, sources, tmp_path):
    out = tmp_path / "out"
    make(model, sources[:1], out, grid="1x1")
    sample = out / "sounds/r0c0_060.wav"
    before = sample.read_bytes()
    for path in (sample, out / "sounds", out / "*/r0*.wav"):
        with pytest.raises(InputError, match=r"r0c0_060\.wav: is where .* --save_path"):
            make(model, [path], out, grid="1x1")
    assert sample.read_bytes() == before
    assert make(model, [sample], tmp_path / "other", grid="1x1") == 0


def test_an_infinite_sample_has_a_plain_message(model, tmp_path):
    from scipy.io import wavfile

    path = tmp_path / "x_C4.wav"
    wavfile.write(path, RATE, np.array([0, np.inf] * 4000, np.float32))
    with pytest.raises(AudioError, match="infinite samples; export it again"):
        make(model, [path], tmp_path / "out")


def test_a_damaged_generated_sound_is_named(model, sources, tmp_path):
    out = tmp_path / "out"
    make(model, sources[:1], out, grid="1x1")
    [path] = (out / "unprocessed").glob("*.wav")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AudioError, match=f"{path.name}: damaged; remove it"):
        make(model, sources[:1], out, grid="1x1")
    path.unlink()
    assert make(model, sources[:1], out, grid="1x1") == 0


def flags_of(sources, save_path, checkpoint, *others):
    paths = [f"--source_path={path}" for path in sources]
    return [*paths, f"--save_path={save_path}", f"--checkpoint_path={checkpoint}",
            "--seconds=0.2", "--seed=1", *others]  # fmt: skip


@pytest.mark.slow
def test_the_binary_resumes_after_a_kill(sources, tmp_path, tiny_checkpoint):
    whole, out = tmp_path / "whole", tmp_path / "out"
    result = run("nsynth_instrument", *flags_of(sources, whole, tiny_checkpoint))
    assert result.returncode == 0, result.stderr
    assert "9 sounds, 9 grid points at 1 pitch." in result.stderr
    flags = flags_of(sources, out, tiny_checkpoint, "--batch_size=1")
    words = command("nsynth_instrument", *flags)
    process = subprocess.Popen(words, env=environment(), stderr=subprocess.DEVNULL)
    made = out / "unprocessed"
    while process.poll() is None and len(list(made.glob("[!.]*.wav"))) < 3:
        os.sched_yield()
    # Meanwhile another program may not make the same sounds.
    process.send_signal(signal.SIGSTOP)
    line = error_line(run("nsynth_instrument", *flags, "--log=ERROR"))
    assert "another program is generating these sounds" in line
    process.kill()
    process.wait()
    kept = {
        path: path.stat().st_mtime_ns
        for path in made.glob("[!.]*.wav")
        if not path.with_suffix(".wav.unfinished").exists()
    }
    assert 2 <= len(kept) < 9
    result = run("nsynth_instrument", *flags)
    assert result.returncode == 0, result.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    # Batches of another size give the same samples.
    assert files(out) == files(whole)
    for name in files(out):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_binary_with_a_checkpoint_of_the_baseline(
    sources, tmp_path, baseline_checkpoint
):
    out = tmp_path / "out"
    others = ["--grid=1x2", "--pitches=C4,67", "--griffin_lim_iterations=1"]
    flags = flags_of(sources[:2], out, baseline_checkpoint, *others)
    result = run("nsynth_instrument", *flags)
    assert result.returncode == 0, result.stderr
    assert "a has no pitch 67: the model makes it of 60" in result.stderr
    assert len(manifest(out)["sounds"]) == 4
    assert manifest(out)["model"] == "baseline"


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--pitches=H4", "--pitches=H4"),
        ("--pitches=60,128", "--pitches=60,128"),
        ("--pitches=", "--pitches="),
        ("--grid=axb", "--grid=axb"),
        ("--seconds=0.1", "0.1"),
        ("--seconds=nan", "--seconds must be 0.2 to 60, not nan"),
        ("--grid=1x2 --nsynth_super", "as many rows as columns"),
    ],
)
def test_the_binary_refuses_in_one_line(tmp_path, flag, words):
    others = flag.split(" ")
    result = run("nsynth_instrument", f"--save_path={tmp_path}/out", *others)
    assert words in error_line(result)
    assert not (tmp_path / "out").exists()


def test_a_hum_is_removed_and_the_fundamental_is_not():
    from magenta_nsynth.audio.finishing import remove_offset

    low = tone(28, 1.0)  # 41 Hz, the lowest note of a bass
    drift = 0.2 + 0.1 * np.sin(2 * np.pi * np.arange(RATE) / RATE)
    left = remove_offset((low + drift).astype(np.float32))
    assert np.abs(left - low)[2000:-2000].max() < 0.03
    assert abs(left.mean()) < 2e-3


def test_clicks_of_any_sign_are_repaired_and_pulses_stay():
    from magenta_nsynth.audio.finishing import remove_clicks

    sound, places = tone(60, 1.0), [2000, 5001, 9999]
    broken = sound.copy()
    broken[places] += [0.4, -0.6, 0.3]
    repaired, count = remove_clicks(broken)
    assert count == 3
    np.testing.assert_allclose(repaired, sound, atol=5e-3)
    pulses = 0.01 * np.sin(np.arange(RATE) / 3).astype(np.float32)
    pulses[::200] = 0.8
    same, count = remove_clicks(pulses)
    assert count == 0 and (same == pulses).all()
    assert remove_clicks(np.zeros(1000, np.float32))[1] == 0


def test_a_loop_is_seamless_wherever_it_is():
    from magenta_nsynth.audio.looping import add_loop, seam_db

    rng = np.random.default_rng(0)
    noise = np.convolve(rng.normal(0, 0.1, 20_000), np.ones(4) / 4, "same")
    vibrato = np.sin(
        2 * np.pi * (261 * np.arange(RATE) / RATE) + 2 * np.sin(np.arange(RATE) / 500)
    )
    for sound in (tone(61, 1.0), noise, 0.5 * vibrato):
        sound = sound.astype(np.float32)
        looped, loop = add_loop(sound)
        assert loop.end - loop.start >= RATE // 5
        assert seam_db(looped, loop) < -60
        # Played round, no jump is beyond those within.
        around = np.concatenate(
            [looped[: loop.end], *[looped[loop.start : loop.end]] * 2]
        )
        jumps = np.abs(np.diff(around, 2))
        seam = jumps[loop.end - 20 : loop.end + 20].max()
        assert seam <= 1.05 * jumps[640:].max()
        power = np.convolve(around**2, np.ones(800) / 800, "valid")[1000:-1000]
        assert power[loop.end - 3000 : loop.end].min() > 0.4 * np.median(power)
    broken = looped.copy()
    broken[loop.end - 1] += 0.01
    assert seam_db(broken, loop) > -60


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.3])
def test_what_is_short_or_dies_away_has_no_loop(seconds):
    from magenta_nsynth.audio.looping import add_loop

    size = int(seconds * RATE)
    assert add_loop(tone(60, 1.0)[2000 : 2000 + size])[1] is None
    decaying = tone(60, 1.0) * np.exp(-np.arange(RATE) / 1500)
    assert add_loop(decaying.astype(np.float32))[1] is None


def test_loudness_is_that_of_ffmpeg(tmp_path):
    """ffmpeg's ebur128 filter, which shares no code with ours."""
    import re
    import shutil

    from magenta_nsynth.audio.perceived import perceived_loudness

    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    rng = np.random.default_rng(0)
    sounds = [tone(48, 3.0), tone(84, 3.0, 0.1), rng.normal(0, 0.05, 48_000)]
    sounds.append(np.concatenate([tone(60, 2.0), 0.05 * tone(60, 2.0)]))
    for sound in sounds:
        save_audio(tmp_path / "sound.wav", sound.astype(np.float32))
        words = ["ffmpeg", "-nostats", "-i", str(tmp_path / "sound.wav"), "-af",
                 "ebur128", "-f", "null", "-"]  # fmt: skip
        said = subprocess.run(words, capture_output=True, text=True).stderr
        found = float(re.findall(r"I: +(-?[\d.]+) LUFS", said)[-1])
        assert perceived_loudness(sound) == pytest.approx(found, abs=0.15)
    assert perceived_loudness(np.zeros(8000)) == -math.inf
