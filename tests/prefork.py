"""Runs Python programs in forks of a process that has imported TensorFlow.

Importing TensorFlow takes six seconds of a processor, and the tests start more than a
hundred programs. What a fork runs is the program as it is, with its own flags, files,
signals and exit; only the imports are done before. What tests importing is started in
the plain way.
"""

import array
import atexit
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import threading
import traceback


class Prefork:
    """The client's side; the other side starts when first needed."""

    def __init__(self, environment):
        """`environment` is that of the programs."""
        self._environment = environment
        self._socket = None

    def run(self, program, arguments, timeout, cwd=None):
        """Runs a program to its end; as subprocess.run with text captured."""
        return self.start(program, arguments, cwd).finish(timeout)

    def start(self, program, arguments, cwd=None):
        """Starts a program, a file or "-c" with the text as first argument."""
        output = tempfile.TemporaryFile()  # noqa: SIM115
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        ours, theirs = socket.socketpair()
        request = {"argv": [program, *arguments], "cwd": cwd or os.getcwd()}
        files = [theirs.fileno(), output.fileno(), errors.fileno()]
        self._send(json.dumps(request).encode(), files)
        theirs.close()
        return Process([sys.executable, program, *arguments], ours, output, errors)

    def _send(self, request, files):
        if self._socket is None:
            self._socket, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
            subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=self._environment,
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            theirs.close()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
        self._socket.sendmsg([request], [rights])


class Process:
    """A program that was started; as far as needed like subprocess.Popen."""

    def __init__(self, words, connection, output, errors):
        self._words, self._connection = words, connection
        self._files = (output, errors)
        connection.settimeout(120)
        # A line with its number, and when it has ended one with its status.
        self._answer = connection.makefile()
        self.pid = int(self._answer.readline())

    def poll(self):
        """None while it runs."""
        return True if select.select([self._connection], [], [], 0)[0] else None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def finish(self, timeout):
        """Waits for the end; what subprocess.run returns with text captured."""
        self._connection.settimeout(timeout)
        with self._connection, self._answer:
            answer = self._answer.readline()
        texts = []
        for file in self._files:
            with file:
                file.seek(0)
                texts.append(file.read().decode())
        if not answer:
            raise ChildProcessError(f"{self._words} ended without a status: {texts}")
        return subprocess.CompletedProcess(self._words, int(answer), *texts)


def serve(number):
    """The server: forks for each request, until the client is gone."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = (
        "3"  # as the programs set before they import it
    )
    import keras  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import scipy.io.wavfile
    import scipy.signal  # noqa: F401
    import tensorflow  # noqa: F401

    server = socket.socket(fileno=number)
    size = array.array("i", [0] * 3).itemsize * 3
    while True:
        request, rights, _, _ = server.recvmsg(1 << 20, socket.CMSG_SPACE(size))
        if not request:
            return
        files = array.array("i")
        files.frombytes(rights[0][2][:size])
        if os.fork() == 0:
            server.close()
            answer = socket.socket(fileno=files[0])
            child = os.fork()
            if child == 0:
                answer.close()
                become(json.loads(request), files[1], files[2])
            answer.sendall(b"%d\n" % child)
            _, status = os.waitpid(child, 0)
            answer.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)
        for file in files:
            os.close(file)
        reap()


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def become(request, output, errors):
    """Is the program, from its first line to its exit."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.chdir(request["cwd"])
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = request["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    status = 0
    try:
        if sys.argv[0] == "-c":
            exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
