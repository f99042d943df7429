"""Run one operation again and again, each time with another of its allocations failing. See test_faults.py.

    python fault_child.py data|objects|new LIBRARY OPERATION ..

data: of arrays; objects: of Python's; new: of C++, in a fork, where the team of threads is made anew.
"""

import ctypes
import gc
import os
import sys
import weakref

import numpy as np

import spcy
from spcy import _threads

RNG = np.random.default_rng(0)
CELLS = np.stack(np.unravel_index(RNG.permutation(12**3)[:300], (12,) * 3), 1)
INDICES = np.column_stack([np.zeros(300), CELLS]).astype(np.int32)
FEATURES = RNG.standard_normal((300, 8)).astype(np.float32)
WEIGHT = RNG.standard_normal((3, 3, 3, 8, 8)).astype(np.float32)
POINTS = RNG.uniform(0, 12, (400, 3)).astype(np.float32)
# What some functions of NumPy and of Python raise for want of memory.
NOT_OURS = ("without setting an exception", "without exception set", "can't allocate lock")
NEW = 40  # more than C++ does
PASSES = 20  # in a row without a failure: it is behind the last allocation


def tensor(coords):
    return spcy.SparseTensor(coords, FEATURES)


def gradients(coords):
    y, vjp = spcy.vjp(spcy.subm_conv, tensor(coords), WEIGHT)
    return vjp(y.features)


def pools(coords):
    x = tensor(coords)
    return [spcy.max_pool(x, 2).features, spcy.unpool(spcy.avg_pool(x, 2)).features]


def voxelize(coords):
    voxels = spcy.voxelize(POINTS, 0.75, features=POINTS)
    return [voxels.tensor.indices, voxels.tensor.features, voxels.rows, voxels.counts]


def strided(coords):
    y = spcy.conv(tensor(coords), WEIGHT, stride=2, padding=1)
    return [y.indices, y.features, spcy.inverse_conv(y, WEIGHT).features]


OPERATIONS = {
    "Coords": lambda coords: [spcy.Coords(INDICES).rows_of(INDICES[::2])],
    "submanifold_rulebook": lambda coords: [
        spcy.submanifold_rulebook(coords, spcy.kernel_offsets((3, 3, 3)) - 1).in_rows
    ],
    "conv_rulebook": lambda coords: [
        spcy.conv_rulebook(coords, spcy.kernel_offsets((2, 2, 2)), stride=2)[0].in_rows
    ],
    "subm_conv": lambda coords: [spcy.subm_conv(tensor(coords), WEIGHT).features],
    "conv": strided,
    "gradients": gradients,
    "pools": pools,
    "voxelize": voxelize,
}


def kept(coords):
    """Say what coords have of what was derived from them."""
    sites = coords._sites
    return sorted(map(repr, [*sites.derived, *sites.children]))


class Failing:
    """Allocators of which the one with a number fails: of array data, of Python's objects, of C++'s."""

    KINDS = ("", "data", "objects", "new")

    def __init__(self, kind, library):
        self.library = ctypes.PyDLL(library or None)
        self.kind = self.KINDS.index(kind)
        if kind != "new" and self.library.fault_install():
            raise OSError("NumPy did not take an allocator")

    def disarm(self):
        """Let none fail. The call itself takes memory: it may be what fails, and the next will not."""
        try:
            self.arm(-1)
        except (MemoryError, ctypes.ArgumentError):
            self.arm(-1)

    def arm(self, number):
        if self.kind == 3:
            self.library.fault_arm_new(ctypes.c_long(number))
        else:
            self.library.fault_arm(self.kind, ctypes.c_long(number))


def attempt(run, coords, number, failing):
    """Run with the allocation of a number failing; return whether MemoryError came, and the results."""
    try:
        failing.arm(number)
        try:
            found = run(coords)
        finally:
            failing.disarm()
    except MemoryError:
        return True, None
    except (RuntimeError, SystemError) as error:
        if not str(error).endswith(NOT_OURS) or "cyfunction" in str(error):
            raise
        return True, None
    return False, found


def check(found, expected, what):
    for a, b in zip(found, expected, strict=True):
        if not np.array_equal(a, b):
            sys.exit(f"{what}: wrong numbers")


def every_allocation(run, failing):
    """Fail each allocation once; return how many were met."""
    clean = spcy.Coords(INDICES)
    expected, entries = run(clean), kept(clean)
    number = failures = passes = 0
    while passes < PASSES:
        coords = spcy.Coords(INDICES)
        failed, found = attempt(run, coords, number, failing)
        failures, passes = failures + failed, 0 if failed else passes + 1
        if not failed:
            check(found, expected, f"allocation {number} failed and nothing was said")
        del found
        check(run(coords), expected, f"after allocation {number} failed")
        if kept(coords) != entries:
            sys.exit(f"after allocation {number} failed: the coords keep {kept(coords)}, expected {entries}")
        ref = weakref.ref(coords)
        del coords
        if ref() is not None:
            gc.collect()
        if ref() is not None and failing.kind == 1:  # Python forgets arguments if it cannot make a frame
            sys.exit(f"after allocation {number} failed: the coords are held")
        number += 1
    return failures


def main(kind, library, *names):
    failing = Failing(kind, library)
    for name in names:
        run = OPERATIONS[name]
        failures = team(run, failing) if kind == "new" else every_allocation(run, failing)
        print(name, failures, flush=True)
        if kind == "data":
            live, again = failing.library.fault_live(), every_allocation(run, failing)
            if failing.library.fault_live() > live:
                return f"{name}: {failing.library.fault_live() - live} arrays more after {again} failures"
    return None


def team(run, failing):
    """Fail the allocations of a team of threads: each fork makes its own."""
    expected = run(spcy.Coords(INDICES))
    _threads.GRAIN = 1
    spcy.set_num_threads(2)
    for number in range(NEW):  # NumPy has some too
        child = os.fork()
        if child == 0:
            failed, found = attempt(lambda _: run(spcy.Coords(INDICES)), None, number, failing)
            check(
                run(spcy.Coords(INDICES)) if failed else found, expected, f"after allocation {number} failed"
            )
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(
                f"allocation {number} failed and the process ended with {os.waitstatus_to_exitcode(status)}"
            )
    return NEW


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
