"""nsynth_interpolate: names, weights, lengths and levels of mixes; the manifest."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
import recipe
from binaries import command, names, run, run_and_signal
from commands import DEFAULT, generate, split
from scipy.io import wavfile

import magenta_nsynth as nsynth
from magenta_nsynth.api import WaveNet, load_baseline
from magenta_nsynth.audio.loudness import rms
from magenta_nsynth.commands import generate as generate_job
from magenta_nsynth.commands import interpolate as interpolating
from magenta_nsynth.commands.mix_options import Mixing
from magenta_nsynth.commands.mix_plan import plan_mixes
from magenta_nsynth.commands.options import Output
from magenta_nsynth.disk import only_writer
from magenta_nsynth.errors import InputError, NSynthError
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.naming import NameRules

SOFTWARE = f"magenta_nsynth {nsynth.__version__}"
SEEDED = {"generate": True, "seed": 31}


def interpolate(model, paths, out, rules=DEFAULT, **options):
    """The command; each option goes to the class that has it."""
    options.update(source_path=paths, save_path=out)
    inputs, output, *others = split(options, Inputs, Output, Mixing, Generation)
    return interpolating.interpolate(model, inputs, rules, output, *others)


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return WaveNet(tiny_checkpoint)


@pytest.fixture(scope="module")
def baseline(baseline_start):
    return load_baseline(baseline_start)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def sounds(tmp_path, golden_tiny):
    """flute.wav and organ.wav, 12 frames each, and a shorter bass.wav."""
    (tmp_path / "in").mkdir()
    clips = {
        "flute": golden_tiny["audio"][0],
        "organ": golden_tiny["audio"][1],
        "bass": golden_tiny["audio"][1][:2100],
    }
    paths = {}
    for name, clip in clips.items():
        paths[name] = tmp_path / "in" / f"{name}.wav"
        wavfile.write(paths[name], 16_000, clip)
    return paths


@pytest.fixture
def arrays(tmp_path, golden_tiny):
    """The original's embeddings of the first two."""
    paths = {}
    for name, z in zip(("flute", "organ"), golden_tiny["raw_encoding"], strict=True):
        paths[name] = tmp_path / f"{name}_embeddings.npy"
        np.save(paths[name], z)
    return paths


@pytest.fixture
def play(model, monkeypatch):
    """Replaces generation by sounds that depend on their embedding; lists these."""
    made = []

    def stream(encodings, *_, **__):
        made.extend(encodings)
        frames = max(map(len, encodings))
        rows = [np.pad(z[:, 0], (0, frames - len(z))) for z in encodings]
        ramp = np.linspace(-0.5, 0.5, 512)
        yield np.stack([np.outer(0.1 + abs(row), ramp).ravel() for row in rows])

    monkeypatch.setattr(model, "stream", stream)
    monkeypatch.setattr(generate_job, "_announce", lambda *_: None)
    return made


def read(path):
    rate, audio = wavfile.read(path)
    assert rate == 16_000
    return audio


def manifest_of(folder):
    """The manifest's entries; checks that the files and their sources exist."""
    content = json.loads((folder / "manifest.json").read_text(encoding="ascii"))
    for name, entry in content["files"].items():
        assert (folder / name).is_file()
        for source in entry.get("sources", []):
            assert (folder / source["path"]).is_file()
    return content["files"]


def close(array, reference, golden_tiny):
    scale = np.abs(golden_tiny["raw_encoding"]).max()
    assert array.dtype == np.float32 and array.shape == reference.shape
    assert np.abs(array - reference).max() < 2e-5 * scale


