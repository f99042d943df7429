"""Batches of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..tensor import Sparse, SparseTensor

__all__ = ["sparse_collate", "sparse_collate_fn"]


def sparse_collate(inputs: Sequence[Sparse]) -> Sparse:
    """Return tensors of single samples, whose coordinates have no batch yet, as one.

    Parameters
    ----------
    inputs : sequence of SparseTensor
        With coordinates of shape (N, 3), of the same stride.

    Returns
    -------
    SparseTensor
        Of the inputs' class; the batch is a sample's place.

    Raises
    ------
    ValueError
        If there is none, or strides differ, or coordinates have another shape.

    Examples
    --------
    >>> import torch
    >>> from spcy.torch.torchsparse import SparseTensor
    >>> from spcy.torch.torchsparse.utils.collate import sparse_collate
    >>> samples = [SparseTensor(torch.ones(1, 2), torch.tensor([[3, 4, place]])) for place in range(2)]
    >>> sparse_collate(samples).C
    tensor([[0, 3, 4, 0],
            [1, 3, 4, 1]], dtype=torch.int32)
    """
    if not inputs:
        raise ValueError("inputs must have at least one SparseTensor, got none")
    first, coords, feats = inputs[0], [], []
    for place, x in enumerate(inputs):
        if x.stride != first.stride:
            raise ValueError(
                f"inputs must have the same stride, got {first.stride} in place 0 and {x.stride} in {place}"
            )
        spatial = torch.as_tensor(x.coords)
        if spatial.dim() != 2 or spatial.shape[1] != 3:
            raise ValueError(
                f"inputs must have coords of shape (N, 3), without a batch, got {tuple(spatial.shape)} "
                f"in place {place}"
            )
        batch = torch.full((len(spatial), 1), place, dtype=torch.int32, device=spatial.device)
        parts = (spatial.int(), batch) if first.batch_last else (batch, spatial.int())
        coords.append(torch.cat(parts, dim=1))
        feats.append(torch.as_tensor(x.feats))
    return type(first)(torch.cat(feats), torch.cat(coords), first.stride)


def sparse_collate_fn(inputs: Sequence[Any]) -> Any:
    """Return samples, dicts of the same names, as one dict; other samples as they are.

    Sparse tensors are joined by `sparse_collate`, arrays and tensors are stacked, dicts are entered, and of
    anything else there is a list.
    """
    if not isinstance(inputs[0], dict):
        return inputs
    return {name: _joined([sample[name] for sample in inputs]) for name in inputs[0]}


def _joined(values: list[Any]) -> Any:
    """Return the values of one name as one."""
    first = values[0]
    if isinstance(first, dict):
        return sparse_collate_fn(values)
    if isinstance(first, SparseTensor):
        return sparse_collate(values)
    if isinstance(first, (np.ndarray, torch.Tensor)):
        return torch.stack([torch.as_tensor(value) for value in values])
    return values
