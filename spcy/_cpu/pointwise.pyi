from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)

def activate(x: NDArray[_Number], kind: int, slope: float, out: NDArray[_Number], n_threads: int) -> None: ...
def activation_gradient(
    x: NDArray[_Number],
    dy: NDArray[_Number],
    kind: int,
    slope: float,
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
