"""Gradients: of a convolution's weight, and of maxima."""

import cupy
import numpy as np

from ._kernel import kernel, launch, launch_blocks, multiprocessors, type_name

_THREADS = 256
_RUN, _STAGES = 64, 3  # pairs that a block copies at once, and how often ahead, as src/cuda/grad.cu has them
_PART = 256  # numbers of a gradient that a block adds up
_WAVES = 4  # blocks for each multiprocessor, of which two run at a time
_FEWEST_PAIRS = 256  # that are worth a block


def num_chunks(n_pairs, n_offsets, n_tiles, c_in, c_out, groups, dtype):
    """Return how many sums of their own the pairs get: enough for all multiprocessors."""
    edge = _edge(dtype.itemsize, c_in, c_out)
    blocks = groups * -(-c_in // edge) * -(-c_out // edge)
    wanted = -(-_WAVES * multiprocessors() // blocks)
    return n_offsets + max(1, min(wanted, n_pairs // _FEWEST_PAIRS))


def scratch_bytes(dtype, n_offsets, c_in, c_out, groups, n_chunks, n_threads):
    """Return how much scratch `weight_gradient` needs: sums for each chunk."""
    return n_chunks * c_in * c_out * groups * max(dtype.itemsize, 4)


def weight_gradient(
    features, gradient, in_rows, out_rows, tile_ptr, groups, n_chunks, out, scratch, n_threads
):
    """Write ``out[k] = sum over pairs (i, o) of features[i]^T gradient[o]``, by group.

    An offset's pairs are cut so that there are no more than `n_chunks` chunks, whatever the offsets have.
    """
    (offsets, c_in, c_out), name = out.shape, type_name(out.dtype)
    size, c_out = c_in * c_out, c_out // groups
    parts = scratch.view(np.float64 if name == "double" else np.float32)
    chunk_pairs = -(-len(in_rows) // (n_chunks - offsets))
    chunks = tile_ptr, *map(np.int64, (*tile_ptr.shape, chunk_pairs))
    edge = _edge(out.itemsize, c_in, c_out)
    blocks = n_chunks * groups * -(-c_in // edge) * -(-c_out // edge)
    pairs = features, gradient, in_rows, out_rows, *chunks
    sizes = np.int32(c_in), np.int32(c_out), np.int32(groups), parts
    if out.itemsize == 2:
        run = _products(name, edge, _whole(c_in, features) and _whole(c_out, gradient))
        run((blocks,), (256 if edge == 128 else 128,), (*pairs, *sizes), shared_mem=_shared_bytes(edge))
    else:
        exact = kernel("grad", "add_exact", name, edge)
        launch_blocks(exact, blocks, _THREADS, *pairs, np.int64(n_chunks), *sizes)
    blocks = offsets * -(-size // _PART)
    launch_blocks(kernel("grad", "add_parts", name), blocks, _PART, parts, *chunks, np.int64(size), out)


def _edge(number_bytes: int, c_in: int, c_out: int) -> int:
    """Return the channels of a block on either side."""
    edge = next((edge for edge in (32, 64) if max(c_in, c_out) <= edge), 128)
    return min(edge, 64) if number_bytes > 2 else edge


def _shared_bytes(edge: int) -> int:
    return _STAGES * _RUN * 2 * edge * 2


@cupy.memoize(for_each_device=True)
def _products(name: str, edge: int, whole: bool):
    run = kernel("grad", "add_products", name, edge, str(whole).lower())
    run.max_dynamic_shared_size_bytes = _shared_bytes(edge)
    return run


def _whole(channels: int, array: cupy.ndarray) -> bool:
    """Whether each group of a row is whole chunks of 16 bytes, at such addresses."""
    return channels * array.itemsize % 16 == 0 and array.data.ptr % 16 == 0


def find_maxima(features, maxima, in_rows, out_rows, tile_ptr, order, tile_size, left, taken, n_threads):
    """Find the channels in which each pair has its output's maximum: the first one, if several have it."""
    left.fill(2**32 - 1)
    pairs = features, maxima, in_rows, out_rows, tile_ptr
    _by_tiles("find_maxima", tile_ptr, *pairs, *_sizes(tile_ptr, features), left, taken)


def return_maxima(gradient, taken, in_rows, out_rows, tile_ptr, order, tile_size, out, n_threads):
    """Add the gradient of each maximum to the input row that has it; write 0 to those that have none."""
    pairs = gradient, taken, in_rows, out_rows, tile_ptr
    target = order, np.int64(tile_size), np.int64(len(out)), out
    _by_tiles("return_maxima", tile_ptr, *pairs, *_sizes(tile_ptr, gradient), *target)


def return_segment_maxima(features, maxima, gradient, order, segment_ptr, out, n_threads):
    """Write the gradient of each maximum to its segment's first row that has it, 0 to the others."""
    sizes = np.int64(maxima.shape[0]), np.int32(maxima.shape[1])
    function = kernel("grad", "return_segment_maxima", type_name(features.dtype))
    launch(function, maxima.size, features, maxima, gradient, order, segment_ptr, *sizes, out)


def _by_tiles(name, tile_ptr, features, *arguments):
    """Run a kernel with a block for each tile."""
    function = kernel("grad", name, type_name(features.dtype))
    launch_blocks(function, tile_ptr.shape[1] - 1, _THREADS, features, *arguments)


def _sizes(tile_ptr, features):
    return np.int64(tile_ptr.shape[0]), np.int64(tile_ptr.shape[1] - 1), np.int32(features.shape[1])
