"""The emulated CUDA machine computes what CUDA's manual says, and finds bugs planted in kernels."""

import os
import subprocess
import sys
from pathlib import Path

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import SCHEDULES, counting, cupy, running
from cuda_on_cpu.build import COMPILER as CXX

pytestmark = pytest.mark.skipif(bool(cuda_on_cpu.available()), reason=str(cuda_on_cpu.available()))
FULL = "0xffffffffu"


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    with running(request.param) as value:
        yield value


def run(body, *args, block=64, grid=1, shared_mem=0, parameters="const int* x, int* y, int n", before=""):
    """Run a kernel of one text; arrays among the arguments go to the device, numbers are int32."""
    code = f'{before}\nextern "C" __global__ void kernel({parameters}) {{\n{body}\n}}'
    args = [
        cupy.asarray(a) if isinstance(a, np.ndarray) and a.ndim else np.int32(a) if type(a) is int else a
        for a in args
    ]
    sizes = [size if isinstance(size, tuple) else (size,) for size in (grid, block)]
    cupy.RawKernel(code, "kernel")(*sizes, args, shared_mem=shared_mem)
    return [a.get() if isinstance(a, cupy.ndarray) else a for a in args]


def run_out(body, *args, size=64, dtype=np.int32, **options):
    """Run a kernel that fills y, return y."""
    x, *rest = args
    return run(body, x, cupy.empty(size, dtype), *rest, **options)[1]


def test_indices_of_threads_and_blocks(schedule):
    body = """
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    y[block * blockDim.x * blockDim.y * blockDim.z + thread] = x[thread] + 100 * block;"""
    x = np.arange(24, dtype=np.int32)
    y = run_out(body, x, 0, size=144, grid=(1, 2, 3), block=(2, 3, 4))
    np.testing.assert_array_equal(y.reshape(6, 24), x + 100 * np.arange(6)[:, None])


def test_shared_memory_and_barriers(schedule):
    body = """
    __shared__ int tile[64];
    extern __shared__ __align__(16) int more[];
    tile[threadIdx.x] = x[threadIdx.x];
    more[threadIdx.x] = 2 * x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x] + more[(threadIdx.x + 1) % 64];"""
    x = np.arange(64, dtype=np.int32) ** 2
    np.testing.assert_array_equal(run_out(body, x, 0, shared_mem=256), x[::-1] + 2 * np.roll(x, -1))


def test_reductions_over_the_block(schedule):
    body = """
    int count = __syncthreads_count(x[threadIdx.x] > 1);
    int all = __syncthreads_and(x[threadIdx.x] >= 0), any = __syncthreads_or(x[threadIdx.x] > 63);
    y[threadIdx.x] = 100 * count + 10 * (all != 0) + (any != 0);"""
    assert set(run_out(body, np.arange(64, dtype=np.int32), 0)) == {6210}


def test_warp_operations(schedule):
    body = f"""
    int lane = threadIdx.x % 32, v = x[threadIdx.x];
    y[threadIdx.x] = __shfl_sync({FULL}, v, 3);
    y[threadIdx.x + 64] = __shfl_up_sync({FULL}, v, 2);
    y[threadIdx.x + 128] = __shfl_down_sync({FULL}, v, 2);
    y[threadIdx.x + 192] = __shfl_xor_sync({FULL}, v, 5, 16);
    y[threadIdx.x + 256] = (int)__ballot_sync({FULL}, v % 3 == 0);
    y[threadIdx.x + 320] = (int)__match_any_sync({FULL}, v % 5);
    y[threadIdx.x + 384] = __reduce_add_sync({FULL}, v);
    y[threadIdx.x + 448] = __any_sync({FULL}, v == 40) + 2 * __all_sync({FULL}, v < 40);
    unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
    y[threadIdx.x + 512] = __reduce_max_sync(half, v);"""
    x = np.random.default_rng(0).permutation(64).astype(np.int32)
    warps, lanes = x.reshape(2, 32), np.arange(32)
    bits = 1 << lanes.astype(np.int64)
    up, down = lanes - 2, lanes + 2
    expected = [
        np.broadcast_to(warps[:, 3:4], (2, 32)),
        warps[:, np.where(up < 0, lanes, up)],
        warps[:, np.where(down > 31, lanes, down)],
        warps[:, lanes ^ 5],
        np.broadcast_to(((warps % 3 == 0) * bits).sum(1, keepdims=True), (2, 32)),
        ((warps[:, :, None] % 5 == warps[:, None] % 5) * bits).sum(2),
        np.broadcast_to(warps.sum(1, keepdims=True), (2, 32)),
        np.broadcast_to(
            (warps == 40).any(1, keepdims=True) + 2 * (warps < 40).all(1, keepdims=True), (2, 32)
        ),
        np.repeat(warps.reshape(2, 2, 16).max(2), 16, axis=1),
    ]
    y = run_out(body, x, 0, size=576).reshape(9, 2, 32)
    np.testing.assert_array_equal(y, np.array(expected).astype(np.uint32).view(np.int32))


