"""What tests run for: each choice, and why it is not on this machine, or None."""

import cuda_on_cpu
import pytest

import spcy
from spcy import _threads
from spcy._cpu import simd

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None


def _no_gpu():
    try:
        with spcy.use_backend("cuda"):
            return None
    except RuntimeError as error:
        return str(error).split(":")[0]


def _no_level(name):
    if name not in simd.available():
        return f"this machine or build has no {name}, only {simd.available()}"
    return None


_NO_OPENMP = None if _threads._native.has_openmp() else "this build has no OpenMP"
DTYPES = {"float32": None, "float64": None, "float16": None}
DTYPES["bfloat16"] = None if ml_dtypes else "there is no ml_dtypes"
BACKENDS = {"cpu": None, "cuda-emulated": cuda_on_cpu.available(), "cuda": _no_gpu()}
LEVELS = {name: _no_level(name) for name in ("avx512_bf16", "avx512", "avx2", "baseline")}
THREADS = {1: None, 2: _NO_OPENMP, 3: _NO_OPENMP, 4: _NO_OPENMP}
LEFT_OUT = pytest.StashKey[set]()  # choices of tests that are ``paired`` in such a way that none has it
EVERYTHING = {"dtype": DTYPES, "backend": BACKENDS, "simd": LEVELS, "threads": THREADS}


def here(choices):
    """Return the parameters of a fixture: test_machine says once what is left out, not thousands of tests."""
    marks = {"cuda": pytest.mark.cuda}
    return [pytest.param(name, marks=marks.get(name, ())) for name, reason in choices.items() if not reason]