def test_only_one_program_at_a_time_writes_to_a_folder(arrays, out):
    out.mkdir()
    with only_writer(str(out)), pytest.raises(InputError, match="another program"):
        interpolate(None, list(arrays.values()), out)
    assert names(out) == []
    assert interpolate(None, list(arrays.values()), out) == 0


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"files": []}',
        '{"files": {"a.npy": 1}}',
        '{"files": {"a.npy": {"embedding": ["b"]}}}',
    ],
)
def test_a_manifest_with_wrong_types_is_refused(arrays, out, content):
    out.mkdir()
    (out / "a.npy").touch()
    (out / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: .* move the file away"):
        interpolate(None, list(arrays.values()), out)


def test_two_sounds_are_mixed_halfway(model, sounds, out, golden_tiny):
    assert interpolate(model, [sounds["flute"], sounds["organ"]], out) == 0
    name = "flute+organ_0.5_0.5_embeddings.npy"
    assert names(out) == [name, "manifest.json"]
    close(np.load(out / name), golden_tiny["raw_encoding"].mean(0), golden_tiny)
    [entry] = manifest_of(out).values()
    checkpoint = os.path.relpath(model.checkpoint_path, out.resolve())
    assert list(entry.items()) == [
        ("kind", "embedding"),
        (
            "sources",
            [
                {
                    "path": "../in/flute.wav",
                    "weight": 0.5,
                    "frames": 12,
                    "samples": 6144,
                },
                {
                    "path": "../in/organ.wav",
                    "weight": 0.5,
                    "frames": 12,
                    "samples": 6144,
                },
            ],
        ),
        ("method", "linear"),
        ("stretch", 1.0),
        ("crossfade", None),
        ("sample_length", 64_000),
        ("model", "wavenet"),
        ("checkpoint", checkpoint),
        ("use_ema", False),
        ("mixed_frames", 12),
        ("mixed_samples", 6144),
        ("frames", 12),
        ("channels", 16),
        ("software", SOFTWARE),
    ]


def test_weights_and_the_order_of_sources(arrays, out, golden_tiny):
    flute, organ = golden_tiny["raw_encoding"]
    paths = [arrays["organ"], arrays["flute"]]
    assert interpolate(None, paths, out, weights=[1, 3]) == 0
    mixed = np.load(out / "organ+flute_0.25_0.75_embeddings.npy")
    np.testing.assert_allclose(mixed, 0.25 * organ + 0.75 * flute, rtol=1e-6, atol=1e-9)
    assert interpolate(None, paths, out, weights=[1.5, -0.5]) == 0
    beyond = np.load(out / "organ+flute_1.5_-0.5_embeddings.npy")
    np.testing.assert_allclose(beyond, 1.5 * organ - 0.5 * flute, rtol=1e-5, atol=1e-6)
    # A file that is named twice counts twice.
    assert interpolate(None, [*paths, paths[1]], out) == 0
    assert "organ+flute+flute_0.333_0.333_0.333_embeddings.npy" in names(out)
    assert len(manifest_of(out)) == 3


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_a_line(arrays, out, golden_tiny, method):
    paths = list(arrays.values())
    assert interpolate(None, paths, out, steps=5, method=method) == 0
    files = manifest_of(out)
    tail = "" if method == "linear" else "_spherical"
    wanted = [f"flute+organ_{1 - w:g}_{w:g}{tail}" for w in np.linspace(0, 1, 5)]
    for step, name in enumerate(wanted):
        entry = files.pop(f"{name}_embeddings.npy")
        assert (entry["step"], entry["method"]) == (step, method)
        weights = [source["weight"] for source in entry["sources"]]
        np.testing.assert_array_equal(
            np.load(out / f"{name}_embeddings.npy"),
            nsynth.mix(golden_tiny["raw_encoding"], weights, method),
        )
    assert not files


@pytest.mark.parametrize(
    ("count", "grid"), [(2, (2, 3)), (3, (2, 2)), (4, (11, 3)), (4, (1, 1))]
)
def test_grids(tmp_path, out, count, grid):
    paths = []
    for i in range(count):
        paths.append(tmp_path / f"{'abcd'[i]}.npy")
        np.save(paths[-1], np.full([2, 4], i == 1, np.float32) + 10.0 * (i == 2))
    assert interpolate(None, paths, out, grid="{}x{}".format(*grid)) == 0
    files = manifest_of(out)
    rows, columns = grid
    assert len(files) == len(names(out)) - 1 == columns * rows
    weights = nsynth.grid_weights(rows, columns, count)
    for name, entry in files.items():
        w = weights[entry["row"], entry["column"]]
        assert [source["weight"] for source in entry["sources"]] == list(w)
        value = (w * [0, 1, 10, 0][:count]).sum()
        np.testing.assert_allclose(np.load(out / name), value, rtol=1e-6)
        assert f"r{entry['row']:0{len(str(rows - 1))}}c{entry['column']}_" in name


def test_all_are_cut_to_the_shortest(model, sounds, out, golden_tiny, caplog):
    paths = [sounds["flute"], sounds["bass"]]
    with caplog.at_level("INFO", logger="absl"):
        assert interpolate(model, paths, out, steps=3, sum=True) == 0
    words = "only the first 2048 of 6144 samples"
    lines = [line for line in caplog.messages if words in line]
    assert len(lines) == 1 and "flute.wav" in lines[0] and "bass.wav" in lines[0]
    files = manifest_of(out)
    assert len(files) == 6
    for name, entry in files.items():
        assert [source["frames"] for source in entry["sources"]] == [12, 4]
        if name.endswith(".npy"):
            assert (entry["mixed_frames"], entry["mixed_samples"]) == (4, 2048)
            assert np.load(out / name).shape == (4, 16)
        else:
            assert len(read(out / name)) == entry["samples"] == 2048
    close(
        np.load(out / "flute+bass_1_0_embeddings.npy"),
        golden_tiny["raw_encoding"][0][:4],
        golden_tiny,
    )


def test_sample_length_cuts_sounds_and_embeddings(model, sounds, arrays, out, caplog):
    for paths, a_model in ((sounds, model), (arrays, None)):
        with caplog.at_level("INFO", logger="absl"):
            interpolate(
                a_model, [paths["flute"], paths["organ"]], out, sample_length=1100
            )
        assert len(np.load(out / "flute+organ_0.5_0.5_embeddings.npy")) == 2
        assert " cut " in caplog.text
        caplog.clear()
    # A stretch comes after that cut.
    interpolate(None, [arrays["flute"]], out, sample_length=1100, stretch=3)
    assert len(np.load(out / "flute_stretch3_embeddings.npy")) == 6


def test_a_stretch_and_a_crossfade(model, sounds, out, golden_tiny):
    flute, organ = golden_tiny["raw_encoding"]
    paths = [sounds["flute"], sounds["organ"]]
    assert interpolate(model, paths, out, stretch=1.5) == 0
    wanted = nsynth.time_stretch((flute + organ) / 2, 1.5)
    name = "flute+organ_0.5_0.5_stretch1.5_embeddings.npy"
    close(np.load(out / name), wanted, golden_tiny)
    assert manifest_of(out)[name]["stretch"] == 1.5
    times = (0.25, 0.75)
    assert interpolate(model, paths, out, crossfade=times, sum=True) == 0
    wanted = nsynth.crossfade(flute, organ, *times)
    name = "flute+organ_crossfade0.25-0.75_embeddings.npy"
    close(np.load(out / name), wanted, golden_tiny)
    entry = manifest_of(out)[name]
    assert entry["crossfade"] == [0.25, 0.75] and "weight" not in entry["sources"][0]
    total = read(out / "sum_flute+organ_crossfade0.25-0.75.wav")
    clips = golden_tiny["audio"]
    np.testing.assert_allclose(total[:1536], clips[0][:1536], atol=1e-7)
    np.testing.assert_allclose(total[-1536:], clips[1][-1536:], atol=1e-7)
    np.testing.assert_allclose(total[3072], clips[:, 3072].mean(), atol=1e-3)


def test_sums_do_not_clip(model, tmp_path, out, caplog):
    paths = []
    for name, value in (("one", 0.9), ("other", -0.9)):
        paths.append(tmp_path / f"{name}.wav")
        wavfile.write(paths[-1], 16_000, np.full(1024, value, np.float32))
    options = {"weights": [3, -1], "sum": True, "bit_depth": "16"}
    with caplog.at_level("INFO", logger="absl"):
        assert interpolate(model, paths, out, **options) == 0
    total = read(out / "sum_one+other_1.5_-0.5.wav")
    assert total.dtype == np.int16 and (total == 32767).all()  # not 1.8
    entry = manifest_of(out)["sum_one+other_1.5_-0.5.wav"]
    np.testing.assert_allclose(entry["scale"], 1 / 1.8, rtol=1e-6)
    assert (entry["kind"], entry["bit_depth"], entry["rate"]) == ("sum", "16", 16_000)
    assert "scaled by 0.556" in caplog.text


def test_what_is_generated_is_what_nsynth_generate_makes(model, arrays, out, tmp_path):
    paths = list(arrays.values())
    options = SEEDED | {"sample_length": 512, "temperature": 0.9}
    assert interpolate(model, paths, out, **options) == 0
    name = "flute+organ_0.5_0.5_embeddings"
    assert "precision" not in manifest_of(out)[f"gen_{name}.wav"]
    rounded = tmp_path / "int8"
    assert interpolate(model, paths, rounded, **options, precision="int8") == 0
    assert manifest_of(rounded)[f"gen_{name}.wav"]["precision"] == "int8"
    other = read(rounded / f"gen_{name}.wav")
    assert (other != read(out / f"gen_{name}.wav")).any()
    again = tmp_path / "again"
    path = [out / f"{name}.npy"]
    assert generate(model, path, again, seed=31, temperature=0.9) == 0
    sound = read(out / f"gen_{name}.wav")
    np.testing.assert_array_equal(sound, read(again / f"gen_{name}.wav"))
    entry = manifest_of(out)[f"gen_{name}.wav"]
    wanted = {
        "kind": "sound",
        "embedding": f"{name}.npy",
        "seed": 31,
        "temperature": 0.9,
        "samples": len(sound),
        "rate": 16_000,
        "scale": 1.0,
        "match_loudness": False,
        "bit_depth": "float",
    }
    assert wanted.items() <= entry.items() and "batch_size" not in entry


def test_a_long_mix_is_generated_whole(model, arrays, out, play):
    options = SEEDED | {"stretch": 20}
    assert interpolate(model, [arrays["flute"]], out, **options) == 0
    name = "gen_flute_stretch20_embeddings.wav"
    assert len(read(out / name)) == manifest_of(out)[name]["samples"] == 240 * 512


def test_the_loudness_of_the_sources(model, tmp_path, out, play):
    levels = {"loud": 0.3, "soft": 0.02, "none": 0.0}
    paths = {}
    for name, level in levels.items():
        paths[name] = tmp_path / f"{name}.wav"
        # The rest is cut off and must not count.
        clip = np.r_[np.full(1024, level), np.full(1024, 0.9)].astype(np.float32)
        wavfile.write(paths[name], 16_000, clip[: 1024 if name == "soft" else 2048])
    given = [paths["loud"], paths["soft"]]
    options = SEEDED | {"match_loudness": True}
    assert interpolate(model, given, out, steps=3, **options) == 0
    assert interpolate(model, given, out / "plain", steps=3, **SEEDED) == 0
    files = manifest_of(out)
    for weights, level in (("1_0", 0.3), ("0.5_0.5", 0.16), ("0_1", 0.02)):
        name = f"gen_loud+soft_{weights}_embeddings.wav"
        sound = read(out / name)
        assert np.abs(sound).max() < 1
        np.testing.assert_allclose(rms(sound), level, rtol=1e-5)
        plain = read(out / "plain" / name)
        np.testing.assert_allclose(sound, files[name]["scale"] * plain, rtol=1e-5)
        assert files[name]["match_loudness"] is True
    options["seed"] = None
    assert (
        interpolate(model, [paths["none"]] * 2, out, sample_length=1024, **options) == 0
    )
    assert not read(out / "gen_none+none_0.5_0.5_embeddings.wav").any()


@pytest.mark.parametrize("which", ["wavenet", "baseline"])
def test_normalized(model, baseline, which, sounds, out, play):
    options = {"griffin_lim_iterations": 1, "pitch": 60} if which == "baseline" else {}
    a_model = baseline if which == "baseline" else model
    options |= {"generate": True, "normalize": True, "seed": 1}
    assert interpolate(a_model, [sounds["flute"], sounds["bass"]], out, **options) == 0
    [path] = out.glob("gen_*.wav")
    np.testing.assert_allclose(np.abs(read(path)).max(), 1, rtol=1e-6)
    entry = manifest_of(out)[path.name]
    assert entry["normalize"] is True
    # Without --normalize, z already makes sounds with a peak of 1.
    assert (abs(entry["scale"] - 1) < 1e-4) == (which == "baseline")


def test_only_existing_files_made_in_the_same_way_are_skipped(
    model, sounds, out, play, caplog
):
    paths = [sounds["flute"], sounds["organ"]]

    def again(**options):
        play.clear()
        options = SEEDED | {"steps": 3, "sum": True} | options
        with caplog.at_level("INFO", logger="absl"):
            assert interpolate(model, paths, out, skip_existing=True, **options) == 0
        return len(play)

    assert again() == 3
    before = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    assert again() == 0
    assert "sums: 3 of 3 are done" in caplog.text
    assert {name: (out / name).stat().st_mtime_ns for name in names(out)} == before
    assert again(batch_size=2) == 0  # the same sound
    assert again(seed=32) == 3
    assert again(seed=32, method="spherical") == 3  # other names
    assert again(seed=32) == 0
    middle = out / "gen_flute+organ_0.5_0.5_embeddings.wav"
    middle.unlink()
    assert again(seed=32) == 1
    (out / f"{middle.name}.unfinished").touch()
    assert again(seed=32) == 1
    assert not (out / f"{middle.name}.unfinished").exists()
    assert again(seed=32, bit_depth="16") == 3
    assert len(manifest_of(out)) == len(names(out)) - 1 == 18


def test_a_kill_leaves_a_correct_manifest(model, arrays, out, play, monkeypatch):
    paths = list(arrays.values())
    options = SEEDED | {"steps": 3}
    assert interpolate(model, paths, out, **options) == 0
    real, written = generate_job._Batch._save, []

    def die(self, job, audio):
        if len(written) == 1:
            raise SystemExit
        real(self, job, audio)
        written.append(os.path.basename(job.path))

    monkeypatch.setattr(generate_job._Batch, "_save", die)
    with pytest.raises(SystemExit):
        interpolate(model, paths, out, **options | {"seed": 2})
    seeds = {k: e["seed"] for k, e in manifest_of(out).items() if e["kind"] == "sound"}
    # The other two files still have the earlier seed, so they have no entry.
    assert seeds == {written[0]: 2} and len(names(out)) == 7


def test_a_sound_does_not_name_a_changed_embedding(model, arrays, out, play):
    paths, sound = list(arrays.values()), "gen_flute+organ_0.5_0.5_embeddings.wav"
    interpolate(model, paths, out, **SEEDED)
    of = "flute+organ_0.5_0.5_embeddings.npy"
    interpolate(model, paths, out)
    assert manifest_of(out)[sound]["embedding"] == of
    interpolate(model, paths, out, sample_length=1024)
    assert manifest_of(out)[sound]["embedding"] is None
    interpolate(model, paths, out, skip_existing=True, **SEEDED)
    assert manifest_of(out)[sound]["embedding"] == of and len(play) == 2


def test_the_manifest_is_kept_up_to_date(arrays, out):
    paths = list(arrays.values())
    interpolate(None, paths, out, weights=[1, 3])
    interpolate(None, paths, out, weights=[3, 1])
    first = "flute+organ_0.25_0.75_embeddings.npy"
    assert len(manifest_of(out)) == 2
    (out / first).unlink()
    interpolate(None, paths, out)
    assert first not in manifest_of(out) and len(manifest_of(out)) == 2
    for content in (b"", b"[]", b'{"files": 3}', b'{"files": {"a": 1}}', b"\xff"):
        (out / "manifest.json").write_bytes(content)
        with pytest.raises(InputError, match=r"manifest\.json: .* move the file away"):
            interpolate(None, paths, out)
        assert (out / "manifest.json").read_bytes() == content


def test_paths_are_relative_to_the_real_folder(arrays, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    interpolate(None, list(arrays.values()), tmp_path / "link")
    [entry] = manifest_of(tmp_path / "link").values()
    assert entry["sources"][0]["path"] == "../../flute_embeddings.npy"


def array(*shape, value=1.0):
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ([], {}, "--source_path"),
        ([array(2, 4)], {}, "mix needs two"),
        ([array(2, 4)], {"stretch": 2, "weights": [1]}, "mix needs two"),
        ([array(2, 4)], {"stretch": 0.001}, "0.01 to 100"),
        ([array(2, 4)] * 2, {"weights": [1]}, "2 sources need 2"),
        ([array(2, 4)] * 2, {"weights": [1, -1]}, "sum to 0"),
        ([array(2, 4)] * 2, {"weights": [2, -1], "method": "spherical"}, "below 0"),
        ([array(2, 4)] * 2, {"steps": 2, "weights": [1, 1]}, "--weights and --steps"),
        ([array(2, 4)] * 2, {"steps": 2, "grid": "2x2"}, "--steps and --grid"),
        ([array(2, 4)] * 2, {"steps": 2, "crossfade": (0, 1)}, "and --crossfade"),
        ([array(2, 4)] * 2, {"crossfade": (0.5, 0.2)}, "not 0.5 and 0.2"),
        ([array(2, 4)] * 3, {"steps": 2}, "there are 3"),
        ([array(2, 4)] * 3, {"crossfade": (0, 1)}, "there are 3"),
        ([array(2, 4)] * 5, {"grid": "2x2"}, "there are 5"),
        ([array(2, 4)] * 2, {"grid": "101x100"}, "10100 mixes"),
        ([array(2, 4)] * 2, {"sum": True}, "--sum needs the sound"),
        ([array(2, 4)] * 2, {"sum": True, "stretch": 2}, "--stretch"),
        ([array(2, 4)] * 2, SEEDED, "--checkpoint_path"),
        ([array(2, 4)] * 2, {"match_loudness": True}, "--generate"),
        ([array(2, 4), array(2, 5)], {}, "1.npy (wavenet, 5 channels) are of"),
        ([array(2, 4), array(2, 4, value=np.nan)], {}, "1.npy: contains NaN"),
        ([array(2, 4), array(0, 4)], {}, "1.npy: an embedding has"),
        ([array(2, 4), array(3, 2, 4)], {}, "1.npy: contains 3 clips"),
        ([array(2, 4), array(2, 1984)], {}, "1.npy (baseline, 1984 channels)"),
        ([array(1, 1984)] * 2, {"stretch": 2}, "--stretch is for a WaveNet's"),
        ([array(1, 1984)] * 2, {"crossfade": (0, 1)}, "--crossfade is for a"),
    ],
)
def test_what_is_refused(tmp_path, out, content, options, words):
    paths = []
    for i, values in enumerate(content):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], values)
    with pytest.raises(InputError) as error:
        interpolate(None, paths, out, **options)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not out.exists() or not names(out)


