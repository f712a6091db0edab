"""The original's functions, and scripts that use them as they were written for it."""

import pathlib
import runpy
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
import tfrecords
from scipy import ndimage
from scipy.io import wavfile

from magenta_nsynth.compat import reader, utils
from magenta_nsynth.compat.wavenet import fastgen
from magenta_nsynth.errors import NSynthError

SCRIPTS = pathlib.Path(__file__).parent / "old_scripts"


@pytest.fixture(scope="module")
def weights(tmp_path_factory, data):
    """The folder of the tiny weights, under the released ones' name."""
    folder = tmp_path_factory.mktemp("weights")
    for file in (data / "wavenet_tiny").glob("model.ckpt-5.*"):
        name = file.name.replace("model.ckpt-5", "model.ckpt-200000")
        shutil.copy(file, folder / name)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch, weights, golden_tiny):
    """A user's folder: the weights and two sounds."""
    (tmp_path / "wavenet-ckpt").symlink_to(weights)
    for name, audio in zip(
        ("drum loop.wav", "voice.wav"), golden_tiny["audio"], strict=True
    ):
        wavfile.write(tmp_path / name, 16_000, audio)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def spectra(data):
    return dict(np.load(data / "spectral.npz"))


def run(name):
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


def assert_near(encoding, reference):
    assert np.abs(encoding - reference).max() < 2e-5 * np.abs(reference).max()


def test_resynthesis_gives_the_originals_samples(work, data, golden_tiny, capsys):
    run("resynthesise.py")
    assert "6144 samples, 0.384 s\n(1, 12, 16)" in capsys.readouterr().out
    assert_near(np.load("drum loop.npy"), golden_tiny["raw_encoding"][:1])
    wanted = np.load(data / "wavenet_tiny" / "seed31.npz")["audio0"]
    for name in ("gen_drum loop.wav", "one path.wav"):
        rate, audio = wavfile.read(name)
        assert (rate, audio.dtype) == (16_000, np.float32)
        np.testing.assert_array_equal(audio, wanted)


def test_stretched_and_crossfaded_embeddings(work, golden_tiny):
    run("stretch_and_crossfade.py")
    made, (one, other) = np.load("encodings.npz"), golden_tiny["raw_encoding"]
    assert_near(made["slower"][0], ndimage.zoom(one, (2, 1), order=1))
    assert_near(made["faster"][0], ndimage.zoom(one, (0.5, 1), order=1))
    assert_near(made["mixed"][0, 0], one[0])
    assert_near(made["mixed"][0, 6], (one[6] + other[6]) / 2)
    for name in ("slower.wav", "faster.wav", "mixed.wav"):
        _, audio = wavfile.read(name)
        assert len(audio) == 512 and 0 < np.abs(audio).max() <= 1


def test_a_folder_gives_the_originals_samples(work, golden_tiny, monkeypatch):
    uniforms = golden_tiny["raw_free_uniforms"]

    def rand(*shape):
        assert shape == uniforms.shape
        return uniforms

    monkeypatch.setattr(np.random, "rand", rand)
    run("folder.py")
    for i, name in enumerate(("drum loop", "voice")):
        reference = golden_tiny["raw_encoding"][i, :4]
        assert_near(np.load(f"encodings/{name}.npy"), reference)
        _, audio = wavfile.read(f"generated/gen_{name}.wav")
        # The fifth frame was padding.
        np.testing.assert_array_equal(audio, golden_tiny["raw_free_audio"][i])


def test_padding_does_not_become_sound(work, golden_tiny):
    z = golden_tiny["raw_encoding"][:, :2].copy()
    z[1, 1:] = 0
    fastgen.synthesize(z, ["a.wav", "b.wav"], "wavenet-ckpt")
    assert [len(wavfile.read(name)[1]) for name in ("a.wav", "b.wav")] == [1024, 512]
    fastgen.synthesize(np.zeros([1, 16]), "c.wav", "wavenet-ckpt")
    assert len(wavfile.read("c.wav")[1]) == 512


def test_unfinished_sounds_are_saved(work, golden_tiny, monkeypatch):
    saved = []
    monkeypatch.setattr(
        fastgen, "save_batch", lambda sounds, _: saved.append(np.copy(sounds[0]))
    )
    z = golden_tiny["raw_encoding"][:1, :2]
    fastgen.synthesize(z, ["a.wav"], "wavenet-ckpt", samples_per_save=1)
    assert len(saved) > 2 and {len(sound) for sound in saved} == {1024}
    assert not saved[0][16:].any() and saved[-1][16:].any()


