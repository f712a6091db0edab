"""The constant-Q transform and rainbowgrams against librosa's, and by synthesis."""

import numpy as np
import pytest
import tensorflow as tf

from magenta_nsynth.config import C2_HZ
from magenta_nsynth.errors import InputError
from magenta_nsynth.spectral.cqt import cqt, cqt_frequencies, cqt_lengths
from magenta_nsynth.spectral.rainbowgram import rainbowgram

SOUNDS = ("note", "tones", "chirp")


@pytest.fixture(scope="module")
def golden(data):
    return dict(np.load(data / "rainbowgram.npz"))


def decibels(spectrum):
    return 20 * np.log10(np.maximum(np.abs(spectrum), 1e-12))


@pytest.mark.parametrize("sound", SOUNDS)
def test_levels_are_librosas(golden, sound):
    got = cqt(golden[f"{sound}_audio"]).numpy()
    wanted, magnitude = golden[f"{sound}_C"], golden[f"{sound}_mag"]
    assert got.shape == wanted.shape
    error = np.abs(decibels(got) - decibels(wanted))
    assert np.median(error[magnitude > 0.4]) < 0.2
    inner = magnitude[:, 40:-40] > 0.4
    assert inner.sum() > 300
    assert np.percentile(error[:, 40:-40][inner], 95) < 1


@pytest.mark.parametrize("sound", SOUNDS)
def test_rainbowgrams_are_the_originals(golden, sound):
    got = rainbowgram(golden[f"{sound}_audio"])
    magnitude, dphase = golden[f"{sound}_mag"], golden[f"{sound}_dphase"]
    error = got.phase.numpy() - dphase
    error = np.abs(error - 2 * np.round(error / 2))[:, 40:-40]
    error = error[magnitude[:, 40:-40] > 0.6]
    assert error.size > 50
    assert np.median(error) < 0.005
    assert np.percentile(error, 95) < 0.03
    # In decibels, as `test_levels_are_librosas` has them.
    error = 70 * np.abs(got.magnitude.numpy() - magnitude)[magnitude > 0.4]
    assert np.median(error) < 0.2
    assert got.magnitude.numpy().max() == 1
    assert got.magnitude.numpy().min() >= 0


@pytest.mark.parametrize("k", range(0, 240, 13))
def test_a_sine_peaks_in_its_bin(k):
    frequencies = cqt_frequencies()
    hz, amplitude = frequencies[k], 0.5
    sine = amplitude * np.sin(2 * np.pi * hz / 16_000 * np.arange(48_000))
    inner = cqt(sine).numpy()[:, 60:-60]
    level = np.abs(inner).mean(axis=1)
    assert level.argmax() == k
    wanted = amplitude / 2 * np.sqrt(cqt_lengths(frequencies)[k])
    assert abs(decibels(level[k] / wanted)) < 0.5
    advance = np.diff(np.angle(inner[k])) - 2 * np.pi * hz * 256 / 16_000
    advance -= 2 * np.pi * np.round(advance / (2 * np.pi))
    assert np.abs(advance).max() < 1e-3


def test_a_steady_partial_keeps_one_colour():
    hz = cqt_frequencies()[77]
    sine = np.sin(2 * np.pi * hz / 16_000 * np.arange(32_000)).astype(np.float32)
    plain = rainbowgram(sine).phase.numpy()[77, 45:-45]
    still = rainbowgram(sine, demodulate=True).phase.numpy()[77, 45:-45]
    assert np.abs(still).max() < 1e-3
    turns = 2 * hz * 256 / 16_000
    np.testing.assert_allclose(plain, turns - 2 * np.round(turns / 2), atol=1e-3)


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (1, {}),
        (2, {}),
        (700, {}),
        (5000, {"hop_length": 100}),
        (5000, {"hop_length": 1000, "num_bins": 60, "bins_per_octave": 12}),
        (9000, {"sample_rate": 44_100, "fmin": 110.0}),
        (3000, {"hop_length": 20_000}),
    ],
)
def test_any_length_hop_and_rate(length, options):
    """Each value is the correlation that the docstring speaks of."""
    clip = np.random.default_rng(length).uniform(-1, 1, length)
    got = cqt(clip, **options).numpy()
    hop, rate = options.get("hop_length", 256), options.get("sample_rate", 16_000)
    num_bins = options.get("num_bins", 240)
    per_octave = options.get("bins_per_octave", 40)
    assert got.shape == (num_bins, 1 + length // hop)
    frequencies = cqt_frequencies(num_bins, options.get("fmin", C2_HZ), per_octave)
    lengths = cqt_lengths(frequencies, per_octave, 0.8, rate)
    mirrored = (
        np.pad(clip, 30_000, mode="reflect") if length > 1 else np.full(60_001, clip[0])
    )
    for k in (0, num_bins // 2, num_bins - 1):
        n = np.arange(-lengths[k] // 2, lengths[k] // 2)
        window = np.hanning(len(n) + 1)[:-1]
        window *= np.sqrt(lengths[k]) / window.sum()
        wave = window * np.exp(-2j * np.pi * frequencies[k] / rate * n)
        for frame in (0, got.shape[1] - 1):
            piece = mirrored[30_000 + frame * hop + n.astype(int)]
            np.testing.assert_allclose(got[k, frame], piece @ wave, atol=2e-4)


def test_a_batch_is_its_clips_in_graphs_too(golden):
    clips = np.stack([golden["note_audio"][:8000], golden["chirp_audio"][:8000]])
    batch = tf.function(cqt, input_signature=[tf.TensorSpec([None, None], tf.float32)])(
        clips
    )
    for clip, spectrum in zip(clips, batch, strict=True):
        np.testing.assert_allclose(cqt(clip), spectrum, rtol=0, atol=1e-4)


def test_silence_is_black():
    for transform in ("cqt", "stft"):
        got = rainbowgram(np.zeros(4000, np.float32), transform=transform)
        assert not np.any(got.magnitude)
        assert np.isfinite(got.phase).all()


def test_the_stft_too():
    sine = np.sin(2 * np.pi * 1000 / 16_000 * np.arange(16_000)).astype(np.float32)
    got = rainbowgram(sine, transform="stft", peak_db=90)
    assert got.magnitude.shape == (513, 63)
    loudest = got.magnitude.numpy().mean(axis=1).argmax()
    assert got.frequencies[loudest] == 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_bins": 400}, "above half the rate"),
        ({"hop_length": 0}, "hop_length must be a whole"),
        ({"fmin": -1.0}, "fmin must be above 0"),
        ({"filter_scale": float("nan")}, "filter_scale must be above 0"),
        ({"transform": "fft"}, "transform must be cqt or stft"),
        ({"peak_db": 0}, "peak_db must be above 0"),
    ],
)
def test_what_cant_be_is_said(options, words):
    with pytest.raises(InputError, match=words):
        rainbowgram(np.zeros(900, np.float32), **options)
    with pytest.raises(InputError, match="no samples"):
        cqt(np.zeros(0, np.float32))
