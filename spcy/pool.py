"""Pools: reduce the occupied sites of each window, or of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from . import _check
from ._backend import array_module, as_bits, kernels_for, to_host
from ._memory import empty
from ._stencil import box_stencil
from ._threads import threads_for
from ._width import rounded, sum_dtype
from .conv import parent_level
from .coords import Coords, derive
from .rows import take_rows
from .rulebook import Outputs, Rulebook, windows
from .tensor import SparseTensor, require_tensor

Empty = Literal["ignore", "zero"]
Count = Literal["sites", "window"]

SUM, MAX, MEAN = range(3)  # as the kernels number them
_BLOCK = 2048  # rows that a global pool reduces at a time; fixed, so that threads change no bit


def max_pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    sites: Outputs = "reached",
    empty: Empty = "ignore",
) -> SparseTensor:
    """Return the greatest feature of each window's occupied sites.

    NaN propagates.

    Parameters
    ----------
    x : SparseTensor
    kernel_size : int or sequence of D ints
    stride : int or sequence of D ints, optional
        Default `kernel_size`.
    padding, dilation : int or sequence of D ints
    sites : {"reached", "floor"}
        The output sites, as in `conv`.
    empty : {"ignore", "zero"}
        Whether empty cells count: not at all, also where all features are negative, or as one zero in
        every window, ``max(0, ..)``, as in spconv and SparseConvNet.

    Returns
    -------
    SparseTensor
        On the sites, the level and the shape that `conv` with the same geometry gives. The maximum of
        an empty window, which "floor" can have, is ``-inf`` (0 with "zero").

    Raises
    ------
    ValueError
        If the window is larger than the padded shape, or an argument is out of range.
    TypeError
        If an argument is no int.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.array([[-1.0], [-2.0], [-3.0]]))
    >>> spcy.max_pool(x, 2).features[:, 0]
    array([-1., -3.])
    """
    _check.choice(empty, ("ignore", "zero"), "empty")
    y = _pool(x, kernel_size, stride, padding, dilation, sites, MAX)
    zero = y.dtype.type(0)
    return y if empty == "ignore" else y.map(lambda features: array_module(features).maximum(features, zero))


def sum_pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    sites: Outputs = "reached",
) -> SparseTensor:
    """Return the sum of the features of each window's occupied sites.

    Parameters
    ----------
    x : SparseTensor
    kernel_size : int or sequence of D ints
    stride : int or sequence of D ints, optional
        Default `kernel_size`.
    padding, dilation : int or sequence of D ints
    sites : {"reached", "floor"}
        The output sites, as in `conv`; the sum of an empty window is 0.

    Returns
    -------
    SparseTensor
        On the sites, the level and the shape that `conv` with the same geometry gives.

    Raises
    ------
    ValueError
        If the window is larger than the padded shape, or an argument is out of range.
    TypeError
        If an argument is no int.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.ones((3, 1)))
    >>> spcy.sum_pool(x, 2).features[:, 0]
    array([2., 1.])
    """
    return _pool(x, kernel_size, stride, padding, dilation, sites, SUM)


def avg_pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    sites: Outputs = "reached",
    count: Count = "sites",
) -> SparseTensor:
    """Return the mean of the features of each window.

    Parameters
    ----------
    x : SparseTensor
    kernel_size : int or sequence of D ints
    stride : int or sequence of D ints, optional
        Default `kernel_size`.
    padding, dilation : int or sequence of D ints
    sites : {"reached", "floor"}
        The output sites, as in `conv`; the mean of an empty window is 0.
    count : {"sites", "window"}
        What the sum is divided by: the occupied sites of the window, or all its cells (the dense
        average, in which empty cells count as 0).

    Returns
    -------
    SparseTensor
        On the sites, the level and the shape that `conv` with the same geometry gives.

    Raises
    ------
    ValueError
        If the window is larger than the padded shape, or an argument is out of range.
    TypeError
        If an argument is no int.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.ones((3, 1)))
    >>> spcy.avg_pool(x, 2).features[:, 0], spcy.avg_pool(x, 2, count="window").features[:, 0]
    (array([1., 1.]), array([1. , 0.5]))
    """
    _check.choice(count, ("sites", "window"), "count")
    return _pool(x, kernel_size, stride, padding, dilation, sites, MEAN, count)


def unpool(x: SparseTensor, *, to: SparseTensor | Coords | None = None) -> SparseTensor:
    """Return features at the level that x's was made from.

    Each parent site gets the mean of the sites whose window holds it: a copy where windows do not
    overlap, and 0 where none holds it.

    Parameters
    ----------
    x : SparseTensor
        On coords made by a pool, `conv` or `conv_transpose`.
    to : SparseTensor or Coords, optional
        The level to restore, checked to be the parent of x's.

    Returns
    -------
    SparseTensor
        On the parent's coords.

    Raises
    ------
    ValueError
        If x's coords have no parent, or `to` is not it.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.array([[1.0], [2.0], [3.0]]))
    >>> spcy.unpool(spcy.max_pool(x, 2)).features[:, 0]
    array([2., 2., 3.])
    """
    parent, rulebook, _ = parent_level(x, to)
    return SparseTensor(parent, reduce_pairs(x, rulebook.transposed(), MEAN, "sites"))


def global_max_pool(x: SparseTensor) -> np.ndarray:
    """Return the greatest feature of each batch, by channel.

    Parameters
    ----------
    x : SparseTensor

    Returns
    -------
    ndarray of shape (batch_size, C), of x's dtype
        ``-inf`` for a batch without sites.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.global_max_pool(spcy.SparseTensor([[0, 4], [0, 5]], np.array([[1.0], [2.0]])))
    array([[2.]])
    """
    return _global_pool(x, MAX)


def global_sum_pool(x: SparseTensor) -> np.ndarray:
    """Return the sum of the features of each batch, by channel.

    Parameters
    ----------
    x : SparseTensor

    Returns
    -------
    ndarray of shape (batch_size, C), of x's dtype
        Summed in double precision; 0 for a batch without sites.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.global_sum_pool(spcy.SparseTensor([[0, 4], [0, 5]], np.array([[1.0], [2.0]])))
    array([[3.]])
    """
    return _global_pool(x, SUM)


def global_avg_pool(x: SparseTensor) -> np.ndarray:
    """Return the mean of the features of each batch's sites, by channel.

    Parameters
    ----------
    x : SparseTensor

    Returns
    -------
    ndarray of shape (batch_size, C), of x's dtype
        0 for a batch without sites.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.global_avg_pool(spcy.SparseTensor([[0, 4], [0, 5]], np.array([[1.0], [2.0]])))
    array([[1.5]])
    """
    return _global_pool(x, MEAN)


def segment_reduce(
    features: np.ndarray, order: np.ndarray | None, segment_ptr: np.ndarray, operation: int, dtype: DTypeLike
) -> np.ndarray:
    """Return ``features[order[segment_ptr[s]:segment_ptr[s + 1]]]`` by segment s: SUM or MAX, in a dtype."""
    made = np.dtype(dtype)
    if made not in (np.float32, np.float64):  # 16 bits: rounded once
        made = np.dtype(np.float32 if operation == MAX and made == features.dtype else np.float64)
    out = empty(array_module(features), (len(segment_ptr) - 1, features.shape[1]), made)
    if len(out):
        threads = threads_for(features.size + out.size)
        (bits,) = as_bits(features)
        kernels_for(features).pool.segment_reduce(bits, order, segment_ptr, operation, out, threads)
    return rounded(out, dtype)


def _pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    sites: Outputs,
    operation: int,
    count: Count = "sites",
) -> SparseTensor:
    rulebook, coords = pool_plan(x, kernel_size, stride, padding, dilation, sites)
    return SparseTensor(coords, reduce_pairs(x, rulebook, operation, count))


def pool_on(x: SparseTensor, rulebook: Rulebook, coords: Coords, operation: int) -> SparseTensor:
    """Return the reductions (SUM, MAX, MEAN) of the pairs of a rulebook whose outputs are on some coords."""
    return SparseTensor(coords, reduce_pairs(x, rulebook, operation))


def pool_plan(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    sites: Outputs = "reached",
) -> tuple[Rulebook, Coords]:
    """Return the windows of a pool, and its output sites."""
    require_tensor(x, "x")
    kernel_size = _check.per_axis(kernel_size, x.ndim, "kernel_size", 1)
    stencil = box_stencil(kernel_size, _check.per_axis(dilation, x.ndim, "dilation", 1))
    stride = kernel_size if stride is None else _check.per_axis(stride, x.ndim, "stride", 1)
    padding = _check.per_axis(padding, x.ndim, "padding", 0)
    return windows(x.coords, stencil, stride, padding, sites)


def reduce_pairs(x: SparseTensor, rulebook: Rulebook, operation: int, count: Count = "sites") -> np.ndarray:
    """Reduce the pairs of each output row; a mean divides their sum by all cells or by the pairs."""
    (features,), xp = as_bits(x.features), array_module(x.features)
    counts = None
    if operation == MEAN and count == "window":
        operation, counts = SUM, xp.full(rulebook.num_out, rulebook.num_offsets, np.int32)
    elif operation == MEAN:
        rows = only_rows(rulebook)
        if rows is not None:
            return take_rows(x.features, rows)
        counts = pairs_per_row(rulebook)
    dtype = x.dtype if operation == MAX else sum_dtype(x.dtype)
    out = empty(xp, (rulebook.num_out, x.num_channels), dtype)
    if len(out):
        threads = threads_for(rulebook.num_pairs * (x.num_channels + 7) / 8)
        pairs = rulebook.in_rows, rulebook.out_rows, *tiles_of(rulebook, x.num_channels, threads)
        (to,) = as_bits(out)
        kernels_for(features).pool.pool(features, *pairs, operation, counts, to, threads)
    return rounded(out, x.dtype)


def tiles_of(rulebook: Rulebook, channels: int, threads: int) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return how pairs are cut into tiles of output ranks, the row of each rank, and the ranks of a tile."""
    builders = kernels_for(rulebook.out_rows).builders
    size = builders.tile_size_for(channels, rulebook.num_out, threads)
    return rulebook._tiles(size), rulebook._out.order, size


