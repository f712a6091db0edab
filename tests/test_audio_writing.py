"""Writing WAV files, and cutting audio to whole frames."""

import os

import numpy as np
import pytest
from scipy.io import wavfile

from magenta_nsynth.audio import load_audio, save_audio, trim_to_frames
from magenta_nsynth.errors import AudioError, InputError


def test_floats_are_written_as_they_are(tmp_path):
    audio = np.random.default_rng(0).uniform(-2, 2, 1000).astype(np.float32)
    save_audio(tmp_path / "new" / "a.wav", audio)
    rate, samples = wavfile.read(tmp_path / "new" / "a.wav")
    assert (rate, samples.dtype) == (16_000, np.float32)
    np.testing.assert_array_equal(samples, audio)
    np.testing.assert_array_equal(load_audio(tmp_path / "new" / "a.wav"), audio)
    assert os.listdir(tmp_path / "new") == ["a.wav"]


def test_float64_is_written_as_float32(tmp_path):
    save_audio(tmp_path / "a.wav", np.array([0.1, 0.2]))
    assert wavfile.read(tmp_path / "a.wav")[1].dtype == np.float32


def test_16_bit_is_rounded_and_clipped(tmp_path):
    audio = np.float32([0, 0.6 / 32768, -0.6 / 32768, 0.5, -1, 0.99999, 1, 1.5, -7])
    save_audio(tmp_path / "a.wav", audio, bit_depth=16, rate=44_100)
    rate, samples = wavfile.read(tmp_path / "a.wav")
    assert (rate, samples.dtype) == (44_100, np.int16)
    expected = [0, 1, -1, 16384, -32768, 32767, 32767, 32767, -32768]
    np.testing.assert_array_equal(samples, expected)


def test_16_bit_files_survive_a_round_trip(tmp_path):
    audio = (np.arange(-32768, 32768) / 32768).astype(np.float32)
    save_audio(tmp_path / "a.wav", audio, bit_depth=16)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav"), audio)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_is_not_written(tmp_path, value):
    with pytest.raises(AudioError, match=r"a\.wav: not written.*NaN"):
        save_audio(tmp_path / "a.wav", np.float32([0, value]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "audio", [np.zeros((2, 2), "f4"), np.zeros(0, "f4"), np.zeros(9, np.int16)]
)
def test_other_arrays_are_refused(tmp_path, audio):
    with pytest.raises(InputError, match=r"a\.wav: audio must be \[n\]"):
        save_audio(tmp_path / "a.wav", audio)


def test_other_bit_depths_are_refused(tmp_path):
    with pytest.raises(InputError, match="24"):
        save_audio(tmp_path / "a.wav", np.zeros(9, "f4"), bit_depth=24)


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.b.OGG"])
def test_a_name_that_promises_another_format_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"only WAV files .*/a(\.b)?\.wav,"):
        save_audio(tmp_path / name, np.zeros(9, "f4"))
    assert not list(tmp_path.iterdir())


def test_wav_in_any_case_and_no_extension(tmp_path):
    for name in ("a.WAV", "a"):
        save_audio(tmp_path / name, np.zeros(9, "f4"))
        assert wavfile.read(tmp_path / name)[0] == 16_000


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "a.wav"
    with pytest.raises(AudioError) as info:
        save_audio(path, np.zeros(9, "f4"))
    assert str(info.value).startswith(f"{path}: can't be written")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("length", "kept"), [(512, 512), (1023, 512), (64_000, 64_000)]
)
def test_whole_frames(caplog, length, kept):
    audio = np.arange(length)
    with caplog.at_level("DEBUG", logger="absl"):  # as INFO, only the first
        np.testing.assert_array_equal(trim_to_frames(audio, 512, "x.wav"), audio[:kept])
    if length == kept:
        assert not caplog.records
    else:
        record = caplog.records[-1]
        for part in ("x.wav", str(length), str(length - kept), "512"):
            assert part in record.getMessage()


def test_channels_stay():
    assert trim_to_frames(np.zeros((20, 3)), 8).shape == (16, 3)


@pytest.mark.parametrize("length", [0, 511])
def test_less_than_a_frame(length):
    with pytest.raises(AudioError, match=rf"x\.wav: {length} samples.*at least 512"):
        trim_to_frames(np.zeros(length), 512, "x.wav")
