"""Small TFRecord files, and damage to them. A note's samples say which note it is."""

import gzip

import numpy as np
import tensorflow as tf

from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.schema import FAMILIES, QUALITIES, SOURCES, Note

FIRST_GROUP = (
    "note_str",
    "pitch",
    "velocity",
    "audio",
    "qualities",
    "instrument_source",
    "instrument_family",
)


def audio(number, length):
    """[length] float32, exact: sample k of note i is i * 1000 + k, over 2 ** 20."""
    return ((number * 1000 + np.arange(length)) / 2**20).astype(np.float32)


def number_and_start(crops):
    """Of crops made by `audio`: the numbers of their notes, and where they begin.

    Holds that each is one unbroken piece of a note.
    """
    whole = np.asarray(crops, np.float64) * 2**20
    assert np.all(np.diff(whole, axis=-1) == 1)
    first = whole[..., 0].astype(int)
    return first // 1000, first % 1000


def note(number, length=300, **fields):
    family, source = number % len(FAMILIES), number % len(SOURCES)
    pitch, velocity = number % 128, (25, 50, 75, 100, 127)[number % 5]
    name = f"{FAMILIES[family]}_{SOURCES[source]}_{number:03d}"
    values = {
        "note_str": f"{name}-{pitch:03d}-{velocity:03d}",
        "audio": audio(number, length),
        "pitch": pitch,
        "velocity": velocity,
        "instrument_str": name,
        "instrument_family": family,
        "instrument_source": source,
        "qualities": tuple((number >> k) & 1 for k in range(len(QUALITIES))),
        "note": number,
    }
    return Note(**{**values, **fields})


def examples(numbers, **fields):
    return [note_to_example(note(number, **fields)) for number in numbers]


def without(serialized, *names):
    """The record without some features."""
    example = tf.train.Example.FromString(serialized)
    for name in names:
        del example.features.feature[name]
    return example.SerializeToString()


def first_group(serialized):
    example = tf.train.Example.FromString(serialized)
    return without(serialized, *(set(example.features.feature) - set(FIRST_GROUP)))


def write(path, records, packed=False):
    """A TFRecord file, written by TensorFlow; its path as text."""
    with tf.io.TFRecordWriter(str(path), "GZIP" if packed else "") as writer:
        for record in records:
            writer.write(record)
    return str(path)


def starts(records):
    """The byte at which each record begins in a file of these, and the file's end."""
    return np.cumsum([0] + [len(record) + 16 for record in records]).tolist()


def change(path, function):
    """Rewrites a file's content, in a GZIP file the unpacked one."""
    with open(path, "rb") as file:
        content = file.read()
    packed = content.startswith(b"\x1f\x8b")
    content = bytearray(gzip.decompress(content) if packed else content)
    content = bytes(function(content) or content)
    with open(path, "wb") as file:
        file.write(gzip.compress(content) if packed else content)


def flip(path, at):
    """Turns one bit of the byte at `at`."""

    def turn(content):
        content[at] ^= 1

    change(path, turn)


def example(**features):
    """A tf.Example of any features: arrays of floats or integers, bytes, or a number.

    "__" in a name stands for "/".
    """
    result = tf.train.Example()
    for name, value in features.items():
        feature = result.features.feature[name.replace("__", "/")]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif np.asarray(value).dtype.kind == "f":
            feature.float_list.value.extend(np.ravel(value))
        else:
            feature.int64_list.value.extend(np.ravel(value).tolist())
    return result.SerializeToString()


def masked_crc(data):
    """The checksum of TFRecords: CRC-32C, rotated and with a number added."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def header(size):
    """A record's first twelve bytes: its length, and the length's right checksum."""
    length = size.to_bytes(8, "little")
    return length + masked_crc(length)
