"""What the tests of fetching, unpacking and downloading share."""

import io
import random
import tarfile

DATA = random.Random(0).randbytes(400_000)


def tar_bytes(members, mode="w"):
    """A tar of (name or TarInfo, content) pairs; content None makes a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


def set_free_space(monkeypatch, num_bytes):
    usage = type("usage", (), {"free": num_bytes})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", "?"))
    return text
