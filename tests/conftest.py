import collections
import gc
import zlib

import cuda_on_cpu
import machine
import numpy as np
import pytest

import spcy
from spcy import _threads
from spcy._cpu import simd as simd_levels


def pytest_configure(config):
    """Give each worker of pytest-xdist files in a row: what a file makes once, mostly one worker makes."""
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "worksteal"


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Never look for garbage among thousands of tests: each look would take longer than most of them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def rng(request):
    """A generator that every test case seeds with its own name."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(autouse=True)
def seeded_torch(request):
    """Weights that PyTorch draws are a test case's own too: some lie where a ReLU has no gradient."""
    if request.node.get_closest_marker("torch"):
        pytest.importorskip("torch").manual_seed(zlib.crc32(request.node.name.encode()))


@pytest.fixture(params=machine.here(machine.DTYPES))
def dtype(request):
    if request.param == "bfloat16":
        return np.dtype(machine.ml_dtypes.bfloat16)
    return np.dtype(request.param)


@pytest.hookimpl(tryfirst=True)  # before -k and -m leave out what was not asked for
def pytest_collection_modifyitems(session, items):
    """Leave out what repeats a test: the GPU has neither threads of the host nor its SIMD levels.

    Its emulation takes a hundred times as long: where a mark ``emulated(name=choices)`` says so, it runs only
    those. Where no code joins parameters, a mark ``paired(first, second, ..)`` says so: each choice of the
    first runs with one of the others, each of the others with one of the first, and not each with each.
    """
    items[:] = [item for item in items if not _repeats(getattr(item, "callspec", None)) and _chosen(item)]
    marked = [(item, marks) for item in items if (marks := [*item.iter_markers("paired")])]
    ranks = collections.defaultdict(dict)  # of a parameter's choices, by which comes first
    for item, _ in marked:
        for name, choice in item.callspec.params.items():
            known = ranks[_function(item), name]
            known.setdefault(id(choice), len(known))
    stay = [item for item, marks in marked if all(_pairs(item, mark, ranks) for mark in marks)]
    left_out = {item for item, _ in marked}.difference(stay)
    items[:] = [item for item in items if item not in left_out]
    session.stash[machine.LEFT_OUT] = _choices(item for item, _ in marked) - _choices(stay)


def _choices(items):
    return {(*_function(item), *choice) for item in items for choice in _named(item)}


def _named(item):
    return ((name, id(choice)) for name, choice in item.callspec.params.items())


def _function(item):
    return item.parent.nodeid, item.originalname, item.callspec.params.get("backend")


def _pairs(item, mark, ranks):
    """Whether a case is one that the mark leaves.

    Which these are changes with all other parameters, so that more pairs occur. A mark with ``backend=name``
    is about that one alone.
    """
    params = item.callspec.params
    if "backend" in mark.kwargs and mark.kwargs["backend"] != params["backend"]:
        return True
    rank = {name: ranks[_function(item), name][id(choice)] for name, choice in params.items()}
    count = {name: len(ranks[_function(item), name]) for name in rank}
    first, *others = mark.args
    together, choices = 0, 1
    for name in others:
        together, choices = together * count[name] + rank[name], choices * count[name]
    shift = sum(rank[name] for name in rank if name not in mark.args)
    return (rank[first] + shift - together) % min(count[first], choices) == 0


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


@pytest.fixture(params=machine.here(machine.BACKENDS))
def backend(request):
    """The backend in force; emulated threads run in an order that the test's name picks."""
    if machine.BACKENDS[request.param]:  # of a test that is for this one alone
        pytest.skip(machine.BACKENDS[request.param])
    if request.param == "cuda-emulated":
        seed = zlib.crc32(request.node.name.encode())
        schedule = [*cuda_on_cpu.SCHEDULES][seed % len(cuda_on_cpu.SCHEDULES)]
        with cuda_on_cpu.installed(), cuda_on_cpu.running(schedule, seed=seed), spcy.use_backend("cuda"):
            yield "cuda"
        return
    with spcy.use_backend(request.param):
        yield request.param


@pytest.fixture(params=machine.here(machine.LEVELS))
def simd(request):
    before = simd_levels.current()
    simd_levels.use(request.param)
    yield request.param
    simd_levels.use(before)


@pytest.fixture(params=machine.here(machine.THREADS), ids="{}threads".format)
def threads(request, monkeypatch):
    """So many threads for every kernel, however small its work is."""
    if machine.THREADS[request.param]:
        pytest.skip(machine.THREADS[request.param])
    monkeypatch.setattr(_threads, "GRAIN", 1)
    spcy.set_num_threads(request.param)
    yield request.param
    spcy.set_num_threads(None)
