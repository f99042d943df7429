from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)

BLOCK: int

def cross_entropy(
    logits: NDArray[_Number],
    target: NDArray[np.int32],
    share: NDArray[np.float64],
    losses: NDArray[np.float64],
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
