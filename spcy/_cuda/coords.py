"""Keys of sites: pack, unpack, sort, make unique. Layouts and grids are small host arrays."""

import cupy
import numpy as np

from ._kernel import columns, kernel, launch, launch_blocks, type_name

CHUNK = 4096  # rows of a chunk wherever a function takes or returns one value per chunk
_TILE, _DIGIT_BITS = 2048, 8  # keys that a block of a sort takes, bits of a pass
_THREADS = 256


def bounds(indices, low, high, n_threads):
    """Write the least and greatest value of each column, by chunks of rows."""
    rows, width = indices.shape
    sizes = np.int64(rows), np.int64(len(low))
    launch_blocks(kernel("coords", "bounds", width), len(low), _THREADS, indices, *sizes, low, high)


def pack(indices, low, shift, keys, n_threads):
    """Write the key of each row of indices; every row must lie inside the layout."""
    rows, width = indices.shape
    layout = columns(low), columns(shift)
    launch(kernel("coords", "pack", width), rows, indices, np.int64(rows), *layout, keys)


def pack_inside(indices, low, high, shift, keys, n_threads):
    """Like `pack`, for any indices: rows outside the layout get the key that no site has."""
    rows, width = indices.shape
    layout = columns(low), columns(high), columns(shift)
    launch(kernel("coords", "pack_inside", width), rows, indices, np.int64(rows), *layout, keys)


def unpack(keys, low, shift, indices, n_threads):
    """Write the coordinates of each key."""
    rows, width = indices.shape
    layout = columns(low), columns(shift)
    launch(kernel("coords", "unpack", width), rows, keys, np.int64(rows), *layout, indices)


def repack(keys, low0, shift0, low1, shift1, out, n_threads):
    """Write the keys, in layout 1, of keys in layout 0."""
    layouts = columns(low0), columns(shift0), columns(low1), columns(shift1)
    launch(kernel("coords", "repack", len(low0)), len(keys), keys, np.int64(len(keys)), *layouts, out)


def count_descents(keys, n_threads):
    """Return how many keys are not greater than the one before; the host waits for it."""
    count = cupy.zeros(1, np.uint64)
    launch(kernel("coords", "count_descents"), len(keys), keys, np.int64(len(keys)), count)
    return int(count[0])


def sort(keys, rows, spare_keys, spare_rows, counts, bits, digit_bits, n_threads):
    """Sort keys of `bits` bits, stably; return whether the result ended in the spare arrays.

    The size of digits is the GPU's own, and so is the scratch.
    """
    tiles = -(-len(keys) // _TILE)
    digits = 1 << _DIGIT_BITS
    counts = cupy.empty((digits, tiles), np.int64)
    source, target, source_rows = keys, spare_keys, None
    target_rows, other_rows = spare_rows, rows
    passes = range(0, bits, _DIGIT_BITS)
    for shift in passes:
        sizes = np.int64(len(keys)), np.int32(shift), np.int64(tiles)
        launch_blocks(kernel("coords", "count_digits"), tiles, digits, source, *sizes, counts)
        ends = cupy.cumsum(counts)
        moved = counts, ends, target, target_rows
        launch_blocks(kernel("coords", "move_digits"), tiles, digits, source, source_rows, *sizes, *moved)
        source, target = target, source
        source_rows = target_rows
        target_rows, other_rows = other_rows, target_rows
    return len(passes) % 2 == 1


def count_runs(keys, counts, n_threads):
    """Write, for each chunk of sorted keys, how many differ from the key before them."""
    sizes = np.int64(len(keys)), np.int64(len(counts))
    launch_blocks(kernel("coords", "count_runs"), len(counts), _THREADS, keys, *sizes, counts)


def fill_runs(keys, chunk_ptr, starts, unique, n_threads):
    """Write where each run of equal sorted keys begins, and its key."""
    sizes = np.int64(len(keys)), np.int64(len(chunk_ptr))
    runs = chunk_ptr, starts, unique
    launch_blocks(kernel("coords", "fill_runs"), len(chunk_ptr), _THREADS, keys, *sizes, *runs)


def spread_runs(starts, order, rows, n_threads):
    """Write to each row the number of the run that it is in."""
    sizes = np.int64(len(starts) - 1), order, np.int64(len(order))
    launch(kernel("coords", "spread_runs"), len(order), starts, *sizes, rows)


def quantize(points, batch, origin, voxel_size, low, high, indices, state, n_threads):
    """Write the cell of each point, `floor((point - origin) / voxel_size)` in double precision."""
    rows, ndim = points.shape
    grid = columns(origin), columns(voxel_size), columns(low), columns(high)
    function = kernel("coords", "quantize", type_name(points.dtype), ndim)
    launch(function, rows, points, np.int64(rows), batch, *grid, indices, state)


def corners(points, batch, origin, voxel_size, low, high, shift, keys, weights, state, n_threads):
    """Write the keys of the cells whose centres surround each point, and their linear weights."""
    rows, ndim = points.shape
    grid = columns(origin), columns(voxel_size), columns(low), columns(high), columns(shift)
    function = kernel("coords", "corners", type_name(points.dtype), ndim)
    launch(function, rows, points, np.int64(rows), batch, *grid, keys, weights, state)
