"""Sounds or embeddings in, the original's samples out; resumed, cut, scaled."""

import errno
import os
import signal

import numpy as np
import pytest
from binaries import command, names, run, run_and_signal
from commands import generate
from scipy.io import wavfile

from magenta_nsynth.api import WaveNet
from magenta_nsynth.commands import generate as job
from magenta_nsynth.errors import InputError
from magenta_nsynth.notes.inputs import Inputs
from magenta_nsynth.notes.opening import find_sounds_or_npy
from magenta_nsynth.progress import Progress


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return WaveNet(tiny_checkpoint)


@pytest.fixture(scope="module")
def reference(data):
    """The original's sounds at batch 1 after np.random.seed(31): 4 and 3 frames."""
    sounds = np.load(data / "wavenet_tiny" / "seed31.npz")
    return [sounds["audio0"], sounds["audio1"]]


@pytest.fixture
def folder(tmp_path, golden_tiny):
    """A folder with the embeddings of those two sounds, z0.npy and z1.npy."""
    path = tmp_path / "in"
    path.mkdir()
    np.save(path / "z0.npy", golden_tiny["raw_encoding"][0][:4])
    np.save(path / "z1.npy", golden_tiny["raw_encoding"][1][:3])
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def read(path):
    rate, audio = wavfile.read(path)
    assert rate == 16_000 and audio.ndim == 1
    return audio


def check(path, reference, length=None):
    audio = read(path)
    assert audio.dtype == np.float32
    np.testing.assert_array_equal(audio, reference[: length or len(reference)])


# The model keeps one compiled engine, so tests of one batch size stand together.
def test_reconstruction_of_sounds(
    model, out, tmp_path, golden_tiny, reference, monkeypatch
):
    paths = [tmp_path / name for name in ("vocal_a.wav", "two  words.b.WAV")]
    for path in paths:
        wavfile.write(path, 16_000, golden_tiny["audio"][0])
    done = []

    def stop(_, amount):  # the beginning is enough
        done.append(amount)
        if sum(done) >= 2 * 600:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", stop)
    with pytest.raises(KeyboardInterrupt, match="kept"):
        generate(model, paths, out, batch_size=2, seed=31)
    sounds = ["gen_two  words.b.wav", "gen_vocal_a.wav"]
    assert names(out) == sorted([*sounds, *(f"{name}.unfinished" for name in sounds)])
    for name in sounds:
        audio = read(out / name)
        assert len(audio) == sum(done) / 2
        count = min(len(audio), len(reference[0]))
        np.testing.assert_array_equal(audio[:count], reference[0][:count])


def test_output_length_follows_the_input(model, tmp_path, out, golden_tiny, caplog):
    audio = golden_tiny["audio"][0]
    for length in (512, 513, 1535):
        wavfile.write(tmp_path / f"n{length}.wav", 16_000, audio[:length])
    with caplog.at_level("DEBUG", logger="absl"):
        assert generate(model, [tmp_path], out, batch_size=2) == 0
    lengths = {name: len(read(out / name)) for name in names(out)}
    assert lengths == {"gen_n512.wav": 512, "gen_n513.wav": 512, "gen_n1535.wav": 1024}
    assert "n1535.wav: dropping 511 of 1535" in caplog.text


@pytest.mark.parametrize("batch_size", [2, 3, 1])
def test_a_seed_gives_the_originals_samples_in_any_batch(
    model, folder, out, golden_tiny, reference, batch_size
):
    # A neighbour of another length, which ends in the middle of theirs.
    np.save(folder / "short.npy", golden_tiny["raw_encoding"][0][:1])
    options = {"batch_size": batch_size, "seed": 31, "sample_length": 1024}
    assert generate(model, [folder], out, **options) == 0
    assert names(out) == [f"gen_{name}.wav" for name in ("short", "z0", "z1")]
    check(out / "gen_z0.wav", reference[0], 1024)
    check(out / "gen_z1.wav", reference[1], 1024)
    check(out / "gen_short.wav", reference[0], 512)


