"""Object stores: every kind of path, against a local S3 server."""

import contextlib
import datetime
import errno
import functools
import gc
import http.server
import io
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf
from binaries import ROOT, command, environment
from commands import export, generate, make_tfrecord
from conftest import load_encoder
from http_server import serve
from notes import make_notes
from tfrecords import examples
from tfrecords import write as write_records

import magenta_nsynth as nsynth
from magenta_nsynth.commands.common import pending
from magenta_nsynth.commands.download import download_release
from magenta_nsynth.commands.export_embeddings import Work, export_embeddings
from magenta_nsynth.data.index import open_notes
from magenta_nsynth.data.reading import iterate, read_notes
from magenta_nsynth.disk import lock_file, locked_range, only_writer
from magenta_nsynth.embeddings import manifest
from magenta_nsynth.embeddings.exported import open_embeddings
from magenta_nsynth.errors import CheckpointError, InputError, StoreError
from magenta_nsynth.files import atomic_path, expand, find_sources
from magenta_nsynth.mirror import Steps, mirror_of
from magenta_nsynth.notes.clips import SoundClips, read_list
from magenta_nsynth.notes.json_wav import note_to_entry
from magenta_nsynth.notes.labels_csv import read_labels
from magenta_nsynth.notes.unread import file_stamp
from magenta_nsynth.schema import Note
from magenta_nsynth.stores import remote, storage
from magenta_nsynth.training.folder import TrainingFolder
from magenta_nsynth.weights.checkpoint import Checkpoint, write_checkpoint

fsspec = pytest.importorskip("fsspec", reason="needs the extra [cloud]")
pytest.importorskip("s3fs", reason="needs the extra [cloud]")
botocore = pytest.importorskip("botocore")
pytest.importorskip("moto.server", reason="needs moto[server], of the extra [dev]")
SMALL = ROOT / "checkpoints" / "small"


class Server:
    """A local S3 server, in a process of its own, which can be stopped."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "server.log"
        self.settings = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }
        words = [sys.executable, "-m", "moto.server", "-p", str(self.port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.05)

    def requests(self):
        return self.log.read_text().count(" HTTP/1.1")

    @contextlib.contextmanager
    def stopped(self):
        """In the block the server answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.settings.items():
            patch.setenv(name, value)
        remote._file_system.cache_clear()
        remote._file_system("s3").mkdir("tests")
        yield server
    remote._file_system.cache_clear()
    server.process.kill()
    server.process.wait()


@pytest.fixture
def store(server, request):
    """A folder of its own in the store."""
    return f"s3://tests/{request.node.name}"


def send(path, to):
    for file in sorted(pathlib.Path(path).iterdir()):
        remote.upload(str(file), f"{to}/{file.name}")


def content(folder):
    """The files below a folder of either kind, by name, with their bytes."""
    found = {}
    for directory, _, names in storage.walk(str(folder)):
        for name in names:
            path = storage.join(directory, name)
            with storage.open_binary(path) as file:
                found[path.removeprefix(f"{folder}/")] = file.read()
    return found


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    path = tmp_path_factory.mktemp("notes") / "notes.tfrecord"
    make_notes(path, 5, 2048)
    return path


