"""Run a rulebook with a weight, in tiles of output rows, on the GPU: launches `src/cuda/conv.cu`."""

from __future__ import annotations

import cupy
import numpy as np

from .._backend import tf32_allowed
from ._kernel import kernel, launch
from .blocks import Block, arithmetic, block_for
from .plan import Tiles

NULL = np.uint64(0)  # instead of an array


def conv(
    tiles: Tiles,
    features: cupy.ndarray,  # IN, (n_in, C_in)
    weight: cupy.ndarray,  # IN, (K, C_in / groups, C_out)
    bias: cupy.ndarray | None,  # IN, (C_out,)
    residual: cupy.ndarray | None,  # IN, (n_out, C_out)
    out: cupy.ndarray,  # OUT, (n_out, C_out)
    relu: bool,
    scratch: cupy.ndarray,  # tiles.scratch_bytes(..)
    groups: int,
    n_threads: int,  # of the CPU: not read
) -> None:
    """Write ``out[o] = act(bias + sum over pairs (i, o) of features[i] @ weight[k] + residual[o])``.

    The product takes the channels of each group by themselves.
    """
    if not out.size:
        return
    for group in range(groups if groups > 1 else 0):
        x = _part(features, group, groups)
        w, b, more, y = (_part(array, group, groups) for array in (weight, bias, residual, out))
        conv(tiles, x, w, b, more, y, relu, scratch, 1, n_threads)
        out[:, group * y.shape[1] : (group + 1) * y.shape[1]] = y
    if groups > 1:
        return
    c_in, c_out = weight.shape[1:]
    math = arithmetic(_math(out.dtype), c_in, c_out, _compute_capability())
    block = block_for(math, tiles.tile_size, c_out)
    splits = tiles.splits(c_out)
    parts = scratch.view(np.float64 if math == "Float64" else np.float32) if splits > 1 else None
    whole = _whole(weight, bias, residual, out)
    run = _conv_tiles(math, block, _whole(features), whole)
    epilogue = bias, residual, out
    sizes = np.int64(tiles.n_out), np.int32(c_out), np.int32(splits), np.bool_(relu)
    blocks = tiles.n_tiles * -(-c_out // block.cols) * splits
    arguments = (
        *(features, weight, *epilogue, parts),
        *(tiles.rows, tiles.step_ptr, tiles.step_offset, tiles.step_groups, tiles.step_rows),
        *(np.int32(c_in), *sizes),
    )
    arguments = tuple(NULL if value is None else value for value in arguments)
    run((blocks,), (block.threads,), arguments, shared_mem=block.shared_bytes)
    if splits > 1:
        chunks = tiles.n_out * -(-c_out * out.itemsize // 16)
        launch(kernel("conv", "add_parts", math, _flag(whole)), chunks, parts, *epilogue, *sizes)


def _part(array: cupy.ndarray | None, group: int, groups: int) -> cupy.ndarray | None:
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


def _math(dtype: np.dtype) -> str:
    """Return how the kernels compute with a type of features."""
    capability = _compute_capability()
    if dtype == np.float32:
        return "Tf32" if tf32_allowed() and capability >= 80 else "Float32"
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


def _whole(*arrays: cupy.ndarray | None) -> bool:
    """Whether the rows of the arrays are whole chunks of 16 bytes, at such addresses."""
    return all(
        array is None or (array.shape[-1] * array.itemsize % 16 == 0 and array.data.ptr % 16 == 0)
        for array in arrays
    )
