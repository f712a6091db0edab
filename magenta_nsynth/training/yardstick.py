"""The loss of a linear predictor, to tell what a WaveNet's loss means.

NumPy and SciPy alone.
"""

import numpy as np
import scipy.linalg
import scipy.special

from magenta_nsynth.config import NUM_CLASSES
from magenta_nsynth.errors import InputError

__all__ = ["linear_predictor_nll"]

_HALF = NUM_CLASSES // 2
_MU = NUM_CLASSES - 1
_FREEDOM = 5  # degrees, of the Student distribution
_SCALES = 2.0 ** np.arange(-2, 1, 0.25)  # tried, times the residual's deviation
_RIDGE = 1e-7  # per sample squared; keeps silence and pure tones solvable
_LEAST_SCALE = 1e-6
_LEAST_PROBABILITY = 1e-9


def linear_predictor_nll(audio: np.ndarray, order: int) -> float:
    """The loss of a linear predictor that is fitted to the sound itself.

    The mu-law values of the last `order` samples predict the next one by least squares.
    Its class has the probability that a Student distribution with 5 degrees of freedom
    around the prediction gives to the class's interval. Its width is the best one for
    the sound, of some between 0.25 and 1.7 standard deviations of the residual.

    A WaveNet has to encode the sound in a few numbers; this one gets `order` of them
    for free. But it is the same for all times, and linear. Silence costs ln 2, because
    it decodes to 0, the edge between two classes.

    Args:
      audio: [t] floats in [-1, 1], t >= 2 * order.
      order: the number of samples that it looks back, 1 or more.

    Returns:
      The mean negative log likelihood of all samples but the first `order`, in nats.

    Raises:
      InputError: too few samples, or an order below 1.

    Examples:
      >>> import numpy as np
      >>> from magenta_nsynth.training.yardstick import linear_predictor_nll
      >>> noise = np.random.default_rng(0).standard_normal(8000) / 10
      >>> tone = np.sin(np.arange(8000) / 5) / 10
      >>> linear_predictor_nll(noise, 64) > 4 > 1 > linear_predictor_nll(tone, 64)
      True
    """
    if order < 1 or len(audio) < 2 * order:
        raise InputError(
            f"A linear predictor of order {order} needs {2 * max(order, 1)} samples "
            f"and an order of 1 or more; the sound has {len(audio)} samples."
        )
    classes = _classes(np.asarray(audio, np.float64))
    values = _values(classes)
    windows = np.lib.stride_tricks.sliding_window_view(values[:-1], order)
    past = np.ascontiguousarray(windows)  # products are four times as fast
    wanted = values[order:]
    products = past.T @ past + _RIDGE * np.eye(order)
    weights = scipy.linalg.solve(products, past.T @ wanted, assume_a="pos")
    predicted = past @ weights
    scale = np.std(wanted - predicted) + _LEAST_SCALE
    edges = _edges()
    low, high = edges[classes[order:]] - predicted, edges[classes[order:] + 1]
    high = high - predicted
    return float(min(_nll(low / (scale * g), high / (scale * g)) for g in _SCALES))


def _classes(audio: np.ndarray) -> np.ndarray:
    """The mu-law class of each sample, 0 to 255, as in NSynth."""
    level = np.sign(audio) * np.log1p(_MU * np.abs(audio)) / np.log(NUM_CLASSES)
    return np.clip(np.floor(_HALF * level), -_HALF, _HALF - 1).astype(int) + _HALF


def _values(classes: np.ndarray) -> np.ndarray:
    """What each class decodes to: the middle of its interval, but 0 for silence."""
    steps = classes - _HALF
    return np.where(steps == 0, 0.0, _expanded((steps + 0.5) / _HALF))


def _edges() -> np.ndarray:
    """Where classes begin, [257]. The first and the last class have no outer end."""
    edges = _expanded(np.arange(-_HALF, _HALF + 1) / _HALF)
    edges[[0, -1]] = -np.inf, np.inf
    return edges


def _expanded(companded: np.ndarray) -> np.ndarray:
    magnitude = np.power(float(NUM_CLASSES), np.abs(companded)) - 1
    return np.sign(companded) * magnitude / _MU


def _nll(low: np.ndarray, high: np.ndarray) -> float:
    """The mean loss of intervals of a Student distribution of width 1."""
    # On the side of the lower tail, where a probability near 0 keeps its digits.
    is_above = low > 0
    low, high = np.where(is_above, -high, low), np.where(is_above, -low, high)
    probability = scipy.special.stdtr(_FREEDOM, high) - scipy.special.stdtr(
        _FREEDOM, low
    )
    return float(-np.log(np.maximum(probability, _LEAST_PROBABILITY)).mean())
