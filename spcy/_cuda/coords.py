"""Keys of sites and of points' cells: pack, unpack, sort, make unique. Layouts and grids lie on the host."""

import cupy
import numpy as np

from ._kernel import columns, kernel, launch, launch_blocks, type_name

CHUNK = 4096  # rows of a chunk wherever a function takes or returns one value per chunk
_THREADS = 256


def bounds(values, found, n_threads):
    """Write the least and greatest value of each column, of each chunk of rows; in the first of all rows."""
    rows, width = values.shape
    kind, chunks = (type_name(values.dtype), width), np.int64(len(found))
    launch_blocks(
        kernel("coords", "bounds", *kind), len(found), _THREADS, values, np.int64(rows), chunks, found
    )
    if len(found) > 1:
        launch_blocks(kernel("coords", "join_bounds", *kind), 1, _THREADS, chunks, found)


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


def take_sorted(keys, order, out, rows):
    """Write the keys, and the rows that they come from, in an order of 64-bit places."""
    launch(kernel("coords", "take_sorted"), len(keys), keys, order, np.int64(len(keys)), out, rows)


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


def cell_keys(
    points,
    batch,
    origin,
    voxel_size,
    between,
    low,
    high,
    layout_low,
    shift,
    none,
    keys,
    fractions,
    state,
    n_threads,
):
    """Write the key of the cell that holds each point, computed in double precision."""
    rows, ndim = points.shape
    grid = (
        columns(origin),
        columns(voxel_size),
        np.int32(between),
        *map(columns, (low, high, layout_low, shift)),
    )
    function = kernel("coords", "cell_keys", type_name(points.dtype), ndim)
    outputs = keys, fractions, state
    launch(function, rows, points, np.int64(rows), batch, *grid, np.uint64(none), *outputs)
