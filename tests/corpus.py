"""Sound files of many formats, each with the samples that are in it.

soundfile writes and reads most of them; what it can't write lies in tests/data/audio.
"""

import io
import pathlib
import struct
from typing import NamedTuple

import numpy as np
import soundfile

DATA = pathlib.Path(__file__).parent / "data" / "audio"
LOSSY = ("cbr.mp3", "vbr.mp3", "vbr_without_xing.mp3", "tagged.mp3", "mp3_in.wav")
LOSSY += ("aac.m4a", "opusenc.opus", "oggenc.oga")

# name: container and subtype as soundfile calls them, extension
WRITTEN = {
    "wav_u8": ("WAV", "PCM_U8", ".wav"),
    "wav_16": ("WAV", "PCM_16", ".WAV"),
    "wav_24": ("WAV", "PCM_24", ".wave"),
    "wav_32": ("WAV", "PCM_32", ".wav"),
    "wav_float": ("WAV", "FLOAT", ".wav"),
    "wav_double": ("WAV", "DOUBLE", ".wav"),
    "wav_mu_law": ("WAV", "ULAW", ".wav"),
    "wav_a_law": ("WAV", "ALAW", ".wav"),
    "wav_ms_adpcm": ("WAV", "MS_ADPCM", ".wav"),
    "wav_ima_adpcm": ("WAV", "IMA_ADPCM", ".wav"),
    "wavex_24": ("WAVEX", "PCM_24", ".wav"),
    "rf64_16": ("RF64", "PCM_16", ".rf64"),
    "w64_16": ("W64", "PCM_16", ".w64"),
    "w64_float": ("W64", "FLOAT", ".w64"),
    "aiff_8": ("AIFF", "PCM_S8", ".aiff"),
    "aiff_16": ("AIFF", "PCM_16", ".aif"),
    "aiff_24": ("AIFF", "PCM_24", ".aiff"),
    "aiff_float": ("AIFF", "FLOAT", ".aifc"),
    "flac_8": ("FLAC", "PCM_S8", ".flac"),
    "flac_16": ("FLAC", "PCM_16", ".flac"),
    "flac_24": ("FLAC", "PCM_24", ".flac"),
    "vorbis": ("OGG", "VORBIS", ".ogg"),
    "opus": ("OGG", "OPUS", ".opus"),
    "mp3": ("MP3", "MPEG_LAYER_III", ".mp3"),
}
SHAPES = ((8_000, 1), (16_000, 1), (44_100, 2), (48_000, 6))  # rates and channels
FOR_MP3 = ((16_000, 1), (44_100, 2))
FOR_OPUS = ((48_000, 1), (48_000, 2))  # libsndfile gives others another rate
SECONDS = 0.15
# Of the largest sample. MS ADPCM leaves rounding open.
ERRORS = {"VORBIS": 1e-4, "OPUS": 1e-4, "MPEG_LAYER_III": 1e-4, "MS_ADPCM": 3e-3}
FLAC_BITS = {"bits12.flac": 12, "bits20.flac": 20, "bits32.flac": 32, "stream.flac": 16}


class Case(NamedTuple):
    path: pathlib.Path
    rate: int
    samples: np.ndarray  # [n] float64, as another decoder reads them, channels averaged
    error: float  # that decoders may differ by
    step: int = 1  # of `samples`: every so many


def note(rate: int, num_channels: int, seconds: float = SECONDS) -> np.ndarray:
    """A decaying tone in each channel, [n, channels]."""
    time = np.arange(round(rate * seconds))[:, None] / rate
    pitches = 220 * (1 + np.arange(num_channels))
    return 0.5 * np.sin(2 * np.pi * pitches * time) * np.exp(-5 * time)


def source() -> np.ndarray:
    """The sound of the files in tests/data/audio, [2400] at 16 kHz; see make.sh."""
    time = np.arange(2400) / 16_000
    sound = 0.4 * np.sin(2 * np.pi * 440 * time) * np.exp(-4 * time)
    return sound + 0.2 * np.sin(2 * np.pi * 3000 * time) * (time > 0.1)


def make_corpus(folder: pathlib.Path) -> list[Case]:
    """Writes the files that can be read, some 100."""
    cases = []
    for name, (container, subtype, extension) in WRITTEN.items():
        shapes = {"MPEG_LAYER_III": FOR_MP3, "OPUS": FOR_OPUS}.get(subtype, SHAPES)
        for rate, channels in shapes:
            if "ADPCM" in subtype and channels > 2:
                continue
            path = folder / f"{name}_{rate}_{channels}{extension}"
            content = io.BytesIO()  # a path would have to fit the format
            sound = note(rate, channels)
            soundfile.write(content, sound, rate, format=container, subtype=subtype)
            path.write_bytes(content.getvalue())
            samples, rate = soundfile.read(path, always_2d=True)
            error = ERRORS.get(subtype, 0)
            cases.append(Case(path, rate, samples.mean(axis=1), error))
    decoded = np.load(DATA / "decoded.npz")
    for name in LOSSY:
        (folder / name).write_bytes((DATA / name).read_bytes())
        rate = 48_000 if name.endswith(".opus") else 16_000
        cases.append(Case(folder / name, rate, decoded[name] / 2**15, 2e-5, 8))
    for name, bits in FLAC_BITS.items():
        (folder / name).write_bytes((DATA / name).read_bytes())
        samples = np.round(source() * 2 ** (bits - 1)) / 2 ** (bits - 1)
        samples = samples[:1600] if name == "stream.flac" else samples
        cases.append(Case(folder / name, 16_000, samples, 0))
    return [*cases, *_wrapped(folder)]


def _wrapped(folder: pathlib.Path) -> list[Case]:
    """Files around which there is something else."""
    tagged = folder / "behind_id3.flac"
    tag = b"ID3\x04\0\0" + bytes([0, 0, 1, 5]) + bytes(133)
    tagged.write_bytes(tag + (DATA / "bits12.flac").read_bytes())
    ogg = folder / "vorbis_16000_1.ogg"
    samples = soundfile.read(ogg)[0]
    # Old programs put an Ogg file into a WAV file.
    in_wav = folder / "vorbis_in.wav"
    fmt = struct.pack("<HHIIHHH", 0x674F, 1, 16_000, 8000, 1, 16, 0)
    content = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    content += b"data" + struct.pack("<I", ogg.stat().st_size) + ogg.read_bytes()
    in_wav.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
    return [
        Case(tagged, 16_000, np.round(source() * 2**11) / 2**11, 0),
        Case(in_wav, 16_000, samples, 1e-4),
    ]
