"""NSynth for TensorFlow 2: its two autoencoders, their weights, their numbers.

    import magenta_nsynth as nsynth

    model = nsynth.load_wavenet("checkpoints/small")
    z = model.encode("note.wav")                 # [frames, 16]
    audio = model.generate(z, seed=0)            # [samples], at 16 kHz
    nsynth.save_audio("again.wav", audio)

Importing this module is cheap: TensorFlow is loaded when a name first needs it. The
Keras models are in `magenta_nsynth.models`, the checkpoint tools in
`magenta_nsynth.weights`.
"""

import importlib
from typing import Any

from magenta_nsynth.importing import without_matplotlib

__version__ = "0.2.0"

_HOME = {
    "AudioError": "errors",
    "Baseline": "api",
    "CheckpointError": "errors",
    "H512_BO16": "config",
    "InputError": "errors",
    "NFFT_1024": "config",
    "NSynthError": "errors",
    "SAMPLE_RATE": "config",
    "SpectralConfig": "config",
    "WaveNet": "api",
    "WaveNetConfig": "config",
    "cqt": "spectral",
    "crossfade": "embeddings.interpolation",
    "grid_weights": "embeddings.interpolation",
    "draw_embedding": "plotting.rainbowgrams",
    "draw_figure": "plotting.figure",
    "draw_rainbowgram": "plotting.rainbowgrams",
    "griffin_lim": "spectral",
    "inverse_mu_law": "audio.mu_law",
    "ispecgram": "spectral",
    "line_weights": "embeddings.interpolation",
    "load_audio": "audio",
    "load_baseline": "api",
    "load_model": "api",
    "load_wavenet": "api",
    "match_loudness": "audio.loudness",
    "mix": "embeddings.interpolation",
    "make_panel": "plotting.rainbowgrams",
    "mu_law": "audio.mu_law",
    "rainbowgram": "spectral",
    "rainbowgram_image": "plotting.rainbowgrams",
    "rainbowgram_summary": "training.summaries",
    "save_audio": "audio",
    "save_figure": "plotting.figure",
    "specgram": "spectral",
    "sum_signals": "audio.loudness",
    "time_stretch": "embeddings.interpolation",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOME[name]}"
    if _HOME[name].startswith("plotting"):
        module = importlib.import_module(home)
    else:
        with without_matplotlib():
            module = importlib.import_module(home)
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
