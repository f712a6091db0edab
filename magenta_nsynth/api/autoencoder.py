"""What both models have in common, for code that works with either."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from magenta_nsynth.config import Config
from magenta_nsynth.embeddings.embedding import Embedding
from magenta_nsynth.embeddings.encode_many import Encoder
from magenta_nsynth.embeddings.files import EmbeddingFiles
from magenta_nsynth.generation.options import Generation
from magenta_nsynth.models.base import ConfiguredModel
from magenta_nsynth.weights.checkpoint import Checkpoint

__all__ = ["Autoencoder"]


class Autoencoder(Encoder, Protocol):
    """An opened checkpoint of either model: a `WaveNet` or a `Baseline`."""

    @property
    def name(self) -> str:
        """The model: "wavenet" or "baseline"."""
        ...

    @property
    def config(self) -> Config:
        """The config read from the checkpoint."""
        ...

    @property
    def checkpoint(self) -> Checkpoint:
        """The opened checkpoint."""
        ...

    @property
    def checkpoint_path(self) -> str:
        """The checkpoint's prefix."""
        ...

    @property
    def use_ema(self) -> bool:
        """Whether the weights are the averaged ones."""
        ...

    @property
    def min_samples(self) -> int:
        """The number of samples in the shortest clip that can be encoded."""
        ...

    @property
    def num_latent(self) -> int:
        """The size of an embedding's row."""
        ...

    @property
    def uses_pitch(self) -> bool:
        """Whether generating a sound takes its pitch."""
        ...

    @property
    def makes_steps(self) -> bool:
        """Whether `sounds` is slow, and yields many blocks."""
        ...

    @property
    def files(self) -> EmbeddingFiles:
        """How embeddings are saved and read."""
        ...

    @property
    def encoder(self) -> ConfiguredModel:
        """The encoder, a Keras model."""
        ...

    def summary(self) -> None:
        """Prints a description of the checkpoint."""
        ...

    def encode(self, sounds: Any, sample_length: int = 0) -> Any:
        """Encodes sounds: paths or arrays of any length."""
        ...

    def peak(self, audio: np.ndarray, prepared: Any) -> float:
        """The peak of a clip [t]; 0 if the network can't hear it."""
        ...

    def check_generation(
        self, options: Generation, embeddings: Sequence[Embedding] = ()
    ) -> None:
        """Raises InputError if options can't be used, alone or for the embeddings."""
        ...

    def sounds(
        self, embeddings: Sequence[Embedding], options: Generation
    ) -> Iterator[np.ndarray]:
        """Generates sounds side by side, in blocks [b, n] float32 at 16 kHz."""
        ...

    def finish(
        self, embedding: Embedding, audio: np.ndarray, options: Generation
    ) -> np.ndarray:
        """Scales a finished sound [t]."""
        ...
