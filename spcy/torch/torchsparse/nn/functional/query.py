"""Rows of hashes."""

from __future__ import annotations

import numpy as np
import torch

from .....hashmap import HashMap
from ...._bridge import check_tensor, contiguous_array, entering, on_device, opaque, tensor_of

__all__ = ["sphashquery"]


@opaque
def sphashquery(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return the row of each number among others.

    Parameters
    ----------
    queries : torch.Tensor of any shape, int64
    references : torch.Tensor of shape (N,), int64
        Where a number occurs more than once, its first row counts.

    Returns
    -------
    torch.Tensor of the queries' shape, int64
        -1 where a number is not there.
    """
    check_tensor(references, "references")
    check_tensor(queries, "queries", references)
    for name, value in (("queries", queries), ("references", references)):
        if value.dtype is not torch.int64:
            raise TypeError(f"{name} must have dtype torch.int64, got {value.dtype}")
    with entering(references.device), on_device(references.device):
        table = HashMap(contiguous_array(references).view(np.uint64))
        rows = table.find(contiguous_array(queries.reshape(-1)).view(np.uint64))
        return tensor_of(rows).long().view(queries.shape)