def test_sample_length_is_samples(model, folder, out, reference, caplog):
    with caplog.at_level("INFO", logger="absl"):
        assert generate(model, [folder], out, sample_length=1100, seed=31) == 0
    check(out / "gen_z0.wav", reference[0], 1024)
    check(out / "gen_z1.wav", reference[1], 1024)
    assert "z0.npy: 4 frames, cut to the 2" in caplog.text
    assert generate(model, [folder / "z1.npy"], out, sample_length=0, seed=31) == 0
    check(out / "gen_z1.wav", reference[1])


def test_a_long_embedding_is_cut_at_four_seconds(
    model, tmp_path, out, monkeypatch, replay
):
    np.save(tmp_path / "z.npy", np.zeros([3000, 16], np.float32))
    replay(512)
    seen = []

    def stream(encodings, *_, **__):
        seen.extend(len(z) for z in encodings)
        yield np.zeros([1, 512 * len(encodings[0])], np.float32)

    monkeypatch.setattr(model, "stream", stream)
    assert generate(model, [tmp_path / "z.npy"], out) == 0
    assert seen == [125] and len(read(out / "gen_z.wav")) == 64_000


@pytest.mark.parametrize(
    "convert",
    [
        lambda z: z[None],
        lambda z: z.astype(np.float64),
        lambda z: z.astype(">f4"),
        np.asfortranarray,
    ],
    ids=["1tc", "float64", "big endian", "fortran"],
)
def test_forms_of_an_embedding(model, tmp_path, out, golden_tiny, reference, convert):
    path = tmp_path / "z.npy"
    np.save(path, convert(golden_tiny["raw_encoding"][0][:1]))
    assert generate(model, [path], out, seed=31) == 0
    check(out / "gen_z.wav", reference[0], 512)


def bad_embeddings(folder, good):
    """What can't be generated from, and what is said of each."""
    holed = good.copy()
    holed[0, 3] = np.nan
    arrays = {
        "a_two": (np.stack([good, good]), "2 clips"),
        "b_15": (good[:, :15], "[4, 15]"),
        "c_nan": (holed, "finite"),
        "d_none": (good[:0], "[0, 16]"),
        "e_complex": (good.astype(complex), "complex"),
        "f_objects": (np.array([{}], object), "allow_pickle"),
    }
    for name, (array, _) in arrays.items():
        np.save(folder / f"{name}.npy", array)
    content = (folder / "b_15.npy").read_bytes()
    files = {
        "g_empty": (b"", "No data"),
        "h_cut": (content[:-100], "array"),
        # Python's own parser stumbles over this one, in its own way.
        "i_header": (content[:10] + b'{"a": (1' + content[18:], "not a .npy array"),
        "j_text": (b"hello", "not a .npy array"),
    }
    for name, (content, _) in files.items():
        (folder / f"{name}.npy").write_bytes(content)
    return {name: word for name, (_, word) in (arrays | files).items()}


def test_bad_embeddings_are_reported_and_the_others_done(
    model, folder, out, golden_tiny, reference, caplog
):
    said = bad_embeddings(folder, golden_tiny["raw_encoding"][0][:4])
    assert generate(model, [folder], out, seed=31, sample_length=512) == 1
    assert names(out) == ["gen_z0.wav", "gen_z1.wav"]
    check(out / "gen_z0.wav", reference[0], 512)
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == len(said) + 1
    for (name, word), error in zip(said.items(), errors, strict=False):
        assert f"{name}.npy: " in error and word in error and "\n" not in error
    assert "10 of 12 files failed" in errors[-1]


def test_sounds_go_before_embeddings_unless_npy_only(model, folder, golden_tiny):
    sound = folder / "sound.WAV"
    wavfile.write(sound, 16_000, golden_tiny["audio"][0])

    def found(paths, npy_only=False):
        inputs = Inputs(source_path=paths, npy_only=npy_only)
        sources = find_sounds_or_npy(inputs, ["out"])
        return sorted(os.path.basename(source.path) for source in sources)

    assert found([folder]) == ["sound.WAV"]
    assert found([folder], npy_only=True) == ["z0.npy", "z1.npy"]
    assert found([folder, folder / "z0.npy"]) == ["sound.WAV", "z0.npy"]
    for path in (sound, folder.parent):
        with pytest.raises(InputError, match=r"\.npy"):
            found([path], npy_only=True)


