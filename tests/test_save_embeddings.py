"""A folder of sounds in, the original's embeddings out, whatever lies beside them."""

import errno
import os
import pathlib
import signal

import numpy as np
import pytest
from binaries import command, names, run, run_and_signal
from commands import save_embeddings
from scipy.io import wavfile

from magenta_nsynth.api import WaveNet
from magenta_nsynth.errors import InputError


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return WaveNet(tiny_checkpoint)


@pytest.fixture
def sounds(tmp_path, golden_tiny):
    """A folder, and a function that writes a sound into it: a golden clip or any."""
    folder = tmp_path / "sounds"
    folder.mkdir()

    def write(name, clip=0, rate=16_000):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio = golden_tiny["audio"][clip] if isinstance(clip, int) else clip
        wavfile.write(path, rate, audio)
        return path

    write.folder = folder
    write.out = tmp_path / "out"
    return write


@pytest.fixture
def equals(golden_tiny):
    """Holds a file's embedding against the original's of a golden clip."""
    scale = np.abs(golden_tiny["raw_encoding"]).max()

    def check(path, clip=0, count=12, whole=True, weights="raw"):
        encoding = np.load(path)
        assert encoding.dtype == np.float32
        reference = golden_tiny[f"{weights}_encoding"][clip][:count]
        if whole:
            assert encoding.shape == (count, 16)
        assert np.abs(encoding[:count] - reference).max() < 2e-5 * scale

    return check


def tone(num_samples):
    return np.sin(np.arange(num_samples) * 0.1).astype(np.float32) / 2


NAMES = ["vocal_a.wav", "a.b.c.wav", "two  words.wav", "é.WAV", "-dash.wav", "w.wav"]


def test_each_sound_gives_its_stems_embedding(model, sounds, equals):
    for i, name in enumerate(NAMES):
        sounds(name, i % 2)
    assert save_embeddings(model, [sounds.folder], sounds.out) == 0
    stems = ["vocal_a", "a.b.c", "two  words", "é", "-dash", "w"]
    assert names(sounds.out) == sorted(f"{stem}_embeddings.npy" for stem in stems)
    for i, stem in enumerate(stems):
        equals(sounds.out / f"{stem}_embeddings.npy", i % 2)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_neighbours_and_batches_change_nothing(model, sounds, equals, batch_size):
    sounds("a.wav", 0)
    for length in (512, 513, 6143, 70_000):
        sounds(f"b{length}.wav", tone(length))
    sounds("c.wav", 1)
    sounds("d.wav", 0)
    options = {"sample_length": 0, "batch_size": batch_size}
    assert save_embeddings(model, [sounds.folder], sounds.out, **options) == 0
    for stem, clip in (("a", 0), ("c", 1), ("d", 0)):
        equals(sounds.out / f"{stem}_embeddings.npy", clip)
    for length in (512, 513, 6143, 70_000):
        encoding = np.load(sounds.out / f"b{length}_embeddings.npy")
        assert encoding.shape == (length // 512, 16)


def test_a_tail_under_a_frame_is_dropped_and_said(
    model, sounds, equals, golden_tiny, caplog
):
    sounds("n6143.wav", golden_tiny["audio"][0][:6143])
    with caplog.at_level("DEBUG", logger="absl"):
        assert save_embeddings(model, [sounds.folder], sounds.out) == 0
    encoding = np.load(sounds.out / "n6143_embeddings.npy")
    assert encoding.shape == (11, 16)
    # Six frames from the new end on, nothing of it is seen.
    equals(sounds.out / "n6143_embeddings.npy", count=5, whole=False)
    assert "n6143.wav" in caplog.text and "511 of 6143" in caplog.text


def test_sample_length_cuts_and_says_so(model, sounds, equals, golden_tiny, caplog):
    long = np.concatenate([golden_tiny["audio"][0], tone(64_000)])
    sounds("long.wav", long)
    sounds("short.wav", 1)
    output = sounds.out / "long_embeddings.npy"
    for options, frames in (({}, 125), ({"sample_length": 0}, 137)):
        caplog.clear()
        with caplog.at_level("INFO", logger="absl"):
            assert save_embeddings(model, [sounds.folder], sounds.out, **options) == 0
        assert np.load(output).shape == (frames, 16)
        equals(output, count=6, whole=False)
        equals(sounds.out / "short_embeddings.npy", 1)  # nothing is padded
        said = [m for m in caplog.messages if m.endswith("the rest is cut off.")]
        assert len(said) == (frames == 125)
        assert all("long.wav: longer than 64000 samples" in m for m in said)
    assert save_embeddings(model, [sounds.folder], sounds.out, sample_length=3100) == 0
    assert np.load(output).shape == (6, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample_length": 511}, "--sample_length=511"),
        ({"sample_length": -1}, "--sample_length=-1"),
        ({"batch_size": 0}, "--batch_size"),
        ({"paths": ["nowhere"]}, "nowhere: does not exist"),
        ({"paths": []}, "--source_path"),
        ({"out": ""}, "--save_path"),
    ],
)
def test_wrong_arguments_are_refused_before_work(model, sounds, options, words):
    sounds("a.wav")
    options = {"paths": [sounds.folder], "out": sounds.out} | options
    with pytest.raises(InputError) as error:
        save_embeddings(model, **options)
    assert words in str(error.value)
    assert not sounds.out.exists()