def run(name, *arguments, **options):
    words = command(name, *arguments)
    done = subprocess.run(
        words, env=environment(), capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, done.stderr
    return done


def test_files_and_folders(store):
    for name in ("a.txt", "sub/b[1].txt", "sub/deep/c.txt"):
        remote.put(f"{store}/{name}", name.encode())
    assert storage.isdir(store) and not storage.isfile(store)
    assert storage.isfile(f"{store}/a.txt") and not storage.isdir(f"{store}/a.txt")
    assert not storage.exists(f"{store}/a")
    assert storage.listdir(store) == ["a.txt", "sub"]
    assert storage.subfolders(store) == [f"{store}/sub"]
    assert storage.glob(f"{store}/**/*.txt") == [
        f"{store}/a.txt",
        f"{store}/sub/b[1].txt",
        f"{store}/sub/deep/c.txt",
    ]
    found = find_sources([f"{store}/"], [".txt"], recursive=True)
    assert [(s.path, s.subfolder) for s in found] == [
        (f"{store}/a.txt", ""),
        (f"{store}/sub/b[1].txt", "sub"),
        (f"{store}/sub/deep/c.txt", "sub/deep"),
    ]
    assert remote.read(f"{store}/a.txt", 1, 3) == b".t"
    assert remote.read(f"{store}/a.txt", 4, 99) == b"t"
    with storage.open_binary(f"{store}/a.txt") as file:
        assert file.read() == b"a.txt" and file.fileno()
    storage.unlink(f"{store}/a.txt")
    storage.unlink(f"{store}/a.txt")
    with pytest.raises(FileNotFoundError):
        storage.open_binary(f"{store}/a.txt")


def test_a_listing_answers_for_all_files_of_a_folder(server, store):
    names = ["a.wav", "b.wav", "c.wav"]
    for name in names:
        remote.put(f"{store}/in/{name}", name.encode())
    remote.put(f"{store}/out/a.npy", b"")
    remote.put(f"{store}/out/b.npy", b"")
    remote.put(f"{store}/out/b.npy.part", b"")
    look = remote.listing()
    paths = [f"{store}/in/{name}" for name in names]
    expected = [storage.stamp(path) for path in paths]
    assert len(set(expected)) == 3
    sources = find_sources(paths, [".wav"])
    pairs = [(s, f"{store}/out/{s.stem}.npy") for s in sources]
    clips = SoundClips(sources)
    before = server.requests()
    assert [storage.stamp(path, look) for path in paths] == expected
    assert storage.isfile(paths[0], look) and not storage.isfile(f"{store}/in", look)
    assert not storage.exists(f"{store}/in/d.wav", look)
    with pytest.raises(FileNotFoundError):
        storage.getsize(f"{store}/in/d.wav", look)
    assert server.requests() == before + 2  # one of each folder that was asked about
    assert pending(pairs, True, ".part") == pairs[1:]
    assert clips.fingerprint(0, 2) != clips.fingerprint(1, 3)
    assert server.requests() == before + 4
    with storage.open_binary(paths[0]) as file:
        assert file.read() == b"a.wav"
    assert server.requests() == before + 5


def test_files_that_may_be_read_but_not_listed(server, store, monkeypatch):
    remote.put(f"{store}/a.wav", b"a")
    files, look = remote._file_system("s3"), remote.listing()
    denied = {"ResponseMetadata": {"HTTPStatusCode": 403}, "Error": {"Code": "403"}}

    def refuse(*_, **__):
        answer = botocore.exceptions.ClientError(denied, "ListObjectsV2")
        raise PermissionError("Access Denied") from answer

    monkeypatch.setattr(files, "ls", refuse)
    assert storage.getsize(f"{store}/a.wav", look) == 1
    assert not storage.exists(f"{store}/b.wav", look)
    with pytest.raises(StoreError, match="Access Denied"):
        remote.list_folder(store)


def test_files_of_any_size_are_downloaded(store, monkeypatch):
    monkeypatch.setattr(remote, "_PIECE", 100)
    for size in (0, 99, 100, 101, 400, 500, 501, 1234):
        data = os.urandom(size)
        remote.put(f"{store}/a", data)
        with storage.open_binary(f"{store}/a") as file:
            assert file.read() == data


def test_a_file_appears_whole_or_not_at_all(store):
    path = f"{store}/note.txt"
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        pathlib.Path(temporary).write_text("half")
        raise KeyError
    assert not storage.exists(path)
    with atomic_path(path, new=True) as temporary:
        assert pathlib.Path(temporary).suffix == ".txt"
        pathlib.Path(temporary).write_text("whole")
        assert not storage.exists(path)
    with pytest.raises(FileExistsError), atomic_path(path, new=True) as temporary:
        pathlib.Path(temporary).write_text("other")
    with atomic_path(path, new=True) as temporary:  # as after an answer that was lost
        pathlib.Path(temporary).write_text("whole")
    assert remote.read(path) == b"whole"


def test_an_upload_whose_answer_was_lost_is_done(store, tmp_path, monkeypatch):
    """The next try to complete it then finds no parts."""
    (tmp_path / "a").write_bytes(b"whole")
    files = remote._file_system("s3")
    put, error = files.put_file, FileNotFoundError("The upload does not exist.")

    def lose(local, address, **options):
        put(local, address, **options)
        raise error

    monkeypatch.setattr(files, "put_file", lose)
    remote.upload(str(tmp_path / "a"), f"{store}/a")
    assert remote.read(f"{store}/a") == b"whole"
    (tmp_path / "a").write_bytes(b"other")
    monkeypatch.setattr(files, "put_file", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(StoreError, match="can't be written"):
        remote.upload(str(tmp_path / "a"), f"{store}/a")


def test_an_unfinished_multipart_upload_is_no_file(store):
    files = remote._file_system("s3")
    bucket, key = "tests", f"{store.rpartition('/')[2]}/part.npy"
    upload = files.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    files.call_s3(
        "upload_part",
        Bucket=bucket,
        Key=key,
        PartNumber=1,
        UploadId=upload["UploadId"],
        Body=b"0" * 100,
    )
    assert not storage.exists(f"s3://{bucket}/{key}")


def test_two_programs_in_one_folder(store):
    begun = pytest.raises(InputError, match="another program has begun")
    with begun, only_writer(store):
        remote.put(f"{store}/.writing.lock", b"of another program")
        with atomic_path(f"{store}/a.txt") as temporary:
            pathlib.Path(temporary).write_text("a")
    assert not storage.exists(f"{store}/a.txt")
    with only_writer(store), atomic_path(f"{store}/a.txt") as temporary:
        pathlib.Path(temporary).write_text("a")
    assert storage.listdir(store) == ["a.txt"]


def test_a_store_has_no_locks(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        lock_file(f"{store}/a") as one,
        locked_range(one, 0, 1, "in use"),
        lock_file(f"{store}/a") as other,
        locked_range(other, 0, 1, "in use"),
    ):
        assert not storage.exists(store)
    assert not list(tmp_path.iterdir())


def test_two_trainings_in_one_logdir(store):
    config = nsynth.WaveNetConfig(width=8)
    tensors = {"W": np.ones(3, np.float32)}
    TrainingFolder(store, 3).close()
    folder = TrainingFolder(store, 3)
    remote.put(f"{store}/.writing.lock", b"of another program")
    with pytest.raises(InputError, match="--logdir"):
        write_checkpoint(f"{store}/model.ckpt-1", tensors, config)
    with pytest.raises(InputError, match="--logdir"):
        folder.close()
    write_checkpoint(f"{store}/model.ckpt-1", tensors, config)
    # Between the look and the upload another program may write the same checkpoint.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "exists", lambda _: False)
        with pytest.raises(CheckpointError, match="another program has written"):
            write_checkpoint(f"{store}/model.ckpt-1", {"V": np.ones(2)}, config)


@pytest.mark.parametrize(("packed", "seed"), [(False, 3), (True, None)])
def test_records_are_those_of_the_disk(store, tmp_path, packed, seed):
    path = tmp_path / ("a.tfrecord.gz" if packed else "a.tfrecord")
    write_records(path, examples(range(150)), packed)
    store = store.replace("[", "_").replace("]", "_")
    remote.upload(str(path), f"{store}/{path.name}")

    def read(source):
        index = open_notes(source)
        notes = read_notes(index, ["audio", "pitch"], seed=seed, length=200)
        return [(int(n["pitch"]), n["audio"].numpy()) for n in iterate(notes, index)]

    for (pitch, audio), (other, there) in zip(read(path), read(store), strict=True):
        assert pitch == other
        np.testing.assert_array_equal(audio, there)


def test_the_index_reads_a_little_of_each_record(server, store, tmp_path):
    path = tmp_path / "long.tfrecord"
    write_records(path, examples(range(60), length=30_000))
    remote.upload(str(path), f"{store}/long.tfrecord")
    before = server.requests()
    index = open_notes(f"{store}/long.tfrecord")
    assert index.num_notes == 60
    assert server.requests() - before < 120
    [mirror] = index.table.mirrors
    read = sum(mirror._present) << 16
    assert read < path.stat().st_size / 4


def test_a_new_opening_reads_what_is_there_now(server, store, tmp_path):
    def send_notes(pitches):
        write_records(tmp_path / "a.tfrecord", examples(pitches))
        remote.upload(str(tmp_path / "a.tfrecord"), f"{store}/a.tfrecord")

    def pitches(index):
        notes = read_notes(index, ["pitch"])
        return [int(note["pitch"]) for note in iterate(notes, index)]

    send_notes(range(5))
    old = open_notes(store)
    assert pitches(old) == list(range(5))
    [mirror] = open_notes(store).table.mirrors
    assert mirror is old.table.mirrors[0]
    before = server.requests()
    assert pitches(old) == list(range(5))
    assert server.requests() == before  # everything is in the mirror
    send_notes(range(5, 10))
    assert pitches(open_notes(store)) == list(range(5, 10))
    assert pitches(old) == list(range(5))


def test_a_local_copy_is_removed_after_its_use(store):
    remote.put(f"{store}/a", b"abc")
    mirror = mirror_of(f"{store}/a")
    local = mirror.fetch_all()
    assert pathlib.Path(local).read_bytes() == b"abc"
    del mirror
    gc.collect()
    assert not os.path.exists(local)


def test_an_error_of_a_store_belongs_to_its_read(store, tmp_path, monkeypatch):
    path = tmp_path / "a.tfrecord"
    write_records(path, examples(range(5)))
    remote.upload(str(path), f"{store}/a.tfrecord")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)

    def first(index):
        return next(iter(read_notes(index, ["audio"], length=100)))

    far, near = open_notes(store), open_notes(path)
    refused = StoreError("s3://tests/a: the store\nanswered: no.")

    def refuse(*_):
        raise refused

    [mirror] = far.table.mirrors
    monkeypatch.setattr(mirror, "fetch", refuse)
    with pytest.raises(tf.errors.OpError):
        first(far)
    with pytest.raises(InputError, match=r"record 2 .*checksum"):
        list(iterate(read_notes(near, ["audio"], length=100), near))
    with pytest.raises(StoreError) as info:
        list(iterate(read_notes(far, ["audio"], length=100), far))
    assert str(info.value) == str(refused)
    remote.delete(f"{store}/a.tfrecord")
    monkeypatch.undo()
    mirror._present[:] = bytes(len(mirror._present))
    with pytest.raises(StoreError, match=rf"{store}/a.tfrecord: .* there before"):
        list(iterate(read_notes(far, ["audio"], length=100), far))


def test_a_damaged_record_in_a_store_is_named(store, tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, examples(range(5)))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    remote.put(f"{store}/a.tfrecord", bytes(damaged))
    index = open_notes(store)
    with pytest.raises(InputError, match=r"s3://.*a\.tfrecord, record 2 .*checksum"):
        list(iterate(read_notes(index, ["audio"], length=100), index))


def test_a_checkpoint_is_read_in_parts(server, store, tmp_path):
    send(SMALL, f"{store}/small")
    here, there = load_encoder(str(SMALL)), load_encoder(f"{store}/small")
    for one, other in zip(here.variables, there.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    checkpoint = Checkpoint(f"{store}/small")
    names = sorted(checkpoint.shapes)
    [mirror] = checkpoint._store._mirrors
    assert not any(mirror._present)
    [(_, value)] = checkpoint.read(names[-1:])
    np.testing.assert_array_equal(value, dict(Checkpoint(SMALL).read(names))[names[-1]])
    assert sum(mirror._present) < len(mirror._present) / 4


def test_tensors_that_lie_elsewhere_are_found(store, tmp_path):
    """The order in the file is a guess; its checksums decide."""
    tensors = {f"t{k}": np.random.default_rng(k).random(40_000) for k in range(6)}
    write_checkpoint(str(tmp_path / "model.ckpt-1"), tensors, nsynth.WaveNetConfig())
    send(tmp_path, store)
    checkpoint = Checkpoint(store)
    checkpoint._places = lambda names: [(0, 8) for _ in names]
    for name, value in checkpoint.read(tensors):
        np.testing.assert_array_equal(value, tensors[name])


def test_a_missing_and_a_truncated_checkpoint(store):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Checkpoint(f"{store}/nothing")
    send(SMALL, store)
    [path] = storage.glob(f"{store}/*.data-*")
    remote.put(path, remote.read(path)[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        Checkpoint(store)


def test_export_embeddings_and_sounds(store, notes, tmp_path, tiny_checkpoint):
    """Commands write to a store what they write to a disk, byte for byte."""
    tiny = pathlib.Path(tiny_checkpoint)
    send(tiny if tiny.is_dir() else tiny.parent, f"{store}/tiny")
    remote.upload(str(notes), f"{store}/in/notes.tfrecord")
    for source, checkpoint, out in (
        (notes, tiny, tmp_path),
        (f"{store}/in", f"{store}/tiny", store),
    ):
        network = {"checkpoint_path": str(checkpoint)}
        work = export(network, [source], f"{out}/e", notes_per_shard=2)
        assert export_embeddings(work) == 0
        model = nsynth.load_wavenet(checkpoint)
        generate(model, [source], f"{out}/g", sample_length=512, seed=1)
    assert content(f"{store}/e").keys() == content(tmp_path / "e").keys() - {
        ".exporting.lock"
    }
    [note, *_] = open_embeddings(f"{store}/e")
    assert note.embedding.shape == (4, 16)
    for name, data in content(f"{store}/e").items():
        assert data == (tmp_path / "e" / name).read_bytes(), name
    assert content(f"{store}/g") == content(tmp_path / "g")


def test_shards_are_checked_side_by_side(
    server, store, notes, tiny_checkpoint, monkeypatch
):
    network = {"checkpoint_path": tiny_checkpoint}
    work = export(network, [notes], store, notes_per_shard=1)
    assert export_embeddings(work) == 0
    shards = Work(work).shards
    both, digest = threading.Barrier(2, timeout=20), manifest.digest

    def waiting(path):
        if "00000-of" in path or "00001-of" in path:
            both.wait()
        return digest(path)

    monkeypatch.setattr(manifest, "digest", waiting)
    before = server.requests()
    assert shards.missing(range(5)) == []
    # Each shard's part and two files; the folders for the parts and for what is left.
    assert server.requests() - before <= 5 * 3 + 3
    remote.put(f"{store}/embeddings-00003-of-00005.npy", b"")
    assert shards.missing(range(5)) == [3]


@pytest.mark.parametrize("form", ["tfrecord", "parquet"])
def test_an_export_of_another_form_is_read(server, tmp_path, tiny_checkpoint, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    make_notes(tmp_path / "notes.tfrecord", 3, 2048)
    store, network = f"s3://tests/export-{form}", {"checkpoint_path": tiny_checkpoint}
    options = {"notes_per_shard": 2, "format": form}
    work = export(network, [tmp_path / "notes.tfrecord"], store, **options)
    assert export_embeddings(work) == 0
    notes = list(open_embeddings(store))
    assert [note.embedding.shape for note in notes] == [(4, 16)] * 3


@pytest.mark.slow
def test_a_training_goes_on(store, notes):
    remote.upload(str(notes), f"{store}/notes.tfrecord")
    options = (
        *("--width=8", "--skip_width=8", "--ae_width=8", "--num_layers=2"),
        *("--ae_num_layers=2", "--batch_size=1", "--crop_length=1024"),
    )
    for steps in (1, 2):
        done = run(
            "nsynth_train",
            *(f"--train_path={store}/notes.tfrecord", f"--logdir={store}/log"),
            *(f"--num_steps={steps}", *options),
        )
        assert f"Saved step {steps}" in done.stderr
    assert "Starting from s3://" in done.stderr
    names = storage.listdir(f"{store}/log")
    assert {"checkpoint", "config.json", "model.ckpt-2.index"} <= set(names)
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any("lock" in name for name in names)


def test_it_waits_for_the_store(server, store, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.05)
    calls = []

    def request(files, address):
        calls.append(address)
        if len(calls) < 4:
            raise ConnectionError("refused")
        return files.exists(address)

    assert remote._trying(store, request) is False
    assert len(calls) == 4
    monkeypatch.setattr(remote, "_PATIENCE", 0.1)
    calls.clear()
    with pytest.raises(StoreError, match=r"can't be reached.*AWS_ENDPOINT_URL"):
        remote._trying(store, request)


def test_a_server_that_stays_away_ends_a_program(server, tmp_path, tiny_checkpoint):
    """It goes away once the sounds are found, and is waited for a second."""
    sound = ROOT / "checkpoints" / "notes" / "brass_acoustic_056-060-100.wav"
    other = Server(tmp_path)
    text = f"""if True:
    import os, runpy, signal, sys
    from magenta_nsynth.stores import remote
    remote._PATIENCE, remote._FIRST_PAUSE = 1.0, 0.1
    files = remote._file_system("s3")
    files.mkdir("tests")
    remote.upload({str(sound)!r}, "s3://tests/in/a.wav")
    delete = remote.delete
    def last(path):  # of the check whether the folder can be written to
        delete(path)
        os.kill({other.process.pid}, signal.SIGKILL)
    remote.delete = last
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
    """
    words = command(
        "nsynth_save_embeddings",
        f"--checkpoint_path={tiny_checkpoint}",
        "--source_path=s3://tests/in",
        "--save_path=s3://tests/out",
        "--log=WARNING",
    )
    result = subprocess.run(
        [words[0], "-c", text, *words[1:]],
        env=environment() | other.settings | {"AWS_MAX_ATTEMPTS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    other.process.wait()
    assert result.returncode == 1 and not result.stdout
    warning, error = result.stderr.splitlines()
    assert warning.startswith("WARNING: s3://tests/in")
    assert "trying for 1 s." in warning
    assert error.startswith("nsynth_save_embeddings: s3://tests/in")
    assert ": the store can't be reached for 1 s (Could not connect" in error
    assert "AWS_ENDPOINT_URL. Run again" in error


def test_what_a_store_refuses_is_said_once(store):
    with pytest.raises(StoreError, match="Create the bucket"):
        remote.put("s3://no-such-bucket/a.txt", b"")
    with pytest.raises(InputError, match="does not exist"):
        find_sources(["s3://no-such-bucket/a.wav"], [".wav"])
    with pytest.raises(StoreError, match="give a local path, or one of s3://"):
        remote.read("foo://a/b")


class AzureError(Exception):
    """As Azure's: the status is an attribute, and the text has several lines."""

    def __init__(self, text, status):
        super().__init__(f"{text}\nRequestId:1")
        self.status_code = status


@pytest.fixture
def answers(monkeypatch):
    """Makes all requests of any store raise or return what this list holds."""
    answers, requests = [], []

    class Files:
        def __getattr__(self, name):
            def request(*_, **options):
                requests.append((name, options))
                answer = answers[0] if len(answers) == 1 else answers.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                return answer

            return request

    files = Files()
    files.requests = requests
    answers.append(files)
    monkeypatch.setattr(remote, "_file_system", lambda _: files)
    return answers


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError("Forbidden: b/x\nno access"), StoreError, "Forbidden: b/x no access;"),
        (FileNotFoundError("b/bucket/o/a"), FileNotFoundError, "No such file"),
        (FileNotFoundError("az://bucket/a"), FileNotFoundError, "No such file"),
        (AzureError("The blob is gone.", 404), FileNotFoundError, "No such file"),
        (AzureError("Signature is wrong.", 403), StoreError, "is wrong; check"),
        (AzureError("Server is busy.", 503), StoreError, "can't be reached"),
    ],
)
def test_what_google_and_azure_answer_is_said(answers, hurried, error, kind, message):
    answers[:] = [error]
    for scheme in ("gs", "az"):
        with pytest.raises(kind, match=message) as info:
            remote.read(f"{scheme}://bucket/a")
        assert f"{scheme}://bucket/a" in str(info.value)


@pytest.mark.parametrize(
    "error",
    [
        AzureError("The specified container does not exist.", 404),
        FileNotFoundError(errno.ENOENT, "No such container", "bucket"),
        FileNotFoundError("The specified bucket does not exist"),
    ],
)
def test_a_missing_container_is_said(answers, error):
    answers[:] = [error]
    with pytest.raises(StoreError, match=r"(container: 'bucket'|not exist)\. Create"):
        remote.put("az://bucket/a", b"")


def test_ranges_past_the_end_are_empty(answers):
    answers[:] = [[b"ab", AzureError("The range is invalid.", 416)]]
    assert remote.read_ranges("az://bucket/a", [(0, 2), (2, 4)]) == [b"ab", b""]
    answers[:] = [[b"ab", AzureError("It is wrong.", 403)]]
    with pytest.raises(StoreError, match="It is wrong"):
        remote.read_ranges("az://bucket/a", [(0, 2), (2, 4)])


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "abfss"])
def test_stores_write_only_what_is_new(answers, tmp_path, scheme):
    """They compare it themselves, as another program may write at any moment."""
    [files] = answers
    (tmp_path / "a").write_bytes(b"ours")
    answers[:] = [FileExistsError(), {"type": "file", "size": 5}]
    with pytest.raises(FileExistsError):
        remote.upload(str(tmp_path / "a"), f"{scheme}://bucket/a", new=True)
    assert files.requests == [("put_file", {"mode": "create"}), ("info", {})]


@pytest.mark.parametrize("name", ["LastModified", "last_modified", "mtime", "updated"])
def test_every_store_says_when_a_file_was_written(answers, name):
    moment = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)
    answers[:] = [{"type": "file", "size": 5, name: moment}]
    assert storage.getmtime("az://bucket/a") == moment.timestamp()


def test_libraries_of_stores_are_quiet(monkeypatch, caplog):
    """What they log of an error is in the exception too."""

    def make(scheme, **_):
        warnings.warn("This Python is old.", FutureWarning, stacklevel=2)
        logging.getLogger("gcsfs").error("a traceback")
        return scheme

    monkeypatch.setattr(fsspec, "filesystem", make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert remote._file_system.__wrapped__("gs") == "gs"
    assert not caplog.records


def test_credentials_appear_nowhere(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-tests")
    with pytest.raises(InputError) as info:
        expand("s3://me:my-password@bucket/a.wav")
    assert "my-password" not in str(info.value) and "AWS_" in str(info.value)
    path = expand("https://me:my-password@host.test/a.wav?X-Amz-Signature=abc")
    assert path == "https://host.test/a.wav"
    address = "https://me:my-password@host.test/a.wav?X-Amz-Signature=abc"
    assert remote._address(path) == address
    text = remote.without_secrets(f"GET {address} failed: a-secret-of-the-tests")
    assert text == "GET https://host.test/a.wav failed: ..."
    slashes = expand("https://host.test//b.wav?X-Amz-Signature=abc")
    assert remote._address(slashes).endswith("/b.wav?X-Amz-Signature=abc")
    with pytest.raises(InputError, match="different queries"):
        expand("https://host.test/a.wav?X-Amz-Signature=def")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://me:my/pass@word@bucket/a.wav", "^s3://bucket/a.wav: leave user"),
        ("s3:/bucket/a.wav", "give s3://bucket/a.wav"),
        ("s3://", "names no bucket"),
        ("s3://*/a.wav", "names no bucket"),
        ("https:///", "names no host"),
        ("file://notes/a.wav", "give file:///path"),
    ],
)
def test_paths_that_can_not_be_meant(path, message):
    with pytest.raises(InputError, match=message) as info:
        expand(path)
    assert "@" not in str(info.value)


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("S3://bucket//notes//", "s3://bucket/notes"),
        ("s3:///bucket/notes", "s3://bucket/notes"),
        ("s3://bucket/a@b:c#d?e%41", "s3://bucket/a@b:c#d?e%41"),
        ("hdfs:///notes", "hdfs:///notes"),
        ("hdfs://host:8020/a@b", "hdfs://host:8020/a@b"),
        ("az://folder@account/a", "az://folder@account/a"),
        ("https://token@host.test/a@b", "https://host.test/a@b"),
        ("http://[::1]:80/a.wav", "http://[::1]:80/a.wav"),
        ("file:///tmp/a%20b#1?.wav", "/tmp/a b#1?.wav"),
        ("C:\\notes", "C:\\notes"),
        ("C://notes", "C://notes"),
    ],
)
def test_paths_and_their_one_form(path, expanded):
    assert expand(path) == expanded