def test_what_is_refused_with_a_checkpoint(model, sounds, arrays, tmp_path, out):
    short = tmp_path / "short.wav"
    wavfile.write(short, 16_000, np.zeros(300, np.float32))
    np.save(tmp_path / "wide.npy", array(2, 15))
    for paths, options, words in (
        ([sounds["flute"], short], {}, "short.wav: 300 samples"),
        ([sounds["flute"], tmp_path / "wide.npy"], {}, "16], not [2, 15]"),
        ([sounds["flute"], arrays["organ"]], {"sum": True}, "--sum needs"),
        ([sounds["flute"], arrays["organ"]],
         {"match_loudness": True, **SEEDED}, "--match_loudness needs the sound"),
        ([sounds["flute"], sounds["organ"]],
         {"match_loudness": True, "generate": True, "normalize": True}, "--normalize"),
        ([sounds["flute"], sounds["organ"]], {"sample_length": 511}, "--sample_length"),
        ([sounds["flute"], sounds["organ"]],
         {"generate": True, "batch_size": 0}, "--batch_size"),
    ):  # fmt: skip
        with pytest.raises(NSynthError) as error:
            interpolate(model, paths, out, **options)
        assert words in str(error.value)
    with pytest.raises(InputError, match=r"flute\.wav: a sound has to be encoded"):
        interpolate(None, [arrays["flute"], sounds["flute"]], out)
    assert not out.exists() or not names(out)


