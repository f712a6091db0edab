"""Decodes sound files of every kind, block by block, with PyAV's FFmpeg.

FFmpeg tolerates damage and accepts truncated files. So lengths and checksums in the
file are compared with the result.
"""

import hashlib
import os
import stat
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from magenta_nsynth.audio.containers import (
    LEAST_UNKNOWN_LENGTH,
    Mp3Packets,
    Stream,
    Window,
    check_w64,
    checked_ogg,
    checked_wav,
    codec_of,
    format_of,
    too_short,
)
from magenta_nsynth.errors import AudioError
from magenta_nsynth.stores import storage

if TYPE_CHECKING:
    import av

__all__ = ["AUDIO_EXTENSIONS", "Block", "decode"]

# Extensions of sound files. The first bytes of a file determine its format.
AUDIO_EXTENSIONS = (
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".flac", ".ogg",
    ".oga", ".opus", ".mp3", ".m4a",
)  # fmt: skip

# Samples per block in all channels: enough to make Python's overhead negligible, few
# enough that copies of a block take a few MB.
_BLOCK_SAMPLES = 2**18
_READ_BYTES = 2**18  # read from the file at a time
# FFmpeg checks FLAC's frame checksums only on request, and cuts Vorbis a block too
# early or too late.
_DECODER_OPTIONS = {
    "flac": {"err_detect": "crccheck+bitstream+buffer+explode"},
    "vorbis": {"flags2": "+skip_manual"},
}
# Formats whose headers announce the number of samples.
_ANNOUNCING = ("aiff", "flac", "mov")
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


class Block(NamedTuple):
    """Some samples of a sound file.

    Attributes:
      rate: in Hz, above 0; the same for all blocks of a file.
      samples: [n, channels] float32 or float64, n > 0; in [-1, 1] unless the file is
        floating point.
    """

    rate: int
    samples: np.ndarray


def decode(path: str) -> Generator[Block, None, None]:
    """Decodes a sound file. Its content determines the format, not its name.

    Args:
      path: a WAV (RIFF, RIFX, RF64, W64), AIFF, FLAC, Ogg, MP3 or M4A file with any
        codec that FFmpeg decodes.

    Yields:
      At least one block, in order. Closing the generator closes the file.

    Raises:
      AudioError: while iterating, if the file can't be read, is of another format, has
        no samples, is damaged, or is shorter than it announces.
    """
    rate, num_pending = 0, 0
    pending: list[np.ndarray] = []
    for rate, samples in _frames(path):
        pending.append(_scaled(samples))
        num_pending += samples.size
        if num_pending >= _BLOCK_SAMPLES:
            yield Block(rate, np.concatenate(pending))
            pending, num_pending = [], 0
    if not rate:
        raise AudioError(f"{path}: contains no samples; record it again.")
    if pending:
        yield Block(rate, np.concatenate(pending))


