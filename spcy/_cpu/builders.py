"""What takes several kernels: allocates for them and runs them one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _check, _threads
from .._stencil import Stencil, num_searched, reach_groups, walk_lines
from . import conv, coords, rulebook
from .memory import empty

_NO_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)


def sort_keys(keys: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return keys in ascending order and, stably, the row that each came from. `keys` is overwritten."""
    num = len(keys)
    if not num:
        return keys, np.empty(0, np.int32)
    passes = max(1, -(-bits // 11))
    digit_bits = max(1, -(-bits // passes))
    threads = _threads.threads_for(5 * passes * num)
    spare = empty(num, np.uint64)
    order, spare_order = empty((2, num), np.int32)
    counts = empty((threads, 1 << digit_bits), np.int64)
    in_spare = coords.sort(keys, order, spare, spare_order, counts, max(1, bits), digit_bits, threads)
    return (spare, spare_order) if in_spare else (keys, order)


def submanifold(
    keys: np.ndarray, order: np.ndarray | None, layout: Any, stencil: Stencil
) -> tuple[np.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of the pairs with ``site(in) == site(out) + offset``.

    `keys` are the ascending keys of the sites and a sentinel, in a layout that holds the neighbours too,
    `order` the row of each rank, or None.
    """
    return _walked(keys, keys[:-1], layout, stencil, num_searched(stencil), order, order)


def gathered(
    keys: np.ndarray,
    queries: np.ndarray,
    in_order: np.ndarray | None,
    out_order: np.ndarray | None,
    layout: Any,
    stencil: Stencil,
) -> tuple[np.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of the pairs with ``key(in) == queries[out] + offset``.

    `keys` and the orders as for `submanifold`; the queries ascend.
    """
    return _walked(keys, queries, layout, stencil, len(stencil.offsets), in_order, out_order)


def _walked(
    keys: np.ndarray,
    queries: np.ndarray,
    layout: Any,
    stencil: Stencil,
    num_walked: int,
    in_order: np.ndarray | None,
    out_order: np.ndarray | None,
) -> tuple[np.ndarray, ...]:
    """Return the pairs that a walk through the keys finds for the first offsets; the others mirror them."""
    num, num_offsets = len(queries), len(stencil.offsets)
    line_offsets, line_ptr = walk_lines(stencil, num_walked)
    line_first = (line_offsets << layout.shift).sum(axis=1)
    met = empty((len(line_first), num), np.int32)
    counts = np.zeros((-(-num // rulebook.CHUNK), num_walked), np.int64)
    threads = _threads.threads_for(8 * met.size)
    if num:
        rulebook.count_pairs(queries, keys, line_first, line_ptr, met, counts, threads)
    sizes = counts.sum(axis=0)
    sizes = np.concatenate([[0], sizes, sizes[: num_offsets - num_walked][::-1]])
    offset_ptr = np.cumsum(sizes)
    in_rows, out_rows = empty((2, offset_ptr[-1]), np.int32)
    if len(in_rows):
        places = np.cumsum(counts, axis=0) - counts + offset_ptr[:num_walked]
        widest = int(np.diff(line_ptr).max())
        ranks = empty((threads, 2, widest * (rulebook.CHUNK + 1)), np.int32)
        tallies = empty((threads, widest), np.int64)
        lines = line_first, line_ptr, met, places
        rows = in_order, out_order, in_rows, out_rows
        rulebook.fill_pairs(queries, keys, *lines, *rows, ranks, tallies, threads)
        if num_walked < num_offsets:
            rulebook.mirror_pairs(offset_ptr, in_rows, out_rows, _threads.threads_for(len(in_rows)))
    return in_rows, out_rows, offset_ptr


def reached(
    keys: np.ndarray,
    order: np.ndarray | None,
    layout: Any,
    out_layout: Any,
    low: np.ndarray,
    high: np.ndarray,
    stencil: Stencil,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    divide: bool,
) -> tuple[np.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of a convolution, the outputs' keys and coordinates.

    `keys` are the ascending keys of the sites and a sentinel, `order` the row of each rank, or None.
    Outputs lie in [low, high], which `out_layout` holds; `divide` is False for a transposed convolution.
    """
    num = len(keys) - 1
    steps, pad = np.array((1, *stride)), np.array((0, *padding))
    chunks = -(-num // rulebook.CHUNK)
    counts, sizes = np.zeros((chunks, len(stencil.offsets)), np.int64), np.zeros(chunks, np.int64)
    threads = _threads.threads_for(20 * num)
    if num:
        fields = layout.shift, layout.high - layout.low, layout.low
        columns = np.array((*fields, out_layout.shift, out_layout.low, low, high, steps, pad)).T.copy()
        scratch = empty((num, 2), np.uint64), empty(chunks, np.int32), empty(num, np.int32)
        arguments = columns, *reach_groups(stencil, stride, divide), *scratch
        plan = rulebook.Reach(*arguments)
        known = plan, keys[:num], empty((threads, plan.scratch_size), np.uint64)
        rulebook.count_reached(*known, counts, sizes, threads)
    total = int(sizes.sum())
    if total > _check.MAX_ROWS:
        raise ValueError(f"coords must reach fewer than {_check.MAX_ROWS} candidates, got {total}")
    places = np.cumsum(sizes) - sizes
    blocks, cells = empty(total, np.uint64), empty(total, np.uint64)
    if total:
        rulebook.fill_reached(*known, places, blocks, cells, threads)
    out_keys, indices, ranks = _outputs(blocks, cells, out_layout)
    del blocks
    offset_ptr = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    in_rows, out_rows = empty((2, offset_ptr[-1]), np.int32)
    if len(in_rows):
        pair_places = np.cumsum(counts, axis=0) - counts + offset_ptr[:-1]
        rulebook.fill_reached_pairs(
            *known, places, cells, ranks, order, pair_places, in_rows, out_rows, threads
        )
    return in_rows, out_rows, offset_ptr, out_keys, indices


def _outputs(blocks: np.ndarray, cells: np.ndarray, layout: Any) -> tuple[np.ndarray, ...]:
    """Unite candidates for outputs: return the outputs' keys, with a sentinel, and their coordinates.

    Then, by candidate, the rank of its block's first output; `cells` becomes all outputs of the block.
    """
    num = len(blocks)
    blocks, order = sort_keys(blocks, layout.bits - 6)
    counts = empty(-(-num // rulebook.CHUNK), np.int64)
    threads = _threads.threads_for(10 * num)
    if num:
        rulebook.merge_blocks(blocks, order, cells, counts, threads)
    total = int(counts.sum())
    if total > _check.MAX_ROWS:
        raise ValueError(f"coords must reach at most {_check.MAX_ROWS} sites, got {total}")
    ranks, keys = empty(num, np.int32), empty(total + 1, np.uint64)
    indices = empty((total, len(layout.low)), np.int32)
    keys[total] = _NO_KEY
    if num:
        first = np.cumsum(counts) - counts
        args = layout.low, layout.shift, ranks, keys, indices
        rulebook.fill_outputs(blocks, order, cells, first, *args, threads)
    return keys, indices, ranks


def conv_tiles(book: Any, tile_size: int) -> Any:
    """Return the pairs of a rulebook as a convolution's kernels take them."""
    pairs = book.in_rows, book.out_rows, book._tiles(tile_size)
    return conv.Tiles(*pairs, book._out.order, book._out.rank, tile_size, book.num_out)


def tile_size_for(channels: int, num_out: int, threads: int) -> int:
    """Return the output rows of a tile: its accumulators fit the cache, and every thread has tiles."""
    size = 1024 if channels <= 32 else 512
    while threads > 1 and size > 128 and num_out < 8 * size * threads:
        size //= 2
    return size
