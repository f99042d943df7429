"""The one loader of CUDA kernels, and how they are launched."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import cupy
import numpy as np
from numpy.typing import ArrayLike

# Prepended as text: CuPy's cache of compiled kernels does not see what an #include brings in.
_HEADERS = (
    *("common/key.h", "common/hash.h", "common/sum.h", "common/round.h"),
    *("cuda/ptx.h", "cuda/number.h", "cuda/grid.h", "cuda/chunk.h", "cuda/pairs.h"),
)
_COLUMNS = 5  # the batch and up to four axes
_THREADS = 256  # of a block, for kernels with a thread for each element
_MAX_BLOCKS = 1 << 16  # more than keep any GPU busy: kernels step on by the size of the grid
_TYPES = {  # bfloat16 comes as its bits
    "int32": "int32_t",
    "float32": "float",
    "float64": "double",
    "float16": "float16",
    "uint16": "bfloat16",
}


@cache
def source(stage: str) -> str:
    """Return the text of a stage's kernels, with all headers."""
    root = resources.files("spcy._native")
    parts = (*_HEADERS, f"cuda/{stage}.cu")
    return "\n".join(f'#line 1 "{part}"\n{(root / part).read_text(encoding="utf-8")}' for part in parts)


def options(stage: str, *parameters: Any) -> tuple[str, ...]:
    """Return the compiler's options: elsewhere than in sums of products, round as the CPU does.

    Products of warpgroups exist in code for sm_90a alone; the first architecture named is taken.
    """
    rounding = () if stage in ("conv", "grad") else ("--fmad=false",)
    wide = ("-arch=sm_90a",) if any(str(p).startswith("Wide") for p in parameters) else ()
    return ("-std=c++17", *rounding, *wide)


@cupy.memoize(for_each_device=True)
def kernel(stage: str, name: str, *parameters: Any) -> Any:
    """Return a kernel of a stage, `parameters` being the arguments of its template."""
    expression = f"{name}<{', '.join(map(str, parameters))}>" if parameters else name
    module = cupy.RawModule(
        code=source(stage), options=options(stage, *parameters), name_expressions=(expression,)
    )
    return module.get_function(expression)


def launch(function: Any, size: int, *arguments: Any, threads: int = _THREADS) -> None:
    """Run a kernel with a thread for each of `size` elements, on the current stream; none for none."""
    if size:
        blocks = min(-(-size // threads), _MAX_BLOCKS)
        function((blocks,), (threads,), tuple(map(_argument, arguments)))


def launch_blocks(function: Any, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0) -> None:
    """Run a kernel that has work for so many blocks, on the current stream; none for none."""
    if blocks:
        blocks = min(blocks, _MAX_BLOCKS)
        function((blocks,), (threads,), tuple(map(_argument, arguments)), shared_mem=shared_bytes)


@cupy.memoize(for_each_device=True)
def multiprocessors() -> int:
    """Return how many multiprocessors the device has."""
    return cupy.cuda.Device().attributes["MultiProcessorCount"]


def columns(values: ArrayLike) -> np.ndarray:
    """Return host values for each column, the last axis, as kernels take them: by value, as a struct."""
    array = np.asarray(values)
    out = np.zeros((), np.dtype([("values", array.dtype, (*array.shape[:-1], _COLUMNS))]))
    out["values"][..., : array.shape[-1]] = array
    return out


def type_name(dtype: np.dtype) -> str:
    """Return the C++ type of a dtype."""
    return _TYPES[dtype.name]


def _argument(value: Any) -> Any:
    return np.uint64(0) if value is None else value  # a null pointer
