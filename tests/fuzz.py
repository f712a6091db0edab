#!/usr/bin/env python3
"""Reads damaged files of every kind that the programs read, many of them.

Each case is a small valid file with some damage that knows the format: lengths, counts
and types, with the checksums mended every other time. It is read in a process with
limits of memory and time. The result has to be right, or an NSynthError in one line
that names the file. Nothing else is: no other exception, no end of the process.

    python tests/fuzz.py --cases=10000
    python tests/fuzz.py --cases=1 --first=4711      one case again

What fails is kept in --keep. A file that found a fault belongs in tests/data/hostile.
"""

import argparse
import csv
import io
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
SECONDS_A_CASE = 30
# Beyond what the process takes before its first case: more than any of these small
# files can honestly need.
EXTRA_MEMORY = 1 << 30
INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)
INTEGERS += (0xFFFFFFFF, 0xFFFFFFDB, 1 << 36, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
VALUES = (None, True, -1, 0, 2**31, 2**63, 2**70, 1.5, 1e308, float("nan"), "", "\0")
VALUES += ("\ud800", "a\nb", "../x", "$HOME", "~", "é" * 300, [], {}, [[]], {"a": 1})

Rng = np.random.Generator


class Target(NamedTuple):
    """A kind of file: valid ones, damage to them, and reading them."""

    seeds: Callable[[pathlib.Path], dict[str, bytes]]  # name: content; made once
    damage: Callable[[Rng, bytes], tuple[bytes, bool]]  # whether checksums were mended
    read: Callable[[pathlib.Path], Any]
    is_checked: bool = False  # by checksums: a result is that of the file undamaged


def damage_bytes(rng: Rng, data: bytes) -> bytes:
    """One change: of a bit, a number, a length, or the order of some parts."""
    data = bytearray(data)
    size = len(data)
    near_start = rng.random() < 0.5
    at = int(rng.integers(min(size, 128) if near_start else size)) if size else 0
    length = int(rng.integers(1, 40))
    kind = int(rng.integers(8))
    if kind == 0 and size:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind in (1, 2, 3):
        width = int(rng.choice([1, 2, 4, 8]))
        number = INTEGERS[rng.integers(len(INTEGERS))] & ((1 << 8 * width) - 1)
        order = "little" if rng.random() < 0.7 else "big"
        data[at : at + width] = number.to_bytes(width, order)
    elif kind == 4:
        del data[at : at + length]
    elif kind == 5:
        data[at:at] = data[at : at + length]
    elif kind == 6:
        data[at:at] = rng.integers(0, 256, length, np.uint8).tobytes()
    else:
        del data[at:]
    return bytes(data)


def plain(rng: Rng, data: bytes) -> tuple[bytes, bool]:
    """One to three changes, no checksum mended."""
    for _ in range(int(rng.integers(1, 4))):
        data = damage_bytes(rng, data)
    return data, False


def mending(mend: Callable[[bytes], bytes]) -> Callable:
    """As `plain`, but every other time the checksums are right again."""

    def damage(rng: Rng, data: bytes) -> tuple[bytes, bool]:
        data, _ = plain(rng, data)
        if rng.random() < 0.5:
            return data, False
        return mend(data), True

    return damage


def mend_ogg(data: bytes) -> bytes:
    """With the checksum of each page that can be told."""
    reverse = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    out, start = bytearray(data), data.find(b"OggS")
    while start >= 0:
        end = data.find(b"OggS", start + 4)
        stop = end if end >= 0 else len(data)
        page = bytearray(out[start:stop])
        if len(page) >= 27:
            page[22:26] = bytes(4)
            crc = zlib.crc32(bytes(page).translate(reverse), 0xFFFFFFFF) ^ 0xFFFFFFFF
            page[22:26] = int(f"{crc:032b}"[::-1], 2).to_bytes(4, "little")
            out[start:stop] = page
        start = end
    return bytes(out)


def damage_records(rng: Rng, data: bytes) -> tuple[bytes, bool]:
    """Changes a record, a length with the right checksum, or anything."""
    from tfrecords import header, masked_crc

    if rng.random() < 0.4:
        return plain(rng, data)
    (size,) = struct.unpack_from("<Q", data)
    record, rest = data[12 : 12 + size], data[16 + size :]
    if rng.random() < 0.5:
        record = damage_bytes(rng, record)
    length = len(record)
    if rng.random() < 0.4:
        length = INTEGERS[rng.integers(len(INTEGERS))]
    return header(length) + record + masked_crc(record) + rest, True


def mend_tar(data: bytes) -> bytes:
    """With the checksum of each header in an archive."""
    out = bytearray(data)
    for start in range(0, len(out) - 511, 512):
        if out[start + 257 : start + 262] == b"ustar":
            out[start + 148 : start + 156] = b" " * 8
            total = sum(out[start : start + 512])
            out[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(out)


def damage_json(rng: Rng, data: bytes) -> tuple[bytes, bool]:
    """Another value, type or key somewhere; or another text."""
    if rng.random() < 0.2:
        return plain(rng, data)
    if rng.random() < 0.05:
        depth = int(rng.choice([500, 100_000]))
        return b"[" * depth + b"]" * depth, False
    tree = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = node if isinstance(node, dict) else range(len(node))
        for key in list(keys):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    for _ in range(int(rng.integers(1, 3))):
        node, key = places[rng.integers(len(places))]
        value = VALUES[rng.integers(len(VALUES))]
        if isinstance(node, dict) and rng.random() < 0.3:
            node.pop(key, None)
            node[str(value)] = value
        elif key in node or isinstance(node, list):
            node[key] = value
    return json.dumps(tree).encode("utf-8", "surrogatepass"), False


def damage_npy(rng: Rng, data: bytes) -> tuple[bytes, bool]:
    """Another header, or anything."""
    if rng.random() < 0.5:
        return plain(rng, data)
    old = data[10 : data.index(b"\n")]
    kinds = (b"<f4", b"<f8", b"<f2", b"|O", b"<U9", b"<i8", b"<c8", b"|V4", b">f4")
    shapes = (b"(4, 16)", b"(2**40, 16)", b"(99999999999, 16)", b"(-4, 16)", b"()")
    shapes += (b"(64,)", b"(0, 16)", b"(1, 4, 16)", b"(4, 16, 1)", b"(True, 16)")
    text = b"{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (
        kinds[rng.integers(len(kinds))],
        b"True" if rng.random() < 0.3 else b"False",
        shapes[rng.integers(len(shapes))],
    )
    return data[:10] + text.ljust(len(old)) + data[10 + len(old) :], True


def damage_csv(rng: Rng, data: bytes) -> tuple[bytes, bool]:
    """Another cell, or anything."""
    if rng.random() < 0.3:
        return plain(rng, data)
    rows = list(csv.reader(io.StringIO(data.decode())))
    row = rows[rng.integers(len(rows))]
    row[rng.integers(len(row))] = str(VALUES[rng.integers(len(VALUES))])
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass"), False


# Valid files


def sound_seeds(*formats: tuple[str, str, str]) -> Callable:
    def seeds(folder: pathlib.Path) -> dict[str, bytes]:
        import soundfile

        time_ = np.arange(1600) / 16_000
        tone = 0.5 * np.sin(2 * np.pi * 440 * time_)
        found = {}
        for name, container, subtype in formats:
            content = io.BytesIO()
            soundfile.write(content, tone, 16_000, format=container, subtype=subtype)
            found[name] = content.getvalue()
        return found

    return seeds


def record_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    import tfrecords

    path = tfrecords.write(folder / "a.tfrecord", tfrecords.examples(range(3)))
    packed = tfrecords.write(folder / "b.gz", tfrecords.examples(range(2)), packed=True)
    return {
        "notes.tfrecord": pathlib.Path(path).read_bytes(),
        "packed.tfrecord": pathlib.Path(packed).read_bytes(),
    }


def npy_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    content = io.BytesIO()
    np.save(content, np.ones((4, 16), np.float32))
    return {"a.npy": content.getvalue()}


def labels() -> dict[str, Any]:
    return {
        "bass_synthetic_033-022-050": {
            "note_str": "bass_synthetic_033-022-050",
            "note": 1,
            "pitch": 22,
            "velocity": 50,
            "sample_rate": 16000,
            "instrument": 33,
            "instrument_str": "bass_synthetic_033",
            "instrument_family": 0,
            "instrument_family_str": "bass",
            "instrument_source": 2,
            "instrument_source_str": "synthetic",
            "qualities": [0] * 10,
            "qualities_str": [],
        }
    }


def json_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    return {"examples.json": json.dumps(labels()).encode()}


def tar_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    sound = sound_seeds(("a.wav", "WAV", "PCM_16"))(folder)["a.wav"]
    [name] = labels()
    found = {}
    for archive, mode in (("a.tar", "w"), ("b.tar.gz", "w:gz")):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode=mode) as tar:
            for member, data in (
                ("n/examples.json", json.dumps(labels()).encode()),
                (f"n/audio/{name}.wav", sound),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        found[archive] = content.getvalue()
    return found


def csv_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    text = "file,pitch,velocity,family,source,instrument,qualities\n"
    text += "a.wav,C4,100,bass,acoustic,one,bright dark\nb.wav,61,,,,,\n"
    return {"labels.csv": text.encode()}


def export_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    """All files of an export, of which one gets damaged."""
    from commands import export

    from magenta_nsynth.commands.export_embeddings import export_embeddings

    sounds, out = folder / "sounds", folder / "out"
    sounds.mkdir()
    for name, content in sound_seeds(("a.wav", "WAV", "PCM_16"))(folder).items():
        (sounds / name).write_bytes(content)
    checkpoint = {"checkpoint_path": str(CHECKPOINT)}
    export_embeddings(export(checkpoint, [sounds], out))
    files = [path for path in out.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in files
        if not path.name.startswith(".")
    }


CHECKPOINT = ROOT / "tests" / "data" / "wavenet_tiny" / "model.ckpt-5"


def checkpoint_seeds(folder: pathlib.Path) -> dict[str, bytes]:
    files = CHECKPOINT.parent.glob("model.ckpt-5.*")
    state = {"checkpoint": (CHECKPOINT.parent / "checkpoint").read_bytes()}
    config = {"config.json": b'{"ae_hop_length": 512, "num_stages": 10}'}
    return state | config | {path.name: path.read_bytes() for path in files}


# Reading them, as the programs do


def read_sound(path: pathlib.Path) -> np.ndarray:
    from magenta_nsynth.audio import load_audio

    audio = load_audio(path)
    assert np.isfinite(audio).all() and audio.dtype == np.float32 and audio.size
    return audio


def read_npy(path: pathlib.Path) -> np.ndarray:
    from magenta_nsynth.embeddings.embedding import check_encoding, load_array

    array = np.array(load_array(str(path)))
    return check_encoding(array, 16, str(path))


def read_records(path: pathlib.Path) -> list[np.ndarray]:
    from magenta_nsynth.data.reading import open_notes, read_notes

    notes = open_notes([path])
    with notes.errors():
        dataset = read_notes(notes, ("audio", "pitch"), batch_size=None)
        found = [note["audio"].numpy() for note in dataset]
    assert all(np.isfinite(audio).all() and audio.size for audio in found)
    return found


def read_json(path: pathlib.Path) -> int:
    from magenta_nsynth.notes.json_wav import plan_folder

    (path.parent / "audio").mkdir(exist_ok=True)
    items, problems = plan_folder(str(path.parent))
    assert all("\n" not in problem for problem in problems)
    return len(items)


def read_tar(path: pathlib.Path) -> int:
    from commands import make_tfrecord

    return make_tfrecord([path], path.parent / "out")


def read_csv(path: pathlib.Path) -> int:
    from magenta_nsynth.notes.labels_csv import read_labels

    for name in ("a.wav", "b.wav"):
        (path.parent / name).touch()
    return len(read_labels(path, [str(path.parent)]))


def read_export(path: pathlib.Path) -> int:
    from magenta_nsynth.embeddings.exported import open_embeddings

    notes = open_embeddings(path.parent)
    notes.verify()
    found = list(notes)
    assert all(np.isfinite(note.embedding).all() for note in found)
    return len(found)


def read_checkpoint(path: pathlib.Path) -> None:
    from magenta_nsynth.api import load_model

    encoder = load_model(str(path.parent)).encoder
    return [variable.numpy() for variable in encoder.variables]


WAV = ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "MS_ADPCM"), ("RF64", "PCM_24")
TARGETS = {
    "wav": Target(
        sound_seeds(*((f"{i}.wav", *form) for i, form in enumerate(WAV))),
        plain,
        read_sound,
    ),
    "aiff": Target(sound_seeds(("a.aiff", "AIFF", "PCM_16")), plain, read_sound),
    "w64": Target(sound_seeds(("a.w64", "W64", "PCM_16")), plain, read_sound),
    "flac": Target(sound_seeds(("a.flac", "FLAC", "PCM_16")), plain, read_sound, True),
    "ogg": Target(
        sound_seeds(("a.ogg", "OGG", "VORBIS"), ("a.opus", "OGG", "OPUS")),
        mending(mend_ogg),
        read_sound,
        True,
    ),
    "mp3": Target(sound_seeds(("a.mp3", "MP3", "MPEG_LAYER_III")), plain, read_sound),
    "npy": Target(npy_seeds, damage_npy, read_npy),
    "tfrecord": Target(record_seeds, damage_records, read_records),
    "examples": Target(json_seeds, damage_json, read_json),
    "tar": Target(tar_seeds, mending(mend_tar), read_tar),
    "csv": Target(csv_seeds, damage_csv, read_csv),
    "export": Target(export_seeds, plain, read_export),
    "manifest": Target(export_seeds, damage_json, read_export),
    "checkpoint": Target(checkpoint_seeds, plain, read_checkpoint),
}
# Of a target with several files that belong together: those that are damaged.
DAMAGED = {
    "manifest": ("manifest.json", "parts/00000.json"),
    "checkpoint": (
        "model.ckpt-5.index",
        "model.ckpt-5.data-00000-of-00001",
        "checkpoint",
        "config.json",
    ),
}
TOGETHER = ("export", "manifest", "checkpoint")