def test_one_output_of_two_sounds_is_refused_before_work(model, sounds, monkeypatch):
    monkeypatch.setattr(WaveNet, "encode", None)
    sounds("a.wav")
    (sounds.folder / "a.flac").touch()
    with pytest.raises(InputError, match=r"a\.flac and .*a\.wav would both"):
        save_embeddings(model, [sounds.folder], sounds.out)
    sounds("one/sub/x.wav")
    sounds("two/sub/x.wav")
    roots = [sounds.folder / "one", sounds.folder / "two"]
    with pytest.raises(InputError, match=r"x\.wav"):
        save_embeddings(model, roots, sounds.out, recursive=True)
    assert not sounds.out.exists()


def test_recursive_mirrors_the_tree(model, sounds, equals, monkeypatch):
    monkeypatch.setenv("PLACE", "elsewhere")
    sounds("one/top.wav", 0)
    sounds("one/sub/deep/x.wav", 1)
    sounds("one/$PLACE/y.wav", 1)
    sounds("two/sub/z.wav", 0)
    roots = [sounds.folder / "one", sounds.folder / "two"]
    assert save_embeddings(model, roots, sounds.out, recursive=True) == 0
    assert names(sounds.out) == [
        "$PLACE/y_embeddings.npy",
        "sub/deep/x_embeddings.npy",
        "sub/z_embeddings.npy",
        "top_embeddings.npy",
    ]
    equals(sounds.out / "sub/deep/x_embeddings.npy", 1)
    equals(sounds.out / "sub/z_embeddings.npy", 0)


def damage(sounds):
    """Files that can't be done, and what is said of each."""
    sounds("b_nan.wav", np.full(1024, np.nan, np.float32))
    sounds("c_short.wav", tone(511))
    whole = sounds("d_cut.wav", tone(4096)).read_bytes()
    (sounds.folder / "d_cut.wav").write_bytes(whole[:5000])
    (sounds.folder / "e_empty.wav").touch()
    (sounds.folder / "f_text.wav").write_text("hello", encoding="utf-8")
    return {
        "b_nan.wav": "NaN",
        "c_short.wav": "511",
        "d_cut.wav": "truncated",
        "e_empty.wav": "empty",
        "f_text.wav": "not a sound file",
    }


@pytest.mark.parametrize("batch_size", [1, 16])
def test_bad_files_are_reported_and_the_others_done(
    model, sounds, equals, caplog, batch_size
):
    sounds("a.wav", 0)
    said = damage(sounds)
    sounds("z.wav", 1)
    status = save_embeddings(model, [sounds.folder], sounds.out, batch_size=batch_size)
    assert status == 1
    assert names(sounds.out) == ["a_embeddings.npy", "z_embeddings.npy"]
    equals(sounds.out / "a_embeddings.npy", 0)
    equals(sounds.out / "z_embeddings.npy", 1)
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == len(said) + 1
    for (name, word), error in zip(said.items(), errors, strict=False):
        assert f"{name}: " in error and word in error
    assert "5 of 7 files failed" in errors[-1]


def test_the_last_file_may_be_bad(model, sounds, equals):
    sounds("a.wav", 0)
    sounds("b.wav", tone(10))
    assert save_embeddings(model, [sounds.folder], sounds.out) == 1
    equals(sounds.out / "a_embeddings.npy", 0)


def test_skip_existing_does_what_is_missing(model, sounds, equals, caplog):
    for i in range(3):
        sounds(f"{i}.wav", i % 2)
    sounds.out.mkdir()
    kept = sounds.out / "1_embeddings.npy"
    kept.write_text("there already", encoding="utf-8")
    with caplog.at_level("INFO", logger="absl"):
        status = save_embeddings(model, [sounds.folder], sounds.out, skip_existing=True)
    assert status == 0 and "1 of 3 are done already" in caplog.text
    assert kept.read_text(encoding="utf-8") == "there already"
    equals(sounds.out / "0_embeddings.npy", 0)
    equals(sounds.out / "2_embeddings.npy", 0)
    assert save_embeddings(model, [sounds.folder], sounds.out) == 0
    equals(kept, 1)


