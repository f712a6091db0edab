"""Embeddings made longer, shorter, and faded from one into another."""

import numpy as np
from scipy import ndimage

from magenta_nsynth.compat.utils import load_audio
from magenta_nsynth.compat.wavenet.fastgen import encode, synthesize

CHECKPOINT = "wavenet-ckpt/model.ckpt-200000"


def load_encoding(name, sample_length=None, sr=16000):
    sound = load_audio(name, sample_length=sample_length, sr=sr)
    return sound, encode(sound, CHECKPOINT, sample_length)


def stretch(encodings, factor):
    stretched = [ndimage.zoom(one, (factor, 1), order=1) for one in encodings]
    return np.array(stretched)


def fade_in(encoding):
    n = encoding.shape[1]
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / n)
    return ramp.reshape(1, n, 1) * encoding


def crossfade(first, second):
    return fade_in(second) + (first - fade_in(first))


_, one = load_encoding("drum loop.wav")
_, other = load_encoding("voice.wav", 6144)
slower, faster = stretch(one, 2), stretch(one, 0.5)
mixed = crossfade(one, other)
np.savez("encodings.npz", slower=slower, faster=faster, mixed=mixed)
synthesize(slower[:, :1], ["slower.wav"], CHECKPOINT)
synthesize(
    np.concatenate([faster[:, :1], mixed[:, :1]]),
    ["faster.wav", "mixed.wav"],
    CHECKPOINT,
)
