"""The CUDA convolution on the emulated machine: its results, its plan, its cost, its compiled code."""

import importlib
import itertools

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import counting, nvrtc, running
from helpers import assert_close, random_indices

import spcy
from spcy._stencil import box_stencil
from spcy.rulebook import generative, strided, submanifold

pytestmark = pytest.mark.skipif(bool(cuda_on_cpu.available()), reason=str(cuda_on_cpu.available()))

WIDE = ["WideFloat16", "WideBfloat16"]
MATHS = [*WIDE, "Float16", "Bfloat16", "Tf32", "Float32", "Float64"]
maths = pytest.mark.parametrize("math", MATHS)
TILE_SIZES = [64, 128]
CHANNELS = [(1, 1), (3, 16), (4, 8), (8, 3), (16, 17), (17, 32), (32, 64), (64, 65), (65, 130), (130, 4)]
BOOKS = {
    "1x1x1": lambda coords: submanifold(coords, box_stencil((1, 1, 1), (1, 1, 1), centred=True)),
    "3x3x1": lambda coords: submanifold(coords, box_stencil((3, 3, 1), (1, 1, 1), centred=True)),
    "3x3x3": lambda coords: submanifold(coords, box_stencil((3, 3, 3), (1, 1, 1), centred=True)),
    "5x5x5": lambda coords: submanifold(coords, box_stencil((5, 5, 5), (1, 1, 1), centred=True)),
    "2x2x2 stride 2": lambda coords: strided(coords, box_stencil((2, 2, 2), (1, 1, 1)), (2, 2, 2), (0, 0, 0))[
        0
    ],
    "its inverse": lambda coords: BOOKS["2x2x2 stride 2"](coords).transposed(),
    "transposed": lambda coords: generative(
        coords, box_stencil((3, 3, 3), (1, 1, 1)), (2, 2, 2), (1, 1, 1), (0, 0, 0)
    )[0],
}


@pytest.fixture(scope="module")
def cupy():
    """The stand-in for CuPy, with the CUDA half imported for it."""
    with cuda_on_cpu.installed() as module:
        yield module


@pytest.fixture
def stage(cupy):
    from spcy._cuda import conv

    return conv


@pytest.fixture(params=cuda_on_cpu.SCHEDULES)
def schedule(request):
    with running(request.param):
        yield request.param


def dtype_of(math):
    if math.endswith("Bfloat16"):
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype({"Float64": "float64"}.get(math, "float16" if math.endswith("Float16") else "float32"))


def coords_of(rng, num_sites=150, box=(8, 8, 8)):
    return spcy.Coords(random_indices(rng, num_sites, box), shape=box)


def ternary(rng, shape, dtype):
    """-1, 0 and 1: sums of their products are exact in every type, whatever their order."""
    return rng.integers(-1, 2, shape).astype(dtype)


def tiles_of(cupy, stage, book, tile_size):
    """Return the plan of a rulebook made on the CPU."""
    arrays = book.in_rows, book.out_rows, book._tiles(tile_size), book._out.order, book._out.rank
    arrays = (None if a is None else cupy.asarray(a) for a in arrays)
    return stage.Tiles(*arrays, tile_size, book.num_out)


def execute(cupy, stage, tiles, math, features, weight, bias=None, residual=None, relu=False):
    """Return a convolution's result, from arrays of NumPy."""

    bfloat16 = math.endswith("Bfloat16")

    def device(array):
        return None if array is None else cupy.asarray(array.view(np.uint16) if bfloat16 else array)

    shape = tiles.n_out, weight.shape[-1]
    out = cupy.empty(shape, np.uint16 if bfloat16 else features.dtype)
    scratch = cupy.empty(tiles.scratch_bytes(features.dtype, *weight.shape[1:], 1, 1), np.int8)
    arrays = map(device, (features, weight, bias, residual))
    with spcy.allow_tf32(math == "Tf32"), pytest.MonkeyPatch.context() as patch:
        if math in WIDE:  # on the device that has it, also where it would not pay
            patch.setattr(stage, "_compute_capability", lambda: 90)
            patch.setattr(blocks_of(stage), "WIDE_CHANNELS", 1)
        stage.conv(tiles, *arrays, out, int(relu), 0.0, scratch, 1, 1)
    return out.get().view(features.dtype)


