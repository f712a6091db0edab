"""What the benchmarks share: measuring a call, the machine, and tables of figures."""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

__all__ = [
    "Figure",
    "Usage",
    "figure",
    "in_a_process",
    "machine",
    "measured",
    "middle",
    "product_rate",
    "size_parser",
    "table",
]


@dataclasses.dataclass(frozen=True)
class Usage:
    """What something took, of this process and all of its threads.

    Attributes:
      clock: seconds by the clock.
      processor: seconds of processor time; other work on the machine changes it least.
      page_faults: minor ones: pages of 4 kB that the system handed out, zeroed.
    """

    clock: float
    processor: float
    page_faults: float

    def per(self, count: int) -> "Usage":
        """A `count`-th of it."""
        return Usage(*(value / count for value in dataclasses.astuple(self)))

    @property
    def busy(self) -> float:
        """The share of this process's cores that worked, from 0 to 1."""
        return self.processor / self.clock / _num_cores()


@dataclasses.dataclass(frozen=True)
class Figure:
    """A line of a table: what a task takes, and how often that fits into another.

    Attributes:
      task: what was measured.
      usage: what it took.
      other: what it is compared with.
      clock_ratio: how many times as long the other takes by the clock; NaN if it has
        no such time.
      processor_ratio: the same by processor time.
      remark: what else is to be said.
    """

    task: str
    usage: Usage
    other: str
    clock_ratio: float
    processor_ratio: float
    remark: str = ""


def figure(
    task: str, usage: Usage, other: str, others: Usage, remark: str = ""
) -> Figure:
    """Compares what a task takes with what another takes."""
    ratios = others.clock / usage.clock, others.processor / usage.processor
    return Figure(task, usage, other, *ratios, remark)


def table(figures: Iterable[Figure]) -> Iterable[str]:
    """Yields the lines of a Markdown table as the figures come."""
    yield (
        "| task | clock, s | processor, s | page faults | compared with | ratio, clock "
        "| ratio, processor | |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for one in figures:
        usage = one.usage
        yield (
            f"| {one.task} | {usage.clock:.4g} | {usage.processor:.4g} "
            f"| {usage.page_faults:.0f} | {one.other} | {_ratio(one.clock_ratio)} "
            f"| {_ratio(one.processor_ratio)} | {one.remark} |"
        )


def _ratio(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def size_parser(doc: str | None, size: type) -> argparse.ArgumentParser:
    """A parser with an option for each field of a dataclass of whole numbers.

    Args:
      doc: the program's docstring, whose first line is the description.
      size: the dataclass, with defaults.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    for field in dataclasses.fields(size):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    return parser


def measured(work: Callable[[], object]) -> Usage:
    """Calls `work` and measures it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(
        seconds,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        after.ru_minflt - before.ru_minflt,
    )


def middle(usages: Sequence[Usage]) -> Usage:
    """The median of each."""
    return Usage(*np.median([dataclasses.astuple(one) for one in usages], axis=0))


def in_a_process(
    script: str, arguments: Sequence[str], package: str = ""
) -> list[Usage]:
    """Runs a benchmark in a process of its own, with its own settings of threads.

    Args:
      script: its file. It prints its last line with `json.dumps`: a list of usages.
      arguments: what it takes.
      package: a folder with another version of magenta_nsynth; "" for this one.
    """
    paths = [package] if package else []
    paths += [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    done = subprocess.run(
        [sys.executable, script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    return [Usage(*values) for values in json.loads(done.stdout.splitlines()[-1])]


def product_rate(repetitions: int = 6) -> float:
    """The floating-point operations a second of a core, in large matrix products.

    By processor time; of a GPU, if there is one, by the clock.
    """
    import tensorflow as tf

    size = 2000
    square = tf.random.stateless_normal([size, size], (0, 0))

    def products() -> None:
        for _ in range(repetitions):
            product = tf.matmul(square, square)
        product.numpy()  # waits for it

    products()
    usage = measured(products)
    seconds = usage.clock if _gpus() else usage.processor
    return repetitions * 2 * size**3 / seconds


def machine() -> str:
    """Names the processor, the GPUs, and what is installed."""
    model, flags = platform.processor(), set[str]()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # Linux only
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    model = value.strip()
                elif name.strip() == "flags":
                    flags = set(value.split())
    except OSError:
        pass
    features = [f for f in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if f in flags]
    parts = [
        f"{_num_cores()} cores of {model} ({', '.join(features)})",
        ", ".join(_gpus()) or "no GPU",
        f"Python {platform.python_version()}",
        *(f"{p} {importlib.metadata.version(p)}" for p in ("tensorflow", "numpy")),
        f"load {os.getloadavg()[0]:.1f} before the start",
    ]
    return "; ".join(parts)


def _num_cores() -> int:
    # Not the package's, which an older version may lack.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return [one.get("device_name", "a GPU") for one in details]
