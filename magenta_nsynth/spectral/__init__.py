"""Spectra and spectrograms in TensorFlow: batched, without plotting."""

from magenta_nsynth.spectral.cqt import cqt
from magenta_nsynth.spectral.loss import frequency_weights, spectral_loss
from magenta_nsynth.spectral.phase import griffin_lim
from magenta_nsynth.spectral.rainbowgram import rainbowgram
from magenta_nsynth.spectral.specgram import ispecgram, specgram
from magenta_nsynth.spectral.stft import istft, stft

__all__ = [
    "cqt",
    "frequency_weights",
    "griffin_lim",
    "ispecgram",
    "istft",
    "rainbowgram",
    "specgram",
    "spectral_loss",
    "stft",
]
