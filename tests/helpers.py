"""What the tests share: random sites, a sample of geometries, comparison with the reference."""

from typing import NamedTuple

import numpy as np
import pytest
import reference as ref

import spcy


def put(array):
    """Place a NumPy array on the backend in force."""
    if spcy.get_backend() == "cpu":
        return array
    import cupy

    return cupy.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def get(array):
    """Bring an array from any backend to NumPy."""
    return array.get() if hasattr(array, "get") else array


def assert_read_only(array):
    """An array that spcy keeps is nobody's to change; CuPy has no means against it."""
    if isinstance(array, np.ndarray):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def random_indices(rng, num_sites, box, batch_size=1, low=0):
    """Distinct sites of a box in random order."""
    cells = (batch_size, *box)
    flat = rng.permutation(np.prod(cells))[:num_sites]
    return np.stack(np.unravel_index(flat, cells), axis=1).astype(np.int32) + np.int32([0, *[low] * len(box)])


def random_tensor(rng, num_sites, box, channels, dtype=np.float32, batch_size=1, shape="box", low=0):
    """A tensor on random sites; `shape` None for an unbounded grid."""
    indices = random_indices(rng, num_sites, box, batch_size, low)
    features = rng.standard_normal((len(indices), channels)).astype(dtype)
    shape = box if shape == "box" else shape
    return spcy.SparseTensor(put(indices), put(features), shape=shape, batch_size=batch_size)


def random_weight(rng, kernel_size, c_in, c_out, dtype=np.float32):
    """Return (weight, bias)."""
    weight = rng.standard_normal((*kernel_size, c_in, c_out)).astype(dtype)
    return put(weight), put(rng.standard_normal(c_out).astype(dtype))


class Geometry(NamedTuple):
    """One layer's geometry on a grid of `box` cells; int or per-axis values, as a user may write them."""

    box: tuple
    kernel_size: tuple
    stride: int | tuple = 1
    padding: int | tuple = 0
    dilation: int | tuple = 1
    bounded: bool = True
    batch_size: int = 2
    num_sites: int = 40

    def __str__(self):
        values = (self.kernel_size, self.stride, self.padding, self.dilation)
        name = "_".join(
            k + str(v).strip("()").replace(", ", "x").strip(",") for k, v in zip("kspd", values, strict=True)
        )
        return f"{len(self.box)}D_{name}_{'shape' if self.bounded else 'unbounded'}_b{self.batch_size}"

    @property
    def shape(self):
        return self.box if self.bounded else None

    @property
    def args(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def pool_args(self):
        return {"kernel_size": self.kernel_size, **self.args}

    def axes(self, value):
        return value if isinstance(value, tuple) else (value,) * len(self.box)

    @property
    def offsets(self):
        return ref.box(self.kernel_size, self.axes(self.dilation))

    def tensor(self, rng, channels, dtype=np.float32):
        low = 0 if self.bounded else -3
        args = (self.num_sites, self.box, channels, dtype, self.batch_size, self.shape)
        return random_tensor(rng, *args, low=low)

    def table(self, x, output_padding=None):
        """Return the reference's (rows, output sites, output shape) for a tensor or coords."""
        args = (self.offsets, self.axes(self.stride), self.axes(self.padding), output_padding)
        return ref.conv_table(get(x.indices), x.shape, x.batch_size, *args)


# A sample over D, bounds, kernel (odd, even, per-axis, 1), stride, padding, dilation and batch size.
# Kernels of one cell and stride 1 are left out: they keep the sites and have tests of their own.
GEOMETRIES = [
    Geometry((9,), (3,), batch_size=1, num_sites=5),
    Geometry((9,), (2,), 2, bounded=False, num_sites=8),
    Geometry((12,), (4,), 3, 2, 2, batch_size=3, num_sites=9),
    Geometry((8, 7), (3, 2), (2, 1), (1, 0), (1, 2)),
    Geometry((8, 7), (3, 3), 2, 1, 2, bounded=False, batch_size=1, num_sites=20),
    Geometry((9, 6), (5, 5), 3, 2, batch_size=3),
    Geometry((6, 6), (1, 1), 2, bounded=False),
    Geometry((7, 8, 6), (3, 3, 3), 2, 1),
    Geometry((6, 7, 8), (3, 1, 1), (2, 1, 1), batch_size=1),
    Geometry((6, 5, 7), (2, 2, 2), 2, bounded=False, batch_size=3, num_sites=50),
    Geometry((8, 7, 6), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 3, 2)),
    Geometry((5, 5, 5), (3, 3, 3), 1, 1, bounded=False, batch_size=1, num_sites=15),
    Geometry((6, 6, 6), (3, 3, 3), 1, 1, num_sites=30),
    Geometry((6, 6, 6), (1, 1, 1), 2),
    Geometry((6, 6, 7), (2, 2, 2), 3),
    Geometry((5, 6, 7), (4, 4, 4), 2, 1, batch_size=1),
    Geometry((4, 4, 4), (3, 3, 3), 1, 1, batch_size=1, num_sites=64),
    Geometry((4, 5, 3, 4), (2, 2, 2, 2), 2),
    Geometry((4, 3, 4, 4), (3, 1, 2, 3), 1, (1, 0, 0, 1), bounded=False, batch_size=1, num_sites=12),
    Geometry((4, 4, 4, 4), (3, 3, 3, 3), 2, 1, num_sites=30),
]


def tolerance(dtype):
    """Relative to the largest value: room for the rounding of some thousand terms, in 16 bits of the sum."""
    name = np.dtype(dtype).name
    return {"bfloat16": 2**-8, "float16": 2**-11}.get(name) or 200 * np.finfo(dtype).eps


def assert_close(actual, expected, dtype):
    """Compare value, dtype, shape and layout."""
    actual, expected = get(actual), np.asarray(expected)
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    assert actual.flags.c_contiguous
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance(dtype) * finite.max(initial=1.0))


def assert_tensor(x, indices, features, shape, dtype):
    """Compare sites and their order, shape and features."""
    assert isinstance(x, spcy.SparseTensor)
    np.testing.assert_array_equal(get(x.indices), indices)
    assert x.shape == shape
    assert_close(x.features, features, dtype)


def assert_rulebook(book, rows, sites, num_in):
    """Compare with the reference's table, pair by pair."""
    in_rows, out_rows, offset_ptr = map(get, (book.in_rows, book.out_rows, book.offset_ptr))
    for actual, expected in zip((in_rows, out_rows, offset_ptr), ref.rulebook(rows, sites), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert (in_rows.dtype, out_rows.dtype, offset_ptr.dtype) == (np.int32, np.int32, np.int64)
    assert (book.num_offsets, book.num_in, book.num_out) == (len(rows), num_in, len(sites))
    assert book.num_pairs == len(in_rows)


def accumulate(features, weight, book):
    """Run a rulebook in NumPy, one offset after the other, for inputs too large for the reference."""
    out = np.zeros((book.num_out, weight.shape[-1]))
    for k, matrix in enumerate(np.float64(weight).reshape(-1, *weight.shape[-2:])):
        in_rows, out_rows = map(get, book.pairs(k))
        out[out_rows] += np.float64(features)[in_rows] @ matrix
    return out