def blocks_of(stage):
    """Return the tables of blocks, as the stage has them."""
    return importlib.import_module(f"{stage.__package__}.blocks")


def plan_of(stage):
    """Return the module of the plan."""
    return importlib.import_module(f"{stage.__package__}.plan")


def expected(book, features, weight, bias=None, residual=None, relu=False):
    """Return the result by definition, in float64."""
    out = np.zeros((book.num_out, weight.shape[-1]))
    for k, matrix in enumerate(np.float64(weight)):
        in_rows, out_rows = book.pairs(k)
        out[out_rows] += np.float64(features)[in_rows] @ matrix
    out += 0 if bias is None else np.float64(bias)
    out += 0 if residual is None else np.float64(residual)
    return np.where(out < 0, 0, out) if relu else out


def check(cupy, stage, rng, book, math, c_in, c_out, tile_size, epilogue=True):
    """Compare with the definition, exactly."""
    dtype = dtype_of(math)
    features = ternary(rng, (book.num_in, c_in), dtype)
    weight = ternary(rng, (book.num_offsets, c_in, c_out), dtype)
    more = ()
    if epilogue:
        more = ternary(rng, c_out, dtype), ternary(rng, (book.num_out, c_out), dtype), True
    tiles = tiles_of(cupy, stage, book, tile_size)
    out = execute(cupy, stage, tiles, math, features, weight, *more)
    np.testing.assert_array_equal(np.float64(out), expected(book, features, weight, *more))
    return tiles


@maths
@pytest.mark.parametrize("kernel", BOOKS)
def test_every_kind_of_rulebook(cupy, stage, rng, math, kernel):
    check(cupy, stage, rng, BOOKS[kernel](coords_of(rng)), math, 17, 24, 64)


@maths
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_every_number_of_channels(cupy, stage, rng, math, channels):
    book = BOOKS["3x3x1"](coords_of(rng, 70, (5, 5, 5)))
    check(cupy, stage, rng, book, math, *channels, 64)


@maths
@pytest.mark.parametrize("tile_size", TILE_SIZES)
@pytest.mark.parametrize(
    ("c_out", "order"),
    [*((64, name) for name in cuda_on_cpu.SCHEDULES), *((c_out, "checked") for c_out in (32, 128))],
)
def test_every_block(cupy, stage, rng, math, tile_size, c_out, order):
    """Checks of the order between threads find what other orders of them could show."""
    book = BOOKS["3x3x1"](coords_of(rng, 150))
    with running(order):
        check(cupy, stage, rng, book, math, 32, c_out, tile_size)


@maths
@pytest.mark.parametrize("tile_size", TILE_SIZES)
@pytest.mark.paired("math", "tile_size")  # the blocks are those of 128 channels, the last one not full
def test_more_channels_than_a_block(cupy, stage, rng, math, tile_size):
    with running("checked"):
        check(cupy, stage, rng, BOOKS["3x3x1"](coords_of(rng, 150)), math, 32, 136, tile_size)


@pytest.mark.parametrize(
    ("box", "kernel"), [((40,), (3,)), ((9, 8), (5, 5)), ((4, 4, 4, 4), (3, 3, 3, 3))], ids=str
)
def test_other_numbers_of_axes(cupy, stage, rng, box, kernel):
    stencil = box_stencil(kernel, (1,) * len(kernel), centred=True)
    book = submanifold(coords_of(rng, 30, box), stencil)
    check(cupy, stage, rng, book, "Float16", 8, 8, 64)
    check(cupy, stage, rng, book, "Float32", 5, 3, 64)


@pytest.mark.paired("math", "schedule")  # each block with the checks: test_every_block
@maths
def test_split_offsets_give_the_same(cupy, stage, rng, math, schedule, monkeypatch):
    book = BOOKS["3x3x3"](coords_of(rng, 200))
    for processors in (1, 8):
        monkeypatch.setattr(plan_of(stage), "multiprocessors", lambda count=processors: count)
        for c_in, c_out, epilogue in ((24, 40, True), (5, 7, False)):
            tiles = check(cupy, stage, rng, book, math, c_in, c_out, 64, epilogue)
            assert (tiles.splits(c_out) > 1) == (processors > 1)


