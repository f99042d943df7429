import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import accumulate, assert_close, get, random_tensor, random_weight
from test_backend import run

import spcy
from spcy import _threads

COUNTS = (1, 2, 3, 4)


@pytest.fixture(autouse=True)
def _restore():
    yield
    spcy.set_num_threads(None)


def openmp():
    return _threads._native.has_openmp()


def test_setting():
    default = spcy.get_num_threads()
    assert default >= 1
    for n in COUNTS:
        spcy.set_num_threads(n)
        assert spcy.get_num_threads() == (n if openmp() else 1)
    spcy.set_num_threads(None)
    assert spcy.get_num_threads() == default


@pytest.mark.parametrize(("asked", "expected"), [("1", 1), ("3", 3), ("2,4", 2), ("1000000", 512)])
def test_omp_num_threads(asked, expected):
    out = run("import spcy; print(spcy.get_num_threads())", OMP_NUM_THREADS=asked)
    assert out.stdout.strip() == str(expected if openmp() else 1), out.stderr


def test_affinity_is_the_default():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no CPU affinity")
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import spcy; print(spcy.get_num_threads())"
    )
    assert run(code).stdout.strip() == "1"


QUOTAS = {
    "v2": (
        "0::/a/b",
        {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000", "cpu.max": "400000 100000"},
        2,
    ),
    "v2_in_a_container": ("0::/not/mounted", {"cpu.max": "50000 100000"}, 1),
    "v2_without": ("0::/a", {"a/cpu.max": "max 100000"}, 1 << 30),
    "v1": (
        "3:cpuset:/\n2:cpu,cpuacct:/a\n0::/",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        3,
    ),
    "v1_without": (
        "2:cpu:/",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        1 << 30,
    ),
    "none": ("", {}, 1 << 30),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_quota_of_control_groups(name, tmp_path, monkeypatch):
    own, files, expected = QUOTAS[name]
    for path, content in files.items():
        (tmp_path / "groups" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / path).write_text(content + "\n")
    (tmp_path / "own").write_text(own + "\n")
    monkeypatch.setattr(_threads, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(_threads, "_GROUPS", tmp_path / "groups")
    assert _threads._quota() == expected


def test_small_work_takes_one_thread():
    spcy.set_num_threads(4)
    assert _threads.threads_for(100) == 1
    assert _threads.threads_for(1e12) == (4 if openmp() else 1)


def network(x, rng):
    """Every kind of layer; return the arrays of all of them."""
    dtype, c = x.dtype, x.num_channels
    weights = [random_weight(rng, (3, 3, 3), c, c, dtype) for _ in range(4)]
    a = spcy.subm_conv(x, *weights[0])
    b = spcy.conv(a, *weights[1], stride=2, padding=1)
    d = spcy.conv_transpose(b, *weights[2], stride=2)
    e = spcy.inverse_conv(b, *weights[3])
    f = spcy.max_pool(x, 3, 2)
    h = spcy.avg_pool(x, 2)
    g = spcy.subm_conv(x, weights[0][0][..., : c // 3, :], groups=3)
    w = spcy.conv(x, weights[1][0][..., :1, :], stride=2, padding=1, groups=c, sites="floor")
    part = spcy.prune(x, np.arange(len(x.features)) % 3 > 0)
    both = spcy.add(part, e)
    out = [y.features for y in (a, b, d, e, f, g, h, w, spcy.unpool(f), spcy.unpool(d), both)]
    out += [y.indices for y in (b, d, f, h, w)] + [
        pool(x) for pool in (spcy.global_avg_pool, spcy.global_max_pool)
    ]
    points = np.random.default_rng(3).uniform(0, 30, (5000, 3))
    voxels = spcy.voxelize(points, 1.5)
    out += [voxels.tensor.features, voxels.rows, voxels.counts, x.rows_of(x.indices[::-1])]
    out += [spcy.devoxelize(a, points, mode, batch=np.zeros(5000, int)) for mode in ("nearest", "linear")]
    books = [spcy.submanifold_rulebook(x.coords, spcy.kernel_offsets((3, 3, 3)) - 1)]
    books += [spcy.submanifold_rulebook(x.coords, [[0, 0, 0], [1, 2, 0], [0, 0, -1]])]
    books += [
        build(x.coords, spcy.kernel_offsets((2, 3, 2)), stride=2)[0]
        for build in (spcy.conv_rulebook, spcy.transposed_rulebook)
    ]
    return out + [array for book in books for array in (book.in_rows, book.out_rows, book.offset_ptr)]


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_any_number_of_threads_gives_the_same_bits(order, dtype, simd, monkeypatch):
    monkeypatch.setattr(_threads, "GRAIN", 1)
    results = []
    for n in COUNTS:
        spcy.set_num_threads(n)
        rng = np.random.default_rng(11)
        x = random_tensor(rng, 3000, (24, 25, 26), 9, dtype, batch_size=2)
        if order == "sorted":
            rows = np.lexsort(x.indices.T[::-1])
            x = spcy.SparseTensor(x.indices[rows], x.features[rows], shape=x.shape, batch_size=2)
        results.append(network(x, rng))
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(actual, expected)
            assert actual.dtype == expected.dtype


@pytest.mark.paired("dtype", "threads")
@pytest.mark.parametrize("channels", [(16, 32), (33, 17)], ids=["16to32", "33to17"])
def test_large_convolution_is_the_sum_over_its_pairs(channels, dtype, simd, threads):
    """More tiles than threads, and work enough for all of them."""
    rng = np.random.default_rng(7)
    x = random_tensor(rng, 8000, (30, 31, 32), channels[0], dtype)
    weight, bias = random_weight(rng, (3, 3, 3), *channels, dtype)
    book = spcy.submanifold_rulebook(x.coords, spcy.kernel_offsets((3, 3, 3)) - 1)
    expected = accumulate(get(x.features), get(weight), book) + get(bias)
    assert_close(spcy.subm_conv(x, weight, bias).features, expected, dtype)
    book, coords = spcy.conv_rulebook(x.coords, spcy.kernel_offsets((3, 3, 3)), stride=2)
    expected = accumulate(get(x.features), get(weight), book)
    y = spcy.conv(x, weight, stride=2)
    assert y.coords is coords
    assert_close(y.features, expected, dtype)


FORK = """
import os, numpy as np, spcy
from spcy import _threads
_threads.GRAIN = 1
spcy.set_num_threads(4)
x = spcy.SparseTensor(np.argwhere(np.ones((1, 20, 20, 20))), np.ones((8000, 8), np.float32))
w = np.ones((3, 3, 3, 8, 8), np.float32)
before = spcy.subm_conv(x, w).features
for _ in range(3):
    child = os.fork()
    if child == 0:
        x = spcy.SparseTensor(x.indices, x.features)
        os._exit(0 if np.array_equal(spcy.subm_conv(x, w).features, before) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(spcy.subm_conv(x, w).features, before)
print("both")
"""


FEWER = """
import numpy as np, spcy
from spcy import _threads
results = []
for _threads.GRAIN in (10**9, 1):
    spcy.set_num_threads(4)
    rng = np.random.default_rng(0)
    cells = np.argwhere(rng.random((2, 20, 20, 20)) < 0.5)
    x = spcy.SparseTensor(rng.permutation(cells), rng.standard_normal((len(cells), 8)))
    w = rng.standard_normal((3, 3, 3, 8, 8))
    y = spcy.conv(spcy.subm_conv(x, w), w, stride=2)
    results.append((x.rows_of(x.indices), y.indices, y.features, spcy.unpool(spcy.max_pool(x, 2)).features))
assert (results[0][0] == np.arange(len(cells))).all()
for one, four in zip(*results):
    assert np.array_equal(one, four)
print("same")
"""


@pytest.mark.parametrize(
    "setting",
    [
        "OMP_THREAD_LIMIT=2",
        "OMP_THREAD_LIMIT=1",
        "OMP_DYNAMIC=true",
        "OMP_PROC_BIND=true",
        "OMP_WAIT_POLICY=active",
    ],
)
def test_settings_of_the_runtime(setting):
    """The runtime may start fewer threads, or bind them all to one core; nothing is left out then."""
    name, _, value = setting.partition("=")
    out = run(FEWER, **{name: value})
    assert out.stdout.strip() == "same", out.stderr


def test_fork_after_use():
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    out = run(FORK)
    assert out.stdout.strip() == "both", out.stderr


BUSY = """
import os, threading, numpy as np, spcy
from spcy import _threads
_threads.GRAIN = 1
x = spcy.SparseTensor(np.argwhere(np.ones((1, 20, 20, 20))), np.ones((8000, 16), np.float32))
w = np.ones((3, 3, 3, 16, 16), np.float32)
spcy.set_num_threads(1)
expected = spcy.subm_conv(x, w).features
spcy.set_num_threads({threads})

def right():
    return np.array_equal(spcy.subm_conv(x, w).features, expected)

def forever():
    while True:
        spcy.subm_conv(x, w)

for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
"""

FORK_WHILE_BUSY = """
import warnings
warnings.simplefilter("ignore")  # of newer Pythons: this process has several threads
for _ in range(20):
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if right() else 1)
        ended = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
        os._exit(0 if right() and ended == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert right()
print("all")
"""


@pytest.mark.parametrize("count", [2, 4])
def test_fork_while_jobs_run(count):
    """The child has none of the helpers, and none of the callers whose jobs it sees begun."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    out = run(BUSY.replace("{threads}", str(count)) + FORK_WHILE_BUSY)
    assert out.stdout.strip() == "all", out.stderr


@pytest.mark.parametrize("way", ["", "raise SystemExit(3)", "raise KeyError('why')", "os._exit(4)"])
def test_interpreter_exit_while_jobs_run(way):
    out = run(BUSY.replace("{threads}", "3") + f"assert right()\nprint('right', flush=True)\n{way}\n")
    assert out.stdout.strip() == "right", out.stderr
    assert out.returncode == {"": 0, "raise SystemExit(3)": 3, "os._exit(4)": 4}.get(way, 1), out.stderr
    assert "terminate" not in out.stderr


def test_an_exception_between_kernels():
    """A signal's handler raises while a kernel runs; the next call is right."""
    code = """
import signal

class Stop(Exception): pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGALRM, stop)
for _ in range(20):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003)  # which a busy machine may let pass before the call
        while True:
            spcy.subm_conv(x, w)
    except Stop:
        pass
    assert right()
print("right")
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no timers that send signals")
    out = run(BUSY.replace("{threads}", "4").replace("range(3)", "range(1)") + code)
    assert out.stdout.strip() == "right", out.stderr


def test_more_threads_than_cores(rng, monkeypatch):
    monkeypatch.setattr(_threads, "GRAIN", 1)
    x = random_tensor(rng, 8000, (24, 25, 26), 8)
    weight, bias = random_weight(rng, (3, 3, 3), 8, 8)
    results = []
    for n in (1, 200, 2, 512):
        spcy.set_num_threads(n)
        y = spcy.conv(
            spcy.subm_conv(spcy.SparseTensor(x.indices, x.features), weight, bias), weight, stride=2
        )
        results.append((y.indices, y.features))
    for indices, features in results[1:]:
        np.testing.assert_array_equal(indices, results[0][0])
        np.testing.assert_array_equal(features, results[0][1])


def test_more_callers_than_jobs_at_once(rng, monkeypatch):
    """Whoever finds no place for a job works alone."""
    monkeypatch.setattr(_threads, "GRAIN", 1)
    spcy.set_num_threads(3)
    x = random_tensor(rng, 4000, (20, 21, 22), 8)
    weight = random_weight(rng, (3, 3, 3), 8, 8)[0]
    expected = spcy.subm_conv(x, weight).features
    with ThreadPoolExecutor(100) as pool:
        for features in pool.map(lambda _: spcy.subm_conv(x, weight).features, range(300)):
            np.testing.assert_array_equal(features, expected)


def test_an_idle_process_takes_no_time():
    """Helpers spin for some microseconds and then sleep."""
    code = "import time; spcy.subm_conv(x, w); time.sleep(0.2); start = time.process_time(); time.sleep(1)\n"
    code += "print(time.process_time() - start)"
    out = run(BUSY.replace("{threads}", "4").replace("range(3)", "range(0)") + code)
    assert float(out.stdout) < 0.02, out.stderr


def test_a_child_decides_for_itself():
    """A worker that is given one core takes one thread, whatever its parent took."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no CPU affinity")
    code = """
import os, spcy
before = spcy.get_num_threads()
child = os.fork()
if child == 0:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os._exit(spcy.get_num_threads())
assert spcy.get_num_threads() == before
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    out = run(code, OMP_NUM_THREADS="")
    assert out.stdout.strip() == "1", out.stderr


SANITIZERS = {"plain": [], "thread": ["-fsanitize=thread"], "address": ["-fsanitize=address,undefined"]}


@pytest.mark.parametrize(
    "sanitizer", ["plain", *(pytest.param(name, marks=pytest.mark.thorough) for name in [*SANITIZERS][1:])]
)
def test_team_under_stress(sanitizer, tmp_path):
    """Tiles are done once, by threads with numbers of their own, and nothing is shared unseen."""
    if shutil.which("g++") is None or not hasattr(os, "fork"):
        pytest.skip("needs g++ and fork")
    root = Path(__file__).parents[1]
    sources = [root / "tests" / "team_stress.cpp", root / "src" / "cpu" / "team.cpp"]
    flags = ["-O1", "-g", "-std=c++17", "-fopenmp", f"-I{root / 'src'}", *SANITIZERS[sanitizer]]
    program = tmp_path / "stress"
    built = subprocess.run(["g++", *flags, *sources, "-o", program], capture_output=True, text=True)
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip(f"g++ has no {sanitizer} sanitizer here")
    assert built.returncode == 0, built.stderr
    fork = ["fork"] if sanitizer == "plain" else []  # sanitizers do not follow a fork of several threads
    for arguments in ("1 1000 4", "2 500 4", "4 300 3", "100 20 3", "3 500 60"):
        found = subprocess.run(
            [program, *arguments.split(), *fork], capture_output=True, text=True, timeout=300
        )
        assert found.returncode == 0, found.stderr[:3000]