def test_keys_of_any_name(store):
    names = [
        "a b.wav",
        "100%.wav",
        "a#b.wav",
        "q?x.wav",
        "%41.wav",
        "a[1].wav",
        "ü.wav",
    ]
    for name in names:
        remote.put(f"{store}/{name}", name.encode())
    found = [source.path for source in find_sources([store], [".wav"])]
    assert found == sorted(f"{store}/{name}" for name in names)
    for name in names:
        assert [s.path for s in find_sources([f"{store}/{name}"], [".wav"])] == [
            f"{store}/{name}"
        ]
        assert remote.read(f"{store}/{name}") == name.encode()


def test_lists_and_csv_files_in_a_store(store):
    """They name what is beside them, elsewhere in the store, on a disk, on the web."""
    lines = [
        "../a.wav",
        "sub/b.wav",
        "s3://tests/c.wav",
        f"file://{SMALL}/d.wav",
        f"{SMALL}/e.wav",
        "https://me:secret@host.test/f.wav?sign=secret",
    ]
    remote.put(f"{store}/lists/list.txt", "\n".join(lines).encode())
    sources = read_list(f"{store}/lists/list.txt")
    assert [source.path for source in sources] == [
        f"{store}/a.wav",
        f"{store}/lists/sub/b.wav",
        "s3://tests/c.wav",
        f"{SMALL}/d.wav",
        f"{SMALL}/e.wav",
        "https://host.test/f.wav",
    ]
    assert [source.mirrored for source in sources] == ["", "sub", "", "", "", ""]
    remote.put(f"{store}/a.wav", b"")
    remote.put(f"{store}/lists/labels.csv", b"file,pitch\n../a.wav,60")
    [row] = read_labels(f"{store}/lists/labels.csv", [], "C4")
    assert row.path == f"{store}/a.wav"


