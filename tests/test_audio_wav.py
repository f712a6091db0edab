"""Reading WAV files: formats, damage, memory."""

import os
import struct
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

from magenta_nsynth.audio import load_audio, read_audio
from magenta_nsynth.errors import AudioError, InputError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name, content, length=None, order="<"):
    length = len(content) if length is None else length
    return (
        name + struct.pack(f"{order}I", length) + content + b"\0" * (len(content) % 2)
    )


def fmt(tag, channels, rate, bits, order="<", sample_bytes=None):
    """The content of a "fmt " chunk."""
    frame = channels * (sample_bytes or -(-bits // 8))
    return struct.pack(f"{order}HHIIHH", tag, channels, rate, rate * frame, frame, bits)


def extensible(tag, channels, rate, bits):
    start = fmt(EXTENSIBLE, channels, rate, bits)
    return start + struct.pack("<HHIH", 22, bits, 0, tag) + GUID_TAIL


def wav(path, fmt_chunk, data, before=b"", after=b"", length=None, magic=b"RIFF"):
    order = ">" if magic == b"RIFX" else "<"
    content = b"WAVE" + before + chunk(b"fmt ", fmt_chunk, order=order)
    content += chunk(b"data", data, length, order) + after
    path.write_bytes(chunk(magic, content, order=order))
    return path


def ramp(bits):
    """Whole numbers over the range of `bits` bits, both ends included."""
    top = 2 ** (bits - 1)
    return np.linspace(-top, top - 1, 1001).round().astype(np.int64)


def packed(values, bits):
    """The bytes of whole numbers in the WAV encoding of that width."""
    if bits == 8:
        return (values + 128).astype(np.uint8).tobytes()
    raw = values.astype("<i8").view(np.uint8).reshape(-1, 8)
    return raw[:, : bits // 8].tobytes()


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("header", [fmt, extensible])
def test_integers_are_divided_by_their_range(tmp_path, bits, header):
    path = wav(
        tmp_path / "a.wav", header(PCM, 1, 16_000, bits), packed(ramp(bits), bits)
    )
    audio = load_audio(path)
    assert audio.dtype == np.float32
    expected = (ramp(bits) / 2.0 ** (bits - 1)).astype(np.float32)
    np.testing.assert_array_equal(audio, expected)
    assert audio[0] == -1.0


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("header", [fmt, extensible])
def test_floats_come_out_as_they_are(tmp_path, dtype, header):
    values = np.random.default_rng(0).uniform(-2, 2, 1000).astype(dtype)
    bits = values.itemsize * 8
    path = wav(tmp_path / "a.wav", header(FLOAT, 1, 16_000, bits), values.tobytes())
    np.testing.assert_array_equal(load_audio(path), values.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_channels_are_averaged(tmp_path, channels, bits):
    values = np.random.default_rng(0).integers(-100, 100, (501, channels))
    data = packed(values.ravel(), bits)
    path = wav(tmp_path / "a.wav", fmt(PCM, channels, 16_000, bits), data)
    expected = (values.mean(axis=1) / 2.0 ** (bits - 1)).astype(np.float32)
    np.testing.assert_array_equal(load_audio(path), expected)


def test_several_blocks_join_without_a_seam(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(-30_000, 30_000, (1001, 3))
    path = wav(tmp_path / "a.wav", fmt(PCM, 3, 44_100, 24), packed(values.ravel(), 24))
    whole = load_audio(path)
    monkeypatch.setattr("magenta_nsynth.audio.decoding._BLOCK_SAMPLES", 100)
    np.testing.assert_array_equal(load_audio(path), whole)


def test_big_endian(tmp_path):
    path = wav(
        tmp_path / "a.wav",
        fmt(PCM, 1, 16_000, 16, ">"),
        ramp(16).astype(">i2").tobytes(),
        magic=b"RIFX",
    )
    np.testing.assert_array_equal(load_audio(path), (ramp(16) / 2**15).astype("f4"))


def test_rf64_keeps_its_length_apart(tmp_path):
    data = packed(ramp(16), 16)
    lengths = chunk(b"ds64", struct.pack("<QQQI", 0, len(data), 0, 0))
    header, after = fmt(PCM, 1, 16_000, 16), chunk(b"LIST", b"x" * 100)
    args = {"before": lengths, "after": after, "length": 0xFFFFFFFF, "magic": b"RF64"}
    audio = load_audio(wav(tmp_path / "a.wav", header, data, **args))
    np.testing.assert_array_equal(audio, (ramp(16) / 2**15).astype("f4"))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_other_rates_are_resampled(tmp_path, rate):
    time = np.arange(rate // 2) / rate
    tones = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros_like(time)], 1)
    data = (0.8 * tones).astype("<f4").tobytes()
    audio = load_audio(wav(tmp_path / "a.wav", fmt(FLOAT, 2, rate, 32), data))
    assert audio.shape == (-(-len(time) * 16_000 // rate),)
    expected = 0.4 * np.sin(2 * np.pi * 440 * np.arange(len(audio)) / 16_000)
    np.testing.assert_allclose(audio[500:-500], expected[500:-500], atol=1e-4)


@pytest.mark.parametrize("sr", [8_000, 22_050, 44_100, None])
def test_any_rate_on_request(tmp_path, sr):
    """Against a sine at that rate."""
    samples = sine(44_100).astype("<f4").tobytes()
    path = wav(tmp_path / "a.wav", fmt(FLOAT, 1, 44_100, 32), samples)
    audio, rate = load_audio(path, sr=sr), sr or 44_100
    assert len(audio) == rate
    np.testing.assert_allclose(audio[500:-500], sine(rate)[500:-500], atol=1e-4)
    np.testing.assert_array_equal(load_audio(path, 500, sr), audio[:500])


def sine(rate):
    """A second of 440 Hz."""
    return np.sin(2 * np.pi * 440 * np.arange(rate) / rate) / 2


@pytest.mark.parametrize("sr", [0, -16_000, 999, 16_000.5, "16k"])
def test_what_is_no_rate(tmp_path, sr):
    path = wav(tmp_path / "a.wav", fmt(PCM, 1, 16_000, 16), packed(ramp(16), 16))
    with pytest.raises(InputError, match="sr must be"):
        load_audio(path, sr=sr)


def test_harmless_chunks_leave_no_warning(tmp_path):
    extra = chunk(b"LIST", b"abc") + chunk(b"cue ", b"\0" * 28) + chunk(b"odd!", b"1")
    header, data = fmt(PCM, 1, 16_000, 16), packed(ramp(16), 16)
    path = wav(tmp_path / "a.wav", header, data, before=extra, after=extra + b"jun")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_audio(path).shape == (1001,)


@pytest.mark.parametrize(
    "length", [0xFFFFFFFF, 0xFFFFFFDB, 0x80000000, 0x7FFFFFFF, 0x7FFFF000]
)
def test_a_length_unknown_to_its_writer(tmp_path, caplog, length):
    header, data = fmt(PCM, 1, 16_000, 16), packed(ramp(16), 16)
    path = wav(tmp_path / "a.wav", header, data, length=length)
    np.testing.assert_array_equal(load_audio(path), (ramp(16) / 2**15).astype("f4"))
    [record] = caplog.records
    assert f"announces {length} bytes" in record.getMessage()


def test_names(tmp_path):
    header, data = fmt(PCM, 1, 16_000, 16), packed(ramp(16), 16)
    for name in ("UPPER.WAV", "two words é.Wav", "a$HOME.wav"):
        assert load_audio(wav(tmp_path / name, header, data)).shape == (1001,)
        assert load_audio(str(tmp_path / name)).shape == (1001,)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    wav(tmp_path / "a.wav", fmt(PCM, 1, 16_000, 16), packed(ramp(16), 16))
    assert load_audio("~/a.wav").shape == (1001,)
    with pytest.raises(AudioError):  # nobody typed that
        read_audio("~/a.wav")


@pytest.mark.parametrize("rate", [16_000, 32_000])
def test_a_cut_counts_at_16_khz_and_is_logged(tmp_path, caplog, rate):
    path = wav(tmp_path / "a.wav", fmt(PCM, 1, rate, 16), packed(ramp(16), 16))
    whole = load_audio(path)
    assert not caplog.records
    with caplog.at_level("INFO", logger="absl"):
        audio = load_audio(path, sample_length=300)
        [record] = caplog.records
        np.testing.assert_array_equal(audio, whole[:300])
        for part in (str(path), "300"):
            assert part in record.getMessage()
        caplog.clear()
        assert len(load_audio(path, sample_length=len(whole))) == len(whole)
        assert len(load_audio(path, sample_length=10**6)) == len(whole)
        assert not caplog.records


def test_negative_sample_length(tmp_path):
    with pytest.raises(InputError, match="-1"):
        load_audio(tmp_path / "a.wav", sample_length=-1)


def refused(path, *parts):
    """Asserts an error of one line that names the file and says `parts`."""
    with pytest.raises(AudioError) as info:
        load_audio(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


GOOD = fmt(PCM, 1, 16_000, 16)


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        (fmt(0x1234, 1, 16_000, 8), ["codec 0x1234", "8-bit", "16-bit WAV"]),
        (fmt(PCM, 0, 16_000, 16), ["0 channels"]),
        (fmt(PCM, 1, 16_000, 0), ["0-bit"]),
        (fmt(PCM, 1, 16_000, 8, sample_bytes=2), ["8-bit samples in 2 bytes"]),
        (fmt(PCM, 1, 16_000, 16, sample_bytes=4), ["16-bit samples in 4 bytes"]),
        (fmt(PCM, 1, 16_000, 16, sample_bytes=8), ["16-bit samples in 8 bytes"]),
        (fmt(FLOAT, 1, 16_000, 32, sample_bytes=8), ["32-bit samples in 8 bytes"]),
        (fmt(PCM, 1, 16_000, 32, sample_bytes=2), ["32-bit samples in 2 bytes"]),
        (fmt(FLOAT, 1, 16_000, 16), ["16-bit samples of codec 0x0003"]),
        (fmt(PCM, 1, 0, 16), ["0 Hz", "export it again"]),
        (fmt(PCM, 1, 400_001, 16), ["400001 Hz"]),
        (GOOD[:14], ["no whole 'fmt ' chunk"]),
        (b"", ["'fmt ' chunk"]),
    ],
)
def test_headers_that_are_refused(tmp_path, header, parts):
    refused(wav(tmp_path / "a.wav", header, packed(ramp(16), 16)), *parts)


@pytest.mark.parametrize("bits", [16, 24])
def test_truncated_samples(tmp_path, bits):
    path = wav(tmp_path / "a.wav", fmt(PCM, 2, 44_100, bits), b"\0" * 6000)
    path.write_bytes(path.read_bytes()[:-1000])
    refused(path, "truncated", "6000", "5000")


@pytest.mark.parametrize("num_bytes", [12, 15, 20, 30, 36, 40, 43])
def test_truncated_header(tmp_path, num_bytes):
    path = wav(tmp_path / "a.wav", GOOD, packed(ramp(16), 16))
    path.write_bytes(path.read_bytes()[:num_bytes])
    refused(path, "truncated")


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    from magenta_nsynth.audio import decoding

    path = wav(tmp_path / "a.wav", GOOD, bytes(2_000_000))
    monkeypatch.setattr(decoding, "_BLOCK_SAMPLES", 1000)
    blocks = decoding.decode(str(path))
    next(blocks)
    os.truncate(path, 1_000_000)
    with pytest.raises(AudioError, match="truncated"):
        list(blocks)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_samples_that_are_no_number(tmp_path, value, rate):
    samples = np.zeros(1000)
    samples[700] = value
    path = wav(tmp_path / "a.wav", fmt(FLOAT, 1, rate, 64), samples.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(path, "NaN or infinite")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty (0 bytes)"]),
        (b"RIF", ["not a sound", "b'RIF'"]),
        (b"RIFF\0\0\0\0AVI ", ["not a sound"]),
        (b"some text", ["not a sound", "b'some'", "WAV or FLAC"]),
        (b"fLaC" + b"\0" * 40, ["damaged or truncated"]),
        (b"ID3" + b"\0" * 40, ["damaged or truncated"]),
        (b"\xff\xfb" + b"\0" * 40, ["damaged"]),
        (b"\xff", ["not a sound"]),
    ],
)
def test_no_sound_at_all(tmp_path, content, parts):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    refused(path, *parts)


def test_a_length_of_0(tmp_path, caplog):
    header, data = GOOD, packed(ramp(16), 16)
    path = wav(tmp_path / "a.wav", header, data, length=0)
    assert load_audio(path).shape == (1001,)
    [record] = caplog.records
    assert "announces 0 bytes of samples; the 2002 up to its end" in record.getMessage()
    # Other chunks behind an empty one are no samples.
    path = wav(tmp_path / "b.wav", header, b"", after=chunk(b"LIST", b"abcd"))
    refused(path, "no samples")


@pytest.mark.parametrize("num_bytes", [1, 36, 44, 64])
def test_a_length_that_counts_the_header(tmp_path, caplog, num_bytes):
    data = packed(ramp(16), 16)
    path = wav(tmp_path / "a.wav", GOOD, data, length=len(data) + num_bytes)
    assert load_audio(path).shape == (1001,)
    [record] = caplog.records
    assert f"announces {2002 + num_bytes} bytes" in record.getMessage()
    refused(wav(tmp_path / "a.wav", GOOD, data, length=len(data) + 66), "truncated")


@pytest.mark.parametrize("field", [8, 12])  # bytes a second, bytes a frame
def test_fields_that_nothing_depends_on(tmp_path, field):
    header = (
        GOOD[:field] + bytes(4 if field == 8 else 2) + GOOD[12 if field == 8 else 14 :]
    )
    path = wav(tmp_path / "a.wav", header, packed(ramp(16), 16))
    np.testing.assert_array_equal(load_audio(path), (ramp(16) / 2**15).astype("f4"))


def test_no_samples(tmp_path):
    refused(wav(tmp_path / "a.wav", GOOD, b""), "no samples")
    refused(wav(tmp_path / "b.wav", GOOD, b"\0"), "no samples")
    refused(wav(tmp_path / "c.wav", fmt(FLOAT, 2, 16_000, 64), b"\0" * 15), "no samp")


def test_paths_that_are_refused(tmp_path):
    refused(tmp_path / "missing.wav", "No such file")
    (tmp_path / "folder.wav").mkdir()
    refused(tmp_path / "folder.wav", "not a file")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "not a file")


def test_no_permission(tmp_path):
    path = wav(tmp_path / "a.wav", GOOD, packed(ramp(16), 16))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        refused(path, "Permission denied")
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("channels", "bits", "tag", "rate"),
    [(2, 24, PCM, 44_100), (2, 16, PCM, 44_100), (1, 24, PCM, 16_000)],
)
def test_memory_is_the_result_and_a_few_mb(tmp_path, channels, bits, tag, rate):
    num_frames = 80 * rate
    data = bytes(num_frames * channels * bits // 8)
    path = wav(tmp_path / "a.wav", fmt(tag, channels, rate, bits), data)
    del data
    load_audio(path, sample_length=1)  # imports and caches
    tracemalloc.start()
    audio = load_audio(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(audio) == 80 * 16_000
    assert peak < audio.nbytes + 16e6
    if channels == 2:
        # Half of what is allowed; reading all of it as float64 takes more than all.
        assert peak < 4 * num_frames * channels


def test_wav_files_need_no_tensorflow(tmp_path):
    path = wav(tmp_path / "a.wav", GOOD, packed(ramp(16), 16))
    program = (
        "import sys; import magenta_nsynth.audio as audio\n"
        "assert 'scipy' not in sys.modules, 'slow to import'\n"
        f"samples = audio.load_audio({str(path)!r})\n"
        f"audio.save_audio({str(tmp_path / 'b.wav')!r}, samples)\n"
        "slow = {'tensorflow', 'soundfile', 'tensorflow_io'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    subprocess.run([sys.executable, "-c", program], check=True, env=env)


@pytest.mark.parametrize("channels", [1, 2])
def test_integers_that_nobody_divided(tmp_path, channels):
    samples = np.tile(ramp(16).astype("<f4")[:, None], (1, channels))
    samples[:, 1:] *= -1  # whose mean with the first channel is silence
    path = wav(tmp_path / "a.wav", fmt(FLOAT, channels, 16_000, 32), samples.tobytes())
    refused(path, "samples reach 32768", "16-bit integers", "divide by 32768")
    loud = (7.9 * samples / 2**15).astype("<f4")  # 18 dB
    path = wav(tmp_path / "b.wav", fmt(FLOAT, channels, 16_000, 32), loud.tobytes())
    assert len(load_audio(path)) == 1001
