"""A model that needs no weights, for tests of instruments: its mixes are sums."""

import dataclasses
import pathlib

import numpy as np

from magenta_nsynth.audio import save_audio
from magenta_nsynth.commands.instrument import Order, make_instrument
from magenta_nsynth.commands.instrument_options import Finishing, Shape
from magenta_nsynth.commands.options import Workers
from magenta_nsynth.config import H512_BO16
from magenta_nsynth.generation.options import Generation

RATE = 16_000
HOP, CHANNELS = 256, 16


class SumModel:
    """Its embedding is the sound itself, so a mix sounds like a sum of sounds."""

    name, uses_pitch, makes_steps, use_ema = "wavenet", False, False, False
    config = H512_BO16

    def __init__(self, folder):
        self.checkpoint_path = str(folder / "sum")
        (folder / "sum.index").write_bytes(b"sum")
        self.made = []  # the pitches of all sounds that were generated

    def check_clip(self, audio, name):
        return audio[: len(audio) // HOP * HOP]

    def prepare(self, audio):
        return audio

    def encode_prepared(self, clips):
        return [clip.reshape(-1, CHANNELS) for clip in clips]

    def peak(self, audio, prepared):
        return float(np.abs(audio).max())

    def check_generation(self, options, embeddings=()):
        pass

    def sounds(self, embeddings, options):
        self.made += [embedding.pitch for embedding in embeddings]
        yield np.stack([embedding.rows.ravel() for embedding in embeddings])

    def finish(self, embedding, audio, options):
        return audio


class TransposingModel(SumModel):
    """The same, but it takes a pitch, as the baseline does."""

    name, uses_pitch = "baseline", True


def tone(pitch, seconds=1.0, level=0.5, cents=0.0, partials=(1, 0.5, 0.25)):
    """A steady tone with an attack of 20 ms and a release of 50 ms."""
    time = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((pitch - 69 + cents / 100) / 12)
    sound = sum(
        share * np.sin(2 * np.pi * hz * (i + 1) * time)
        for i, share in enumerate(partials)
        if hz * (i + 1) < 7000
    )
    envelope = np.minimum(1, np.minimum(time / 0.02, (seconds - time) / 0.05))
    return (level / sum(partials) * envelope * sound).astype(np.float32)


def write_sounds(folder, **sounds):
    """Writes each sound as <name>.wav; returns the folder."""
    for name, sound in sounds.items():
        save_audio(folder / f"{name}.wav", sound)
    return folder


def make(model, sources, save_path, **options):
    """Calls `make_instrument` with flat options."""
    parts = {"shape": Shape, "finishing": Finishing}
    parts |= {"generation": Generation, "workers": Workers}
    values = {}
    for part, cls in parts.items():
        names = {field.name for field in dataclasses.fields(cls)} & options.keys()
        values[part] = cls(**{name: options.pop(name) for name in names})
    order = Order([str(path) for path in sources], str(save_path), **values, **options)
    return make_instrument(model, order)


def files(folder):
    """All in a folder but what is hidden, as paths from it."""
    folder = pathlib.Path(folder)
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if not path.name.startswith(".")}
