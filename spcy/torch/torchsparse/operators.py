"""Operations on several sparse tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .tensor import Sparse, SparseTensor, require_same_sites

__all__ = ["cat", "generative_add"]


def cat(inputs: Sparse | Sequence[Sparse]) -> Sparse:
    """Return tensors on the same sites joined along their channels.

    Parameters
    ----------
    inputs : SparseTensor or sequence of them

    Returns
    -------
    SparseTensor

    Raises
    ------
    ValueError
        If the sites differ; the message names the row.

    Examples
    --------
    >>> import torch
    >>> from spcy.torch.torchsparse import SparseTensor, cat
    >>> x = SparseTensor(torch.ones(1, 2), torch.tensor([[0, 3, 4, 5]], dtype=torch.int32))
    >>> cat([x, x]).F.shape
    torch.Size([1, 4])
    """
    tensors = [inputs] if isinstance(inputs, SparseTensor) else list(inputs)
    if not tensors:
        raise ValueError("inputs must have at least one SparseTensor, got none")
    require_same_sites(tensors, "inputs")
    return tensors[0].with_feats(torch.cat([x.feats for x in tensors], dim=1))


def generative_add(a: Sparse, b: Sparse) -> Sparse:
    """Return the sum of two tensors over the union of their sites, in ascending order of coordinates."""
    if a.stride != b.stride:
        raise ValueError(f"b must have the stride of a, {a.stride}, got {b.stride}")
    larger, other = (a, b) if len(a.feats) >= len(b.feats) else (b, a)
    coords, rows = torch.unique(torch.cat([larger.C, other.C]), dim=0, return_inverse=True)
    feats = torch.cat([larger.F, other.F])
    total = feats.new_zeros(len(coords), feats.shape[1]).index_add(0, rows, feats)
    made = larger.with_rows(total, coords)
    made._caches = larger._caches
    return made
