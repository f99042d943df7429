"""Pools over all sites of a batch."""

from __future__ import annotations

import torch

from .... import functional
from ...tensor import SparseTensor

__all__ = ["global_avg_pool", "global_max_pool"]


def global_avg_pool(inputs: SparseTensor) -> torch.Tensor:
    """Return the mean of the sites' features, (batches, C)."""
    return functional.global_avg_pool(inputs.as_spcy())


def global_max_pool(inputs: SparseTensor) -> torch.Tensor:
    """Return the greatest of the sites' features, (batches, C)."""
    return functional.global_max_pool(inputs.as_spcy())
