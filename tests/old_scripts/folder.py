"""A folder of sounds, a batch at a time: first to embeddings, then to sounds."""

import glob
import os

import numpy as np
from scipy.io import wavfile

from magenta_nsynth.compat import utils
from magenta_nsynth.compat.wavenet import fastgen

checkpoint_path = utils.shell_path("wavenet-ckpt/model.ckpt-200000")
batch_size = 2
os.makedirs("encodings")
os.makedirs("generated")

files = sorted(glob.glob("*.wav"))
for start in range(0, len(files), batch_size):
    batch = files[start : start + batch_size]
    audio = fastgen.load_batch_audio(batch, sample_length=6144)
    encodings = fastgen.encode(audio, checkpoint_path, sample_length=6144)
    for name, encoding in zip(batch, encodings):
        np.save(os.path.join("encodings", name[:-4] + ".npy"), encoding[:4])

files = sorted(glob.glob("encodings/*.npy"))
for start in range(0, len(files), batch_size):
    batch = files[start : start + batch_size]
    encodings = fastgen.load_batch_encodings(batch, sample_length=5)
    assert encodings.shape == (len(batch), 5, 16)
    names = [
        os.path.join("generated", "gen_" + os.path.basename(name)[:-4] + ".wav")
        for name in batch
    ]
    fastgen.synthesize(encodings, names, checkpoint_path=checkpoint_path)
for name in names:
    rate, audio = wavfile.read(name)
    print(name, rate, audio.dtype, len(audio))
