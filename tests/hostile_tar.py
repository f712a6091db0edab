"""Archives that would take much memory or end tarfile, made without much of either."""

import gzip
import io
import tarfile

_MANY = 1 << 24


def header(name, size=0, kind=tarfile.REGTYPE, form=tarfile.USTAR_FORMAT):
    """One block that announces a member."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(form)


def write_zipped(path, *parts):
    """Writes a .gz of parts: bytes, or a number of zeros."""
    # A .gz may be several, one behind the other, so zeros are packed only once.
    many = gzip.compress(bytes(_MANY))
    with open(path, "wb") as file:
        for part in parts:
            if isinstance(part, bytes):
                file.write(gzip.compress(part))
            else:
                file.write(many * (part // _MANY))
                file.write(gzip.compress(bytes(part % _MANY)))
    return path


def pax(kind=tarfile.XHDTYPE, **records):
    """An extended header with these records."""
    content = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        content += str(length).encode() + rest
    padding = -len(content) % 512
    return header("pax", len(content), kind) + content + bytes(padding)


def sparse(name, announced):
    """A sparse file in the old GNU form, of one block, that announces any size."""
    block = bytearray(header(name, 512, tarfile.GNUTYPE_SPARSE, tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"%011o\0" % announced
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512)


def long_names(count):
    """So many names, each of which is said to be of the next member."""
    one = header("././@LongLink", 4, tarfile.GNUTYPE_LONGNAME) + b"a\0\0\0" + bytes(508)
    return one * count + header("x.wav")


END = bytes(1024)


def whole(*parts):
    """The parts as an archive."""
    return io.BytesIO(b"".join(parts) + END).getvalue()
