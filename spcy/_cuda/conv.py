"""Run a rulebook with a weight, in tiles of output rows, on the GPU: launches `src/cuda/conv.cu`."""

from __future__ import annotations

import cupy
import numpy as np

from .._backend import tf32_allowed
from ._kernel import kernel, launch
from .blocks import Block, arithmetic, block_for

TILE_SIZES = (256, 128, 64)
TILES_PER_SM = 2  # for which a tile may be large
BLOCKS_PER_SM = 4  # below which offsets are split
MAX_SPLITS = 16
MIN_SPLIT_STEPS = 3  # that are worth a block
NULL = np.uint64(0)  # instead of an array


def tile_size_for(channels: int, num_out: int, threads: int) -> int:
    """Return the output rows of a tile: large ones read the weight seldom, but every SM must have some."""
    for size in TILE_SIZES[:-1]:
        if -(-num_out // size) * -(-channels // 128) >= TILES_PER_SM * _multiprocessors():
            return size
    return TILE_SIZES[-1]


class Tiles:
    """The pairs of a rulebook as steps of tiles: for a tile and an offset, the input row of each output row.

    Output rows are sorted by the offsets they have, and a tile has no step for an offset that none of its
    rows has. Per output row this takes 4 bytes, and 4 more for each step of its tile.
    """

    def __init__(
        self,
        in_rows: cupy.ndarray,  # (pairs,), int32
        out_rows: cupy.ndarray,  # (pairs,), int32
        tile_ptr: cupy.ndarray,  # (K, tiles + 1), int64: only its first column is read
        order: cupy.ndarray | None,  # the row of each output rank
        rank: cupy.ndarray | None,  # the rank of each output row: not read
        tile_size: int,
        n_out: int,
    ):
        self.n_out = n_out
        self.tile_size = max((size for size in TILE_SIZES if size <= tile_size), default=TILE_SIZES[-1])
        self.n_tiles = -(-n_out // self.tile_size)
        n_pairs, n_offsets = len(in_rows), len(tile_ptr)
        words = -(-n_offsets // 64)
        offsets = tile_ptr, np.int64(tile_ptr.shape[1]), np.int32(n_offsets), np.int64(n_pairs)
        masks = cupy.zeros((n_out, words), np.uint64)
        _run("mark_rows", n_pairs, out_rows, *offsets, masks)
        by_mask = _sorted_by_mask(masks, order, tile_ptr[:, 0], n_pairs)
        self.rows = cupy.full(self.n_tiles * self.tile_size, -1, np.int32)
        self.rows[:n_out] = by_mask
        positions = cupy.empty(n_out, np.int32)
        positions[by_mask] = cupy.arange(n_out, dtype=np.int32)

        tile_masks = cupy.zeros((self.n_tiles, words), np.uint64)
        sizes = np.int32(n_offsets), np.int64(n_out), np.int32(self.tile_size)
        _run("mark_tiles", n_out, masks, self.rows, *sizes, tile_masks)
        counts = cupy.empty(self.n_tiles, np.int64)
        sizes = np.int32(n_offsets), np.int64(self.n_tiles)
        _run("count_steps", self.n_tiles, tile_masks, *sizes, counts)
        self.order = cupy.argsort(-counts, kind="stable").astype(np.int32)
        self.step_ptr = cupy.zeros(self.n_tiles + 1, np.int64)
        self.step_ptr[1:] = cupy.cumsum(counts)
        self.n_steps = int(self.step_ptr[-1])  # waits for the device: the arrays below need their size
        self.step_offset = cupy.empty(self.n_steps, np.int32)
        _run("list_steps", self.n_tiles, tile_masks, self.step_ptr, *sizes, self.step_offset)
        self.step_groups = cupy.zeros(self.n_steps, np.uint32)
        self.step_rows = cupy.full((self.n_steps, self.tile_size), -1, np.int32)
        steps = positions, tile_masks, self.step_ptr, np.int32(self.tile_size)
        _run("fill_steps", n_pairs, in_rows, out_rows, *offsets, *steps, self.step_groups, self.step_rows)

    def splits(self, c_out: int) -> int:
        """Return among how many blocks the steps of a tile are split: where tiles are few."""
        blocks = self.n_tiles * -(-c_out // 64)
        wanted = BLOCKS_PER_SM * _multiprocessors() // max(blocks, 1)
        steps = self.n_steps // max(self.n_tiles, 1)
        return max(1, min(wanted, MAX_SPLITS, steps // MIN_SPLIT_STEPS))

    def scratch_bytes(self, number_bytes: int, c_in: int, c_out: int, groups: int, n_threads: int) -> int:
        """Return how much scratch `conv` needs: the parts of the sums, where steps are split."""
        c_out //= groups
        splits = self.splits(c_out)
        return splits * self.n_out * c_out * max(number_bytes, 4) if splits > 1 else 0


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
        *(tiles.order, tiles.rows, tiles.step_ptr, tiles.step_offset, tiles.step_groups, tiles.step_rows),
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


def _run(name: str, size: int, *arguments) -> None:
    """Run a kernel of the plan with a thread for each of `size` elements."""
    launch(kernel("conv", name), size, *arguments)


@cupy.memoize(for_each_device=True)
def _conv_tiles(math: str, block: Block, whole_x: bool, whole_w: bool):
    run = kernel("conv", "conv_tiles", math, *block, _flag(whole_x), _flag(whole_w))
    run.max_dynamic_shared_size_bytes = block.shared_bytes
    return run


@cupy.memoize(for_each_device=True)
def _multiprocessors() -> int:
    return cupy.cuda.Device().attributes["MultiProcessorCount"]


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


def _sorted_by_mask(masks, order, first_pair, n_pairs: int) -> cupy.ndarray:
    """Return the output rows, those with the same offsets together; among them, the order stays."""
    n_out, words = masks.shape
    counts = cupy.empty(len(first_pair), np.int64)
    counts[:-1], counts[-1:] = first_pair[1:] - first_pair[:-1], n_pairs - first_pair[-1:]
    rarest_first = cupy.argsort(counts, kind="stable")
    places = cupy.empty((words, n_out), np.uint64)
    _run("rank_masks", n_out, masks, order, rarest_first, np.int32(len(counts)), np.int64(n_out), places)
    by_mask = cupy.argsort(places[-1], kind="stable")
    for word in range(words - 2, -1, -1):
        by_mask = by_mask[cupy.argsort(places[word][by_mask], kind="stable")]
    return by_mask.astype(np.int32) if order is None else order[by_mask]
