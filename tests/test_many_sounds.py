"""Folders of many sound files: each gets its own sound, whatever is read beside it."""

import io

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from commands import export, make_tfrecord, save_embeddings

from magenta_nsynth import api
from magenta_nsynth.api import WaveNet
from magenta_nsynth.audio import load_audio
from magenta_nsynth.commands.export_embeddings import export_embeddings
from magenta_nsynth.embeddings.exported import open_embeddings

FORMATS = {
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_24"),
    ".wav": ("WAV", "PCM_16"),
    ".opus": ("OGG", "OPUS"),
}


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return WaveNet(tiny_checkpoint)


@pytest.fixture(
    scope="module",
    params=[36, pytest.param(1200, marks=pytest.mark.slow)],
)
def sines(request, tmp_path_factory):
    """A folder of sines of 0.1 to 0.5 s, each of a pitch and a length of its own."""
    folder = tmp_path_factory.mktemp("sines")
    for i in range(request.param):
        extension, (container, subtype) = list(FORMATS.items())[i % len(FORMATS)]
        time = np.arange(1600 + 6400 * i // request.param) / 16_000
        content = io.BytesIO()
        sine = 0.5 * np.sin(2 * np.pi * (100 + 5 * i) * time)
        soundfile.write(content, sine, 16_000, format=container, subtype=subtype)
        (folder / f"{i:04}{extension}").write_bytes(content.getvalue())
    return folder


@pytest.fixture(scope="module")
def alone(sines):
    """The samples of each, read one after the other."""
    return {path.stem: load_audio(path) for path in sorted(sines.iterdir())}


@pytest.fixture(scope="module")
def embeddings(alone, model):
    return {name: model.encode(audio) for name, audio in alone.items()}


def test_each_sine_is_its_own(alone):
    """What the others are compared with is right."""
    for i, audio in enumerate(alone.values()):
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 2**16))
        pitch = spectrum.argmax() * 16_000 / 2**16
        assert abs(pitch - (100 + 5 * i)) < 3 or 100 + 5 * i > 7000


def test_save_embeddings(sines, embeddings, model, tmp_path):
    assert save_embeddings(model, [sines], tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == len(embeddings)
    scale = max(np.abs(wanted).max() for wanted in embeddings.values())
    for name, wanted in embeddings.items():
        found = np.load(tmp_path / f"{name}_embeddings.npy")
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale)


def test_export(sines, embeddings, model, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "load_model", lambda *_, **__: model)
    checkpoint = {"checkpoint_path": tiny_checkpoint}
    assert export_embeddings(export(checkpoint, [sines], tmp_path)) == 0
    scale = max(np.abs(wanted).max() for wanted in embeddings.values())
    notes = {note.note_str: note.embedding for note in open_embeddings(tmp_path)}
    assert notes.keys() == embeddings.keys()
    for name, wanted in embeddings.items():
        np.testing.assert_allclose(notes[name], wanted, rtol=0, atol=1e-5 * scale)


def test_make_tfrecord(sines, alone, tmp_path):
    assert make_tfrecord([sines], tmp_path, note_seconds=0) == 0
    [path] = tmp_path.glob("*.tfrecord-*")
    found = {}
    for record in tf.data.TFRecordDataset(str(path)):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        name = features["note_str"].bytes_list.value[0].decode()
        found[name[-4:]] = np.array(features["audio"].float_list.value, np.float32)
    assert found.keys() == alone.keys()
    for name, wanted in alone.items():
        np.testing.assert_array_equal(found[name], wanted)
