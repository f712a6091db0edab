"""What makes a generated note fit for a sampler: no offset, clicks or silent start.

Each step is a function of audio [t] alone, so that any of them can be left out.
"""

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["FADE_OUT", "fade_ends", "onset", "remove_clicks", "remove_offset"]

_OFFSET_HZ = 15.0  # below what is heard, and below the lowest note
# The onset is where the sound first exceeds this share of its peak (-30 dB). A little
# of what precedes it is kept, so that the attack keeps its shape.
_ONSET_SHARE = 0.032
_BEFORE_ONSET = 64  # samples, 4 ms
_FADE_IN, FADE_OUT = 48, 240  # samples: 3 and 15 ms

# A click is a sample far from the curve through its neighbours: this many times as far
# as the samples around it are, and this share of the peak.
_CLICK_RATIO = 12.0
_CLICK_SHARE = 0.1
_CLICK_WINDOW = 257  # samples
# More of them are the sound itself: the pulses of a low, bright note.
_MOST_CLICKS = 20.0  # a second


def remove_offset(audio: np.ndarray) -> np.ndarray:
    """Removes the constant part, and drifts below 15 Hz, without a phase shift.

    Args:
      audio: [t] float, t >= 64.

    Returns:
      [t] float32.
    """
    from scipy import signal  # half a second

    sections = signal.butter(2, _OFFSET_HZ, "high", fs=SAMPLE_RATE, output="sos")
    # The filter rings for a tenth of a second; so long is the sound continued.
    padding = min(len(audio) - 1, SAMPLE_RATE // 10)
    filtered = signal.sosfiltfilt(sections, audio, padtype="odd", padlen=padding)
    return filtered.astype(np.float32)


def remove_clicks(audio: np.ndarray) -> tuple[np.ndarray, int]:
    """Replaces single samples that stand out by the curve through their neighbours.

    Args:
      audio: [t] float.

    Returns:
      [t] float32, and the number of samples replaced. Where so many stand out that
      they are a part of the sound, none is.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.finishing import remove_clicks
      >>> audio = 0.5 * np.sin(np.arange(8000) / 9)
      >>> audio[3000] += 0.8
      >>> repaired, count = remove_clicks(audio)
      >>> count, bool(abs(repaired[3000] - 0.5 * np.sin(3000 / 9)) < 1e-3)
      (1, True)
    """
    from scipy import ndimage

    audio = np.asarray(audio, np.float32)
    peak = float(np.abs(audio).max(initial=0))
    if len(audio) < _CLICK_WINDOW or not peak:
        return audio, 0
    around = _from_neighbours(np.pad(audio, 2, mode="edge"))
    distance = np.abs(audio - around)
    # A click also disturbs the curves through it, so the largest of five counts alone.
    usual = ndimage.median_filter(distance, _CLICK_WINDOW, mode="nearest")
    limit = np.maximum(_CLICK_RATIO * usual, _CLICK_SHARE * peak)
    is_click = (distance > limit) & (distance == ndimage.maximum_filter(distance, 5))
    count = int(is_click.sum())
    if not 0 < count <= max(1, _MOST_CLICKS * len(audio) / SAMPLE_RATE):
        return audio, 0
    return np.where(is_click, around, audio), count


def _from_neighbours(padded: np.ndarray) -> np.ndarray:
    """The cubic through two samples on either side, at each sample but the ends."""
    near = padded[1:-3] + padded[3:-1]
    far = padded[:-4] + padded[4:]
    return (4 * near - far) / 6


def onset(audio: np.ndarray) -> int:
    """The sample at which a note begins: just before it first exceeds -30 dB.

    Args:
      audio: [t] float.

    Returns:
      0 to t - 1; 0 for silence.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.finishing import onset
      >>> onset(np.concatenate([np.zeros(1000), np.ones(1000)]))
      936
    """
    size = np.abs(audio)
    first = int(np.argmax(size > _ONSET_SHARE * size.max(initial=0)))
    return max(0, first - _BEFORE_ONSET)


def fade_ends(audio: np.ndarray) -> np.ndarray:
    """Fades audio [t] in over 3 ms and out over 15 ms: float32 [t], 0 at both ends."""
    faded = np.array(audio, np.float32)
    for edge, size in ((faded, _FADE_IN), (faded[::-1], FADE_OUT)):
        size = min(size, len(faded) // 2)
        edge[:size] *= (1 - np.cos(np.pi * np.arange(size) / max(size, 1))) / 2
    return faded
