"""Features of voxels at points."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["calc_ti_weights", "spdevoxelize"]


def calc_ti_weights(coords: torch.Tensor, idx_query: torch.Tensor, scale: float = 1) -> torch.Tensor:
    """Return the trilinear weights of the 8 voxels around each point.

    Parameters
    ----------
    coords : torch.Tensor of shape (N, 3), floating point
        The points; further columns are left out.
    idx_query : torch.Tensor of shape (N, 8)
        The rows of the voxels, z fastest, -1 for none: its weight is 0, and the others sum to 1.
    scale : float
        Edge of a voxel.

    Returns
    -------
    torch.Tensor of shape (N, 8)
    """
    if idx_query.shape != (len(coords), 8):
        hint = ": transpose it" if idx_query.shape == (8, len(coords)) else ""
        raise ValueError(
            f"idx_query must have shape (N, 8) for N = {len(coords)} points, "
            f"got {tuple(idx_query.shape)}{hint}"
        )
    with torch.no_grad():
        within = coords[:, :3] / scale
        far = within - torch.floor(within)
        x, y, z = torch.stack([1 - far, far], dim=-1).unbind(dim=1)
        weights = (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).reshape(-1, 8)
        weights = weights.masked_fill(idx_query == -1, 0)
        return weights / (weights.sum(dim=1, keepdim=True) + 1e-8)


def spdevoxelize(feats: torch.Tensor, coords: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return weighted sums of rows.

    Parameters
    ----------
    feats : torch.Tensor of shape (N, C)
    coords : torch.Tensor of shape (M, J), integer
        Rows of `feats`, -1 for none.
    weights : torch.Tensor of shape (M, J)
        As in TorchSparse, no gradient reaches them.

    Returns
    -------
    torch.Tensor of shape (M, C)
    """
    if coords.dim() != 2 or coords.shape != weights.shape:
        raise ValueError(
            f"coords and weights must have the same shape (M, J), got {tuple(coords.shape)} and "
            f"{tuple(weights.shape)}"
        )
    if not len(feats):
        return feats.new_zeros(len(coords), feats.shape[1])
    weights = weights.detach().to(feats.dtype).masked_fill(coords < 0, 0)
    return functional.embedding_bag(coords.clamp(min=0).long(), feats, mode="sum", per_sample_weights=weights)
