"""What must hold for any geometry, checked on random ones."""

import numpy as np
import reference as ref
from helpers import Geometry, assert_close, assert_rulebook, get, put, random_indices, random_weight
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_rulebook import arrays, assert_tiles, assert_transposed

import spcy


def holds(*strategies):
    """Check a property on the same random examples in every run."""
    many = settings(deadline=None, max_examples=100, derandomize=True, database=None)
    return lambda check: many(given(*strategies)(check))


@st.composite
def problems(draw, bounded=None):
    """Return (geometry, indices, seed): up to 40 sites in 1 to 4 axes, and one layer on them."""
    ndim = draw(st.integers(1, 4))
    axes = lambda least, most: tuple(draw(st.lists(st.integers(least, most), min_size=ndim, max_size=ndim)))  # noqa: E731
    box = axes(1, (12, 7, 5, 4)[ndim - 1])
    bounded = draw(st.booleans()) if bounded is None else bounded
    geometry = Geometry(box, axes(1, 4 if ndim < 3 else 3), axes(1, 3), axes(0, 2), axes(1, 2), bounded, 2)
    reach = np.array(geometry.dilation) * (np.array(geometry.kernel_size) - 1) + 1
    assume(not bounded or (reach <= np.array(box) + 2 * np.array(geometry.padding)).all())
    # One cell and stride 1 keep the sites, in the order of the rows: a case of its own.
    assume(max(*geometry.kernel_size, *geometry.stride, *(1 + p for p in geometry.padding)) > 1)
    seed, num_sites = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 40))
    indices = random_indices(np.random.default_rng(seed), num_sites, box, 2, 0 if bounded else -3)
    return geometry, indices, seed


def tensor(geometry, indices, rng, channels=3):
    features = rng.integers(-4, 5, (len(indices), channels)).astype(np.float64)
    return spcy.SparseTensor(put(indices), put(features), shape=geometry.shape, batch_size=2)


def whole_weight(geometry, rng, c_in, c_out):
    """Small integers: sums of them are exact in any order."""
    return put(rng.integers(-3, 4, (*geometry.kernel_size, c_in, c_out)).astype(np.float64))


