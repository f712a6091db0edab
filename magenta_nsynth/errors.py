"""The errors that a user can mend.

Everything that this package refuses on purpose is an `NSynthError`: its message
says what was received and what to do about it. The binaries print that message as
one line and exit with status 1; any other exception is a bug and keeps its
traceback.
"""

__all__ = [
    "AudioError",
    "CheckpointError",
    "InputError",
    "NSynthError",
    "TrainingError",
]


class NSynthError(ValueError):
    """Base class: what was received, and what to do about it, in one line."""

    # Not ValueError's own, or AutoGraph makes a StagingError of it in a tf.function.
    __init__ = Exception.__init__


class InputError(NSynthError):
    """An argument, a path or an array that can't be used as it is."""


class AudioError(NSynthError):
    """A sound file that can't be read, or whose content can't be used."""


class CheckpointError(NSynthError):
    """A checkpoint that is missing, damaged, or of another model."""


class TrainingError(NSynthError):
    """A training that can't go on from where it is."""
