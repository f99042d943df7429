"""Run a rulebook with a weight, in tiles of output rows, on the GPU: launches `src/cuda/conv.cu`."""

from __future__ import annotations

from typing import Any, NamedTuple

import cupy
import numpy as np

from .._backend import tf32_allowed
from ._kernel import kernel, launch
from .blocks import CHUNK_BYTES, Block, arithmetic, block_for
from .plan import Tiles
from .pointwise import activate

NULL = np.uint64(0)  # instead of an array
_RELU = 1


def conv(
    tiles: Tiles,
    features: cupy.ndarray,  # IN, (n_in, C_in)
    weight: cupy.ndarray,  # IN, (K, C_in / groups, C_out), a view of any layout
    bias: cupy.ndarray | None,  # IN, (C_out,)
    residual: cupy.ndarray | None,  # IN, (n_out, C_out)
    out: cupy.ndarray,  # OUT, (n_out, C_out)
    activation: int,  # 0 none, others as in the pointwise stage
    slope: float,
    scratch: Any,  # None, or tiles.scratch_bytes(..)
    groups: int,
    n_threads: int,  # of the CPU: not read
) -> None:
    """Write ``out[o] = act(bias + sum over pairs (i, o) of features[i] @ weight[k] + residual[o])``.

    The product takes the channels of each group by themselves.
    """
    if not out.size:
        return
    weight = cupy.ascontiguousarray(weight)
    for group in range(groups if groups > 1 else 0):
        x = _part(features, group, groups)
        w, b, more, y = (_part(array, group, groups) for array in (weight, bias, residual, out))
        conv(tiles, x, w, b, more, y, activation, slope, scratch, 1, n_threads)
        out[:, group * y.shape[1] : (group + 1) * y.shape[1]] = y
    if groups > 1:
        return
    (_, c_in, c_out), size = weight.shape, out.itemsize
    whole_x = c_in * size % CHUNK_BYTES == 0 and _at_chunk(features)
    whole_w = c_out * size % CHUNK_BYTES == 0 and all(
        array is None or _at_chunk(array) for array in (weight, bias, residual, out)
    )
    key = out.dtype, c_in, c_out, whole_x, whole_w, tf32_allowed()
    prepared = tiles.prepared.get(key) or tiles.prepared.setdefault(key, _prepare(tiles, *key))
    parts = NULL if prepared.splits == 1 else scratch.view(prepared.sum_type)
    epilogue = NULL if bias is None else bias, NULL if residual is None else residual, out
    tail = prepared.relu if activation == _RELU else prepared.linear
    prepared.run(
        prepared.grid, prepared.block, (features, weight, *epilogue, parts, *tail), shared_mem=prepared.shared
    )
    if prepared.splits > 1:
        chunks = tiles.n_out * -(-c_out * size // CHUNK_BYTES)
        launch(prepared.add_parts, chunks, parts, *epilogue, *tail[-4:])
    if activation not in (0, _RELU):
        activate(out.reshape(-1), activation, slope, out.reshape(-1), n_threads)


class _Prepared(NamedTuple):
    """A launch of a plan, but for the arrays of the call."""

    run: Any
    grid: tuple[int]
    block: tuple[int]
    shared: int  # bytes
    splits: int
    sum_type: type
    linear: tuple  # arguments behind the arrays, without a ReLU
    relu: tuple  # and with one
    add_parts: Any


def _prepare(tiles: Tiles, dtype, c_in, c_out, whole_x, whole_w, tf32) -> _Prepared:
    """Choose the kernel for some channels; made once for each plan, since a call must cost little."""
    math = arithmetic(_math(dtype, tf32), c_in, c_out, _compute_capability())
    block = block_for(math, tiles.tile_size, c_out)
    splits = tiles.splits(c_out)
    arrays = tiles.rows, tiles.step_ptr, tiles.step_offset, tiles.step_groups, tiles.step_rows
    tail = *arrays, np.int32(c_in), np.int64(tiles.n_out), np.int32(c_out), np.int32(splits)
    return _Prepared(
        run=_conv_tiles(math, block, whole_x, whole_w),
        grid=(tiles.n_tiles * -(-c_out // block.cols) * splits,),
        block=(block.threads,),
        shared=block.shared_bytes,
        splits=splits,
        sum_type=np.float64 if math == "Float64" else np.float32,
        linear=(*tail, np.bool_(False)),
        relu=(*tail, np.bool_(True)),
        add_parts=kernel("conv", "add_parts", math, _flag(whole_w)) if splits > 1 else None,
    )


def _part(array: Any, group: int, groups: int) -> Any:
    """Return a copy of a group's channels."""
    if array is None:
        return None
    size = array.shape[-1] // groups
    return cupy.ascontiguousarray(array[..., group * size : (group + 1) * size])


@cupy.memoize(for_each_device=True)
def _conv_tiles(math: str, block: Block, whole_x: bool, whole_w: bool):
    run = kernel("conv", "conv_tiles", math, *block, _flag(whole_x), _flag(whole_w))
    run.max_dynamic_shared_size_bytes = block.shared_bytes
    return run


@cupy.memoize(for_each_device=True)
def _compute_capability() -> int:
    """Return ten times the compute capability."""
    return int(cupy.cuda.Device().compute_capability)


def _math(dtype: np.dtype, tf32: bool) -> str:
    """Return how the kernels compute with a type of features."""
    capability = _compute_capability()
    if dtype == np.float32:
        return "Tf32" if tf32 and capability >= 80 else "Float32"
    if dtype == np.float64:
        return "Float64"
    name = "float16" if dtype == np.float16 else "bfloat16"
    if capability < 80:
        raise TypeError(
            f"features must have dtype float32 or float64 on a GPU of compute capability "
            f"{capability / 10}, got {name}, which needs 8.0"
        )
    return name.capitalize()


def _flag(value: bool) -> str:
    """Return a truth value as C++ has it."""
    return str(value).lower()


def _at_chunk(array: cupy.ndarray) -> bool:
    """Whether an array begins at an address of chunks."""
    return array.data.ptr % CHUNK_BYTES == 0
