"""Small functions that code around TorchSparse calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .... import _check

__all__ = ["make_divisible", "make_ntuple", "make_tensor"]

Ints = tuple[int, ...]


def make_ntuple(
    x: int | Sequence[int] | np.ndarray | torch.Tensor, ndim: int, name: str = "x", least: int | None = None
) -> Ints:
    """Return an int for each of `ndim` axes, as a tuple."""
    least = _check.INT32.min if least is None else least
    if (
        type(x) is tuple
        and len(x) == ndim
        and {*map(type, x)} == {int}
        and least <= min(x)
        and max(x) <= _check.INT32.max
    ):
        return x  # what it is most often: a call costs little
    if isinstance(x, (torch.Tensor, np.ndarray)):
        values: Any = x.reshape(-1).tolist() if x.ndim else x.item()
        return _check.per_axis(values, ndim, name, least)
    return _check.per_axis(x, ndim, name, least)


def make_tensor(x: Sequence[int], dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Return numbers as a tensor."""
    return torch.tensor(x, dtype=dtype, device=device)


def make_divisible(x: int, divisor: int) -> int:
    """Return the least multiple of a divisor that is no less than a number."""
    return -(-x // divisor) * divisor
