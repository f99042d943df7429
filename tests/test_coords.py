import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import reference as ref
from helpers import Geometry, assert_read_only, get, put, random_indices, random_tensor, random_weight

import spcy

pytestmark = pytest.mark.usefixtures("backend")

BOXES = [(9,), (8, 7), (6, 7, 8), (4, 5, 3, 4)]


@pytest.mark.parametrize("box", BOXES, ids=len)
@pytest.mark.parametrize("bounded", [True, False], ids=["shape", "unbounded"])
def test_attributes(box, bounded, rng):
    indices = random_indices(rng, 20, box, batch_size=3, low=0 if bounded else -4)
    indices[0, 0] = 2
    indices = np.unique(indices, axis=0)[::-1]
    coords = spcy.Coords(put(indices), box if bounded else None)
    np.testing.assert_array_equal(get(coords.indices), indices)
    assert coords.indices.dtype == np.int32
    assert coords.shape == (box if bounded else None)
    assert (coords.batch_size, coords.num_sites, len(coords), coords.ndim) == (
        3,
        *[len(indices)] * 2,
        len(box),
    )
    assert coords.backend == spcy.get_backend()
    assert coords.parent is None
    for grid, value in ((coords.origin, 0.0), (coords.voxel_size, 1.0)):
        np.testing.assert_array_equal(grid, np.full(len(box), value))
        assert grid.dtype == np.float64
    assert str(len(indices)) in repr(coords)
    assert str(coords.shape) in repr(coords)


def test_shape_and_batch_size_are_plain_ints():
    coords = spcy.Coords(put(np.zeros((1, 3), np.int64)), np.array([4, 5]), np.int64(2))
    assert [type(v) for v in (*coords.shape, coords.batch_size)] == [int] * 3
    assert spcy.Coords([[0, 1, 2], [1, 1, 2]], [4, 5]).batch_size == 2


def test_coords_are_a_copy_that_nobody_can_change():
    indices = np.array([[0, 1, 2], [0, 3, 4]], np.int32)
    coords = spcy.Coords(put(indices), (5, 5))
    indices[0] = 4
    np.testing.assert_array_equal(get(coords.indices)[0], [0, 1, 2])
    assert_read_only(coords.indices)
    for name in ("indices", "shape", "batch_size", "parent"):
        with pytest.raises(AttributeError):
            setattr(coords, name, None)


@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int16", "uint16", "int64", "uint64", ">i4", ">i8", "F", "strided"]
)
def test_any_integer_array_is_taken(kind, rng):
    indices = random_indices(rng, 20, (6, 7), batch_size=2)
    if kind == "F":
        given = np.asfortranarray(indices)
    elif kind == "strided":
        given = np.zeros((40, 6), np.int32)[::-2, ::2]
        given[:] = indices
    else:
        given = indices.astype(kind)
    given.setflags(write=False)
    coords = spcy.Coords(put(given), (6, 7))
    np.testing.assert_array_equal(get(coords.indices), indices)
    np.testing.assert_array_equal(get(coords.rows_of(put(given))), np.arange(20))


@pytest.mark.parametrize("empty", [[], np.empty((0, 4), int)], ids=["list", "array"])
@pytest.mark.parametrize("shape", [None, (3, 4, 5)])
def test_no_sites(empty, shape):
    coords = spcy.Coords(empty if len(np.shape(empty)) == 2 else np.reshape(empty, (0, 4)).astype(int), shape)
    assert (coords.num_sites, coords.batch_size, coords.ndim) == (0, 1, 3)
    np.testing.assert_array_equal(get(coords.rows_of(put(np.zeros((2, 4), int)))), [-1, -1])
    assert coords.rows_of(put(np.zeros((0, 4), int))).shape == (0,)


@pytest.mark.parametrize("box", BOXES, ids=len)
@pytest.mark.parametrize("bounded", [True, False], ids=["shape", "unbounded"])
def test_rows_of_is_the_reference(box, bounded, rng):
    low = 0 if bounded else -4
    indices = random_indices(rng, 30, box, batch_size=2, low=low)
    coords = spcy.Coords(put(indices), box if bounded else None, batch_size=2)
    around = random_indices(rng, 2000, [n + 4 for n in box], batch_size=4, low=low - 2) - np.int32(
        [1] + [0] * len(box)
    )
    far = np.array([[0] + [v] * len(box) for v in (-(2**31), 2**31 - 1)], np.int32)
    queries = np.concatenate([around, far, indices[::-1]])
    rows = coords.rows_of(put(queries))
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(get(rows), ref.rows_of(indices, queries))


