from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Floating = TypeVar("_Floating", np.float32, np.float64)
_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)

def rows(
    queries: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    shift: NDArray[np.int64],
    back: bool,
    order: NDArray[np.int32] | None,
    rows: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def interpolate(
    features: NDArray[_Number],
    rows: NDArray[np.int32],
    order: NDArray[np.int32],
    starts: NDArray[np.int64],
    fractions: NDArray[np.float64],
    renormalize: bool,
    totals: NDArray[np.float64] | None,
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
def interpolate_gradient(
    gradient: NDArray[_Floating],
    order: NDArray[np.int32],
    starts: NDArray[np.int64],
    fractions: NDArray[np.float64],
    totals: NDArray[np.float64] | None,
    around: NDArray[np.int32],
    site_order: NDArray[np.int32] | None,
    out: NDArray[_Floating],
    n_threads: int,
) -> None: ...
