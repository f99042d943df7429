"""Between points and sites."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from . import _check
from ._backend import array_module, backend_of, to_host
from .cells import cell_keys, corners_of, interpolate
from .coords import Coords, Layout, bounds_of, group_keys, sites_from_keys
from .hashmap import NO_KEY
from .pool import MAX, segment_reduce
from .rows import take_rows
from .sums import sum_segments
from .tensor import SparseTensor, require_tensor

Reduction = Literal["mean", "sum", "max", "first"]
Mode = Literal["nearest", "linear"]


class Voxels(NamedTuple):
    """What `voxelize` returns.

    Attributes
    ----------
    tensor : SparseTensor
        A site for each cell that holds a point, in ascending key order.
    rows : ndarray of shape (M,), int32
        The row of each point's site, -1 for points outside the bounds and for those that were dropped.
    counts : ndarray of shape (N,), int32
        How many points each site's features were reduced from.
    """

    tensor: SparseTensor
    rows: np.ndarray
    counts: np.ndarray


def voxelize(
    points: ArrayLike,
    voxel_size: ArrayLike,
    *,
    features: ArrayLike | None = None,
    batch: ArrayLike | None = None,
    batch_size: int | None = None,
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    reduce: Reduction = "mean",
    max_points: int | None = None,
    invalid: Literal["raise", "drop"] = "raise",
) -> Voxels:
    """Return the sites that points occupy, with the points' features reduced.

    A point p lies in cell ``floor((p - origin) / voxel_size)``, computed in double precision. Axes are
    in the order of the points' columns.

    Parameters
    ----------
    points : array_like of shape (M, D), float32 or float64
        Finite, or see `invalid`. Every column is an axis: of a scan with more of them, pass ``scan[:, :3]``,
        and the scan as `features`.
    voxel_size : float or sequence of D floats
        Edge of a cell, in the points' unit.
    features : array_like of shape (M, C), float32, float64, float16 or bfloat16, optional
        Default the points themselves.
    batch : array_like of shape (M,), integer, optional
        Default 0 for all.
    batch_size : int, optional
        Default the greatest batch index + 1.
    bounds : (low, high), each a float or D floats, optional
        The grid's origin is `low` and its shape ``round((high - low) / voxel_size)``; points outside
        that grid are left out, their row is -1. None is an unbounded grid with origin 0.
    reduce : {"mean", "sum", "max", "first"}
        How the features of a site's points become one. Sums are exact and rounded once, to double precision,
        so that they do not depend on the order of the points; means are then rounded to the features' dtype.
    max_points : int, optional
        Reduce only the first `max_points` points of a site.
    invalid : {"raise", "drop"}
        What to do with points that are not finite, as sensors' clouds have them: refuse them, or leave them
        out; their row is -1.

    Returns
    -------
    Voxels
        A named tuple ``(tensor, rows, counts)``.

    Raises
    ------
    ValueError
        If a point is not finite and not to be dropped (the message names the row), or arguments do not fit
        each other.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> points = np.array([[0.1, 0.1], [0.3, 0.2], [2.2, 0.9]])
    >>> tensor, rows, counts = spcy.voxelize(points, 0.5)
    >>> tensor.indices, rows, counts
    (array([[0, 0, 0],
           [0, 4, 1]], dtype=int32), array([0, 0, 1], dtype=int32), array([2, 1], dtype=int32))
    """
    cloud = _check.points(points)
    (num, ndim), backend, xp = cloud.shape, backend_of(cloud), array_module(cloud)
    values = cloud if features is None else _check.features(features, num, backend, "point")
    of_batch = _check.point_batch(batch, num, backend)
    batch_size = _batch_size(batch_size, of_batch)
    _check.choice(reduce, get_args(Reduction), "reduce")
    _check.choice(invalid, ("raise", "drop"), "invalid")
    if max_points is not None:
        max_points = _check.per_axis(max_points, 1, "max_points", 1)[0]
    edges = _voxel_size(voxel_size, ndim)
    origin, shape = np.zeros(ndim), None
    if bounds is not None:
        origin, shape = _grid(bounds, edges)
    kept = xp.isfinite(cloud).all(axis=1) if invalid == "drop" else None
    if kept is not None and kept.all():
        kept = None
    if kept is not None:
        cloud, values = cloud[kept], values[kept]
        of_batch = None if of_batch is None else of_batch[kept]

    grid = batch_size, origin, edges, shape
    layout, unique, rows, order, starts = occupied_cells(cloud, of_batch, *grid)
    counts = xp.diff(starts)
    if max_points is not None:
        place = xp.arange(len(order)) - starts[rows[order]]
        order = order[place < max_points]
        counts = xp.minimum(counts, max_points)
        starts = xp.concatenate([starts[:1], xp.cumsum(counts)])
    if reduce in ("mean", "sum"):
        reduced = sum_segments(values, order, starts, values.dtype, mean=reduce == "mean")
    elif reduce == "max":
        reduced = segment_reduce(values, order, starts, MAX, values.dtype)
    else:
        reduced = take_rows(values, order[starts[:-1]])
    coords = Coords._of(sites_from_keys(unique, layout, None, None, shape, batch_size, origin, edges))
    if kept is not None:
        rows, rows_kept = xp.full(num, -1, np.int32), rows
        rows[kept] = rows_kept
    return Voxels(SparseTensor(coords, reduced), rows, counts.astype(np.int32))


class Occupied(NamedTuple):
    """The cells that points occupy, in ascending key order, and which points each holds."""

    layout: Layout
    keys: np.ndarray  # (N + 1,) uint64, with a sentinel
    rows: np.ndarray  # (M,) int32, the cell of each point, -1 outside the grid
    order: np.ndarray  # the points by cells
    starts: np.ndarray  # (N + 1,) int64, where those of each cell begin


def occupied_cells(
    points: np.ndarray,
    batch: np.ndarray | None,
    batch_size: int,
    origin: np.ndarray,
    voxel_size: np.ndarray,
    shape: tuple[int, ...] | None,
) -> Occupied:
    """Return the cells of a grid that points occupy; `shape` None is an unbounded grid."""
    low, high = _cell_bounds(points, origin, voxel_size, shape)
    low, high = np.append(0, low), np.append(batch_size - 1, high)
    layout = Layout(low, high)
    grid = origin, voxel_size, low, high, layout
    return Occupied(layout, *points_by_cell(points, batch, *grid, bounded=shape is not None))


def points_by_cell(
    points: np.ndarray,
    batch: np.ndarray | None,
    origin: np.ndarray,
    voxel_size: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    layout: Layout,
    bounded: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the keys of cells with points, the row of each point's, the points by cell, where each begins.

    Keys ascend, with a sentinel. If the cells are bounded, points outside [low, high] have the row -1.
    """
    none = 1 << layout.bits  # the key of points outside, behind all others
    keys = cell_keys(points, batch, origin, voxel_size, low, high, layout, none)
    unique, rows, order, starts = group_keys(keys, layout.bits + bounded)
    sites = len(unique) - 1
    if bounded and sites and int(unique[sites - 1]) == none:
        sites -= 1
        rows[rows == sites] = -1
        unique, starts = unique[: sites + 1], starts[: sites + 1]
        unique[sites], order = NO_KEY, order[: int(starts[sites])]
    return unique, rows, order, starts