def only_rows(rulebook: Rulebook) -> np.ndarray | None:
    """Return the input row of each output row, -1 where none is; None if an output row has several."""
    return rulebook._kept.once("only rows", lambda: _only_rows(rulebook))


def _only_rows(rulebook: Rulebook) -> np.ndarray | None:
    num = rulebook.num_pairs
    if num > rulebook.num_out or (num and int(pairs_per_row(rulebook).max()) > 1):
        return None
    rows = array_module(rulebook.out_rows).full(rulebook.num_out, -1, np.int32)
    rows[rulebook.out_rows] = rulebook.in_rows
    return rows


def pairs_per_row(rulebook: Rulebook) -> np.ndarray:
    """Return how many pairs each output row has."""
    counts = array_module(rulebook.out_rows).zeros(rulebook.num_out, np.int32)
    if len(counts):
        threads, kernels = threads_for(rulebook.num_pairs), kernels_for(rulebook.out_rows)
        tile_ptr = rulebook._tiles(kernels.builders.tile_size_for(1, len(counts), threads))
        kernels.pool.count_pairs_per_row(rulebook.out_rows, tile_ptr, counts, threads)
    return counts


def _global_pool(x: SparseTensor, operation: int) -> np.ndarray:
    """Reduce each batch: its rows in key order by blocks, then the blocks."""
    require_tensor(x, "x")
    by_row = MAX if operation == MAX else SUM
    return join_blocks(x, reduce_blocks(x, by_row), operation)


