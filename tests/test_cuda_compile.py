"""NVRTC compiles every kernel of src/cuda, for each architecture, without a GPU."""

import functools
import re
from pathlib import Path

import cuda_on_cpu
import pytest
from cuda_on_cpu import nvrtc

pytestmark = pytest.mark.skipif(bool(nvrtc.available()), reason=str(nvrtc.available()))
# The oldest, and one that has all that newer ones have.
ARCHITECTURES = [pytest.param("sm_75", marks=pytest.mark.thorough), "sm_90"]
FLOATS = ["float", "double"]
MAXIMA = ("find_maxima", "return_maxima", "return_segment_maxima")
LAYER = ("layer", "layer_gradient", "layer_gradient_sums")
PER_COLUMNS = ("pack", "pack_inside", "unpack", "repack")
AXES, COLUMNS = [1, 2, 3, 4], [2, 3, 4, 5]


def each(name, *choices):
    """Return the instantiations of a template with each choice of its arguments."""
    out = [""]
    for values in choices:
        out = [f"{left}, {value}" if left else str(value) for left in out for value in values]
    return [f"{name}<{arguments}>" for arguments in out]


KERNELS = {
    "coords": [
        *[k for name in PER_COLUMNS for k in each(name, COLUMNS)],
        *["count_descents", "take_sorted", "count_runs", "fill_runs", "spread_runs"],
        *each("cell_keys", FLOATS, AXES),
        *[k for name in ("bounds", "join_bounds") for k in each(name, ["int32_t"], COLUMNS)],
        *[k for name in ("bounds", "join_bounds") for k in each(name, FLOATS, AXES)],
    ],
    "corners": [
        *each("interpolate", [*FLOATS, "float16", "bfloat16"], AXES),
        *each("interpolate_gradient", [*FLOATS, "float16", "bfloat16"], AXES),
        *each("share", FLOATS, AXES),
        *[k for name in ("ranks", "turn") for k in each(name, AXES)],
    ],
    "hashmap": ["build", "find"],
    "rulebook": [
        *["find_neighbours", "place_pairs", "fill_neighbours", "list_keys", "cut_tiles"],
        *[k for name in ("count_reached", "number_keys", "fill_reached") for k in each(name, COLUMNS)],
    ],
    "plan": [
        *["mark_rows", "fill_tiles", "scan_steps", "list_steps", "fill_steps"],
        *each("rank_masks", ["uint32_t", "uint64_t"]),
    ],
    "pool": [
        *[k for real in FLOATS for k in each("pool", [real], [real])],
        *[k for half in ("float16", "bfloat16") for k in each("pool", [half], [half, "float"])],
        *each("segment_reduce", FLOATS, [*FLOATS, "float16", "bfloat16"]),
        *each("segment_sums", FLOATS, FLOATS),
        "count_pairs_per_row",
    ],
    "rows": each("take", [f"uint{bits}_t" for bits in (8, 16, 32, 64)]),
    "loss": [*each("cross_entropy", [*FLOATS, "float16", "bfloat16"]), "add_losses"],
    "norm": [
        k
        for name in ("moments", "apply", "gradient_sums", "gradient", *LAYER)
        for k in each(name, [*FLOATS, "float16", "bfloat16"])
    ],
    "pointwise": [
        k
        for name in ("activate", "activation_gradient")
        for k in each(name, [*FLOATS, "float16", "bfloat16"], [1, 2, 3, 4, 5])
    ]
    + each("combine", [*FLOATS, "float16", "bfloat16"])
    + each("widen", ["float16", "bfloat16"])
    + each("narrow", ["float16", "bfloat16"], FLOATS),
    "grad": [
        *each("add_parts", [*FLOATS, "float16", "bfloat16"]),
        *each("add_exact", FLOATS, [32, 64]),
        *each("add_products", ["float16", "bfloat16"], [32, 64, 128], ["true", "false"]),
        *[k for name in MAXIMA for k in each(name, [*FLOATS, "float16", "bfloat16"])],
    ],
}


@functools.cache
def compiled(stage, arch):
    with cuda_on_cpu.installed():
        from spcy._cuda import _kernel

        code, options = _kernel.source(stage), _kernel.options(stage)
    names = [
        name for name in KERNELS[stage] if arch != "sm_75" or not re.search("bfloat16|add_products", name)
    ]
    return nvrtc.compile_text(code, names, arch, options)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("stage", KERNELS)
def test_every_kernel_compiles(stage, arch):
    cubin, resources = compiled(stage, arch)
    assert cubin.startswith(b"\x7fELF")
    for name, used in resources.items():
        print(f"{arch} {stage} {name}: {used.registers} registers, {used.shared_bytes} shared bytes")
        assert used.spill_bytes == 0, name
        assert used.registers <= (255 if "add_products" in name else 128), name
        assert used.shared_bytes <= 48 << 10, name


@pytest.mark.parametrize("stage", KERNELS)
def test_no_kernel_is_left_out(stage):
    source = Path(__file__).parents[1] / "src" / "cuda" / f"{stage}.cu"
    if not source.exists():
        pytest.skip("the tests run away from a checkout")
    text = re.sub(r"__launch_bounds__\([^)]*\)", "", source.read_text())
    defined = set(re.findall(r"__global__\s+void\s+(\w+)\(", text))
    assert defined == {name.partition("<")[0] for name in KERNELS[stage]}


def test_errors_of_the_compiler_are_shown():
    with pytest.raises(nvrtc.CompileError, match="nothing_like_that"):
        nvrtc.compile_text("__global__ void f() { nothing_like_that(); }", ["f"], "sm_80")
