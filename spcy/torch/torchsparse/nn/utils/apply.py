"""Functions of features, on sparse tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...tensor import Sparse, SparseTensor

__all__ = ["fapply"]


def fapply(input: Sparse, fn: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Sparse:
    """Return a tensor on the same sites whose features are ``fn(input.feats, ..)``."""
    if not isinstance(input, SparseTensor):
        raise TypeError(f"input must be a SparseTensor, got {type(input).__name__}")
    return input.with_feats(fn(input.feats, *args, **kwargs))


class OnFeats(nn.Module):
    """A layer of PyTorch that takes sparse tensors."""

    def forward(self, input: Any) -> Any:
        """Return the layer's output, on the same sites."""
        return fapply(input, super().forward)
