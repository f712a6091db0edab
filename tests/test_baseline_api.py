"""The baseline as one object: encoding, decoding, reconstruction."""

import numpy as np
import pytest
import recipe

import magenta_nsynth as nsynth
from magenta_nsynth.api.baseline import check_z
from magenta_nsynth.errors import AudioError, CheckpointError, InputError
from magenta_nsynth.spectral import istft


@pytest.fixture(scope="module")
def model(baseline_checkpoint):
    return nsynth.load_baseline(baseline_checkpoint)


@pytest.fixture(scope="module")
def golden(data):
    return dict(np.load(data / "baseline_tiny" / "inference.npz"))


@pytest.fixture(scope="module")
def recipes(baseline_start):
    """The model with the weights of `golden`."""
    return nsynth.load_baseline(baseline_start)


def test_encoding_is_the_originals(recipes, golden):
    z = recipes.encode(golden["audio"])
    assert z.shape == (2, 1, 124)
    largest = np.abs(golden["z"]).max()
    np.testing.assert_allclose(z[:, 0], golden["z"][:, 0, 0], atol=1e-5 * largest)


def test_decoding_is_the_originals(recipes, golden):
    spec = recipes.decode(golden["z"][:, 0], golden["pitch"][:, 0])
    assert spec.shape == (2, 513, 256)
    np.testing.assert_allclose(
        spec[:, :512:8, ::8], golden["xhat"][..., 0], rtol=0, atol=1e-5
    )
    assert not np.any(spec[:, 512])


def test_every_form_of_a_sound(model, tmp_path):
    clip = recipe.clips(20_000, seed=5, batch=1)[0]
    nsynth.save_audio(tmp_path / "clip.wav", clip)
    z = model.encode(clip)
    assert z.shape == (1, 124)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(model.encode(tmp_path / "clip.wav"), z)
    np.testing.assert_allclose(model.encode(clip[None])[0], z, atol=1e-5)
    longer = np.tile(clip, 8)
    several = model.encode([longer, clip, tmp_path / "clip.wav"])
    assert [len(code) for code in several] == [3, 1, 1]
    np.testing.assert_allclose(several[1], z, atol=1e-5)
    np.testing.assert_allclose(several[2], z, atol=1e-5)
    np.testing.assert_allclose(model.encode(longer, sample_length=20_000), z, atol=1e-5)


def test_a_code_does_not_depend_on_its_neighbours(model):
    clips = [recipe.clips(n, seed=n, batch=1)[0] for n in range(600, 12_000, 600)]
    together = model.encode(clips)
    for clip, z in zip(clips, together, strict=True):
        np.testing.assert_array_equal(model.encode(clip), z)


@pytest.mark.parametrize("length", [513, 5000, 64_000, 70_000])
@pytest.mark.parametrize("phase", ["griffin_lim", "source"])
def test_a_reconstruction_is_as_long_and_as_loud(model, length, phase):
    clip = recipe.clips(length, seed=1, batch=1)[0] * np.float32(0.3)
    again = model.reconstruct(clip, 60, phase, num_iters=3, seed=0)
    assert again.shape == (length,)
    assert again.dtype == np.float32
    np.testing.assert_allclose(np.abs(again).max(), np.abs(clip).max(), rtol=1e-5)


def test_the_sources_phase_is_used(model):
    """With a perfect magnitude it would be the sound; so it is nearer to it."""
    clip = recipe.clips(64_000, seed=2, batch=1)[0]
    spec = nsynth.specgram(clip, 1024, 256, mag_only=True).numpy()
    turns = model.phase(clip)[..., None] / np.pi
    both = np.concatenate([spec, turns], axis=-1)
    perfect = nsynth.ispecgram(
        both, hop_length=256, mask=False, dphase=False, mag_only=False
    )
    wanted = clip / np.abs(clip).max()
    np.testing.assert_allclose(perfect, wanted, rtol=0, atol=1e-3)

    # The network's magnitude, in numbers, with the sound's own phase.
    spec = model.decode(model.encode(clip), 60)[:, :251]
    spectrum = 10 ** ((spec - 1) * 6) * np.exp(1j * model.phase(clip))
    sound = istft(spectrum, 256).numpy()
    own = model.reconstruct(clip, 60, "source")
    scale = np.abs(clip).max() / np.abs(sound).max()
    np.testing.assert_allclose(own, sound * scale, rtol=0, atol=1e-4)


def test_silence_stays_silent(model):
    clips = [np.zeros(64_000, np.float32), np.full(3000, 1e-10, np.float32)]
    for phase in ("griffin_lim", "source"):
        for again, clip in zip(
            model.reconstruct(clips, 60, phase, num_iters=2), clips, strict=True
        ):
            assert again.shape == clip.shape
            assert not np.any(again)


def test_a_sound_does_not_depend_on_its_batch(model):
    clips = list(recipe.clips(6000, seed=3, batch=3))
    clips.append(recipe.clips(9000, seed=4, batch=1)[0])
    pitches = [0, 60, 127, 61]
    together = model.reconstruct(clips, pitches, num_iters=4, seed=9)
    for clip, pitch, sound in zip(clips, pitches, together, strict=True):
        alone = model.reconstruct(clip, pitch, num_iters=4, seed=9)
        np.testing.assert_allclose(sound, alone, rtol=0, atol=1e-4)


def test_pitch_matters_at_both_ends(model):
    z = model.encode(recipe.clips(64_000, seed=6, batch=1)[0])
    spectrograms = [model.decode(z, pitch) for pitch in (0, 60, 127)]
    for i in range(3):
        assert np.abs(spectrograms[i] - spectrograms[i - 1]).max() > 1e-3


