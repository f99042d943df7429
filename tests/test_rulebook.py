import itertools
import pickle

import numpy as np
import pytest
import reference as ref
from helpers import GEOMETRIES, assert_read_only, assert_rulebook, get, put, random_indices

import spcy

pytestmark = pytest.mark.usefixtures("backend")

geometries = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
few_threads = pytest.mark.parametrize("threads", [1, 3], indirect=True, ids="{}threads".format)
CROSS = [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
LISTS = {  # stencils that are no centred boxes
    "cross": CROSS,
    "one_sided": [[2, 0, 1], [0, 0, 0], [1, 3, 0]],
    "far": [[-5, 4, 0], [5, -4, 1]],
    "centre": [[0, 0, 0]],
    "no_centre": [[0, 0, 1]],
    "reversed_box": spcy.kernel_offsets((3, 3, 3))[::-1] - 1,
    "even_box": spcy.kernel_offsets((2, 2, 2)) - 1,
    "row": [[0, 0, r] for r in range(-4, 5)],
    "not_mirrored": [[-1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]],
}


def arrays(book):
    return tuple(map(get, (book.in_rows, book.out_rows, book.offset_ptr)))


def assert_transposed(book):
    """The same pairs with the roles swapped, canonical again."""
    back = book.transposed()
    assert (back.num_in, back.num_out, back.num_offsets) == (book.num_out, book.num_in, book.num_offsets)
    for actual, expected in zip(arrays(back), arrays(book), strict=True):
        assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(get(back.in_rows), get(book.out_rows))
    np.testing.assert_array_equal(get(back.out_rows), get(book.in_rows))
    np.testing.assert_array_equal(get(back.offset_ptr), get(book.offset_ptr))
    for actual, expected in zip(arrays(back.transposed()), arrays(book), strict=True):
        np.testing.assert_array_equal(actual, expected)


def assert_canonical(book, out_indices):
    """Within one offset, keys of the outputs ascend."""
    for k in range(book.num_offsets):
        sites = get(out_indices)[get(book.pairs(k)[1])]
        np.testing.assert_array_equal(np.unique(sites, axis=0), sites)


def assert_tiles(book, out_indices, tile_size):
    """Tile t of an offset holds the pairs whose output is one of tile t's ranks, and each pair is in one."""
    tiles = get(book._tiles(tile_size))
    ptr, out_rows = get(book.offset_ptr), get(book.out_rows)
    assert tiles.dtype == np.int64
    assert tiles.shape == (book.num_offsets, -(-book.num_out // tile_size) + 1)
    np.testing.assert_array_equal(tiles[:, 0], ptr[:-1])
    np.testing.assert_array_equal(tiles[:, -1], ptr[1:])
    rank = np.empty(book.num_out, int)
    rank[np.lexsort(get(out_indices).T[::-1])] = np.arange(book.num_out)
    tile_of_pair = rank[out_rows] // tile_size
    for row in tiles:
        for t, (start, stop) in enumerate(itertools.pairwise(row)):
            assert start <= stop
            assert (tile_of_pair[start:stop] == t).all()


@few_threads
@geometries
def test_conv_rulebook_is_the_reference(geometry, threads, rng):
    coords = geometry.tensor(rng, 1).coords
    rows, sites, shape = geometry.table(coords)
    args = {"stride": geometry.stride, "padding": geometry.padding}
    book, out = spcy.conv_rulebook(coords, geometry.offsets, **args)
    np.testing.assert_array_equal(get(out.indices), sites)
    assert (out.shape, out.batch_size, out.parent) == (shape, coords.batch_size, coords)
    assert_rulebook(book, rows, sites, coords.num_sites)
    assert_canonical(book.transposed(), coords.indices)
    assert_transposed(book)
    assert_tiles(book, sites, 7)
    assert_tiles(book.transposed(), coords.indices, 7)


@few_threads
@geometries
@pytest.mark.parametrize("output_padding", [0, 1])
def test_transposed_rulebook_is_the_reference(geometry, output_padding, threads, rng):
    coords = geometry.tensor(rng, 1).coords
    if output_padding and np.max(geometry.stride) == 1:
        output_padding = 0
    more = tuple(int(s > 1) * output_padding for s in geometry.axes(geometry.stride))
    rows, sites, shape = geometry.table(coords, np.array(more))
    args = {"stride": geometry.stride, "padding": geometry.padding, "output_padding": more}
    book, out = spcy.transposed_rulebook(coords, geometry.offsets, **args)
    np.testing.assert_array_equal(get(out.indices), sites)
    assert (out.shape, out.batch_size, out.parent) == (shape, coords.batch_size, coords)
    assert_rulebook(book, rows, sites, coords.num_sites)
    assert_canonical(book.transposed(), coords.indices)
    assert_transposed(book)


@few_threads
@geometries
def test_centred_box_is_the_reference(geometry, threads, rng):
    coords = geometry.tensor(rng, 1).coords
    offsets = ref.box(geometry.kernel_size, geometry.axes(geometry.dilation), centred=True)
    book = spcy.submanifold_rulebook(coords, offsets)
    assert_rulebook(book, ref.subm_table(get(coords.indices), offsets), get(coords.indices), coords.num_sites)
    assert_transposed(book)
    assert_tiles(book, coords.indices, 5)


@pytest.mark.parametrize("bounded", [True, False], ids=["shape", "unbounded"])
@pytest.mark.parametrize("name", LISTS)
def test_any_list_of_offsets(name, bounded, rng):
    offsets = np.array(LISTS[name])
    indices = random_indices(rng, 90, (7, 6, 5), 2, 0 if bounded else -3)
    coords = spcy.Coords(put(indices), (7, 6, 5) if bounded else None)
    book = spcy.submanifold_rulebook(coords, LISTS[name])
    assert_rulebook(book, ref.subm_table(indices, offsets), indices, 90)
    assert_transposed(book)
    if bounded and (offsets.max(0) >= 7).any():
        return
    for stride in (1, 2):
        where = (get(coords.indices), coords.shape, coords.batch_size, offsets, (stride,) * 3, (1, 1, 1))
        for build, more in ((spcy.conv_rulebook, ()), (spcy.transposed_rulebook, (np.zeros(3, int),))):
            rows, sites, shape = ref.conv_table(*where, *more)
            book, out = build(coords, LISTS[name], stride=stride, padding=1)
            np.testing.assert_array_equal(get(out.indices), sites)
            assert out.shape == shape
            assert_rulebook(book, rows, sites, 90)


@pytest.mark.parametrize("order", ["sorted", "shuffled", "reversed"])
@pytest.mark.parametrize("low", [0, -5], ids=["shape", "unbounded"])
def test_order_of_the_rows(order, low, rng):
    indices = random_indices(rng, 80, (6, 7, 8), 2, low)
    indices = {"shuffled": indices, "sorted": np.unique(indices, axis=0)}.get(
        order, np.unique(indices, axis=0)[::-1]
    )
    coords = spcy.Coords(put(indices), None if low else (6, 7, 8), 2)
    offsets = ref.box((3, 3, 3), (1, 1, 1), centred=True)
    book = spcy.submanifold_rulebook(coords, offsets)
    assert_rulebook(book, ref.subm_table(indices, offsets), indices, 80)
    assert_canonical(book, indices)
    assert_transposed(book)


def test_a_full_grid_and_a_line(rng):
    for box in ((5, 6, 7), (1, 1, 40), (40, 1, 1)):
        indices = random_indices(rng, 1000, box, 2)
        offsets = ref.box((3, 3, 3), (1, 1, 1), centred=True)
        book = spcy.submanifold_rulebook(spcy.Coords(put(indices), box), offsets)
        assert_rulebook(book, ref.subm_table(indices, offsets), indices, len(indices))


def test_neighbours_do_not_wrap_around_the_border():
    ends = np.array([[0, 0, 0], [0, 0, 4], [0, 1, 0], [0, 4, 4], [1, 0, 0]])
    offsets = ref.box((3, 3), (1, 1), centred=True)
    for shape in ((5, 5), None):
        book = spcy.submanifold_rulebook(spcy.Coords(put(ends), shape), offsets)
        assert_rulebook(book, ref.subm_table(ends, offsets), ends, 5)
        assert book.num_pairs == 5 + 2  # (0, 0) and (1, 0) see each other


def test_sites_far_apart():
    far = np.array([[0, -(2**31), -(2**28)], [0, 2**31 - 1, 2**28], [0, 2**31 - 2, 2**28], [0, 0, 0]])
    offsets = ref.box((3, 3), (1, 1), centred=True)
    book = spcy.submanifold_rulebook(spcy.Coords(put(far)), offsets)
    assert_rulebook(book, ref.subm_table(far, offsets), far, 4)
    assert book.num_pairs == 4 + 2


@few_threads
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_many_sites(order, threads, rng):
    """Enough of them that every step takes several chunks."""
    indices = random_indices(rng, 6000, (24, 25, 26))
    indices = np.unique(indices, axis=0) if order == "sorted" else indices
    coords = spcy.Coords(put(indices), (24, 25, 26))
    offsets = ref.box((3, 3, 3), (1, 1, 1))
    book = spcy.submanifold_rulebook(coords, offsets - 1)
    assert_rulebook(book, ref.subm_table(indices, offsets - 1), indices, 6000)
    assert_tiles(book, indices, 512)
    where = (indices, coords.shape, 1, offsets, (2, 2, 2), (1, 1, 1))
    rows, sites, _ = ref.conv_table(*where)
    book, out = spcy.conv_rulebook(coords, offsets, stride=2, padding=1)
    np.testing.assert_array_equal(get(out.indices), sites)
    assert_rulebook(book, rows, sites, 6000)
    rows, sites, _ = ref.conv_table(*where[:3], offsets[::9], (1, 1, 2), (0, 0, 0), 0)
    book, out = spcy.transposed_rulebook(coords, offsets[::9], stride=(1, 1, 2))
    np.testing.assert_array_equal(get(out.indices), sites)
    assert_rulebook(book, rows, sites, 6000)


LONG = {  # offsets along long rows, and a stride
    "box": ([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]], 2),
    "dense": ([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]], 1),
    "thirds": ([[0, 0], [0, 1], [1, 2], [1, 3]], 3),
    "not all remainders": ([[0, 1], [2, 5], [2, 9]], 4),
    "steps wider than a window": ([[0, 0], [0, 31], [0, 32], [0, 33], [0, 64], [0, 130], [1, 7]], 1),
    "wider, strided": ([[0, 0], [0, 63], [0, 64], [0, 65], [0, 129], [1, 150]], 2),
    "stride beyond a window": ([[0, 0], [0, 5], [1, 39]], 40),
}


@pytest.mark.parametrize("threads", [3], indirect=True, ids="{}threads".format)
@pytest.mark.parametrize("share", [0.05, 0.9])
@pytest.mark.parametrize("bounded", [True, False], ids=["shape", "unbounded"])
@pytest.mark.parametrize("name", LONG)
def test_long_rows(name, bounded, share, threads, rng):
    """Rows longer than the windows and the blocks that sites and outputs are taken by; two chunks."""
    offsets, stride = np.array(LONG[name][0]), LONG[name][1]
    box = (3, 200)
    indices = random_indices(rng, int(2 * 3 * 200 * share), box, 2, 0 if bounded else -70)
    coords = spcy.Coords(put(indices), box if bounded else None, 2)
    where = (indices, coords.shape, 2, offsets, (1, stride), (1, int(bounded)))
    for build, more in ((spcy.conv_rulebook, ()), (spcy.transposed_rulebook, (0,))):
        rows, sites, _ = ref.conv_table(*where, *more)
        book, out = build(coords, offsets, stride=where[4], padding=where[5])
        np.testing.assert_array_equal(get(out.indices), sites)
        assert_rulebook(book, rows, sites, len(indices))
    book = spcy.submanifold_rulebook(coords, offsets)
    assert_rulebook(book, ref.subm_table(indices, offsets), indices, len(indices))


FAR = [[2**20, 0, 0], [2**19] * 3, [2**20] * 3, [0, 0, 2**31 - 50], [2**31 - 50, 2**28, 0]]


@pytest.mark.parametrize("far", FAR, ids=str)
def test_clusters_far_apart_do_not_see_each_other(far, rng):
    """Keys that use most of their bits: two copies of a cluster give two copies of its plans."""
    indices = random_indices(rng, 30, (5, 5, 5), low=-3)
    both = np.concatenate([indices, indices + np.r_[0, far].astype(np.int32)])
    near, wide = spcy.Coords(put(indices)), spcy.Coords(put(both))
    offsets = ref.box((3, 3, 3), (2, 1, 1))
    one, two = (spcy.submanifold_rulebook(coords, offsets - [2, 1, 1]) for coords in (near, wide))
    assert_rulebook(two, ref.subm_table(both, offsets - [2, 1, 1]), both, 60)
    assert two.num_pairs == 2 * one.num_pairs
    for build, scale in ((spcy.conv_rulebook, 0.5), (spcy.transposed_rulebook, 2)):
        if scale == 2 and FAR.index(far) > 1:
            continue  # would leave int32 or 63-bit keys
        (one, near_out), (two, wide_out) = (build(coords, offsets, stride=2) for coords in (near, wide))
        assert two.num_pairs == 2 * one.num_pairs
        shift = np.r_[0, (np.array(far) * scale)].astype(np.int32)
        expected = np.concatenate([get(near_out.indices), get(near_out.indices) + shift])
        np.testing.assert_array_equal(get(wide_out.indices), np.unique(expected, axis=0))
    rows = get(wide.rows_of(put(np.concatenate([both[::-1], both + [0, 0, 0, 9]]))))
    np.testing.assert_array_equal(rows[:60], np.arange(60)[::-1])
    assert (rows[60:] == -1).all()


def test_kernel_offsets():
    offsets = spcy.kernel_offsets((2, 3), (3, 2))
    np.testing.assert_array_equal(get(offsets), [[0, 0], [0, 2], [0, 4], [3, 0], [3, 2], [3, 4]])
    assert offsets.dtype == np.int32
    for kernel in ((1,), (3, 1, 2), (2, 2, 2, 2)):
        np.testing.assert_array_equal(get(spcy.kernel_offsets(kernel)), ref.box(kernel, (1,) * len(kernel)))


def test_plan_is_immutable_and_readable(rng):
    coords = spcy.Coords(put(random_indices(rng, 30, (5, 5, 5))), (5, 5, 5))
    book = spcy.submanifold_rulebook(coords, CROSS)
    for array in (book.in_rows, book.out_rows, book.offset_ptr):
        assert_read_only(array)
    with pytest.raises(AttributeError):
        book.in_rows = None
    assert f"{book.num_pairs} pairs" in repr(book)
    for k in range(7):
        in_rows, out_rows = map(get, book.pairs(k))
        difference = get(coords.indices)[in_rows] - get(coords.indices)[out_rows]
        np.testing.assert_array_equal(difference, np.tile([0, *CROSS[k]], (len(in_rows), 1)))
    with pytest.raises(ValueError, match=r"^k .*7\).*got 7"):
        book.pairs(7)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(protocol, rng):
    coords = spcy.Coords(put(random_indices(rng, 800, (10, 10, 10))), (10, 10, 10))
    book = spcy.submanifold_rulebook(coords, CROSS)
    for same in (book, book.transposed()):
        again = pickle.loads(pickle.dumps(same, protocol))
        assert repr(again) == repr(same)
        for name in ("in_rows", "out_rows", "offset_ptr"):
            array = getattr(again, name)
            np.testing.assert_array_equal(get(array), get(getattr(same, name)))
            assert_read_only(array)


@pytest.mark.parametrize("build", [spcy.conv_rulebook, spcy.transposed_rulebook])
@pytest.mark.parametrize("site", [-(2**31), 2**31 - 1])
def test_outputs_at_the_ends_of_int32(build, site):
    coords = spcy.Coords(put(np.array([[0, 3, site]])))
    book, out = build(coords, np.array([[0, 0]]))
    np.testing.assert_array_equal(get(out.indices), [[0, 3, site]])
    assert book.num_pairs == 1


@pytest.mark.parametrize("num_sites", [0, 1])
@pytest.mark.parametrize("shape", [(4, 4), None])
def test_hardly_any_sites(num_sites, shape):
    coords = spcy.Coords(put(np.array([[0, 1, 2]])[:num_sites]), shape)
    offsets = ref.box((3, 3), (1, 1))
    book = spcy.submanifold_rulebook(coords, get(offsets) - 1)
    assert (book.num_pairs, book.num_offsets, book.num_out) == (num_sites, 9, num_sites)
    assert_tiles(book, coords.indices, 4)
    for build in (spcy.conv_rulebook, spcy.transposed_rulebook):
        book, out = build(coords, offsets, padding=1)
        assert (book.num_pairs, out.num_sites) == (9 * num_sites, 9 * num_sites)
        assert out.shape == shape
        assert_transposed(book)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 3)], ids=str)