def test_sounds_and_embeddings_are_padded_and_cut(work, golden_tiny):
    audio = golden_tiny["audio"]
    batch = fastgen.load_batch_audio(["voice.wav", "drum loop.wav"], 7000)
    np.testing.assert_array_equal(batch[0, :6144], audio[1])
    assert batch.shape == (2, 7000) and not batch[:, 6144:].any()
    np.testing.assert_array_equal(utils.load_audio("voice.wav", 100), audio[1, :100])
    assert len(utils.load_audio("voice.wav", None, sr=8000)) == 3072
    z = golden_tiny["raw_encoding"]
    np.save("a.npy", z[0])
    np.save("b.npy", z[1:, :3])
    batch = fastgen.load_batch_encodings(["a.npy", "b.npy"], 5)
    np.testing.assert_array_equal(batch[0], z[0, :5])
    np.testing.assert_array_equal(batch[1, :3], z[1, :3])
    assert not batch[1, 3:].any()
    assert fastgen.load_batch_encodings(["a.npy"]).shape == (1, 125, 16)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fastgen.load_nsynth(), "load_wavenet"),
        (lambda: fastgen.load_fastgen_nsynth(), "stream"),
        (lambda: fastgen.generate_audio_sample(None, None, None, None), "stream"),
        (lambda: fastgen.save_batch(np.zeros([2, 9]), ["a.wav"]), "1 paths .* 2"),
        (lambda: utils.mu_law(0.5, mu=100), "255"),
        (lambda: utils.inv_mu_law(5, mu=100), "255"),
        (lambda: utils.inv_mu_law_numpy([0.5]), "whole numbers"),
        (lambda: utils.batch_specgram(np.zeros(4096)), "2 axes"),
        (lambda: fastgen.load_batch_encodings(["none.npy"]), "none.npy"),
        (
            lambda: utils.griffin_lim(np.zeros([9, 9]), np.zeros([9, 9]), 64, 8, 1),
            "9 bins",
        ),
    ],
)
def test_what_cannot_be_done_says_what_can(call, words):
    with pytest.raises(NSynthError, match=words):
        call()


