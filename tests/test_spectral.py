"""Spectrograms, their inverse and Griffin-Lim against the original's outputs."""

import numpy as np
import pytest
import tensorflow as tf

from magenta_nsynth.errors import InputError
from magenta_nsynth.spectral import (
    frequency_weights,
    griffin_lim,
    ispecgram,
    istft,
    specgram,
    spectral_loss,
    stft,
)

VARIANTS = {
    "magnitude": {"mag_only": True},
    "phase difference": {},
    "phase difference, not masked": {"mask": False},
    "phase": {"dphase": False},
    "linear": {"log_mag": False},
    "linear, phase": {"log_mag": False, "dphase": False},
    "linear magnitude": {"log_mag": False, "mag_only": True},
    "real and imaginary": {"re_im": True},
}


@pytest.fixture(scope="module")
def golden(data):
    return dict(np.load(data / "spectral.npz"))


@pytest.fixture(scope="module")
def second(golden):
    return golden["audio"][:16_000]


def assert_same_phase(phase, wanted):
    """Half turns, modulo 2."""
    error = phase - wanted
    assert np.abs(error - 2 * np.round(error / 2)).max() < 1e-3


def test_magnitude_is_the_originals(golden):
    got = specgram(golden["audio"], 1024, 256, mag_only=True)
    assert got.shape == (513, 251, 1)
    np.testing.assert_allclose(got[..., 0], golden["mag_1024_256"], rtol=0, atol=1e-4)


def test_masked_phase_difference_is_the_originals(golden):
    got = specgram(golden["audio"], 512, 256).numpy()
    wanted = golden["magdphase_512_256"]
    np.testing.assert_allclose(got[..., 0], wanted[..., 0], rtol=0, atol=1e-4)
    clear = wanted[..., 0] > 0.2
    assert clear.mean() > 0.1
    magnitude = wanted[..., 0][clear]
    assert_same_phase(got[..., 1][clear] / magnitude, wanted[..., 1][clear] / magnitude)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("magdphase_nomask", {"mask": False}),
        ("linmag_phase", {"log_mag": False, "dphase": False}),
    ],
)
def test_phase_is_the_originals(golden, second, key, options):
    got, wanted = specgram(second, 512, 256, **options).numpy(), golden[key]
    np.testing.assert_allclose(got[..., 0], wanted[..., 0], rtol=0, atol=1e-4)
    clear = wanted[..., 0] > 0.2
    assert_same_phase(got[..., 1][clear], wanted[..., 1][clear])


