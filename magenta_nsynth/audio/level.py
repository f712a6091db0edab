"""How loud samples can be: recognises integers that were never scaled."""

import math

__all__ = ["MAX_LEVEL", "level_problem"]

# Full scale is 1. Floating-point sound may exceed it by a few dB. Beyond 18 dB the
# samples are integers that were never scaled, or damaged.
MAX_LEVEL = 8.0

_INTEGER_BITS = (8, 16, 24, 32)


def level_problem(peak: float) -> str:
    """Describes what is wrong with sound of this peak, and what to do.

    Args:
      peak: the largest magnitude of its samples; NaN if one of them is NaN.

    Returns:
      Words that follow the sound's name in a message; "" if nothing is wrong.
    """
    if not math.isfinite(peak):
        return "has NaN or infinite samples"
    if peak <= MAX_LEVEL:
        return ""
    for bits in _INTEGER_BITS:
        full = 2 ** (bits - 1)
        if peak <= full:
            return (
                f"samples reach {peak:.6g}; they look like {bits}-bit integers in "
                f"floating-point form: divide by {full}"
            )
    return (
        f"samples reach {peak:.6g}, where full scale is 1; they are not sound, or "
        "have another number format"
    )