def test_an_archive_and_downloads(store):
    """An archive of the disk becomes records in a store; downloads need a disk."""
    wav, name = ROOT / "checkpoints" / "notes", "flute_acoustic_073-060-100"
    entry = note_to_entry(Note(name, np.zeros(0, np.float32), pitch=60))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for file, data in (
            ("examples.json", json.dumps({name: entry}).encode()),
            (f"audio/{name}.wav", (wav / f"{name}.wav").read_bytes()),
        ):
            member = tarfile.TarInfo(f"nsynth-test/{file}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    remote.put(f"{store}/notes.tar.gz", packed.getvalue())
    assert make_tfrecord([f"{store}/notes.tar.gz"], f"{store}/records") == 0
    assert open_notes(f"{store}/records").num_notes == 1
    with pytest.raises(InputError, match="downloads go to a disk"):
        download_release("wavenet", f"{store}/weights")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_sounds_and_checkpoints_of_a_web_server():
    handler = functools.partial(Quiet, directory=str(ROOT / "checkpoints"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{web.server_port}"
        try:
            audio = nsynth.load_audio(
                f"{url}/notes/brass_acoustic_056-060-100.wav?sign=secret"
            )
            [prefix] = {p.stem for p in SMALL.glob("*.index")}
            encoder = load_encoder(f"{url}/small/{prefix}")
            with pytest.raises(StoreError, match="can only be read"):
                nsynth.save_audio(f"{url}/b.wav", audio)
            with pytest.raises(nsynth.AudioError, match="No such file"):
                nsynth.load_audio(f"{url}/c.wav")
        finally:
            web.shutdown()
    assert len(audio) == 48_000 and encoder.config.width == 64


@pytest.fixture
def site():
    with serve() as site:
        yield site


@pytest.fixture
def hurried(monkeypatch):
    """Gives up after a moment."""
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(remote, "_PATIENCE", 0.05)


@pytest.mark.parametrize("status", [401, 403, 500, 503, 404])
def test_what_a_web_server_answers_is_said(site, hurried, status):
    site.statuses = [status] * 20
    kind = FileNotFoundError if status == 404 else StoreError
    with pytest.raises(kind) as info:
        storage.open_binary(remote.clean(f"{site.url}?sign=secret"))
    text = str(info.value)
    assert status == 404 or str(status) in text
    assert ("can't be reached" in text) == (status >= 500)
    assert "secret" not in text and site.url in text


def test_answers_that_are_cut_are_asked_for_again(site, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.01)
    site.cut_after, site.cuts = 1000, 2  # of the look, and of a download
    with storage.open_binary(site.url) as file:
        assert file.read() == site.body
    assert len(site.requests) == 3


def test_a_checkpoint_without_a_length(site):
    """Some servers do not say how long a file is."""
    site.length, site.body = False, next(SMALL.glob("*.data-*")).read_bytes()
    assert remote.info(site.url).size is None
    mirror = mirror_of(site.url)
    assert mirror.size == len(site.body)
    assert mirror.read(0, 1000) == site.body[:1000]


def test_no_web_server(hurried):
    with pytest.raises(StoreError, match="can't be reached"):
        file_stamp("http://127.0.0.1:9/a.wav")
    with pytest.raises(StoreError, match="can't be reached"):
        storage.open_binary("http://127.0.0.1:9/a.wav")


def test_a_full_disk_of_temporary_files_is_said(store, monkeypatch):
    """Copies of what is read or written are kept there."""
    remote.put(f"{store}/a", bytes(100))
    full = pytest.raises(StoreError, match=r"no room .* set TMPDIR")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with full, atomic_path(f"{store}/b"):
        refuse()
    mirror = mirror_of(f"{store}/a")
    monkeypatch.setattr(remote, "read_ranges", refuse)
    monkeypatch.setattr(remote, "read", refuse)
    with full:
        mirror.fetch_all()
    with full:
        storage.open_binary(f"{store}/a")


def test_guesses_do_not_change_what_is_read(store):
    data = os.urandom(700_000)
    remote.put(f"{store}/a", data)
    steps = Steps(f"{store}/a", len(data))
    place = 0
    for size in [20_000, 20_008, 19_950, 30, 90_000, 12, 20_000, 20_000, 20_040]:
        assert steps.read(place, 16) == data[place : place + 16]
        place += size
    assert steps.read(len(data) - 5, 16) == data[-5:]
    assert steps.read(len(data), 16) == b""
    assert steps.read(3, 10_000) == data[3:10_003]


def test_nothing_of_fsspec_is_imported_for_local_paths():
    text = (
        "import sys, magenta_nsynth as n; n.load_audio(sys.argv[1]);"
        "assert not {'fsspec', 's3fs', 'aiohttp'} & set(sys.modules)"
    )
    path = str(ROOT / "checkpoints" / "notes" / "brass_acoustic_056-060-100.wav")
    words = [sys.executable, "-c", text, path]
    subprocess.run(words, env=environment(), check=True, timeout=120)
