"""Build and search the coordinate hash: key -> row."""

import numpy as np

from ._kernel import kernel, launch


def build(keys, slots, bits, n_threads):
    """Fill `slots` with (key, least row of the key)."""
    empty(slots)
    launch(kernel("hashmap", "build"), len(keys), keys, np.int64(len(keys)), slots, np.int32(bits))


def empty(slots):
    """Empty all slots: they become ones."""
    slots.data.memset_async(0xFF, slots.nbytes)


def find(slots, bits, keys, rows, n_threads):
    """Write the row of each key, or -1."""
    launch(kernel("hashmap", "find"), len(keys), slots, np.int32(bits), keys, np.int64(len(keys)), rows)
