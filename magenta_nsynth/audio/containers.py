"""Sound files on disk: formats, announced lengths, checksums.

FFmpeg decodes whatever is there. The checks here make sure that this is all of the
sound, and undamaged.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from absl import logging

from magenta_nsynth.errors import AudioError

if TYPE_CHECKING:
    import av

__all__ = [
    "LEAST_UNKNOWN_LENGTH",
    "ByteSource",
    "Mp3Packets",
    "Stream",
    "Window",
    "check_w64",
    "checked_ogg",
    "checked_wav",
    "codec_of",
    "format_of",
    "iff_chunks",
    "riff_order",
    "too_short",
]

# Programs that write into a pipe, or are interrupted while they record, leave a length
# that means "unknown": 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, or slightly less.
LEAST_UNKNOWN_LENGTH = 0x7FFF0000
# Some programs count the header as samples.
_MISCOUNTED_BYTES = 64

_W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
# The codecs with one number per sample, and its possible bits: integers, floats, A-law
# and mu-law.
_SAMPLE_BITS = {1: range(1, 65), 3: (32, 64), 6: (8,), 7: (8,)}
_MOST_CHUNKS = 1000
_MOST_HEADER_BYTES = 1024  # of a 'fmt ' chunk
_NOT_READ = {
    b"caff": "a CAF file; convert it to WAV or FLAC",
    b".snd": "an AU file; convert it to WAV or FLAC",
    b"MThd": "a MIDI file, which contains notes but no sound; render it to WAV",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"version https://git-lfs": "a Git LFS pointer instead of the sound; run 'git lfs "
    "pull'",
    b"<": "a web page or XML instead of a sound; download it again",
}
_OGG_IN_WAV = (0x674F, 0x6750, 0x6751, 0x676F, 0x6770, 0x6771)
_OGG_BEGINS, _OGG_ENDS = 2, 4  # flags of a stream's first and last page
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_LARGEST_MP3_FRAME = 2881  # bytes
_MP3_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")
# Marks, their possible offsets in a frame, and the offset of the number from the mark.
_MP3_ANNOUNCEMENTS = (
    (b"Xing", (36, 21, 13), 8),
    (b"Info", (36, 21, 13), 8),
    (b"VBRI", (36,), 14),
)
# Kilobits per second by the header's bits: for MPEG 2 and 2.5, and for MPEG 1.
_MP3_KBITS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


def format_of(file: BinaryIO, path: str) -> str:
    """Recognises a sound file's format by its first bytes.

    Returns:
      FFmpeg's name for the format.

    Raises:
      AudioError: an empty file, or a format that isn't supported.
    """
    start = file.read(64)
    if start[:3] == b"ID3" and len(start) >= 10:
        # A tag before MP3 or FLAC.
        file.seek(_id3_length(start))
        start = file.read(64)
        if start[:4] == b"RIFF":
            raise AudioError(
                f"{path}: there is a tag before the WAV header; save the file again "
                "without it."
            )
        return "flac" if start[:4] == b"fLaC" else "mp3"
    if start[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and start[8:12] == b"WAVE":
        return "wav"
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for magic, name in ((b"fLaC", "flac"), (b"OggS", "ogg"), (_W64, "w64")):
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return "mov"
    for magic, what in _NOT_READ.items():
        if start.startswith(magic):
            raise AudioError(f"{path}: {what}.")
    # An MPEG frame; or the extension is MP3's, with other bytes before the first frame.
    is_frame = len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0
    if (is_frame and start[1] & 0x06) or (start and path.lower().endswith(".mp3")):
        return "mp3"
    if not start:
        raise AudioError(f"{path}: the file is empty (0 bytes).")
    raise AudioError(
        f"{path}: not a sound file of a known format (it starts with {start[:4]!r}); "
        "convert it to WAV or FLAC."
    )


def _id3_length(tag: bytes) -> int:
    """The size of an ID3v2 tag, whose length has 7 bits per byte."""
    length = 0
    for byte in tag[6:10]:
        length = length << 7 | byte & 127
    return 10 + length


class Window:
    """A part of a file, with a header before it, as a file of its own.

    Attributes:
      header: the bytes before the part.
    """

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self.header = b""
        self._file, self._start, self._length = file, start, length
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Reads up to `size` bytes: of the header or of the part, never of both."""
        data = self.header[self._position :][:size]
        offset = self._position - len(self.header)
        if offset >= 0 and (wanted := min(size, self._length - offset)) > 0:
            self._file.seek(self._start + offset)
            data = self._file.read(wanted)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves anywhere, even beyond the end, as FFmpeg does in damaged files."""
        base = (0, self._position, len(self.header) + self._length)[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position


ByteSource = BinaryIO | Window


class Stream(NamedTuple):
    """What FFmpeg has to decode.

    Attributes:
      file: the bytes.
      format: FFmpeg's name for their format.
      options: FFmpeg's options for the format.
      end: for Vorbis in Ogg, the number of samples per channel.
    """

    file: ByteSource
    format: str
    options: Mapping[str, str] = MappingProxyType({})
    end: int = 0


def iff_chunks(file: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a WAV or AIFF file.

    They end where something can't be a chunk: after a wrong length the next chunk can't
    be found. The length of the whole file in its header is ignored, as it is often
    wrong.

    Args:
      file: the file. The caller may read and seek between chunks.
      order: the byte order of the lengths, "<" or ">".

    Yields:
      The chunk's name, the position of its content, and its length from the header.
    """
    num_bytes = os.fstat(file.fileno()).st_size
    long_length, position = 0, 12
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if not _may_be_chunk(header):
            return
        name, length = struct.unpack(f"{order}4sI", header)
        start = position + 8
        if name == b"ds64":  # RF64's lengths above 4 GB
            long_length = int.from_bytes(file.read(16)[8:], "little")
        if name == b"data" and length == 0xFFFFFFFF and long_length:
            length = long_length
        file.seek(start)
        yield name, start, length
        position = start + length
        if position >= num_bytes:
            return
        if length % 2:
            # A zero byte of padding, which some programs forget.
            file.seek(position)
            position += not _may_be_chunk(file.read(8))


