"""Crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...tensor import Sparse
from ...utils.utils import make_ntuple

__all__ = ["spcrop"]


def spcrop(
    input: Sparse,
    coords_min: Sequence[int] | None = None,
    coords_max: Sequence[int] | None = None,
) -> Sparse:
    """Return the sites with ``coords_min <= x, y, z < coords_max``.

    Parameters
    ----------
    input : SparseTensor
    coords_min, coords_max : sequence of 3 ints, optional

    Returns
    -------
    SparseTensor
    """
    coords = input.coords
    spatial = coords[:, :3] if input.batch_last else coords[:, 1:]
    inside = torch.ones(len(coords), dtype=torch.bool, device=coords.device)
    if coords_min is not None:
        low = spatial.new_tensor(make_ntuple(coords_min, 3, "coords_min"))
        inside &= (spatial >= low).all(dim=1)
    if coords_max is not None:
        high = spatial.new_tensor(make_ntuple(coords_max, 3, "coords_max"))
        inside &= (spatial < high).all(dim=1)
    return input.with_rows(input.feats[inside], coords[inside])
