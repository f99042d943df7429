"""Gradients of a convolution's weight, of maxima and of interpolation."""

import numpy as np

from ._kernel import kernel, launch, launch_blocks, type_name

_EDGE = 32  # channels of a block on either side
_THREADS = 256


def scratch_bytes(number_bytes, n_offsets, c_in, c_out, groups, n_chunks, n_threads):
    """Return how much scratch `weight_gradient` needs: sums for each chunk."""
    return n_chunks * n_offsets * c_in * c_out * groups * max(number_bytes, 4)


def weight_gradient(
    features, gradient, in_rows, out_rows, tile_ptr, groups, n_chunks, out, scratch, n_threads
):
    """Write ``out[k] = sum over pairs (i, o) of features[i]^T gradient[o]``, by group."""
    (offsets, c_in, c_out), name = out.shape, type_name(out.dtype)
    c_out //= groups
    parts = scratch.view(np.float64 if name == "double" else np.float32)
    pairs = features, gradient, in_rows, out_rows, tile_ptr
    counts = np.int64(offsets), np.int64(tile_ptr.shape[1] - 1), np.int64(n_chunks)
    sizes = np.int32(c_in), np.int32(c_out), np.int32(groups)
    blocks = n_chunks * offsets * groups * -(-c_in // _EDGE) * -(-c_out // _EDGE)
    launch_blocks(kernel("grad", "add_chunks", name), blocks, _THREADS, *pairs, *counts, *sizes, parts)
    launch(kernel("grad", "add_parts", name), out.size, parts, np.int64(n_chunks), np.int64(out.size), out)


def mask_relu(features, gradient, out, n_threads):
    """Write the gradient where the ReLU passed its input, else 0."""
    function = kernel("grad", "mask_relu", type_name(out.dtype))
    launch(function, out.size, features, gradient, np.int64(out.size), out)


def find_maxima(features, maxima, in_rows, out_rows, tile_ptr, found, n_threads):
    """Find the input row of each maximum: that of its first pair, if several have it."""
    pairs = features, maxima, in_rows, out_rows, tile_ptr
    _by_tiles("find_maxima", tile_ptr, *pairs, *_sizes(tile_ptr, features), found)


def return_maxima(gradient, found, in_rows, out_rows, tile_ptr, out, n_threads):
    """Add the gradient of each maximum to the row that it was found in."""
    pairs = gradient, found, in_rows, out_rows, tile_ptr
    _by_tiles("return_maxima", tile_ptr, *pairs, *_sizes(tile_ptr, gradient), out)


def find_segment_maxima(features, maxima, order, segment_ptr, found, n_threads):
    """Find the row of each maximum: the first in the segment's order, if several have it."""
    sizes = np.int64(found.shape[0]), np.int32(found.shape[1])
    function = kernel("grad", "find_segment_maxima", type_name(features.dtype))
    launch(function, found.size, features, maxima, order, segment_ptr, *sizes, found)


def weigh(gradient, weights, entries, segment_ptr, out, n_threads):
    """Write the weighted sum of the gradient's rows that each segment's entries name."""
    sizes = np.int64(out.shape[0]), np.int32(out.shape[1])
    function = kernel("grad", "weigh", type_name(out.dtype))
    corners = np.int64(weights.shape[1])
    launch(function, out.size, gradient, weights, corners, entries, segment_ptr, *sizes, out)


def _by_tiles(name, tile_ptr, features, *arguments):
    """Run a kernel with a block for each tile."""
    function = kernel("grad", name, type_name(features.dtype))
    launch_blocks(function, tile_ptr.shape[1] - 1, _THREADS, features, *arguments)


def _sizes(tile_ptr, features):
    return np.int64(tile_ptr.shape[0]), np.int64(tile_ptr.shape[1] - 1), np.int32(features.shape[1])
