"""The unity note of WAV and AIFF files, damaged ones too."""

import struct

import hypothesis
import hypothesis.strategies as st
import pytest

from magenta_nsynth.audio.unity_note import unity_note

FMT = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)


def chunk(name, content, order="<", length=None, pad=b"\0"):
    head = struct.pack(f"{order}4sI", name, len(content) if length is None else length)
    return head + content + pad * (len(content) % 2)


def smpl(note, order="<"):
    return chunk(
        b"smpl", struct.pack(f"{order}9I", 0, 0, 62_500, note, *[0] * 5), order
    )


def wav(*chunks, magic=b"RIFF"):
    content = b"WAVE" + chunk(b"fmt ", FMT) + b"".join(chunks)
    return magic + struct.pack("<I", len(content)) + content


SAMPLES = bytes(range(1, 100)) * 4
DATA = chunk(b"data", SAMPLES)
DS64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(SAMPLES), 0, 0))
INST = struct.pack(">BbBBBBhhHHhHH", 67, 0, 0, 127, 1, 127, *[0] * 7)


def aiff(kind, note=INST):
    comm = chunk(b"COMM", bytes(18), ">") + chunk(b"SSND", bytes(8) + SAMPLES, ">")
    return b"FORM" + bytes(4) + kind + comm + chunk(b"INST", note, ">")


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (wav(DATA, smpl(67)), 67),
        (wav(smpl(0), DATA), 0),
        (wav(DATA, smpl(127)), 127),
        (wav(DATA, smpl(128)), -1),
        (wav(DATA, smpl(2**32 - 1)), -1),
        (wav(DATA), -1),
        # Odd chunks, with the byte of padding and without; one of text.
        (wav(chunk(b"data", SAMPLES[:33]), smpl(67)), 67),
        (wav(chunk(b"data", SAMPLES[:33], pad=b""), smpl(67)), 67),
        (wav(chunk(b"LIST", b"INFOISFT\x03\0\0\0abc\0"), DATA, smpl(67)), 67),
        # RF64, and RIFX.
        (wav(DS64, chunk(b"data", SAMPLES, length=2**32 - 1), smpl(67), magic=b"RF64"),
         67),
        (b"RIFX" + bytes(4) + b"WAVE" + chunk(b"data", SAMPLES, ">") + smpl(67, ">"),
         67),
        # Lengths that aren't true: what follows can't be found.
        (wav(chunk(b"data", SAMPLES, length=2**32 - 1), smpl(67)), -1),
        (wav(chunk(b"data", SAMPLES, length=2**31), smpl(67)), -1),
        (wav(chunk(b"data", SAMPLES, length=0), smpl(67)), -1),
        (wav(chunk(b"data", bytes(4000), length=0), smpl(67)), -1),
        (wav(DATA, smpl(67)[:20]), -1),
        (wav(DATA, chunk(b"smpl", bytes(12)), smpl(67)), -1),
        (wav(*[chunk(b"junk", b"")] * 5000, smpl(67)), -1),
        (aiff(b"AIFF"), 67),
        (aiff(b"AIFC"), 67),
        (aiff(b"AIFF", b"\xff"), -1),
        (aiff(b"AIFF", b""), -1),
        (b"", -1),
        (b"RIFF", -1),
        (b"fLaC" + bytes(100), -1),
    ],
)  # fmt: skip
def test_unity_note(tmp_path, content, note):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    assert unity_note(path) == note


def test_no_file(tmp_path):
    assert unity_note(tmp_path) == unity_note(tmp_path / "nowhere.wav") == -1


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.data())
def test_damage_never_raises(tmp_path_factory, data):
    whole = data.draw(st.sampled_from([wav(DATA, smpl(67)), aiff(b"AIFF"), wav(DS64)]))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(90, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.wav"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert -1 <= unity_note(path) <= 127