def test_what_was_generated_below_the_sounds_is_not_read_again(
    model, tmp_path, golden_tiny
):
    sound = tmp_path / "sub" / "a.wav"
    sound.parent.mkdir()
    wavfile.write(sound, 16_000, golden_tiny["audio"][0][:512])
    out = tmp_path / "generated"
    for _ in range(2):
        assert generate(model, [tmp_path], out, recursive=True, seed=1) == 0
    assert names(tmp_path) == ["generated/sub/gen_a.wav", "sub/a.wav"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample_length": 511}, "--sample_length=511"),
        ({"batch_size": 0}, "--batch_size"),
        ({"temperature": np.nan}, "--temperature"),
        ({"precision": "int4"}, "--precision"),
        ({"temperature": -1.0}, "--temperature"),
        ({"samples_per_save": 0}, "--samples_per_save"),
        ({"paths": []}, "--source_path"),
        ({"out": ""}, "--save_path"),
        ({"out": "in/z0.npy"}, "must be a folder"),
        ({"out": "in/z0.npy/below"}, "give another --save_path"),
        ({"paths": ["in/z0.npy", "also/z0.npy"]}, "both be written"),
    ],
)
def test_wrong_arguments_are_refused_before_work(
    model, folder, monkeypatch, options, words
):
    monkeypatch.chdir(folder.parent)
    os.mkdir("also")
    os.link("in/z0.npy", "also/z0.npy")
    monkeypatch.setattr(WaveNet, "stream", None)
    options = {"paths": ["in"], "out": "out"} | options
    with pytest.raises(InputError) as error:
        generate(model, **options)
    assert words in str(error.value)
    assert not os.path.exists("out")


def test_an_input_is_not_overwritten(model, tmp_path, golden_tiny, monkeypatch):
    monkeypatch.setattr(WaveNet, "stream", None)
    for name in ("a.wav", "gen_a.wav"):
        wavfile.write(tmp_path / name, 16_000, golden_tiny["audio"][0])
    with pytest.raises(InputError, match="would be overwritten"):
        generate(model, [tmp_path], tmp_path)


def test_bit_depth_16(model, folder, out, reference):
    options = {"seed": 31, "bit_depth": "16", "sample_length": 512}
    assert generate(model, [folder / "z0.npy"], out, **options) == 0
    audio = read(out / "gen_z0.wav")
    assert audio.dtype == np.int16
    np.testing.assert_array_equal(audio, np.round(reference[0][:512] * 32768))


def test_normalize(model, folder, out, reference):
    options = {"seed": 31, "normalize": True, "sample_length": 512}
    assert generate(model, [folder / "z0.npy"], out, **options) == 0
    expected = reference[0][:512] / np.abs(reference[0][:512]).max()
    np.testing.assert_allclose(read(out / "gen_z0.wav"), expected, atol=1e-6)


def test_temperature_0_takes_no_draws(model, folder, out, reference):
    path = folder / "z0.npy"
    options = {"temperature": 0, "sample_length": 512}
    assert generate(model, [path], out, **options) == 0
    assert generate(model, [path], out / "again", **options, seed=31) == 0
    greedy = read(out / "gen_z0.wav")
    np.testing.assert_array_equal(greedy, read(out / "again" / "gen_z0.wav"))
    assert (greedy != reference[0][:512]).any()


def test_8_bits_are_asked_for(model, folder, out):
    path = folder / "z0.npy"
    options = {"sample_length": 512, "seed": 31, "precision": "int8"}
    assert generate(model, [path], out, **options) == 0
    expected = model.generate(np.load(path), 512, 31, precision="int8")
    np.testing.assert_array_equal(read(out / "gen_z0.wav"), expected)


