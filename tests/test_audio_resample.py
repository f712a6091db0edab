"""The resampler: what it keeps, what it removes, and that pieces do not show."""

import numpy as np
import pytest

from magenta_nsynth.audio import resample as module
from magenta_nsynth.audio.resample import resample, resample_blocks, resampled_length

EDGE = 1000  # samples at 16 kHz where a tone's sudden start and end are heard


def tone(frequency, rate, seconds=0.5):
    time = np.arange(int(rate * seconds)) / rate
    return np.sin(2 * np.pi * frequency * time).astype(np.float32)


def level(audio):
    """The level in dB of a sine, away from the edges; 0 for amplitude 1."""
    middle = audio[EDGE:-EDGE].astype(np.float64)
    return 10 * np.log10(2 * np.mean(middle**2) + 1e-30)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000, 96_000, 192_000])
def test_what_16_khz_cannot_hold_is_removed(rate):
    for frequency in (8_050, 8_500, 10_000):
        assert level(resample(tone(frequency, rate), rate)) < -80


def test_awkward_rate():
    assert abs(level(resample(tone(1_000, 44_099), 44_099))) < 0.001
    assert level(resample(tone(10_000, 44_099), 44_099)) < -80


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000, 96_000, 192_000])
def test_what_16_khz_can_hold_is_kept(rate):
    for frequency in (48, 1_000, 7_000):  # whole periods between the edges
        assert abs(level(resample(tone(frequency, rate), rate))) < 0.01


@pytest.mark.parametrize("rate", [8_000, 11_025])
def test_going_up_adds_no_images(rate):
    up = resample(tone(1_000, rate), rate)
    assert abs(level(up)) < 0.001
    # What is left when the tone is taken away: images, had they come through.
    assert level(up - tone(1_000, 16_000)[: len(up)]) < -80


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000, 44_099])
def test_samples_stay_where_they_are_in_time(rate):
    audio = resample(tone(440, rate), rate)
    expected = tone(440, 16_000)
    middle = slice(EDGE, min(len(audio), len(expected)) - EDGE)
    np.testing.assert_allclose(audio[middle], expected[middle], atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("step", [1, 1000])
def test_pieces_give_what_one_piece_gives(monkeypatch, rate, step):
    rng = np.random.default_rng(rate)
    audio = rng.uniform(-1, 1, 9_001).astype(np.float32)
    monkeypatch.setattr(module, "_STEP", 10**6)
    whole = resample(audio, rate)
    monkeypatch.setattr(module, "_STEP", step)
    cuts = np.sort(rng.integers(0, len(audio), 20))
    pieces = list(resample_blocks(np.split(audio, cuts), rate))
    assert len(pieces) > 5
    assert sum(map(len, pieces)) == len(whole)
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("length", [1, 2, 440, 441, 442, 5_000])
def test_length(rate, length):
    expected = int(np.ceil(length * 16_000 / rate))
    assert resampled_length(length, rate) == expected
    audio = resample(np.ones(length, np.float32), rate)
    assert audio.dtype == np.float32
    assert audio.shape == (expected,)
    assert np.isfinite(audio).all()


def test_length_is_exact_where_floats_are_not():
    assert resampled_length(441 * 10**15, 44_100) == 160 * 10**15


def test_16_khz_is_left_alone():
    audio = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    np.testing.assert_array_equal(resample(audio, 16_000), audio)


def test_nothing_in_nothing_out():
    assert resample(np.zeros(0, np.float32), 44_100).shape == (0,)