def test_names_are_short_and_unique(tmp_path):
    long = [f"{letter}{'ü' * 110}" for letter in "abcd"]
    grids = Mixing(grid="3x2", method="spherical", stretch=1.2345)
    longest = plan_mixes(long, grids)
    others = plan_mixes([*long[:3], long[3] + "x"], grids)
    found = [mix.name for mix in [*longest, *others]]
    assert len(set(found)) == len(found) == 12
    for name in found:
        assert len(os.fsencode(f"gen_{name}_embeddings.wav.unfinished")) <= 255
        assert all(f"{letter}ü" in name for letter in "abcd")
    many = [f"note{i}" for i in range(40)]
    [one] = plan_mixes(many, Mixing())
    [other] = plan_mixes(many, Mixing(weights=[*range(40)]))
    assert one.name.startswith("note0+note1+38_more~") and one.name.endswith("_equal")
    assert "_weights~" in other.name
    assert plan_mixes([*many[:39], "x"], Mixing())[0].name != one.name
    line = [mix.name for mix in plan_mixes(["a", "b"], Mixing(steps=5001))]
    assert len(set(line)) == 5001


def clip(length, seed=0):
    return recipe.clips(length, seed=seed, batch=1)[0]


@pytest.fixture
def notes(tmp_path):
    """Three sounds for the baseline, with their peaks."""
    made = {
        "one_C4": 0.5 * clip(3000),
        "two_D4": clip(2000, 1),
        "none_C4": np.zeros(3000),
    }
    for name, audio in made.items():
        wavfile.write(tmp_path / f"{name}.wav", 16_000, audio.astype(np.float32))
    return {name: tmp_path / f"{name}.wav" for name in made}


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_baselines_z(baseline, notes, out):
    paths = [notes["one_C4"], notes["two_D4"]]
    options = {"weights": [1, 3], "seed": 1, "griffin_lim_iterations": 3}
    options["generate"] = True
    assert interpolate(baseline, paths, out, **options) == 0
    name = "one_C4+two_D4_0.25_0.75"
    assert names(out) == sorted(
        [f"{name}_z.csv", f"{name}_z.npy", f"gen_{name}.wav", "manifest.json"]
    )
    z = [baseline.encode(path) for path in paths]
    mixed = np.load(out / f"{name}_z.npy")
    np.testing.assert_allclose(mixed, 0.25 * z[0] + 0.75 * z[1], rtol=1e-5, atol=1e-6)
    [row] = rows_of(out / f"{name}_z.csv")
    # The length is that of the shorter, the pitch that of the heavier.
    assert (row["note_str"], row["pitch"]) == (name, "62")
    assert (row["num_samples"], row["rows"]) == ("2000", "1")
    sound = read(out / f"gen_{name}.wav")
    peaks = [np.abs(read(path)).max() for path in paths]
    peak = 0.25 * peaks[0] + 0.75 * peaks[1]
    wanted = baseline.generate(mixed, 62, 2000, 3, 1, peak=peak)
    np.testing.assert_allclose(sound, wanted, atol=1e-6)
    files = manifest_of(out)
    assert files[f"{name}_z.csv"] == {"kind": "labels", "of": f"{name}_z.npy"}
    assert files[f"gen_{name}.wav"]["num_iters"] == 3
    assert files[f"gen_{name}.wav"]["model"] == "baseline"
    (out / f"{name}_z.csv").unlink()
    assert interpolate(baseline, paths, out, weights=[1, 3], skip_existing=True) == 0
    assert rows_of(out / f"{name}_z.csv") == [row]
    # A mix can be a source.
    paths = [out / f"{name}_z.npy", notes["one_C4"]]
    assert interpolate(baseline, paths, out, method="spherical") == 0
    np.testing.assert_allclose(
        np.load(out / f"{name}+one_C4_0.5_0.5_spherical_z.npy"),
        nsynth.mix([mixed, z[0]], method="spherical"),
        rtol=1e-5,
    )