@pytest.fixture
def replay(model, reference, monkeypatch):
    """Plays the reference in blocks of `size` samples, in place of generating."""

    def replace(size, after=lambda done: None, clips=reference):
        def stream(encodings, *_, **__):
            total = max(len(z) for z in encodings) * 512
            padded = [np.pad(clip, (0, 4096))[:total] for clip in clips]
            for first in range(0, total, size):
                yield np.stack(padded)[: len(encodings), first : first + size]
                after(min(first + size, total))

        monkeypatch.setattr(model, "stream", stream)
        monkeypatch.setattr(job, "_announce", lambda *_: None)

    return replace


def test_normalized_silence_stays_silent(model, folder, out, replay):
    replay(256, clips=[np.zeros(512, np.float32)])
    path, options = folder / "z0.npy", {"normalize": True, "sample_length": 512}
    assert generate(model, [path], out, **options) == 0
    np.testing.assert_array_equal(read(out / "gen_z0.wav"), np.zeros(512))


def test_the_beginning_is_saved_on_the_way(model, folder, out, replay):
    states = []

    def look(done):
        if names(out):
            states.append((done, names(out), len(read(out / "gen_z0.wav"))))

    replay(256, look)
    options = {"batch_size": 2, "samples_per_save": 700, "normalize": True}
    assert generate(model, [folder], out, **options) == 0
    both = ["gen_z0.wav", "gen_z1.wav"]
    unfinished = [f"{name}.unfinished" for name in both]
    assert states == [
        (768, sorted(both + unfinished), 768),
        (1024, sorted(both + unfinished), 768),
        (1280, sorted(both + unfinished), 768),
        # The shorter sound is done, and the longer has got further.
        (1536, sorted([*both, unfinished[0]]), 1536),
        (1792, sorted([*both, unfinished[0]]), 1536),
        (2048, both, 2048),
    ]


def test_ctrl_c_keeps_what_there_is(model, folder, out, reference, monkeypatch, replay):
    def stop(done):
        if done == 1792:
            raise KeyboardInterrupt

    replay(256, stop)
    with pytest.raises(KeyboardInterrupt) as error:
        generate(model, [folder], out, batch_size=2)
    # z1 was finished by then; z0 was never saved before.
    path = out / "gen_z0.wav"
    assert f"0.11 s are kept in {path};" in str(error.value)
    assert "--skip_existing" in str(error.value)
    assert names(out) == ["gen_z0.wav", "gen_z0.wav.unfinished", "gen_z1.wav"]
    check(path, reference[0], 1792)
    check(out / "gen_z1.wav", reference[1])
    before = (out / "gen_z1.wav").stat().st_mtime_ns
    monkeypatch.undo()
    assert generate(model, [folder], out, skip_existing=True, seed=31) == 0
    assert names(out) == ["gen_z0.wav", "gen_z1.wav"]
    check(path, reference[0])
    assert (out / "gen_z1.wav").stat().st_mtime_ns == before


def test_ctrl_c_while_a_finished_sound_is_saved(
    model, folder, out, reference, monkeypatch, replay
):
    stops = [KeyboardInterrupt]
    save = job.write_audio

    def save_audio(*arguments):
        if stops:
            raise stops.pop()
        save(*arguments)

    monkeypatch.setattr(job, "write_audio", save_audio)
    replay(1536)
    with pytest.raises(KeyboardInterrupt):
        generate(model, [folder], out, batch_size=2)
    check(out / "gen_z1.wav", reference[1])  # the one that was being saved
    check(out / "gen_z0.wav", reference[0], 1536)
    assert names(out) == ["gen_z0.wav", "gen_z0.wav.unfinished", "gen_z1.wav"]


def test_ctrl_c_before_the_first_sample(model, folder, out, replay, monkeypatch):
    replay(256)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "stream", stop)
    with pytest.raises(KeyboardInterrupt, match="No unfinished sound"):
        generate(model, [folder], out)
    assert names(out) == []


