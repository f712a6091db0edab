"""Sounds in, embeddings and sounds out: what the two binaries do."""

import os
import shutil

import numpy as np
import pytest
from scipy.io import wavfile

from magenta_nsynth.api import WaveNet
from magenta_nsynth.errors import InputError
from magenta_nsynth.jobs.generate import generate
from magenta_nsynth.jobs.save_embeddings import save_embeddings

SCALE = 2e-5  # of the largest value: the tiny weights' tolerance


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return WaveNet(tiny_checkpoint)


@pytest.fixture
def sounds(tmp_path, golden_tiny):
    """A folder with the original's two clips, under names that were mangled once."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name, clip in zip(
        ("vocal_a.wav", "ünï två.b.WAV"), golden_tiny["audio"], strict=True
    ):
        wavfile.write(folder / name, 16_000, clip)
    return folder


def close(encoding, reference):
    assert encoding.dtype == np.float32 and encoding.shape == reference.shape
    assert np.abs(encoding - reference).max() < SCALE * np.abs(reference).max()


def test_embeddings_of_a_folder(model, sounds, tmp_path, golden_tiny):
    out = tmp_path / "new" / "out"
    assert save_embeddings(model, [sounds], out) == 0
    names = ["vocal_a_embeddings.npy", "ünï två.b_embeddings.npy"]
    assert sorted(os.listdir(out)) == names
    for name, reference in zip(names, golden_tiny["raw_encoding"], strict=True):
        close(np.load(out / name), reference)


def test_neighbours_of_other_lengths_change_nothing(
    model, sounds, tmp_path, golden_tiny, caplog
):
    noise = np.random.default_rng(0).uniform(-1, 1, 70_000).astype(np.float32)
    for length in (512, 513, 6143, 70_000):
        wavfile.write(sounds / f"n{length}.wav", 16_000, noise[:length])
    for batch_size in (1, 4):
        out = tmp_path / f"out{batch_size}"
        assert save_embeddings(model, [sounds], out, batch_size=batch_size) == 0
        close(np.load(out / "vocal_a_embeddings.npy"), golden_tiny["raw_encoding"][0])
        shapes = [
            len(np.load(out / f"n{n}_embeddings.npy")) for n in (512, 513, 6143, 70_000)
        ]
        assert shapes == [1, 1, 11, 125]
    save_embeddings(model, [sounds / "n70000.wav"], tmp_path / "whole", 0)
    assert len(np.load(tmp_path / "whole" / "n70000_embeddings.npy")) == 70_000 // 512


def test_a_bad_file_is_reported_and_the_others_done(model, sounds, tmp_path, capfd):
    (sounds / "a corrupt.wav").write_bytes(b"RIFF nonsense")
    wavfile.write(sounds / "short.wav", 16_000, np.zeros(511, np.float32))
    nan = np.zeros(600, np.float32)
    nan[5] = np.nan
    wavfile.write(sounds / "nan.wav", 16_000, nan)
    assert save_embeddings(model, [sounds], tmp_path / "out") == 1
    assert len(os.listdir(tmp_path / "out")) == 2


def test_two_inputs_with_one_output_are_refused_before_any_work(
    model, sounds, tmp_path
):
    shutil.copy(sounds / "vocal_a.wav", sounds / "vocal_a.flac")
    with pytest.raises(
        InputError, match=r"vocal_a\.flac and .*vocal_a\.wav would both"
    ):
        save_embeddings(model, [sounds], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_recursive_mirrors_the_tree(model, sounds, tmp_path):
    (sounds / "deep" / "er").mkdir(parents=True)
    shutil.copy(sounds / "vocal_a.wav", sounds / "deep" / "er" / "vocal_a.wav")
    save_embeddings(model, [sounds], tmp_path / "out", recursive=True)
    assert (tmp_path / "out" / "deep" / "er" / "vocal_a_embeddings.npy").exists()
    assert (tmp_path / "out" / "vocal_a_embeddings.npy").exists()


def test_skip_existing_leaves_what_is_there(model, sounds, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "vocal_a_embeddings.npy").write_bytes(b"kept")
    save_embeddings(model, [sounds], out, skip_existing=True)
    assert (out / "vocal_a_embeddings.npy").read_bytes() == b"kept"
    assert len(os.listdir(out)) == 2
    save_embeddings(model, [sounds], out)
    assert (out / "vocal_a_embeddings.npy").read_bytes() != b"kept"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source_paths": []}, "Nothing to read"),
        ({"source_paths": ["no such folder"]}, "does not exist"),
        ({"source_paths": ["no*.wav"]}, "matches nothing"),
        ({"save_path": ""}, "No --save_path"),
        ({"sample_length": 511}, "one frame of 512"),
        ({"sample_length": -1}, "one frame of 512"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
@pytest.mark.parametrize("job", [save_embeddings, generate])
def test_arguments_that_cannot_work(model, sounds, tmp_path, job, changed, message):
    arguments = {"source_paths": [sounds], "save_path": tmp_path / "out"} | changed
    with pytest.raises(InputError, match=message):
        job(model, **arguments)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_an_error(model, tmp_path):
    (tmp_path / "empty").mkdir()
    for job in (save_embeddings, generate):
        with pytest.raises(InputError, match=r"no .* file in there"):
            job(model, [tmp_path / "empty"], tmp_path / "out")
    np.save(tmp_path / "empty" / "x.npy", np.zeros([1, 16]))
    (tmp_path / "sound.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"no \.npy file"):
        os.mkdir(tmp_path / "sounds only")
        shutil.move(tmp_path / "sound.wav", tmp_path / "sounds only" / "sound.wav")
        generate(model, [tmp_path / "sounds only"], tmp_path / "out", npy_only=True)


@pytest.fixture
def encodings(tmp_path, golden_tiny):
    """The original's embeddings as files, in each accepted form."""
    folder = tmp_path / "encodings"
    folder.mkdir()
    first, second = golden_tiny["raw_encoding"]
    np.save(folder / "a.npy", first)
    np.save(folder / "b.npy", second[None, :4].astype(np.float64))
    return folder