def test_draws_are_numpys():
    probabilities = np.array([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    np.random.seed(0)  # 0.5488, 0.7152
    drawn = fastgen.sample_categorical(probabilities)
    np.testing.assert_array_equal(drawn, [[2.0], [1.0]])
    np.random.seed(0)
    assert fastgen.sample_categorical(np.full(3, 0.1)) == [[2.0]]  # sums to 0.3


def test_mu_law_is_the_originals(data):
    golden = np.load(data / "audio_mu_law.npz")
    np.testing.assert_array_equal(utils.mu_law(golden["mu_in"]), golden["mu_out"])
    np.testing.assert_array_equal(
        utils.inv_mu_law_numpy(golden["inv_in"][:256]), golden["inv_np"][:256]
    )
    np.testing.assert_allclose(
        utils.inv_mu_law(golden["inv_in"]), golden["inv_out"], rtol=3e-7
    )
    as_int8 = utils.mu_law([-1.0, 0.0, 0.5, 1.0], int8=True)
    assert as_int8.dtype == tf.int8 and as_int8.numpy().tolist() == [-128, 0, 112, 127]


def test_trimming():
    trimmed, length = utils.trim_for_encoding(np.arange(1500.0), 64000)
    assert (len(trimmed), length) == (1024, 1024)
    trimmed, length = utils.trim_for_encoding(np.zeros([3, 5000]), 1100, 100)
    assert (trimmed.shape, length) == ((3, 1100), 1100)


def test_spectrograms_are_the_originals(spectra):
    audio = spectra["audio"]
    got = utils.specgram(audio, 1024, 256, mag_only=True)
    assert got.shape == (513, 251, 1) and isinstance(got, np.ndarray)
    np.testing.assert_allclose(got[..., 0], spectra["mag_1024_256"], rtol=0, atol=1e-4)
    batch = utils.batch_specgram(np.stack([audio, audio]), 512, 256)
    assert batch.shape == (2, 257, 251, 2)
    wanted = spectra["magdphase_512_256"][..., 0]
    np.testing.assert_allclose(batch[1, ..., 0], wanted, rtol=0, atol=1e-4)


def test_inverses_are_the_originals(spectra):
    spec, wanted = spectra["magdphase_nomask"], spectra["inv_magdphase_nomask"]
    got = utils.ispecgram(spec, 512, 256, mask=False, mag_only=False)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)
    batch = utils.batch_ispecgram(spec[None], 512, 256, mask=False)
    np.testing.assert_allclose(batch, wanted[None], rtol=0, atol=1e-4)
    got = utils.griffin_lim(spectra["gl_mag"], spectra["gl_phase0"], 1024, 256, 10)
    np.testing.assert_allclose(got, spectra["gl_audio_10"], rtol=0, atol=1e-4)


def test_an_estimated_phase_starts_from_numpys_draws(spectra):
    spec = utils.specgram(spectra["audio"][:8000], 512, 128)
    sounds = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        sounds.append(utils.ispecgram(spec, 512, 128, num_iters=2))
    np.testing.assert_array_equal(sounds[0], sounds[1])
    assert np.abs(sounds[0] - sounds[2]).max() > 0.01


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    notes = []
    for i in range(3):
        audio = np.arange(64_000, dtype=np.float32) / 2**17 * (i + 1)
        fields = {"pitch": 60 + i, "velocity": 75, "qualities": [0] * 9 + [1]}
        fields |= {"instrument_source": i, "instrument_family": 3}
        text = f"note_{i}".encode()
        notes.append(tfrecords.example(note_str=text, audio=audio, **fields))
    path = tmp_path_factory.mktemp("records") / "notes.tfrecord"
    return tfrecords.write(path, notes)


def test_batches_for_evaluation(records):
    dataset = reader.NSynthDataset(records, is_training=False)
    first, last = dataset.get_wavenet_batch(2, length=100)
    assert first["key"].numpy().tolist() == [b"note_0", b"note_1"]
    assert first["pitch"].dtype == tf.int32 and first["pitch"].numpy()[1] == 61
    assert last["wav"].shape == (1, 100)
    middle = np.arange(31_950, 32_050) / 2**17
    np.testing.assert_array_equal(first["wav"], np.outer([1, 2], middle))
    one, *_ = dataset.get_example(1)
    assert {name: tuple(value.shape) for name, value in one.items()} == {
        "note_str": (),
        "audio": (64_000,),
        "pitch": (1,),
        "velocity": (1,),
        "instrument_source": (1,),
        "instrument_family": (1,),
        "qualities": (10,),
    }


def test_batches_for_training(records):
    dataset = reader.NSynthDataset(records)
    np.random.seed(4)
    crops = [batch["wav"] for batch in dataset.get_wavenet_batch(2, 100).take(3)]
    assert {crop.shape for crop in crops} == {tf.TensorShape([2, 100])}
    assert len({float(crop[0, 0]) for crop in crops}) == 3
    np.random.seed(4)
    again = next(iter(dataset.get_wavenet_batch(2, 100)))["wav"]
    np.testing.assert_array_equal(again, crops[0])


@pytest.mark.parametrize("is_training", [False, True])
def test_batches_for_the_baseline(records, is_training):
    dataset = reader.NSynthDataset(records, is_training)
    hparams = types.SimpleNamespace(
        batch_size=3, n_fft=1024, hop_length=256, mask=True, log_mag=True,
        re_im=False, dphase=True, mag_only=True, pad=True,
    )  # fmt: skip
    batch = next(iter(dataset.get_baseline_batch(hparams)))
    order = np.argsort(batch["pitch"])
    assert batch["audio"].shape == (3, 64_000)
    assert batch["qualities"].shape == (3, 10)
    assert batch["spectrogram"].shape == (3, 512, 256, 1)
    spec = batch["spectrogram"].numpy()[order[0]]
    wanted = utils.specgram(batch["audio"][order[0]], 1024, 256, mag_only=True)
    np.testing.assert_allclose(spec[:, :251], wanted[:-1], atol=1e-6)
    assert not spec[:, 251:].any()
    hparams.pad = False
    batch = next(iter(dataset.get_baseline_batch(hparams)))
    assert batch["spectrogram"].shape == (3, 513, 251, 1)