def _frames(path: str) -> Iterator[tuple[int, np.ndarray]]:
    """The rate and the samples of each decoded frame, [n > 0, channels]."""
    import av

    with _opened(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        stream = _checked_stream(file, path)
        stream.file.seek(0)
        what = stream.format.upper()
        try:
            # Through a Python file, because FFmpeg reads some names as protocols.
            with av.open(
                stream.file,
                mode="r",
                format=stream.format,
                container_options=dict(stream.options),
                metadata_errors="replace",
                buffer_size=_READ_BYTES,
            ) as container:
                audio = _audio_stream(file, container, path)
                what = f"{what}, {audio.codec_context.codec.long_name}"
                yield from _checked_frames(stream, container, audio, path)
        except (av.FFmpegError, ValueError, RuntimeError) as error:
            if isinstance(error, AudioError):
                raise
            raise AudioError(
                f"{path}: damaged or truncated, or not decodable ({what}); get the "
                "file again, or convert it to 16-bit WAV."
            ) from None
        except OSError as error:
            raise AudioError(f"{path}: can't be read ({error.strerror}).") from None
        if os.fstat(file.fileno()).st_size < num_bytes:
            raise AudioError(
                f"{path}: truncated while being read; wait until it is finished."
            )


def _checked_stream(file: BinaryIO, path: str) -> Stream:
    """What to decode, after the checks that need no decoding."""
    format_name = format_of(file, path)
    stream = Stream(Window(file, 0, os.fstat(file.fileno()).st_size), format_name)
    if stream.format == "wav":
        stream = checked_wav(file, path)
    if stream.format == "ogg":
        stream = stream._replace(end=checked_ogg(stream.file, path))
    elif stream.format == "w64":
        check_w64(file, path)
    return stream


def _opened(path: str) -> BinaryIO:
    try:
        # Checked before opening, because opening a pipe waits for a writer.
        is_local = not storage.is_remote(path)
        if is_local and not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError(f"{path}: not a file; give a sound file.")
        return storage.open_binary(path)
    except OSError as error:
        raise AudioError(f"{path}: can't be read ({error.strerror}).") from None


def _checked_frames(
    source: Stream,
    container: "av.container.InputContainer",
    stream: "av.AudioStream",
    path: str,
) -> Iterator[tuple[int, np.ndarray]]:
    file, format_name = source.file, source.format
    codec = stream.codec_context
    # Vorbis begins with a block that only serves to decode the next one, and its last
    # block is longer than the rest of the sound. Only Ogg stores where that ends.
    is_vorbis = is_priming = bool(source.end) and codec.name == "vorbis"
    if is_vorbis or codec.name == "flac":
        codec.options = _DECODER_OPTIONS[codec.name]
    announced = _announced(stream, format_name)
    signature = _Md5(stream) if format_name == "flac" else None
    samples_of = _Samples().of
    packets = Mp3Packets(file, container.size, path) if format_name == "mp3" else None
    rate = num_samples = longest = 0
    for packet in container.demux(stream):
        if packets and packet.size:
            if not packets.is_frame(packet):
                continue
        elif signature and packet.size and packet.pts != num_samples:
            # Frames are numbered. FFmpeg skips those that it doesn't find.
            raise AudioError(
                f"{path}: damaged after {num_samples:,} samples; get the file again."
            )
        for frame in packet.decode():
            if frame.sample_rate != (rate or frame.sample_rate):
                raise AudioError(
                    f"{path}: the rate changes from {rate} to {frame.sample_rate} Hz "
                    "in the middle; split the file there."
                )
            rate, samples = frame.sample_rate, samples_of(frame)
            if is_vorbis:
                left = source.end - num_samples
                samples = samples[: 0 if is_priming else max(0, left)]
                is_priming = False
            num_samples += len(samples)
            longest = max(longest, len(samples))
            if signature is not None:
                signature.update(samples)
            if len(samples):
                yield rate, samples
    if packets:
        packets.check()
    # MP4's length is in units of its own, so a part of a frame may be missing. Some
    # codecs pad their last frame.
    slack = longest if format_name == "mov" else 1
    if announced - num_samples >= slack or (signature and 0 < announced < num_samples):
        raise too_short(announced, num_samples, "samples", path)
    if signature is not None:
        signature.check(path)


def _audio_stream(
    file: BinaryIO, container: "av.container.InputContainer", path: str
) -> "av.AudioStream":
    if not container.streams.audio:
        raise AudioError(f"{path}: contains no sound.")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        name = container.format.name
        codec = codec_of(file, name)
        raise AudioError(
            f"{path}: a {name.upper()} file with {codec} can't be read; export it "
            "again as 16-bit WAV."
        )
    return stream


def _announced(stream: "av.AudioStream", format_name: str) -> int:
    """The number of samples per channel in the header; 0 if there is none."""
    if format_name not in _ANNOUNCING or not (stream.duration and stream.time_base):
        return 0
    codec = stream.codec_context
    announced = round(stream.duration * stream.time_base * codec.sample_rate)
    # An AIFF file that was written into a pipe announces the largest possible number.
    num_bytes = announced * codec.channels * (codec.format.bytes if codec.format else 1)
    is_unknown = format_name == "aiff" and num_bytes >= LEAST_UNKNOWN_LENGTH
    return 0 if is_unknown else announced


class _Md5:
    """Compares a FLAC file's samples with its MD5 signature."""

    def __init__(self, stream: "av.AudioStream") -> None:
        info = stream.codec_context.extradata or b""
        self._wanted = info[18:34]  # zeros if the encoder could not write it
        self._num_bits = (int.from_bytes(info[12:14], "big") >> 4 & 31) + 1
        self._found = hashlib.md5(usedforsecurity=False)

    def update(self, samples: np.ndarray) -> None:
        """Adds samples [n, channels] int16 or int32, with zeros in unused low bits."""
        num_bytes = -(-self._num_bits // 8)
        shifted = samples >> (8 * samples.itemsize - self._num_bits)
        raw = shifted.astype(f"<i{samples.itemsize}").view(np.uint8)
        raw = raw.reshape(-1, samples.itemsize)[:, :num_bytes]
        self._found.update(raw.tobytes())

    def check(self, path: str) -> None:
        """Raises AudioError if the samples don't match the signature."""
        if any(self._wanted) and self._found.digest() != self._wanted:
            raise AudioError(
                f"{path}: damaged: its samples don't match their MD5 checksum; "
                "get the file again."
            )


class _Samples:
    """Converts frames to arrays, in the decoder's number format."""

    def __init__(self) -> None:
        self._interleaver: av.AudioResampler | None = None

    def of(self, frame: "av.AudioFrame") -> np.ndarray:
        """The samples of a frame, [n, channels]."""
        import av

        if frame.format.is_planar:
            # PyAV counts the planes of a frame by looking for the first missing one,
            # which is beyond the list with 8 channels or more.
            if self._interleaver is None:
                self._interleaver = av.AudioResampler(
                    frame.format.name.removesuffix("p"), frame.layout, frame.sample_rate
                )
            (frame,) = self._interleaver.resample(frame)
        # Not Frame.to_ndarray, which doesn't support 64-bit integers.
        plane: Any = frame.planes[0]  # PyAV's types don't show that it is a buffer
        samples = np.frombuffer(plane, _DTYPES[frame.format.name])
        num_channels = frame.layout.nb_channels
        samples = samples[: frame.samples * num_channels]
        return samples.reshape(frame.samples, num_channels)


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Scales integers to [-1, 1) by a power of two, and copies floats unchanged."""
    if samples.dtype.kind == "f":
        return samples.copy()  # the decoder reuses its memory
    if samples.dtype == np.uint8:
        return samples / 128.0 - 1.0
    return samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
