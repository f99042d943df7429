"""Build and search the coordinate hash: key -> row."""

import numpy as np

from ._kernel import kernel, launch


def build(keys, slots, bits, n_threads):
    """Fill `slots` with (key, least row of the key)."""
    slots.fill(np.uint64(0xFFFFFFFFFFFFFFFF))
    launch(kernel("hashmap", "build"), len(keys), keys, np.int64(len(keys)), slots, np.int32(bits))


def find(slots, bits, keys, rows, n_threads):
    """Write the row of each key, or -1."""
    launch(kernel("hashmap", "find"), len(keys), slots, np.int32(bits), keys, np.int64(len(keys)), rows)
