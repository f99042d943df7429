"""Pools over all sites of a batch."""

import torch
from torch import nn

from ...tensor import SparseTensor
from .. import functional

__all__ = ["GlobalAvgPool", "GlobalMaxPool"]


class GlobalAvgPool(nn.Module):
    """The mean of the sites' features, (batches, C)."""

    def forward(self, input: SparseTensor) -> torch.Tensor:
        """Return the layer's output."""
        return functional.global_avg_pool(input)


class GlobalMaxPool(nn.Module):
    """The greatest of the sites' features, (batches, C)."""

    def forward(self, input: SparseTensor) -> torch.Tensor:
        """Return the layer's output."""
        return functional.global_max_pool(input)