def test_more_work_than_a_grid(cupy, stage, rng, monkeypatch):
    from spcy._cuda import _kernel

    monkeypatch.setattr(_kernel, "_MAX_BLOCKS", 1)
    for processors in (0, 8):
        monkeypatch.setattr(plan_of(stage), "multiprocessors", lambda count=processors: count)
        check(cupy, stage, rng, BOOKS["3x3x3"](coords_of(rng, 400)), "Float32", 4, 8, 64)


@maths
def test_bits_do_not_depend_on_the_schedule(cupy, stage, rng, math):
    book, dtype = BOOKS["3x3x3"](coords_of(rng)), dtype_of(math)
    features = rng.standard_normal((book.num_in, 40)).astype(dtype)
    weight = rng.standard_normal((27, 40, 24)).astype(dtype)
    results = set()
    for name in cuda_on_cpu.SCHEDULES:
        with running(name):
            tiles = tiles_of(cupy, stage, book, 64)
            results.add(execute(cupy, stage, tiles, math, features, weight).tobytes())
    assert len(results) == 1


@maths
def test_rounding_is_as_good_as_the_type(cupy, stage, rng, math):
    book, dtype = BOOKS["3x3x3"](coords_of(rng)), dtype_of(math)
    features = rng.standard_normal((book.num_in, 64)).astype(dtype)
    weight = rng.standard_normal((27, 64, 32)).astype(dtype)
    bias = rng.standard_normal(32).astype(dtype)
    residual = rng.standard_normal((book.num_out, 32)).astype(dtype)
    arguments = features, weight, bias, residual, True
    out = execute(cupy, stage, tiles_of(cupy, stage, book, 128), math, *arguments)
    exact = expected(book, *arguments)
    relative = {"Float16": 2**-11, "Bfloat16": 2**-8, "Tf32": 2**-10, "Float32": 2**-20, "Float64": 2**-48}
    assert np.abs(np.float64(out) - exact).max() <= relative[math.removeprefix("Wide")] * np.abs(exact).max()


@maths
@pytest.mark.paired("math", "processors", "wrong")
@pytest.mark.parametrize("processors", [1, 8], ids=["whole", "split"])
@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_weights_of_inf_stay_in_their_rows(cupy, stage, rng, math, processors, wrong, monkeypatch):
    """Rows without a pair under the offset of such a weight stand as zeros beside those that have one."""
    monkeypatch.setattr(plan_of(stage), "multiprocessors", lambda: processors)
    book, dtype = BOOKS["3x3x3"](coords_of(rng)), dtype_of(math)
    features = rng.integers(1, 3, (book.num_in, 20)).astype(dtype)
    weight = ternary(rng, (27, 20, 12), dtype)
    weight[5, 3, 2] = wrong
    features[7, 4] = -np.inf
    out = execute(cupy, stage, tiles_of(cupy, stage, book, 64), math, features, weight)
    with np.errstate(invalid="ignore"):
        exact = expected(book, features, weight)
    assert np.isfinite(exact).any(axis=1).sum() > len(exact) // 2
    assert not np.isfinite(exact[:, 2]).all()
    np.testing.assert_array_equal(np.float64(out), exact)


@pytest.mark.parametrize("math", ["Bfloat16", "Float32", "Float64"])
def test_equals_the_cpu(cupy, stage, rng, math):
    dtype = dtype_of(math)
    coords = coords_of(rng)
    x = spcy.SparseTensor(coords.indices, rng.standard_normal((150, 16)).astype(dtype), shape=coords.shape)
    weight = rng.standard_normal((3, 3, 3, 16, 20)).astype(dtype)
    bias = rng.standard_normal(20).astype(dtype)
    y = spcy.subm_conv(x, weight, bias, activation="relu")
    book = BOOKS["3x3x3"](x.coords)
    tiles = tiles_of(cupy, stage, book, 64)
    out = execute(cupy, stage, tiles, math, x.features, weight.reshape(27, 16, 20), bias, relu=True)
    assert_close(np.float64(out).astype(dtype), np.float64(y.features), dtype)


def test_exact_sums_are_chains_in_order(cupy, stage, rng, monkeypatch):
    monkeypatch.setattr(plan_of(stage), "multiprocessors", lambda: 0)  # no splits
    book = BOOKS["3x3x3"](coords_of(rng, 60, (5, 5, 5)))
    features = rng.standard_normal((book.num_in, 9)).astype(np.float32)
    weight = rng.standard_normal((27, 9, 5)).astype(np.float32)
    chain = np.zeros((book.num_out, 5), np.float32)
    for k, c in itertools.product(range(27), range(9)):
        in_rows, out_rows = book.pairs(k)
        chain[out_rows] += features[in_rows, c, None] * weight[k, c]
    out = execute(cupy, stage, tiles_of(cupy, stage, book, 64), "Float32", features, weight)
    np.testing.assert_array_equal(out, chain)  # a device would fuse multiply and add


