"""A sound, through the network and back, as the first notebooks did it."""

import os

import numpy as np

from magenta_nsynth.compat import utils
from magenta_nsynth.compat.wavenet import fastgen

checkpoint = "wavenet-ckpt/model.ckpt-200000"
name = "drum loop.wav"
rate = 16000

audio = utils.load_audio(name, sample_length=40000, sr=rate)
sample_length = audio.shape[0]
print("{} samples, {} s".format(sample_length, sample_length / float(rate)))
encoding = fastgen.encode(audio, checkpoint, sample_length)
print(encoding.shape)
np.save(os.path.splitext(name)[0] + ".npy", encoding)

np.random.seed(31)
fastgen.synthesize(
    encoding[:, :4],
    checkpoint_path=checkpoint,
    save_paths=["gen_" + name],
    samples_per_save=1000,
)
np.random.seed(31)
fastgen.synthesize(encoding[:, :4], "one path.wav", checkpoint, sample_length)
again = utils.load_audio("gen_" + name, sample_length=sample_length, sr=rate)
assert len(again) == 4 * 512