def _may_be_chunk(header: bytes) -> bool:
    return len(header) == 8 and all(0x20 <= byte <= 0x7E for byte in header[:4])


def riff_order(file: BinaryIO) -> str:
    """The byte order of a RIFF file in `struct`'s notation: "<" or ">"."""
    file.seek(0)
    return ">" if file.read(4) == b"RIFX" else "<"


def checked_wav(file: BinaryIO, path: str) -> Stream:
    """Checks a WAV file's header against itself and the length of the file.

    Returns:
      What FFmpeg has to decode: the samples without the other chunks, because FFmpeg
      fails on some of them.

    Raises:
      AudioError: the header contradicts itself, or the file is truncated.
    """
    order, header = riff_order(file), b""
    for name, start, length in iff_chunks(file, order):
        if name == b"fmt ":
            header = file.read(min(length, _MOST_HEADER_BYTES))
        elif name == b"data":
            fields = _parse_header(header, order, path)
            num_bytes = _data_length(file, start, length, order, path)
            if num_bytes < fields.num_channels * fields.num_bits // 8:
                raise _empty(path)
            samples = Window(file, start, num_bytes)
            return _wav_stream(samples, order, header, fields)
    raise AudioError(
        f"{path}: truncated: it ends before its samples; get the whole file."
    )


def _empty(path: str) -> AudioError:
    return AudioError(f"{path}: contains no samples; record it again.")


class _Fields(NamedTuple):
    codec: int
    num_channels: int
    rate: int
    num_bits: int


