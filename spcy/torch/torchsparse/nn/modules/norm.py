"""Norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...tensor import SparseTensor
from ..utils.apply import OnFeats

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm"]


class BatchNorm(OnFeats, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` of sparse tensors."""


class _ByBatch(nn.Module):
    """A norm of (1, C, sites) tensors that takes sparse tensors, over the sites of each batch."""

    def forward(self, input: Any) -> Any:
        """Return the layer's output, on the same sites."""
        if not isinstance(input, SparseTensor):
            raise TypeError(f"input must be a SparseTensor, got {type(input).__name__}")
        batch, feats = input.batch(), input.feats
        out = torch.zeros_like(feats)
        for each in batch.unique():
            (rows,) = torch.where(batch == each)
            out = out.index_copy(0, rows, super().forward(feats[rows].t()[None])[0].t())
        return input.with_feats(out)


class GroupNorm(_ByBatch, nn.GroupNorm):
    """`torch.nn.GroupNorm` of sparse tensors, over the sites of each batch."""


class InstanceNorm(_ByBatch, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d` of sparse tensors: each channel over the sites of each batch."""
