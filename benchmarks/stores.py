#!/usr/bin/env python3
"""Times reading and exporting from an object store against the disk.

    pip install 'moto[server]' s3fs
    python benchmarks/stores.py

The store is moto's S3 server, in a process of its own on this machine, so the figures
say what our side of a store costs, and nothing of a network. Random notes of 4 s are

- read, all samples of all records, in a process of its own each time, because a second
  pass in the same process reads local copies;
- exported with a narrow network, whose arithmetic hardly counts.

Store and disk take turns. Then come the requests for a shard, the peak memory for two
numbers of notes, and the bytes on the wire for the encoder out of a full-width training
checkpoint (987 MB, random weights), counted by a proxy before the server.

    python benchmarks/stores.py --endpoint=http://127.0.0.1:9000 --notes=4000 \
        --files=8 --readers=8

measures reading alone, from another server that runs already, with the credentials of
the environment: moto copies a whole file for each part of it that is asked for.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from export import NARROW, NUM_SAMPLES, program, write_notes, write_weights
from measuring import (
    Figure,
    Usage,
    figure,
    in_a_process,
    machine,
    measured,
    middle,
    size_parser,
    table,
)

from magenta_nsynth.config import H512_BO16
from magenta_nsynth.stores import remote, storage

ROOT = pathlib.Path(__file__).parent.parent
BUCKET = "s3://benchmarks"
NOTES_PER_SHARD = 20


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
      notes: notes of 256 kB that are read and exported in a turn.
      files: their TFRecord files.
      turns: of the store and of the disk.
      readers: threads that read at once, each its part of the notes.
    """

    notes: int = 200
    files: int = 4
    turns: int = 3
    readers: int = 1


class Server:
    """moto's S3 server, in a process of its own; this process's store from now on."""

    def __init__(self, log: str) -> None:
        """Starts it, with one bucket.

        Args:
          log: the file for its messages, a line per request.
        """
        self.port, self.log = _free_port(), pathlib.Path(log)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "benchmarks",
            "AWS_SECRET_ACCESS_KEY": "benchmarks",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }
        words = [sys.executable, "-m", "moto.server", "-p", str(self.port)]
        with open(log, "wb") as file:
            self.process = subprocess.Popen(words, stdout=file, stderr=file)
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            time.sleep(0.1)
        make_bucket()

    def requests(self) -> int:
        """The requests so far."""
        return len(re.findall(r' HTTP/1\.1"?', self.log.read_text()))

    def stop(self) -> None:
        """Ends it; what it keeps is gone."""
        self.process.kill()
        self.process.wait()


def make_bucket() -> None:
    """Makes the bucket of these benchmarks, if it is not there."""
    import s3fs

    s3fs.S3FileSystem().makedirs(BUCKET, exist_ok=True)


