"""The WaveNet encoder for clips of any length, with limited memory."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.models.wavenet import WaveNetEncoder

__all__ = ["ClipEncoder"]

# Frames in a piece of a long clip: a note of 4 s is one piece.
_PIECE_FRAMES = 125
# Samples in a call of the network. More are no faster, and each takes 2 kB of memory.
_SAMPLES_PER_CALL = 4 * 64_000


class _Piece(NamedTuple):
    """Samples [start, stop) of a clip, which give frames [first, last) of it.

    Attributes:
      clip: the clip's number.
      start: the first sample.
      stop: the end of the samples.
      first: the first frame.
      last: the end of the frames.
      skipped: frames of the network's output before these, which only give context.
    """

    clip: int
    start: int
    stop: int
    first: int
    last: int
    skipped: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class ClipEncoder:
    """Encodes clips with a `WaveNetEncoder`, compiled once for all lengths.

    A clip's embedding does not depend on the other clips: only pieces of equal length
    share a batch, because padding would change the last frames. A long clip is cut into
    pieces that overlap by the network's receptive field, so the numbers are the same as
    without cuts.
    """

    def __init__(
        self, encoder: WaveNetEncoder, piece_frames: int = _PIECE_FRAMES
    ) -> None:
        """Wraps an encoder.

        Args:
          encoder: the network.
          piece_frames: the frames in a piece, without its overlap.
        """
        self.config = encoder.config
        self._piece_frames = piece_frames
        self._encode = tf.function(
            lambda audio: encoder(audio),
            input_signature=[tf.TensorSpec([None, None], tf.float32)],
        )

    def __call__(
        self, clips: Sequence[np.ndarray], batch_size: int = 16
    ) -> list[np.ndarray]:
        """Encodes each clip.

        Args:
          clips: each [t] float32 in [-1, 1] at 16 kHz, of any length. Samples after
            the last whole frame are dropped.
          batch_size: the largest number of clips, or pieces, encoded side by side.

        Returns:
          [t // hop, bottleneck] float32 per clip.
        """
        hop = self.config.ae_hop_length
        width = self.config.ae_bottleneck_width
        encodings = [
            np.empty([self.config.num_frames(len(clip)), width], np.float32)
            for clip in clips
        ]
        pieces = sorted(
            (
                piece
                for i, encoding in enumerate(encodings)
                for piece in self._pieces(i, len(encoding))
            ),
            key=lambda piece: piece.length,
        )
        for batch in _batches(pieces, batch_size):
            audio = np.stack([clips[p.clip][p.start : p.stop] for p in batch])
            frames = self._encode(audio.astype(np.float32, copy=False)).numpy()
            if frames.shape[1] != batch[0].length // hop:
                raise AssertionError("the encoder's hop is not the config's")
            for piece, result in zip(batch, frames, strict=True):
                num_frames = piece.last - piece.first
                encodings[piece.clip][piece.first : piece.last] = result[
                    piece.skipped : piece.skipped + num_frames
                ]
        return encodings

    def _pieces(self, clip: int, num_frames: int) -> Iterator[_Piece]:
        hop = self.config.ae_hop_length
        halo = -(-self.config.encoder_reach // hop)
        size = self._piece_frames
        if num_frames <= size + 2 * halo:
            size = max(num_frames, 1)
        for first in range(0, num_frames, size):
            last = min(first + size, num_frames)
            start, stop = max(first - halo, 0), min(last + halo, num_frames)
            yield _Piece(clip, start * hop, stop * hop, first, last, first - start)


def _batches(pieces: list[_Piece], batch_size: int) -> Iterator[list[_Piece]]:
    """Groups adjacent pieces of equal length, as many as fit into a call."""
    batch: list[_Piece] = []
    for piece in pieces:
        limit = max(1, min(batch_size, _SAMPLES_PER_CALL // piece.length))
        if batch and (batch[0].length != piece.length or len(batch) >= limit):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
