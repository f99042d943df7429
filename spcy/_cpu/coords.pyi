from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Value = TypeVar("_Value", np.int32, np.float32, np.float64)
_Floating = TypeVar("_Floating", np.float32, np.float64)

CHUNK: int

def bounds(values: NDArray[_Value], found: NDArray[_Value], n_threads: int) -> None: ...
def pack(
    indices: NDArray[np.int32],
    low: NDArray[np.int64],
    shift: NDArray[np.int64],
    keys: NDArray[np.uint64],
    n_threads: int,
) -> None: ...
def pack_inside(
    indices: NDArray[np.int32],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    shift: NDArray[np.int64],
    keys: NDArray[np.uint64],
    n_threads: int,
) -> None: ...
def unpack(
    keys: NDArray[np.uint64],
    low: NDArray[np.int64],
    shift: NDArray[np.int64],
    indices: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def repack(
    keys: NDArray[np.uint64],
    low0: NDArray[np.int64],
    shift0: NDArray[np.int64],
    low1: NDArray[np.int64],
    shift1: NDArray[np.int64],
    out: NDArray[np.uint64],
    n_threads: int,
) -> None: ...
def count_descents(keys: NDArray[np.uint64], n_threads: int) -> int: ...
def sort(
    keys: NDArray[np.uint64],
    rows: NDArray[np.int32],
    spare_keys: NDArray[np.uint64],
    spare_rows: NDArray[np.int32],
    counts: NDArray[np.int64],
    bits: int,
    digit_bits: int,
    n_threads: int,
) -> bool: ...
def count_runs(keys: NDArray[np.uint64], counts: NDArray[np.int64], n_threads: int) -> None: ...
def fill_runs(
    keys: NDArray[np.uint64],
    chunk_ptr: NDArray[np.int64],
    starts: NDArray[np.int64],
    unique: NDArray[np.uint64],
    n_threads: int,
) -> None: ...
def spread_runs(
    starts: NDArray[np.int64],
    order: NDArray[np.int32],
    rows: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def cell_keys(
    points: NDArray[_Floating],
    batch: NDArray[np.int32] | None,
    origin: NDArray[np.float64],
    voxel_size: NDArray[np.float64],
    between: bool,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    layout_low: NDArray[np.int64],
    shift: NDArray[np.int64],
    none: int,
    keys: NDArray[np.uint64],
    fractions: NDArray[np.float64] | None,
    state: NDArray[np.uint8],
    n_threads: int,
) -> None: ...
