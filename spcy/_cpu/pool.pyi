from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Reduced = TypeVar("_Reduced", np.float32, np.float64)
_Floating = TypeVar("_Floating", np.float32, np.float64)
_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)
_Pooled = TypeVar("_Pooled", np.float32, np.float64, np.uint16, np.int16)

def pool(
    features: NDArray[_Number],
    in_rows: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    tile_ptr: NDArray[np.int64],
    order: NDArray[np.int32] | None,
    tile_size: int,
    operation: int,
    counts: NDArray[np.int32] | None,
    out: NDArray[_Pooled],
    n_threads: int,
) -> None: ...
def count_pairs_per_row(
    out_rows: NDArray[np.int32],
    tile_ptr: NDArray[np.int64],
    counts: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def segment_reduce(
    features: NDArray[_Floating],
    order: NDArray[np.int32] | None,
    segment_ptr: NDArray[np.int64],
    operation: int,
    out: NDArray[_Reduced],
    n_threads: int,
) -> None: ...
def segment_sums(
    values: NDArray[_Floating],
    lows: NDArray[np.float64] | None,
    order: NDArray[np.int32] | None,
    segment_ptr: NDArray[np.int64],
    mean: bool,
    out: NDArray[_Reduced],
    out_lows: NDArray[np.float64] | None,
    loose: NDArray[np.int32],
    n_threads: int,
) -> None: ...
