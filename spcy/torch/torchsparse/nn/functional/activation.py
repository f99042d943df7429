"""Activations of sparse tensors."""

from __future__ import annotations

from torch.nn import functional

from ...tensor import Sparse
from ..utils import fapply

__all__ = ["leaky_relu", "relu", "silu"]


def relu(input: Sparse, inplace: bool = True) -> Sparse:
    """Return ``max(x, 0)`` of each feature."""
    return fapply(input, functional.relu, inplace=inplace)


def silu(input: Sparse, inplace: bool = True) -> Sparse:
    """Return ``x * sigmoid(x)`` of each feature."""
    return fapply(input, functional.silu, inplace=inplace)


def leaky_relu(input: Sparse, negative_slope: float = 0.1, inplace: bool = True) -> Sparse:
    """Return x of each feature, times a slope where it is negative."""
    return fapply(input, functional.leaky_relu, negative_slope=negative_slope, inplace=inplace)