def test_real_and_imaginary_part_are_the_originals(golden, second):
    got, wanted = specgram(second, 512, 256, re_im=True), golden["re_im"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_the_inverse_is_the_originals(golden):
    spec = golden["magdphase_nomask"].copy()
    got = ispecgram(spec, 512, 256, mask=False, mag_only=False)
    wanted = golden["inv_magdphase_nomask"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(spec, golden["magdphase_nomask"])


@pytest.mark.parametrize("num_iters", [1, 10, 100])
def test_griffin_lim_is_the_originals(golden, num_iters):
    got = griffin_lim(golden["gl_mag"], 256, num_iters, golden["gl_phase0"])
    wanted = golden[f"gl_audio_{num_iters}"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)


def test_frequency_weights_are_the_originals(golden):
    np.testing.assert_array_equal(frequency_weights(), golden["fw_mask"])


def test_the_loss_by_hand():
    weights = frequency_weights(8, 3.0, 4000.0)
    np.testing.assert_array_equal(weights[0, :, 0], [3, 1, 1, 1])
    spec = np.zeros([1, 4, 2, 2], np.float32)
    other = spec.copy()
    other[0, 0, 0, 0] = 0.5  # weight 3
    other[0, 3, 1, 1] = 0.25  # weight 1
    magnitude, phase = 3 * 0.25 / 8, 0.0625 / 8
    np.testing.assert_allclose(
        spectral_loss(spec, other, weights), [magnitude + phase], rtol=1e-6
    )
    np.testing.assert_allclose(
        spectral_loss(spec[..., :1], other[..., :1], weights), [magnitude], rtol=1e-6
    )
    cosines = (2 * (3 + 1 + 1) + 1 + np.cos(np.pi / 4)) / 8
    np.testing.assert_allclose(
        spectral_loss(spec, other, weights, dphase=False),
        [magnitude + 1 - cosines],
        rtol=1e-5,
    )


@pytest.mark.parametrize("length", [513, 514, 767, 768, 5000])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_any_clip_is_finite_and_comes_back(length, options):
    rng = np.random.default_rng(length)
    noise = rng.uniform(-0.5, 0.5, length).astype(np.float32)
    for clip in (noise, np.zeros_like(noise), np.full_like(noise, 0.25)):
        spec = specgram(clip, 1024, 256, **options)
        channels = 1 if options.get("mag_only") else 2
        assert spec.shape == (513, 1 + length // 256, channels)
        assert np.isfinite(spec).all()
        if "re_im" not in options:
            assert np.abs(spec).max() <= 1
        given = {"mag_only": False, **options, "length": length, "num_iters": 3}
        again = ispecgram(spec, 1024, 256, **given).numpy()
        assert again.shape == (length,)
        assert np.isfinite(again).all()
        assert np.abs(again).max() < 1 + 1e-5
        if clip is noise and not options.get("mag_only"):
            # -120 dB and the mask lose next to nothing of noise.
            np.testing.assert_allclose(
                again, noise / np.abs(noise).max(), rtol=0, atol=2e-3
            )


def test_silence_is_the_originals_and_stays_silent():
    silence = np.zeros(4000, np.float32)
    assert np.all(specgram(silence, 1024, 256, mag_only=True) == 1)
    linear = specgram(silence, 1024, 256, log_mag=False)
    assert not np.any(linear)
    assert not np.any(ispecgram(linear, log_mag=False, mag_only=False))
    assert not np.any(griffin_lim(np.zeros([513, 9], np.float32), 256, 5, seed=0))


@pytest.mark.parametrize("length", [0, 1, 512])
def test_too_short_a_clip_is_named(length):
    with pytest.raises(InputError, match=rf"{length} samples; .* needs at least 513"):
        specgram(np.zeros(length, np.float32), 1024, 256)


def test_a_batch_is_its_clips():
    rng = np.random.default_rng(0)
    clips = rng.uniform(-1, 1, [3, 2000]).astype(np.float32)
    clips[1] *= 1e-3  # each is scaled by itself
    batch = specgram(clips, 512, 128)
    for clip, spec in zip(clips, batch, strict=True):
        np.testing.assert_allclose(spec, specgram(clip, 512, 128), atol=1e-6)
    sounds = ispecgram(batch[..., :1], 512, 128, num_iters=4, seed=3)
    for spec, sound in zip(batch, sounds, strict=True):
        alone = ispecgram(spec[..., :1], 512, 128, num_iters=4, seed=3)
        np.testing.assert_allclose(sound, alone, atol=1e-5)


@pytest.mark.parametrize("hop_length", [256, 200, 512])
def test_istft_undoes_stft(hop_length):
    clips = np.random.default_rng(1).uniform(-1, 1, [2, 12_345]).astype(np.float32)
    spectrum = stft(clips, 1024, hop_length)
    np.testing.assert_allclose(
        istft(spectrum, hop_length, 12_345), clips, rtol=0, atol=1e-5
    )
    num_whole = 12_345 // hop_length * hop_length
    np.testing.assert_allclose(
        istft(spectrum, hop_length), clips[:, :num_whole], rtol=0, atol=1e-5
    )


def test_stft_is_numpys():
    clip = np.random.default_rng(2).uniform(-1, 1, 3000)
    padded = np.pad(clip, 512, mode="reflect")
    window = np.hanning(1025)[:-1]
    frames = [padded[i * 300 : i * 300 + 1024] * window for i in range(11)]
    wanted = np.fft.rfft(frames, axis=1).T
    np.testing.assert_allclose(stft(clip, 1024, 300), wanted, rtol=0, atol=1e-4)


def test_they_run_in_a_pipeline_of_unknown_lengths():
    clips = [np.ones(n, np.float32) * 0.1 for n in (600, 900)]

    def there_and_back(clip):
        spec = specgram(clip, 1024, 256, mag_only=True)
        return spec, ispecgram(spec, hop_length=256, num_iters=2, seed=0)

    dataset = tf.data.Dataset.from_generator(
        lambda: iter(clips), output_signature=tf.TensorSpec([None], tf.float32)
    ).map(there_and_back)
    shapes = [(spec.shape, sound.shape) for spec, sound in dataset]
    assert shapes == [((513, 3, 1), (512,)), ((513, 4, 1), (768,))]


def test_too_short_a_clip_in_a_pipeline():
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([np.zeros(300, np.float32)]),
        output_signature=tf.TensorSpec([None], tf.float32),
    ).map(lambda clip: specgram(clip, 1024, 256))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 513 samples"):
        list(dataset)
    # Where the graph knows it, it is the same error as everywhere.
    with pytest.raises(InputError, match="needs at least 513"):
        tf.function(lambda: specgram(np.zeros(300, np.float32), 1024, 256))()


def test_compiled_it_is_the_same(second):
    def there_and_back(clip):
        spec = specgram(clip, 1024, 256, mag_only=True)
        return spec, ispecgram(spec, hop_length=256, num_iters=2, seed=5)

    plain, compiled = (
        tf.function(there_and_back, jit_compile=jit, autograph=False)(
            tf.constant(second)
        )
        for jit in (False, True)
    )
    eager = there_and_back(second)
    for i, limit in ((0, 1e-4), (1, 1e-4)):
        np.testing.assert_allclose(plain[i], eager[i], rtol=0, atol=limit)
        np.testing.assert_allclose(compiled[i], eager[i], rtol=0, atol=limit)


def test_loud_sounds_are_as_good_as_quiet_ones(second):
    wanted = specgram(second, 1024, 256)
    loud = specgram(second * np.float32(1e25), 1024, 256)
    np.testing.assert_allclose(loud[..., 0], wanted[..., 0], rtol=0, atol=1e-4)


def test_a_seed_repeats_and_none_does_not():
    magnitude = np.random.default_rng(3).uniform(0, 1, [513, 9])
    one, same, other, fresh = (
        griffin_lim(magnitude, 256, 2, seed=seed).numpy() for seed in (1, 1, 2, None)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4
    assert np.abs(one - fresh).max() > 1e-4


def test_griffin_lim_of_several_sizes(second):
    for n_fft in (512, 1024, 256):
        for length in (5120, 2560):
            magnitude = tf.abs(stft(second[:length], n_fft, 128))
            assert griffin_lim(magnitude, 128, num_iters=2).shape == [length]


def test_iterations_bring_the_spectrum_nearer(second):
    magnitude = tf.abs(stft(second, 1024, 256))

    def distance(num_iters):
        sound = griffin_lim(magnitude, 256, num_iters, seed=0, length=16_000)
        return float(tf.norm(tf.abs(stft(sound, 1024, 256)) - magnitude))

    assert distance(50) < 0.7 * distance(5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: specgram(np.zeros(900, np.int16)), "float32 of 1 dimensions"),
        (lambda: specgram(np.zeros([2, 2, 900])), "float32 of 1 dimensions"),
        (lambda: specgram(np.zeros(900), n_fft=7), "n_fft must be even"),
        (lambda: specgram(np.zeros(900), 512, 0), "hop_length must be 1 to"),
        (lambda: ispecgram(np.zeros([257, 5, 2])), "has 2 channels"),
        (lambda: ispecgram(np.zeros([257, 5, 1]), 1024), "has 257 bins"),
        (lambda: istft(np.zeros([257, 5])), "complex64 of 2 dimensions"),
        (lambda: istft(np.zeros([257, 5], complex), 256, 1281), "hold 1 to 1280"),
        (lambda: griffin_lim(np.zeros([513, 2]), 256), "it needs at least 3"),
        (lambda: griffin_lim(np.zeros([513, 5]), 256, 0), "num_iters must be a whole"),
        (lambda: griffin_lim(np.zeros([513, 5]), 256, 2.0), "num_iters must be a wh"),
        (lambda: griffin_lim(np.zeros([513, 5]), 256, 2**31), "num_iters must be a"),
        (lambda: griffin_lim(np.zeros([513, 1]), 1000), "it needs at least 2"),
        (
            lambda: griffin_lim(np.zeros([513, 5]), 256, 2, np.zeros([513, 4])),
            "The phase has shape",
        ),
    ],
)
def test_what_cant_be_is_said(call, words):
    with pytest.raises(InputError, match=words):
        call()
