"""The functions of ptx.h do what tests/cuda_on_cpu/cuda.h says of them: the same tests on it and on a GPU."""

import re
from pathlib import Path

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import nvrtc

HERE = Path(__file__).parent
PTX = HERE.parent / "src" / "cuda" / "ptx.h"
MMA = (
    "mma.sync.aligned.{}.row.col.f32.{}.f32 "
    "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
)
LOAD = "ldmatrix.sync.aligned.m8n8.{}.shared.b16 {{{}}}, [%{}];"
INSTRUCTIONS = {
    "spcy_copy_async": {
        "cp.async.cg.shared.global [%0], [%1], 16, %2;",
        "cp.async.ca.shared.global [%0], [%1], %2, %3;",
    },
    "spcy_copy_async_where": {
        r"{\n.reg .pred asked;\nsetp.ne.u32 asked, %3, 0;\n"
        r"@asked cp.async.cg.shared.global [%0], [%1], 16, %2;\n}"
    },
    "spcy_copy_commit": {"cp.async.commit_group;"},
    "spcy_copy_wait": {"cp.async.wait_group %0;"},
    "spcy_mma_half": {MMA.format("m16n8k16", "f16.f16")},
    "spcy_mma_bfloat16": {MMA.format("m16n8k16", "bf16.bf16")},
    "spcy_mma_tf32": {MMA.format("m16n8k8", "tf32.tf32")},
    "spcy_float_to_tf32": {"cvt.rna.tf32.f32 %0, %1;"},
    "spcy_float_to_bfloat16": {"cvt.rn.bf16.f32 %0, %1;"},
    "spcy_load_matrix_x2": {LOAD.format("x2", "%0, %1", 2)},
    "spcy_load_matrix_x4": {LOAD.format("x4", "%0, %1, %2, %3", 4)},
    "spcy_load_matrix_x2_transposed": {LOAD.format("x2.trans", "%0, %1", 2)},
    "spcy_load_matrix_x4_transposed": {LOAD.format("x4.trans", "%0, %1, %2, %3", 4)},
    "spcy_half_to_float": {"cvt.f32.f16 %0, %1;"},
    "spcy_float_to_half": {"cvt.rn.f16.f32 %0, %1;"},
    "spcy_fence_async_shared": {"fence.proxy.async.shared::cta;"},
    "spcy_warpgroup_arrive": {"wgmma.fence.sync.aligned;"},
    "spcy_warpgroup_commit": {"wgmma.commit_group.sync.aligned;"},
    "spcy_warpgroup_wait": {"wgmma.wait_group.sync.aligned %0;"},
    "spcy_load_relaxed": {"ld.relaxed.gpu.global.u64 %0, [%1];"},
}
WIDE_COLUMNS = (64, 128)

