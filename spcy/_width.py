"""Features of 16 bits, as kernels compute with them, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from ._backend import array_module, as_bits, is_half, kernels_for
from ._memory import empty
from ._threads import threads_for


def sum_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype that kernels sum features of a dtype in: of 16 bits in float32."""
    return np.dtype(np.float32) if is_half(dtype) else dtype


def widened(values: np.ndarray) -> np.ndarray:
    """Return values in a dtype that every kernel computes in: those of 16 bits as float32."""
    if not is_half(values.dtype):
        return values
    out = empty(array_module(values), values.shape, np.float32)
    if out.size:
        (bits,) = as_bits(array_module(values).ascontiguousarray(values))
        kernels_for(bits).pointwise.widen(bits.reshape(-1), out.reshape(-1), threads_for(out.size / 2))
    return out


def rounded(values: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Return values in a dtype, themselves if they are; float32 and float64 are rounded once."""
    dtype = np.dtype(dtype)
    if not is_half(dtype) or values.dtype not in (np.float32, np.float64):
        return values.astype(dtype, copy=False)
    out = empty(array_module(values), values.shape, dtype)
    if out.size:
        (bits,) = as_bits(out)
        wide = array_module(values).ascontiguousarray(values).reshape(-1)
        kernels_for(wide).pointwise.narrow(wide, bits.reshape(-1), threads_for(out.size / 2))
    return out
