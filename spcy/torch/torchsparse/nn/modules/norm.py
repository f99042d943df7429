"""Norms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ...tensor import SparseTensor
from ..utils import fapply

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm"]


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` of sparse tensors."""

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the layer's output."""
        return fapply(input, super().forward)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` of sparse tensors, over the sites of each batch."""

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the layer's output."""
        return _by_batch(input, super().forward)


class InstanceNorm(nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d` of sparse tensors: each channel over the sites of each batch."""

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the layer's output."""
        return _by_batch(input, super().forward)


def _by_batch(input: SparseTensor, norm: Callable[[torch.Tensor], torch.Tensor]) -> SparseTensor:
    """Return what a norm of (1, C, sites) tensors makes of the sites of each batch."""
    batch, feats = input.batch(), input.feats
    out = torch.zeros_like(feats)
    for each in batch.unique():
        (rows,) = torch.where(batch == each)
        out = out.index_copy(0, rows, norm(feats[rows].t()[None])[0].t())
    return input.with_feats(out)
