from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Wide = TypeVar("_Wide", np.float32, np.float64)
_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)

BLOCK: int

def moments(x: NDArray[_Number], sums: NDArray[np.float64], n_threads: int) -> None: ...
def apply(
    x: NDArray[_Number],
    centre: NDArray[_Wide],
    scale: NDArray[_Wide],
    shift: NDArray[_Wide],
    kind: int,
    leak: float,
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
def gradient_sums(
    x: NDArray[_Number],
    dy: NDArray[_Number],
    centre: NDArray[_Wide],
    scale: NDArray[_Wide],
    shift: NDArray[_Wide],
    kind: int,
    leak: float,
    before: NDArray[_Number] | None,
    sums: NDArray[np.float64],
    n_threads: int,
) -> None: ...
def gradient(
    x: NDArray[_Number],
    dy: NDArray[_Number],
    centre: NDArray[_Wide],
    mean: NDArray[_Wide],
    slope: NDArray[_Wide],
    scale: NDArray[_Wide],
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
def layer(
    x: NDArray[_Number],
    weight: NDArray[_Wide],
    bias: NDArray[_Wide],
    eps: float,
    moments: NDArray[_Wide],
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
def layer_gradient(
    x: NDArray[_Number],
    dy: NDArray[_Number],
    weight: NDArray[_Wide],
    moments: NDArray[_Wide],
    out: NDArray[_Number],
    sums: NDArray[np.float64],
    n_threads: int,
) -> None: ...
