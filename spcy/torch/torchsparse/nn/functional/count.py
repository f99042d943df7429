"""Counts."""

import torch

__all__ = ["spcount"]


def spcount(coords: torch.Tensor, num: int) -> torch.Tensor:
    """Return how often each of the rows 0 .. num - 1 occurs, int32; negative ones are left out."""
    rows = coords.reshape(-1).long()
    return torch.bincount(rows[rows >= 0], minlength=num).int()
