import zlib

import cuda_on_cpu
import numpy as np
import pytest

import spcy
from spcy import _threads
from spcy._cpu import simd as simd_levels


@pytest.fixture
def rng(request):
    """A generator that every test case seeds with its own name."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(autouse=True)
def seeded_torch(request):
    """Weights that PyTorch draws are a test case's own too: some lie where a ReLU has no gradient."""
    if request.node.get_closest_marker("torch"):
        pytest.importorskip("torch").manual_seed(zlib.crc32(request.node.name.encode()))


@pytest.fixture(params=["float32", "float64", "float16", "bfloat16"])
def dtype(request):
    if request.param == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(request.param)


def pytest_collection_modifyitems(items):
    """Leave out what repeats a test: the GPU has neither threads of the host nor its SIMD levels.

    Its emulation takes a hundred times as long: where a mark ``emulated(name=choices)`` says so, it runs only
    those.
    """
    items[:] = [item for item in items if not _repeats(getattr(item, "callspec", None)) and _chosen(item)]


def _chosen(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if params.get("backend") != "cuda-emulated":
        return True
    marks = [mark.kwargs.items() for mark in item.iter_markers("emulated")]
    return all(params.get(name) in (None, *choices) for mark in marks for name, choices in mark)


def _repeats(callspec):
    params = callspec.params if callspec else {}
    on_gpu = params.get("backend", "cpu") != "cpu"
    return on_gpu and (params.get("threads", 1) != 1 or params.get("simd", "baseline") != "baseline")


@pytest.fixture(params=["cpu", "cuda-emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def backend(request):
    """The backend in force; emulated threads run in an order that the test's name picks."""
    if request.param == "cuda-emulated":
        if cuda_on_cpu.available():
            pytest.skip(cuda_on_cpu.available())
        seed = zlib.crc32(request.node.name.encode())
        schedule = [*cuda_on_cpu.SCHEDULES][seed % len(cuda_on_cpu.SCHEDULES)]
        with cuda_on_cpu.installed(), cuda_on_cpu.running(schedule, seed=seed), spcy.use_backend("cuda"):
            yield "cuda"
        return
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
