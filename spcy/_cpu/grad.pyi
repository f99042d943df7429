from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)
_Floating = TypeVar("_Floating", np.float32, np.float64)

def num_chunks(
    n_pairs: int,
    n_offsets: int,
    n_tiles: int,
    c_in: int,
    c_out: int,
    groups: int,
    dtype: np.dtype[Any],
) -> int: ...
def scratch_bytes(
    dtype: np.dtype[Any],
    n_offsets: int,
    c_in: int,
    c_out: int,
    groups: int,
    n_chunks: int,
    n_threads: int,
) -> int: ...
def weight_gradient(
    features: NDArray[_Number],
    gradient: NDArray[_Number],
    in_rows: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    tile_ptr: NDArray[np.int64],
    groups: int,
    n_chunks: int,
    out: NDArray[_Number],
    scratch: NDArray[np.int8],
    n_threads: int,
) -> None: ...
def find_maxima(
    features: NDArray[_Floating],
    maxima: NDArray[_Floating],
    in_rows: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    tile_ptr: NDArray[np.int64],
    order: NDArray[np.int32] | None,
    tile_size: int,
    left: NDArray[np.uint32],
    taken: NDArray[np.uint32],
    n_threads: int,
) -> None: ...
def return_maxima(
    gradient: NDArray[_Floating],
    taken: NDArray[np.uint32],
    in_rows: NDArray[np.int32],
    out_rows: NDArray[np.int32],
    tile_ptr: NDArray[np.int64],
    order: NDArray[np.int32] | None,
    tile_size: int,
    out: NDArray[_Floating],
    n_threads: int,
) -> None: ...
def return_segment_maxima(
    features: NDArray[_Floating],
    maxima: NDArray[_Floating],
    gradient: NDArray[_Floating],
    order: NDArray[np.int32] | None,
    segment_ptr: NDArray[np.int64],
    out: NDArray[_Floating],
    n_threads: int,
) -> None: ...
