"""Rows of any numbers, as bytes."""

import math

import numpy as np

from ._kernel import kernel, launch

_WORDS = {
    8: ("uint64_t", np.uint64),
    4: ("uint32_t", np.uint32),
    2: ("uint16_t", np.uint16),
    1: ("uint8_t", np.uint8),
}


def take(source, first, rows, out, place, num_bytes, n_threads):
    """Write to each row of `out`, from a place on, bytes of a row of the source."""
    places = source.data.ptr, out.data.ptr, source.shape[1], out.shape[1], first, place, num_bytes
    size = math.gcd(8, *places)
    name, dtype = _WORDS[size]
    source, out = source.view(dtype), out.view(dtype)
    count, words = len(out), num_bytes // size
    taken = source, np.int64(source.shape[1]), np.int64(first // size), rows, np.int64(count), np.int64(words)
    to = out, np.int64(out.shape[1]), np.int64(place // size)
    launch(kernel("rows", "take", name), count * words, *taken, *to)
