"""What takes several kernels: allocates for them and runs them one after the other."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from .. import _check
from .._stencil import Stencil, most_reached, num_searched
from . import coords, hashmap
from ._kernel import columns, kernel, launch_blocks
from .plan import Tiles, tile_size_for

__all__ = ["conv_tiles", "gathered", "reached", "sort_keys", "submanifold", "tile_size_for"]

_CHUNK = 1024  # sites that a block takes
_THREADS = 256
_NO_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)
_ROOM = 1 << 24  # pairs for which there may be room without knowing their number: 470 MB


def sort_keys(keys: cupy.ndarray, bits: int) -> tuple[cupy.ndarray, cupy.ndarray]:
    """Return keys in ascending order and, stably, the row that each came from. `keys` is overwritten."""
    num = len(keys)
    spare = cupy.empty_like(keys)
    order, spare_order = cupy.empty((2, num), np.int32)
    in_spare = coords.sort(keys, order, spare, spare_order, None, max(1, bits), None, 1)
    return (spare, spare_order) if in_spare else (keys, order)


def submanifold(keys, order, layout, stencil: Stencil) -> tuple[cupy.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of the pairs with ``site(in) == site(out) + offset``.

    `keys` are the ascending keys of the sites and a sentinel, in a layout that holds the neighbours too,
    `order` the row of each rank, or None. The host waits once, for the number of pairs.
    """
    return _found(keys, keys[:-1], layout, stencil, num_searched(stencil), order)


def gathered(keys, queries, order, layout, stencil: Stencil) -> tuple[cupy.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of the pairs with ``key(in) == queries[out] + offset``.

    `keys` and `order` as for `submanifold`; the queries ascend, their order is that of the outputs' rows.
    """
    in_rows, *out = _found(keys, queries, layout, stencil, len(stencil.offsets), None)
    return in_rows if order is None else order[in_rows], *out


def _found(keys, queries, layout, stencil: Stencil, searched: int, order) -> tuple[cupy.ndarray, ...]:
    """Return the pairs that are found in a hash for the first offsets; the others mirror them."""
    num_keys, n, num_offsets = len(keys) - 1, len(queries), len(stencil.offsets)
    steps = (stencil.columns[:searched] << layout.shift).sum(axis=1)
    chunks = -(-n // _CHUNK)
    bits = max(4, (2 * num_keys - 1).bit_length())
    slots = cupy.empty((1 << bits, 2), np.uint64)
    hashmap.build(keys[:num_keys], slots, bits, 1)
    found = cupy.empty((searched, n), np.int32)
    counts = cupy.empty((searched, chunks), np.int64)
    tasks = np.int64(searched), np.int64(chunks)
    table = slots, np.int32(bits), cupy.asarray(steps), *tasks, found, counts
    launch_blocks(kernel("rulebook", "find_neighbours"), counts.size, _THREADS, queries, np.int64(n), *table)
    sizes = counts.sum(axis=1)
    sizes = cupy.concatenate([sizes, sizes[: num_offsets - searched][::-1]])
    offset_ptr = _offset_ptr(sizes)
    num_pairs = int(offset_ptr[-1])
    in_rows, out_rows = cupy.empty((2, num_pairs), np.int32)
    places = counts, cupy.cumsum(counts), offset_ptr, np.int64(num_offsets)
    args = found, np.int64(n), *tasks, *places, order, in_rows, out_rows
    launch_blocks(kernel("rulebook", "fill_neighbours"), counts.size if num_pairs else 0, _THREADS, *args)
    return in_rows, out_rows, offset_ptr


def reached(
    keys, order, layout, out_layout, low, high, stencil: Stencil, stride, padding, divide
) -> tuple[cupy.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of a convolution, the outputs' keys and coordinates.

    `keys` are the ascending keys of the sites and a sentinel, `order` the row of each rank, or None.
    Outputs lie in [low, high], which `out_layout` holds; `divide` is False for a transposed convolution.
    The host waits once, for the numbers of pairs and outputs: until then there is room for as many pairs
    as the sites could have. Where that would be much, it waits for the number of pairs first.
    """
    n, (num_offsets, width) = len(keys) - 1, stencil.columns.shape
    chunks = -(-n // _CHUNK)
    counts = cupy.empty((num_offsets, chunks), np.int64)
    steps = (1, *stride), (0, *padding)
    fields = layout.low, layout.shift, out_layout.low, out_layout.shift, low, high, *steps
    offsets = cupy.asarray(stencil.columns)
    sizes = np.int64(num_offsets), np.int32(divide), np.int64(chunks)
    plan = keys, np.int64(n), columns(np.array(fields)), offsets, *sizes, counts
    launch_blocks(kernel("rulebook", "count_reached", width), counts.size, _THREADS, *plan)
    offset_ptr = _offset_ptr(counts.sum(axis=1))
    room = n * most_reached(stencil, stride, divide)
    if room > _ROOM:
        room = int(offset_ptr[-1])
    if room > _check.MAX_ROWS:
        raise ValueError(f"coords must reach fewer than {_check.MAX_ROWS} candidates, got {room}")
    in_rows, candidates = cupy.empty(room, np.int32), cupy.full(room, _NO_KEY, np.uint64)
    blocks = counts.size if room else 0
    places = cupy.cumsum(counts), order, in_rows, candidates
    launch_blocks(kernel("rulebook", "fill_reached", width), blocks, _THREADS, *plan, *places)
    candidates, by_key = sort_keys(candidates, out_layout.bits)
    runs = cupy.empty(-(-room // coords.CHUNK), np.int64)
    coords.count_runs(candidates, runs, 1)
    ends = cupy.cumsum(runs)
    num_pairs = num_out = 0
    if room:
        num_pairs, num_out = cupy.concatenate([offset_ptr[-1:], ends[-1:]]).get().tolist()
        num_out -= num_pairs < room  # the last run is of room that was not needed
    starts = cupy.full(num_out + 1, num_pairs, np.int64)
    out_keys = cupy.full(num_out + 1, _NO_KEY, np.uint64)
    coords.fill_runs(candidates, ends - runs, starts, out_keys, 1)
    out_rows = cupy.empty(num_pairs, np.int32)
    coords.spread_runs(starts, by_key[:num_pairs], out_rows, 1)
    indices = cupy.empty((num_out, width), np.int32)
    coords.unpack(out_keys[:num_out], out_layout.low, out_layout.shift, indices, 1)
    in_rows = in_rows if num_pairs == room else in_rows[:num_pairs].copy()
    return in_rows, out_rows, offset_ptr, out_keys, indices


def conv_tiles(book: Any, tile_size: int) -> Tiles:
    """Return the pairs of a rulebook as a convolution's kernels take them."""
    pairs = book.in_rows, book.out_rows, book.offset_ptr[:-1, None]
    return Tiles(*pairs, book._out.order, None, tile_size, book.num_out)


def _offset_ptr(sizes: cupy.ndarray) -> cupy.ndarray:
    """Return where each offset's pairs begin, and their number."""
    offset_ptr = cupy.zeros(len(sizes) + 1, np.int64)
    cupy.cumsum(sizes, out=offset_ptr[1:])
    return offset_ptr
