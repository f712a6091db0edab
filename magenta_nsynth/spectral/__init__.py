"""Spectra: numbers only, batched, in TensorFlow."""

from magenta_nsynth.spectral.loss import frequency_weights, spectral_loss
from magenta_nsynth.spectral.phase import griffin_lim
from magenta_nsynth.spectral.specgram import ispecgram, specgram
from magenta_nsynth.spectral.stft import istft, stft

__all__ = [
    "frequency_weights",
    "griffin_lim",
    "ispecgram",
    "istft",
    "specgram",
    "spectral_loss",
    "stft",
]
