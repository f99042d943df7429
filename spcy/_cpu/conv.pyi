from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)

class Tiles:
    def __init__(
        self,
        in_rows: NDArray[np.int32],
        out_rows: NDArray[np.int32],
        tile_ptr: NDArray[np.int64],
        order: NDArray[np.int32] | None,
        rank: NDArray[np.int32] | None,
        tile_size: int,
        n_out: int,
    ) -> None: ...
    def scratch_bytes(
        self,
        dtype: np.dtype[Any],
        c_in: int,
        c_out: int,
        groups: int,
        n_threads: int,
    ) -> int: ...

def conv(
    tiles: Tiles,
    features: NDArray[_Number],
    weight: NDArray[_Number],
    bias: NDArray[_Number] | None,
    residual: NDArray[_Number] | None,
    out: NDArray[_Number],
    activation: int,
    slope: float,
    scratch: NDArray[np.int8],
    groups: int,
    n_threads: int,
) -> None: ...
