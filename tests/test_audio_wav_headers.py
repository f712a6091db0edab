"""WAV headers of any kind: soundfile's samples, or one error."""

import struct

import hypothesis
import numpy as np
import pytest
import soundfile
from hypothesis import strategies

from magenta_nsynth.audio.decoding import decode
from magenta_nsynth.errors import AudioError

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
SAMPLES = np.random.default_rng(0).integers(0, 256, 960, np.uint8).tobytes()
# Floats of random bytes are not numbers: these are.
FLOATS = np.random.default_rng(0).uniform(-1, 1, 240).astype("<f4").tobytes()


@strategies.composite
def headers(draw):
    """The fields of a WAV file, most of them consistent."""
    one_of, integers = strategies.sampled_from, strategies.integers
    bits = draw(one_of([8, 16, 24, 32, 64, 12, 20, 1, 0, 33]))
    channels = draw(one_of([1, 2, 3, 6, 0]))
    frame = channels * -(-bits // 8)
    return {
        "magic": draw(one_of([b"RIFF", b"RIFF", b"RIFX", b"RF64"])),
        "codec": draw(one_of([1, 1, 1, 3, 6, 7, 2, 17, 0x55, 0x1234])),
        "channels": channels,
        "rate": draw(one_of([16_000, 44_100, 1, 0, 2**32 - 1])),
        "byte_rate": draw(one_of([None, 0, 1])),
        "frame": draw(
            one_of([frame, frame, frame, 0, 4, 8, 1]) | integers(0, 2**16 - 1)
        ),
        "bits": bits,
        "extensible": draw(strategies.booleans()),
        "length": draw(
            one_of([960, 960, 0, 959, 961, 996, 2**31 - 1, 2**32 - 1, 5000])
        ),
        "before": draw(one_of([b"", b"LIST\4\0\0\0abcd", b"cue \1\0\0\0\0\0"])),
        "after": draw(one_of([b"", b"LIST\4\0\0\0abcd", b"jun"])),
        "cut": draw(one_of([0, 0, 0, 0, 1, 10, 500, 990])),
    }


def content_of(fields):
    order = ">" if fields["magic"] == b"RIFX" else "<"
    byte_rate = fields["byte_rate"]
    if byte_rate is None:
        byte_rate = fields["rate"] * fields["frame"] % 2**32
    codec = 0xFFFE if fields["extensible"] else fields["codec"]
    fmt = struct.pack(
        f"{order}HHIIHH",
        *(codec, fields["channels"], fields["rate"], byte_rate),
        *(fields["frame"], fields["bits"]),
    )
    if fields["extensible"]:
        fmt += struct.pack(f"{order}HHIH", 22, fields["bits"], 0, fields["codec"])
        fmt += GUID_TAIL
    data = FLOATS if fields["codec"] == 3 else SAMPLES
    chunks = b"WAVE" + fields["before"]
    chunks += b"fmt " + struct.pack(f"{order}I", len(fmt)) + fmt
    chunks += b"data" + struct.pack(f"{order}I", fields["length"]) + data
    chunks += fields["after"]
    content = fields["magic"] + struct.pack(f"{order}I", len(chunks)) + chunks
    return content[: len(content) - fields["cut"]]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("headers") / "a.wav"


@hypothesis.settings(max_examples=500, deadline=None, derandomize=True)
@hypothesis.given(fields=headers())
def test_soundfiles_samples_or_one_error(path, fields):
    path.write_bytes(content_of(fields))
    try:
        samples = np.concatenate([block.samples for block in decode(str(path))])
    except AudioError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        return
    try:
        expected = soundfile.read(path, always_2d=True)[0]
    except soundfile.SoundFileError:
        return
    # A length of 0 is one that its writer did not know: here they differ.
    if fields["length"]:
        assert len(samples) == len(expected)
    tolerance = 3e-3 if fields["codec"] in (2, 17) else 0
    difference = samples[: len(expected)] - expected[: len(samples)]
    assert np.abs(difference).max(initial=0) <= tolerance
