"""A headless Chromium, told what to do through a pipe by the DevTools protocol."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

PATH = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "there is no browser here: Debian's package chromium"
FLAGS = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


class Page:
    """One page.

    `problems` are the errors that it told the console, and the exceptions that nothing caught.
    """

    def __init__(self, write, read):
        self.problems = []
        self._write, self._read, self._rest, self._count, self._session = write, read, b"", 0, {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {
            "sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        }
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, seconds=120, **parameters):
        """Return what a command answers."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + seconds
        while True:
            answer = self._next(end - time.monotonic(), method)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self, seconds, method):
        """Return the next message; note what went wrong in the page."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0, seconds))
            assert ready, f"the browser does not answer {method}"
            piece = os.read(self._read, 1 << 20)
            assert piece, f"the browser has ended, in {method}"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(message)
        kind, told = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown" or told.get("type") in ("error", "assert"):
            self.problems.append(told)
        if kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.problems.append(told)
        return message

    def open(self, url, width, height, mobile=False):
        """Load a page in a window of a size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=url)

    def run(self, script):
        """Return the value of an expression."""
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script, seconds=60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script} has not become true; {self.problems}"
            time.sleep(0.05)
        return value

    def point(self, x, y):
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path):
        """Write a picture of the page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def page(folder):
    """Start a browser whose files go to a folder; give a page of it."""
    from_us, write = os.pipe()
    read, from_it = os.pipe()
    own = f'exec "$@" 3<&{from_us} 4>&{from_it}'  # where a browser looks for its pipe
    command = [
        "bash",
        "-c",
        own,
        "bash",
        PATH,
        *FLAGS,
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=(from_us, from_it), **quiet)
    os.close(from_us)
    os.close(from_it)
    try:
        yield Page(write, read)
    finally:
        process.terminate()
        process.wait(30)
        os.close(write)
        os.close(read)
