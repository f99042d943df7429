"""What stands around convolutions: each operation, its gradient, and the bytes that both must move.

asv times them; roofline.py also prints them beside the time that the bytes take.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import spcy
from spcy._backend import to_host

from .common import Suite, place, random
from .scenes import points as scene_points
from .scenes import voxel_size as scene_voxel_size

CLASSES = 20
THIN = 4  # channels of a dense array


class Cloud(NamedTuple):
    """Points, and the sites that hold one, on a grid around them."""

    points: Any  # (M, 3)
    columns: Any  # (M, 4), what a site takes the mean of
    voxel_size: Any
    x: spcy.SparseTensor
    y: spcy.SparseTensor  # on x's sites
    thin: spcy.SparseTensor
    other: spcy.SparseTensor  # every second site of x, and as many of its neighbours


class Case(NamedTuple):
    """An operation on a cloud, and its gradient; bytes are those of all arrays that are read or written."""

    forward: Callable[[], Any]
    forward_bytes: int
    gradient: Callable[[], Any] | None = None
    gradient_bytes: int = 0


def cloud_of(points, voxel_size, channels, dtype="float32"):
    """Return a cloud of points (M, 3)."""
    found = to_host(spcy.voxelize(points, voxel_size).tensor.indices).copy()
    found[:, 1:] -= found[:, 1:].min(axis=0)
    coords = spcy.Coords(found, [int(n) + 2 for n in found[:, 1:].max(axis=0)], 1)
    near = found[::2] + np.int32([0, 0, 0, 1])
    near = spcy.union(spcy.Coords(found[1::2], coords.shape, 1), spcy.Coords(near, coords.shape, 1))[0]
    x, y, thin, other = (
        spcy.SparseTensor(c, random((len(c), n), dtype, seed))
        for seed, (c, n) in enumerate(
            ((coords, channels), (coords, channels), (coords, THIN), (near, channels))
        )
    )
    return Cloud(points, random((len(points), 4), dtype), voxel_size, x, y, thin, other)


def size_of(*arrays):
    """Return the bytes of arrays, or of tensors' features."""
    return sum(getattr(a, "features", a).nbytes for a in arrays)


def array_of(y):
    """Return the array that a gradient is taken of."""
    y = getattr(y, "tensor", y)
    return getattr(y, "features", y)


def case(function, *args, reads, keeps=(), rows=0, **options):
    """Return the case of an operation that reads the arrays `reads`.

    Its gradient reads dy and `keeps`; both read or write `rows` bytes of row numbers.
    """
    y, vjp = spcy.vjp(function, *args, **options)
    y = array_of(y)
    dy = random(y.shape, y.dtype.name, seed=9)  # features of its shape are other arrays
    given = vjp(dy)
    return Case(
        lambda: function(*args, **options),
        size_of(*reads, y) + rows,
        lambda: vjp(dy),
        size_of(dy, *keeps, *(dx for dx in given if dx is not None)) + rows,
    )


def layer(module, x):
    return case(module.astype(x.dtype) if x.dtype.itemsize > 2 else module, x, reads=[x], keeps=[x])


def linear(x):
    module = spcy.nn.Linear(x.num_channels, x.num_channels).astype(x.dtype)
    return case(module, x, reads=[x], keeps=[x])


def pool(function, x, *geometry, keeps=False):
    y = function(x, *geometry)
    pairs = spcy.pool.pool_plan(x, *geometry)[0].num_pairs
    return case(function, x, *geometry, reads=[x], keeps=[x, y] if keeps else [], rows=8 * pairs)


def cross_entropy(x):
    logits = random((x.num_sites, CLASSES), x.dtype.name)
    labels = np.random.default_rng(0).integers(0, CLASSES, x.num_sites)
    return Case(
        lambda: spcy.nn.softmax_cross_entropy(logits, labels), size_of(logits, logits) + 8 * x.num_sites
    )


def voxelize(cloud, reduce):
    y = spcy.voxelize(cloud.points, cloud.voxel_size)
    moved = {"reads": [cloud.points, cloud.columns, y.tensor.indices, y.counts], "rows": y.rows.nbytes}
    columns = {"features": cloud.columns, "reduce": reduce}
    return case(spcy.voxelize, cloud.points, cloud.voxel_size, **columns, **moved)


def devoxelize(cloud, mode):
    tensor = spcy.SparseTensor(spcy.voxelize(cloud.points, cloud.voxel_size).tensor.coords, cloud.x.features)
    return case(spcy.devoxelize, tensor, cloud.points, mode, reads=[cloud.points, tensor])


