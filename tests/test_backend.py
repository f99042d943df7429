import importlib
import inspect
import os
import subprocess
import sys
import threading

import cuda_on_cpu
import numpy as np
import pytest

import spcy
from spcy import _backend
from spcy._cpu import simd


def run(code, **env):
    """Run code in a new interpreter with only these SPCY and OMP variables."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SPCY_", "OMP_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(autouse=True)
def _restore():
    before = spcy.get_backend()
    yield
    spcy.set_backend(before)


@pytest.fixture
def no_cuda():
    try:
        with spcy.use_backend("cuda"):
            pytest.skip("this machine has a CUDA backend")
    except RuntimeError:
        pass


def test_flag():
    spcy.set_backend("cpu")
    assert spcy.get_backend() == "cpu"
    spcy.set_backend("auto")
    assert spcy.get_backend() in ("cpu", "cuda")
    with spcy.use_backend("cpu"):
        assert spcy.get_backend() == "cpu"
        assert spcy.SparseTensor([[0, 1]], np.ones((1, 1))).backend == "cpu"


@pytest.fixture
def any_name(monkeypatch):
    """Let the flag take any name, to tell settings apart where there is one backend only."""
    monkeypatch.setattr(_backend, "_resolve", lambda name: name)


def test_use_backend_nests_and_is_restored_after_an_error(any_name):
    before = spcy.get_backend()
    with spcy.use_backend("one"):
        with pytest.raises(KeyError, match="two"), spcy.use_backend("two"):
            raise KeyError(spcy.get_backend())
        assert spcy.get_backend() == "one"
    assert spcy.get_backend() == before


@pytest.mark.parametrize("name", ["gpu", "CPU", "", None, 0])
def test_unknown_name(name):
    for choose in (spcy.set_backend, lambda name: spcy.use_backend(name).__enter__()):
        with pytest.raises((ValueError, TypeError), match=r"^backend .*'cpu'.*'cuda'.*'auto'.*got"):
            choose(name)


def test_asking_for_cuda_without_one_raises_at_once(no_cuda):
    x = spcy.SparseTensor([[0, 1]], np.ones((1, 1)))
    for ask in (spcy.set_backend, lambda name: spcy.use_backend(name).__enter__(), x.to):
        with pytest.raises(RuntimeError, match=r"cuda.* not available"):
            ask("cuda")
        assert spcy.get_backend() == "cpu"


def test_arrays_of_another_device_are_refused(no_cuda):
    class Foreign:
        __cuda_array_interface__ = {"shape": (1, 1), "typestr": "<f4", "data": (0, False), "version": 3}  # noqa: RUF012

    x = spcy.SparseTensor([[0, 1]], np.ones((1, 1)))
    for call in (
        lambda: x.replace(Foreign()),
        lambda: spcy.Coords(Foreign()),
        lambda: spcy.subm_conv(x, Foreign()),
        lambda: spcy.voxelize(Foreign(), 1),
    ):
        with pytest.raises((RuntimeError, TypeError), match="cuda"):
            call()


def test_block_holds_in_its_own_thread_only(any_name):
    seen = []
    with spcy.use_backend("one"):
        thread = threading.Thread(target=lambda: seen.append(spcy.get_backend()))
        thread.start()
        thread.join()
        assert spcy.get_backend() == "one"
    if getattr(sys.flags, "thread_inherit_context", False):
        assert seen == ["one"]
    else:
        assert seen == [spcy.get_backend()] != ["one"]


def test_import_needs_numpy_alone():
    """No CuPy, no plotting, no reader of scans is imported with the package, nor what is slow of Python's."""
    out = run("import sys, spcy; print(*sorted({m.split('.')[0] for m in sys.modules}))")
    assert out.returncode == 0, out.stderr
    assert "numpy" in out.stdout.split()
    assert not {"cupy", "matplotlib", "scipy", "torch", "trimesh", "pypcd4"} & set(out.stdout.split())
    assert not {"email", "html", "zipfile"} & set(out.stdout.split())
    assert out.stderr == ""


@pytest.mark.parametrize(("name", "ok"), [("cpu", True), ("auto", True), ("tpu", False)])
def test_backend_from_the_environment(name, ok):
    out = run("import spcy; print(spcy.get_backend())", SPCY_BACKEND=name)
    if ok:
        assert out.stdout.strip() in ("cpu", "cuda"), out.stderr
    else:
        assert out.returncode != 0
        assert "ValueError" in out.stderr
        assert "'tpu'" in out.stderr


@pytest.mark.parametrize("name", [*simd.available(), "sse9"])
def test_simd_from_the_environment(name):
    out = run("import spcy; from spcy._cpu import simd; print(simd.current())", SPCY_SIMD=name)
    if name in simd.available():
        assert out.stdout.strip() == name, out.stderr
    else:
        assert out.returncode != 0
        assert "SPCY_SIMD" in out.stderr
        assert "baseline" in out.stderr


def test_simd_levels():
    levels = simd.available()
    assert levels[-1] == "baseline"
    assert set(levels) <= {"avx512_bf16", "avx512", "avx2", "baseline"}
    assert run("from spcy._cpu import simd; print(simd.current())").stdout.strip() == levels[0]
    before = simd.current()
    with pytest.raises(ValueError, match="baseline"):
        simd.use("sse9")
    assert simd.current() == before


@pytest.mark.parametrize(
    "stage", ["builders", "coords", "hashmap", "rulebook", "conv", "pool", "corners", "grad"]
)
def test_twins_have_the_same_functions(stage):
    """The kernels of both backends have the same names and arguments."""
    cpu = importlib.import_module(f"spcy._cpu.{stage}")
    with cuda_on_cpu.installed():
        cuda = importlib.import_module(f"spcy._cuda.{stage}")
    functions = {name: f for name, f in vars(cpu).items() if callable(f) and not name.startswith("_")}
    functions = {name: f for name, f in functions.items() if f.__module__ == cpu.__name__}
    # The CPU's builders walk through sorted keys, the GPU's look keys up, and sort as CuPy does.
    own = {"rulebook": {"cut_tiles"}, "coords": {*functions} - {"sort"}}.get(stage, {*functions})
    functions = {name: f for name, f in functions.items() if name in own}
    assert functions
    twins = [(function, getattr(cuda, name)) for name, function in functions.items()]
    for ours, other in [twin for twin in twins if inspect.isclass(twin[0])]:
        twins.remove((ours, other))  # Cython tells the arguments of methods only
        twins += [(f, getattr(other, name)) for name, f in vars(ours).items() if not name.startswith("_")]
    for ours, other in twins:
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(other).parameters), ours


def test_public_names():
    assert len(set(spcy.__all__)) == len(spcy.__all__)
    for name in spcy.__all__:
        assert inspect.getdoc(getattr(spcy, name)), name
    assert spcy.__version__[0].isdigit()