def _parse_header(header: bytes, order: str, path: str) -> _Fields:
    """Parses a 'fmt ' chunk, and refuses one that contradicts itself."""
    if len(header) < 16:
        raise AudioError(f"{path}: no whole 'fmt ' chunk; export it again as WAV.")
    codec, num_channels, rate, _, frame_bytes, num_bits = struct.unpack_from(
        f"{order}HHIIHH", header
    )
    if codec == 0xFFFE and len(header) >= 26:  # the real number is further on
        (codec,) = struct.unpack_from(f"{order}H", header, 24)
    # Some programs write 0 for the bytes of a frame, which contradicts nothing.
    expected = num_channels * -(-num_bits // 8)
    if codec in _SAMPLE_BITS and (not expected or frame_bytes not in (0, expected)):
        raise AudioError(
            f"{path}: its header contradicts itself: {num_channels} channels of "
            f"{num_bits}-bit samples in {frame_bytes} bytes; export it again as 16-bit "
            "WAV."
        )
    if codec in _SAMPLE_BITS and num_bits not in _SAMPLE_BITS[codec]:
        raise AudioError(
            f"{path}: {num_bits}-bit samples of codec 0x{codec:04x} can't be read; "
            "export it again as 16-bit WAV."
        )
    if not rate:
        raise AudioError(f"{path}: its rate is 0 Hz; export it again.")
    return _Fields(codec, num_channels, rate, num_bits)


def _wav_stream(samples: Window, order: str, header: bytes, fields: _Fields) -> Stream:
    if fields.codec in _OGG_IN_WAV:
        return Stream(samples, "ogg")
    if order == ">" and fields.codec in (1, 3):
        # FFmpeg reads the samples of RIFX files as little-endian.
        num_bits = -(-fields.num_bits // 8) * 8
        name = f"{'f' if fields.codec == 3 else 's'}{num_bits}be"
        options = {
            "sample_rate": str(fields.rate),
            "ch_layout": f"{fields.num_channels}C",
        }
        return Stream(samples, name if num_bits > 8 else "u8", options)
    # To FFmpeg a length of 0xFFFFFFFF means "up to the end".
    length = struct.pack(f"{order}I", min(samples.seek(0, os.SEEK_END), 0xFFFFFFFF))
    header = struct.pack(f"{order}I", len(header)) + header + b"\0" * (len(header) % 2)
    magic = b"RIFX" if order == ">" else b"RIFF"
    samples.header = magic + length + b"WAVEfmt " + header + b"data" + length
    return Stream(samples, "wav")


def _data_length(file: BinaryIO, start: int, length: int, order: str, path: str) -> int:
    """The bytes of samples in a WAV file, whatever its header announces."""
    available = os.fstat(file.fileno()).st_size - start
    if not length and _only_chunks(file, order):
        raise _empty(path)
    missing = length - available
    is_unknown = not length or length >= LEAST_UNKNOWN_LENGTH
    if not is_unknown and missing > _MISCOUNTED_BYTES:
        raise AudioError(
            f"{path}: truncated: {length} bytes of samples are announced, but only "
            f"{available} are present; get the whole file."
        )
    if length and missing <= 0:
        return length
    logging.warning(
        "%s: its header announces %d bytes of samples; the %d up to its end are read.",
        *(path, length, available),
    )
    return available


def _only_chunks(file: BinaryIO, order: str) -> bool:
    """Whether nothing but whole chunks follows, and so no samples."""
    end = os.fstat(file.fileno()).st_size
    while len(header := file.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", header)
        if not name.isascii() or file.seek(length + length % 2, 1) > end + 1:
            return False
    return not header


def codec_of(file: BinaryIO, format_name: str) -> str:
    """Describes the codec and the sample size in a WAV or AIFF file's header."""
    if format_name == "aiff":
        for name, *_ in iff_chunks(file, ">"):
            if name == b"COMM":
                num_bits, codec = struct.unpack(">6xH10x4s", file.read(22).ljust(22))
                return f"codec {codec.decode('ascii', 'replace')!r}, {num_bits}-bit"
    elif format_name == "wav":
        order = riff_order(file)
        for name, *_ in iff_chunks(file, order):
            if name == b"fmt ":
                fields = struct.unpack(f"{order}H12xH", file.read(16))
                return f"codec 0x{fields[0]:04x}, {fields[1]}-bit"
    return "an unknown codec"


def check_w64(file: BinaryIO, path: str) -> None:
    """Checks the length that a Sony Wave64 file announces.

    Raises:
      AudioError: the file is truncated.
    """
    num_bytes, start = os.fstat(file.fileno()).st_size, 40
    while start + 24 <= num_bytes:
        file.seek(start)
        name, length = struct.unpack("<4s12xQ", file.read(24))
        if name == b"data" or length < 24:
            missing = start + length - num_bytes
            if missing > 0 and length < LEAST_UNKNOWN_LENGTH:
                raise AudioError(
                    f"{path}: truncated: the last {missing} bytes are missing; get the "
                    "whole file."
                )
            return
        start += -(-length // 8) * 8


def checked_ogg(file: ByteSource, path: str) -> int:
    """Checks the checksum and the number of every page of an Ogg file.

    Returns:
      The number of samples per channel at the end of the last Vorbis page; 0 without
      Vorbis.

    Raises:
      AudioError: a page is damaged or missing.
    """
    file.seek(0)
    numbers: dict[bytes, int] = {}  # the last page's number for each stream
    ended: set[bytes] = set()
    vorbis = None  # the first Vorbis stream
    offset = position = 0
    while page := _ogg_page(file):
        if not _is_whole_page(page):
            raise AudioError(
                f"{path}: damaged or truncated at byte {offset:,}; get the whole file."
            )
        flags, end, stream, number = struct.unpack_from("<Bq4sI", page, 5)
        if flags & _OGG_BEGINS and vorbis is None and b"\x01vorbis" in page[:64]:
            vorbis = stream
        if stream == vorbis:
            position = max(position, end)
        if ended and flags & _OGG_BEGINS:
            raise AudioError(
                f"{path}: several Ogg files in one; the second begins at byte "
                f"{offset:,}. Convert them to one stream, or to WAV."
            )
        if number != numbers.get(stream, number - 1) + 1:
            raise AudioError(
                f"{path}: damaged: a part is missing at byte {offset:,}; "
                "get the whole file."
            )
        numbers[stream] = number
        if flags & _OGG_ENDS:
            ended.add(stream)
        offset += len(page)
    if ended != set(numbers):
        raise AudioError(
            f"{path}: truncated: the last page is missing; get the whole file."
        )
    return position


def _ogg_page(file: ByteSource) -> bytes:
    """The next page, or as much of it as there is; b"" at the end of the file."""
    head = file.read(27)
    if len(head) < 27 or not head.startswith(b"OggS"):
        return head
    sizes = file.read(head[26])
    return head + sizes + file.read(sum(sizes))


def _is_whole_page(page: bytes) -> bool:
    if len(page) < 27 or not page.startswith(b"OggS"):
        return False
    sizes = page[27 : 27 + page[26]]
    if len(page) != 27 + page[26] + sum(sizes):
        return False
    # Ogg's CRC-32 takes the bits of each byte in the opposite order to zlib's, and
    # does not invert at the start and the end.
    content = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(content.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")


class Mp3Packets:
    """The packets from FFmpeg's MP3 parser: frames, or bytes between frames."""

    def __init__(self, file: ByteSource, num_bytes: int, path: str) -> None:
        """Takes the packets of `file`, of `num_bytes` bytes, at `path`."""
        self._file, self._num_bytes, self._path = file, num_bytes, path
        self._num_frames = self._announced = 0
        self._tag_end, self._is_after_tag = 0, False

    def is_frame(self, packet: "av.Packet") -> bool:
        """Whether a packet is a frame, rather than a tag or padding.

        Raises:
          AudioError: the frame is truncated, or the bytes are damage.
        """
        data, position = bytes(packet), packet.pos
        assert position is not None, "FFmpeg's parser knows where a packet is"
        if position < self._tag_end:
            return False
        if data[0] == 0xFF and data[1:2] >= b"\xe0":
            if len(data) < max(4, _mp3_frame_length(data)):
                raise AudioError(
                    f"{self._path}: damaged or truncated: the frame at byte "
                    f"{position:,} is not whole; get the whole file."
                )
            self._num_frames += 1
            if self._num_frames == 1:
                self._announced = _announced_frames(self._file, position)
            self._is_after_tag = False
            return True
        rest = data.lstrip(b"\0")
        if rest.startswith(_MP3_TAGS):
            self._is_after_tag = True
        if self._is_after_tag and (start := data.find(b"ID3")) >= 0:
            self._tag_end = position + start + _id3_length(data[start:])
        is_at_end = position + packet.size >= self._num_bytes
        is_harmless = (
            not self._num_frames  # before the first frame
            # A picture in a tag may look like a frame that ends after the tag.
            or self._is_after_tag
            or (is_at_end and len(rest) < 4)
        )
        if not is_harmless:
            raise AudioError(
                f"{self._path}: damaged: {len(data):,} bytes at byte {position:,} are "
                "not an MP3 frame; get the file again."
            )
        return False

    def check(self) -> None:
        """Raises AudioError after the last packet, if frames are missing."""
        # Some encoders also count the frame with the announcement.
        if self._num_frames < self._announced - 1:
            raise too_short(self._announced, self._num_frames, "frames", self._path)


def _announced_frames(file: ByteSource, first_frame: int) -> int:
    """The number of frames that an MP3 file announces; 0 if it doesn't.

    The announcement is in a silent frame before the first frame of sound, which begins
    at byte `first_frame`. The file's position does not change.
    """
    position = file.tell()
    file.seek(max(0, first_frame - _LARGEST_MP3_FRAME))
    before = file.read(min(first_frame, _LARGEST_MP3_FRAME))
    file.seek(position)
    for mark, distances, offset in _MP3_ANNOUNCEMENTS:
        for distance in distances:
            # A tag may contain the mark too. The announcement's mark is at its place in
            # a frame that ends where the next one begins.
            at = before.find(mark)
            while at >= 0:
                frame = before[max(0, at - distance) :]
                if at >= distance and len(frame) == _mp3_frame_length(frame):
                    flags = before[at + 7 : at + 8]
                    if mark != b"VBRI" and not (flags and flags[0] & 1):
                        return 0
                    number = before[at + offset : at + offset + 4]
                    return int.from_bytes(number, "big")
                at = before.find(mark, at + 1)
    return 0


def _mp3_frame_length(header: bytes) -> int:
    """The size of a layer 3 frame in bytes; 0 for other layers or if unknown."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if layer != 1 or version == 1 or rate == 3 or bit_rate in (0, 15):
        return 0
    kbits = _MP3_KBITS[version == 3][bit_rate]
    hertz = (44_100, 48_000, 32_000)[rate] >> (3 - version if version else 2)
    return (144 if version == 3 else 72) * 1000 * kbits // hertz + (header[2] >> 1 & 1)


def too_short(announced: int, found: int, what: str, path: str) -> AudioError:
    """The error for a file with fewer samples or frames than it announces."""
    return AudioError(
        f"{path}: damaged or truncated: {announced:,} {what} are announced, but "
        f"{found:,} are present; get the whole file."
    )
