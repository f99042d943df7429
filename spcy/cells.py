"""The cells that points lie in, and the sites around them, for linear interpolation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import _check
from ._backend import array_module, as_bits, kernels_for
from ._memory import empty
from ._threads import threads_for
from ._width import rounded, widened
from .coords import Layout, Sites, keys_in, layout_for, sort_keys, unique_keys
from .tensor import SparseTensor


class Corners(NamedTuple):
    """The cells between sites' centres that hold points, and the sites at their 2**D corners.

    A cell's key is that of its lowest corner; corner j is one further along axis d if bit D - 1 - d of j
    is set. Points that have no site around them are in a cell without any, behind the others.
    """

    layout: Layout
    cells: np.ndarray  # (U + 1,) uint64, ascending keys, and a sentinel
    rows: np.ndarray  # (U, 2**D) int32, -1 where no site is
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
    rows = _rows(cells, keys_in(sites, layout), layout, sites.rows.order)
    return Corners(layout, cells, rows, order, starts, fractions)


def _rows(
    queries: np.ndarray, keys: np.ndarray, layout: Layout, order: np.ndarray | None, back: bool = False
) -> np.ndarray:
    """Return the rows of the corners of cells, or with `back` the cells around sites, last corner first."""
    num, corners = len(queries) - 1, 2 ** (len(layout.low) - 1)
    rows = empty(array_module(queries), (num, corners), np.int32)
    if num:
        threads = threads_for(3 * rows.size)
        kernels_for(queries).corners.rows(queries[:-1], keys, layout.shift, back, order, rows, threads)
    return rows


def interpolate(
    x: SparseTensor, corners: Corners, renormalize: bool, totals: np.ndarray | None = None
) -> np.ndarray:
    """Return the weighted mean, or sum, of the rows at the corners of each point's cell.

    To `totals` are written, for the gradient, the sums of the weights that are there, points by cells.
    """
    out = empty(array_module(x.features), (len(corners.order), x.num_channels), x.dtype)
    if len(out) and x.num_sites:
        features, to = as_bits(x.features, out)
        points = corners.rows, corners.order, corners.starts, corners.fractions
        threads = _threads(corners, x.num_channels)
        kernels_for(features).corners.interpolate(features, *points, bool(renormalize), totals, to, threads)
    else:
        out[:] = 0
    return out


def interpolate_gradient(
    dy: np.ndarray, sites: Sites, corners: Corners, totals: np.ndarray | None
) -> np.ndarray:
    """Return the gradient of `interpolate`'s features: of means by `totals`, or without them of sums."""
    wide = widened(dy)
    out = empty(array_module(wide), (sites.rows.num_rows, dy.shape[1]), wide.dtype)
    if not len(dy):
        out[:] = 0
    elif len(out):
        around = _rows(keys_in(sites, corners.layout), corners.cells, corners.layout, None, back=True)
        points = corners.order, corners.starts, corners.fractions, totals
        to = around, sites.rows.order, out, _threads(corners, dy.shape[1])
        kernels_for(wide).corners.interpolate_gradient(wide, *points, *to)
    return rounded(out, dy.dtype)


def _threads(corners: Corners, channels: int) -> int:
    return threads_for(len(corners.order) * corners.rows.shape[1] * (channels + 7) / 8)
