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


_modules = {}  # the stand-in's, and spcy's CUDA half that was imported for it


@contextmanager
def installed():
    """Let `import cupy` give the stand-in, and spcy's CUDA half be the one imported for it."""
    from . import cupy

    before = _take()
    _put(_modules or {"cupy": cupy})
    try:
        yield cupy
    finally:
        _modules.update(_take())
        _put(before)


def _take():
    """Remove what depends on CuPy from the modules, and return it."""
    names = [name for name in sys.modules if name == "cupy" or name.startswith(("cupy.", "spcy._cuda"))]
    sys.modules["spcy"].__dict__.pop("_cuda", None)
    return {name: sys.modules.pop(name) for name in names}


def _put(modules):
    sys.modules.update(modules)
    if "spcy._cuda" in modules:
        sys.modules["spcy"]._cuda = modules["spcy._cuda"]
