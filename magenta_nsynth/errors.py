"""The errors that a user can fix.

Everything that this package refuses on purpose is an `NSynthError`. Its message says
what was received and what to do about it. The binaries print the message as one line
and exit with status 1. Any other exception is a bug and keeps its traceback.
"""

from typing import TYPE_CHECKING

__all__ = [
    "AudioError",
    "CheckpointError",
    "InputError",
    "InstallationError",
    "NSynthError",
    "StoreError",
    "TrainingError",
]


class NSynthError(ValueError):
    """Base class: one line that says what was received and how to fix it.

    Examples:
      >>> import magenta_nsynth as nsynth
      >>> try:
      ...     audio = nsynth.load_audio("missing.wav")
      ... except nsynth.NSynthError as error:
      ...     print(error)
      missing.wav: can't be read (No such file or directory).
    """

    if not TYPE_CHECKING:  # mypy would take the class for Any
        # With ValueError's own __init__, AutoGraph would replace the error by a
        # StagingError inside a tf.function.
        __init__ = Exception.__init__


class InputError(NSynthError):
    """An argument, a path or an array that can't be used."""


class AudioError(NSynthError):
    """A sound file that can't be read, or whose content can't be used."""


class CheckpointError(NSynthError):
    """A checkpoint that is missing, damaged, or belongs to another model."""


class StoreError(NSynthError):
    """An object store or web server that refuses a request, or does not answer."""


class TrainingError(NSynthError):
    """A training run that can't continue from its current state."""


class InstallationError(NSynthError):
    """Installed packages that don't fit each other."""
