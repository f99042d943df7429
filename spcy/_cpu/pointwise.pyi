from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float32, np.float64, np.uint16, np.int16)
_Floating = TypeVar("_Floating", np.float32, np.float64)
_Half = TypeVar("_Half", np.uint16, np.int16)

def activate(x: NDArray[_Number], kind: int, slope: float, out: NDArray[_Number], n_threads: int) -> None: ...
def activation_gradient(
    x: NDArray[_Number],
    dy: NDArray[_Number],
    kind: int,
    slope: float,
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
def combine(
    x: NDArray[_Number],
    y: NDArray[_Number] | None,
    operation: int,
    other: float,
    out: NDArray[_Number],
    n_threads: int,
) -> None: ...
def widen(x: NDArray[_Half], out: NDArray[np.float32], n_threads: int) -> None: ...
def narrow(x: NDArray[_Floating], out: NDArray[_Half], n_threads: int) -> None: ...
