"""The hash of coordinates."""

from __future__ import annotations

import torch

__all__ = ["sphash"]

_BASIS = 14695981039346656037 - 2**64  # FNV-1a, with a coordinate for a byte, in two's complement
_PRIME = 1099511628211
_UINT32 = 2**32 - 1


def sphash(coords: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
    """Return a 60-bit number for each row of coordinates, TorchSparse's own.

    Parameters
    ----------
    coords : torch.Tensor of shape (N, 4), int32
    offsets : torch.Tensor of shape (K, 3), int32, optional
        Added to the first three columns.

    Returns
    -------
    torch.Tensor of shape (N,), int64
        With `offsets` of shape (K, N).
    """
    if coords.dim() != 2 or coords.shape[1] != 4:
        raise ValueError(f"coords must have shape (N, 4), got {tuple(coords.shape)}")
    if coords.dtype is not torch.int32:
        raise TypeError(f"coords must have dtype torch.int32, got {coords.dtype}")
    if offsets is None:
        return _hash(coords)
    if offsets.dim() != 2 or offsets.shape[1] != 3:
        raise ValueError(f"offsets must have shape (K, 3), got {tuple(offsets.shape)}")
    if offsets.dtype is not torch.int32:
        raise TypeError(f"offsets must have dtype torch.int32, got {offsets.dtype}")
    return _hash(coords + torch.nn.functional.pad(offsets, (0, 1))[:, None])


def _hash(coords: torch.Tensor) -> torch.Tensor:
    """Return the hash over the last axis."""
    number = torch.full(coords.shape[:-1], _BASIS, dtype=torch.int64, device=coords.device)
    for column in coords.unbind(dim=-1):
        number = (number ^ (column.long() & _UINT32)) * _PRIME
    return ((number >> 60) & 15) ^ (number & (2**60 - 1))