KERNELS = """
template <int KIND>
__global__ void products(const uint32_t* a, const uint32_t* b, float* d) {
    const int lane = threadIdx.x;
    if (KIND == 0) spcy_mma_half(d + 4 * lane, a + 4 * lane, b + 2 * lane);
    if (KIND == 1) spcy_mma_bfloat16(d + 4 * lane, a + 4 * lane, b + 2 * lane);
    if (KIND == 2) spcy_mma_tf32(d + 4 * lane, a + 4 * lane, b + 2 * lane);
}

template <int MATRICES, int TRANSPOSED>
__global__ void matrices(const uint16_t* from, uint32_t* to) {
    __shared__ uint4 rows[32];
    for (int i = threadIdx.x; i < 256; i += 32) reinterpret_cast<uint16_t*>(rows)[i] = from[i];
    __syncthreads();
    const uint4* row = rows + threadIdx.x % (8 * MATRICES);
    uint32_t* out = to + MATRICES * threadIdx.x;
    if (MATRICES == 2 && TRANSPOSED) spcy_load_matrix_x2_transposed(out, row);
    if (MATRICES == 2 && !TRANSPOSED) spcy_load_matrix_x2(out, row);
    if (MATRICES == 4 && TRANSPOSED) spcy_load_matrix_x4_transposed(out, row);
    if (MATRICES == 4 && !TRANSPOSED) spcy_load_matrix_x4(out, row);
}

__global__ void round_numbers(const float* x, int64_t n, uint32_t* tf32, uint16_t* bfloat16, uint16_t* half,
                              float* back) {
    SPCY_EACH(i, n) {
        tf32[i] = spcy_float_to_tf32(x[i]);
        bfloat16[i] = spcy_float_to_bfloat16(x[i]);
        half[i] = spcy_float_to_half(x[i]);
        back[i] = spcy_half_to_float(half[i]);
    }
}

// Each thread copies 16 bytes, some of them zeros, two groups under way.
__global__ void copies(const uint4* from, const int32_t* valid, uint4* to, int32_t* counts) {
    __shared__ uint4 stages[2][64];
    const int i = threadIdx.x;
    for (int stage = 0; stage < 2; ++stage) {
        spcy_copy_async<16>(&stages[stage][i], from + 64 * stage + i, valid[64 * stage + i]);
        spcy_copy_commit();
    }
    spcy_copy_wait<1>();
    __syncthreads();
    to[63 - i] = stages[0][63 - i];
    spcy_copy_wait<0>();
    __syncthreads();
    to[64 + 63 - i] = stages[1][63 - i];
    counts[i] = __syncthreads_count(valid[i]);
}

__global__ void shuffles(const int32_t* x, int32_t* up, int32_t* across, uint32_t* ballot) {
    const int lane = threadIdx.x;
    up[lane] = __shfl_up_sync(0xFFFFFFFFu, x[lane], 3);
    across[lane] = __shfl_xor_sync(0xFFFFFFFFu, x[lane], 5);
    ballot[lane] = __ballot_sync(0xFFFFFFFFu, x[lane] & 1);
}

__global__ void atomics(uint64_t* slots, const uint64_t* keys, int64_t n, int32_t* least, uint64_t* seen) {
    SPCY_EACH(i, n) {
        atomicCAS((unsigned long long*)slots + keys[i] % 16, ~0ull, keys[i]);
        atomicMin(least, (int32_t)keys[i]);
        seen[i] = spcy_load_relaxed(slots + keys[i] % 16);
    }
}
"""

WIDE_KERNELS = """
// Products of four steps of 16 channels, of one warpgroup, with matrices that come as they are to lie.
template <int COLS, int HALF>
__global__ void wide_products(const uint4* x, const uint4* w, float* d) {
    extern __shared__ __align__(1024) uint4 shared[];
    for (int i = threadIdx.x; i < 512 + 8 * COLS; i += 128) shared[i] = i < 512 ? x[i] : w[i - 512];
    spcy_fence_async_shared();
    __syncthreads();
    float sums[COLS / 2];
#pragma unroll
    for (int i = 0; i < COLS / 2; ++i) sums[i] = d[threadIdx.x * (COLS / 2) + i];
    spcy_warpgroup_arrive();
#pragma unroll
    for (int step = 0; step < 4; ++step)
        if (HALF)
            spcy_warpgroup_product_half<COLS>(sums, shared + 2 * step, shared + 512 + 128 * step, 8192);
        else
            spcy_warpgroup_product_bfloat16<COLS>(sums, shared + 2 * step, shared + 512 + 128 * step, 8192);
    spcy_warpgroup_commit();
    spcy_warpgroup_wait<0>();
#pragma unroll
    for (int i = 0; i < COLS / 2; ++i) d[threadIdx.x * (COLS / 2) + i] = sums[i];
}
"""


