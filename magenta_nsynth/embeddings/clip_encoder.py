"""Encoding clips of any length, in memory that does not grow with the clip."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.models.wavenet import WaveNetEncoder

__all__ = ["ClipEncoder"]

# Frames of one piece of a long clip: a 4 s note goes through in one piece.
_PIECE_FRAMES = 125
# Samples in one call of the network. More at once is no faster, and takes 2 KB each.
_SAMPLES_PER_CALL = 4 * 64_000


class _Piece(NamedTuple):
    clip: int
    start: int  # samples [start, stop) go into the network,
    stop: int
    first: int  # and frames [first, first + count) of its clip come out of it,
    count: int
    skipped: int  # after so many frames that only lend the others their context.

    @property
    def length(self) -> int:
        return self.stop - self.start


class ClipEncoder:
    """Encodes clips with a `WaveNetEncoder`, compiled once for every length.

    A clip's embedding does not depend on the clips beside it: only pieces of equal
    length share a batch, since padding would change the last frames. A long clip is
    cut into pieces that overlap by the network's reach, which gives the same numbers
    as the whole.
    """

    def __init__(self, encoder: WaveNetEncoder, piece_frames: int = _PIECE_FRAMES):
        """Wraps `encoder`; `piece_frames` is the longest piece without its overlap."""
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
          clips: [t] float32 in [-1, 1] at 16 kHz each, of any lengths. A tail shorter
            than a frame is dropped.
          batch_size: at most so many clips, or pieces of them, go side by side.

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
                encodings[piece.clip][piece.first : piece.first + piece.count] = result[
                    piece.skipped : piece.skipped + piece.count
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
            yield _Piece(
                clip, start * hop, stop * hop, first, last - first, first - start
            )


def _batches(pieces: list[_Piece], batch_size: int) -> Iterator[list[_Piece]]:
    """Runs of pieces of equal length, as many as a call may hold."""
    batch: list[_Piece] = []
    for piece in pieces:
        limit = max(1, min(batch_size, _SAMPLES_PER_CALL // piece.length))
        if batch and (batch[0].length != piece.length or len(batch) >= limit):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
