import numpy as np
from numpy.typing import NDArray

CHUNK: int

def count_pairs(
    queries: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    line_first: NDArray[np.int64],
    line_ptr: NDArray[np.int64],
    met: NDArray[np.int32],
    counts: NDArray[np.int64],
    n_threads: int,
) -> None: ...
def fill_pairs(
    queries: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    line_first: NDArray[np.int64],
    line_ptr: NDArray[np.int64],
    met: NDArray[np.int32],
    places: NDArray[np.int64],
    in_order: NDArray[np.int32] | None,
    out_order: NDArray[np.int32] | None,
    in_rows: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    ranks: NDArray[np.int32],
    counts: NDArray[np.int64],
    n_threads: int,
) -> None: ...

class Reach:
    def __init__(
        self,
        columns: NDArray[np.int64],
        divide: bool,
        residue_ptr: NDArray[np.int64],
        residues: NDArray[np.int64],
        head_ids: NDArray[np.int64],
        head_ptr: NDArray[np.int64],
        head_low: NDArray[np.int64],
        head_high: NDArray[np.int64],
        line_steps: NDArray[np.int64],
        line_spans: NDArray[np.int64],
        tail_ptr: NDArray[np.int64],
        entry_steps: NDArray[np.int64],
        entry_offsets: NDArray[np.int64],
        runs: NDArray[np.uint64],
        n_runs: NDArray[np.int32],
        places: NDArray[np.int32],
    ) -> None: ...
    @property
    def scratch_size(self) -> int: ...

def count_reached(
    reach: Reach,
    keys: NDArray[np.uint64],
    scratch: NDArray[np.uint64],
    counts: NDArray[np.int64],
    candidates: NDArray[np.int64],
    n_threads: int,
) -> None: ...
def fill_reached(
    reach: Reach,
    keys: NDArray[np.uint64],
    scratch: NDArray[np.uint64],
    places: NDArray[np.int64],
    blocks: NDArray[np.uint64],
    cells: NDArray[np.uint64],
    n_threads: int,
) -> None: ...
def merge_blocks(
    blocks: NDArray[np.uint64],
    order: NDArray[np.int32],
    cells: NDArray[np.uint64],
    counts: NDArray[np.int64],
    n_threads: int,
) -> None: ...
def fill_outputs(
    blocks: NDArray[np.uint64],
    order: NDArray[np.int32],
    cells: NDArray[np.uint64],
    places: NDArray[np.int64],
    low: NDArray[np.int64],
    shift: NDArray[np.int64],
    ranks: NDArray[np.int32],
    keys: NDArray[np.uint64],
    indices: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def fill_reached_pairs(
    reach: Reach,
    keys: NDArray[np.uint64],
    scratch: NDArray[np.uint64],
    candidate_places: NDArray[np.int64],
    cells: NDArray[np.uint64],
    ranks: NDArray[np.int32],
    order: NDArray[np.int32] | None,
    places: NDArray[np.int64],
    in_rows: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def mirror_pairs(
    offset_ptr: NDArray[np.int64],
    in_rows: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def cut_tiles(
    out_rows: NDArray[np.int32],
    offset_ptr: NDArray[np.int64],
    rank: NDArray[np.int32] | None,
    tile_size: int,
    tile_ptr: NDArray[np.int64],
    n_threads: int,
) -> None: ...
