"""What a block of threads of a convolution computes: the fastest shapes, by arithmetic and architecture."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

CHUNK_BYTES = 16  # the unit of copies


class Block(NamedTuple):
    """Template arguments of a kernel: a tile's rows, columns, how many warps share each, and stages.

    A stage holds `chunks` chunks of the channels of each row.
    """

    rows: int
    cols: int
    warps_m: int
    warps_n: int
    stages: int
    chunks: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_m * self.warps_n

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the stages."""
        return self.stages * self.chunks * CHUNK_BYTES * (self.rows + self.cols)


def _table(*blocks: Block) -> dict[tuple[int, int], Block]:
    return {(block.rows, block.cols): block for block in blocks}


# Products by warps. Those of 64 x 64 read the least shared memory for a product.
WARPS = _table(
    Block(128, 128, 2, 2, 3, 8),
    Block(128, 64, 4, 1, 3, 4),
    Block(128, 32, 4, 1, 3, 4),
    Block(64, 128, 2, 2, 3, 8),
    Block(64, 64, 4, 1, 4, 4),
    Block(64, 32, 2, 1, 4, 4),
)
# Exact sums leave a warp registers for 64 x 32 or, in float64, half of it.
EXACT = _table(
    Block(128, 64, 4, 1, 3, 4),
    Block(128, 32, 4, 1, 3, 4),
    Block(64, 64, 2, 2, 3, 4),
    Block(64, 32, 2, 1, 3, 4),
)
# Products by warpgroups, of capability 9.0: every four warps are one.
WIDE = _table(
    Block(128, 128, 8, 1, 3, 8),
    Block(128, 64, 4, 1, 3, 8),
    Block(64, 128, 4, 1, 3, 8),
    Block(64, 64, 4, 1, 3, 8),
)
BLOCKS = {
    "Float16": WARPS,
    "Bfloat16": WARPS,
    "Tf32": WARPS,
    "Float32": EXACT,
    "Float64": {size: block for size, block in EXACT.items() if block.cols == 32},
    "WideFloat16": WIDE,
    "WideBfloat16": WIDE,
}
WIDE_CAPABILITY = 90  # ten times the compute capability of the only GPUs that have products of warpgroups
WIDE_CHANNELS = 64  # of input and output from which they pay


def arithmetic(name: str, c_in: int, c_out: int, capability: int) -> str:
    """Return how numbers of an arithmetic are multiplied best: by its own name, or the wide one."""
    wide = capability == WIDE_CAPABILITY and min(c_in, c_out) >= WIDE_CHANNELS
    return f"Wide{name}" if wide and f"Wide{name}" in BLOCKS else name


@cache
def block_for(math: str, tile_size: int, c_out: int) -> Block:
    """Return the block for tiles of a size: wide enough for the channels, or the widest."""
    widths = sorted(cols for rows, cols in BLOCKS[math] if rows == tile_size)
    return BLOCKS[math][tile_size, next((cols for cols in widths if cols >= c_out), widths[-1])]
