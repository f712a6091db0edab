"""One resampler for every environment. It works block by block."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from magenta_nsynth.config import SAMPLE_RATE

__all__ = ["resample", "resample_blocks", "resampled_length"]

MIN_RATE, MAX_RATE = 1_000, 400_000  # Hz; a file with any other rate is damaged

# The filter is a sinc with a Kaiser window: its half-length in samples of the lower
# rate; its -6 dB point as a fraction of half the lower rate; and the window's beta. At
# 16 kHz it is flat up to 7.2 kHz and 88 dB down from 8 kHz on, so nothing aliases.
HALF_LENGTH = 56
CUTOFF = 0.95
BETA = 8.74

_STEP = 2**17  # least number of input samples per piece
# The filter has 112 taps per phase. A rate that needs more phases, such as 399,989 Hz,
# is replaced by the nearest rate that doesn't, at most 0.05 cents away.
_MOST_PHASES = 20_000


def resampled_length(num_samples: int, rate: int, target: int = SAMPLE_RATE) -> int:
    """The number of samples at `target` Hz that `num_samples` at `rate` Hz become."""
    up, down = _ratio(rate, target)
    return -(-num_samples * up // down)


def _ratio(rate: int, target: int) -> tuple[int, int]:
    """Numbers of samples at `target` Hz and at `rate` Hz with the same duration."""
    ratio = Fraction(target, rate).limit_denominator(_MOST_PHASES)
    return ratio.numerator, ratio.denominator


def resample(audio: np.ndarray, rate: int) -> np.ndarray:
    """Resamples to 16 kHz.

    Args:
      audio: [n] float, at `rate`.
      rate: in Hz, above 0.

    Returns:
      [ceil(n * 16000 / rate)] float32. Sample i is at i / 16000 seconds. Audio at 16
      kHz is only cast.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.audio.resample import resample
      >>> resample(np.zeros(44_100), 44_100).shape
      (16000,)
    """
    pieces = list(resample_blocks([audio], rate))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def resample_blocks(
    blocks: Iterable[np.ndarray], rate: int, target: int = SAMPLE_RATE
) -> Iterator[np.ndarray]:
    """As `resample`, block by block, and to any rate.

    The result does not depend on how the audio is cut into blocks.

    Args:
      blocks: [n] float each, at `rate`.
      rate: in Hz, above 0.
      target: the rate to resample to, likewise.

    Yields:
      [m] float32 at `target`, in order.
    """
    if rate == target:
        for block in blocks:
            yield block.astype(np.float32, copy=False)
        return
    up, down = _ratio(rate, target)
    taps = _design(up, down)
    half = len(taps) // 2
    # A piece starts at a multiple of `down`, where an output sample coincides with an
    # input sample. It gets as many neighbours on either side as the filter needs.
    step = down * -(-_STEP // down)
    context = -(-half // up)
    # upfirdn's first output is where the filter's last tap meets the first sample.
    # Zeros before the filter move the first output of the piece to index `lead`.
    delay = half + context * up
    lead = -(-delay // down)
    taps = np.concatenate([np.zeros(lead * down - delay), taps])

    pending = np.zeros(context, np.float32)
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) >= step + 2 * context:
            piece = pending[: step + 2 * context]
            yield _filter(piece, taps, up, down)[lead:][: step // down * up]
            pending = pending[step:]
    num_left = len(pending) - context
    if num_left:
        piece = np.concatenate([pending, np.zeros(context, np.float32)])
        num_out = resampled_length(num_left, rate, target)
        yield _filter(piece, taps, up, down)[lead:][:num_out]


def _design(up: int, down: int) -> np.ndarray:
    """The filter at `up` times the input's rate, with a gain of `up`."""
    from scipy import signal

    slower = max(up, down)
    return up * signal.firwin(
        2 * HALF_LENGTH * slower + 1, CUTOFF / slower, window=("kaiser", BETA)
    )


def _filter(piece: np.ndarray, taps: np.ndarray, up: int, down: int) -> np.ndarray:
    # Imported here because it takes half a second, and files at 16 kHz don't need it.
    from scipy import signal

    return signal.upfirdn(taps, piece, up, down).astype(np.float32)