@pytest.mark.parametrize("kind", ["int", "unsigned", "unsigned long long"])
def test_atomic_operations_of_many_blocks(schedule, kind):
    body = """
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&y[0], x[i]); atomicMin(&y[1], x[i]); atomicMax(&y[2], x[i]); atomicOr(&y[3], x[i]);
    if (atomicCAS(&y[4], 0, x[i]) == 0) atomicExch(&y[5], x[i]);"""
    dtype = {"int": np.int32, "unsigned": np.uint32}.get(kind, np.uint64)
    x = np.random.default_rng(1).integers(1, 1000, 256).astype(dtype)
    y = np.array([0, 5000, 0, 0, 0, 0], dtype)
    y = run(body, x, y, 0, grid=4, parameters=f"const {kind}* x, {kind}* y, int n")[1]
    assert y[:4].tolist() == [x.sum(), x.min(), x.max(), np.bitwise_or.reduce(x)]
    assert y[4] == y[5]
    assert y[4] in x


def test_grid_stride_loop(schedule):
    body = "for (int i = blockIdx.x * 64 + threadIdx.x; i < n; i += gridDim.x * 64) y[i] = 3 * x[i];"
    x = np.arange(1000, dtype=np.int32)
    np.testing.assert_array_equal(run_out(body, x, 1000, size=1000, grid=2), 3 * x)


def test_templates_and_launch_bounds(schedule):
    code = """
    template <typename T, int FACTOR>
    __global__ void __launch_bounds__(64) scale(const T* __restrict__ x, T* __restrict__ y) {
        #pragma unroll
        for (int j = 0; j < 2; ++j) y[2 * threadIdx.x + j] = FACTOR * x[2 * threadIdx.x + j];
    }"""
    names = "scale<double, 3>", "scale<float, 5>"
    module = cupy.RawModule(code=code, options=("-std=c++17",), name_expressions=names)
    for name, dtype, factor in zip(names, (np.float64, np.float32), (3, 5), strict=True):
        x, y = cupy.arange(128).astype(dtype), cupy.empty(128, dtype)
        module.get_function(name)((1,), (64,), (x, y))
        np.testing.assert_array_equal(y.get(), factor * np.arange(128))


def test_asynchronous_copies(schedule):
    body = """
    __shared__ int tile[256];
    for (int part = 0; part < 2; ++part) {
        int at = 128 * part + 4 * threadIdx.x;
        spcy_copy_async<16>(&tile[at], &x[at], threadIdx.x != 3);
        spcy_copy_commit();
    }
    spcy_copy_wait<1>();
    __syncthreads();
    y[threadIdx.x] = tile[127 - threadIdx.x];
    spcy_copy_wait<0>();
    __syncthreads();
    y[32 + threadIdx.x] = tile[255 - threadIdx.x];"""
    x = np.arange(1, 257, dtype=np.int32)
    y = run_out(body, x, 0, block=32)
    copied = np.where(np.isin(np.arange(256) % 128 // 4, [3]), 0, x)
    np.testing.assert_array_equal(y, [*copied[127:95:-1], *copied[255:223:-1]])


def halves(x, kind):
    """Return what an array holds of x, as bits and as numbers."""
    if kind == "half":
        return x.astype(np.float16).view(np.uint16), x.astype(np.float16).astype(np.float64)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", ["half", "bfloat16"])
def test_matrices_of_16_bits(schedule, kind):
    """D = A B + C with A loaded by rows and B, which lies by rows, loaded transposed."""
    body = f"""
    __shared__ __align__(16) uint16_t tile_a[16][24];
    __shared__ __align__(16) uint16_t tile_b[16][8];
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) tile_a[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += 32) tile_b[i / 8][i % 8] = b[i];
    __syncwarp();
    uint32_t ra[4], rb[2];
    float d[4];
    spcy_load_matrix_x4(ra, &tile_a[lane % 16][lane / 16 * 8]);
    spcy_load_matrix_x2_transposed(rb, &tile_b[lane % 16][0]);
    for (int i = 0; i < 4; ++i) d[i] = c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2];
    spcy_mma_{kind}(d, ra, rb);
    for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];"""
    rng = np.random.default_rng(2)
    (a, a_value), (b, b_value) = (
        halves(rng.standard_normal(s).astype(np.float32), kind) for s in ((16, 16), (16, 8))
    )
    c = rng.standard_normal((16, 8)).astype(np.float32)
    parameters = "const uint16_t* a, const uint16_t* b, float* c"
    out = run(body, a, b, c, block=32, parameters=parameters)[2]
    np.testing.assert_allclose(out, a_value @ b_value + c, rtol=0, atol=1e-5)


def test_matrices_of_tf32(schedule):
    body = """
    int group = threadIdx.x / 4, member = threadIdx.x % 4;
    uint32_t ra[4], rb[2];
    float d[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; ++i) ra[i] = spcy_float_to_tf32(a[(group + i % 2 * 8) * 8 + member + i / 2 * 4]);
    for (int i = 0; i < 2; ++i) rb[i] = spcy_float_to_tf32(b[(member + i * 4) * 8 + group]);
    spcy_mma_tf32(d, ra, rb);
    for (int i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + member * 2 + i % 2] = d[i];"""
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((16, 8), (8, 8)))
    c = cupy.empty((16, 8), np.float32)
    out = run(body, a, b, c, block=32, parameters="const float* a, const float* b, float* c")[2]

    def rounded(x):
        return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32).astype(np.float64)

    np.testing.assert_allclose(out, rounded(a) @ rounded(b), rtol=0, atol=1e-5)


