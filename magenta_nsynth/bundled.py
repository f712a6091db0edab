"""The checkpoint and the sounds that come with this package."""

import glob
import os

__all__ = ["CHECKPOINTS", "bundled", "example_notes"]

# The names that can be given in place of a checkpoint's path.
CHECKPOINTS = ("small",)

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def bundled(name: str) -> str:
    """The path of something bundled: in an installed package, or in a clone.

    Args:
      name: "notes", or one of `CHECKPOINTS`.
    """
    installed = os.path.join(_PACKAGE, "bundled")  # setup.py puts it there
    if os.path.isdir(installed):
        return os.path.join(installed, name)
    return os.path.join(os.path.dirname(_PACKAGE), "checkpoints", name)


def example_notes() -> list[str]:
    """Lists the bundled notes: six instruments, 1 to 4 s each, mono at 16 kHz.

    Returns:
      The paths of WAV files, sorted. Their names are NSynth's without the velocity:
      family, instrument and MIDI pitch.

    Examples:
      >>> import os
      >>> import magenta_nsynth as nsynth
      >>> notes = nsynth.example_notes()
      >>> [os.path.basename(path) for path in notes][:2]
      ['brass_acoustic_056-060-100.wav', 'flute_acoustic_073-060-100.wav']
      >>> nsynth.load_wavenet("small").encode(notes[1]).shape
      (125, 16)
    """
    return sorted(glob.glob(os.path.join(glob.escape(bundled("notes")), "*.wav")))