def test_rows_of_many_sites(rng):
    indices = random_indices(rng, 40_000, (64, 64, 64), batch_size=2)
    coords = spcy.Coords(put(indices[:20_000]), (64, 64, 64), batch_size=2)
    np.testing.assert_array_equal(get(coords.rows_of(put(indices))), np.r_[:20_000, np.full(20_000, -1)])


@pytest.mark.parametrize("extreme", [-(2**31), 2**31 - 1])
def test_unbounded_reaches_the_ends_of_int32(extreme):
    indices = np.array([[0, extreme, 5], [0, 0, 5]], np.int32)
    coords = spcy.Coords(put(indices))
    np.testing.assert_array_equal(get(coords.rows_of(put(indices[::-1]))), [1, 0])


def test_keys_hold_what_is_occupied_not_the_shape():
    """Grids beyond 64-bit cell numbers are fine as long as their sites are not that far apart."""
    full = 2**31 - 1
    indices = np.array([[0, full - 1, full - 2, full - 1], [1, full - 2, full - 1, full - 1]])
    coords = spcy.Coords(put(indices), (full,) * 3)
    np.testing.assert_array_equal(get(coords.rows_of(put(indices[::-1]))), [1, 0])
    wide = np.array([[0, -(2**31), 0], [0, 2**31 - 1, 2**31 - 1], [0, 0, 2**30]])  # 63 bits
    np.testing.assert_array_equal(get(spcy.Coords(put(wide)).rows_of(put(wide[::-1]))), [2, 1, 0])


def test_sites_made_by_spcy_are_in_key_order(rng):
    x = random_tensor(rng, 60, (6, 7, 8), 2, batch_size=3)
    weight, _ = random_weight(rng, (3, 3, 3), 2, 2)
    child = spcy.conv(x, weight, stride=2, padding=1)
    made = [child, spcy.conv_transpose(child, weight, stride=2), spcy.max_pool(x, 2), spcy.conv(x, weight)]
    for tensor in made:
        indices = get(tensor.indices)
        np.testing.assert_array_equal(np.unique(indices, axis=0), indices)


def test_grid_of_children():
    g = Geometry((9, 8), (3, 2), (2, 3), (1, 0), (2, 1))
    coords = spcy.Coords(put(np.array([[0, 4, 4]])), (9, 8))
    _, child = spcy.conv_rulebook(coords, g.offsets, stride=g.stride, padding=g.padding)
    np.testing.assert_allclose(child.origin, [0.5 - 1 + 2 - 1, 0.5 - 0 + 0.5 - 1.5])
    np.testing.assert_array_equal(child.voxel_size, [2, 3])
    _, finer = spcy.transposed_rulebook(child, g.offsets, stride=g.stride, padding=g.padding)
    np.testing.assert_allclose(finer.origin, [0, 0], atol=1e-12)
    np.testing.assert_allclose(finer.voxel_size, [1, 1])
    assert finer.parent is child
    assert child.parent is coords


def test_same_geometry_shares_coords_and_rulebook(rng):
    x = random_tensor(rng, 40, (6, 7, 8), 2, batch_size=2)
    w1, w2 = (random_weight(rng, (3, 3, 3), 2, c)[0] for c in (4, 5))
    a = spcy.conv(x, w1, stride=2, padding=1)
    b = spcy.conv(x, w2, stride=(2, 2, 2), padding=[1, 1, 1])
    assert a.coords is b.coords
    assert spcy.conv(x, w1, stride=2).coords is spcy.conv(x, w2, stride=2).coords
    assert spcy.max_pool(x, 3, 2, 1).coords is a.coords
    assert spcy.conv(x, w1, stride=2).coords is not a.coords
    assert spcy.conv_transpose(a, random_weight(rng, (2, 2, 2), 4, 1)[0], stride=2).coords is not x.coords
    offsets = spcy.kernel_offsets((3, 3, 3))
    book, coords = spcy.conv_rulebook(x.coords, offsets, stride=2, padding=1)
    assert coords is a.coords
    assert spcy.conv_rulebook(x.coords, get(offsets).tolist(), stride=2, padding=1)[0] is book
    for build in (spcy.submanifold_rulebook, lambda *args: spcy.transposed_rulebook(*args, stride=2)[0]):
        book = build(x.coords, offsets)
        assert build(x.coords, get(offsets).astype(np.int64)) is book
        assert build(x.coords, get(offsets) - 1) is not book


