"""Points to cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["sparse_quantize"]


def sparse_quantize(
    coords: ArrayLike,
    voxel_size: float | Sequence[float] = 1,
    *,
    return_index: bool = False,
    return_inverse: bool = False,
) -> np.ndarray | list[np.ndarray]:
    """Return the cells that points occupy, in ascending order.

    Parameters
    ----------
    coords : array_like of shape (N, 3)
    voxel_size : float or sequence of 3 floats
        Edges of a cell.
    return_index : bool
        Also return the first point of each cell.
    return_inverse : bool
        Also return the cell of each point.

    Returns
    -------
    cells : ndarray of shape (M, 3), int32
    indices : ndarray of shape (M,), int64
        With `return_index`.
    inverse : ndarray of shape (N,), int64
        With `return_inverse`.

    Raises
    ------
    ValueError
        If a size is not positive, or a cell has no int32; the message names the point.

    Examples
    --------
    >>> from spcy.torch.torchsparse.utils.quantize import sparse_quantize
    >>> sparse_quantize([[0.3, 0.0, 0.1], [0.9, 0.0, 0.1], [0.31, 0.0, 0.1]], 0.2, return_index=True)
    [array([[1, 0, 0],
           [4, 0, 0]], dtype=int32), array([0, 1])]
    """
    coords = np.asarray(coords)
    if coords.ndim != 2 or not coords.shape[1]:
        raise ValueError(f"coords must have shape (N, 3), got {coords.shape}")
    size = np.asarray(voxel_size, np.float64)
    if size.shape not in ((), (coords.shape[1],)) or not (size > 0).all():
        raise ValueError(
            f"voxel_size must be a positive number, or {coords.shape[1]} of them, got {voxel_size!r}"
        )
    cells = np.floor(coords / size)
    bad = ~(np.abs(cells) < 2**31).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"coords must lie in cells that fit in int32, got {coords[row].tolist()} in row {row}"
        )
    cells = cells.astype(np.int32)
    _, indices, inverse = np.unique(_numbers(cells), return_index=True, return_inverse=True)
    found = [cells[indices]] + [indices] * return_index + [inverse.reshape(-1)] * return_inverse
    return found[0] if len(found) == 1 else found


def _numbers(cells: np.ndarray) -> np.ndarray:
    """Return a number for each cell, ascending as cells do."""
    if not len(cells):
        return np.zeros(0, np.int64)
    low = cells.min(axis=0).astype(np.int64)
    spans = (cells.max(axis=0) - low + 1).tolist()
    if math.prod(spans) >= 2**63:  # the numbers would not fit
        return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
    numbers = np.zeros(len(cells), np.int64)
    for axis, span in enumerate(spans):
        numbers = numbers * span + (cells[:, axis] - low[axis])
    return numbers
