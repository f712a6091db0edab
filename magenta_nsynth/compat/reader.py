"""The original's `reader`: batches of notes from TFRecords, as tf.data."""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.reading import (
    NOTE_SAMPLES,
    open_notes,
    read_notes,
    training_batches,
)
from magenta_nsynth.spectral import specgram

__all__ = ["NSynthDataset"]

_LABELS = (
    "pitch",
    "velocity",
    "instrument_source",
    "instrument_family",
    "qualities",
)


class NSynthDataset:
    """The notes of a TFRecord.

    Each method returns a `tf.data.Dataset` to loop over, in place of the original's
    tensors of a queue: `for batch in dataset.get_wavenet_batch(8): ...`.

    Attributes:
      record_path: the TFRecord's path, folder or glob.
      is_training: whether batches are endless and shuffled, with random crops. Else
        every note comes once, in order, and the last batch may be smaller.

    Source: NSynth, reader.NSynthDataset. Differs: for evaluation the original shuffled
    and dropped the last batch.

    Examples:
      >>> import numpy as np
      >>> import tensorflow as tf
      >>> from magenta_nsynth.compat.reader import NSynthDataset
      >>> from magenta_nsynth.data.writing import note_to_example
      >>> from magenta_nsynth.schema import Note
      >>> with tf.io.TFRecordWriter("notes.tfrecord") as writer:
      ...     for pitch in (60, 64, 67):
      ...         audio = np.zeros(64_000, np.float32)
      ...         writer.write(note_to_example(Note(f"note_{pitch}", audio, pitch)))
      >>> dataset = NSynthDataset("notes.tfrecord", is_training=False)
      >>> for batch in dataset.get_wavenet_batch(2, length=6144):
      ...     print(batch["wav"].shape, batch["pitch"].numpy(), batch["key"].numpy())
      (2, 6144) [60 64] [b'note_60' b'note_64']
      (1, 6144) [67] [b'note_67']
    """

    def __init__(
        self, tfrecord_path: str | os.PathLike, is_training: bool = True
    ) -> None:
        """Takes the path; the records are read when a method is called."""
        self.is_training = is_training
        self.record_path = tfrecord_path

    def get_example(self, batch_size: int) -> tf.data.Dataset:
        """Single notes.

        Args:
          batch_size: how many notes to read ahead.

        Returns:
          Dicts: note_str, a string; audio [64000] float32; pitch, velocity,
          instrument_source and instrument_family [1] int64; qualities [10] int64.
        """
        dataset = self._notes(1, NOTE_SAMPLES, ("note_str", "audio", *_LABELS))
        dataset = dataset.unbatch().map(_with_lists)
        return dataset.prefetch(batch_size)

    def get_wavenet_batch(
        self, batch_size: int, length: int = NOTE_SAMPLES
    ) -> tf.data.Dataset:
        """Batches for the WaveNet.

        Args:
          batch_size: notes per batch.
          length: samples per crop, random in training, else from the middle.

        Returns:
          Dicts: wav [b, length] float32, pitch [b] int32, key [b] string (the ids).

        Raises:
          InputError: there are no notes, or a note is too short.
        """
        dataset = self._notes(batch_size, length, ("note_str", "audio", "pitch"))
        return dataset.map(
            lambda note: {
                "pitch": tf.cast(note["pitch"], tf.int32),
                "wav": note["audio"],
                "key": note["note_str"],
            }
        )

    def get_baseline_batch(self, hparams: Any) -> tf.data.Dataset:
        """Batches for the baseline.

        Args:
          hparams: an object with the original's attributes batch_size, n_fft,
            hop_length, mask, log_mag, re_im, dphase, mag_only and pad.

        Returns:
          Dicts: audio [b, 64000] float32; spectrogram [b, bins, frames, channels],
          with `pad` one bin less and frames of zeros up to a power of two; pitch,
          velocity, instrument_source and instrument_family [b] int64; qualities
          [b, 10] int64.

        Raises:
          InputError: there are no notes, or a note hasn't 64,000 samples.
        """

        def with_spectrogram(note: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            spec = specgram(
                note["audio"],
                hparams.n_fft,
                hparams.hop_length,
                hparams.mask,
                hparams.log_mag,
                hparams.re_im,
                hparams.dphase,
                hparams.mag_only,
            )
            if hparams.pad:
                frames = spec.shape[2]
                missing = 2 ** (frames - 1).bit_length() - frames
                spec = tf.pad(spec[:, :-1], [(0, 0), (0, 0), (0, missing), (0, 0)])
            return {**note, "spectrogram": spec}

        names = ("audio", *_LABELS)
        dataset = self._notes(hparams.batch_size, NOTE_SAMPLES, names)
        return dataset.map(with_spectrogram).prefetch(2)

    def _notes(
        self, batch_size: int, length: int, features: tuple[str, ...]
    ) -> tf.data.Dataset:
        index = open_notes(os.fspath(self.record_path))
        if not self.is_training:
            return read_notes(index, features, length, batch_size)
        # As with the original's queues, `np.random.seed` is what makes it repeatable.
        seed = np.random.randint(2**31)
        return training_batches(index, length, batch_size, seed, features=features)


def _with_lists(note: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A note whose numbers are lists of one, as a record has them."""
    single = ("pitch", "velocity", "instrument_source", "instrument_family")
    return {
        name: tf.reshape(value, [1]) if name in single else value
        for name, value in note.items()
    }
