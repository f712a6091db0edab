"""The WaveNet encoder for clips of any length, with limited memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from magenta_nsynth.models.encoder_parts import encode_next, layer_specs, silence
from magenta_nsynth.models.wavenet import WaveNetEncoder
from magenta_nsynth.parallel import num_cores

__all__ = ["ClipEncoder"]

# Frames in a piece of a long clip. Pieces are encoded side by side, and each costs the
# time of 12 frames more: its context.
_PIECE_FRAMES = 500
# Bytes of a layer's output. On processors it should stay in a core's cache; on GPUs it
# has to fit into memory several times.
_LAYER_BYTES = {"CPU": 2**21, "GPU": 2**27}


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

    On processors each clip has a call of its own, and as many calls run side by side as
    there are cores: a batch is no faster, and its activations leave the caches. On GPUs
    clips of equal length share a batch; padding would change the last frames. A long
    clip is cut into pieces that overlap by the network's receptive field, so the
    numbers are the same as without cuts.
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
        self._encoder = encoder
        self._piece_frames = piece_frames
        self._has_gpu = bool(tf.config.list_logical_devices("GPU"))
        layer_bytes = _LAYER_BYTES["GPU" if self._has_gpu else "CPU"]
        self._most_samples = layer_bytes // (4 * self.config.ae_width)
        self._pool = ThreadPoolExecutor(1 if self._has_gpu else num_cores())
        batch_size = None if self._has_gpu else 1
        self._encode_next = tf.function(
            lambda audio, past, after: encode_next(encoder, audio, past, after),
            input_signature=[
                tf.TensorSpec([batch_size, None], tf.float32),
                layer_specs(encoder, batch_size),
                layer_specs(encoder, batch_size),
            ],
            autograph=False,
        )

    def __call__(
        self, clips: Sequence[np.ndarray], batch_size: int = 16
    ) -> list[np.ndarray]:
        """Encodes each clip. Several threads may call it at once.

        Args:
          clips: each [t] float32 in [-1, 1] at 16 kHz, of any length. Samples after
            the last whole frame are dropped.
          batch_size: on GPUs, the largest number of clips, or pieces, in a batch.

        Returns:
          [t // hop, bottleneck] float32 per clip.
        """
        width = self.config.ae_bottleneck_width
        encodings = [
            np.empty([self.config.num_frames(len(clip)), width], np.float32)
            for clip in clips
        ]
        pieces = [
            piece
            for i, encoding in enumerate(encodings)
            for piece in self._pieces(i, len(encoding))
        ]
        batches = self._batches(pieces, batch_size)
        # A single call is made in this thread: with several calls of one clip each, the
        # callers' threads are side by side already.
        run = map if len(batches) == 1 else self._pool.map
        for batch, frames in zip(
            batches, run(lambda batch: self._encode(clips, batch), batches), strict=True
        ):
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

    def _batches(self, pieces: list[_Piece], batch_size: int) -> list[list[_Piece]]:
        """Groups pieces of equal length for a GPU, as many as fit into a call."""
        if not self._has_gpu:
            return [[piece] for piece in pieces]
        batches: list[list[_Piece]] = []
        for piece in sorted(pieces, key=lambda piece: piece.length):
            limit = max(1, min(batch_size, self._most_samples // piece.length))
            batch = batches[-1] if batches else []
            if batch and batch[0].length == piece.length and len(batch) < limit:
                batch.append(piece)
            else:
                batches.append([piece])
        return batches

    def _encode(self, clips: Sequence[np.ndarray], pieces: list[_Piece]) -> np.ndarray:
        """Encodes pieces of equal length: [b, frames, bottleneck] float32."""
        audio = np.stack([clips[p.clip][p.start : p.stop] for p in pieces])
        audio = audio.astype(np.float32, copy=False)
        hop, reach = self.config.ae_hop_length, self.config.encoder_reach
        length, step = pieces[0].length, max(1, self._most_samples // hop) * hop
        past = ends = silence(self._encoder, len(pieces))
        no_end = [zeros[:, :, :0] for zeros in ends]
        frames, start = [], 0
        for stop in [*range(reach + step, length, step), length]:
            after = ends if stop == length else no_end
            part, past = self._encode_next(audio[:, start:stop], past, after)
            frames.append(part.numpy())
            start = stop
        return np.concatenate(frames, axis=1)
