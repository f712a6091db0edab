"""Sound files of all formats, alone and many at once, whole and damaged."""

import concurrent.futures
import contextlib
import pathlib

import corpus
import fuzz
import numpy as np
import pytest

from magenta_nsynth.audio import AUDIO_EXTENSIONS, audio_length, load_audio
from magenta_nsynth.audio.decoding import decode
from magenta_nsynth.audio.resample import resample
from magenta_nsynth.errors import AudioError


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return corpus.make_corpus(tmp_path_factory.mktemp("corpus"))


def decoded(path):
    """The rate of a file and its samples, channels averaged."""
    blocks = list(decode(str(path)))
    samples = np.concatenate([block.samples for block in blocks])
    return blocks[0].rate, samples.mean(axis=1, dtype=np.float64)


def test_every_format_is_read_as_by_another_decoder(cases):
    assert len(cases) > 90
    wrong = []
    for path, rate, expected, error, step in cases:
        found_rate, samples = decoded(path)
        found = samples[::step]
        # Of Vorbis and AAC FFmpeg's program keeps some samples behind the end.
        spare = 20 if path.suffix in (".oga", ".m4a") else 0
        same_length = len(found) <= len(expected) <= len(found) + spare
        if (found_rate, same_length) != (rate, True):
            wrong.append((path.name, found_rate, len(found), len(expected)))
        elif np.abs(found - expected[: len(found)]).max() > error:
            wrong.append((path.name, np.abs(found - expected[: len(found)]).max()))
    assert not wrong


