"""Means of the features of points."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["spvoxelize"]


def spvoxelize(feats: torch.Tensor, coords: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the sums of the features of points by voxel, each divided by a count.

    Parameters
    ----------
    feats : torch.Tensor of shape (N, C)
    coords : torch.Tensor of shape (N,), integer
        The voxel of each point, -1 for none.
    counts : torch.Tensor of shape (M,), integer
        Points of each voxel: `spcount(coords, M)`.

    Returns
    -------
    torch.Tensor of shape (M, C)
        Zero where the count is.
    """
    if coords.shape != feats.shape[:1]:
        raise ValueError(f"coords must have shape ({len(feats)},), one per point, got {tuple(coords.shape)}")
    rows = coords.long()
    if len(rows) and int(rows.max()) >= len(counts):
        raise ValueError(
            f"coords must be less than {len(counts)}, the length of counts, got {int(rows.max())}"
        )
    order = torch.argsort(rows, stable=True)
    bounds = torch.searchsorted(rows[order], torch.arange(len(counts) + 1, device=rows.device))
    if not len(rows) or not len(counts):
        return feats.new_zeros(len(counts), feats.shape[1]) + 0 * feats.sum()
    # Voxel m has the points order[bounds[m] : bounds[m + 1]]; those of none come first, and are in no bag.
    inside = order[int(bounds[0]) :]
    sums = functional.embedding_bag(inside, feats, bounds[:-1] - bounds[0], mode="sum")
    return sums / counts.clamp(min=1).to(feats.dtype)[:, None]
