"""Cut the pairs of a rulebook into the tiles that a convolution executes: launches `src/cuda/plan.cu`."""

from __future__ import annotations

from functools import cached_property

import cupy
import numpy as np

from ._kernel import kernel, launch, launch_blocks, multiprocessors

TILE_SIZES = (128, 64)
TILES_PER_SM = 4  # for which a tile may be large
BLOCKS_PER_SM = 4  # below which offsets are split
MAX_SPLITS = 16
MIN_SPLIT_STEPS = 3  # that are worth a block
ROOM = 1 << 23  # rows of steps for which there may be room without knowing their number: 32 MB
_SCAN = 1024  # threads of the block that adds up the steps
_THREADS = 256
_RANK_BLOCKS = 512  # each of which sorts the offsets


def tile_size_for(channels: int, num_out: int, threads: int) -> int:
    """Return the output rows of a tile: large ones read the weight seldom, but every SM must have some."""
    for size in TILE_SIZES[:-1]:
        if -(-num_out // size) * -(-channels // 128) >= TILES_PER_SM * multiprocessors():
            return size
    return TILE_SIZES[-1]


class Tiles:
    """The pairs of a rulebook as steps of tiles: for a tile and an offset, the input row of each output row.

    Output rows are sorted by the offsets they have, and a tile has no step for an offset that none of its
    rows has. Per output row this takes 4 bytes, and 4 more for each step of its tile.
    """

    def __init__(
        self,
        in_rows: cupy.ndarray,  # (pairs,), int32
        out_rows: cupy.ndarray,  # (pairs,), int32
        tile_ptr: cupy.ndarray,  # (K, tiles + 1), int64: only its first column is read
        order: cupy.ndarray | None,  # the row of each output rank
        rank: cupy.ndarray | None,  # the rank of each output row: not read
        tile_size: int,
        n_out: int,
    ):
        self.n_out = n_out
        self.prepared: dict = {}  # launches, by the numbers and channels that they are for
        self.tile_size = max((size for size in TILE_SIZES if size <= tile_size), default=TILE_SIZES[-1])
        self.n_tiles = -(-n_out // self.tile_size)
        n_pairs, n_offsets = len(in_rows), len(tile_ptr)
        # Of a tile, guessed: 11 for 12.2 on a lidar cloud, 1 for 1.08 of sites drawn at random.
        self.likely_steps = min(n_offsets, 2 * n_pairs // max(n_out, 1) - 1)
        words = -(-n_offsets // 64)
        offsets = tile_ptr, np.int64(tile_ptr.shape[1]), np.int32(n_offsets), np.int64(n_pairs)
        masks = cupy.zeros((n_out, words), np.uint64)
        launch(kernel("plan", "mark_rows"), n_pairs, out_rows, *offsets, masks)
        by_mask = _sorted_by_mask(masks, order, offsets, n_offsets)

        tiles, size = np.int64(self.n_tiles), np.int32(self.tile_size)
        self.rows = cupy.empty(self.n_tiles * self.tile_size, np.int32)
        positions = cupy.empty(n_out, np.int32)
        tile_masks = cupy.empty((self.n_tiles, words), np.uint64)
        counts = cupy.empty(self.n_tiles, np.int32)
        rows = masks, order, by_mask, np.int32(n_offsets), np.int64(n_out), size, tiles
        found = self.rows, positions, tile_masks, counts
        launch_blocks(kernel("plan", "fill_tiles"), self.n_tiles, self.tile_size, *rows, *found)
        self.step_ptr = cupy.empty(self.n_tiles + 1, np.int64)
        launch_blocks(kernel("plan", "scan_steps"), 1, _SCAN, counts, tiles, self.step_ptr)

        room = min(self.n_tiles * n_offsets, n_pairs)  # every step has a pair
        if room * self.tile_size > ROOM:
            room = self.n_steps
        self.step_offset = cupy.empty(room, np.int32)
        self.step_groups = cupy.empty(room, np.uint32)
        self.step_rows = cupy.empty((room, self.tile_size), np.int32)
        steps = tile_masks, self.step_ptr, np.int32(n_offsets), tiles, size
        listed = self.step_offset, self.step_groups, self.step_rows
        launch_blocks(kernel("plan", "list_steps"), self.n_tiles, _THREADS, *steps, *listed)
        filled = positions, tile_masks, self.step_ptr, size, *listed[1:]
        launch(kernel("plan", "fill_steps"), n_pairs, in_rows, out_rows, *offsets, *filled)

    @cached_property
    def n_steps(self) -> int:
        """The number of steps; the host waits for it, once."""
        return int(self.step_ptr[-1])

    def splits(self, c_out: int) -> int:
        """Return among how many blocks the steps of a tile are split: where tiles are few."""
        wanted = BLOCKS_PER_SM * multiprocessors() // max(self.n_tiles * -(-c_out // 64), 1)
        return max(1, min(wanted, MAX_SPLITS, self.likely_steps // MIN_SPLIT_STEPS))

    def scratch_bytes(self, dtype: np.dtype, c_in: int, c_out: int, groups: int, n_threads: int) -> int:
        """Return how much scratch `conv` needs: the parts of the sums, where steps are split."""
        c_out //= groups
        splits = self.splits(c_out)
        return splits * self.n_out * c_out * max(dtype.itemsize, 4) if splits > 1 else 0


def _sorted_by_mask(masks, order, offsets, n_offsets: int) -> cupy.ndarray:
    """Return the ranks of output rows, those with the same offsets together; among them, the order stays."""
    n_out, words = masks.shape
    place = ("uint32_t", np.uint32) if n_offsets <= 32 else ("uint64_t", np.uint64)
    places = cupy.empty((words, n_out), place[1])
    blocks, shared_bytes = min(-(-n_out // _THREADS), _RANK_BLOCKS), 4 * n_offsets
    rank = kernel("plan", "rank_masks", place[0])
    arguments = masks, order, *offsets, np.int64(n_out), places
    launch_blocks(rank, blocks, _THREADS, *arguments, shared_bytes=shared_bytes)
    by_mask = cupy.argsort(places[-1], kind="stable")
    for word in range(words - 2, -1, -1):
        by_mask = by_mask[cupy.argsort(places[word][by_mask], kind="stable")]
    return by_mask