# ---- planted bugs ------------------------------------------------------------------------------------

REVERSED = (
    "__shared__ int tile[64]; tile[threadIdx.x] = x[threadIdx.x];{}y[threadIdx.x] = tile[63 - threadIdx.x];"
)


@pytest.mark.parametrize("name", SCHEDULES)
def test_missing_barrier(name):
    """Every order of threads but the checker's gives a wrong result; the checker says where."""
    x = np.arange(64, dtype=np.int32)
    with running(name):
        if name == "checked":
            with pytest.raises(
                cupy.EmulationError, match=r"(race on|uninitialised memory: )shared memory.*kernels\.cu:3"
            ):
                run_out(REVERSED.format(""), x, 0)
        else:
            assert (run_out(REVERSED.format(""), x, 0) != x[::-1]).any()


def raises(message, body, *args, name="checked", **options):
    with running(name), pytest.raises(cupy.EmulationError, match=message):
        run(body, *(args or (np.zeros(64, np.int32), np.zeros(64, np.int32), 5)), **options)


RACES = {
    "blocks_count": ("y[0] = y[0] + 1;", {"grid": 2, "block": 1}),
    "threads_count": ("y[0] = y[0] + 1;", {}),
    "blocks_write_the_same": ("y[threadIdx.x] = 1;", {"grid": 2}),
    "plain_read_beside_atomics": ("if (y[0] == 0) atomicAdd(&y[0], 1);", {"grid": 2}),
    "barrier_orders_no_blocks": ("y[blockIdx.x] = 1; __syncthreads(); y[2] = y[0];", {"grid": 2, "block": 1}),
    "shuffle_orders_no_memory": (
        f"y[threadIdx.x] = 1; int v = __shfl_sync({FULL}, 1, 0);\n"
        "y[32 + threadIdx.x] = v + y[31 - threadIdx.x];",
        {"block": 32},
    ),
    "write_over_late_readers": ("int v = y[(threadIdx.x + 1) % 64]; y[threadIdx.x] = v;", {}),
    "half_warps_apart": (
        "unsigned half = threadIdx.x < 16 ? 0xffffu : 0xffff0000u; y[threadIdx.x] = 1; __syncwarp(half);"
        "y[32 + threadIdx.x] = y[31 - threadIdx.x];",
        {"block": 32},
    ),
}


@pytest.mark.parametrize("case", RACES)
def test_race(case):
    body, options = RACES[case]
    for seed in range(3):
        with (
            running("checked", seed=seed),
            pytest.raises(cupy.EmulationError, match="race on argument 1, byte"),
        ):
            run(body, np.zeros(64, np.int32), np.zeros(64, np.int32), 5, **options)


