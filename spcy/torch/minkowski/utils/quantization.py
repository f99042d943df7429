"""Points to cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..kernels import cells_of
from ..manager import CoordinateManager


def fnv_hash_vec(arr: np.ndarray) -> np.ndarray:
    """Return the FNV-1 hash of each row, uint64."""
    out = np.full(len(arr), 14695981039346656037, np.uint64)
    for column in arr.astype(np.int64).astype(np.uint64).T:
        out = (out * np.uint64(1099511628211)) ^ column
    return out


def ravel_hash_vec(arr: np.ndarray) -> np.ndarray:
    """Return a number for each row, uint64, the same for equal rows alone: its place in the box of all."""
    if not len(arr):
        return np.zeros(0, np.uint64)
    shifted = (arr - arr.min(0)).astype(np.uint64)
    sizes = shifted.max(0) + np.uint64(1)
    keys = np.zeros(len(arr), np.uint64)
    for column, size in zip(shifted.T, sizes, strict=True):
        keys = keys * size + column
    return keys


def sparse_quantize(
    coordinates: Any,
    features: Any = None,
    labels: Any = None,
    ignore_label: int = -100,
    return_index: bool = False,
    return_inverse: bool = False,
    return_maps_only: bool = False,
    quantization_size: float | Sequence[float] | None = None,
    device: Any = "cpu",
) -> Any:
    """Return the cells that points lie in, in the order of their first points.

    Parameters
    ----------
    coordinates : torch.Tensor or ndarray of shape (N, D)
        Any columns: a batch may be among them.
    features : torch.Tensor or ndarray of shape (N, C), optional
        Those of the first point of each cell are returned.
    labels : torch.Tensor or ndarray of shape (N,), integer, optional
        A cell gets the label of its points, `ignore_label` where they differ.
    ignore_label : int
    return_index, return_inverse : bool
        Whether to return also the first point of each cell, and the cell of each point.
    return_maps_only : bool
        Return these alone.
    quantization_size : float or sequence of D floats, optional
        The edges of a cell, default 1.
    device : torch.device

    Returns
    -------
    cells : torch.Tensor or ndarray of shape (M, D), int32
        A tensor if there are no labels, else of the kind of the coordinates.
    features, labels, index, inverse
        Those that are given or asked for. Where `cells` alone is left, not a tuple.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other.

    Examples
    --------
    >>> import numpy as np, spcy.torch.minkowski as ME
    >>> points = np.array([[0.1, 0.2], [5.0, 3.0], [0.15, 0.4]])
    >>> ME.utils.sparse_quantize(points, quantization_size=0.5, return_index=True)
    (tensor([[ 0,  0],
            [10,  6]], dtype=torch.int32), tensor([0, 1]))
    """
    if not isinstance(coordinates, (np.ndarray, torch.Tensor)) or coordinates.ndim != 2:
        raise TypeError("coordinates must be a torch.Tensor or a numpy.ndarray of shape (N, D)")
    if return_inverse and not return_index:
        raise ValueError("return_index must be True with return_inverse")
    for name, each in (("features", features), ("labels", labels)):
        if each is not None and len(each) != len(coordinates):
            raise ValueError(f"{name} must have {len(coordinates)} rows, as coordinates, got {len(each)}")
    if labels is not None and np.ndim(labels) != 1:
        raise ValueError(f"labels must have shape ({len(coordinates)},), got {tuple(labels.shape)}")
    cells = _cells(coordinates, quantization_size).to("cpu" if labels is not None else device)
    first, inverse = _distinct(cells)
    at = first.numpy() if isinstance(coordinates, np.ndarray) and labels is not None else first
    if return_maps_only and labels is None:
        return (first, inverse) if return_inverse else first
    kept = cells[first]
    out = [kept.numpy() if isinstance(at, np.ndarray) else kept]
    if features is not None:
        out.append(features[first.cpu().numpy() if isinstance(features, np.ndarray) else first])
    if labels is not None:
        out.append(_cell_labels(labels, first, inverse, ignore_label))
    if return_index:
        out.append(at)
    if return_inverse:
        out.append(inverse.numpy() if isinstance(at, np.ndarray) else inverse)
    return out[0] if len(out) == 1 else tuple(out)


def unique_coordinate_map(
    coordinates: torch.Tensor, tensor_stride: int | Sequence[int] = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first row of each of the coordinates, and which of them each row is.

    Parameters
    ----------
    coordinates : torch.Tensor of shape (N, 1 + D), int32
    tensor_stride : int or sequence of D ints
    """
    manager = CoordinateManager(D=coordinates.shape[1] - 1)
    return manager.insert_and_map(coordinates, tensor_stride)[1]


def _cells(coordinates: Any, size: Any) -> torch.Tensor:
    """Return the cells of points, int32."""
    points = torch.as_tensor(coordinates)
    if size is not None:
        size = torch.as_tensor(np.asarray(size, np.float64), device=points.device)
        if size.dim() > 1 or (size.dim() and len(size) != points.shape[1]) or not (size > 0).all():
            raise ValueError(
                f"quantization_size must be a positive number or {points.shape[1]} of them, "
                f"got {size.tolist()}"
            )
        points = points / (
            size if points.dtype is torch.float64 or size.dim() == 0 else size.to(points.dtype)
        )
    return cells_of(points, "the cells of coordinates")


def _distinct(cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first row of each distinct cell, and which of them each row is."""
    columns = cells.shape[1]
    if 1 < columns <= 5 and not (len(cells) and (cells[:, 0] < 0).any()):
        return unique_coordinate_map(cells.contiguous())
    if columns <= 4:  # without a batch
        return unique_coordinate_map(torch.cat([torch.zeros_like(cells[:, :1]), cells], 1))
    raise ValueError(
        f"coordinates must have 1 .. 4 axes, and may have a batch in front, got {columns} columns"
    )


def _cell_labels(labels: Any, first: torch.Tensor, inverse: torch.Tensor, ignore_label: int) -> Any:
    """Return the label of each cell, or that it has several."""
    values = torch.as_tensor(labels)
    out = values[first]
    differ = torch.zeros(len(first), dtype=torch.bool)
    differ[inverse[values != out[inverse]]] = True
    out = torch.where(differ, ignore_label, out).int()
    return out.numpy() if isinstance(labels, np.ndarray) else out