def test_generating_from_z(model):
    z = np.random.default_rng(0).normal(size=[3, 124]).astype(np.float32)
    assert model.generate(z[:1], 60, num_iters=1).shape == (64_000,)
    assert model.generate(z[:2], 60, num_iters=1).shape == (511 * 256,)
    several = model.generate(
        [z[:1], z[1:]], [60, 61], [1000, 130_000], num_iters=1, peak=[0.5, 2.0]
    )
    assert [len(sound) for sound in several] == [1000, 130_000]
    np.testing.assert_allclose(
        [np.abs(sound).max() for sound in several], [0.5, 2.0], rtol=1e-5
    )
    batch = model.generate(z[:, None], 60, 2000, num_iters=2, seed=1)
    assert batch.shape == (3, 2000)
    np.testing.assert_array_equal(
        batch, model.generate(z[:, None], 60, 2000, num_iters=2, seed=1)
    )
    assert np.abs(batch - model.generate(z[:, None], 60, 2000, 2, seed=2)).max() > 0


def test_which_model_is_recognised(baseline_checkpoint, tiny_checkpoint):
    assert isinstance(nsynth.load_model(baseline_checkpoint), nsynth.Baseline)
    assert isinstance(nsynth.load_model(tiny_checkpoint), nsynth.WaveNet)
    with pytest.raises(CheckpointError, match="of the spectral baseline autoencoder"):
        nsynth.load_wavenet(baseline_checkpoint)
    with pytest.raises(CheckpointError, match="of a WaveNet autoencoder"):
        nsynth.load_baseline(tiny_checkpoint)
    with pytest.raises(CheckpointError, match="of a WaveNet autoencoder"):
        nsynth.load_model(tiny_checkpoint, "baseline")
    with pytest.raises(InputError, match="model must be wavenet or baseline"):
        nsynth.load_model(tiny_checkpoint, "ae")
    with pytest.raises(InputError, match="keeps no averaged weights"):
        nsynth.load_model(baseline_checkpoint, use_ema=True)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.encode(np.zeros(512, np.float32)), AudioError, "512 samples"),
        (lambda m: m.encode(np.zeros(1, np.float32)), AudioError, "at least 513"),
        (lambda m: m.encode(np.full(900, np.nan)), InputError, "NaN"),
        (lambda m: m.encode(np.zeros([900, 2], np.float32)), InputError, "2 channels"),
        (lambda m: m.encode(np.zeros([1, 900, 2])), InputError, "mix several"),
        (lambda m: m.encode(np.zeros(900, np.int64)), InputError, "not int64"),
        (lambda m: m.encode([]), InputError, "empty list"),
        (lambda m: m.decode(np.zeros([1, 16]), 60), InputError, "another model's"),
        (lambda m: m.decode(np.zeros([1, 124]), 128), InputError, "0 to 127"),
        (lambda m: m.decode(np.zeros([1, 124]), -1), InputError, "0 to 127"),
        (lambda m: m.decode(np.zeros([1, 124]), 60.5), InputError, "whole number"),
        (lambda m: m.decode(np.zeros([2, 1, 124]), [1, 2, 3]), InputError, "or 2"),
        (lambda m: m.decode(np.zeros([2, 1, 124]), [[1], [2, 3]]), InputError, "pitch"),
        (lambda m: m.generate(np.zeros(124), 60, 4000.0), InputError, "num_samples"),
        (lambda m: m.generate(np.zeros(124), 60, [900, 901]), InputError, "or 1"),
        (lambda m: m.generate(np.zeros(124), 60, peak=np.nan), InputError, "finite"),
        (lambda m: m.generate(np.zeros(124), 60, phase=5), InputError, "phase must"),
        (
            lambda m: m.generate(np.zeros(124), 60, phase=np.full([513, 251], np.nan)),
            InputError,
            "phase holds NaN",
        ),
        (lambda m: m.encode(np.full(900, 1e300)), InputError, "infinite"),
        (lambda m: m.encode(np.full(900, 1e35)), InputError, "samples reach 1e.35"),
        (lambda m: m.encode(np.ones(900), -5), InputError, "sample_length must be 0"),
        (
            lambda m: m.generate(np.zeros([1, 124]), 60, 65_536),
            InputError,
            "513 to 65535",
        ),
        (
            lambda m: m.generate(np.zeros([1, 124]), 60, phase=np.zeros([513, 3])),
            InputError,
            "64000 samples need",
        ),
        (
            lambda m: m.reconstruct(np.ones(900, np.float32), 60, "mine"),
            InputError,
            "griffin_lim or source",
        ),
    ],
)
def test_what_cant_be_is_said(model, call, error, words):
    with pytest.raises(error, match=words):
        call(model)


def test_z_in_every_form():
    z = np.arange(8, dtype=np.float64)
    for shape in ([8], [1, 8], [1, 1, 8], [1, 1, 1, 8]):
        assert check_z(z.reshape(shape), 8).shape == (1, 8)
    assert check_z(np.zeros([3, 8]), 8).shape == (3, 8)
    for bad in (np.zeros([2, 2, 8]), np.zeros(0), np.float32(1), np.zeros(7)):
        with pytest.raises(InputError, match="expected z of shape"):
            check_z(bad, 8, "my.npy")
    with pytest.raises(InputError, match=r"my\.npy: contains NaN or infinite"):
        check_z(np.full(8, np.inf), 8, "my.npy")
    with pytest.raises(InputError, match=r"my\.npy: expected floats, got int64"):
        check_z(np.ones(8, int), 8, "my.npy")
