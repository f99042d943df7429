"""Find the pairs of each kernel offset, in the order (offset, output key)."""

import cupy
import numpy as np

from . import coords, hashmap
from ._kernel import columns, kernel, launch, launch_blocks

_CHUNK = 1024  # sites that a block takes
_THREADS = 256
_MAX_ROWS = 2**31 - 1


def submanifold(keys, steps, num_searched, order, n_threads):
    """Return (in_rows, out_rows, offset_ptr) of the pairs with ``key(in) == key(out) + step``.

    `keys` are the n ascending keys of the sites and a sentinel, `order` the row of each rank or None,
    `steps` host ints, of which the first `num_searched` are searched; the others must be those, mirrored.
    The host waits once, for the number of pairs.
    """
    n, num_offsets = len(keys) - 1, len(steps)
    chunks = -(-n // _CHUNK)
    bits = max(4, (2 * n - 1).bit_length())
    slots = cupy.empty((1 << bits, 2), np.uint64)
    hashmap.build(keys[:n], slots, bits, n_threads)
    found = cupy.empty((num_searched, n), np.int32)
    counts = cupy.empty((num_searched, chunks), np.int64)
    tasks = np.int64(num_searched), np.int64(chunks)
    steps = cupy.asarray(np.asarray(steps[:num_searched], np.int64))
    table = slots, np.int32(bits), steps, *tasks, found, counts
    launch_blocks(kernel("rulebook", "find_neighbours"), counts.size, _THREADS, keys, np.int64(n), *table)
    sizes = counts.sum(axis=1)
    sizes = cupy.concatenate([sizes, sizes[: num_offsets - num_searched][::-1]])
    offset_ptr, num_pairs = _offset_ptr(sizes)
    in_rows, out_rows = cupy.empty(num_pairs, np.int32), cupy.empty(num_pairs, np.int32)
    places = counts, cupy.cumsum(counts), offset_ptr, np.int64(num_offsets)
    args = found, np.int64(n), *tasks, *places, order, in_rows, out_rows
    launch_blocks(kernel("rulebook", "fill_neighbours"), counts.size if num_pairs else 0, _THREADS, *args)
    return in_rows, out_rows, offset_ptr


def reached(keys, fields, offsets, divide, bits, order, n_threads):
    """Return (in_rows, out_rows, offset_ptr, out_keys) of a convolution, or of a transposed one.

    `keys` are the n ascending keys of the sites; `fields`, by column, host ints: low and shift of their
    layout, low and shift of the outputs' (of `bits` bits), least and greatest output, stride, padding;
    `offsets` (K, columns) host ints; `divide` false for a transposed convolution. `out_keys` ascend and
    have a sentinel behind them. The host waits for the number of pairs, then for that of outputs.
    """
    n, (num_offsets, width) = len(keys), offsets.shape
    chunks = -(-n // _CHUNK)
    counts = cupy.empty((num_offsets, chunks), np.int64)
    fields = columns(fields)
    offsets = cupy.asarray(np.asarray(offsets, np.int64))
    plan = (
        keys,
        np.int64(n),
        fields,
        offsets,
        np.int64(num_offsets),
        np.int32(divide),
        np.int64(chunks),
        counts,
    )
    launch_blocks(kernel("rulebook", "count_reached", width), counts.size, _THREADS, *plan)
    offset_ptr, num_pairs = _offset_ptr(counts.sum(axis=1))
    if num_pairs > _MAX_ROWS:
        raise ValueError(f"coords must reach at most {_MAX_ROWS} outputs by all offsets, got {num_pairs}")
    in_rows, out_rows = cupy.empty(num_pairs, np.int32), cupy.empty(num_pairs, np.int32)
    candidates = cupy.empty(num_pairs, np.uint64)
    function = kernel("rulebook", "fill_reached", width)
    blocks = counts.size if num_pairs else 0
    launch_blocks(function, blocks, _THREADS, *plan, cupy.cumsum(counts), order, in_rows, candidates)
    return in_rows, out_rows, offset_ptr, _unique(candidates, bits, out_rows, n_threads)


def cut_tiles(out_rows, offset_ptr, rank, tile_size, tile_ptr, n_threads):
    """Write where the pairs of each tile of output ranks begin, under each offset."""
    sizes = np.int64(tile_size), *map(np.int64, tile_ptr.shape)
    launch(kernel("rulebook", "cut_tiles"), tile_ptr.size, out_rows, offset_ptr, rank, *sizes, tile_ptr)


def _offset_ptr(sizes):
    """Return where each offset's pairs begin, on the device, and how many pairs there are."""
    offset_ptr = cupy.zeros(len(sizes) + 1, np.int64)
    cupy.cumsum(sizes, out=offset_ptr[1:])
    return offset_ptr, int(offset_ptr[-1])


def _unique(keys, bits, ranks, n_threads):
    """Return the distinct keys, ascending, with a sentinel; write each key's rank. `keys` is overwritten."""
    n = len(keys)
    order, spare, spare_order = (cupy.empty(n, kind) for kind in (np.int32, np.uint64, np.int32))
    if coords.sort(keys, order, spare, spare_order, None, max(1, bits), None, n_threads):
        keys, order = spare, spare_order
    counts = cupy.empty(-(-n // coords.CHUNK), np.int64)
    coords.count_runs(keys, counts, n_threads)
    ends = cupy.cumsum(counts)
    total = int(ends[-1]) if n else 0
    starts = cupy.full(total + 1, n, np.int64)
    unique = cupy.full(total + 1, np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64)
    if n:
        coords.fill_runs(keys, ends - counts, starts[:total], unique[:total], n_threads)
        coords.spread_runs(starts, order, ranks, n_threads)
    return unique
