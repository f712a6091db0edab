"""Sound files and samples: reading, resampling, writing, mu-law, whole frames.

Only `magenta_nsynth.audio.mu_law` imports TensorFlow, so its functions are not among
the names here.
"""

from magenta_nsynth.audio.framing import trim_to_frames
from magenta_nsynth.audio.reading import (
    AUDIO_EXTENSIONS,
    audio_length,
    load_audio,
    read_audio,
)
from magenta_nsynth.audio.writing import save_audio, write_audio

__all__ = [
    "AUDIO_EXTENSIONS",
    "audio_length",
    "load_audio",
    "read_audio",
    "save_audio",
    "trim_to_frames",
    "write_audio",
]
