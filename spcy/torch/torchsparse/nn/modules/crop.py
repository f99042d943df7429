"""Crops."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...tensor import Sparse
from .. import functional

__all__ = ["SparseCrop"]


class SparseCrop(nn.Module):
    """The sites with ``coords_min <= x, y, z < coords_max``.

    Parameters
    ----------
    coords_min, coords_max : sequence of 3 ints, optional
    """

    def __init__(self, coords_min: Sequence[int] | None = None, coords_max: Sequence[int] | None = None):
        super().__init__()
        self.coords_min, self.coords_max = coords_min, coords_max

    def forward(self, input: Sparse) -> Sparse:
        """Return the layer's output."""
        return functional.spcrop(input, self.coords_min, self.coords_max)