@maths
def test_nan_stays_where_it_belongs(cupy, stage, rng, math):
    book, dtype = BOOKS["3x3x3"](coords_of(rng)), dtype_of(math)
    features, weight = ternary(rng, (book.num_in, 8), dtype), np.ones((27, 8, 16), dtype)
    residual = np.zeros((book.num_out, 16), dtype)
    features[11], residual[5, 3] = np.nan, np.nan
    out = execute(cupy, stage, tiles_of(cupy, stage, book, 64), math, features, weight, None, residual, True)
    reached = np.zeros(out.shape, bool)
    reached[book.out_rows[book.in_rows == 11]] = True
    reached[5, 3] = True
    np.testing.assert_array_equal(np.isnan(np.float64(out)), reached)


@maths
def test_no_pairs_and_no_rows(cupy, stage, rng, math, schedule):
    dtype = dtype_of(math)
    weight, bias = ternary(rng, (27, 4, 6), dtype), ternary(rng, 6, dtype)
    for n_in, n_out in ((0, 0), (0, 5), (1, 1)):
        no_rows, cuts = cupy.empty(0, np.int32), cupy.zeros((27, 2), np.int64)
        tiles = stage.Tiles(no_rows, no_rows, cuts, None, None, 64, n_out)
        out = execute(cupy, stage, tiles, math, np.ones((n_in, 4), dtype), weight, bias)
        np.testing.assert_array_equal(np.float64(out), np.broadcast_to(np.float64(bias), (n_out, 6)))


@maths
def test_one_site(cupy, stage, rng, math):
    check(cupy, stage, rng, BOOKS["3x3x3"](coords_of(rng, 1)), math, 8, 8, 256)


@pytest.mark.parametrize("shifted", range(4))
def test_arrays_at_any_address(cupy, stage, rng, shifted):
    book = BOOKS["3x3x3"](coords_of(rng, 40, (4, 4, 4)))
    tiles = tiles_of(cupy, stage, book, 64)
    arrays = [ternary(rng, shape, np.float32) for shape in ((40, 8), (27, 8, 8), (40, 8))]
    features, weight, residual = arrays
    out = cupy.empty((40, 8), np.float32)
    places = [*map(cupy.asarray, arrays), out]
    memory = cupy.empty(places[shifted].size + 1, np.float32)
    moved = memory[1:].reshape(places[shifted].shape)
    if shifted < 3:
        moved[...] = places[shifted]
    places[shifted] = moved
    x, w, r, y = places
    scratch = cupy.empty(tiles.scratch_bytes(np.dtype(np.float32), 8, 8, 1, 1), np.int8)
    stage.conv(tiles, x, w, None, r, y, 0, 0.0, scratch, 1, 1)
    np.testing.assert_array_equal(y.get(), expected(book, features, weight, None, residual))


