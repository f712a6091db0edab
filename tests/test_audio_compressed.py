"""FLAC, Ogg Vorbis and MP3: the same samples from both implementations."""

import importlib
import importlib.util
import pathlib
import shutil
import sys

import numpy as np
import pytest

from magenta_nsynth import audio as package
from magenta_nsynth.audio import compressed, load_audio
from magenta_nsynth.errors import AudioError

# Made with soundfile 0.14. audio_stereo_44k: 13,230 samples at 44.1 kHz of
# 0.5 sin(440 Hz) left and 0.25 sin(660 Hz) right, the FLAC 24-bit. audio_mono_16k and
# audio_8bit_16k: 4,000 samples of 0.5 sin(440 Hz). audio_opus: Opus, in an Ogg file.
DATA = pathlib.Path(__file__).parent / "data"
STEREO = [f"audio_stereo_44k.{extension}" for extension in ("flac", "ogg", "mp3")]
LIBRARIES = {
    "decode_tensorflow_io": "tensorflow_io",
    "decode_soundfile": "soundfile",
}


@pytest.fixture(params=LIBRARIES)
def implementation(request, monkeypatch):
    """Makes `load_audio` use one implementation."""
    pytest.importorskip(LIBRARIES[request.param])
    module = importlib.import_module(f"magenta_nsynth.audio.{request.param}")
    monkeypatch.setattr(compressed, "_implementation", lambda: module.open_sound)
    return module


@pytest.fixture
def choice():
    """The function that chooses, without memory of earlier choices."""
    compressed._implementation.cache_clear()
    yield compressed._implementation
    compressed._implementation.cache_clear()


def test_flac_comes_out_exactly(implementation):
    audio = load_audio(DATA / "audio_mono_16k.flac")
    sine = np.sin(2 * np.pi * 440 * np.arange(4000) / 16_000)
    assert audio.dtype == np.float32
    np.testing.assert_array_equal(audio, (16384 * sine).round() / 2**15)
    audio = load_audio(DATA / "audio_8bit_16k.flac")
    np.testing.assert_array_equal(audio, (64 * sine).round() / 2**7)


@pytest.mark.parametrize(
    ("name", "error"), list(zip(STEREO, (1e-4, 0.01, 0.01), strict=True))
)
def test_stereo_is_mixed_and_resampled(implementation, name, error):
    audio = load_audio(DATA / name)
    assert audio.shape == (4800,)
    time = np.arange(4800) / 16_000
    tones = 0.25 * np.sin(2 * np.pi * 440 * time)
    tones += 0.125 * np.sin(2 * np.pi * 660 * time)
    np.testing.assert_allclose(audio[500:-500], tones[500:-500], atol=error)


@pytest.mark.parametrize(
    ("name", "error"), list(zip(STEREO, (0, 1e-6, 1e-5), strict=True))
)
def test_both_implementations_agree(name, error):
    for library in LIBRARIES.values():
        pytest.importorskip(library)
    from magenta_nsynth.audio import decode_soundfile, decode_tensorflow_io

    sounds = [
        m.open_sound(str(DATA / name)) for m in (decode_soundfile, decode_tensorflow_io)
    ]
    assert sounds[0][:2] == sounds[1][:2] == (44_100, 13_230)
    first, second = (np.concatenate(list(sound.blocks)) for sound in sounds)
    np.testing.assert_allclose(first, second, rtol=0, atol=error)


@pytest.mark.parametrize("name", STEREO)
def test_blocks_join_without_a_seam(implementation, monkeypatch, name):
    whole = load_audio(DATA / name)
    monkeypatch.setattr(implementation, "BLOCK_SAMPLES", 2000)
    sound = implementation.open_sound(str(DATA / name))
    assert [len(block) for block in sound.blocks] == [1000] * 13 + [230]
    np.testing.assert_array_equal(load_audio(DATA / name), whole)


@pytest.mark.parametrize("name", STEREO)
def test_odd_names_and_cuts(implementation, tmp_path, name):
    path = tmp_path / f"två ord $HOME{pathlib.Path(name).suffix.upper()}"
    shutil.copy(DATA / name, path)
    whole = load_audio(path)
    np.testing.assert_array_equal(load_audio(path, sample_length=100), whole[:100])


def refused(path, *parts):
    with pytest.raises(AudioError) as info:
        load_audio(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", STEREO)
def test_damage(implementation, tmp_path, name):
    content = (DATA / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(b"")
    refused(path, "empty (0 bytes)")
    path.write_bytes(content[:40])
    refused(path, "damaged or truncated")
    path.write_bytes(content[: len(content) // 2])
    refused(path, "damaged or truncated")
    noise = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
    path.write_bytes(content[:40] + noise)
    refused(path, "damaged or truncated")
    path.write_bytes(noise)
    refused(path, "not a")


def test_other_content(implementation, tmp_path):
    shutil.copy(DATA / "audio_stereo_44k.mp3", tmp_path / "a.flac")
    refused(tmp_path / "a.flac", "content is MP3, not FLAC", ".mp3")
    refused(DATA / "audio_opus.ogg", "Ogg without Vorbis")
    refused(tmp_path / "missing.mp3", "No such file")
    (tmp_path / "folder.ogg").mkdir()
    refused(tmp_path / "folder.ogg", "not a file")


def test_tensorflow_io_is_preferred_where_it_works(choice, monkeypatch):
    for library in LIBRARIES.values():
        pytest.importorskip(library)
    from magenta_nsynth.audio import decode_soundfile, decode_tensorflow_io

    assert choice() is decode_tensorflow_io.open_sound
    choice.cache_clear()
    # As where it was built for another TensorFlow.
    monkeypatch.setattr(decode_tensorflow_io, "works", lambda: False)
    assert choice() is decode_soundfile.open_sound


def test_an_op_that_does_not_load_is_noticed(monkeypatch):
    tfio = pytest.importorskip("tensorflow_io")
    from magenta_nsynth.audio import decode_tensorflow_io

    def missing(*_, **__):
        raise NotImplementedError("unable to open file: libtensorflow_io.so")

    assert decode_tensorflow_io.works()
    monkeypatch.setattr(tfio.audio, "decode_flac", missing)
    assert not decode_tensorflow_io.works()


def test_soundfile_where_tensorflow_io_is_not_installed(choice, monkeypatch):
    pytest.importorskip("soundfile")
    from magenta_nsynth.audio import decode_soundfile

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choice() is decode_soundfile.open_sound


def test_neither_is_installed(choice, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.delitem(
        sys.modules, "magenta_nsynth.audio.decode_soundfile", raising=False
    )
    monkeypatch.delattr(package, "decode_soundfile", raising=False)
    refused(DATA / STEREO[0], "pip install soundfile", "FLAC")