def coords(cloud, shuffle):
    indices = cloud.x.indices
    if shuffle:
        indices = np.random.default_rng(0).permutation(indices)
    return Case(lambda: spcy.Coords(indices, cloud.x.shape, 1), 3 * indices.nbytes)


def from_dense(x):
    array = x.to_dense(channels_first=True)
    return case(spcy.SparseTensor.from_dense, array, True, reads=[array])


def unpool(x):
    pooled = spcy.max_pool(x, 2)
    return case(spcy.unpool, pooled, reads=[pooled])


WITH_GRADIENT = {
    "ReLU": lambda c: layer(spcy.nn.ReLU(), c.x),
    "LeakyReLU": lambda c: layer(spcy.nn.LeakyReLU(), c.x),
    "GELU": lambda c: layer(spcy.nn.GELU(), c.x),
    "GELU tanh": lambda c: layer(spcy.nn.GELU("tanh"), c.x),
    "SiLU": lambda c: layer(spcy.nn.SiLU(), c.x),
    "BatchNorm": lambda c: layer(spcy.nn.BatchNorm(c.x.num_channels), c.x),
    "LayerNorm": lambda c: layer(spcy.nn.LayerNorm(c.x.num_channels), c.x),
    "Linear": lambda c: linear(c.x),
    "Dropout": lambda c: layer(spcy.nn.Dropout(0.5, rng=0), c.x),
    "max pool 2": lambda c: pool(spcy.max_pool, c.x, 2, keeps=True),
    "avg pool 2": lambda c: pool(spcy.avg_pool, c.x, 2),
    "sum pool 2": lambda c: pool(spcy.sum_pool, c.x, 2),
    "max pool 3, stride 2": lambda c: pool(spcy.max_pool, c.x, 3, 2, 1, keeps=True),
    "avg pool 3, stride 2": lambda c: pool(spcy.avg_pool, c.x, 3, 2, 1),
    "unpool": lambda c: unpool(c.x),
    "global max pool": lambda c: case(spcy.global_max_pool, c.x, reads=[c.x], keeps=[c.x]),
    "global avg pool": lambda c: case(spcy.global_avg_pool, c.x, reads=[c.x]),
    "global sum pool": lambda c: case(spcy.global_sum_pool, c.x, reads=[c.x]),
    "add, other sites": lambda c: case(spcy.add, c.x, c.other, reads=[c.x, c.other]),
    "concat": lambda c: case(spcy.concat, [c.x, c.y], reads=[c.x, c.y]),
    "concat, other sites": lambda c: case(spcy.concat, [c.x, c.other], reads=[c.x, c.other]),
    "prune half": lambda c: case(
        spcy.prune, c.x, place(np.arange(c.x.num_sites) % 2 == 0, bool), reads=[c.x]
    ),
    "to_dense": lambda c: case(spcy.SparseTensor.to_dense, c.thin, True, reads=[c.thin]),
    "from_dense": lambda c: from_dense(c.thin),
    "voxelize": lambda c: voxelize(c, "mean"),
    "voxelize max": lambda c: voxelize(c, "max"),
    "devoxelize nearest": lambda c: devoxelize(c, "nearest"),
    "devoxelize linear": lambda c: devoxelize(c, "linear"),
}

OTHERS = {
    "cross entropy": lambda c: cross_entropy(c.x),
    "x + y": lambda c: Case(lambda: c.x + c.y, 3 * size_of(c.x)),
    "union": lambda c: Case(
        lambda: spcy.union(c.x.coords, c.other.coords), 3 * size_of(c.x.indices, c.other.indices)
    ),
    "Coords, sorted": lambda c: coords(c, False),
    "Coords, shuffled": lambda c: coords(c, True),
    "rows_of": lambda c: Case(
        lambda: c.x.rows_of(c.other.indices), c.other.indices.nbytes + 4 * c.other.num_sites
    ),
}
OPERATIONS = WITH_GRADIENT | OTHERS


@cache
def street(num_points):
    return cloud_of(place(scene_points("street", num_points), "float32"), scene_voxel_size("street"), 32)


class _Timed(Suite):
    """100,000 points of a street, 32 channels; rulebooks ready."""

    def prepare(self, operation):
        if self.backend == "cuda" and operation in ("cross entropy", "Coords, shuffled"):
            raise NotImplementedError("its arrays are made on the host")
        self.case = OPERATIONS[operation](street(100_000))


def thin(operations):
    """Return the names of operations that make no dense array."""
    return [name for name in operations if "dense" not in name]


class Forward(_Timed, operation=thin(OPERATIONS)):
    def time_forward(self, *_):
        self.case.forward()


class Gradient(_Timed, operation=thin(WITH_GRADIENT)):
    def time_gradient(self, *_):
        self.case.gradient()
