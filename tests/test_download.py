"""Downloading released checkpoints, from a server on this machine."""

import os
import pathlib
import shutil

import pytest
import tensorflow as tf
from binaries import run
from http_server import serve
from samples import one_line, tar_bytes

from magenta_nsynth.commands import download
from magenta_nsynth.commands.download import RELEASES, download_release
from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.weights import engine
from magenta_nsynth.weights.checkpoint import Checkpoint


@pytest.fixture
def site():
    with serve() as site:
        yield site


def packed(prefix, base="model.ckpt-200000", extra=(), **changed):
    """The files of a checkpoint as a release, with an empty .meta."""
    members = []
    for ending in (".index", ".data-00000-of-00001"):
        content = changed.get(ending[1:5]) or pathlib.Path(prefix + ending).read_bytes()
        members.append((base + ending, content))
    return tar_bytes([*members, (f"{base}.meta", b""), *extra])


def test_releases():
    base = "http://download.magenta.tensorflow.org/models/nsynth/"
    assert {
        "wavenet": f"{base}wavenet-ckpt.tar",
        "baseline": f"{base}baseline-ckpt.tar",
    } == RELEASES


def test_download_release(site, tmp_path, tiny_checkpoint):
    site.body = packed(tiny_checkpoint, "sub/er/model.ckpt-7")
    prefix = download_release("wavenet", tmp_path, site.url)
    assert prefix == str(tmp_path / "sub/er/model.ckpt-7")
    assert "f.tar" not in os.listdir(tmp_path)
    again = download_release("wavenet", tmp_path, site.url)
    assert again == prefix and len(site.requests) == 1


def test_download_release_keeps_archives(site, tmp_path, tiny_checkpoint):
    site.body = packed(tiny_checkpoint)
    download_release("wavenet", tmp_path / "a", site.url, keep_archive=True)
    assert "f.tar" in os.listdir(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "f.tar").write_bytes(site.body)  # from a browser
    prefix = download_release("wavenet", tmp_path / "b", site.url)
    assert os.path.exists(f"{prefix}.index") and len(site.requests) == 1
    assert "f.tar" in os.listdir(tmp_path / "b")
    local = str(tmp_path / "b" / "f.tar")
    prefix = download_release("wavenet", tmp_path / "c", local)
    assert prefix == str(tmp_path / "c" / "model.ckpt-200000")
    assert os.path.exists(local)


def test_download_release_beside_another_model_or_a_rest(
    site, tmp_path, tiny_checkpoint, baseline_checkpoint
):
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(baseline_checkpoint + ending, tmp_path / f"model.ckpt-1{ending}")
    (tmp_path / "model.ckpt-200000.index").touch()  # its data never came
    (tmp_path / "model.ckpt-8.index").touch()
    (tmp_path / "model.ckpt-8.data-00000-of-00002").touch()
    site.body = packed(tiny_checkpoint)
    prefix = download_release("wavenet", tmp_path, site.url)
    assert prefix == str(tmp_path / "model.ckpt-200000") and len(site.requests) == 1


def test_download_release_refusals(site, tmp_path, tiny_checkpoint):
    with pytest.raises(InputError, match="baseline"):
        download_release("wavnet", tmp_path)
    site.body = tar_bytes([("readme", b""), ("model.index", b"")])
    with pytest.raises(CheckpointError, match="no checkpoint"):
        download_release("wavenet", tmp_path / "a", site.url)
    index = pathlib.Path(f"{tiny_checkpoint}.index").read_bytes()
    data = pathlib.Path(f"{tiny_checkpoint}.data-00000-of-00001").read_bytes()
    second = [("y.index", index), ("y.data-00000-of-00001", data)]
    site.body = packed(tiny_checkpoint, "x", second)
    for _ in range(2):
        with pytest.raises(InputError, match="several"):
            download_release("wavenet", tmp_path / "b", site.url)
    site.body = packed(tiny_checkpoint)
    with pytest.raises(CheckpointError, match="baseline"):
        download_release("baseline", tmp_path / "c", site.url)
    assert os.listdir(tmp_path / "c") == []