def reduce_blocks(x: SparseTensor, operation: int) -> np.ndarray:
    """Return the SUM or MAX of each block of `batches`, float64."""
    order, plan = x.coords._sites.rows.order, batches(x.coords)
    return segment_reduce(x.features, order, plan.block_ptr, operation, np.float64)


def join_blocks(x: SparseTensor, blocks: np.ndarray, operation: int) -> np.ndarray:
    """Return what an operation makes of each batch, given its blocks."""
    plan = batches(x.coords)
    by_row = MAX if operation == MAX else SUM
    pooled = segment_reduce(blocks, None, plan.blocks_of_batch, by_row, np.float64)
    if operation == MEAN:
        pooled /= plan.sites
    return rounded(pooled, x.dtype)


class Batches(NamedTuple):
    """How a level's rows in key order, which are in the order of batches, are reduced by batch."""

    sites: np.ndarray  # (B, 1), at least 1
    block_ptr: np.ndarray  # (blocks + 1,), rows
    blocks_of_batch: np.ndarray  # (B + 1,), blocks
    batch_of_block: np.ndarray  # (blocks,)


def batches(coords: Coords) -> Batches:
    """Return the batches of a level."""
    return derive(coords, "batches", lambda: _batches(coords))


def _batches(coords: Coords) -> Batches:
    xp = array_module(coords.indices)
    sites = to_host(xp.bincount(coords.indices[:, 0], minlength=coords.batch_size))
    batch_ptr = np.concatenate([[0], np.cumsum(sites)])
    starts = [np.arange(a, b, _BLOCK) for a, b in pairwise(batch_ptr)]
    block_ptr = np.concatenate([*starts, [coords.num_sites]]).astype(np.int64)
    blocks = [len(each) for each in starts]
    blocks_of_batch = np.cumsum([0, *blocks]).astype(np.int64)
    batch_of_block = np.repeat(np.arange(len(sites)), blocks)
    parts = np.maximum(sites, 1)[:, None], block_ptr, blocks_of_batch, batch_of_block
    return Batches(*map(xp.asarray, parts))
