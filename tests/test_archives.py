"""Unpacking archives: whole, damaged and malicious ones."""

import gzip
import os
import subprocess
import sys
import tarfile
import tracemalloc

import hostile_tar as hostile
import pytest
from binaries import ROOT
from samples import DATA, one_line, set_free_space, tar_bytes

from magenta_nsynth.download.archives import is_archive, read_members, unpack
from magenta_nsynth.errors import InputError


def special(name, kind, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def files_below(folder):
    return {
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
    }


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_unpack(tmp_path, mode):
    archive, folder = tmp_path / "a", tmp_path / "out"
    archive.write_bytes(
        tar_bytes(
            [
                ("./", None),
                ("./top", b"1"),
                ("deep", None),
                ("deep/er/big", DATA),
                ("deep/._big", b"macOS"),
                ("empty", b""),
                ("top", b"2"),
            ],
            mode,
        )
    )
    paths = unpack(archive, folder)
    names = ["top", "deep/er/big", "empty"]
    assert paths == [str(folder / name) for name in names]
    assert files_below(folder) == set(names)
    assert (folder / "deep/er/big").read_bytes() == DATA
    assert (folder / "top").read_bytes() == b"2"
    assert unpack(archive, folder) == paths  # again, over the old files


@pytest.mark.parametrize(
    "bad",
    [
        "../evil",
        "a/../../evil",
        "/tmp/evil-of-a-test",
        "C:\\evil",
        "a\\..\\..\\evil",
        special("link", tarfile.SYMTYPE, "good"),
        special("hard", tarfile.LNKTYPE, "good"),
        special("device", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
        special("../folder", tarfile.DIRTYPE),
    ],
    ids=lambda bad: getattr(bad, "name", bad),
)
def test_unpack_refuses_before_writing(tmp_path, bad):
    archive, folder = tmp_path / "a.tar", tmp_path / "out"
    archive.write_bytes(tar_bytes([("good", b"1"), (bad, b"")]))
    with pytest.raises(InputError) as error:
        unpack(archive, folder)
    name = bad if isinstance(bad, str) else bad.name
    assert repr(name) in one_line(error) and str(archive) in str(error.value)
    assert files_below(tmp_path) == {"a.tar"}


def test_unpack_refuses_links_that_were_there_before(tmp_path):
    archive, folder, outside = tmp_path / "a", tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "sub").symlink_to(outside)
    archive.write_bytes(tar_bytes([("good", b"1"), ("sub/evil", b"2")]))
    with pytest.raises(InputError, match="sub/evil"):
        unpack(archive, folder)
    assert not os.listdir(outside) and os.listdir(folder) == ["sub"]


def test_unpack_replaces_a_link_and_not_what_it_points_to(tmp_path):
    archive, folder = tmp_path / "a", tmp_path / "out"
    folder.mkdir()
    (tmp_path / "precious").write_bytes(b"1")
    (folder / "name").symlink_to(tmp_path / "precious")
    archive.write_bytes(tar_bytes([("name", b"2")]))
    unpack(archive, folder)
    assert (tmp_path / "precious").read_bytes() == b"1"
    assert (folder / "name").read_bytes() == b"2"


def damaged_archives():
    whole = tar_bytes([("first", DATA[:1000]), ("second", DATA[:70_000])])
    zipped = gzip.compress(whole)
    flipped = bytearray(zipped)
    flipped[-5] ^= 1  # in the checksum
    header = bytearray(whole)
    header[1536 + 5] ^= 1  # the second member's name
    return {
        "data": whole[:50_000],
        "between members": whole[:1536],
        "in a header": whole[:1700],
        "bad header": bytes(header),
        "end mark": whole[: 1536 + 512 + 70_144],
        "gz": zipped[: len(zipped) // 2],
        "gz end": zipped[:-4],
        "gz checksum": bytes(flipped),
    }


@pytest.mark.parametrize("name", damaged_archives())
def test_unpack_damaged(tmp_path, name):
    archive = tmp_path / "a.tar"
    archive.write_bytes(damaged_archives()[name])
    with pytest.raises(InputError) as error:
        unpack(archive, tmp_path / "out")
    text = one_line(error)
    assert str(archive) in text and "damaged" in text and "again" in text
    assert files_below(tmp_path) == {"a.tar"}


@pytest.mark.parametrize("content", [b"", b"\n<!DOCTYPE html>", DATA])
def test_unpack_what_is_no_archive(tmp_path, content):
    archive = tmp_path / "a.tar"
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tar: not a \.tar or"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(InputError, match="No such file"):
        unpack(tmp_path / "missing.tar", tmp_path / "out")


def test_unpack_without_space_or_place(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes([("name", DATA)]))
    (tmp_path / "out" / "name").mkdir(parents=True)
    with pytest.raises(InputError) as error:
        unpack(archive, tmp_path / "out")
    assert str(tmp_path / "out" / "name") in one_line(error)
    assert files_below(tmp_path) == {"a.tar"}
    set_free_space(monkeypatch, 5)
    with pytest.raises(InputError) as error:
        unpack(archive, tmp_path / "other")
    assert "are free" in one_line(error)


def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(InputError, match=r"x\.tar: not a file"):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_names_are_never_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("REL", "../../..")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    archive, folder = tmp_path / "a.tar", tmp_path / "deep" / "er" / "out"
    names = ["$REL/pwned", "${REL}/b", "~/c", "$HOME/d", "~root", "%REL%/e"]
    archive.write_bytes(tar_bytes([(name, b"1") for name in names]))
    assert unpack(archive, folder) == [str(folder / name) for name in names]
    assert files_below(tmp_path) == {"a.tar", *(f"deep/er/out/{n}" for n in names)}


def huge(name, **options):
    return hostile.header(name, 3 << 30, **options)


LONG = "headers of more than 65536 bytes"
HOSTILE = {
    "pax": (LONG, huge("x", kind=tarfile.XHDTYPE), 1 << 27),
    "global pax": (LONG, huge("x", kind=tarfile.XGLTYPE), 1 << 27),
    "long name": (LONG, huge("x", kind=tarfile.GNUTYPE_LONGNAME), 1 << 27),
    "long link": (LONG, huge("x", kind=tarfile.GNUTYPE_LONGLINK), 1 << 27),
    "names in a chain": (LONG, hostile.long_names(3000), hostile.END),
    "pax in a chain": (LONG, hostile.pax(comment="x") * 3000, hostile.header("a")),
    "sparse": ("a sparse file", hostile.sparse("a.wav", 4 << 30), hostile.END),
    "sparse pax": (
        "damaged",
        hostile.pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        hostile.header("a", 1024) + b"9" * 1024 + hostile.END,
    ),
    "size": ("damaged", hostile.pax(size=str(2**63)), hostile.header("a"), hostile.END),
    "below 0": ("size", hostile.pax(size="-1024"), hostile.header("a"), hostile.END),
    "NUL": ("land outside", hostile.pax(path="a\0b"), hostile.header("a"), hostile.END),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(tmp_path, name):
    words, *parts = HOSTILE[name]
    archive = hostile.write_zipped(tmp_path / "a.tar", *parts)
    with pytest.raises(InputError, match=words) as error:
        unpack(archive, tmp_path / "out")
    assert str(archive) in one_line(error)
    assert files_below(tmp_path) == {"a.tar"}


def test_headers_for_all_members_do_not_gather(tmp_path):
    headers = (
        hostile.pax(tarfile.XGLTYPE, **{f"key{i}.{k}": "x" for k in range(300)})
        for i in range(60)
    )
    parts = [header + hostile.header(str(i)) for i, header in enumerate(headers)]
    archive = hostile.write_zipped(tmp_path / "a.tar", *parts, hostile.END)
    tracemalloc.start()
    assert sum(1 for _ in read_members(archive)) == 60
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1e6


@pytest.mark.parametrize("value", ["1e400", "9" * 5000, "x", ""])
@pytest.mark.parametrize("key", ["size", "mtime", "uid", "atime"])
def test_numbers_in_headers_that_are_none(tmp_path, key, value):
    archive = tmp_path / "a.tar"
    archive.write_bytes(hostile.whole(hostile.pax(**{key: value}), hostile.header("a")))
    try:
        assert unpack(archive, tmp_path / "out") == [str(tmp_path / "out" / "a")]
    except InputError as error:
        assert str(archive) in str(error)


def test_a_few_long_names_are_read(tmp_path):
    archive, name = tmp_path / "a.tar", "/".join(["x" * 100] * 30)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(archive, "w", format=form) as tar:
            tar.addfile(tarfile.TarInfo(name))
        assert is_archive(archive)
        assert [member.name for member, _ in read_members(archive)] == [name]


def test_more_members_than_anybody_has(tmp_path, monkeypatch):
    monkeypatch.setattr("magenta_nsynth.download.archives._MOST_MEMBERS", 5)
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes([(str(i), b"") for i in range(5)]))
    assert len(unpack(archive, tmp_path / "out")) == 5
    archive.write_bytes(tar_bytes([(str(i), b"") for i in range(6)]))
    with pytest.raises(InputError, match="more than 5 members"):
        unpack(archive, tmp_path / "out2")


MEASURE = """
import resource, sys
from magenta_nsynth.download.archives import read_members
from magenta_nsynth.errors import InputError
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = most()
try:
    members = read_members(sys.argv[1])
    print(sum(len(piece) for _, content in members for piece in content))
except InputError:
    print("refused")
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in kB")
@pytest.mark.parametrize("kind", [None, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_piece_at_a_time_is_in_memory(tmp_path, kind):
    size = 400 << 20
    header = hostile.header("a", size, kind or tarfile.REGTYPE)
    headers = [hostile.pax(comment="x" * 900) + hostile.header("b")] * 200
    archive = hostile.write_zipped(
        tmp_path / "a.tar", *headers, header, size, hostile.END
    )
    words = [sys.executable, "-c", MEASURE, archive]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    read, grown = result.stdout.split()
    assert read == (str(size) if kind is None else "refused")
    assert int(grown) < 30_000