def test_pairs_between_any_two_sets_of_sites(stride, rng):
    """Outputs in any order, and none of them made from the inputs."""
    inputs = spcy.Coords(put(random_indices(rng, 60, (7, 6, 8), 2, low=-3)))
    outputs = spcy.Coords(put(random_indices(rng, 30, (5, 6, 4), 2, low=-2)))
    stencil = spcy.rulebook.stencil_of(CROSS, 3)
    book = spcy.rulebook.between(inputs._sites, outputs._sites, stencil, stride, (0, 0, 0))
    assert (book.num_in, book.num_out) == (60, 30)
    rows = {tuple(c): row for row, c in enumerate(get(inputs.indices).tolist())}
    for k, offset in enumerate(CROSS):
        reached = get(outputs.indices) * np.array([1, *stride]) + np.array([0, *offset])
        expected = {(rows[tuple(c)], row) for row, c in enumerate(reached.tolist()) if tuple(c) in rows}
        assert {*zip(*map(np.ndarray.tolist, map(get, book.pairs(k))), strict=True)} == expected
    assert_canonical(book, outputs.indices)
    assert_tiles(book, outputs.indices, 8)
    order = [3, 0, 6, 1, 5, 2, 4]
    other = spcy.rulebook.reordered(book, order)
    for k, of in enumerate(order):
        for actual, expected in zip(other.pairs(k), book.pairs(of), strict=True):
            np.testing.assert_array_equal(get(actual), get(expected))
    assert_transposed(other)
