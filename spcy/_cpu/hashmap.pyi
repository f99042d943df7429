import numpy as np
from numpy.typing import NDArray

def build(keys: NDArray[np.uint64], slots: NDArray[np.uint64], bits: int, n_threads: int) -> None: ...
def find(
    slots: NDArray[np.uint64],
    bits: int,
    keys: NDArray[np.uint64],
    rows: NDArray[np.int32],
    n_threads: int,
) -> None: ...