def test_an_output_that_cannot_be_written_fails_alone(
    model, folder, out, reference, caplog, replay
):
    replay(256)
    (out / "gen_z0.wav").mkdir(parents=True)
    options = {"batch_size": 2, "samples_per_save": 1000}
    assert generate(model, [folder], out, **options) == 1
    check(out / "gen_z1.wav", reference[1])
    levels = [r.levelname for r in caplog.records if "gen_z0.wav" in r.getMessage()]
    assert levels == ["WARNING", "ERROR"]
    assert "1 of 2 files failed" in caplog.text


def test_a_full_disk_ends_the_run(model, folder, out, monkeypatch, replay):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    replay(256)
    monkeypatch.setattr(wavfile, "write", full)
    with pytest.raises(OSError) as error:
        generate(model, [folder], out)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(out / "gen_z0.wav")
    assert names(out) == []


def test_progress_counts_every_clips_samples(model, folder, out, monkeypatch, replay):
    seen = []
    advance = Progress.advance

    def count(progress, amount):
        seen.append((progress.total, amount))
        advance(progress, amount)

    monkeypatch.setattr(Progress, "advance", count)
    replay(1000)
    assert generate(model, [folder], out, batch_size=2) == 0
    assert {total for total, _ in seen} == {3584}
    assert [amount for _, amount in seen] == [2000, 1536, 48]


def arguments(tiny_checkpoint, source, out):
    return [
        f"--source_path={source}",
        f"--save_path={out}",
        f"--checkpoint_path={os.path.dirname(tiny_checkpoint)}",
        "--seed=31",
    ]


def test_the_binary(tiny_checkpoint, folder, out, golden_tiny, reference):
    """Its flags and what it says, in one start of TensorFlow."""
    wavfile.write(folder / "not this.wav", 16_000, golden_tiny["audio"][0])
    words = ["--encodings", "--batch_size=2", "--sample_length=1024"]
    result = run("nsynth_generate", *arguments(tiny_checkpoint, folder, out), *words)
    assert (result.returncode, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    others, first, second, preparing, announced, *progress, last = lines
    assert preparing == "INFO: Preparing 2 sounds ..."
    assert last == f"INFO: Written: 2 sounds in {out}."
    assert others == "INFO: Files with other extensions are left out: 1 .wav."
    assert first.startswith("INFO: ") and "z0.npy: 4 frames, cut to the 2" in first
    assert second.startswith("INFO: ") and "z1.npy: 3 frames" in second
    assert announced.startswith("INFO: Sounds to generate: 2, 0.1 s")
    assert progress and all("samples/s" in line for line in progress)
    assert names(out) == ["gen_z0.wav", "gen_z1.wav"]
    check(out / "gen_z0.wav", reference[0], 1024)
    check(out / "gen_z1.wav", reference[1], 1024)


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_stopped_and_resumed(
    model, tiny_checkpoint, tmp_path, out, golden_tiny, reference, name
):
    # Longer than the time that stopping takes, so that it is not over by then.
    source = tmp_path / "z.npy"
    whole = np.concatenate([golden_tiny["raw_encoding"][0]] * 10)
    np.save(source, whole)
    words = command("nsynth_generate", *arguments(tiny_checkpoint, source, out))
    path = out / "gen_z.wav"
    words.append("--samples_per_save=100")
    result = run_and_signal(words, path, getattr(signal, name), plain=name == "SIGINT")
    assert names(out) == ["gen_z.wav", "gen_z.wav.unfinished"]
    beginning = read(path)
    assert 0 < len(beginning) < len(whole) * 512
    count = min(len(beginning), len(reference[0]))
    np.testing.assert_array_equal(beginning[:count], reference[0][:count])
    if name == "SIGINT":
        assert result.returncode == 130
        last = result.stderr.splitlines()[-1]
        assert last.startswith("nsynth_generate: stopped. The first ")
        assert str(path) in last and "Traceback" not in result.stderr
    np.save(source, golden_tiny["raw_encoding"][0][:1])
    assert generate(model, [source], out, skip_existing=True, seed=31) == 0
    assert names(out) == ["gen_z.wav"]
    check(path, reference[0], 512)
    before = path.stat().st_mtime_ns
    assert generate(model, [source], out, skip_existing=True, seed=31) == 0
    assert path.stat().st_mtime_ns == before
