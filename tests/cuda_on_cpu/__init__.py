"""CUDA on the CPU: run the kernels of src/cuda and the code that launches them with no GPU.

`build` compiles a kernel's text with g++, after the header cuda.h, into a library for the machine of
runtime.cpp, in which the threads of a block are fibers. `cupy` is a stand-in for CuPy that launches them.
`schedule` says in which order threads run, and whether their memory accesses are checked. What this
cannot tell: speed, the hardware's memory model, and whether PTX means what cuda.h says of it.
"""

import sys
from contextlib import contextmanager

from .build import CompileError, available
from .schedule import FORWARD, RANDOM, REVERSE, SCHEDULES, Schedule, counting, running

__all__ = [
    "FORWARD",
    "RANDOM",
    "REVERSE",
    "SCHEDULES",
    "CompileError",
    "Schedule",
    "available",
    "counting",
    "installed",
    "running",
]


@contextmanager
def installed():
    """Let `import cupy` give the stand-in, and import spcy's CUDA half anew for it."""
    from . import cupy

    package = sys.modules.get("spcy")

    def take():
        if hasattr(package, "_cuda"):
            del package._cuda
        names = [name for name in sys.modules if name == "cupy" or name.startswith(("cupy.", "spcy._cuda"))]
        return {name: sys.modules.pop(name) for name in names}

    before = take()
    sys.modules["cupy"] = cupy
    try:
        yield cupy
    finally:
        take()
        sys.modules.update(before)
        if "spcy._cuda" in before:
            package._cuda = before["spcy._cuda"]
