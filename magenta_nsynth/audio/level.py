"""How loud samples may be: numbers of another type are not taken for sound."""

import math

__all__ = ["MAX_LEVEL", "level_problem"]

# Full scale is 1. Floating-point sound may overshoot it by some dB; beyond 18 dB the
# numbers are integers that nobody divided, or damaged.
MAX_LEVEL = 8.0

_INTEGER_BITS = (8, 16, 24, 32)


def level_problem(peak: float) -> str:
    """What is wrong with sound of this largest magnitude, and the way out.

    Args:
      peak: the largest magnitude of its samples; NaN if one of them is NaN.

    Returns:
      Words that go on from what names the sound; "" if nothing is wrong.
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
        f"samples reach {peak:.6g}, where full scale is 1; they are no sound, or "
        "numbers of another type"
    )