def test_where_nothing_can_be_written_is_said_before_work(model, sounds, monkeypatch):
    monkeypatch.setattr(WaveNet, "encode", None)
    file = sounds("a.wav")
    with pytest.raises(InputError, match="must be a folder"):
        save_embeddings(model, [sounds.folder], file)
    with pytest.raises(InputError, match="give another --save_path"):
        save_embeddings(model, [sounds.folder], file / "below")


def test_an_output_that_cannot_be_written_fails_alone(model, sounds, equals, caplog):
    for i in range(3):
        sounds(f"{i}.wav", 0)
    (sounds.out / "1_embeddings.npy").mkdir(parents=True)
    assert save_embeddings(model, [sounds.folder], sounds.out) == 1
    assert names(sounds.out) == ["0_embeddings.npy", "2_embeddings.npy"]
    assert "1_embeddings.npy: can't be written" in caplog.text
    equals(sounds.out / "2_embeddings.npy", 0)


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    model, sounds, monkeypatch
):
    for i in range(3):
        sounds(f"{i}.wav", 0)
    write = pathlib.Path.write_bytes

    def fill(path, content):
        if len(os.listdir(sounds.out)) > 1:
            write(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", fill)
    with pytest.raises(OSError) as error:
        save_embeddings(model, [sounds.folder], sounds.out)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(sounds.out / "1_embeddings.npy")
    assert names(sounds.out) == ["0_embeddings.npy"]


def test_the_binary(tiny_checkpoint, sounds, equals):
    """Its flags, its two streams and its exit status, in one start of TensorFlow."""
    sounds("a.wav", 0)
    sounds("b.wav", tone(511))
    result = run(
        "nsynth_save_embeddings",
        f"--source_path={sounds.folder}/?.wav",
        f"--save_path={sounds.out}/new",
        f"--expdir={os.path.dirname(tiny_checkpoint)}",
        "--use_ema",
        "--log=ERROR",
    )
    assert result.returncode == 1 and result.stdout == ""
    *progress, bad, count = result.stderr.splitlines()
    assert all("files" in line for line in progress)
    assert bad.startswith("ERROR: ") and "b.wav" in bad
    assert count == "ERROR: 1 of 2 files failed; the others are done."
    equals(sounds.out / "new" / "a_embeddings.npy", 0, weights="ema")


def long_run(sounds, tiny_checkpoint):
    """A command over 60 sounds, and the first file that it writes."""
    for i in range(60):
        sounds(f"{i:02d}.wav", i % 2)
    words = command(
        "nsynth_save_embeddings",
        f"--source_path={sounds.folder}",
        f"--save_path={sounds.out}",
        f"--checkpoint_path={tiny_checkpoint}",
        "--batch_size=1",
    )
    first = sounds.out / "00_embeddings.npy"
    return words, first


def test_kill_and_resume(model, tiny_checkpoint, sounds, equals):
    words, first = long_run(sounds, tiny_checkpoint)
    assert run_and_signal(words, first, signal.SIGKILL).returncode == -9
    done = [path for path in sounds.out.iterdir() if path.name[0] != "."]
    assert 0 < len(done) < 60
    before = {path: path.stat().st_mtime_ns for path in done}
    options = {"skip_existing": True}
    assert save_embeddings(model, [sounds.folder], sounds.out, **options) == 0
    assert before == {path: path.stat().st_mtime_ns for path in done}
    for i in range(60):
        equals(sounds.out / f"{i:02d}_embeddings.npy", i % 2)


def test_ctrl_c(tiny_checkpoint, sounds, equals):
    words, first = long_run(sounds, tiny_checkpoint)
    result = run_and_signal(words, first, signal.SIGINT)
    assert result.returncode == 130
    assert result.stderr.endswith("\nnsynth_save_embeddings: stopped.\n")
    assert "Traceback" not in result.stderr
    done = names(sounds.out)
    assert 0 < len(done) < 60 and not [name for name in done if name[0] == "."]
    for i in range(len(done)):
        equals(sounds.out / f"{i:02d}_embeddings.npy", i % 2)


def test_a_list_writes_nothing_outside_the_folder(model, sounds, tmp_path):
    """Its lines may name files anywhere; what is made of them stays together."""
    sounds("below/a.wav")
    sounds("../other/b.wav", 1)
    elsewhere = sounds("../elsewhere/c.wav", 1)
    listed = sounds.folder / "all.txt"
    listed.write_text(f"below/a.wav\n../other/b.wav\n{elsewhere}\n", encoding="utf-8")
    before = {path for path in tmp_path.rglob("*") if sounds.out not in path.parents}
    assert save_embeddings(model, [listed], sounds.out) == 0
    made = {str(path.relative_to(sounds.out)) for path in sounds.out.rglob("*.npy")}
    assert made == {f"{n}_embeddings.npy" for n in ("below/a", "b", "c")}
    after = {path for path in tmp_path.rglob("*") if sounds.out not in path.parents}
    assert after - before <= {sounds.out}
