"""Reading FLAC, Ogg Vorbis and MP3: one seam, two implementations.

tensorflow-io reads them wherever it runs; soundfile does where it does not (there
are no wheels for Python 3.13, for Windows or for the newest TensorFlow). The two
agree exactly for FLAC and to float noise for the others, and only here is chosen.
"""

import functools
import importlib.util
import warnings
from collections.abc import Callable

from magenta_nsynth.audio.sound import Sound, check_kind
from magenta_nsynth.errors import AudioError

__all__ = ["open_compressed"]


def open_compressed(path: str, kind: str) -> Sound:
    """Reads a compressed file's header.

    Args:
      path: the file.
      kind: "FLAC", "Ogg Vorbis" or "MP3".

    Returns:
      The sound. Iterating over its blocks raises AudioError where the file is damaged
      or truncated.

    Raises:
      AudioError: the file can't be read or is not of that kind, or nothing that reads
        it is installed.
    """
    check_kind(path, kind)
    open_sound = _implementation()
    if open_sound is None:
        raise AudioError(
            f"{path}: reading {kind} needs tensorflow-io or soundfile; "
            "run 'pip install soundfile', or convert the file to WAV."
        )
    return open_sound(path)


@functools.cache
def _implementation() -> Callable[[str], Sound] | None:
    """The `open_sound` to use; both are slow to import, so only when it is needed."""
    if importlib.util.find_spec("tensorflow_io"):
        with warnings.catch_warnings():
            # Where it does not fit the installed TensorFlow it warns of every library
            # that it could not load.
            warnings.simplefilter("ignore")
            from magenta_nsynth.audio import decode_tensorflow_io

            if decode_tensorflow_io.works():
                return decode_tensorflow_io.open_sound
    try:
        from magenta_nsynth.audio import decode_soundfile
    except (ImportError, OSError):  # OSError: there, but without its C library
        return None
    return decode_soundfile.open_sound