def test_what_is_no_race():
    body = f"""
    y[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    int v = y[31 - threadIdx.x];
    __syncwarp({FULL});
    y[threadIdx.x] = v;
    __syncthreads();
    if (threadIdx.x == 0) for (int i = 0; i < 32; ++i) y[i] += i;
    atomicAdd(&y[32], 1);"""
    x = np.arange(32, dtype=np.int32)
    for seed in range(3):
        with running("checked", seed=seed):
            y = run(body, x, np.zeros(33, np.int32), 0, block=32)[1]
        np.testing.assert_array_equal(y, [*[31] * 32, 32])


def test_lost_update_shows_under_preemption():
    with running("checked", checked=True, preempt=50), pytest.raises(cupy.EmulationError, match="race"):
        run("y[0] += 1;", np.zeros(1, np.int32), np.zeros(1, np.int32), 0)


OUT_OF_BOUNDS = {
    "behind": ("y[64 + threadIdx.x] = 1;", "4 bytes out of bounds, up to .* behind argument 1"),
    "before": ("y[(int)threadIdx.x - 1] = 1;", "out of bounds, 4 bytes before argument 1"),
    "read": ("y[threadIdx.x] = x[threadIdx.x + 1];", "out of bounds, up to 4 bytes behind argument 0"),
    "static_shared": (
        "__shared__ int a[4]; __shared__ int b[4]; b[0] = 1; a[threadIdx.x] = 1;",
        "out of bounds, between two shared arrays",
    ),
    "dynamic_shared": ("extern __shared__ int a[]; a[threadIdx.x] = 1;", "out of bounds, in shared memory"),
    "atomic": ("atomicAdd(&y[64], 1);", "out of bounds.*line 3"),
    "copy": ("__shared__ int a[64]; spcy_copy_async<16>(&a[0], &x[64], true);", "out of bounds"),
}


@pytest.mark.parametrize("case", OUT_OF_BOUNDS)
def test_out_of_bounds(case):
    body, message = OUT_OF_BOUNDS[case]
    raises(message, body, shared_mem=64)


def test_a_kernel_may_touch_only_the_view_that_it_got():
    x, y = cupy.zeros(80, np.int32), cupy.zeros(64, np.int32)
    with running("checked"):
        run("y[threadIdx.x] = x[threadIdx.x];", x[:64], y, 0)
        with pytest.raises(cupy.EmulationError, match="out of bounds"):
            run("y[threadIdx.x] = x[threadIdx.x];", x[:63], y, 0)


UNINITIALISED = {
    "global": "y[threadIdx.x] = x[threadIdx.x];",
    "shared": "__shared__ int tile[64]; if (threadIdx.x < 63) tile[threadIdx.x] = 1; __syncthreads(); "
    "y[threadIdx.x] = tile[threadIdx.x];",
    "copy_not_waited_for": "__shared__ int tile[128];"
    "spcy_copy_async<4>(&tile[threadIdx.x], &y[threadIdx.x], true); spcy_copy_commit();"
    "spcy_copy_wait<1>(); y[threadIdx.x] = tile[threadIdx.x + 64];",
}


@pytest.mark.parametrize("case", UNINITIALISED)
def test_uninitialised_memory(case):
    with running("checked"), pytest.raises(cupy.EmulationError, match="read of uninitialised memory"):
        run(
            UNINITIALISED[case],
            cupy.empty(64, np.int32),
            np.zeros(64, np.int32),
            0,
        )


def test_uninitialised_memory_is_poison():
    for dtype in (np.float16, np.float32, np.float64):
        assert np.isnan(cupy.empty(5, dtype).get()).all()
    assert (cupy.empty((2, 3), np.int32).get() > 1 << 30).all()
    body = "extern __shared__ float a[]; x[threadIdx.x] = a[threadIdx.x];"
    options = {"block": 4, "shared_mem": 16, "parameters": "float* x"}
    assert np.isnan(run(body, np.zeros(4, np.float32), **options)[0]).all()


def test_results_that_no_kernel_wrote_are_found():
    with running("checked"):
        y = cupy.empty(64, np.int32)
        run("y[threadIdx.x] = 1;", cupy.zeros(64, np.int32), y[:5], 0, block=5)
        assert y[:5].get().tolist() == [1] * 5
        for use in (y.get, lambda: y + 1, lambda: int(y[7])):
            with pytest.raises(cupy.EmulationError, match="uninitialised memory: byte"):
                use()
        y.fill(3)
        assert y.get().tolist() == [3] * 64


