"""What the tests of the binaries share: running them, and damage to run them on."""

import os
import pathlib
import subprocess
import sys
import time

from prefork import Prefork, Process

ROOT = pathlib.Path(__file__).parent.parent


def command(name, *arguments):
    """The command line of a binary, as from a clone."""
    return [sys.executable, str(ROOT / "bin" / name), *map(str, arguments)]


def environment(*paths):
    """That of a user: nothing of what the tests set to quieten TensorFlow."""
    names = ("TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}


def run(name, *arguments, **options):
    """Runs a binary to its end."""
    return finish(command(name, *arguments), **options)


def finish(words, **options):
    """Runs a program to its end; in a fork where `options` and the program allow it."""
    options = {"timeout": 120, **options}
    if can_fork(words) and set(options) <= {"timeout", "cwd"}:
        return _prefork.run(words[1], words[2:], **options)
    options.setdefault("env", environment())
    if "stdout" not in options:
        options["capture_output"] = True
    return subprocess.run(words, text=True, **options)


def can_fork(words):
    """Whether it is one of bin/, or a text, for Python without options."""
    of_python = words[0] == sys.executable and sys.platform == "linux"
    return of_python and (words[1] == "-c" or words[1].startswith(str(ROOT / "bin")))


_prefork = Prefork(environment())


def run_and_signal(words, path, number, plain=False):
    """Starts a program, sends it a signal once `path` exists, and waits for its end.

    `plain`: not in a fork.
    """
    process = start(words, plain)
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    return finish_started(process)


def start(words, plain=False):
    """Starts a program, in a fork where it can; `finish_started` waits for its end."""
    if can_fork(words) and not plain:
        return _prefork.start(words[1], words[2:])
    pipe = subprocess.PIPE
    env = environment()
    return subprocess.Popen(words, env=env, stdout=pipe, stderr=pipe, text=True)


def finish_started(process, timeout=60):
    if isinstance(process, Process):
        return process.finish(timeout)
    output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def error_line(result):
    """The one line that a program left on standard error when it failed."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return line


def names(folder):
    """Everything in a folder, hidden or not, relative to it."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )
