"""What takes several kernels: allocates for them and runs them one after the other."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from .. import _check
from .._stencil import Stencil, most_reached, num_searched
from . import coords, hashmap
from ._kernel import columns, kernel, launch, launch_blocks
from .plan import Tiles, tile_size_for

__all__ = ["conv_tiles", "gathered", "reached", "sort_keys", "submanifold", "tile_size_for"]

_CHUNK = 1024  # sites that a block takes
_OFFSETS = 64  # that a launch takes
_SCAN = 1024  # threads of the block that adds up counts
_THREADS = 256
_ROOM = 1 << 24  # outputs for which there may be room without knowing their number: 650 MB


def sort_keys(keys: cupy.ndarray, bits: int) -> tuple[cupy.ndarray, cupy.ndarray]:
    """Return keys in ascending order and, stably, the row that each came from. `keys` is overwritten."""
    # A radix sort, of half the passes where the keys have no more bits.
    order = cupy.argsort(keys.astype(np.uint32) if bits < 32 else keys, kind="stable")
    out, rows = cupy.empty_like(keys), cupy.empty(len(keys), np.int32)
    coords.take_sorted(keys, order, out, rows)
    return out, rows


def submanifold(keys, order, layout, stencil: Stencil) -> tuple[cupy.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of the pairs with ``site(in) == site(out) + offset``.

    `keys` are the ascending keys of the sites and a sentinel, in a layout that holds the neighbours too,
    `order` the row of each rank, or None. The host waits once, for the number of pairs.
    """
    return _found(keys, keys[:-1], layout, stencil, num_searched(stencil), order, order)


def gathered(keys, queries, in_order, out_order, layout, stencil: Stencil) -> tuple[cupy.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of the pairs with ``key(in) == queries[out] + offset``.

    `keys` and the orders as for `submanifold`; the queries ascend.
    """
    return _found(keys, queries, layout, stencil, len(stencil.offsets), out_order, in_order)


def _found(keys, queries, layout, stencil: Stencil, searched, order, in_order) -> tuple[cupy.ndarray, ...]:
    """Return the pairs that are found in a hash for the first offsets; the others mirror them."""
    num_keys, n, num_offsets = len(keys) - 1, len(queries), len(stencil.offsets)
    chunks = -(-n // _CHUNK)
    bits = max(4, (2 * num_keys - 1).bit_length())
    slots = cupy.empty((1 << bits, 2), np.uint64)
    hashmap.build(keys[:num_keys], slots, bits, 1)
    found = cupy.empty((searched, n), np.int32)
    counts = cupy.empty((searched, chunks), np.int32)
    find = kernel("rulebook", "find_neighbours")
    table = queries, np.int64(n), slots, np.int32(bits), columns(layout.shift)
    for first, size, offsets in _parts(stencil.columns[:searched]):
        part = offsets, np.int64(first), np.int64(size), np.int64(chunks), found, counts
        launch_blocks(find, size * chunks, _THREADS, *table, *part)
    places, offset_ptr = _places(counts, num_offsets)
    num_pairs = int(offset_ptr[-1])
    in_rows, out_rows = cupy.empty((2, num_pairs), np.int32)
    tasks = np.int64(searched), np.int64(chunks), places, offset_ptr, np.int64(num_offsets)
    args = found, np.int64(n), *tasks, order, in_order, in_rows, out_rows
    launch_blocks(kernel("rulebook", "fill_neighbours"), counts.size if num_pairs else 0, _THREADS, *args)
    return in_rows, out_rows, offset_ptr


def reached(
    keys, order, layout, out_layout, low, high, stencil: Stencil, stride, padding, divide
) -> tuple[cupy.ndarray, ...]:
    """Return (in_rows, out_rows, offset_ptr) of a convolution, the outputs' keys and coordinates.

    `keys` are the ascending keys of the sites and a sentinel, `order` the row of each rank, or None.
    Outputs lie in [low, high], which `out_layout` holds; `divide` is False for a transposed convolution.
    The host waits once, for the numbers of pairs and outputs: until then there is room for as many outputs
    as the sites could have. Where that would be much, it waits for the number of pairs first.
    """
    n, (num_offsets, width) = len(keys) - 1, stencil.columns.shape
    chunks = -(-n // _CHUNK)
    counts = cupy.empty((num_offsets, chunks), np.int32)
    steps = (1, *stride), (0, *padding)
    fields = layout.low, layout.shift, out_layout.low, out_layout.shift, low, high, *steps
    sites = keys, np.int64(n), columns(np.array(fields))
    parts = _parts(stencil.columns)

    def run(name, *arguments):
        function = kernel("rulebook", name, width)
        for first, size, offsets in parts:
            part = offsets, np.int64(first), np.int64(size), np.int32(divide), np.int64(chunks)
            launch_blocks(function, size * chunks, _THREADS, *sites, *part, *arguments)

    room = n * most_reached(stencil, stride, divide)
    if room > _ROOM:
        run("count_reached", None, np.int32(0), counts)
        room = int(_places(counts, num_offsets)[1][-1])
    if room > _check.MAX_ROWS:
        raise ValueError(f"coords must reach fewer than {_check.MAX_ROWS} candidates, got {room}")
    most = min(room, math.prod(int(h) - int(lo) + 1 for lo, h in zip(low, high, strict=True)))  # outputs
    bits = max(4, (most * 4 // 3).bit_length())
    slots = cupy.empty((1 << bits, 2), np.uint64)
    hashmap.empty(slots)
    table = slots, np.int32(bits)
    run("count_reached", *table, counts)
    places, offset_ptr = _places(counts, num_offsets, extra=1)
    listed = cupy.empty(most, np.uint64)
    slot_chunks = -(-len(slots) // _CHUNK)
    arguments = slots, np.int64(len(slots)), np.int64(slot_chunks), listed, offset_ptr[-1:]
    launch_blocks(kernel("rulebook", "list_keys"), slot_chunks, _THREADS, *arguments)
    num_pairs, num_out = offset_ptr[-2:].get().tolist()
    listed = listed[:num_out]
    listed.sort()
    out_keys = cupy.empty(num_out + 1, np.uint64)
    indices = cupy.empty((num_out, width), np.int32)
    layouts = columns(out_layout.low), columns(out_layout.shift)
    numbered = listed, np.int64(num_out), *layouts, *table, out_keys, indices
    launch(kernel("rulebook", "number_keys", width), num_out + 1, *numbered)
    in_rows, out_rows = cupy.empty((2, num_pairs), np.int32)
    if num_pairs:
        run("fill_reached", *table, places, order, in_rows, out_rows)
    return in_rows, out_rows, offset_ptr[:-1], out_keys, indices


def conv_tiles(book: Any, tile_size: int) -> Tiles:
    """Return the pairs of a rulebook as a convolution's kernels take them."""
    pairs = book.in_rows, book.out_rows, book.offset_ptr[:-1, None]
    return Tiles(*pairs, book._out.order, None, tile_size, book.num_out)


def _parts(offsets: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Return the first of so many offsets as a launch takes, their number, and themselves by value."""
    parts = []
    for first in range(0, len(offsets), _OFFSETS):
        part = np.zeros((_OFFSETS, offsets.shape[1]), np.int64)
        size = min(_OFFSETS, len(offsets) - first)
        part[:size] = offsets[first : first + size]
        parts.append((first, size, columns(part)))
    return parts


def _places(counts: cupy.ndarray, num_offsets: int, extra: int = 0) -> tuple[cupy.ndarray, cupy.ndarray]:
    """Return where each block's pairs begin, and each offset's, with their number; `extra` zeros follow."""
    places = cupy.empty(counts.shape, np.int64)
    offset_ptr = cupy.zeros(num_offsets + 1 + extra, np.int64)
    sizes = *map(np.int64, counts.shape), np.int64(num_offsets)
    blocks = 1 if counts.size else 0
    launch_blocks(kernel("rulebook", "place_pairs"), blocks, _SCAN, counts, *sizes, places, offset_ptr)
    return places, offset_ptr