def devoxelize(
    x: SparseTensor,
    points: ArrayLike,
    mode: Mode = "nearest",
    *,
    batch: ArrayLike | None = None,
    renormalize: bool = True,
) -> np.ndarray:
    """Return the features of a tensor, at any level, at points.

    The level's `origin` and `voxel_size` say where its cells lie. Those of a child level follow from
    its parent's: its cells are `stride` times as large, each centred on the middle of its window.

    Parameters
    ----------
    x : SparseTensor
    points : array_like of shape (M, D), float32 or float64
        In the unit of `voxelize` (cells, if the coords did not come from there). Finite.
    mode : {"nearest", "linear"}
        "nearest" takes the cell that holds the point. "linear" interpolates between the centres of the
        2**D nearest cells, as `renormalize` says.
    batch : array_like of shape (M,), integer, optional
        May be left out if x has one batch.
    renormalize : bool
        Scale the weights of the cells that are occupied to sum to 1, so that a constant stays one. If
        False, the others count as zeros, as in MinkowskiEngine: ``y = sum_j weight_j * x[cell_j]``.

    Returns
    -------
    ndarray of shape (M, C), of x's dtype
        0 where no cell is occupied.

    Raises
    ------
    ValueError
        If a point is not finite (the message names the row), or arguments do not fit each other.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> points = np.array([[0.1, 0.1], [0.3, 0.2], [2.2, 0.9]])
    >>> tensor, _, _ = spcy.voxelize(points, 0.5, features=np.array([[1.0], [2.0], [5.0]]))
    >>> spcy.devoxelize(tensor, points)[:, 0]
    array([1.5, 1.5, 5. ])
    """
    points, batch = points_in(x, points, mode, batch)
    if mode == "nearest":
        return take_rows(x.features, rows_at(x, points, batch))
    return interpolate(x, corners_of(x.coords._sites, points, batch), renormalize)


