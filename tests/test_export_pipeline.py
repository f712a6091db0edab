"""Stages that run ahead of each other: in order, not too far, and to a clean end."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from magenta_nsynth.config import SpectralConfig
from magenta_nsynth.embeddings import encode_many
from magenta_nsynth.embeddings.embedding import Embedding, save_array
from magenta_nsynth.embeddings.encode_many import ahead, encoding
from magenta_nsynth.embeddings.files import CodeFiles
from magenta_nsynth.errors import AudioError, InputError
from magenta_nsynth.notes.clips import Clip


def test_elements_come_in_order_and_not_too_far_ahead():
    made = []

    def numbers():
        for i in range(50):
            made.append(i)
            yield i

    iterator = ahead(numbers(), 3)
    assert next(iterator) == 0
    time.sleep(0.2)
    assert len(made) == 5  # one taken, three ready, one waiting for its place
    assert list(iterator) == list(range(1, 50))


def test_an_error_comes_after_what_was_before_it():
    def numbers():
        yield 1
        yield 2
        raise InputError("bad")

    iterator = ahead(numbers(), 8)
    assert [next(iterator), next(iterator)] == [1, 2]
    with pytest.raises(InputError, match="bad"):
        next(iterator)


def test_closing_ends_the_threads():
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    before = threading.active_count()
    outer = ahead(ahead(endless(), 2), 2)
    next(outer)
    outer.close()
    assert threading.active_count() == before
    assert closed == [True]


class Doubling:
    """An encoder of which nothing has to be loaded."""

    min_samples = 2

    def __init__(self):
        self.batches = []

    def check_clip(self, audio, name):
        if len(audio) < self.min_samples:
            raise AudioError(f"{name}: short")
        return audio

    def prepare(self, clip):
        return clip

    def load(self):
        pass

    def encode_prepared(self, clips):
        self.batches.append(len(clips))
        return [2 * clip[:1, None] for clip in clips]


@pytest.fixture
def gpu(monkeypatch):
    """One that is never used: only the batches are made for it."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: ["a GPU"])


def clip(where, audio, labels=None):
    return Clip(where, audio, labels or {}, where)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_batches_are_of_one_key_and_errors_keep_their_place(on_gpu, request):
    if on_gpu:
        request.getfixturevalue("gpu")
    encoder = Doubling()
    lengths = [3, 1, 3, 3, 3, 3]
    clips = [
        (i // 3, clip(f"clip{i}", np.full(n, i, np.float32), {"note_str": str(i)}))
        for i, n in enumerate(lengths)
    ]
    clips[4] = (1, InputError("clip4: gone"))
    with encoding(iter(clips), encoder, 3) as results:
        found = list(results)
    assert [key for key, _ in found] == [0, 0, 0, 1, 1, 1]
    assert [str(r) for _, r in found if isinstance(r, Exception)] == [
        "clip1: short",
        "clip4: gone",
    ]
    good = [r for _, r in found if not isinstance(r, Exception)]
    assert [float(r.rows[0, 0]) for r in good] == [0, 4, 6, 10]
    assert [r.labels["note_str"] for r in good] == ["0", "2", "3", "5"]
    assert encoder.batches == ([2, 2] if on_gpu else [1, 1, 1, 1])


def test_on_processors_as_many_clips_as_cores_are_encoded_at_once(monkeypatch):
    """Each call waits until the others have begun."""
    monkeypatch.setattr(encode_many, "num_cores", lambda: 3)
    together = threading.Barrier(3, timeout=10)

    class Waiting(Doubling):
        def encode_prepared(self, clips):
            together.wait()
            return super().encode_prepared(clips)

    clips = [(0, clip(f"{i}", np.full(4, i, np.float32))) for i in range(6)]
    with encoding(clips, Waiting(), 16) as results:
        found = [result for _, result in results]
    assert [float(result.rows[0, 0]) for result in found] == [0, 2, 4, 6, 8, 10]


def test_few_long_clips_are_held_at_once(monkeypatch):
    monkeypatch.setattr(encode_many, "num_cores", lambda: 8)
    read, done = [], []

    def clips():
        for i in range(20):
            read.append(i)
            yield 0, clip(str(i), np.zeros(3_000_000, np.float32))

    class Slow(Doubling):
        def encode_prepared(self, clips):
            time.sleep(0.01)
            assert len(read) - len(done) <= 6
            done.append(0)
            return super().encode_prepared(clips)

    with encoding(clips(), Slow(), 16) as results:
        assert len(list(results)) == 20


@pytest.mark.usefixtures("gpu")
def test_long_clips_do_not_wait_for_others():
    encoder = Doubling()
    clips = [(0, clip("long", np.zeros(2_000_000, np.float32))) for _ in range(3)]
    with encoding(iter(clips), encoder, 16) as results:
        assert len(list(results)) == 3
    assert encoder.batches == [1, 1, 1]


def test_an_error_in_the_block_ends_the_threads():
    before = threading.active_count()
    clips = ((0, clip("a", np.zeros(9, np.float32))) for _ in iter(int, 1))
    with (
        pytest.raises(RuntimeError, match="writer"),
        encoding(clips, Doubling(), 4) as results,
    ):
        next(results)
        raise RuntimeError("writer")
    assert threading.active_count() == before


def test_an_embedding_that_is_no_numbers_is_an_error_that_names_its_clip():
    clips = [
        (0, clip(name, np.full(4, level, np.float32)))
        for name, level in (("a.wav", 1), ("b.wav", np.inf), ("c.wav", 3))
    ]
    with encoding(clips, Doubling(), 2) as results:
        found = [result for _, result in results]
    assert [isinstance(result, InputError) for result in found] == [False, True, False]
    assert str(found[1]).startswith("b.wav: its embedding has NaN or infinite values")


def test_embeddings_that_are_no_numbers_are_not_written(tmp_path):
    bad = np.full([2, 3], np.nan, np.float32)
    with pytest.raises(InputError, match=r"a\.npy: its embedding has NaN"):
        save_array(str(tmp_path / "a.npy"), bad)
    embedding = Embedding("one", "one.wav", bad, 9, {"note_str": "one"})
    files = CodeFiles(SpectralConfig(), 3)
    with (
        pytest.raises(InputError, match="one: its embedding has NaN"),
        files.writing(str(tmp_path / "b_z.npy")) as writer,
    ):
        writer.add(embedding)
    assert list(tmp_path.iterdir()) == []
