"""As much of ``cumm.tensorview`` as code that calls spconv touches: arrays, wrapped."""

from __future__ import annotations

import enum
from types import SimpleNamespace
from typing import Any

import numpy as np


class Activation(enum.Enum):
    """What a convolution applies to its output."""

    None_ = 0
    ReLU = 1
    Sigmoid = 2
    LeakyReLU = 3


gemm: SimpleNamespace = SimpleNamespace(Activation=Activation)


class Tensor:
    """An array in the coat of a ``tv.Tensor``.

    Parameters
    ----------
    array : ndarray
    """

    def __init__(self, array: np.ndarray):
        self._array = np.asarray(array)

    @property
    def shape(self) -> list[int]:
        """Lengths of the axes."""
        return list(self._array.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._array.size

    def dim(self, axis: int) -> int:
        """Return the length of an axis."""
        return self._array.shape[axis]

    def numpy(self) -> np.ndarray:
        """Return a copy as an array."""
        return self._array.copy()

    def numpy_view(self) -> np.ndarray:
        """Return the array itself."""
        return self._array

    def cpu(self) -> Tensor:
        """Return the tensor: it is on the CPU."""
        return self

    def __getitem__(self, item: Any) -> Tensor:
        return Tensor(self._array[item])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype=dtype) if copy else np.asarray(self._array, dtype=dtype)


def from_numpy(array: np.ndarray) -> Tensor:
    """Return an array as a tensor, on the same memory."""
    return Tensor(array)


from_numpy_nocopy = from_numpy
