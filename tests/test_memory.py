"""Memory of freed arrays that is kept for the next ones."""

import gc
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import spcy
from spcy._cpu import memory
from spcy._memory import empty

pytestmark = pytest.mark.skipif(not spcy.get_kept_memory(), reason="this build keeps no memory")


@pytest.fixture(autouse=True)
def bound():
    """Nothing kept before a test, the usual bound after it."""
    before = spcy.get_kept_memory()
    gc.collect()
    spcy.set_kept_memory(0)
    spcy.set_kept_memory(before)
    yield
    spcy.set_kept_memory(before)


def large(num_bytes=4 << 20):
    return empty(np, num_bytes, np.uint8)


def test_memory_of_a_freed_array_is_the_next_ones():
    first = large()
    at, size = first.ctypes.data, first.nbytes
    assert at % 64 == 0
    assert first.flags.owndata
    assert first.flags.writeable
    assert type(first) is np.ndarray
    assert memory.kept_bytes() == 0
    del first
    assert memory.kept_bytes() >= size
    second = large(size - 1000)
    assert second.ctypes.data == at
    assert memory.kept_bytes() == 0
    assert large().ctypes.data != at


def test_a_much_smaller_array_takes_no_large_memory():
    del_me = large(64 << 20)
    del del_me
    kept = memory.kept_bytes()
    small = large(8 << 20)
    assert memory.kept_bytes() == kept
    assert len(small)


def test_small_arrays_are_numpys():
    held = empty(np, memory.LARGE - 1, np.uint8)
    del held
    assert memory.kept_bytes() == 0


def test_no_more_is_kept_than_the_bound_and_the_oldest_goes_first():
    spcy.set_kept_memory(20 << 20)
    arrays = [large(6 << 20) for _ in range(5)]
    places = [array.ctypes.data for array in arrays]
    while arrays:
        del arrays[0]
        assert memory.kept_bytes() <= 20 << 20
    again = [large(6 << 20) for _ in range(3)]
    assert {array.ctypes.data for array in again} == set(places[2:])
    del again
    spcy.set_kept_memory(7 << 20)
    assert 0 < memory.kept_bytes() <= 7 << 20
    spcy.set_kept_memory(0)
    assert memory.kept_bytes() == 0
    assert spcy.get_kept_memory() == 0
    held = large()
    del held
    assert memory.kept_bytes() == 0


def test_the_system_may_take_all_but_the_last_64_mib():
    def free():
        found = re.findall(r"LazyFree: *(\d+) kB", Path("/proc/self/smaps").read_text())
        if not found:
            pytest.skip("this system does not say which memory it may take back")
        return sum(map(int, found)) << 10

    before = free()
    arrays = [large(24 << 20) for _ in range(4)]
    for array in arrays:
        array[:] = 1
    del array
    del arrays[:2]
    assert free() == before
    del arrays[0]  # more than 72 MiB are kept: those given first are marked
    assert 24 << 20 <= free() - before <= 27 << 20
    again = large(24 << 20)  # the last given
    del arrays[0]
    assert 24 << 20 <= free() - before <= 27 << 20
    del again
    assert 48 << 20 <= free() - before <= 54 << 20


def test_an_array_can_be_resized():
    array = large(2 << 20)
    array[:] = np.arange(2 << 20) % 251
    for size in (9 << 20, 3 << 20, 1000):
        array.resize(size, refcheck=False)
        known = min(size, 2 << 20)
        np.testing.assert_array_equal(array[:known], np.arange(known) % 251)
    array[:] = 1
    del array
    held = large()
    held[:] = 2


def test_results_do_not_depend_on_what_memory_held():
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 60, (30_000, 3)), axis=0)
    indices = np.column_stack([np.zeros(len(cells), int), cells]).astype(np.int32)
    features, weight = rng.random((len(cells), 16), np.float32), rng.random((3, 3, 3, 16, 32), np.float32)

    def run():
        y, vjp = spcy.vjp(spcy.subm_conv, spcy.SparseTensor(indices, features), weight)
        return y.features, *vjp(y.features)[:2]

    expected = run()
    for filler in (np.nan, 1e30):
        for n in range(1, 13):
            held = [empty(np, n << 18, np.float32) for _ in range(3)]
            for array in held:
                array[:] = filler
        del held, array
        for found, wanted in zip(run(), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_threads_never_share_memory():
    def work(number):
        rng = np.random.default_rng(number)
        for _ in range(60):
            array = empty(np, int(rng.integers(1 << 20, 6 << 20)), np.uint8)
            array[:] = number
            assert (array == number).all()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert 0 < memory.kept_bytes() <= spcy.get_kept_memory()


def test_a_fork_has_nothing_kept_and_goes_on():
    code = """
import os, numpy as np
from spcy._cpu import memory
held, mine = memory.empty(4 << 20, np.uint8), memory.empty(4 << 20, np.uint8)
mine[:] = 7
del held
assert memory.kept_bytes()
child = os.fork()
if not child:
    good = memory.kept_bytes() == 0 and (mine == 7).all()
    for _ in range(3):
        array = memory.empty(4 << 20, np.uint8)
        array[:] = 1
        del array
    os._exit(0 if good and memory.kept_bytes() else 1)
assert os.waitpid(child, 0)[1] == 0
assert memory.kept_bytes() == 0 and (mine == 7).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_kept_goes_when_an_array_finds_no_room():
    code = """
import resource, numpy as np
from spcy._cpu import memory
import spcy
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)
spcy.set_kept_memory(500 << 20)
arrays = [memory.empty(40 << 20, np.uint8) for _ in range(10)]
del arrays
assert memory.kept_bytes() >= 400 << 20
large = memory.empty(450 << 20, np.uint8)
assert memory.kept_bytes() == 0
large[:] = 1
try:
    memory.empty(450 << 20, np.uint8)
except MemoryError as error:
    print("refused:", error)
assert large.min() == large.max() == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:")


@pytest.mark.parametrize(
    ("shape", "error"),
    [((1 << 40, 1 << 40), (MemoryError, ValueError)), (1 << 46, MemoryError), (-1, ValueError)],
)
def test_an_array_that_cannot_be(shape, error):
    with pytest.raises(error):
        empty(np, shape, np.float64)


@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_bound_out_of_range(value):
    with pytest.raises(ValueError, match=r"num_bytes must be from 0 to 2\*\*63 - 1, got"):
        spcy.set_kept_memory(value)


@pytest.mark.parametrize("value", [1.5, None, True, "1"])
def test_a_bound_that_is_no_number(value):
    with pytest.raises(TypeError, match="num_bytes must be an int, got"):
        spcy.set_kept_memory(value)
