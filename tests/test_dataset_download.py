"""Downloading the dataset's splits, from a server on this machine."""

import hashlib
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from binaries import error_line, names, run
from http_server import serve
from samples import one_line, set_free_space, tar_bytes

from magenta_nsynth.commands import download
from magenta_nsynth.commands.download import SPLITS, Split, download_split
from magenta_nsynth.data.records import read_layout
from magenta_nsynth.data.writing import note_to_example
from magenta_nsynth.errors import InputError
from magenta_nsynth.schema import Note


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server with a split of three notes, which is made the expected one."""
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in "abc":
            writer.write(note_to_example(Note(name, np.zeros(5000, np.float32))))
    with serve() as site:
        site.body = tar_bytes([("nsynth-test.tfrecord", path.read_bytes())])
        digest = hashlib.sha256(site.body).hexdigest()
        split = Split(3, len(site.body), digest)
        monkeypatch.setitem(download.SPLITS, "test", split)
        monkeypatch.setattr("time.sleep", lambda _: None)
        yield site


def test_the_splits_of_the_specification():
    assert {name: split[:2] for name, split in SPLITS.items()} == {
        "train": (289_205, 74_159_943_680),
        "valid": (12_678, 3_250_995_200),
        "test": (4_096, 1_050_327_040),
    }
    # Of all digits of the three, as the specification has them.
    sums = "".join(split.sha256 for split in SPLITS.values()).encode()
    assert hashlib.sha256(sums).hexdigest() == (
        "072f13b226a758a1dbe36ff7cbd30252dc9064318243a05de2249d1a377d138b"
    )


def test_the_addresses(monkeypatch, tmp_path):
    asked = []

    def fetch_into(folder, url, name, *expected):
        asked.append((url, *expected))
        raise InputError("stop")

    monkeypatch.setattr(download, "_fetch_into", fetch_into)
    set_free_space(monkeypatch, 10**12)
    base = "http://download.magenta.tensorflow.org/datasets/nsynth/"
    for form in ("tfrecord", "jsonwav"):
        with pytest.raises(InputError, match="stop"):
            download_split("valid", tmp_path, form)
    assert asked == [
        (f"{base}nsynth-valid.tfrecord.tar", *SPLITS["valid"][1:]),
        (f"{base}nsynth-valid.jsonwav.tar.gz",),
    ]


def test_download_unpack_and_again(site, tmp_path, caplog):
    out = tmp_path / "data"
    path = download_split("test", out, url=site.url)
    assert path == str(out / "nsynth-test" / "nsynth-test.tfrecord")
    assert names(out) == ["nsynth-test/nsynth-test.tfrecord"]
    assert len(read_layout(path).record) == 3
    with caplog.at_level("INFO", logger="absl"):
        assert download_split("test", out, url=site.url) == path
    assert len(site.requests) == 1 and "already there, with all notes" in caplog.text
    # Half of it is not all of it.
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content[: len(content) // 2])
    assert download_split("test", out, url=site.url, keep_archive=True) == path
    assert pathlib.Path(path).read_bytes() == content
    assert names(out) == ["f.tar", "nsynth-test/nsynth-test.tfrecord"]


def test_a_broken_connection_is_taken_up(site, tmp_path):
    site.cut_after, site.cuts = 20_000, 2
    download_split("test", tmp_path / "a", url=site.url)
    assert site.sent == [20_000, 20_000, len(site.body) - 40_000]


def test_a_killed_run_is_taken_up(site, tmp_path):
    """From what it left: a part, and a note of what that is a part of."""
    site.cut_after, site.cuts = 20_000, 100
    site.etag = '"one"'
    site.statuses = [0] + [404] * 100
    with pytest.raises(InputError):
        download_split("test", tmp_path, url=site.url)
    assert (tmp_path / "f.tar.part").stat().st_size == 20_000
    site.statuses, site.cuts = [], 0
    download_split("test", tmp_path, url=site.url)
    assert site.sent[-1] == len(site.body) - 20_000


def test_another_size_or_content_is_refused(site, tmp_path):
    good = site.body
    site.body = good + bytes(1024)
    with pytest.raises(InputError, match="not the expected file") as error:
        download_split("test", tmp_path / "a", url=site.url)
    assert site.url in one_line(error)
    site.body = bytes([good[0] ^ 1]) + good[1:]
    with pytest.raises(InputError, match="its SHA-256 is not") as error:
        download_split("test", tmp_path / "b", url=site.url)
    assert names(tmp_path / "b") == []
    local = tmp_path / "local.tar"
    local.write_bytes(site.body)
    with pytest.raises(InputError, match=r"local\.tar: its SHA-256 is not"):
        download_split("test", tmp_path / "c", url=str(local))
    local.write_bytes(good)
    download_split("test", tmp_path / "c", url=str(local))
    assert local.exists() and names(tmp_path / "c") == [
        "nsynth-test/nsynth-test.tfrecord"
    ]


def test_room_for_the_archive_and_its_content_is_needed(site, tmp_path, monkeypatch):
    size = len(site.body)
    set_free_space(monkeypatch, 2 * size - 1)
    with pytest.raises(InputError, match=r"needs .* but only .* are free") as error:
        download_split("test", tmp_path / "a", url=site.url)
    one_line(error)
    assert not site.requests
    local = tmp_path / "local.tar"
    local.write_bytes(site.body)
    set_free_space(monkeypatch, size)  # the archive is there
    download_split("test", tmp_path / "b", url=str(local))


def test_jsonwav_is_kept_packed_and_not_checked(site, tmp_path, caplog):
    site.body = tar_bytes([("nsynth-test/examples.json", b"{}")], "w:gz")
    with caplog.at_level("INFO", logger="absl"):
        path = download_split("test", tmp_path, "jsonwav", site.url)
    assert (
        path == str(tmp_path / "f.tar") and pathlib.Path(path).read_bytes() == site.body
    )
    assert "not checked, because its SHA-256 is unknown" in caplog.text
    assert download_split("test", tmp_path, "jsonwav", site.url) == path
    assert len(site.requests) == 1


def test_the_binary(site, tmp_path):
    flags = [f"--save_path={tmp_path}", f"--url={site.url}"]
    line = error_line(run("nsynth_checkpoint", "download", "test", *flags))
    assert f"has {len(site.body)} bytes, not 1050327040" in line
    result = run("nsynth_checkpoint", "download", "test", *flags, "--format=jsonwav")
    assert result.returncode == 0
    assert result.stdout == f"Ready: {os.path.join(tmp_path, 'f.tar')}\n"
    line = error_line(
        run("nsynth_checkpoint", "download", "wavenet", *flags, "--format=jsonwav")
    )
    assert "--format is for the dataset" in line
    line = error_line(run("nsynth_checkpoint", "download", "dev", *flags))
    assert "wavenet, baseline, train, valid, test" in line