@pytest.fixture(params=["cuda-emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def backend(request):
    """As conftest's, without the CPU."""
    if request.param == "cuda":
        cupy = pytest.importorskip("cupy")
        if not cupy.cuda.is_available() or int(cupy.cuda.Device().compute_capability) < 80:
            pytest.skip("no GPU of compute capability 8.0 or more")
        yield cupy
    else:
        if cuda_on_cpu.available():
            pytest.skip(cuda_on_cpu.available())
        with cuda_on_cpu.installed() as cupy, cuda_on_cpu.running("checked"):
            yield cupy


@pytest.fixture
def run(backend):
    """Run a kernel with one block, on arrays; return those named as outputs."""
    from spcy._cuda import _kernel

    def run(name, threads, *args, outputs, kernels=KERNELS, shared_mem=0):
        code, options = _kernel.source("hashmap") + kernels, ("-std=c++17",)
        if kernels is WIDE_KERNELS:
            options += ("-arch=sm_90a",)
        module = backend.RawModule(code=code, options=options, name_expressions=(name,))
        device = [backend.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
        module.get_function(name)((1,), (threads,), tuple(device), shared_mem=shared_mem)
        return [device[i].get() for i in outputs]

    return run


def test_instructions():
    """Each function has the instruction of its name, and a twin on the CPU."""
    if not PTX.exists():
        pytest.skip("the tests run away from a checkout")
    parts = re.split(r"__forceinline__ [\w ]+?\*?(spcy_\w+)\(", PTX.read_text())
    found = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        texts = re.findall(r"asm(?: volatile)?\(\s*((?:\"[^\"]*\"\s*)+)", body)
        found.setdefault(name, set()).update("".join(re.findall(r'"([^"]*)"', text)) for text in texts)
    assert {name: texts for name, texts in found.items() if texts} == INSTRUCTIONS
    twins = (HERE / "cuda_on_cpu" / "cuda.h").read_text()
    own = {"spcy_shared_address", "spcy_matrix_descriptor"}  # PTX alone knows these
    assert all(f"{name}(" in twins for name in {*found} - own)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_these_kernels_compile(arch):
    if nvrtc.available() or cuda_on_cpu.available():
        pytest.skip(str(nvrtc.available() or cuda_on_cpu.available()))
    with cuda_on_cpu.installed():
        from spcy._cuda import _kernel

        code = _kernel.source("hashmap") + KERNELS
    names = [f"products<{kind}>" for kind in range(3)]
    names += [f"matrices<{count}, {transposed}>" for count in (2, 4) for transposed in (0, 1)]
    names += ["round_numbers", "copies", "shuffles", "atomics"]
    assert nvrtc.compile_text(code, names, arch, ("-std=c++17",))[0].startswith(b"\x7fELF")


@pytest.mark.parametrize("columns", WIDE_COLUMNS)
def test_instructions_of_warpgroups(columns):
    """The products name each register of the sums once, in order."""
    if not PTX.exists():
        pytest.skip("the tests run away from a checkout")
    body = re.search(
        rf"#define SPCY_WARPGROUP_PRODUCT_{columns}\(TYPE\)(.*?)\n\n", PTX.read_text(), re.DOTALL
    )[1]
    text, operands = body.replace("\\\n", "").split(': "+f"', 1)
    sums, (x, w) = columns // 2, re.findall(r'"l"\((\w)\)', operands)
    instruction = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.TYPE.TYPE"
    registers = ", ".join(f"%{i}" for i in range(sums))
    expected = rf"{{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n{instruction} "
    expected += rf"{{{registers}}}, %{sums}, %{sums + 1}, add, 1, 1, 0, 1;\n}}"
    text = text.split("(", 1)[1].replace('" TYPE "', "TYPE")
    assert "".join(re.findall(r'"([^"]*)"', text)) == expected
    assert [*map(int, re.findall(r"d\[(\d+)\]", operands))] == [*range(sums)]
    assert (x, w) == ("a", "b")


def test_wide_products_compile():
    if nvrtc.available() or cuda_on_cpu.available():
        pytest.skip(str(nvrtc.available() or cuda_on_cpu.available()))
    with cuda_on_cpu.installed():
        from spcy._cuda import _kernel

        code = _kernel.source("hashmap") + WIDE_KERNELS
    names = [f"wide_products<{columns}, {half}>" for columns in WIDE_COLUMNS for half in (0, 1)]
    for name, used in nvrtc.compile_text(code, names, "sm_90a", ("-std=c++17",))[1].items():
        assert used.spill_bytes == 0, name


LANES = np.arange(32)
G, Q = LANES // 4, LANES % 4


@pytest.mark.parametrize("kind", ["half", "bfloat16", "tf32"])
def test_products(run, kind, rng):
    """Fragments lie in registers as PTX's manual says of m16n8k16 and m16n8k8."""
    k = 8 if kind == "tf32" else 16
    a, b = rng.integers(-4, 5, (16, k)).astype(np.float32), rng.integers(-4, 5, (k, 8)).astype(np.float32)
    d = rng.integers(-9, 10, (16, 8)).astype(np.float32)
    if kind == "tf32":
        registers_a = np.stack([a[G, Q], a[G + 8, Q], a[G, Q + 4], a[G + 8, Q + 4]], axis=1).view(np.uint32)
        registers_b = np.stack([b[Q, G], b[Q + 4, G]], axis=1).view(np.uint32)
    else:
        bits = (lambda x: x.astype(np.float16).view(np.uint16)) if kind == "half" else bfloat16_bits
        pairs = [(G, 2 * Q), (G + 8, 2 * Q), (G, 2 * Q + 8), (G + 8, 2 * Q + 8)]
        registers_a = np.stack([packed(bits(a[r, c]), bits(a[r, c + 1])) for r, c in pairs], axis=1)
        registers_b = np.stack([packed(bits(b[r, G]), bits(b[r + 1, G])) for r in (2 * Q, 2 * Q + 8)], axis=1)
    places = [(G, 2 * Q), (G, 2 * Q + 1), (G + 8, 2 * Q), (G + 8, 2 * Q + 1)]
    registers_d = np.stack([d[p] for p in places], axis=1)
    name = f"products<{['half', 'bfloat16', 'tf32'].index(kind)}>"
    arrays = map(np.ascontiguousarray, (registers_a, registers_b, registers_d))
    (made,) = run(name, 32, *arrays, outputs=[2])
    expected = d + a @ b
    np.testing.assert_array_equal(made, np.stack([expected[p] for p in places], axis=1))


@pytest.mark.parametrize("columns", WIDE_COLUMNS)
@pytest.mark.parametrize("kind", ["half", "bfloat16"])
def test_wide_products(backend, run, kind, columns, rng):
    """Rows of 128 bytes are swizzled, w lies in panels of 64 columns, and sums lie as those of m16n8k16."""
    if backend.__name__ == "cupy" and backend.cuda.Device().compute_capability != "90":
        pytest.skip("no GPU of compute capability 9.0")
    x = rng.integers(-4, 5, (64, 64)).astype(np.float32)
    w = rng.integers(-4, 5, (64, columns)).astype(np.float32)
    d = rng.integers(-9, 10, (64, columns)).astype(np.float32)
    bits = (lambda x: x.astype(np.float16).view(np.uint16)) if kind == "half" else bfloat16_bits

    def swizzled(rows):  # (n, 64): chunk c of row r lies at c ^ r % 8
        chunks = bits(rows).reshape(len(rows), 8, 8)
        places = np.arange(8) ^ np.arange(len(rows))[:, None] % 8
        out = np.empty_like(chunks)
        np.put_along_axis(out, places[:, :, None], chunks, axis=1)
        return out.reshape(len(rows), 64)

    panels = np.stack([swizzled(w[:, c : c + 64]) for c in range(0, columns, 64)])
    warp, lane = np.divmod(np.arange(128), 32)
    first = 16 * warp + lane // 4
    rows = np.stack([first, first, first + 8, first + 8], axis=1)[:, None, :]  # (thread, 8 columns, 4)
    cols = (
        8 * np.arange(columns // 8)[None, :, None] + (2 * (lane % 4))[:, None, None] + np.array([0, 1, 0, 1])
    )
    registers = np.ascontiguousarray(d[rows, cols])
    name = f"wide_products<{columns}, {int(kind == 'half')}>"
    arrays = swizzled(x), panels, registers
    (made,) = run(name, 128, *arrays, outputs=[2], kernels=WIDE_KERNELS, shared_mem=8192 + 128 * columns)
    np.testing.assert_array_equal(made, (d + x @ w)[rows, cols])


def bfloat16_bits(x):
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def packed(low, high):
    return low.astype(np.uint32) | high.astype(np.uint32) << 16


@pytest.mark.parametrize("matrices", [2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrix_loads(run, matrices, transposed, rng):
    values = rng.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    out = np.zeros((32, matrices), np.uint32)
    (made,) = run(f"matrices<{matrices}, {int(transposed)}>", 32, values, out, outputs=[1])
    seen = values.transpose(0, 2, 1) if transposed else values
    np.testing.assert_array_equal(made, packed(seen[:matrices, G, 2 * Q], seen[:matrices, G, 2 * Q + 1]).T)


def test_rounding(run, rng):
    x = np.concatenate(
        [rng.standard_normal(500) * 10.0 ** rng.integers(-30, 30, 500), [0, -0.0, np.inf, 65520]]
    )
    x = x.astype(np.float32)
    middle = (rng.integers(1 << 14, 1 << 15, 200) << 16 | 1 << 15).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, middle, 1 + np.float32(2**-11) * np.arange(8, dtype=np.float32)])
    x = x[~np.isnan(x)]
    n = len(x)
    outputs = [np.zeros(n, kind) for kind in (np.uint32, np.uint16, np.uint16, np.float32)]
    tf32, bfloat16, half, back = run("round_numbers", 64, x, np.int64(n), *outputs, outputs=[2, 3, 4, 5])
    bits = x.view(np.uint32)
    finite = np.isfinite(x)
    away = (bits[finite] + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)  # of ties, the greater magnitude
    np.testing.assert_array_equal(tf32[finite] & np.uint32(0xFFFFE000), away)
    even = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    np.testing.assert_array_equal(bfloat16, even.astype(np.uint16))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, x.astype(np.float16).view(np.uint16))
    np.testing.assert_array_equal(back, half.view(np.float16).astype(np.float32))


def test_copies(run, rng):
    values = rng.integers(1, 1 << 32, (128, 4)).astype(np.uint32)
    valid = rng.integers(0, 2, 128).astype(np.int32)
    made, counts = run(
        "copies", 64, values, valid, np.zeros_like(values), np.zeros(64, np.int32), outputs=[2, 3]
    )
    np.testing.assert_array_equal(made, values * valid[:, None].astype(np.uint32))
    np.testing.assert_array_equal(counts, valid[:64].sum())


def test_shuffles(run, rng):
    x = rng.integers(0, 100, 32).astype(np.int32)
    outputs = [np.zeros(32, kind) for kind in (np.int32, np.int32, np.uint32)]
    up, across, ballot = run("shuffles", 32, x, *outputs, outputs=[1, 2, 3])
    np.testing.assert_array_equal(up, np.concatenate([x[:3], x[:-3]]))
    np.testing.assert_array_equal(across, x[LANES ^ 5])
    np.testing.assert_array_equal(ballot, sum(1 << i for i in range(32) if x[i] & 1))


def test_atomics(run, rng):
    keys = rng.permutation(1000)[:200].astype(np.uint64)
    slots = np.full(16, 2**64 - 1, np.uint64)
    least = np.array([10**6], np.int32)
    made, lowest, seen = run(
        "atomics", 64, slots, keys, np.int64(200), least, np.zeros(200, np.uint64), outputs=[0, 3, 4]
    )
    np.testing.assert_array_equal(seen, made[keys % 16])
    assert set(made) - {slots[0]} <= set(keys)
    assert lowest[0] == keys.min()
