"""Each CUDA kernel, emulated, gives bit for bit what its CPU twin gives."""

import importlib

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import SCHEDULES, counting, running

import spcy
from spcy import _cpu

pytestmark = pytest.mark.skipif(bool(cuda_on_cpu.available()), reason=str(cuda_on_cpu.available()))
THREADS = 2
SIZES = [1, 31, 257, 5000]


@pytest.fixture(scope="module", autouse=True)
def _stand_in():
    with cuda_on_cpu.installed():
        yield


@pytest.fixture(params=[*SCHEDULES, "one_block"])
def schedule(request, monkeypatch):
    """Orders of threads; in one block, so that it goes from task to task, with the checks too."""
    if request.param == "one_block":
        kernel = importlib.import_module("spcy._cuda._kernel")
        monkeypatch.setattr(kernel, "_MAX_BLOCKS", 1)
    with running("checked" if request.param == "one_block" else request.param):
        yield request.param


def both(stage, function, *args, outputs, near=()):
    """Call both twins; the outputs, named by their places, start as poison; return the CPU's.

    Outputs are the same bits, but for those in `near`: sums that the CPU rounds less often.
    """
    import cupy

    host = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    expected = getattr(getattr(_cpu, stage), function)(*host)
    device = []
    for i, a in enumerate(args):
        if i in outputs:
            a = cupy.empty(a.shape, a.dtype)
        elif isinstance(a, np.ndarray) and not isinstance(a, Host):
            a = cupy.asarray(a)
        device.append(np.asarray(a) if isinstance(a, Host) else a)
    with counting() as counts:
        actual = getattr(importlib.import_module(f"spcy._cuda.{stage}"), function)(*device)
        assert counts.synchronisations == (expected is not None)
        assert counts.uploads == 0
    assert actual == expected
    for i in outputs:
        tolerance = 8 * np.finfo(host[i].dtype).eps if i in near else 0
        np.testing.assert_allclose(device[i].get(), host[i], rtol=tolerance, atol=tolerance)
    return [host[i] for i in outputs]


class Host(np.ndarray):
    """An array that stays on the host: a value for each column."""


def columns(*values, dtype=np.int64):
    return np.array(values, dtype).view(Host)


def layout(indices):
    """Return low, high and shift of a layout for some indices."""
    low, high = indices.min(axis=0).astype(np.int64) - 2, indices.max(axis=0).astype(np.int64) + 1
    bits = [int(h - lo).bit_length() for lo, h in zip(low, high, strict=True)]
    shift = [sum(bits[c + 1 :]) for c in range(len(bits))]
    return columns(*low), columns(*(low + (1 << np.array(bits)) - 1)), columns(*shift)