def rulebooks(coords, geometry):
    """The three kinds, each with its output coords; transposed only where its output has a cell."""
    args = {"stride": geometry.stride, "padding": geometry.padding}
    yield spcy.submanifold_rulebook(coords, geometry.offsets - np.array(geometry.kernel_size) // 2), coords
    yield spcy.conv_rulebook(coords, geometry.offsets, **args)
    if fits_transposed(geometry):
        yield spcy.transposed_rulebook(coords, geometry.offsets, **args)


def fits_transposed(geometry):
    n, s, p = (np.array(v) for v in (geometry.box, geometry.stride, geometry.padding))
    return not geometry.bounded or ((n - 1) * s - 2 * p + geometry.offsets.max(0) + 1 > 0).all()


@holds(problems())
def test_rulebooks_are_the_reference(problem):
    geometry, indices, _ = problem
    coords = spcy.Coords(put(indices), geometry.shape, 2)
    tables = [(ref.subm_table(indices, geometry.offsets - np.array(geometry.kernel_size) // 2), indices)]
    tables.append(geometry.table(coords))
    tables.append(geometry.table(coords, 0) if fits_transposed(geometry) else None)
    for (book, out), (rows, sites, *shape) in zip(
        rulebooks(coords, geometry), filter(None, tables), strict=True
    ):
        np.testing.assert_array_equal(get(out.indices), sites)
        assert out.shape == (shape[0] if shape else geometry.shape)
        assert_rulebook(book, rows, sites, len(indices))


@holds(problems())
def test_transposed_rulebooks_swap(problem):
    geometry, indices, _ = problem
    for book, _ in rulebooks(spcy.Coords(put(indices), geometry.shape, 2), geometry):
        assert_transposed(book)


@holds(problems(), st.integers(1, 50))
def test_tiles_cover_each_pair_once(problem, tile_size):
    geometry, indices, _ = problem
    coords = spcy.Coords(put(indices), geometry.shape, 2)
    for book, out in rulebooks(coords, geometry):
        assert_tiles(book, out.indices, tile_size)
        assert_tiles(book.transposed(), coords.indices, tile_size)


@holds(problems())
def test_convolutions_are_the_reference(problem):
    geometry, indices, seed = problem
    rng = np.random.default_rng(seed)
    x = tensor(geometry, indices, rng)
    weight = whole_weight(geometry, rng, 3, 2)
    y = spcy.conv(x, weight, **geometry.args)
    rows, sites, _ = geometry.table(x)
    np.testing.assert_array_equal(get(y.indices), sites)
    np.testing.assert_array_equal(get(y.features), ref.conv(get(x.features), get(weight), None, rows))
    kinds = {"max": spcy.max_pool, "sum": spcy.sum_pool, "sites": spcy.avg_pool}
    for kind, pool in kinds.items():
        y = pool(x, **geometry.pool_args)
        assert_close(y.features, ref.pool(get(x.features), rows, kind), np.float64)
    if fits_transposed(geometry):
        y = spcy.conv_transpose(x, weight, **geometry.args)
        rows, sites, _ = geometry.table(x, 0)
        np.testing.assert_array_equal(get(y.indices), sites)
        np.testing.assert_array_equal(get(y.features), ref.conv(get(x.features), get(weight), None, rows))


@holds(problems())
def test_order_of_the_rows_does_not_matter(problem):
    geometry, indices, seed = problem
    rng = np.random.default_rng(seed)
    x = tensor(geometry, indices, rng)
    weight, bias = random_weight(rng, geometry.kernel_size, 3, 2, np.float64)
    order = rng.permutation(len(indices))
    shuffled = spcy.SparseTensor(
        put(indices[order]), put(get(x.features)[order]), shape=geometry.shape, batch_size=2
    )
    a, b = (spcy.conv(t, weight, bias, **geometry.args) for t in (x, shuffled))
    np.testing.assert_array_equal(get(a.indices), get(b.indices))
    np.testing.assert_array_equal(get(a.features), get(b.features))
    weight, _ = random_weight(rng, geometry.kernel_size, 2, 2, np.float64)
    a, b = spcy.inverse_conv(a, weight), spcy.inverse_conv(b, weight)
    np.testing.assert_array_equal(get(a.features)[order], get(b.features))


@holds(problems(bounded=False), st.lists(st.integers(-(2**12), 2**12), min_size=4, max_size=4))
def test_translation_moves_the_sites_alone(problem, steps):
    geometry, indices, seed = problem
    rng = np.random.default_rng(seed)
    x = tensor(geometry, indices, rng)
    weight, bias = random_weight(rng, geometry.kernel_size, 3, 2, np.float64)
    steps = np.array(steps[: indices.shape[1] - 1])
    stride = np.array(geometry.stride)
    moved = spcy.SparseTensor(put(indices + np.r_[0, steps * stride]), x.features, batch_size=2)
    layers = ((spcy.conv, steps), (spcy.conv_transpose, steps * stride * stride))
    for layer, shift in layers:
        a, b = (layer(t, weight, bias, **geometry.args) for t in (x, moved))
        np.testing.assert_array_equal(get(a.indices) + np.r_[0, shift], get(b.indices))
        np.testing.assert_array_equal(get(a.features), get(b.features))


@holds(problems(), st.floats(-3, 3), st.floats(-3, 3))
def test_convolution_is_linear(problem, p, q):
    geometry, indices, seed = problem
    rng = np.random.default_rng(seed)
    x, y = tensor(geometry, indices, rng), tensor(geometry, indices, rng)
    y = x.replace(y.features)
    weight, _ = random_weight(rng, geometry.kernel_size, 3, 2, np.float64)
    both, a, b = (spcy.conv(t, weight, **geometry.args) for t in (x * p + y * q, x, y))
    assert a.coords is b.coords is both.coords
    assert_close(both.features, get((a * p + b * q).features), np.float64)


@holds(problems())
def test_inverse_restores_the_sites_and_is_the_adjoint(problem):
    """The parent's very coords come back; <conv(x), y> = <x, inverse_conv(y)> for the transposed weight."""
    geometry, indices, seed = problem
    rng = np.random.default_rng(seed)
    x = tensor(geometry, indices, rng)
    weight = whole_weight(geometry, rng, 3, 2)
    for layer in (spcy.conv, spcy.conv_transpose)[: 1 + fits_transposed(geometry)]:
        y = layer(x, weight, **geometry.args)
        z = y.replace(put(rng.integers(-4, 5, y.features.shape).astype(np.float64)))
        back = spcy.inverse_conv(z, weight.swapaxes(-1, -2))
        assert back.coords is x.coords
        np.testing.assert_array_equal(get(back.indices), indices)
        assert (get(y.features) * get(z.features)).sum() == (get(x.features) * get(back.features)).sum()


@holds(problems())
def test_union_and_sum(problem):
    geometry, indices, seed = problem
    rng = np.random.default_rng(seed)
    x = tensor(geometry, indices, rng)
    parts = [spcy.prune(x, put(rng.random(len(indices)) < share)) for share in (0.3, 0.8)]
    for a, b in (parts, parts[::-1]):
        z = spcy.add(a, b)
        coords, rows_a, rows_b = spcy.union(a.coords, b.coords)
        expected = sorted({*map(tuple, get(a.indices).tolist()), *map(tuple, get(b.indices).tolist())})
        assert list(map(tuple, get(coords.indices).tolist())) == expected
        np.testing.assert_array_equal(get(coords.indices)[get(rows_a)], get(a.indices))
        np.testing.assert_array_equal(get(coords.indices)[get(rows_b)], get(b.indices))
        count = sum((get(t.rows_of(z.indices)) >= 0).astype(float) for t in (a, b))
        features = get(x.features)[get(x.rows_of(z.indices))]
        np.testing.assert_array_equal(get(z.features), features * count[:, None])


@holds(problems())
def test_the_same_call_gives_the_same_plan(problem):
    geometry, indices, _ = problem
    first, second = (spcy.Coords(put(indices), geometry.shape, 2) for _ in range(2))
    for (a, out), (b, again), (other, _) in zip(
        *(rulebooks(coords, geometry) for coords in (first, first, second)), strict=True
    ):
        assert a is b
        assert out is again
        assert a is not other
        for mine, theirs in zip(arrays(a), arrays(other), strict=True):
            np.testing.assert_array_equal(mine, theirs)
