from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Floating = TypeVar("_Floating", np.float32, np.float64)
_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)

def ranks(
    queries: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    shift: NDArray[np.int64],
    ranks: NDArray[np.int32],
    n_threads: int,
) -> None: ...
def interpolate(
    features: NDArray[_Number],
    ranks: NDArray[np.int32],
    site_order: NDArray[np.int32] | None,
    order: NDArray[np.int32],
    starts: NDArray[np.int64],
    fractions: NDArray[np.float64],
    renormalize: bool,
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
def interpolate_gradient(
    gradient: NDArray[_Number],
    ranks: NDArray[np.int32],
    site_order: NDArray[np.int32] | None,
    order: NDArray[np.int32],
    starts: NDArray[np.int64],
    fractions: NDArray[np.float64],
    renormalize: bool,
    out: NDArray[_Floating],
    n_threads: int,
) -> None: ...