def test_every_tensor_is_read(site, tmp_path, tiny_checkpoint):
    site.body = packed(tiny_checkpoint)
    download_release("wavenet", tmp_path / "a", site.url)
    whole = pathlib.Path(f"{tiny_checkpoint}.data-00000-of-00001").read_bytes()
    reader = tf.train.load_checkpoint(tiny_checkpoint)
    assert any(name.endswith("/Adam_1") for name in reader.get_variable_to_shape_map())
    for i, place in enumerate([0, len(whole) // 3, len(whole) // 2, len(whole) - 1]):
        data = bytearray(whole)
        data[place] ^= 1
        site.body = packed(tiny_checkpoint, data=bytes(data))
        folder = tmp_path / f"b{i}"
        with pytest.raises(CheckpointError, match="damaged on disk") as error:
            download_release("wavenet", folder, site.url)
        one_line(error)
        assert os.listdir(folder) == []


def test_the_binary(site, tmp_path, tiny_checkpoint):
    site.body = packed(tiny_checkpoint)
    flags = [f"--save_path={tmp_path}", f"--url={site.url}"]
    result = run("nsynth_checkpoint", "download", "wavenet", *flags)
    prefix = tmp_path / "model.ckpt-200000"
    assert (result.returncode, result.stdout) == (
        0,
        f"Ready: --checkpoint_path={prefix}\n",
    )
    result = run("nsynth_checkpoint", "download", "baseline", *flags)
    assert result.returncode == 1
    assert "another one with this name" in result.stderr.splitlines()[-1]


def test_damage_that_was_there_before_is_found_and_kept(
    site, tmp_path, tiny_checkpoint
):
    site.body = packed(tiny_checkpoint)
    args = "wavenet", tmp_path, site.url
    prefix = download_release(*args)
    data = pathlib.Path(f"{prefix}.data-00000-of-00001")
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(InputError, match="move it away") as error:
            download_release(*args)
        assert prefix in one_line(error)
    assert len(site.requests) == 2  # the archive stays
    data.unlink()
    assert download_release(*args) == prefix and data.read_bytes() == content


def test_another_checkpoint_of_the_same_name_is_not_replaced(
    site, tmp_path, tiny_checkpoint, baseline_checkpoint
):
    site.body = packed(baseline_checkpoint)
    own = download_release("baseline", tmp_path, site.url)
    before = pathlib.Path(own + ".index").read_bytes()
    site.body = packed(tiny_checkpoint)
    with pytest.raises(InputError, match="another one with this name"):
        download_release("wavenet", f"{tmp_path}/", site.url)
    assert pathlib.Path(own + ".index").read_bytes() == before


def test_an_archive_of_ones_own_with_damage_is_named(tmp_path, tiny_checkpoint):
    archive = tmp_path / "a.tar"
    archive.write_bytes(packed(tiny_checkpoint, data=bytes(3_000_000)))
    with pytest.raises(CheckpointError, match=r"It was in .*a\.tar") as error:
        download_release("wavenet", tmp_path / "x", str(archive))
    one_line(error)
    assert os.listdir(tmp_path / "x") == [] and archive.exists()


def test_the_release_has_its_sizes_and_shapes(
    site, tmp_path, tiny_checkpoint, monkeypatch
):
    sizes = {".data-00000-of-00001": 986_763_532, ".index": 63_671, ".meta": 7_060_787}
    assert download._SIZES["wavenet"] == sizes
    monkeypatch.setitem(RELEASES, "wavenet", site.url)
    site.body = packed(tiny_checkpoint)
    said = "instead of the released file's 986,763,532"
    with pytest.raises(CheckpointError, match=said):
        download_release("wavenet", tmp_path / "a")
    assert os.listdir(tmp_path / "a") == []
    for ending in sizes:
        path = pathlib.Path(tiny_checkpoint + ending)
        sizes[ending] = path.stat().st_size if path.exists() else 0
    monkeypatch.setitem(download._SIZES, "wavenet", sizes)
    with pytest.raises(CheckpointError, match="of another shape"):
        download_release("wavenet", tmp_path / "b")
    config = engine.read_config(Checkpoint(tiny_checkpoint))
    monkeypatch.setitem(engine.CONFIGS, "wavenet", lambda: config)
    prefix = download_release("wavenet", tmp_path / "c")
    sizes[".meta"] = 1
    with pytest.raises(CheckpointError, match=r"meta: 0 bytes instead of .* 1;"):
        download_release("wavenet", tmp_path / "d")
    os.unlink(f"{prefix}.meta")  # which nothing needs
    assert download_release("wavenet", tmp_path / "c")