def read(path):
    rate, audio = wavfile.read(path)
    assert rate == 16_000
    return audio


def test_generated_files(model, encodings, tmp_path):
    """Seeded as the original, so the library's samples, which equal the original's."""
    first = np.load(encodings / "a.npy")
    expected = model.generate(first, seed=9)
    for batch_size in (1, 2):
        out = tmp_path / f"out{batch_size}"
        generate(
            model, [encodings], out, sample_length=0, batch_size=batch_size, seed=9
        )
        assert sorted(os.listdir(out)) == ["gen_a.wav", "gen_b.wav"]
        audio = read(out / "gen_a.wav")
        assert audio.dtype == np.float32
        np.testing.assert_array_equal(audio, expected)
        assert len(read(out / "gen_b.wav")) == 4 * 512
    sixteen = tmp_path / "sixteen"
    generate(model, [encodings], sixteen, 2048, seed=9, bit_depth="16")
    audio = read(sixteen / "gen_a.wav")
    assert audio.dtype == np.int16 and len(audio) == 2048
    assert np.abs(audio / 32768 - expected[:2048]).max() <= 1 / 32768
    loud = tmp_path / "loud"
    generate(model, [encodings], loud, 1024, seed=9, normalize=True)
    audio = read(loud / "gen_a.wav")
    np.testing.assert_allclose(audio, expected[:1024] / np.abs(expected[:1024]).max())


def test_a_sound_is_reconstructed_from_its_embedding(
    model, sounds, encodings, tmp_path, golden_tiny
):
    generate(model, [sounds], tmp_path / "out", sample_length=1100, seed=4)
    # Cut to 1,100 samples and so to two frames, then encoded.
    z = model.encode(golden_tiny["audio"][0, :1024])
    np.testing.assert_array_equal(
        read(tmp_path / "out" / "gen_vocal_a.wav"), model.generate(z, seed=4)
    )
    # Of a folder with both, the sounds; with npy_only the others.
    shutil.copy(encodings / "a.npy", sounds / "z.npy")
    generate(model, [sounds], tmp_path / "both", 512, seed=1)
    assert len(os.listdir(tmp_path / "both")) == 2
    generate(model, [sounds], tmp_path / "npy", 512, seed=1, npy_only=True)
    assert os.listdir(tmp_path / "npy") == ["gen_z.wav"]


def test_bad_embeddings_are_reported_before_the_others_are_made(
    model, encodings, tmp_path, caplog
):
    bad = {
        "two": np.zeros([2, 3, 16]),
        "narrow": np.zeros([3, 15]),
        "none": np.zeros([0, 16]),
        "nan": np.full([3, 16], np.nan),
        "objects": np.array([{}, []], dtype=object),
    }
    for name, array in bad.items():
        np.save(encodings / f"{name}.npy", array, allow_pickle=True)
    (encodings / "empty.npy").write_bytes(b"")
    assert generate(model, [encodings], tmp_path / "out", 512, seed=0) == 1
    assert sorted(os.listdir(tmp_path / "out")) == ["gen_a.wav", "gen_b.wav"]


def test_interrupted_sounds_are_kept_and_made_again(
    model, encodings, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    real = WaveNet.stream

    def interrupted(self, *arguments, **options):
        done = 0
        for block in real(self, *arguments, **options):
            yield block
            done += block.shape[1]
            if done > 2000:
                raise KeyboardInterrupt

    (encodings / "b.npy").unlink()
    monkeypatch.setattr(WaveNet, "stream", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"kept in .*gen_a\.wav"):
        generate(model, [encodings], out, seed=9)
    monkeypatch.undo()
    part = read(out / "gen_a.wav")
    expected = model.generate(np.load(encodings / "a.npy"), seed=9)
    assert 2000 < len(part) < len(expected)
    np.testing.assert_array_equal(part, expected[: len(part)])
    assert sorted(os.listdir(out)) == ["gen_a.wav", "gen_a.wav.unfinished"]
    generate(model, [encodings], out, seed=9, skip_existing=True)
    np.testing.assert_array_equal(read(out / "gen_a.wav"), expected)
    assert os.listdir(out) == ["gen_a.wav"]
    before = os.stat(out / "gen_a.wav").st_mtime_ns
    assert generate(model, [encodings], out, seed=9, skip_existing=True) == 0
    assert os.stat(out / "gen_a.wav").st_mtime_ns == before


def test_files_grow_while_they_are_made(model, encodings, tmp_path, monkeypatch):
    lengths = []
    from magenta_nsynth.jobs import generate as module

    real = module.save_audio

    def noting(path, audio, *arguments):
        lengths.append((os.path.basename(path), len(audio)))
        real(path, audio, *arguments)

    monkeypatch.setattr(module, "save_audio", noting)
    generate(
        model, [encodings], tmp_path / "out", batch_size=2, seed=1, samples_per_save=500
    )
    for name, total in (("gen_a.wav", 12 * 512), ("gen_b.wav", 4 * 512)):
        own = [length for written, length in lengths if written == name]
        assert own == sorted(set(own)) and own[-1] == total
        assert len(own) > 2