class Cases:
    """Makes and reads cases; each is decided by its number and the seed."""

    def __init__(self, seed: int, targets: list[str]) -> None:
        self._seed, self._targets = seed, targets
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._seeds: dict[str, dict[str, bytes]] = {}
        self._wanted: dict[tuple[str, str], Any] = {}

    def make(self, number: int) -> tuple[str, pathlib.Path, bool, str]:
        """The target, the damaged file, whether checksums were mended, its seed."""
        rng = np.random.default_rng([self._seed, number])
        name = self._targets[number % len(self._targets)]
        target = TARGETS[name]
        if name not in self._seeds:
            folder = self._folder / f"seeds-{name}"
            folder.mkdir()
            self._seeds[name] = target.seeds(folder)
        seeds = self._seeds[name]
        names = [n for n in DAMAGED.get(name, seeds) if n in seeds]
        chosen = names[rng.integers(len(names))]
        damaged, is_mended = target.damage(rng, seeds[chosen])
        case = self._folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        for file in seeds if name in TOGETHER else [chosen]:
            path = case / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(damaged if file == chosen else seeds[file])
        return name, case / chosen, is_mended, chosen

    def run(self, number: int) -> str:
        """What is wrong with the reading of a case; "" if nothing is."""
        from magenta_nsynth.errors import NSynthError

        name, path, is_mended, chosen = self.make(number)
        target = TARGETS[name]
        # Of files that belong together the folder is read.
        folder = self._folder / "case"
        read_from = folder / "any" if name in TOGETHER else path
        try:
            found = target.read(read_from)
        except NSynthError as error:
            # A name may hold a line break; what the programs print escapes it.
            message = str(error).replace("a\nb", "a b")
            if "\n" in message or str(self._folder) not in message:
                return f"{name}: not one line that names the file: {message!r}"
            return ""
        except BaseException:
            return f"{name}: {traceback.format_exc()}"
        if target.is_checked and not is_mended:
            return self._compare(target, name, chosen, found)
        return ""

    def _compare(self, target: Target, name: str, chosen: str, found: Any) -> str:
        if (name, chosen) not in self._wanted:
            whole = self._folder / f"seeds-{name}" / chosen
            whole.write_bytes(self._seeds[name][chosen])
            self._wanted[name, chosen] = target.read(whole)
        if np.array_equal(found, self._wanted[name, chosen]):
            return ""
        return f"{name}: damage passed for sound"

    def keep(self, number: int, folder: pathlib.Path) -> None:
        """Copies a case's files."""
        name, *_ = self.make(number)
        goal = folder / f"{name}-{self._seed}-{number}"
        shutil.rmtree(goal, ignore_errors=True)
        shutil.copytree(self._folder / "case", goal)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def work(connection: Any, seed: int, targets: list[str]) -> None:
    """A worker: reads the cases whose numbers come, within its limits."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), 2)
    import tensorflow as tf

    tf.constant(0)
    cases = Cases(seed, targets)
    # What is imported and made once does not count.
    for number in range(len(targets)):
        cases.run(number)
    in_use = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = in_use * resource.getpagesize() + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send("ready")
    while (number := connection.recv()) is not None:
        connection.send(cases.run(number))
    cases.close()


class Worker:
    """The parent's side of a worker, which is started again when it ends."""

    def __init__(self, seed: int, targets: list[str]) -> None:
        self._arguments = seed, targets
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, *self._arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        self._ours.recv()

    def run(self, number: int) -> str:
        """What is wrong with a case; "" if nothing is."""
        self._ours.send(number)
        try:
            if self._ours.poll(SECONDS_A_CASE):
                return self._ours.recv()
            problem = f"took more than {SECONDS_A_CASE} s"
            self._process.kill()
        except EOFError:
            problem = "ended the process"
        self._process.join()
        problem += f" (exit status {self._process.exitcode})"
        self._start()
        return problem

    def stop(self) -> None:
        self._ours.send(None)
        self._process.join()


def fuzz(
    cases: int,
    seconds: float = float("inf"),
    seed: int = 0,
    first: int = 0,
    targets: list[str] | None = None,
    keep: pathlib.Path | None = None,
) -> tuple[int, list[str]]:
    """Runs cases until there are enough; how many, and what was wrong."""
    targets = targets or list(TARGETS)
    worker, problems = Worker(seed, targets), []
    start = time.monotonic()
    number = first
    while number < first + cases and time.monotonic() < start + seconds:
        if problem := worker.run(number):
            problems.append(f"case {number}: {problem}")
            if keep is not None:
                maker = Cases(seed, targets)
                maker.keep(number, keep)
                maker.close()
        number += 1
    worker.stop()
    return number - first, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--targets", nargs="*", choices=list(TARGETS))
    parser.add_argument("--keep", type=pathlib.Path, default="fuzz_failures")
    options = parser.parse_args()
    count, problems = fuzz(**vars(options))
    for problem in problems:
        print(problem)
    print(f"{count - len(problems)} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    sys.exit(main())
