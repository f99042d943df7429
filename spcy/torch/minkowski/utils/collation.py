"""Batches of coordinates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..kernels import cells_of


def batched_coordinates(
    coords: Sequence[Any], dtype: torch.dtype = torch.int32, device: Any = None
) -> torch.Tensor:
    """Return the coordinates of several samples in one tensor, with the sample's number in front.

    Parameters
    ----------
    coords : sequence of torch.Tensor or ndarray of shape (N, D)
    dtype : {torch.int32, torch.float32, torch.float64}
        int32 rounds down.
    device : torch.device, optional

    Returns
    -------
    torch.Tensor of shape (sum of N, 1 + D)

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as above.

    Examples
    --------
    >>> import numpy as np, spcy.torch.minkowski as ME
    >>> ME.utils.batched_coordinates([np.array([[0.5, 7.0]]), np.array([[-0.5, 2.0]])])
    tensor([[ 0,  0,  7],
            [ 1, -1,  2]], dtype=torch.int32)
    """
    if dtype not in (torch.int32, torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.int32, torch.float32 or torch.float64, got {dtype}")
    samples = [_tensor(each, f"coords[{place}]") for place, each in enumerate(coords)]
    if not samples:
        raise ValueError("coords must hold at least one sample")
    for place, each in enumerate(samples):
        if each.dim() != 2 or each.shape[1] != samples[0].shape[-1]:
            raise ValueError(
                f"coords must have shape (N, D) with the same D, got {tuple(each.shape)} at {place} and "
                f"{tuple(samples[0].shape)} at 0"
            )
    if dtype is torch.int32:
        samples = [cells_of(each, f"coords[{place}]") for place, each in enumerate(samples)]
    device = samples[0].device if device is None else device
    batches = [torch.full((len(each), 1), b, dtype=dtype, device=device) for b, each in enumerate(samples)]
    parts = [torch.cat([b, each.to(device, dtype)], 1) for b, each in zip(batches, samples, strict=True)]
    return torch.cat(parts)


def sparse_collate(
    coords: Sequence[Any],
    feats: Sequence[Any],
    labels: Sequence[Any] | None = None,
    dtype: torch.dtype = torch.int32,
    device: Any = None,
) -> tuple[Any, ...]:
    """Return the coordinates, features and, if given, labels of several samples, each in one tensor.

    Parameters
    ----------
    coords, dtype, device
        As of `batched_coordinates`.
    feats : sequence of torch.Tensor or ndarray of shape (N, C)
    labels : sequence, optional
        A tensor or an array for each sample, which are joined, or anything else, which stays a list.

    Returns
    -------
    coords, feats : torch.Tensor
    labels : torch.Tensor or list
        Only if they are given.

    Raises
    ------
    TypeError, ValueError
        If the samples do not fit each other.
    """
    if len(coords) != len(feats) or (labels is not None and len(labels) != len(coords)):
        raise ValueError(
            f"feats and labels must have as many samples as coords, {len(coords)}, got {len(feats)}"
            + ("" if labels is None else f" and {len(labels)}")
        )
    features = [_tensor(each, f"feats[{place}]") for place, each in enumerate(feats)]
    for place, (c, f) in enumerate(zip(coords, features, strict=True)):
        if len(c) != len(f):
            raise ValueError(f"feats must have {len(c)} rows at {place}, as coords, got {len(f)}")
    batched = batched_coordinates(coords, dtype, device), torch.cat(features)
    if labels is None:
        return batched
    kept = [torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in labels]
    if all(isinstance(each, torch.Tensor) for each in kept):
        return *batched, torch.cat(kept)
    return *batched, kept


def batch_sparse_collate(
    data: Sequence[Any], dtype: torch.dtype = torch.int32, device: Any = None
) -> tuple[Any, ...]:
    """Return what `sparse_collate` does for a list of samples: a ``collate_fn`` for data loaders.

    Parameters
    ----------
    data : sequence of tuples
        Coordinates, features and perhaps labels of each sample.
    dtype, device
        As of `batched_coordinates`.
    """
    if not len(data):
        raise ValueError("data must hold at least one sample")
    coords, feats, *labels = zip(*data, strict=True)
    if len(labels) > 1:
        raise ValueError(
            f"data must hold coordinates, features and perhaps labels of each sample, got {2 + len(labels)} "
            f"parts"
        )
    return sparse_collate(coords, feats, labels[0] if labels else None, dtype, device)


class SparseCollation:
    """A ``collate_fn`` for data loaders that leaves out the samples which are too much for a batch.

    Parameters
    ----------
    limit_numpoints : int
        How many points a batch may have, -1 for any number. Samples beyond are left out, with a warning.
    dtype, device
        As of `batched_coordinates`.
    """

    def __init__(self, limit_numpoints: int = -1, dtype: torch.dtype = torch.int32, device: Any = None):
        self.limit_numpoints, self.dtype, self.device = limit_numpoints, dtype, device

    def __call__(self, list_data: Sequence[Any]) -> tuple[Any, ...]:
        """Return the coordinates, features and labels of the samples."""
        sizes = np.cumsum([len(sample[0]) for sample in list_data])
        num = len(list_data)
        if self.limit_numpoints > 0:
            num = int((sizes <= self.limit_numpoints).sum())
        if num < len(list_data):
            logging.warning(
                "Cannot fit %d points into limit_numpoints %d: %d of %d samples are left out",
                sizes[-1],
                self.limit_numpoints,
                len(list_data) - num,
                len(list_data),
            )
        return batch_sparse_collate(list_data[:num], self.dtype, self.device)


def _tensor(value: Any, name: str) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or a numpy.ndarray, got {type(value).__name__}")
    return value
