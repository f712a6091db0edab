"""Locks between programs, and what happens where there are none."""

import errno
import os
import threading

import pytest

from magenta_nsynth.disk import only_writer, open_locked, remove_unlocked
from magenta_nsynth.errors import InputError


@pytest.fixture
def no_locks(monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)


def test_a_lock_is_waited_for(tmp_path):
    path = str(tmp_path / "a")
    first = open_locked(path, "in use")
    with pytest.raises(InputError, match="in use"):
        open_locked(path, "in use", patience=0.05)
    threading.Timer(0.1, first.close).start()
    open_locked(path, "in use", patience=10).close()


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_locked_file_that_has_gone_is_created_anew(tmp_path, how):
    path = str(tmp_path / "a")

    def end(file):
        if how == "removed":
            os.unlink(path)
        else:
            os.rename(path, tmp_path / "b")
        file.close()

    threading.Timer(0.1, end, [open_locked(path, "in use")]).start()
    with open_locked(path, "in use", patience=10) as file:
        assert os.path.samestat(os.fstat(file.fileno()), os.lstat(path))


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        open_locked(str(tmp_path / "link"), "in use")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_locked_is_not_removed(tmp_path):
    held, free = str(tmp_path / "held"), str(tmp_path / "free")
    open_locked(free, "in use").close()
    with open_locked(held, "in use"):
        remove_unlocked(held, free, str(tmp_path / "never there"))
        assert os.listdir(tmp_path) == ["held"]


def test_drives_without_locks(tmp_path, no_locks):
    with only_writer(str(tmp_path)), only_writer(str(tmp_path)):
        pass
    path = str(tmp_path / "a")
    with open_locked(path, "in use"), open_locked(path, "in use"):
        pass
    with pytest.raises(OSError, match="No locks available"):
        open_locked(path, "in use", needed=True)
    assert os.listdir(tmp_path) == []
