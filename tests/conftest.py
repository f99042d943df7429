import zlib

import numpy as np
import pytest

import spcy
from spcy import _threads
from spcy._cpu import simd as simd_levels


@pytest.fixture
def rng(request):
    """A generator that every test case seeds with its own name."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(params=["float32", "float64", "bfloat16"])
def dtype(request):
    if request.param == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(request.param)


@pytest.fixture(params=["cpu", "cuda"])
def backend(request):
    try:
        context = spcy.use_backend(request.param)
        context.__enter__()
    except RuntimeError as error:
        pytest.skip(str(error).split(":")[0])
    yield request.param
    context.__exit__(None, None, None)


@pytest.fixture(params=["avx512_bf16", "avx512", "avx2", "baseline"])
def simd(request):
    if request.param not in simd_levels.available():
        pytest.skip(f"this machine or build has no {request.param}, only {simd_levels.available()}")
    before = simd_levels.current()
    simd_levels.use(request.param)
    yield request.param
    simd_levels.use(before)


@pytest.fixture(params=[1, 2, 3, 4], ids="{}threads".format)
def threads(request, monkeypatch):
    """So many threads for every kernel, however small its work is."""
    if not _threads._native.has_openmp() and request.param > 1:
        pytest.skip("this build has no OpenMP")
    monkeypatch.setattr(_threads, "GRAIN", 1)
    spcy.set_num_threads(request.param)
    yield request.param
    spcy.set_num_threads(None)