def points_in(
    x: SparseTensor, points: ArrayLike, mode: Mode, batch: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the points and their batch indices, checked against a tensor."""
    require_tensor(x, "x")
    points = _check.points(points, x.backend)
    if points.shape[1] != x.ndim:
        raise ValueError(f"points must have {x.ndim} columns, one per axis of x, got {points.shape[1]}")
    _check.choice(mode, ("nearest", "linear"), "mode")
    batch = _check.point_batch(batch, len(points), x.backend)
    if batch is None and x.batch_size > 1:
        raise ValueError(f"batch must be given for a tensor of batch_size {x.batch_size}")
    _batch_size(x.batch_size, batch)
    return points, batch


def rows_at(x: SparseTensor, points: np.ndarray, batch: np.ndarray | None) -> np.ndarray:
    """Return the row of the site whose cell holds each point, -1 where none does."""
    sites = x.coords._sites
    grid = sites.origin, sites.voxel_size, sites.low, sites.high, sites.layout
    return sites.rows_of_keys(cell_keys(points, batch, *grid, int(NO_KEY)))


def _cell_bounds(
    points: np.ndarray, origin: np.ndarray, voxel_size: np.ndarray, shape: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest cell along each axis, of all points or of those in a grid."""
    bounds = np.stack(bounds_of(points))
    if not np.isfinite(bounds).all():
        _check.finite_points(points, ~array_module(points).isfinite(points).all(axis=1))
    with np.errstate(over="ignore"):
        cells = np.floor((bounds - origin) / voxel_size)
    if shape is not None:
        cells = cells.clip(0, np.array(shape) - 1)
    elif (abs(cells + 0.5) > 2.0**31).any():
        with np.errstate(over="ignore", invalid="ignore"):
            each = np.floor((to_host(points) - origin) / voxel_size)
        row = _check.first_row((abs(each + 0.5) > 2.0**31).any(axis=1))
        raise ValueError(
            f"points must lie in int32 cells of voxel_size {voxel_size.tolist()}, "
            f"got {points[row].tolist()} in row {row}"
        )
    low, high = cells.astype(np.int64)
    return low, high


def _batch_size(value: int | None, batch: np.ndarray | None) -> int:
    """Return the number of batches, checked against the points' batch indices."""
    least = 1 if batch is None or not len(batch) else int(batch.max()) + 1
    if value is None:
        return least
    value = _check.per_axis(value, 1, "batch_size", 1)[0]
    if batch is not None and value < least:
        row = int(batch.argmax())
        raise ValueError(f"batch must be less than batch_size {value}, got {int(batch[row])} in row {row}")
    return value


def _voxel_size(value: ArrayLike, ndim: int) -> np.ndarray:
    voxel_size = _check.lengths(value, ndim, "voxel_size")
    if (voxel_size <= 0).any():
        raise ValueError(f"voxel_size must be positive, got {value!r}")
    return voxel_size


def _grid(bounds: tuple[ArrayLike, ArrayLike], voxel_size: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the origin and the shape of the grid inside bounds."""
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise ValueError(f"bounds must be a pair (low, high), got {bounds!r}") from None
    low = _check.lengths(low, len(voxel_size), "bounds[0]")
    high = _check.lengths(high, len(voxel_size), "bounds[1]")
    cells = np.round((high - low) / voxel_size)
    if (cells < 1).any() or (cells > _check.INT32.max).any():
        raise ValueError(
            f"bounds must hold 1 .. {_check.INT32.max} cells along each axis, got {cells.tolist()} for "
            f"low {low.tolist()}, high {high.tolist()} and voxel_size {voxel_size.tolist()}"
        )
    return low, tuple(int(n) for n in cells)