class Wire:
    """A proxy before the server, which counts the bytes that clients receive.

    Attributes:
      port: where it listens.
      received: bytes from the server, headers included.
    """

    def __init__(self, server: Server) -> None:
        """Listens, until this process ends."""
        self.port, self.received, self._to = _free_port(), 0, server.port
        ready = threading.Event()

        async def listen() -> None:
            await asyncio.start_server(self._connect, "127.0.0.1", self.port)
            ready.set()
            await asyncio.Event().wait()

        threading.Thread(target=lambda: asyncio.run(listen()), daemon=True).start()
        ready.wait()

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(
            self._copy(reader, to_server, False), self._copy(from_server, writer, True)
        )

    async def _copy(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, counts: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 20):
                self.received += len(data) if counts else 0
                to.write(data)
                await to.drain()
        to.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def figures(
    folder: str, size: Size = Size(), ways: Sequence[str] = ("read", "export")
) -> Iterator[Figure]:
    """Yields reading and exporting from the store against the disk.

    Args:
      folder: an empty local folder.
      size: how much is measured.
      ways: which of both.
    """
    write_weights(folder, {"narrow": NARROW})
    for k in range(size.files):
        write_notes(f"{folder}/in/{k}.tfrecord", size.notes // size.files)
    write_notes(f"{folder}/one/0.tfrecord", 1)
    for name in ("in", "one", "narrow"):
        send(folder, name)
    megabytes = size.notes * NUM_SAMPLES * 4 / 1e6
    tasks = {
        "read": ("reading a MB of TFRecords", megabytes, "MB/s"),
        "export": ("exporting a note, narrow network", size.notes, "notes/s"),
    }
    for way in ways:
        task, count, unit = tasks[way]
        usages: dict[str, list[Usage]] = {BUCKET: [], folder: []}
        for turn in range(size.turns):
            for place, values in usages.items():
                words = [f"--way={way}", f"--place={place}", f"--turn={turn}"]
                words.append(f"--readers={size.readers}")
                [usage] = in_a_process(__file__, words)
                values.append(usage.per(count))
        store, disk = middle(usages[BUCKET]), middle(usages[folder])
        remark = f"{1 / store.clock:.1f} {unit}, disk {1 / disk.clock:.1f}"
        yield figure(f"{task} from a store", store, "the disk", disk, remark)


def send(folder: str, name: str) -> None:
    """Copies a folder's files into the store."""
    for path in sorted(pathlib.Path(folder, name).iterdir()):
        remote.upload(str(path), storage.join(BUCKET, name, path.name))


def read(place: str, turn: int, readers: int) -> Usage:
    """Reads all samples of all records, after another file of one to warm up."""
    from magenta_nsynth.data.index import open_notes
    from magenta_nsynth.data.reading import iterate, read_notes

    def all_of(source: str, parts: int) -> None:
        index = open_notes(source)

        def part(number: int) -> int:
            notes = read_notes(
                index, ["audio"], length=NUM_SAMPLES, shard=(number, parts)
            )
            return sum(1 for _ in iterate(notes, index))

        with ThreadPoolExecutor(parts) as pool:
            assert sum(pool.map(part, range(parts))) == index.num_notes

    all_of(storage.join(place, "one"), 1)
    return measured(lambda: all_of(storage.join(place, "in"), readers))


def export(place: str, turn: int, readers: int) -> Usage:
    """Exports all notes to the same place, after a note to warm up."""
    from magenta_nsynth.commands.export_embeddings import Export, Work, make_shards
    from magenta_nsynth.commands.options import Network, ShardOptions
    from magenta_nsynth.notes.inputs import Inputs
    from magenta_nsynth.notes.naming import NameRules

    work = Work(
        Export(
            Network(checkpoint_path=storage.join(place, "narrow")),
            Inputs(source_path=[storage.join(place, "in")]),
            storage.join(place, f"out{turn}"),
            NameRules(),
            ShardOptions(notes_per_shard=NOTES_PER_SHARD),
        )
    )
    work.model.encode_prepared([np.zeros(NUM_SAMPLES, np.float32)])

    def make() -> None:
        shards = work.shards
        numbers = range(shards.plan.num_shards)
        storage.makedirs(shards.folder)
        with shards.locked(numbers):
            shards.begin()
            make_shards(work, shards.missing(numbers))
            assert shards.finish() is not None

    return measured(make)


def measure_requests(folder: str, server: Server, counts: list[int]) -> None:
    """Prints an export's requests and peak memory for two numbers of notes."""
    requests = []
    for count in counts:
        write_notes(f"{folder}/{count}/notes.tfrecord", count)
        send(folder, str(count))
        before = server.requests()
        usage, peak = program(
            [
                str(ROOT / "bin" / "nsynth_export_embeddings"),
                f"--checkpoint_path={BUCKET}/narrow",
                f"--source_path={BUCKET}/{count}",
                f"--save_path={BUCKET}/memory{count}",
                f"--notes_per_shard={NOTES_PER_SHARD}",
                "--log=WARN",
            ]
        )
        requests.append(server.requests() - before)
        print(
            f"{count} notes: {peak / 1e6:.3f} GB at most, {requests[-1]} requests, "
            f"{usage.processor:.0f} s of processor time"
        )
    shards = (counts[1] - counts[0]) / NOTES_PER_SHARD
    print(f"{(requests[1] - requests[0]) / shards:.1f} requests more for each shard")


def measure_encoder(folder: str, server: Server) -> None:
    """Prints what comes over the wire to load an encoder."""
    from magenta_nsynth.weights import tables
    from magenta_nsynth.weights.checkpoint import write_checkpoint

    rng = np.random.default_rng(0)
    suffixes = ("", *tables.SLOT_SUFFIXES, tables.AVERAGE_SUFFIX)
    tensors = {
        row.name + suffix: rng.random(row.shape, np.float32)
        for row in tables.table(H512_BO16)
        for suffix in suffixes
    }
    write_checkpoint(f"{folder}/full/model.ckpt-1", tensors, H512_BO16)
    send(folder, "full")
    whole = sum(path.stat().st_size for path in pathlib.Path(folder, "full").iterdir())
    wire, before = Wire(server), server.requests()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{wire.port}"
    words = ["--way=encoder", f"--place={BUCKET}", "--turn=0"]
    [usage] = in_a_process(__file__, words)
    print(
        f"encoder out of a checkpoint of {whole / 1e6:.0f} MB: "
        f"{wire.received / 1e6:.1f} MB on the wire in {server.requests() - before} "
        f"requests, {usage.clock:.1f} s, {usage.processor:.1f} s of processor time"
    )


def load_encoder(place: str, turn: int, readers: int) -> Usage:
    """Loads the encoder alone."""
    from magenta_nsynth.api import WaveNet

    return measured(lambda: WaveNet(storage.join(place, "full")).encoder)


WAYS = {"read": read, "export": export, "encoder": load_encoder}


def main() -> None:
    """Parses the options and prints the figures."""
    parser = size_parser(__doc__, Size)
    parser.add_argument("--memory", default="100,400", help="two numbers of notes")
    parser.add_argument("--endpoint", help="a server that runs; reading alone")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("--turn", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        usage = WAYS[options.way](options.place, options.turn, options.readers)
        print(json.dumps([dataclasses.astuple(usage)]))
        return
    print(machine(), end="\n\n")
    size = Size(options.notes, options.files, options.turns, options.readers)
    with tempfile.TemporaryDirectory() as folder:
        if options.endpoint:
            os.environ["AWS_ENDPOINT_URL"] = options.endpoint
            make_bucket()
            for line in table(figures(folder, size, ["read"])):
                print(line, flush=True)
            return
        server = Server(f"{folder}/server.log")
        try:
            for line in table(figures(folder, size)):
                print(line, flush=True)
            counts = [int(text) for text in options.memory.split(",")]
            measure_requests(folder, server, counts)
            measure_encoder(folder, server)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
