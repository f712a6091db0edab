"""Sound files and samples: reading, resampling, writing, mu-law, whole frames.

Nothing here imports TensorFlow until it is needed: reading and writing WAV files
never does. The mu-law ops are TensorFlow's, so they are not among the names below;
import them from `magenta_nsynth.audio.mu_law`.
"""

from magenta_nsynth.audio.framing import trim_to_frames
from magenta_nsynth.audio.reading import AUDIO_EXTENSIONS, load_audio, read_audio
from magenta_nsynth.audio.writing import save_audio, write_audio

__all__ = [
    "AUDIO_EXTENSIONS",
    "load_audio",
    "read_audio",
    "save_audio",
    "trim_to_frames",
    "write_audio",
]
