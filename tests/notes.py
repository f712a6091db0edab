"""Small TFRecords and trainings that tests share."""

import recipe
import tensorflow as tf

from magenta_nsynth.config import WaveNetConfig
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.schema import Note, parse_note_str

# Small enough for a step in a few milliseconds.
SMALL = WaveNetConfig(
    width=8,
    skip_width=8,
    num_layers=4,
    num_stages=4,
    ae_width=8,
    ae_num_layers=4,
    ae_num_stages=4,
)
SMALL_FLAGS = [
    f"--{name}={value}"
    for name, value in SMALL.to_dict().items()
    if "layers" in name or "stages" in name or name.endswith("width")
]


def make_notes(path, count=12, num_samples=4096, family="bass"):
    """A TFRecord of note-like sounds of one family."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, audio in enumerate(recipe.clips(num_samples, seed=3, batch=count)):
            name = f"{family}_acoustic_001-{40 + i:03}-100"
            writer.write(note_to_example(Note(name, audio, **parse_note_str(name))))
    return str(path)
