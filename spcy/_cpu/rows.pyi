import numpy as np
from numpy.typing import NDArray

def take(
    source: NDArray[np.uint8],
    first: int,
    rows: NDArray[np.int32] | None,
    out: NDArray[np.uint8],
    place: int,
    num_bytes: int,
    n_threads: int,
) -> None: ...