def layers(x, weight):
    """One layer of every kind, by name."""
    return {
        "subm": lambda: spcy.subm_conv(x, weight),
        "conv": lambda: spcy.conv(x, weight, stride=2),
        "conv_transpose": lambda: spcy.conv_transpose(x, weight, stride=2),
        "max_pool": lambda: spcy.max_pool(x, 2),
        "inverse": lambda: spcy.inverse_conv(spcy.conv(x, weight, stride=2), weight),
        "unpool": lambda: spcy.unpool(spcy.sum_pool(x, 3, 2)),
        "rows_of": lambda: x.rows_of(x.indices),
        "add": lambda: spcy.add(x, x),
    }


@pytest.mark.parametrize("layer", layers(None, None))
def test_dropped_levels_are_freed_without_the_garbage_collector(layer, rng):
    x = random_tensor(rng, 40, (6, 7, 8), 2)
    weight = random_weight(rng, (3, 3, 3), 2, 2)[0]
    gc.collect()
    gc.disable()
    try:
        y = layers(x, weight)[layer]()
        coords = getattr(y, "coords", x.coords)
        refs = [weakref.ref(x.coords), weakref.ref(coords)]
        is_child = coords is not x.coords
        del y, coords
        if is_child:
            assert refs[1]() is None
        assert refs[0]() is x.coords
        del x
        assert [r() for r in refs] == [None, None]
    finally:
        gc.enable()


def test_levels_outlive_the_names_of_their_parents(rng):
    x = random_tensor(rng, 40, (6, 7, 8), 2)
    weight = random_weight(rng, (3, 3, 3), 2, 2)[0]
    indices, parent = get(x.indices), weakref.ref(x.coords)
    y = spcy.conv(spcy.conv(x, weight, stride=2, padding=1), weight, stride=2, padding=1)
    del x
    gc.collect()
    assert y.coords.parent.parent is parent()
    z = spcy.inverse_conv(spcy.inverse_conv(y, weight), weight)
    np.testing.assert_array_equal(get(z.indices), indices)
    assert z.coords is parent()
    assert z.coords.parent is None


def test_union(rng):
    for shape in ((6, 6), None):
        first = random_indices(rng, 20, (6, 6), 2)
        second = np.concatenate([first[3:9][::-1], random_indices(rng, 3, (6, 6), 1) + np.int32([2, 0, 0])])
        a, b = spcy.Coords(put(first), shape), spcy.Coords(put(second), shape, 3)
        coords, rows_a, rows_b = spcy.union(a, b)
        expected = np.unique(np.concatenate([first, second]), axis=0)
        np.testing.assert_array_equal(get(coords.indices), expected)
        assert (coords.shape, coords.batch_size) == (shape, 3)
        for rows, indices in ((rows_a, first), (rows_b, second)):
            np.testing.assert_array_equal(get(rows), ref.rows_of(expected, indices))
            assert rows.dtype == np.int32


def test_union_with_nothing():
    a = spcy.Coords(put(np.array([[0, 2], [0, 1]])), (4,))
    nothing = spcy.Coords(put(np.zeros((0, 2), int)), (4,))
    coords, rows_a, rows_b = spcy.union(a, nothing)
    np.testing.assert_array_equal(get(coords.indices), [[0, 1], [0, 2]])
    np.testing.assert_array_equal(get(rows_a), [1, 0])
    assert rows_b.shape == (0,)
    assert spcy.union(nothing, nothing)[0].num_sites == 0


def test_nothing_that_is_cached_can_be_changed(rng):
    x = spcy.voxelize(rng.random((50, 3)), 0.25).tensor
    level = spcy.max_pool(x, 2).coords
    book = spcy.submanifold_rulebook(x.coords, [[0, 0, -1], [0, 0, 1]])
    arrays = [book.in_rows, book.out_rows, book.offset_ptr]
    for coords in (x.coords, level, spcy.Coords([[0, 1]])):
        arrays += [coords.indices, coords.origin, coords.voxel_size]
    for array in arrays:
        assert_read_only(array)
    for array in (book.in_rows, book.out_rows, x.coords.indices):
        if isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True


