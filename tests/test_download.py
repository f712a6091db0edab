"""Downloading released checkpoints, from a server on this machine."""

import os

import pytest
from http_server import serve
from samples import tar_bytes

from magenta_nsynth.errors import CheckpointError, InputError
from magenta_nsynth.weights.download import RELEASES, download_release


@pytest.fixture
def site():
    with serve() as site:
        yield site


def release(prefix="model.ckpt-7", extra=()):
    return tar_bytes(
        [
            (f"{prefix}.index", b"i"),
            (f"{prefix}.data-00000-of-00001", b"d"),
            (f"{prefix}.meta", b"m"),
            *extra,
        ]
    )


def test_releases():
    base = "http://download.magenta.tensorflow.org/models/nsynth/"
    assert {
        "wavenet": f"{base}wavenet-ckpt.tar",
        "baseline": f"{base}baseline-ckpt.tar",
    } == RELEASES


def test_download_release(site, tmp_path):
    site.body, checked = release("sub/er/model.ckpt-7"), []
    prefix = download_release("wavenet", tmp_path, site.url, checked.append)
    assert prefix == str(tmp_path / "sub/er/model.ckpt-7") and checked == [prefix]
    assert "f.tar" not in os.listdir(tmp_path)
    again = download_release("wavenet", tmp_path, site.url, checked.append)
    assert again == prefix and len(site.requests) == 1 and len(checked) == 2


def test_download_release_keeps_archives(site, tmp_path):
    site.body = release()
    download_release("wavenet", tmp_path / "a", site.url, keep_archive=True)
    assert "f.tar" in os.listdir(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "f.tar").write_bytes(site.body)  # from a browser
    prefix = download_release("wavenet", tmp_path / "b", site.url)
    assert os.path.exists(f"{prefix}.index") and len(site.requests) == 1
    assert "f.tar" in os.listdir(tmp_path / "b")
    local = str(tmp_path / "b" / "f.tar")
    prefix = download_release("wavenet", tmp_path / "c", local)
    assert prefix == str(tmp_path / "c" / "model.ckpt-7") and os.path.exists(local)


def test_download_release_beside_another_model_or_a_rest(site, tmp_path):
    def check(prefix):
        if "ckpt-1" in prefix:
            raise CheckpointError(f"{prefix}: another model.")

    for name in ("model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"):
        (tmp_path / name).touch()
    (tmp_path / "model.ckpt-7.index").touch()  # its data never came
    (tmp_path / "model.ckpt-8.index").touch()
    (tmp_path / "model.ckpt-8.data-00000-of-00002").touch()
    site.body = release()
    prefix = download_release("wavenet", tmp_path, site.url, check)
    assert prefix == str(tmp_path / "model.ckpt-7") and len(site.requests) == 1


def test_download_release_refusals(site, tmp_path):
    with pytest.raises(InputError, match="baseline"):
        download_release("wavnet", tmp_path)
    site.body = tar_bytes([("readme", b""), ("model.index", b"")])
    with pytest.raises(CheckpointError, match="no checkpoint"):
        download_release("wavenet", tmp_path / "a", site.url)
    site.body = release("x", [("y.index", b""), ("y.data-00000-of-00001", b"")])
    with pytest.raises(InputError, match="several"):
        download_release("wavenet", tmp_path / "b", site.url)
    with pytest.raises(InputError, match="several"):
        download_release("wavenet", tmp_path / "b", site.url)

    def check(prefix):
        raise CheckpointError("incomplete")

    site.body = release()
    with pytest.raises(CheckpointError, match="incomplete"):
        download_release("wavenet", tmp_path / "c", site.url, check)
