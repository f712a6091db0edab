"""A browser for tests of pages, by WebDriver."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest


class Browser:
    """As much of WebDriver as the test needs."""

    def __init__(self, port, *arguments):
        self._base = f"http://127.0.0.1:{port}"
        options = {
            "args": ["--headless", "--no-sandbox", "--disable-gpu",
                     "--disable-background-networking", *arguments],
        }  # fmt: skip
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
        session = self._call("POST", "/session", {"capabilities": capabilities})
        self._base += f"/session/{session['sessionId']}"

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            self._base + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def go(self, url):
        self._call("POST", "/url", {"url": url})

    def find(self, selector):
        found = self._call(
            "POST", "/elements", {"using": "css selector", "value": selector}
        )
        return [next(iter(element.values())) for element in found]

    def click(self, element):
        self._call("POST", f"/element/{element}/click", {})

    def press(self, element, keys):
        self._call("POST", f"/element/{element}/value", {"text": keys})

    def run(self, script):
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, script):
        """Runs a script and waits for the promise that it returns."""
        body = (
            "const done = arguments[0];"
            f"(async () => {{ {script} }})().then(done, e => done(String(e.stack)));"
        )
        return self._call("POST", "/execute/async", {"script": body, "args": []})

    def act(self, kind, *actions):
        """Performs actions of a "pointer" or a "key", one after the other."""
        source = {"type": kind, "id": kind, "actions": list(actions)}
        self._call("POST", "/actions", {"actions": [source]})

    def emulate(self, command, **parameters):
        """Sends a command of the DevTools protocol."""
        body = {"cmd": command, "params": parameters}
        return self._call("POST", "/goog/cdp/execute", body)

    def close(self):
        self._call("DELETE", "")


def driver_port():
    """Starts chromedriver, yields its port, and ends it; skips if there is none."""
    path = shutil.which("chromedriver")
    if path is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [path, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield port
    process.terminate()
    process.wait(10)
