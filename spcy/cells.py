"""The cells that points lie in, and the sites around them, for linear interpolation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import _check
from ._backend import array_module, as_bits, kernels_for
from ._memory import empty
from ._threads import threads_for
from ._width import rounded, sum_dtype
from .coords import Layout, Sites, keys_in, layout_for, sort_keys, unique_keys
from .tensor import SparseTensor


class Corners(NamedTuple):
    """The cells between sites' centres that hold points, and the sites at their 2**D corners.

    A cell's key is that of its lowest corner; corner j is one further along axis d if bit D - 1 - d of j
    is set. Points that have no site around them are in a cell without any, behind the others.
    """

    ranks: np.ndarray  # (U, 2**D) int32, of the sites, -1 where none is
    site_order: np.ndarray | None  # (N,) int32, the row of each rank where these differ
    order: np.ndarray  # (M,) int32, the points by cells
    starts: np.ndarray  # (U + 1,) int64, where those of each cell begin
    fractions: np.ndarray  # (M, D) float64, where in its cell each point lies


def cell_keys(
    points: np.ndarray,
    batch: np.ndarray | None,
    origin: np.ndarray,
    voxel_size: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    layout: Layout,
    none: int,
    fractions: np.ndarray | None = None,
) -> np.ndarray:
    """Return the key of the cell that holds each point, `none` for those outside [low, high].

    With `fractions`, to which is written where in its cell each point lies: of cells between centres,
    which have the key of their lowest corner.
    """
    num, xp = len(points), array_module(points)
    keys, state = empty(xp, num, np.uint64), empty(xp, num, np.uint8)
    if num:
        grid = origin, voxel_size, fractions is not None, low, high, layout.low, layout.shift
        outputs = keys, fractions, state
        kernels_for(points).coords.cell_keys(points, batch, *grid, int(none), *outputs, threads_for(10 * num))
        _check.finite_points(points, state == 2)
    return keys


def corners_of(sites: Sites, points: np.ndarray, batch: np.ndarray | None) -> Corners:
    """Return the corners around points."""
    num, ndim = points.shape
    first = np.arange(1 + ndim) > 0  # an axis, and not the batch
    low, high = sites.low - first, sites.high  # of the cells that have corners among the sites
    layout = layout_for(sites, low, high + first)
    fractions = empty(array_module(points, sites.keys), (num, ndim), np.float64)
    grid = sites.origin, sites.voxel_size, low, high, layout, 1 << layout.bits
    keys = cell_keys(points, batch, *grid, fractions)
    keys, order = sort_keys(keys, layout.bits + 1)
    cells, starts = unique_keys(keys)
    ranks = empty(array_module(keys), (len(cells) - 1, 2**ndim), np.int32)
    if len(ranks):
        site_keys, threads = keys_in(sites, layout), threads_for(3 * ranks.size)
        kernels_for(keys).corners.ranks(cells[:-1], site_keys, layout.shift, ranks, threads)
    return Corners(ranks, sites.rows.order, order, starts, fractions)


def interpolate(x: SparseTensor, corners: Corners, renormalize: bool) -> np.ndarray:
    """Return the weighted mean, or sum, of the rows at the corners of each point's cell."""
    out = empty(array_module(x.features), (len(corners.order), x.num_channels), x.dtype)
    if len(out) and x.num_sites:
        features, to = as_bits(x.features, out)
        threads = _threads(corners, x.num_channels)
        kernels_for(features).corners.interpolate(features, *corners, bool(renormalize), to, threads)
    else:
        out[:] = 0
    return out


def interpolate_gradient(dy: np.ndarray, num_sites: int, corners: Corners, renormalize: bool) -> np.ndarray:
    """Return the gradient of `interpolate`'s features."""
    (gradient,) = as_bits(dy)
    out = empty(array_module(dy), (num_sites, dy.shape[1]), sum_dtype(dy.dtype))
    if len(dy) and len(out):
        threads = _threads(corners, dy.shape[1])
        kernels_for(gradient).corners.interpolate_gradient(
            gradient, *corners, bool(renormalize), out, threads
        )
    else:
        out[:] = 0
    return rounded(out, dy.dtype)


def _threads(corners: Corners, channels: int) -> int:
    return threads_for(len(corners.order) * corners.ranks.shape[1] * (channels + 7) / 8)
