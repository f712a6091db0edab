"""Decoding sound files of every kind, block by block, by PyAV's FFmpeg.

FFmpeg forgives damage and takes what ends early for whole. So what a file says of
itself, lengths and checksums, is compared with what comes out.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

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
    mp3_num_frames,
)
from magenta_nsynth.errors import AudioError

if TYPE_CHECKING:
    import av

__all__ = ["AUDIO_EXTENSIONS", "Block", "decode"]

# Extensions that mark a file as a sound; its first bytes say of which format it is.
AUDIO_EXTENSIONS = (
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".flac", ".ogg",
    ".oga", ".opus", ".mp3", ".m4a",
)  # fmt: skip

# Samples per block, all channels together: enough that Python's own time does not
# count, few enough that a block's copies are a few MB.
_BLOCK_SAMPLES = 2**18
_READ_BYTES = 2**18  # at a time, from the file
# FFmpeg compares the checksums of FLAC frames only if it is told to, and cuts Vorbis
# a block too early or too late.
_DECODER_OPTIONS = {
    "flac": {"err_detect": "crccheck+bitstream+buffer+explode"},
    "vorbis": {"flags2": "+skip_manual"},
}
# Formats whose headers announce a number of samples.
_ANNOUNCING = ("aiff", "flac", "mov")
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


class Block(NamedTuple):
    """Some samples of a sound file.

    Attributes:
      rate: samples per second, above 0; the same in all blocks of a file.
      samples: [n, channels] float32 or float64, n > 0; in [-1, 1] if the file is not
        floating point.
    """

    rate: int
    samples: np.ndarray


def decode(path: str) -> Iterator[Block]:
    """Decodes a sound file. Its content says of which format it is, not its name.

    Args:
      path: a WAV (RIFF, RIFX, RF64, W64), AIFF, FLAC, Ogg, MP3 or M4A file
        with any codec that FFmpeg decodes.

    Yields:
      The blocks, in order; at least one. The file is closed with the iterator.

    Raises:
      AudioError: while iterating. The file can't be read, is of another format, has no
        samples, is damaged, or ends before what it announces.
    """
    rate, pending, num_pending = 0, [], 0
    for rate, samples in _frames(path):
        pending.append(_scaled(samples))
        num_pending += samples.size
        if num_pending >= _BLOCK_SAMPLES:
            yield Block(rate, np.concatenate(pending))
            pending, num_pending = [], 0
    if not rate:
        raise AudioError(f"{path}: there are no samples in it; record it again.")
    if pending:
        yield Block(rate, np.concatenate(pending))


def _frames(path: str) -> Iterator[tuple[int, np.ndarray]]:
    """The rate and samples of each frame that a decoder returns, [n > 0, channels]."""
    import av

    with _opened(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        stream = _checked_stream(file, path)
        stream.file.seek(0)
        what = stream.format.upper()
        try:
            # Through a Python file: FFmpeg takes some names for protocols.
            with av.open(
                stream.file,
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
                f"{path}: damaged or truncated, or of a kind that can't be decoded "
                f"({what}); get the file again, or convert it to 16-bit WAV."
            ) from error
        except OSError as error:
            raise AudioError(f"{path}: can't be read ({error.strerror}).") from error
        if os.fstat(file.fileno()).st_size < num_bytes:
            raise AudioError(
                f"{path}: truncated while it was read; wait until it is finished."
            )


def _checked_stream(file: BinaryIO, path: str) -> Stream:
    """What there is to decode, after all checks that can be made before."""
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
        # A folder or a pipe is refused unopened: opening a pipe waits for a writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError(f"{path}: not a file; give a sound file.")
        return open(path, "rb")
    except OSError as error:
        raise AudioError(f"{path}: can't be read ({error.strerror}).") from error


def _checked_frames(
    source: Stream,
    container: "av.container.InputContainer",
    stream: "av.AudioStream",
    path: str,
) -> Iterator[tuple[int, np.ndarray]]:
    file, format_name = source.file, source.format
    codec = stream.codec_context
    # Vorbis begins with a block that only the next one needs, and its last is longer
    # than what is left of the sound. Where that ends, only Ogg says.
    is_vorbis = is_priming = bool(source.end) and codec.name == "vorbis"
    if is_vorbis or codec.name == "flac":
        codec.options = _DECODER_OPTIONS[codec.name]
    announced = _announced(stream, format_name)
    signature = _Md5(stream) if format_name == "flac" else None
    samples_of = _Samples().of
    packets = Mp3Packets(container.size, path) if format_name == "mp3" else None
    rate = num_samples = longest = announced_frames = 0
    for packet in container.demux(stream):
        if packets and packet.size:
            if not packets.is_frame(packet):
                continue
            if packets.num_frames == 1:
                announced_frames = mp3_num_frames(file, packet.pos)
        elif signature and packet.size and packet.pts != num_samples:
            # Frames are numbered; those that FFmpeg could not find are left out.
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
    # Some encoders count the frame that announces the others.
    if packets and packets.num_frames < announced_frames - 1:
        raise _too_short(announced_frames, packets.num_frames, "frames", path)
    # Some codecs fill up their last frame. MP4 has its length in units of its own, so
    # that a part of a frame is nothing.
    slack = longest if format_name == "mov" else 1
    if announced - num_samples >= slack or (signature and 0 < announced < num_samples):
        raise _too_short(announced, num_samples, "samples", path)
    if signature is not None:
        signature.check(path)


def _audio_stream(
    file: BinaryIO, container: "av.container.InputContainer", path: str
) -> "av.AudioStream":
    if not container.streams.audio:
        raise AudioError(f"{path}: there is no sound in it.")
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
    """The samples per channel that the header announces; 0 if it does not."""
    if format_name not in _ANNOUNCING or stream.duration is None:
        return 0
    codec = stream.codec_context
    announced = round(stream.duration * stream.time_base * codec.sample_rate)
    # An AIFF file that was written into a pipe announces as much as its numbers hold.
    num_bytes = announced * codec.channels * (codec.format.bytes if codec.format else 1)
    is_unknown = format_name == "aiff" and num_bytes >= LEAST_UNKNOWN_LENGTH
    return 0 if is_unknown else announced


def _too_short(announced: int, found: int, what: str, path: str) -> AudioError:
    return AudioError(
        f"{path}: damaged or truncated: {announced:,} {what} are announced, {found:,} "
        "are there; get the whole file."
    )


class _Md5:
    """The MD5 signature that a FLAC file has of its samples."""

    def __init__(self, stream: "av.AudioStream") -> None:
        info = stream.codec_context.extradata or b""
        self._wanted = info[18:34]  # zeros where the encoder could not write it
        self._num_bits = (int.from_bytes(info[12:14], "big") >> 4 & 31) + 1
        self._found = hashlib.md5(usedforsecurity=False)

    def update(self, samples: np.ndarray) -> None:
        """Takes in [n, channels] int16 or int32, which have their zeros below."""
        num_bytes = -(-self._num_bits // 8)
        shifted = samples >> (8 * samples.itemsize - self._num_bits)
        raw = shifted.astype(f"<i{samples.itemsize}").view(np.uint8)
        raw = raw.reshape(-1, samples.itemsize)[:, :num_bytes]
        self._found.update(np.ascontiguousarray(raw))

    def check(self, path: str) -> None:
        """Raises AudioError if the samples are others than those encoded."""
        if any(self._wanted) and self._found.digest() != self._wanted:
            raise AudioError(
                f"{path}: damaged: its samples don't match their MD5 checksum; "
                "get the file again."
            )


class _Samples:
    """Frames as arrays, in the decoder's number format."""

    def __init__(self) -> None:
        self._interleaver: av.AudioResampler | None = None

    def of(self, frame: "av.AudioFrame") -> np.ndarray:
        """The samples of a frame, [n, channels]."""
        import av

        if frame.format.is_planar:
            # PyAV counts the planes of a frame by looking for the first that is not
            # there, which from 8 channels on lies behind the list.
            if self._interleaver is None:
                self._interleaver = av.AudioResampler(
                    frame.format.name.removesuffix("p"), frame.layout, frame.sample_rate
                )
            (frame,) = self._interleaver.resample(frame)
        # Not Frame.to_ndarray, which does not know 64-bit integers.
        samples = np.frombuffer(frame.planes[0], _DTYPES[frame.format.name])
        num_channels = frame.layout.nb_channels
        samples = samples[: frame.samples * num_channels]
        return samples.reshape(frame.samples, num_channels)


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Integers divided by the power of two that is their full range; floats as is."""
    if samples.dtype.kind == "f":
        return samples.copy()  # the decoder takes its memory back
    if samples.dtype == np.uint8:
        return samples / 128.0 - 1.0
    return samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