MISUSE = {
    "divergent_barriers": (
        "if (threadIdx.x < 5) {__syncthreads();\n} else {__syncthreads();}",
        "deadlock.*line",
    ),
    "barrier_not_reached": (f"if (threadIdx.x < 5) __syncthreads(); else __syncwarp({FULL});", "deadlock"),
    "shuffle_in_a_branch": (
        f"if (threadIdx.x < 5) y[0] = __shfl_sync({FULL}, n, 0);\nelse __syncthreads();",
        "deadlock",
    ),
    "lane_not_in_mask": ("y[0] = __shfl_sync(0xfu, n, 0);", "lane .* is not in the mask"),
    "different_operations": (
        f"if (threadIdx.x % 2) __syncwarp({FULL});\nelse __any_sync({FULL}, 1);",
        "different operations",
    ),
    "exited_lane": (
        "if (threadIdx.x == 3) return; float d[4]; uint32_t a[4], b[2]; spcy_mma_half(d, a, b);",
        "lane 3 of the warp has exited|has exited",
    ),
    "misaligned_row": ("uint32_t r[4]; spcy_load_matrix_x4(r, (const char*)y + 4);", "multiple of 16"),
    "misaligned_copy": (
        "__shared__ int a[8]; spcy_copy_async<16>(&a[0], &x[1], true);",
        "multiple of the size",
    ),
    "trap": ("__trap();", "__trap"),
}


@pytest.mark.parametrize("case", MISUSE)
@pytest.mark.parametrize("name", ["forward", "reverse", "checked"])
def test_misuse(case, name):
    body, message = MISUSE[case]
    raises(message, body, name=name)


def test_a_launch_after_a_failure_works():
    for _ in range(3):
        raises("deadlock", MISUSE["divergent_barriers"][0], name="random")
        np.testing.assert_array_equal(run_out("y[threadIdx.x] = n;", np.zeros(1, np.int32), 7), [7] * 64)


X = np.zeros(64, np.int32)
LAUNCHES = {
    "threads": ({"block": 1056}, (X, X, 5), "1024"),
    "empty_grid": ({"grid": 0}, (X, X, 5), "grid must be in 1"),
    "much_shared_memory": ({"shared_mem": 64 << 10}, (X, X, 5), "shared_mem"),
    "arguments": ({}, (X, X), "takes 3 arguments, got 2"),
    "int64_for_int": ({}, (X, X, np.int64(5)), "argument 2 must have 4 bytes"),
    "float_for_int": ({}, (X, X, np.float32(5)), "argument 2 must be of kind i"),
    "array_for_number": ({}, (X, X, X), "argument 2 must be a number"),
    "number_for_array": ({}, (X, np.uint64(5), 5), "argument 1 must be an array"),
    "dtype": ({}, (X, X.astype(np.int64), 5), "argument 1 must point to i4, got int64"),
    "kind": ({}, (X, X.astype(np.float32), 5), "argument 1 must point to i4, got float32"),
    "strides": ({}, (cupy.asarray(np.zeros((8, 8), np.int32)).T, X, 5), "C-contiguous"),
}


@pytest.mark.parametrize("case", LAUNCHES)
def test_launch_that_is_refused(case):
    options, args, message = LAUNCHES[case]
    with pytest.raises(cupy.EmulationError, match=message):
        run("y[0] = n;", *args, **options)


def test_nothing_for_an_array():
    assert run("y[threadIdx.x] = x ? 1 : 2;", np.uint64(0), np.zeros(64, np.int32), 0)[1].tolist() == [2] * 64


def test_struct_by_value():
    before = "struct sizes { int64_t value[5]; };"
    sizes = np.zeros((), [("value", np.int64, (5,))])
    sizes["value"] = [2, 3, 5, 7, 11]
    args = np.zeros(64, np.int32), np.zeros(64, np.int32), sizes
    for name in SCHEDULES:
        with running(name):
            y = run("y[threadIdx.x] = n.value[threadIdx.x % 5];", *args, before=before,
                    parameters="const int* x, int* y, sizes n")[1]  # fmt: skip
        assert y[:5].tolist() == [2, 3, 5, 7, 11]


def test_compile_errors():
    with pytest.raises(cuda_on_cpu.CompileError, match="nothing_like_that"):
        run("nothing_like_that();", X, X, 5)
    with pytest.raises(cuda_on_cpu.CompileError, match="__shared__"):
        run("__shared__ int a[3], b[4];", X, X, 5)
    with pytest.raises(cupy.EmulationError, match="symbol not found: 'g'"):
        cupy.RawModule(
            code="template <int N> __global__ void f() {}", name_expressions=("f<1>",)
        ).get_function("g")