def test_silence_through_the_baseline(baseline, notes, out):
    paths = [notes["none_C4"]] * 2
    options = {"generate": True, "griffin_lim_iterations": 1}
    assert interpolate(baseline, paths, out, **options) == 0
    assert not read(out / "gen_none_C4+none_C4_0.5_0.5.wav").any()
    paths = [notes["none_C4"], notes["one_C4"]]
    assert interpolate(baseline, paths, out, match_loudness=True, **options) == 0
    sound = read(out / "gen_none_C4+one_C4_0.5_0.5.wav")
    half = rms(read(notes["one_C4"])) / 2
    np.testing.assert_allclose(rms(sound), half, rtol=1e-5)


def test_a_pitch_has_to_be_known(baseline, notes, out, tmp_path):
    shutil.copy(notes["one_C4"], tmp_path / "nameless.wav")
    paths = [notes["two_D4"], tmp_path / "nameless.wav"]
    options = {"generate": True, "griffin_lim_iterations": 1}
    with pytest.raises(InputError, match=r"nameless\.wav: its pitch is not known"):
        interpolate(baseline, paths, out, weights=[1, 2], **options)
    assert names(out) == []
    assert interpolate(baseline, paths, out, weights=[2, 1], **options) == 0
    options["pitch"] = 60
    assert interpolate(baseline, paths, out, weights=[1, 2], **options) == 0
    shutil.copy(notes["one_C4"], tmp_path / "b_64.wav")
    paths[1] = tmp_path / "b_64.wav"
    options = {"weights": [1, 2], "rules": NameRules("midi")}
    assert interpolate(baseline, paths, out, **options) == 0
    with open(next(out.glob("two_D4+b_64*.csv")), encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert row["pitch"] == "64"


def test_z_without_a_checkpoint_and_of_several_notes(tmp_path, out, caplog):
    rng = np.random.default_rng(0)
    five, three, one = (rng.normal(size=[n, 1984]).astype("f4") for n in (5, 3, 1))
    for name, values in (("five", five), ("three_z", three), ("one", one[0])):
        np.save(tmp_path / f"{name}.npy", values)
    paths = [tmp_path / "five.npy", tmp_path / "three_z.npy"]
    with caplog.at_level("INFO", logger="absl"):
        assert interpolate(None, paths, out) == 0
    assert "five.npy: only the first 3 of 5 notes are mixed" in caplog.text
    mixed = np.load(out / "five+three_0.5_0.5_z.npy")
    np.testing.assert_allclose(mixed, (five[:3] + three) / 2, rtol=1e-6, atol=1e-7)
    found = [row["note_str"] for row in rows_of(out / "five+three_0.5_0.5_z.csv")]
    assert found == [f"five+three_0.5_0.5_{i}" for i in range(3)]
    assert manifest_of(out)["five+three_0.5_0.5_z.npy"]["notes"] == 3
    paths[1] = tmp_path / "one.npy"
    assert interpolate(None, paths, out) == 0
    mixed = np.load(out / "five+one_0.5_0.5_z.npy")
    np.testing.assert_allclose(mixed, (five[:1] + one) / 2, rtol=1e-6, atol=1e-7)


def test_a_missing_sound_of_several_notes_is_made_alone(baseline, tmp_path, out):
    rng = np.random.default_rng(0)
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in paths:
        np.save(path, rng.normal(size=[2, baseline.num_latent]).astype("f4"))
    options = SEEDED | {"pitch": 60, "griffin_lim_iterations": 1, "sample_length": 1000}
    assert interpolate(baseline, paths, out, **options) == 0
    first, second = sorted(out.glob("gen_*.wav"))
    made, kept = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    assert interpolate(baseline, paths, out, skip_existing=True, **options) == 0
    assert first.read_bytes() == made and second.stat().st_mtime_ns == kept


def test_rules_for_names_are_refused_where_there_are_none(model, arrays, sounds, out):
    rules = NameRules("midi")
    with pytest.raises(InputError, match="--pitch_from_name"):
        interpolate(None, list(arrays.values()), out, rules)
    with pytest.raises(InputError, match="--pitch_from_name is for the baseline"):
        interpolate(model, [sounds["flute"], sounds["organ"]], out, rules)
    assert not out.exists()


def test_the_binary(arrays, out):
    words = [f"--source_path={path}" for path in arrays.values()]
    result = run("nsynth_interpolate", *words, "--grid=2x1", f"--save_path={out}")
    assert (result.returncode, result.stdout) == (0, "")
    what = f"INFO: 2 mixes in {out}; manifest.json describes each file.\n"
    assert result.stderr == what
    assert len(manifest_of(out)) == 2


def test_a_folder_that_cannot_be_written_to(arrays, tmp_path):
    (tmp_path / "file").touch()
    for path, words in (("file", "must be a folder"), ("file/x", "can't be written")):
        with pytest.raises(InputError, match=words):
            interpolate(None, list(arrays.values()), tmp_path / path)


def test_ctrl_c_keeps_what_is_done(arrays, out, tiny_checkpoint):
    words = [f"--source_path={path}" for path in arrays.values()]
    words += [f"--save_path={out}", "--generate", "--steps=2", "--samples_per_save=16"]
    words += [f"--checkpoint_path={tiny_checkpoint}"]
    marker = out / "gen_flute+organ_1_0_embeddings.wav.unfinished"
    words = command("nsynth_interpolate", *words)
    result = run_and_signal(words, marker, signal.SIGINT)
    assert result.returncode == 130 and "are kept in" in result.stderr
    kinds = [entry["kind"] for entry in manifest_of(out).values()]
    assert kinds == ["embedding", "embedding"] and marker.exists()
