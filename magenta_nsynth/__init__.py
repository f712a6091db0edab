"""NSynth for TensorFlow 2: its two autoencoders and their released weights.

  models     load_wavenet, load_baseline, load_model; WaveNet, Baseline
  sounds     load_audio, save_audio, example_notes, match_loudness, sum_signals, mu_law,
             inverse_mu_law
  mixing     mix, line_weights, grid_weights, crossfade, time_stretch
  exports    open_embeddings
  spectra    specgram, ispecgram, griffin_lim, cqt, rainbowgram
  pictures   draw_rainbowgram, draw_embedding, rainbowgram_image, make_panel,
             draw_figure, save_figure, rainbowgram_summary
  configs    H512_BO16, NFFT_1024, SAMPLE_RATE, SpectralConfig, WaveNetConfig
  errors     NSynthError; AudioError, CheckpointError, InputError, InstallationError

Importing this module is cheap: TensorFlow is imported when a name first needs it. The
Keras models are in `magenta_nsynth.models`, the checkpoint tools in
`magenta_nsynth.weights`, and the original's Python functions in
`magenta_nsynth.compat`.

Examples:
  >>> import magenta_nsynth as nsynth
  >>> model = nsynth.load_wavenet("small")  # the bundled one, or a checkpoint's path
  >>> model
  <WaveNet '...model.ckpt-...': 16 numbers per 512 samples, width 64>
  >>> z = model.encode(nsynth.example_notes()[1])
  >>> z.shape  # a row of 16 numbers for each 32 ms
  (125, 16)
  >>> audio = model.generate(z, num_samples=64, seed=0)  # at 16 kHz
  >>> nsynth.save_audio("again.wav", audio)
"""

import importlib
from typing import TYPE_CHECKING, Any

from magenta_nsynth.importing import set_log_level, tensorflow_import

if TYPE_CHECKING:  # what `__getattr__` imports, for type checkers and editors
    from magenta_nsynth.api import Baseline as Baseline
    from magenta_nsynth.api import WaveNet as WaveNet
    from magenta_nsynth.api import load_baseline as load_baseline
    from magenta_nsynth.api import load_model as load_model
    from magenta_nsynth.api import load_wavenet as load_wavenet
    from magenta_nsynth.audio import load_audio as load_audio
    from magenta_nsynth.audio import save_audio as save_audio
    from magenta_nsynth.audio.loudness import match_loudness as match_loudness
    from magenta_nsynth.audio.loudness import sum_signals as sum_signals
    from magenta_nsynth.audio.mu_law import inverse_mu_law as inverse_mu_law
    from magenta_nsynth.audio.mu_law import mu_law as mu_law
    from magenta_nsynth.bundled import example_notes as example_notes
    from magenta_nsynth.config import H512_BO16 as H512_BO16
    from magenta_nsynth.config import NFFT_1024 as NFFT_1024
    from magenta_nsynth.config import SAMPLE_RATE as SAMPLE_RATE
    from magenta_nsynth.config import SpectralConfig as SpectralConfig
    from magenta_nsynth.config import WaveNetConfig as WaveNetConfig
    from magenta_nsynth.embeddings.exported import open_embeddings as open_embeddings
    from magenta_nsynth.embeddings.interpolation import crossfade as crossfade
    from magenta_nsynth.embeddings.interpolation import grid_weights as grid_weights
    from magenta_nsynth.embeddings.interpolation import line_weights as line_weights
    from magenta_nsynth.embeddings.interpolation import mix as mix
    from magenta_nsynth.embeddings.interpolation import time_stretch as time_stretch
    from magenta_nsynth.errors import AudioError as AudioError
    from magenta_nsynth.errors import CheckpointError as CheckpointError
    from magenta_nsynth.errors import InputError as InputError
    from magenta_nsynth.errors import InstallationError as InstallationError
    from magenta_nsynth.errors import NSynthError as NSynthError
    from magenta_nsynth.plotting.figure import draw_figure as draw_figure
    from magenta_nsynth.plotting.figure import save_figure as save_figure
    from magenta_nsynth.plotting.rainbowgrams import draw_embedding as draw_embedding
    from magenta_nsynth.plotting.rainbowgrams import (
        draw_rainbowgram as draw_rainbowgram,
    )
    from magenta_nsynth.plotting.rainbowgrams import make_panel as make_panel
    from magenta_nsynth.plotting.rainbowgrams import (
        rainbowgram_image as rainbowgram_image,
    )
    from magenta_nsynth.spectral import cqt as cqt
    from magenta_nsynth.spectral import griffin_lim as griffin_lim
    from magenta_nsynth.spectral import ispecgram as ispecgram
    from magenta_nsynth.spectral import rainbowgram as rainbowgram
    from magenta_nsynth.spectral import specgram as specgram
    from magenta_nsynth.training.summaries import (
        rainbowgram_summary as rainbowgram_summary,
    )

__version__ = "0.2.0"

set_log_level()  # before any module imports TensorFlow

_NAMES = {
    "api": "Baseline WaveNet load_baseline load_model load_wavenet",
    "audio": "load_audio save_audio",
    "audio.loudness": "match_loudness sum_signals",
    "audio.mu_law": "inverse_mu_law mu_law",
    "bundled": "example_notes",
    "config": "H512_BO16 NFFT_1024 SAMPLE_RATE SpectralConfig WaveNetConfig",
    "embeddings.exported": "open_embeddings",
    "embeddings.interpolation": "crossfade grid_weights line_weights mix time_stretch",
    "errors": "AudioError CheckpointError InputError InstallationError NSynthError",
    "plotting.figure": "draw_figure save_figure",
    "plotting.rainbowgrams": "draw_embedding draw_rainbowgram make_panel "
    "rainbowgram_image",
    "spectral": "cqt griffin_lim ispecgram rainbowgram specgram",
    "training.summaries": "rainbowgram_summary",
}
_HOME = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOME[name]}"
    if _HOME[name].startswith("plotting"):
        module = importlib.import_module(home)
    else:
        with tensorflow_import():
            module = importlib.import_module(home)
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