def test_many_files_at_once(cases):
    """Each as when it is read alone."""
    paths = [case.path for case in cases]
    alone = [load_audio(path) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for path, wanted, found in zip(
            5 * paths, 5 * alone, pool.map(load_audio, 5 * paths), strict=True
        ):
            np.testing.assert_array_equal(found, wanted, err_msg=path.name)


def test_samples_at_16_khz(cases):
    for path, *_ in cases:
        rate, samples = decoded(path)
        audio = load_audio(path)
        assert audio.dtype == np.float32 and audio.ndim == 1
        expected = resample(samples.astype(np.float32), rate)
        np.testing.assert_allclose(audio, expected, atol=1e-6, err_msg=path.name)
        assert audio_length(path) == len(audio)
        np.testing.assert_array_equal(load_audio(path, 100), audio[:100])


def test_the_content_counts_and_not_the_name(cases, tmp_path):
    for path, *_ in cases:
        renamed = tmp_path / "sound.xyz"
        renamed.write_bytes(path.read_bytes())
        np.testing.assert_array_equal(load_audio(renamed), load_audio(path))


def test_names_that_ffmpeg_takes_for_something_else(tmp_path, monkeypatch):
    content = (corpus.DATA / "bits12.flac").read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("pipe:0", "concat:a|b.flac", "%03d.flac", "a\udcff.flac", "-i.flac"):
        pathlib.Path(name).write_bytes(content)
        assert len(load_audio(name)) == 2400


def test_every_extension_is_one_of_the_corpus(cases):
    assert {path.suffix.lower() for path, *_ in cases} | {".bwf"} == {*AUDIO_EXTENSIONS}


def refused(path):
    """The error of a file that can't be read: one line that names it."""
    with pytest.raises(AudioError) as info:
        load_audio(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message and message.endswith(".")
    return message


def test_files_that_end_early(cases, tmp_path):
    whole = []
    for case in cases:
        content = case.path.read_bytes()
        path = tmp_path / case.path.name
        for part in (0.4, 0.8):
            path.write_bytes(content[: int(part * len(content))])
            try:
                load_audio(path)
                whole.append(path.name)
            except AudioError:
                refused(path)
        path.write_bytes(content[:40])
        refused(path)
        path.write_bytes(b"")
        assert "empty (0 bytes)" in refused(path)
    # A FLAC stream of unknown length may happen to end between two frames.
    assert set(whole) <= {"stream.flac"}


@pytest.mark.parametrize("name", ["flac_16_44100_2.flac", "stream.flac", "bits20.flac"])
def test_every_flipped_bit_of_flac_is_noticed(cases, tmp_path, name):
    flip_bits(cases, tmp_path, name)


@pytest.mark.parametrize("name", ["vorbis_44100_2.ogg", "opusenc.opus", "oggenc.oga"])
def test_every_flipped_bit_of_ogg_is_noticed(cases, tmp_path, name):
    flip_bits(cases, tmp_path, name)


def flip_bits(cases, tmp_path, name):
    """Of a file with one other bit, the right samples or an error."""
    [path] = [case.path for case in cases if case.path.name == name]
    content, whole = path.read_bytes(), load_audio(path)
    rng = np.random.default_rng(0)
    num_refused = 0
    damaged = tmp_path / name
    for bit in rng.integers(8 * len(content), size=100):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(flipped)
        try:
            np.testing.assert_array_equal(load_audio(damaged), whole)
        except AudioError:
            num_refused += 1
    assert num_refused > 5  # the rest lies in FLAC's padding


def test_a_flac_header_that_announces_one_sample_more(tmp_path):
    content = bytearray((corpus.DATA / "bits12.flac").read_bytes())
    assert int.from_bytes(content[22:26], "big") == 2400
    path = tmp_path / "a.flac"
    for announced in (2399, 2401, 2**31):
        content[22:26] = announced.to_bytes(4, "big")
        path.write_bytes(content)
        assert f"{announced:,} samples are announced, but 2,400" in refused(path)


def test_flac_that_decodes_to_other_samples_than_encoded(tmp_path):
    content = bytearray((corpus.DATA / "bits12.flac").read_bytes())
    content[30] ^= 1  # of the MD5
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    assert "MD5" in refused(path)


def mp3_frames(content):
    """The frames of an MP3 file of constant frame length."""
    starts = [i for i in range(len(content)) if content[i : i + 2] == content[:2]]
    return [content[i:j] for i, j in zip(starts, [*starts[1:], None], strict=True)]


def test_mp3_without_some_of_its_frames(cases, tmp_path):
    content = (corpus.DATA / "vbr.mp3").read_bytes()
    start = content.index(b"Xing")
    path = tmp_path / "a.mp3"
    announced = int.from_bytes(content[start + 8 : start + 12], "big")
    changed = bytearray(content)
    changed[start + 8 : start + 12] = (announced + 3).to_bytes(4, "big")
    path.write_bytes(changed)
    assert "frames are announced" in refused(path)
    path.write_bytes((corpus.DATA / "cbr.mp3").read_bytes()[:-10])
    assert "frame at byte" in refused(path)
    frames = (corpus.DATA / "cbr.mp3").read_bytes()
    path.write_bytes(frames[:432] + b"\x11" * 99 + frames[432:])
    assert "are not an MP3 frame" in refused(path)


def id3(content):
    """An ID3v2 tag with something in it."""
    size = bytes(len(content) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + size + content


def test_mp3_with_more_around_its_frames(tmp_path):
    content = (corpus.DATA / "cbr.mp3").read_bytes()
    whole = load_audio(corpus.DATA / "cbr.mp3")
    path = tmp_path / "a.mp3"
    id3v1 = b"TAG" + bytes(125)
    for after in (id3v1, bytes(500), bytes(333) + id3v1, b"\n"):
        path.write_bytes(content + after)
        np.testing.assert_array_equal(load_audio(path), whole)
    path.write_bytes(bytes(700) + b"junk" + content)
    assert len(load_audio(path)) >= len(whole)
    # Words of the frame that announces the others, in a tag.
    for words in (b"More Info: \xff\xff\xff\xff\xff\xff\xff\xff", b"Xing says it all"):
        path.write_bytes(id3(words) + content)
        np.testing.assert_array_equal(load_audio(path), whole)


def test_mp3_files_one_behind_the_other(tmp_path):
    content = (corpus.DATA / "cbr.mp3").read_bytes()
    whole = load_audio(corpus.DATA / "cbr.mp3")
    path = tmp_path / "a.mp3"
    path.write_bytes(content + content)
    assert len(load_audio(path)) == 2 * len(whole)
    # The picture in a tag may look like frames.
    picture = b"\xff\xd8\xff\xe0" + bytes(range(200)) + b"\xff\xc0" + bytes(250)
    path.write_bytes(content + id3(picture) + content)
    assert len(whole) < len(load_audio(path)) <= 2 * len(whole)


def test_mp3_that_ends_anywhere(tmp_path):
    content = (corpus.DATA / "tagged.mp3").read_bytes()
    path = tmp_path / "a.mp3"
    for length in range(len(content) - 300, len(content)):
        path.write_bytes(content[:length])
        with contextlib.suppress(AudioError):
            load_audio(path)


def test_ogg_with_another_stream(cases, tmp_path):
    """The length of the sound is its own stream's."""
    content = (corpus.DATA / "oggenc.oga").read_bytes()
    other = bytearray(content.replace(b"\x01vorbis", b"\x01nothin"))
    last = other.rindex(b"OggS")
    other[last + 6 : last + 14] = (10**9).to_bytes(8, "little")
    start = -1
    while (start := other.find(b"OggS", start + 1)) >= 0:
        other[start + 14 : start + 18] = b"abcd"
    other = fuzz.mend_ogg(bytes(other))
    first = other.index(b"OggS", 4)
    begins = content.index(b"OggS", 4)
    path = tmp_path / "a.ogg"
    # The pages that begin streams come first.
    path.write_bytes(
        content[:begins] + other[:first] + content[begins:] + other[first:]
    )
    np.testing.assert_array_equal(
        load_audio(path), load_audio(corpus.DATA / "oggenc.oga")
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"caff\0\1\0\0", "CAF"),
        (b"MThd\0\0\0\6", "MIDI"),
        (b"ID3\4\0\0\0\0\0\0RIFF\0\0\0\0WAVE", "tag"),
    ],
)
def test_what_is_no_sound_is_named(tmp_path, content, words):
    for name in ("a.wav", "a.mp3"):
        path = tmp_path / name
        path.write_bytes(content + bytes(100))
        assert words in refused(path)


def test_several_ogg_files_in_one(cases, tmp_path):
    content = (corpus.DATA / "oggenc.oga").read_bytes()
    path = tmp_path / "a.ogg"
    path.write_bytes(content + content)
    assert "several Ogg files" in refused(path)


def test_a_rate_of_which_no_filter_would_fit(tmp_path):
    import soundfile

    path = tmp_path / "a.wav"
    time = np.arange(2000) / 399_989
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * time), 399_989, "DOUBLE")
    audio = load_audio(path)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(audio)) / 16_000)
    np.testing.assert_allclose(audio[20:-20], expected[20:-20], atol=2e-3)


def test_more_channels_than_eight(tmp_path):
    """Of planar frames PyAV miscounts the channels from eight on."""
    import soundfile

    sound = corpus.note(48_000, 8)
    for name, subtype in (("a.ogg", "VORBIS"), ("a.flac", "PCM_16")):
        soundfile.write(tmp_path / name, sound, 48_000, subtype)
        _, samples = decoded(tmp_path / name)
        expected = soundfile.read(tmp_path / name)[0].mean(axis=1)
        np.testing.assert_allclose(samples, expected, atol=1e-4)
    soundfile.write(tmp_path / "a.wav", np.tile(sound, (1, 8)), 48_000, "PCM_16")
    assert decoded(tmp_path / "a.wav")[1].shape == (7200,)
