"""Reduce features over the pairs of a rulebook, and over segments of rows."""

import numpy as np

from ._kernel import kernel, launch, launch_blocks, type_name

_THREADS = 256


def pool(features, in_rows, out_rows, tile_ptr, order, tile_size, operation, counts, out, n_threads):
    """Reduce the input rows of each output row; the sum of none is 0, the maximum -inf."""
    offsets, tiles = tile_ptr.shape[0], tile_ptr.shape[1] - 1
    pairs = features, in_rows, out_rows, tile_ptr, np.int64(offsets), np.int64(tiles), order
    target = np.int64(tile_size), np.int32(operation), counts, out, np.int64(len(out)), np.int32(out.shape[1])
    function = kernel("pool", "pool", type_name(features.dtype), type_name(out.dtype))
    launch_blocks(function, tiles, _THREADS, *pairs, *target)


def count_pairs_per_row(out_rows, tile_ptr, counts, n_threads):
    """Add up how many pairs each output row has."""
    launch(kernel("pool", "count_pairs_per_row"), len(out_rows), out_rows, np.int64(len(out_rows)), counts)


def segment_reduce(features, order, segment_ptr, operation, out, n_threads):
    """Reduce the rows of each segment in double precision; an empty one gives 0, its maximum -inf."""
    sizes = np.int64(out.shape[0]), np.int32(out.shape[1])
    function = kernel("pool", "segment_reduce", type_name(out.dtype), type_name(features.dtype))
    launch(function, out.size, features, order, segment_ptr, np.int32(operation), out, *sizes)


def segment_sums(values, lows, order, segment_ptr, mean, out, out_lows, loose, n_threads):
    """Add up the rows of each segment exactly, in whatever order they are."""
    loose.fill(0)
    sizes = np.int64(out.shape[0]), np.int32(out.shape[1])
    function = kernel("pool", "segment_sums", type_name(out.dtype), type_name(values.dtype))
    launch(function, out.size, values, lows, order, segment_ptr, np.int32(mean), out, out_lows, loose, *sizes)