@pytest.mark.parametrize("kernel", BOOKS)
@pytest.mark.parametrize("tile_size", TILE_SIZES)
def test_plan_holds_every_pair_once(cupy, stage, rng, kernel, tile_size, schedule):
    book = BOOKS[kernel](coords_of(rng, 300))
    tiles = tiles_of(cupy, stage, book, tile_size)
    rows = tiles.rows.get().reshape(-1, tile_size)
    step_ptr = tiles.step_ptr.get()
    listed = tiles.step_offset, tiles.step_groups, tiles.step_rows  # with room behind the last step
    offsets, groups, steps = (array[: tiles.n_steps].get() for array in listed)
    np.testing.assert_array_equal(np.sort(rows.ravel()[: book.num_out]), np.arange(book.num_out))
    assert (rows.ravel()[book.num_out :] == -1).all()
    assert (steps >= 0).any(1).all()  # no step without a pair
    live = (steps.reshape(len(steps), -1, 16) >= 0).any(2)
    np.testing.assert_array_equal(groups, (live << np.arange(live.shape[1])).sum(1))
    pairs = []
    for tile, (begin, end) in enumerate(itertools.pairwise(step_ptr)):
        assert (np.diff(offsets[begin:end]) > 0).all()
        for step in range(begin, end):
            here = steps[step] >= 0
            pairs += zip(itertools.repeat(offsets[step]), steps[step][here], rows[tile][here], strict=False)
    given = [(k, *pair) for k in range(book.num_offsets) for pair in zip(*book.pairs(k), strict=True)]
    assert sorted(pairs) == sorted(given)
    counts = np.diff(step_ptr)
    half = -(-len(counts) // 2)
    assert counts[:half].mean() >= counts[-half:].mean()  # the longest run first


def test_rows_with_the_same_offsets_are_together(cupy, stage, rng):
    book = BOOKS["2x2x2 stride 2"](coords_of(rng, 400)).transposed()  # one offset for each output row
    tiles = tiles_of(cupy, stage, book, 64)
    offset = np.empty(book.num_out, int)
    offset[book.out_rows] = np.repeat(np.arange(8), np.diff(book.offset_ptr))
    of_rank = offset[tiles.rows.get()[: book.num_out]]
    assert np.count_nonzero(np.diff(of_rank)) == 7
    rank = np.arange(book.num_out) if book._out.rank is None else book._out.rank
    for k in range(8):  # and among them, the order of keys stays
        assert (np.diff(rank[tiles.rows.get()[: book.num_out][of_rank == k]]) > 0).all()
    assert tiles.n_steps <= tiles.n_tiles + 7


def test_neighbours_in_the_order_of_masks_differ_little(cupy, stage, rng):
    coords = coords_of(rng, 600, (12, 12, 12))
    book = BOOKS["5x5x5"](coords)
    masks = np.zeros((book.num_out, 125), bool)
    masks[book.out_rows, np.repeat(np.arange(125), np.diff(book.offset_ptr))] = True
    ordered = masks[tiles_of(cupy, stage, book, 64).rows.get()[: book.num_out]]
    rarest_first = np.argsort(np.diff(book.offset_ptr), kind="stable")
    places = np.bitwise_xor.accumulate(ordered[:, rarest_first], axis=1)
    assert sorted(map(tuple, places.tolist()), reverse=True) == list(map(tuple, places.tolist()))


def test_cost_of_a_plan_and_of_a_convolution(cupy, stage, rng, monkeypatch):
    book = BOOKS["3x3x3"](coords_of(rng))
    arrays = book.in_rows, book.out_rows, book._tiles(64), book._out.order, book._out.rank
    arrays = [None if a is None else cupy.asarray(a) for a in arrays]
    features, weight = cupy.ones((150, 8), np.float32), cupy.ones((27, 8, 8), np.float32)
    out = cupy.empty((150, 8), np.float32)
    for processors, kernels in ((1, 1), (64, 2)):
        monkeypatch.setattr(plan_of(stage), "multiprocessors", lambda count=processors: count)
        with counting() as counts:
            tiles = stage.Tiles(*arrays, 64, book.num_out)
        assert (counts.kernels, counts.synchronisations, counts.uploads) == (6, 0, 0)
        assert counts.operations <= 2  # an array of zeros, and a sort
        scratch = cupy.empty(tiles.scratch_bytes(np.dtype(np.float32), 8, 8, 1, 1), np.int8)
        with counting() as counts:
            stage.conv(tiles, features, weight, None, None, out, 0, 0.0, scratch, 1, 1)
        assert (counts.kernels, counts.operations) == (kernels, 0)
        assert (counts.synchronisations, counts.uploads) == (0, 0)


@pytest.mark.parametrize(("asked", "made"), [(1024, 128), (100, 64), (16, 64)])
def test_tiles_of_any_size(cupy, stage, rng, asked, made):
    book = BOOKS["3x3x3"](coords_of(rng))
    assert check(cupy, stage, rng, book, "Float16", 8, 8, asked).tile_size == made


def test_devices_before_8_0(cupy, stage, rng, monkeypatch):
    """They have float32 and float64, exact."""
    monkeypatch.setattr(stage, "_compute_capability", lambda: 75)
    book = BOOKS["3x3x3"](coords_of(rng))
    for name in ("float16", "bfloat16"):
        with pytest.raises(TypeError, match=rf"^features .*capability 7\.5, got {name}"):
            check(cupy, stage, rng, book, name.capitalize(), 4, 4, 64)
    assert stage._math(np.dtype(np.float32), True) == "Float32"
    assert stage._math(np.dtype(np.float64), True) == "Float64"


def test_size_of_tiles(stage, monkeypatch):
    monkeypatch.setattr(plan_of(stage), "multiprocessors", lambda: 132)
    size_for = plan_of(stage).tile_size_for
    assert [size_for(64, n, 1) for n in (1, 10_000, 60_000, 125_000)] == [64, 64, 64, 128]
    assert size_for(512, 60_000, 1) == 128


def kernels_of(stage, arch):
    """Return the names of all kernels that a device runs."""
    maths = {"sm_75": MATHS[5:], "sm_90a": MATHS[:3]}.get(arch, MATHS[2:])  # the others are sm_80's on sm_90a
    blocks = [(math, *block) for math in maths for block in blocks_of(stage).BLOCKS[math].values()]
    blocks = [(*block, *whole) for block in blocks for whole in (("true", "true"), ("false", "false"))]
    names = [f"conv_tiles<{', '.join(map(str, block))}>" for block in blocks]
    return [*names, *(f"add_parts<{math}, {whole}>" for math in maths for whole in ("true", "false"))]


@pytest.mark.skipif(bool(nvrtc.available()), reason=str(nvrtc.available()))
@pytest.mark.parametrize(
    "arch", [*(pytest.param(arch, marks=pytest.mark.thorough) for arch in ("sm_75", "sm_80")), "sm_90a"]
)
def test_every_kernel_compiles_without_spills(stage, arch):
    from spcy._cuda import _kernel

    names = kernels_of(stage, arch)
    _, resources = nvrtc.compile_text(_kernel.source("conv"), names, arch, _kernel.options("conv"))
    assert {*resources} == {*names}
    for name, used in resources.items():
        assert (used.stack_bytes, used.spill_bytes) == (0, 0), name


@maths
def test_blocks_fit_a_multiprocessor(stage, math):
    limit = (
        227 if math in WIDE else 99 if math in MATHS[:5] else 64
    )  # KB of the smallest devices that run them
    for block in blocks_of(stage).BLOCKS[math].values():
        assert block.rows in TILE_SIZES
        assert block.shared_bytes <= limit << 10


PLACES = """
extern "C" __global__ void places(int* x, int* w) {
    for (int row = 0; row < 64; ++row)
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            if (chunk < X_CHUNKS) x[row * X_CHUNKS + chunk] = place<X_CHUNKS>(row, chunk);
            w[row * CHUNKS + chunk] = weight_place<MATH, CHUNKS, 64>(row, chunk);
        }
}
"""


@maths
@pytest.mark.parametrize("x_chunks", [4, 8])
@pytest.mark.parametrize("cols", [64, 128, 256])
def test_shared_memory_has_no_bank_conflicts(cupy, math, cols, x_chunks):
    from spcy._cuda import _kernel

    size = dtype_of(math).itemsize
    chunks = cols * size // 16
    text = PLACES.replace("X_CHUNKS", str(x_chunks)).replace("CHUNKS", str(chunks)).replace("MATH", math)
    kernel = cupy.RawKernel(_kernel.source("conv") + text, "places")
    x, w = cupy.empty((64, x_chunks), np.int32), cupy.empty((64, chunks), np.int32)
    kernel((1,), (1,), (x, w))
    x, w = x.get(), w.get()
    assert sorted(x.ravel()) == list(range(x.size))
    assert sorted(w.ravel()) == list(range(w.size))
    rows, lanes = np.arange(8), np.arange(32)
    for row, chunk in itertools.product(range(0, 64, 8), range(x_chunks)):
        assert len({*(x[row + rows, chunk] % 8)}) == 8  # a matrix of ldmatrix: 8 rows, one chunk each
    for row in range(0, 64, 2):
        assert len({*(x[row : row + 2].ravel() % 8)}) == 8  # copies: 8 lanes
    for row, chunk in itertools.product(range(0, 64, 8), range(chunks)):
        if size == 2:
            assert len({*(w[row + rows, chunk] % 8)}) == 8
        if math == "Tf32" and chunk % 2 == 0:
            for first in (row, row + 4):
                words = 4 * w[first + lanes % 4, chunk + lanes // 16] + lanes // 4 % 4
                assert len({*(words % 32)}) == 32