STACK_OVERFLOW = """
from cuda_on_cpu import cupy
import numpy as np
body = "int a[4]; for (int i = 0; i < n; ++i) a[i] = i + y[0]; y[1] = a[n - 2];"
kernel = cupy.RawKernel('extern "C" __global__ void kernel(int* y, int n) { %s }' % body, "kernel")
for n in (4, 9):
    kernel((1,), (1,), (cupy.zeros(2, np.int32), np.int32(n)))
    print("ran", n, flush=True)
"""


def test_address_sanitizer_sees_local_arrays():
    """What no other check sees: a thread's own stack."""
    found = subprocess.run([CXX, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not Path(found.stdout.strip()).is_absolute():
        pytest.skip("there is no libasan")
    env = {"LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    env |= {"SPCY_CUDA_ON_CPU_FLAGS": "-fsanitize=address", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", STACK_OVERFLOW]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.stdout == "ran 4\n", done.stderr
    assert "stack-buffer-overflow" in done.stderr


# ---- the stand-in for CuPy ---------------------------------------------------------------------------


def test_arrays_become_numpy_arrays_by_get_only():
    x = cupy.asarray(np.arange(3.0))
    ones = np.ones(3)
    uses = [np.asarray, np.array, lambda x: ones + x, lambda x: x + ones, lambda x: np.add(x, ones)]
    uses += [lambda x: x.__iadd__(ones), lambda x: cupy.concatenate([x, ones]), lambda x: x[np.array([0])]]
    uses += [lambda x: cupy.where(x > 1, x, ones), lambda x: x.__setitem__(0, ones[:1])]
    for use in uses:
        with pytest.raises(TypeError):
            use(x)
    np.testing.assert_array_equal(x.get(), [0, 1, 2])
    np.testing.assert_array_equal((2 * x + np.float64(1)).get(), [1, 3, 5])
    assert isinstance(np.add(x, 1), cupy.ndarray)
    assert isinstance(np.cumsum(x), cupy.ndarray)
    assert isinstance(x.sum(), cupy.ndarray)
    assert x.sum().shape == ()


def test_what_the_stand_in_does_not_know_is_refused():
    x = cupy.zeros(3)
    uses = [lambda: cupy.einsum("i->", x), lambda: x.partition(1), lambda: x.sum(where=True)]
    uses += [lambda: np.median(x), lambda: x.flags.writeable]
    for use in uses:
        with pytest.raises((AttributeError, TypeError)):
            use()
    for dtype in ("U3", object, ">f4"):
        with pytest.raises(ValueError, match="Unsupported"):
            cupy.zeros(3, dtype)


def test_counts():
    x = cupy.asarray(np.arange(8))
    with counting() as counts:
        y = x[2:5].reshape(3, 1) + 1
        cupy.cumsum(y)
    assert (counts.kernels, counts.operations, counts.synchronisations, counts.uploads) == (0, 2, 0, 0)
    waits = [x.get, x.tolist, x.nonzero, lambda: bool(x[0]), lambda: int(x.max()), lambda: x[x > 3]]
    waits += [lambda: cupy.flatnonzero(x), lambda: cupy.unique(x), lambda: float(x[3])]
    for wait in [*waits, cupy.cuda.Device().synchronize]:
        with counting() as counts:
            wait()
        assert counts.synchronisations == 1
    with counting() as counts:
        cupy.asarray(np.ones(3))
        run("y[0] = n;", x.astype(np.int32), cupy.zeros(64, np.int32), 5)
    assert (counts.kernels, counts.uploads, counts.launches) == (1, 1, {"kernel": 1})


def test_names_are_those_of_the_real_cupy():
    """What the stand-in offers, CuPy has, with the same arguments (importable with no GPU)."""
    import inspect

    real = pytest.importorskip("cupy")
    for name, parameters in cupy._FUNCTIONS.items():
        function = getattr(real, name.rstrip("*"))
        assert list(inspect.signature(function).parameters)[:1] == parameters.split()[:1] or name.startswith(
            "where"
        )
    for name in cupy._UFUNCS:
        assert isinstance(getattr(real, name), real.ufunc)
    for name, value in vars(cupy.ndarray).items():
        assert name.startswith("_") or hasattr(real.ndarray, name), name
        assert value is not None or name == "__hash__"


def test_installed():
    before = sys.modules.get("cupy")
    with cuda_on_cpu.installed():
        import cupy as given

        assert given is cupy
    assert sys.modules.get("cupy") is before
