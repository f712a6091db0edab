"""The fundamental of a sound, and how far sounds are from each other."""

import math

import numpy as np
import pytest
from binaries import ROOT

from magenta_nsynth.audio import load_audio
from magenta_nsynth.audio.comparison import (
    level_difference,
    noise_like,
    spectral_distance,
)
from magenta_nsynth.audio.pitch import cents_off, fundamental, track_pitch
from magenta_nsynth.errors import InputError

TIME = np.arange(12_000) / 16_000
# Medians of librosa 0.11's yin(fmin=32, fmax=2100, frame_length=2048, hop_length=256)
# of the first 16,000 samples.
LIBROSA_HZ = {
    "brass_acoustic_056-060-100": 261.642,
    "flute_acoustic_073-060-100": 262.885,
    "guitar_acoustic_024-052-100": 164.871,
    "mallet_acoustic_011-067-100": 393.434,
    "organ_acoustic_019-060-100": 263.110,
    "string_acoustic_042-050-100": 146.963,
}


def hz_of(pitch):
    return 440 * 2 ** ((pitch - 69) / 12)


def tone(pitch, partials, seed=0):
    """A tone at 16 kHz with these partials, of amplitude 1 / number and any phase."""
    random = np.random.default_rng(seed)
    parts = [
        np.sin(2 * np.pi * (hz_of(pitch) * n * TIME + random.random())) / n
        for n in partials
        if hz_of(pitch) * n < 7900
    ]
    return np.sum(parts, axis=0)


@pytest.mark.parametrize(
    "partials",
    [[1], range(1, 40), range(2, 40), range(3, 9), range(1, 40, 2)],
    ids=["sine", "saw", "no fundamental", "3 to 8", "odd"],
)
@pytest.mark.parametrize("pitch", [21, 33, 48, 60, 72.4, 81])
def test_the_fundamental_of_tones(pitch, partials):
    assert abs(cents_off(fundamental(tone(pitch, partials)), pitch)) < 1


@pytest.mark.parametrize("pitch", [93, 108])
def test_the_fundamental_of_high_tones(pitch):
    for partials in ([1], [1, 2]):
        assert abs(cents_off(fundamental(tone(pitch, partials)), pitch)) < 5


@pytest.mark.parametrize("pitch", [40, 52, 67, 79])
def test_noise_in_a_tone_does_not_lead_to_another_octave(pitch):
    clean = tone(pitch, range(1, 8))
    noise = np.random.default_rng(1).standard_normal(len(TIME))
    for decibels in (20, 10, 3):
        noisy = clean / clean.std() + 10 ** (-decibels / 20) * noise
        assert abs(cents_off(fundamental(noisy), pitch)) < 12


def test_what_has_no_fundamental():
    noise = np.random.default_rng(2).standard_normal(len(TIME))
    low = np.convolve(noise, 0.95 ** np.arange(100), "same")
    for sound in (noise, low, np.zeros(4000), np.full(4000, -0.35), np.zeros(1)):
        assert math.isnan(fundamental(sound)), sound[:3]
    # A tone that is 30 dB below its noise, and one for a tenth of the time.
    assert math.isnan(fundamental(noise + 0.03 * tone(60, [1])))
    assert math.isnan(fundamental(np.where(TIME < 0.075, 3 * tone(60, [1]), noise)))


def test_what_is_far_quieter_does_not_count():
    sound = tone(60, range(1, 9))
    noise = 1e-3 * np.random.default_rng(3).standard_normal(len(TIME))
    attack = np.concatenate([sound[:4000], noise])
    assert abs(cents_off(fundamental(attack), 60)) < 1
    assert abs(cents_off(fundamental(sound * 1e-4), 60)) < 1


def test_frames_and_levels():
    track = track_pitch(0.5 * tone(69, [1]))
    # Frames of 1,664 samples, one every 256.
    assert len(track.hz) == len(track.noise) == len(track.level_db) == 41
    np.testing.assert_allclose(track.level_db, 10 * math.log10(0.125), atol=0.1)
    assert track.noise.max() < 0.01
    with pytest.raises(InputError, match="shape"):
        track_pitch(np.zeros([2, 100]))


@pytest.mark.parametrize("name", LIBROSA_HZ)
def test_the_bundled_notes(name):
    path = ROOT / "checkpoints" / "notes" / f"{name}.wav"
    hz = fundamental(load_audio(str(path))[:16_000])
    assert abs(1200 * math.log2(hz / LIBROSA_HZ[name])) < 10
    assert abs(cents_off(hz, int(name.split("-")[1]))) < 50


def test_level_differences():
    loud = np.ones(1500)
    half = np.concatenate([np.full(1024, 0.1), np.ones(476)])
    # Two frames of three are 20 dB quieter; the last one is shorter.
    assert level_difference(half, loud) == pytest.approx(40 / 3)
    assert level_difference(loud, half) == pytest.approx(40 / 3)
    # Below -60 dB all is silence.
    assert level_difference(1e-4 * loud, 0 * loud) == 0
    assert level_difference(0 * loud, 1e-2 * loud) == pytest.approx(20)
    with pytest.raises(InputError, match=r"\[1500\] and \[3\]"):
        level_difference(loud, np.ones(3))


def test_spectral_distances():
    random = np.random.default_rng(4)
    note = tone(60, range(1, 9)) * 0.2
    assert spectral_distance(note, note) == 0
    assert spectral_distance(note * 0.5, note) < 6.1
    others = [
        note + 0.0003 * random.standard_normal(len(note)),
        tone(60.5, range(1, 9)) * 0.2,
        noise_like(note),
    ]
    distances = [spectral_distance(other, note) for other in others]
    assert distances == sorted(distances) and distances[0] > 1 and distances[2] > 20
    # Silence counts as 80 dB below the loudest bin, and can be compared too.
    assert 0 < spectral_distance(0 * note, note) < 80
    assert spectral_distance(np.zeros(40), np.zeros(40)) == 0


def test_noise_has_the_envelope():
    note = tone(60, [1]) * np.exp(-3 * TIME)
    noise = noise_like(note, seed=1)
    assert noise.dtype == np.float32 and noise.shape == note.shape
    assert level_difference(noise, note) < 0.7
    assert math.isnan(fundamental(noise))
    assert not np.array_equal(noise, noise_like(note, seed=2))
    np.testing.assert_array_equal(noise, noise_like(note, seed=1))
