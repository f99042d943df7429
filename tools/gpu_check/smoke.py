"""Run each kernel once at a small size, beside the CPU in double precision; print what differs.

smoke.py [--only REGEX]
"""

import argparse
import re
import sys
import traceback

import numpy as np

import spcy
from common import TINY, one_line, report

# Numbers of an arithmetic may differ by so much, relative to the greatest.
MATHS = {"float16": 5e-3, "bfloat16": 3e-2, "tf32": 5e-3, "float32": 1e-5, "float64": 1e-12}
CHANNELS = ((3, 17), (64, 65), (16, 16)) if TINY else ((3, 17), (64, 65), (16, 32), (64, 64), (128, 128))
GRID = (6, 6, 6) if TINY else (24, 24, 24)
SITES = 60 if TINY else 2500
BOX = spcy.kernel_offsets((3, 3, 3))
KINDS = {
    "subm": lambda x, w: spcy.subm_conv(x, w, activation="relu"),
    "groups": lambda x, w: spcy.subm_conv(x, w[..., : w.shape[-2] // 2, :], groups=2),
    "stride 2": lambda x, w: spcy.conv(x, w, stride=2, padding=1),
    "inverse": lambda x, w: spcy.inverse_conv(spcy.conv(x, w, stride=2, padding=1), w),
    "transposed": lambda x, w: spcy.conv_transpose(x, w, stride=2, padding=1),
}
POOLS = {
    "max_pool": lambda x: (spcy.max_pool, x, 3, 2),
    "avg_pool": lambda x: (spcy.avg_pool, x, 2),
    "global_max_pool": lambda x: (spcy.global_max_pool, x),
    "to_dense": lambda x: (spcy.SparseTensor.to_dense, x),
}


class Place:
    """A backend, and how inputs come there: on the CPU as float64, whatever the arithmetic rounds them to."""

    def __init__(self, backend, math):
        self.backend, self.math, self.rng = backend, math, np.random.default_rng(0)
        self.dtype = np.dtype({"tf32": "float32"}.get(math, math)) if math != "bfloat16" else _bfloat16()

    def put(self, array):
        """Return an array of the host on the backend."""
        if self.backend == "cpu":
            return array
        import cupy

        return cupy.asarray(array)

    def numbers(self, *shape):
        """Return random numbers of the arithmetic's type."""
        numbers = self.rng.standard_normal(shape).astype(self.dtype)
        return self.put(np.float64(numbers) if self.backend == "cpu" else numbers)

    def coords(self, sites=SITES):
        """Return coords in any order of rows."""
        cells = self.rng.choice(np.prod(GRID), sites, replace=False)
        indices = np.stack(np.unravel_index(cells, (1, *GRID)), axis=1).astype(np.int32)
        return spcy.Coords(self.put(indices), GRID, 1)


def _bfloat16():
    from ml_dtypes import bfloat16

    return np.dtype(bfloat16)


def convolution(kind, c_in, c_out, sites=SITES):
    """Return a case: a convolution and, where it has them, its gradients."""

    def run(place):
        x = spcy.SparseTensor(place.coords(sites), place.numbers(sites, c_in))
        weight = place.numbers(3, 3, 3, c_in, c_out) / place.dtype.type((9 * c_in) ** 0.5)
        with spcy.allow_tf32(place.math == "tf32"):
            y = KINDS[kind](x, weight)
            out = [y.indices, y.features]
            if kind == "subm" and sites:
                y, vjp = spcy.vjp(spcy.subm_conv, x, weight, place.numbers(c_out))
                out += vjp(place.numbers(*y.features.shape))
        return out

    return run


def pool(name):
    """Return a case: a pool and its gradient."""

    def run(place):
        function, x, *arguments = POOLS[name](spcy.SparseTensor(place.coords(), place.numbers(SITES, 7)))
        y, vjp = spcy.vjp(function, x, *arguments)
        y = y.features if isinstance(y, spcy.SparseTensor) else y
        return [y, *vjp(place.numbers(*y.shape))]

    return run


def points(place):
    """Voxelize points and take their features back."""
    cloud = place.put(place.rng.random((4 * SITES, 3)).astype(np.float32) * 5)
    voxels = spcy.voxelize(cloud, 0.5)
    x = spcy.SparseTensor(voxels.tensor.coords, place.numbers(voxels.tensor.num_sites, 5))
    y, vjp = spcy.vjp(spcy.devoxelize, x, cloud, "linear")
    return [voxels.rows, voxels.counts, y, *vjp(place.numbers(*y.shape))]


def joins(place):
    """Join features, on the same sites and on others."""
    x = spcy.SparseTensor(place.coords(), place.numbers(SITES, 5))
    part = spcy.prune(x, place.put(np.arange(SITES) % 2 == 0))
    return [spcy.concat([x, x]).features, spcy.concat([x, part]).features, spcy.add(part, x).features]


def rulebooks(place):
    """Build each kind of rulebook."""
    coords = place.coords()
    made = [spcy.submanifold_rulebook(coords, BOX - 1)]
    made += [
        make(coords, BOX, stride=2, padding=1)[0] for make in (spcy.conv_rulebook, spcy.transposed_rulebook)
    ]
    return [array for book in made for array in (book.in_rows, book.out_rows, book.offset_ptr)]


CASES = {"rulebooks float32": ("rulebook, coords, hashmap", rulebooks)}
CASES |= {f"{name} float32": ("pool, grad", pool(name)) for name in POOLS}
CASES["voxelize float64"] = ("coords, corners, pool", points)
CASES["concat float64"] = ("rows, coords", joins)
CASES |= {
    f"subm {c_in} {c_out} {math}": (
        "conv_tiles, add_products, add_exact, plan",
        convolution("subm", c_in, c_out),
    )
    for math in MATHS
    for c_in, c_out in CHANNELS
}
CASES |= {
    f"{kind} 16 16 {math}": ("conv_tiles, plan, rulebook", convolution(kind, 16, 16))
    for kind in KINDS
    for math in ("float16", "float32")
    if kind != "subm"
}
CASES["subm 8 8 without sites float32"] = ("none: nothing to do", convolution("subm", 8, 8, 0))


def selected(only=""):
    """Return the names of the cases that are asked for."""
    return [name for name in CASES if re.search(only, name)]


def outputs(name, backend):
    """Return what a case gives on a backend, on the host."""
    with spcy.use_backend(backend):
        made = CASES[name][1](Place(backend, name.rpartition(" ")[2]))
    return [array if isinstance(array, np.ndarray) else array.get() for array in made if array is not None]


def difference(a, b):
    """Return the greatest difference relative to the greatest number; any, of integers."""
    if a.shape != b.shape:
        return np.inf
    if b.dtype.kind in "iu":
        return 0.0 if np.array_equal(a, b) else np.inf
    a, b = np.float64(a), np.float64(b)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if b.size else 0.0


def check(name):
    """Return how much a case differs from the CPU's, and what is wrong."""
    made, again, exact = outputs(name, "cuda"), outputs(name, "cuda"), outputs(name, "cpu")
    if any(a.tobytes() != b.tobytes() for a, b in zip(made, again, strict=True)):
        return None, "a second run gave other bits"
    worst = max(map(difference, made, exact))
    limit = MATHS[name.rpartition(" ")[2]]
    return worst, None if worst <= limit else f"differs by {worst:.2g}, more than {limit:.2g}"


def main():
    """Return 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a regular expression")
    failures = 0
    for name in selected(parser.parse_args().only):
        try:
            worst, wrong = check(name)
        except Exception as error:
            worst, wrong = None, one_line(error) + " | " + traceback.format_exc()[-400:]
        report("smoke", case=name, kernels=CASES[name][0], difference=worst, failure=wrong)
        if wrong:
            failures += 1
            print(f"{name} ({CASES[name][0]}): {wrong}")
    print(f"smoke: {failures} of {len(CASES)} cases failed")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