def random_indices(rng, size, ndim):
    return np.column_stack([rng.integers(0, 3, size), rng.integers(-50, 50, (size, ndim))]).astype(np.int32)


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_layouts(schedule, size, ndim, rng):
    indices = random_indices(rng, size, ndim)
    low, high, shift = layout(indices)
    chunks = -(-size // _cpu.coords.CHUNK)
    found = np.empty((chunks, 2, 1 + ndim), np.int32)
    (found,) = both("coords", "bounds", indices, found, THREADS, outputs=[1])
    np.testing.assert_array_equal(found[0], [indices.min(axis=0), indices.max(axis=0)])
    keys = np.empty(size, np.uint64)
    (keys,) = both("coords", "pack", indices, low, shift, keys, THREADS, outputs=[3])
    both("coords", "unpack", keys, low, shift, indices, THREADS, outputs=[3])
    wider = layout(np.concatenate([indices - 9, indices + 5]))
    both("coords", "repack", keys, low, shift, wider[0], wider[2], keys, THREADS, outputs=[5])
    both("coords", "pack_inside", 2 * indices, low, high, shift, keys, THREADS, outputs=[4])


@pytest.mark.parametrize("bits", [1, 24, 31, 32, 63])
@pytest.mark.parametrize("size", SIZES)
def test_sort(schedule, size, bits, rng):
    """Stable, with the row of each key; the key that no site has comes last."""
    import cupy

    keys = rng.integers(0, 2**bits, size, np.uint64)
    keys[::7] = 2**bits - 1
    keys[::5] = 2**64 - 1
    builders = importlib.import_module("spcy._cuda.builders")
    device = cupy.asarray(keys)
    with counting() as counts:
        sorted_keys, rows = builders.sort_keys(device, bits)
        assert counts.synchronisations == counts.uploads == 0
        assert counts.kernels == 1
    order = np.argsort(keys, kind="stable")
    np.testing.assert_array_equal(sorted_keys.get(), keys[order])
    np.testing.assert_array_equal(rows.get(), order)


@pytest.mark.parametrize("size", [*SIZES, 9000])
@pytest.mark.parametrize("step", [1, 3, 2000])
def test_runs(schedule, size, step, rng):
    keys = np.sort(rng.integers(0, -(-size // step), size).astype(np.uint64))
    order = rng.permutation(size).astype(np.int32)
    counts = np.empty(-(-size // _cpu.coords.CHUNK), np.int64)
    (counts,) = both("coords", "count_runs", keys, counts, THREADS, outputs=[1])
    runs = counts.sum()
    starts, unique = np.empty(runs, np.int64), np.empty(runs, np.uint64)
    first = np.cumsum(counts) - counts
    starts, _ = both("coords", "fill_runs", keys, first, starts, unique, THREADS, outputs=[2, 3])
    rows = np.empty(size, np.int32)
    both("coords", "spread_runs", np.append(starts, size), order, rows, THREADS, outputs=[2])
    both("coords", "count_descents", keys, THREADS, outputs=[])
    both("coords", "count_descents", keys[::-1].copy(), THREADS, outputs=[])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("batched", [True, False])
def test_points(schedule, ndim, real, batched, rng):
    size = 300
    points = (20 * rng.standard_normal((size, ndim))).astype(real)
    points[rng.integers(0, size, 5), 0] = [np.nan, np.inf, -np.inf, 1e30, -1e30]
    points[5] = np.round(points[5])
    batch = rng.integers(0, 3, size).astype(np.int32) if batched else None
    grid = columns(*rng.standard_normal(ndim), dtype=float), columns(*rng.uniform(0.3, 2, ndim), dtype=float)
    low, high = columns(0, *[-9] * ndim), columns(1, *[12] * ndim)
    shift = columns(*[5 * d for d in range(ndim, -1, -1)])
    keys, state = np.empty(size, np.uint64), np.empty(size, np.uint8)
    for fractions in (None, np.empty((size, ndim))):
        args = points, batch, *grid, fractions is not None, low, high, low, shift, 1 << 62
        outputs = [10, 12] if fractions is None else [10, 11, 12]
        both("coords", "cell_keys", *args, keys, fractions, state, THREADS, outputs=outputs)
    finite = points[np.isfinite(points).all(axis=1)]
    both("coords", "bounds", finite, np.empty((1, 2, ndim), real), THREADS, outputs=[1])


@pytest.mark.parametrize("kind", ["random", "duplicates", "equal", "crowded"])
@pytest.mark.parametrize("size", [0, *SIZES])
def test_hashmap(schedule, size, kind, rng):
    keys = rng.integers(0, 2**63, size, np.uint64)
    if kind != "random":
        keys = keys % np.uint64({"duplicates": 100, "equal": 1, "crowded": 3000}[kind])
    if kind == "crowded":
        keys <<= np.uint64(40)
    bits = max(4, (2 * size - 1).bit_length())
    import cupy

    hashmap = importlib.import_module("spcy._cuda.hashmap")
    slots = cupy.empty((1 << bits, 2), np.uint64)
    hashmap.build(cupy.asarray(keys), slots, bits, THREADS)
    host = slots.get()
    used = host[host[:, 0] != np.uint64(2**64 - 1)]
    least = {}
    for row, key in enumerate(keys.tolist()):
        least.setdefault(key, row)
    assert dict(used.tolist()) == least
    queries = np.concatenate([keys, keys + np.uint64(1), keys[::-1] ^ np.uint64(1 << 50)])
    rows = cupy.empty(len(queries), np.int32)
    hashmap.find(slots, bits, cupy.asarray(queries), rows, THREADS)
    np.testing.assert_array_equal(rows.get(), [least.get(key, -1) for key in queries.tolist()])


def random_rulebook(rng, num_in, num_out, offsets, tile_size, order):
    """Pairs in canonical order: under an offset, output ranks ascend and no row occurs twice."""
    in_rows, out_rows, sizes = [], [], []
    for _ in range(offsets):
        size = rng.integers(0, min(num_in, num_out) + 1)
        ranks = np.sort(rng.permutation(num_out)[:size])
        in_rows.append(rng.permutation(num_in)[:size])
        out_rows.append(ranks if order is None else order[ranks])
        sizes.append(ranks)
    offset_ptr = np.concatenate([[0], np.cumsum([len(ranks) for ranks in sizes])])
    cuts = np.arange(-(-num_out // tile_size) + 1) * tile_size
    tile_ptr = np.stack(
        [np.searchsorted(ranks, cuts) + p for ranks, p in zip(sizes, offset_ptr, strict=False)]
    )
    return np.concatenate(in_rows).astype(np.int32), np.concatenate(out_rows).astype(np.int32), tile_ptr


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 5, 40])
@pytest.mark.parametrize("ordered", [True, False])
def test_pool(schedule, channels, ordered, real, rng):
    num_in, num_out, offsets, tile_size = 90, 70, 8, 16
    order = rng.permutation(num_out).astype(np.int32) if ordered else None
    in_rows, out_rows, tile_ptr = random_rulebook(rng, num_in, num_out, offsets, tile_size, order)
    features = rng.standard_normal((num_in, channels)).astype(real)
    features[3, 0] = np.nan
    out = np.empty((num_out, channels), real)
    features[4] = -0.0
    counts = rng.integers(0, 4, num_out).astype(np.int32)
    for operation, divisors in ((0, None), (1, None), (2, counts), (0, counts)):
        args = features, in_rows, out_rows, tile_ptr, order, tile_size, operation, divisors, out, THREADS
        both("pool", "pool", *args, outputs=[8])
    counts = np.zeros(num_out, np.int32)
    import cupy

    device = cupy.zeros(num_out, np.int32)
    _cpu.pool.count_pairs_per_row(out_rows, tile_ptr, counts, THREADS)
    twin = importlib.import_module("spcy._cuda.pool")
    twin.count_pairs_per_row(cupy.asarray(out_rows), cupy.asarray(tile_ptr), device, THREADS)
    np.testing.assert_array_equal(device.get(), counts)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("channels", [1, 32, 40])
def test_maxima_of_pairs(schedule, channels, ordered, real, rng):
    num_in, num_out, offsets, tile_size, words = 90, 70, 8, 16, -(-channels // 32)
    order = rng.permutation(num_out).astype(np.int32) if ordered else None
    in_rows, out_rows, tile_ptr = random_rulebook(rng, num_in, num_out, offsets, tile_size, order)
    features = rng.integers(0, 3, (num_in, channels)).astype(real)
    features[3, 0] = np.nan
    maxima = np.empty((num_out, channels), real)
    pairs = in_rows, out_rows, tile_ptr
    _cpu.pool.pool(features, *pairs, order, tile_size, 1, None, maxima, THREADS)
    left, taken = np.empty((num_out, words), np.uint32), np.empty((len(in_rows), words), np.uint32)
    args = features, maxima, *pairs, order, tile_size, left, taken, THREADS
    both("grad", "find_maxima", *args, outputs=[8])
    _cpu.grad.find_maxima(*args)
    gradient, out = rng.standard_normal((num_in, channels)).astype(real), np.empty((num_out, channels), real)
    back = gradient, taken, out_rows, in_rows, tile_ptr, order, tile_size, out, THREADS  # as if backwards
    both("grad", "return_maxima", *back, outputs=[7])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("ordered", [True, False])
def test_segments(schedule, ordered, real, rng):
    rows, channels = 400, 7
    features = rng.standard_normal((rows, channels)).astype(real)
    features[[3, 50], 0] = np.nan, -np.inf
    order = rng.permutation(rows).astype(np.int32) if ordered else None
    segment_ptr = np.concatenate([[0], np.sort(rng.integers(0, rows, 60)), [rows]])
    for operation in (spcy.pool.SUM, spcy.pool.MAX):
        for made in (real, np.float64):
            out = np.empty((len(segment_ptr) - 1, channels), made)
            both("pool", "segment_reduce", features, order, segment_ptr, operation, out, THREADS, outputs=[4])
    maxima = np.empty((len(segment_ptr) - 1, channels), real)
    _cpu.pool.segment_reduce(features, order, segment_ptr, spcy.pool.MAX, maxima, THREADS)
    gradient, dx = rng.standard_normal(maxima.shape).astype(real), np.zeros_like(features)
    parts = features, maxima, gradient, order, segment_ptr, dx, THREADS
    both("grad", "return_segment_maxima", *parts, outputs=[5])


@pytest.mark.paired("ndim", "renormalize", "ordered")
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
def test_corners(schedule, ordered, renormalize, ndim, real, rng):
    """Points in a box of cells, some of which are sites, each step of the two operations by itself."""
    num, box, channels = 300, 5, 3
    indices = np.stack(np.unravel_index(np.arange(2 * box**ndim), (2, *[box] * ndim)), axis=1)
    low, _, shift = layout(indices)
    keys = ((indices - low) << shift).sum(axis=1).astype(np.uint64)
    keys = np.append(keys[rng.random(len(keys)) < 0.6], np.uint64(2**64 - 1))
    sites = len(keys) - 1
    order = rng.permutation(sites).astype(np.int32) if ordered else None
    points = rng.uniform(-3, box + 3, (num, ndim)).astype(real)
    points[:9] = np.round(points[:9]) + real(0.5)  # in the middle of cells: weights are 0 and 1
    points[rng.integers(9, num, 3), 0] = [np.nan, np.inf, 1e30]
    grid = columns(*[0.0] * ndim, dtype=float), columns(*[1.0] * ndim, dtype=float)
    least, most = columns(0, *[-1] * ndim), columns(1, *[box - 1] * ndim)
    cells, fractions, state = np.empty(num, np.uint64), np.empty((num, ndim)), np.empty(num, np.uint8)
    batch = rng.integers(0, 3, num).astype(np.int32)
    none = 1 << 62
    args = points, batch, *grid, True, least, most, low, shift, none, cells, fractions, state, THREADS
    cells, fractions, state = both("coords", "cell_keys", *args, outputs=[10, 11, 12])
    assert (state == 2).sum() == np.sum(~np.isfinite(points).all(axis=1))
    fractions = np.nan_to_num(fractions, posinf=0)

    by_cells = np.argsort(cells, kind="stable").astype(np.int32)
    cells, starts = np.unique(cells[by_cells], return_index=True)
    starts = np.append(starts, num)
    ranks = np.empty((len(cells), 2**ndim), np.int32)
    (ranks,) = both("corners", "ranks", cells, keys, shift, ranks, THREADS, outputs=[3])
    assert (ranks[-1] == -1).all()  # of the points outside
    assert (ranks >= 0).any()

    plan = ranks, order, by_cells, starts, fractions, renormalize
    features, out = rng.standard_normal((sites, channels)).astype(real), np.empty((num, channels), real)
    both("corners", "interpolate", features, *plan, out, THREADS, outputs=[7], near=[7])
    gradient, dx = rng.standard_normal((num, channels)).astype(real), np.empty((sites, channels), real)
    both("corners", "interpolate_gradient", gradient, *plan, dx, THREADS, outputs=[7], near=[7])


@pytest.mark.parametrize(
    ("size", "first", "place", "count"), [(1, 3, 2, 5), (2, 1, 4, 7), (4, 0, 0, 9), (8, 2, 1, 3)]
)
@pytest.mark.parametrize("ordered", [True, False])
def test_rows(schedule, ordered, size, first, place, count, rng):
    source = rng.integers(0, 256, (50, size * 12)).astype(np.uint8)
    rows = rng.integers(-10, 50, 300).clip(-1).astype(np.int32) if ordered else None
    out = np.zeros((len(source) if rows is None else len(rows), size * count), np.uint8)
    args = source, first * size, rows, out, 0, count * size, THREADS
    (taken,) = both("rows", "take", *args, outputs=[3])
    expected = source[:, first * size : (first + count) * size]
    expected = expected if rows is None else np.where(rows[:, None] < 0, 0, expected[rows])
    np.testing.assert_array_equal(taken, expected)
    import cupy

    out = cupy.zeros((len(taken), size * (place + count + 2)), np.uint8)
    device = cupy.asarray(source), first * size, None if rows is None else cupy.asarray(rows)
    importlib.import_module("spcy._cuda.rows").take(*device, out, place * size, count * size, THREADS)
    out = out.get()
    np.testing.assert_array_equal(out[:, place * size : (place + count) * size], expected)
    assert not out[:, : place * size].any()
    assert not out[:, (place + count) * size :].any()


def test_nothing_is_launched_for_nothing():
    import cupy

    hashmap = importlib.import_module("spcy._cuda.hashmap")
    with counting() as counts:
        hashmap.find(cupy.empty((16, 2), np.uint64), 4, cupy.empty(0, np.uint64), cupy.empty(0, np.int32), 1)
    assert counts.kernels == 0


def sorted_sites(rng, ndim, size):
    """Return coords in row order, with their ascending keys."""
    cells = 3 if ndim == 4 else {1: 4 * size, 2: 40, 3: 12}[ndim]
    flat = rng.permutation(2 * cells**ndim)[:size]
    indices = np.stack(np.unravel_index(flat, (2, *[cells] * ndim)), axis=1).astype(np.int32)
    return spcy.Coords(indices)


def assert_book(made, book):
    for name in ("in_rows", "out_rows", "offset_ptr"):
        actual, expected = getattr(made, name), getattr(book, name)
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual.get(), expected)


@pytest.mark.parametrize(
    "kernel_size", [(1,), (3,), (2,), (3, 3), (2, 3), (3, 3, 3), (3, 1, 5), (3, 3, 3, 3)]
)
@pytest.mark.parametrize("size", [1, 40, 2500])
def test_submanifold(schedule, size, kernel_size, rng):
    """The pairs of the CPU's rulebook, in its order, for one wait."""
    ndim = len(kernel_size)
    coords = sorted_sites(rng, ndim, size)
    offsets = spcy.kernel_offsets(kernel_size)
    offsets -= offsets[len(offsets) // 2]
    device = coords.to("cuda")
    with counting() as counts:
        made = spcy.submanifold_rulebook(device, offsets)
    assert counts.synchronisations == 1
    assert counts.kernels <= 4  # the fourth takes keys to a layout with room for the neighbours
    assert_book(made, spcy.submanifold_rulebook(coords, offsets))


@pytest.mark.paired("kernel_size", "divide", "known")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"),
    [((2,), 2, 0), ((3,), 2, 1), ((3, 3), (1, 3), 0), ((3, 3, 3), 2, 1), ((1, 2, 3), (3, 2, 1), (0, 1, 2)),
     ((2, 2, 2, 2), 2, 0)],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 40, 2500])
def test_reached(schedule, size, kernel_size, stride, padding, divide, known, rng, monkeypatch):
    """The pairs and the outputs of the CPU's rulebook, in its order, for one wait.

    Two where there would be much room for pairs before their number is known.
    """
    monkeypatch.setattr(importlib.import_module("spcy._cuda.builders"), "_ROOM", 0 if known else 1 << 24)
    coords = sorted_sites(rng, len(kernel_size), min(size, 160) if len(kernel_size) == 4 else size)
    offsets = spcy.kernel_offsets(kernel_size)
    build = spcy.conv_rulebook if divide else spcy.transposed_rulebook
    book, out = build(coords, offsets, stride=stride, padding=padding)
    device = coords.to("cuda")
    with counting() as counts:
        made, level = build(device, offsets, stride=stride, padding=padding)
    assert counts.synchronisations == (2 if known else 1)
    assert_book(made, book)
    np.testing.assert_array_equal(level.indices.get(), out.indices)
    np.testing.assert_array_equal(level._sites.keys.get(), out._sites.keys)
    assert level.shape == out.shape


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("tile_size", [1, 16, 1000])
def test_tiles(schedule, tile_size, ordered, rng):
    order = rng.permutation(70).astype(np.int32) if ordered else None
    _, out_rows, tile_ptr = random_rulebook(rng, 90, 70, 8, tile_size, order)
    rank = np.argsort(order).astype(np.int32) if ordered else None
    offset_ptr = np.append(tile_ptr[:, 0], len(out_rows))
    args = out_rows, offset_ptr, rank, tile_size, tile_ptr, THREADS
    both("rulebook", "cut_tiles", *args, outputs=[4])
