"""A network of the tests that workers can import."""

import os
import signal
import time
from pathlib import Path

from spcy import nn


class Noted(nn.Module):
    """Keeps the sites, and does something when it runs, or is unpickled."""

    receptive_field = 1

    def __init__(self, folder, act=""):
        self.linear, self.folder, self.act = nn.Linear(3, 4, rng=0), Path(folder), act

    def __setstate__(self, state):
        self.__dict__.update(state)
        (self.folder / f"unpickled-{time.time_ns()}").touch()

    def forward(self, x):
        (self.folder / f"ran-{os.getpid()}-{time.time_ns()}").touch()
        if self.act == "sleep":
            time.sleep(0.05)
        once = self.folder / "once"
        if self.act in ("die", "hoard") and not once.exists():
            once.touch()
            if self.act == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            hoard = bytearray(b"x" * 1_000_000_000)
            time.sleep(60)
            hoard.clear()
        if (
            self.act == "fail"
            and not (self.folder / "mended").exists()
            and len([*self.folder.glob("ran-*")]) > 3
        ):
            raise OSError("the roof is leaking")
        return self.linear(x)
