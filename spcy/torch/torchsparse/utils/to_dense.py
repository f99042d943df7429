"""Dense tensors of sparse ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .utils import make_ntuple

__all__ = ["to_dense"]


def to_dense(feats: torch.Tensor, coords: torch.Tensor, spatial_range: Sequence[int]) -> torch.Tensor:
    r"""Return features as a dense tensor, zero where there is no site.

    Parameters
    ----------
    feats : torch.Tensor of shape (N, C)
    coords : torch.Tensor of shape (N, 4)
        The batch, then x, y, z.
    spatial_range : sequence of 4 ints
        Number of batches, then the extent along x, y, z.

    Returns
    -------
    torch.Tensor of shape (\*spatial_range, C)

    Raises
    ------
    ValueError
        If coordinates lie beyond the range; the message names the row.
    """
    size = make_ntuple(spatial_range, ndim=4, name="spatial_range", least=1)
    outside = ((coords < 0) | (coords >= torch.tensor(size, device=coords.device))).any(dim=1)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"coords must lie in [0, spatial_range) for spatial_range {size}, got {coords[row].tolist()} "
            f"in row {row}"
        )
    cells = coords[:, 0].long()
    for axis in (1, 2, 3):
        cells = cells * size[axis] + coords[:, axis]
    dense = feats.new_zeros(math.prod(size), feats.shape[1])
    return dense.index_copy(0, cells, feats).view(*size, feats.shape[1])