def pickled(x):
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_copies_keep_their_levels(duplicate, rng):
    x = random_tensor(rng, 40, (9, 9), 2, np.float64)
    weight = put(rng.standard_normal((3, 3, 2, 2)))
    y = spcy.conv(x, weight, stride=2, padding=1)
    z = spcy.conv_transpose(y, put(rng.standard_normal((2, 2, 2, 2))), stride=2)
    x2, y2, z2 = duplicate((x, y, z))
    assert z2.coords.parent is y2.coords
    assert y2.coords.parent is x2.coords
    for old, new in ((x, x2), (y, y2), (z, z2)):
        np.testing.assert_array_equal(get(new.indices), get(old.indices))
        np.testing.assert_array_equal(new.coords.origin, old.coords.origin)
    back, expected = spcy.inverse_conv(y2, weight), spcy.inverse_conv(y, weight)
    assert back.coords is x2.coords
    np.testing.assert_array_equal(get(back.features), get(expected.features))


def test_other_metric_grids_do_not_mix(rng):
    points = rng.random((30, 2))
    x, y = spcy.voxelize(points, 0.5).tensor, spcy.voxelize(points * 2, 1.0).tensor
    np.testing.assert_array_equal(get(x.indices), get(y.indices))
    with pytest.raises(ValueError, match="same coords"):
        x + y
    with pytest.raises(ValueError, match="metric grid"):
        spcy.add(x, y)


def test_union_with_nothing_has_the_other_s_bounds():
    far = spcy.Coords(np.array([[0] + [2**30] * 3]))
    empty = spcy.Coords(np.empty((0, 4), np.int32))
    for a, b in ((far, empty), (empty, far)):
        np.testing.assert_array_equal(get(spcy.union(a, b)[0].indices), get(far.indices))


@pytest.mark.parametrize("kind", ["repeated", "distinct", "ascending", "none"])
def test_distinct_sites_are_in_the_order_of_their_first_rows(kind, rng):
    indices = random_indices(rng, 40, (4, 5, 6), batch_size=2, low=-3)
    if kind == "repeated":
        indices = np.concatenate([indices, indices[::2], indices[:5]])[rng.permutation(65)]
    elif kind == "ascending":
        indices = np.unique(indices, axis=0).repeat(2, axis=0)
    elif kind == "none":
        indices = indices[:0]
    coords, first, rows = spcy.coords.distinct_sites(put(indices.astype(np.int32)))
    if kind in ("distinct", "none"):
        assert first is rows is None
        first = rows = np.arange(len(indices))
    else:
        expected = np.sort(np.unique(indices, axis=0, return_index=True)[1])
        np.testing.assert_array_equal(get(first), expected)
    np.testing.assert_array_equal(get(coords.indices), indices[get(first)])
    np.testing.assert_array_equal(get(coords.indices)[get(rows)], indices)
    fresh = spcy.Coords(put(indices[get(first)]))
    np.testing.assert_array_equal(get(coords.rows_of(put(indices))), get(fresh.rows_of(put(indices))))
    assert (coords._sites.rows.order is None) == (kind in ("ascending", "none"))


@pytest.mark.paired("bits", "kind", "threads")
@pytest.mark.parametrize("bits", [1, 4, 5, 12, 27, 29, 45, 47, 55, 63])
@pytest.mark.parametrize("kind", ["even", "one bucket", "nearly one bucket", "few"])
@pytest.mark.parametrize("num", [65_535, 65_536, 150_001])
def test_keys_are_sorted_stably(num, bits, kind, threads, rng, monkeypatch):
    """By passes over all, or by buckets: of many keys, spread well, whose words have room for rows too."""
    monkeypatch.setattr(spcy._threads, "GRAIN", 1)
    keys = rng.integers(0, 1 << bits, num, dtype=np.uint64)
    if kind == "few":
        keys = rng.choice(keys[:5], num)
    elif kind != "even":
        keys >>= np.uint64(bits // 2)
        keys[-1] = (1 << bits) - 1 if kind == "nearly one bucket" else keys[0]
    given = put(keys.copy())
    found, rows = spcy.coords.sort_keys(given, bits)
    expected = np.argsort(keys, kind="stable")
    np.testing.assert_array_equal(get(rows), expected)
    np.testing.assert_array_equal(get(found), keys[expected])
