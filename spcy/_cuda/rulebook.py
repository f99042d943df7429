"""Cut the pairs of a rulebook into tiles; `builders` finds them."""

import numpy as np

from ._kernel import kernel, launch


def cut_tiles(out_rows, offset_ptr, rank, tile_size, tile_ptr, n_threads):
    """Write where the pairs of each tile of output ranks begin, under each offset."""
    sizes = np.int64(tile_size), *map(np.int64, tile_ptr.shape)
    launch(kernel("rulebook", "cut_tiles"), tile_ptr.size, out_rows, offset_ptr, rank, *sizes, tile_ptr)
