"""Gradients: a vector-Jacobian product for every operation, in plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _check
from ._backend import array_module, as_array, as_bits, kernels_for
from ._memory import empty
from ._threads import threads_for
from ._width import rounded, sum_dtype, widened
from .cells import corners_of, interpolate, interpolate_gradient
from .conv import (
    Plan,
    conv,
    conv_plan,
    conv_transpose,
    execute,
    inverse_conv,
    inverse_plan,
    parent_level,
    subm_conv,
    subm_plan,
    transpose_plan,
)
from .coords import Coords, sort_keys
from .pointwise import RELU, ActivationLike, activate, activation_gradient, activation_of
from .pool import (
    MAX,
    MEAN,
    SUM,
    Count,
    Empty,
    avg_pool,
    batches,
    global_avg_pool,
    global_max_pool,
    global_sum_pool,
    join_blocks,
    max_pool,
    only_rows,
    pairs_per_row,
    pool_on,
    pool_plan,
    reduce_blocks,
    reduce_pairs,
    segment_reduce,
    sum_pool,
    tiles_of,
    unpool,
)
from .rows import inverse, take_rows
from .rulebook import Outputs, Rulebook
from .tensor import SparseTensor, add, add_over_union, concat, concat_over_union, prune
from .voxel import Mode, Reduction, Voxels, devoxelize, points_in, rows_at, voxelize

Vjp = Callable[..., tuple[Any, ...]]
TensorAndVjp = tuple[SparseTensor, Vjp]  # what most rules return
# Fixed, so that threads change no bit:
_BLOCK = 2048  # rows that have a sum of their own in a column's
_TILE = 1024  # output rows whose pairs a weight's gradient takes together


def vjp(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> tuple[Any, Vjp]:
    """Run an operation, and return its result and what turns a gradient of it into gradients of its inputs.

    Parameters
    ----------
    function : callable
        An operation of the table below; or an object with a method ``vjp``, as modules have it, which is
        called with the arguments.
    *args, **kwargs
        The operation's own.

    Returns
    -------
    y
        What ``function(*args, **kwargs)`` returns.
    vjp : callable
        Takes dy, the gradient of some scalar with respect to y: an array of the shape and dtype of
        ``y.features`` (of y, where that is an array; of ``y.tensor.features`` for `voxelize`). Returns a
        tuple, the scalar's gradients with respect to the arrays named below, each of the shape and dtype
        of its array. It may be called any number of times, and reads the arrays that the operation
        was given: do not write to those before, nor to a gradient, which may be dy itself or a view of it.
        Where there are several gradients, ``vjp(dy, needed)`` with a bool for each computes only those that
        are needed; the others are None.

    Notes
    -----
    What each operation, with all its options, is differentiated with respect to:

    ===================================================================  ====================================
    operation                                                            gradients
    ===================================================================  ====================================
    `subm_conv`, `conv`, `inverse_conv`, `conv_transpose`                x's features, weight, bias (None
                                                                         without one), and the features of a
                                                                         residual, if one is given
    `max_pool`, `sum_pool`, `avg_pool`, `unpool`, `prune`, `devoxelize`  x's features
    `global_max_pool`, `global_sum_pool`, `global_avg_pool`              x's features
    `add`                                                                features of x and of y
    `concat`                                                             features of each tensor
    `voxelize`                                                           the points' features, also where they
                                                                         are the points (cells stay)
    `SparseTensor.to_dense`                                              x's features
    `SparseTensor.from_dense`                                            the array, at the sites
    ===================================================================  ====================================

    Of equal maxima the first gets the whole gradient: that of the first kernel offset (in a box, the
    first site in key order), of the first site of a batch in key order, of the first point; the zero of
    ``empty="zero"`` comes before all. A ReLU passes the gradient where its output is not 0, a leaky one has
    its slope where its input is 0.

    The gradient with respect to a convolution's input is the convolution over the transposed rulebook with
    each cell's matrix transposed; like the tiles it is kept with the rulebook, so that
    nothing is searched for twice. Sums are in the precision of the features, in float32 for those of 16
    bits; those of biases, global pools and voxels are in double precision. Any number of threads gives the
    same bits.

    Raises
    ------
    TypeError
        If the function has no gradient here; from ``vjp(dy)``, if dy has another dtype than y.
    ValueError
        From ``vjp(dy)``, if dy has another shape.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.array([[1.0], [2.0], [3.0]]))
    >>> y, vjp = spcy.vjp(spcy.subm_conv, x, np.ones((3, 1, 1)), np.zeros(1))
    >>> dx, dweight, dbias = vjp(np.ones((3, 1)))
    >>> dx[:, 0], dweight[:, 0, 0], dbias
    (array([2., 2., 1.]), array([1., 6., 2.]), array([3.]))
    """
    if hasattr(function, "vjp"):
        return function.vjp(*args, **kwargs)
    try:
        rule = _RULES[function]
    except (KeyError, TypeError):  # TypeError: unhashable
        raise TypeError(
            f"function must be an operation of spcy with a gradient, or have a method vjp, got {function!r}"
        ) from None
    return rule(*args, **kwargs)


def _conv_rule(plan_of: Callable[..., Plan]) -> Callable[..., TensorAndVjp]:
    def rule(
        x: SparseTensor,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        residual: SparseTensor | None = None,
        activation: ActivationLike | None = None,
        **geometry: Any,
    ) -> TensorAndVjp:
        plan, kind = plan_of(x, weight, bias, **geometry), activation_of(activation)
        if kind is None or kind.reads_output:
            y = before = execute(x, plan, residual, kind)
        else:
            before = execute(x, plan, residual, None)
            y = before.replace(activate(before.features, kind))

        def vjp(dy: Any, needed: Sequence[bool] = (True,) * 4) -> tuple[Any, ...]:
            dy = _gradient_of(y.features, dy)
            if kind is not None:
                dy = activation_gradient(before.features, dy, kind)
            dx = input_gradient(dy, plan, x.coords) if needed[0] else None
            dweight = None
            if needed[1]:
                dweight = weight_gradient(x.features, dy, plan, plan.weight.shape).reshape(_shape(weight))
            dbias = None if bias is None or not needed[2] else column_sums(dy)
            if residual is None:
                return dx, dweight, dbias
            return dx, dweight, dbias, dy if needed[3] else None

        return y, vjp

    return rule


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape of an array of any library, or of nested sequences."""
    return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)


def _gradient_of(features: np.ndarray, dy: Any) -> np.ndarray:
    """Return a checked gradient of features."""
    return _check.gradient(dy, features)


def input_gradient(dy: np.ndarray, plan: Plan, coords: Coords) -> np.ndarray:
    """Return the gradient of a convolution's input, which is on some coords."""
    cells, c_in, c_out = plan.weight.shape
    grouped = plan.weight.reshape(cells, c_in, plan.groups, c_out // plan.groups)
    weight = grouped.transpose(0, 3, 2, 1).reshape(cells, c_out // plan.groups, plan.groups * c_in)
    back = plan._replace(rulebook=plan.rulebook.transposed(), coords=coords, weight=weight, bias=None)
    return execute(SparseTensor._of(plan.coords, dy), back, None, None).features


def weight_gradient(features: np.ndarray, dy: np.ndarray, plan: Plan, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sums of ``x[in]^T dy[out]`` over the pairs of every offset, by group.

    `shape` is that of the weight, (K, C_in // groups, C_out).
    """
    rulebook, (cells, c_in, c_out) = plan.rulebook, shape
    xp = array_module(features, dy)
    out = empty(xp, shape, dy.dtype)
    if not rulebook.num_pairs:
        out[:] = 0
        return out
    kernels = kernels_for(features, dy).grad
    tile_ptr = rulebook._tiles(_TILE)
    channels = c_in, c_out // plan.groups, plan.groups
    sizes = rulebook.num_pairs, cells, tile_ptr.shape[1] - 1
    x, gradient, sums = as_bits(features, dy, out)
    chunks = kernels.num_chunks(*sizes, *channels, x.dtype)
    threads = threads_for(rulebook.num_pairs * c_in * (c_out + 15) / 32)
    scratch = empty(xp, kernels.scratch_bytes(x.dtype, cells, *channels, chunks, threads), np.int8)
    rows = rulebook.in_rows, rulebook.out_rows, tile_ptr
    kernels.weight_gradient(x, gradient, *rows, plan.groups, chunks, sums, scratch, threads)
    return out


def column_sums(dy: np.ndarray) -> np.ndarray:
    """Return the sum of each column, in double precision."""
    xp = array_module(dy)
    block_ptr = xp.minimum(xp.arange(0, len(dy) + _BLOCK, _BLOCK), len(dy))
    blocks = segment_reduce(dy, None, block_ptr, SUM, np.float64)
    return segment_reduce(blocks, None, xp.arange(2) * len(blocks), SUM, dy.dtype)[0]


def _sum_pool(x: SparseTensor, *args: Any, **kwargs: Any) -> TensorAndVjp:
    y = sum_pool(x, *args, **kwargs)
    return y, _return_sums(x, y, pool_plan(x, *args, **kwargs)[0])


def _avg_pool(x: SparseTensor, *args: Any, count: Count = "sites", **kwargs: Any) -> TensorAndVjp:
    y = avg_pool(x, *args, count=count, **kwargs)
    rulebook, _ = pool_plan(x, *args, **kwargs)
    return y, _return_sums(x, y, rulebook, rulebook.num_offsets if count == "window" else _sites(rulebook))


def _max_pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    sites: Outputs = "reached",
    empty: Empty = "ignore",
) -> TensorAndVjp:
    geometry = kernel_size, stride, padding, dilation
    y = max_pool(x, *geometry, sites=sites, empty=empty)
    rulebook, _ = pool_plan(x, *geometry, sites)

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = _gradient_of(y.features, dy)
        dy = activation_gradient(y.features, dy, RELU) if empty == "zero" else dy
        return (_return_maxima_of_pairs(x, y, dy, rulebook),)

    return y, vjp


def _pool_on(x: SparseTensor, rulebook: Rulebook, coords: Coords, operation: int) -> tuple[SparseTensor, Vjp]:
    y = pool_on(x, rulebook, coords, operation)
    if operation != MAX:
        return y, _return_sums(x, y, rulebook, _sites(rulebook) if operation == MEAN else None)

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = _gradient_of(y.features, dy)
        return (_return_maxima_of_pairs(x, y, dy, rulebook),)

    return y, vjp


def _return_maxima_of_pairs(
    x: SparseTensor, y: SparseTensor, dy: np.ndarray, rulebook: Rulebook
) -> np.ndarray:
    """Return the gradient of the features that maxima over a rulebook's pairs are of."""
    xp, (num, channels) = array_module(dy), x.features.shape
    if not rulebook.num_pairs:
        return xp.zeros((num, channels), x.dtype)
    words = -(-channels // 32)  # of a bit for each channel
    left, taken = (empty(xp, (n, words), np.uint32) for n in (rulebook.num_out, rulebook.num_pairs))
    out = empty(xp, (num, channels), sum_dtype(x.dtype))
    threads = threads_for(rulebook.num_pairs * (channels + 7) / 8)
    rows, kernels = (rulebook.in_rows, rulebook.out_rows), kernels_for(dy, rulebook.in_rows)
    features, maxima, dy = as_bits(x.features, y.features, dy)
    there, back = (tiles_of(r, channels, threads) for r in (rulebook, rulebook.transposed()))
    kernels.grad.find_maxima(features, maxima, *rows, *there, left, taken, threads)
    kernels.grad.return_maxima(dy, taken, *rows, *back, out, threads)
    return rounded(out, x.dtype)


def _unpool(x: SparseTensor, *, to: SparseTensor | Coords | None = None) -> TensorAndVjp:
    y = unpool(x, to=to)
    rulebook = parent_level(x, to)[1].transposed()
    return y, _return_sums(x, y, rulebook, _sites(rulebook))


def _sites(rulebook: Rulebook) -> np.ndarray | None:
    """Return what the mean of each window's sites divides by, None if by nothing."""
    if only_rows(rulebook) is not None:
        return None
    return array_module(rulebook.out_rows).maximum(pairs_per_row(rulebook), 1)[:, None]


def _return_sums(x: SparseTensor, y: SparseTensor, rulebook: Rulebook, divisor: Any = None) -> Vjp:
    """Return the vjp of ``y = sums of x over a rulebook / divisor``: the sums back."""

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = _gradient_of(y.features, dy)
        if divisor is not None:
            dy = widened(dy)
            dy = dy / array_module(dy).asarray(divisor, dy.dtype)
        dy = SparseTensor._of(y.coords, dy)
        return (rounded(reduce_pairs(dy, rulebook.transposed(), SUM), x.dtype),)

    return vjp


def _global_sum_pool(x: SparseTensor) -> tuple[np.ndarray, Vjp]:
    y = global_sum_pool(x)
    return y, lambda dy: (_to_sites(_gradient_of(y, dy), x),)


def _global_avg_pool(x: SparseTensor) -> tuple[np.ndarray, Vjp]:
    y = global_avg_pool(x)

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = widened(_gradient_of(y, dy))
        return (_to_sites(rounded(dy / batches(x.coords).sites, x.dtype), x),)

    return y, vjp


def _to_sites(values: np.ndarray, x: SparseTensor) -> np.ndarray:
    """Return the values of each site's batch."""
    return take_rows(values, array_module(values).ascontiguousarray(x.indices[:, 0]))


def _global_max_pool(x: SparseTensor) -> tuple[np.ndarray, Vjp]:
    blocks = reduce_blocks(x, MAX)
    y = join_blocks(x, blocks, MAX)

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = _gradient_of(y, dy)
        xp, plan = array_module(dy), batches(x.coords)
        batch = plan.batch_of_block
        has = (blocks == y.astype(np.float64)[batch]) | xp.isnan(blocks)
        before = xp.concatenate([xp.zeros((1, x.num_channels), np.int64), xp.cumsum(has, axis=0)])
        earlier = before[:-1] > before[plan.blocks_of_batch[batch]]  # a block of the batch has it before
        dy = dy[batch]
        dy[earlier] = 0
        return (return_maxima(x.features, y[batch], dy, x.coords._sites.rows.order, plan.block_ptr),)

    return y, vjp


def return_maxima(
    features: np.ndarray,
    maxima: np.ndarray,
    dy: np.ndarray,
    order: np.ndarray | None,
    segment_ptr: np.ndarray,
) -> np.ndarray:
    """Return zeros, with the gradient of each segment's maximum at the first row that it came from."""
    out = empty(array_module(features), features.shape, dy.dtype)
    *arrays, dx = as_bits(features, maxima, dy, out)
    if order is not None and int(segment_ptr[-1]) < len(features):
        dx.fill(0)  # rows that are in no segment
    if out.size and len(maxima):
        threads = threads_for(2 * features.size)
        kernels_for(*arrays).grad.return_segment_maxima(*arrays, order, segment_ptr, dx, threads)
    return out


def _add(x: SparseTensor, y: SparseTensor) -> TensorAndVjp:
    total, rows = add_over_union(x, y)

    def vjp(dy: Any, needed: Sequence[bool] = (True, True)) -> tuple[Any, ...]:
        dy = _gradient_of(total.features, dy)
        each = zip(rows, needed, strict=True)
        return tuple(None if not n else dy if r is None else take_rows(dy, r) for r, n in each)

    return total, vjp


def _concat(tensors: Iterable[SparseTensor]) -> TensorAndVjp:
    tensors = list(tensors)
    y, rows = concat_over_union(tensors)

    def vjp(dy: Any, needed: Sequence[bool] | None = None) -> tuple[Any, ...]:
        dy = _gradient_of(y.features, dy)
        ends = np.cumsum([t.num_channels for t in tensors]).tolist()
        parts = [slice(end - t.num_channels, end) for t, end in zip(tensors, ends, strict=True)]
        each = zip(rows, parts, needed or [True] * len(tensors), strict=True)
        return tuple(take_rows(dy, r, p) if n else None for r, p, n in each)

    return y, vjp


def _prune(x: SparseTensor, mask: ArrayLike) -> TensorAndVjp:
    y = prune(x, mask)
    kept = array_module(x.features).flatnonzero(array_module(x.features).asarray(mask))

    def vjp(dy: Any) -> tuple[Any, ...]:
        return (take_rows(_gradient_of(y.features, dy), inverse(kept, x.num_sites)),)

    return y, vjp


def _voxelize(
    points: ArrayLike,
    voxel_size: ArrayLike,
    *,
    features: ArrayLike | None = None,
    reduce: Reduction = "mean",
    **options: Any,
) -> tuple[Voxels, Vjp]:
    y = voxelize(points, voxel_size, features=features, reduce=reduce, **options)
    values = as_array(points if features is None else features, "features")
    values = _check.feature_values(values, "features")

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = _gradient_of(y.tensor.features, dy)
        xp = array_module(dy)
        share = dy
        if reduce == "mean":
            wide = widened(dy)
            share = rounded(wide / xp.asarray(y.counts[:, None], wide.dtype), dy.dtype)
        if reduce in ("mean", "sum") and options.get("max_points") is None:
            return (take_rows(share, y.rows),)
        order, starts = in_segments(y.rows, y.tensor.num_sites)
        if reduce == "first" or not len(dy):
            out = xp.zeros((len(y.rows), dy.shape[1]), dy.dtype)
            out[order[starts[:-1]]] = dy
            return (out,)
        rows = y.rows[order]
        kept = (rows >= 0) & (xp.arange(len(order)) - starts[rows] < y.counts[rows])  # fewer with max_points
        if reduce == "max":
            starts = xp.concatenate([starts[:1], xp.cumsum(y.counts)])
            return (return_maxima(values, y.tensor.features, dy, order[kept], starts),)
        rows_kept = xp.empty_like(y.rows)
        rows_kept[order] = xp.where(kept, rows, np.int32(-1))
        return (take_rows(share, rows_kept),)

    return y, vjp


def _devoxelize(
    x: SparseTensor,
    points: ArrayLike,
    mode: Mode = "nearest",
    *,
    batch: ArrayLike | None = None,
    renormalize: bool = True,
) -> tuple[np.ndarray, Vjp]:
    points, batch = points_in(x, points, mode, batch)
    if mode == "nearest":
        rows = rows_at(x, points, batch)
        y = take_rows(x.features, rows)
        gradient = partial(add_rows, rows=rows, num_rows=x.num_sites)
    else:
        corners = corners_of(x.coords._sites, points, batch)
        y = interpolate(x, corners, renormalize)
        gradient = partial(
            interpolate_gradient, num_sites=x.num_sites, corners=corners, renormalize=renormalize
        )
    return y, lambda dy: (gradient(_gradient_of(y, dy)),)


def add_rows(values: np.ndarray, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Return the sums of the values of each row; those of -1 go nowhere."""
    return segment_reduce(values, *in_segments(rows, num_rows), SUM, values.dtype)


def in_segments(rows: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of each row, stably in its order, and where those of each begin.

    Those of -1, no row, are behind the others.
    """
    xp = array_module(rows)
    counts = xp.bincount(rows + 1, minlength=num_rows + 1)[1 : num_rows + 1]
    keys = xp.where(rows < 0, num_rows, rows).astype(np.uint64)
    _, order = sort_keys(keys, num_rows.bit_length())
    return order, xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(counts)])


def _to_dense(x: SparseTensor, channels_first: bool = False) -> tuple[np.ndarray, Vjp]:
    y = x.to_dense(channels_first)

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = _gradient_of(y, dy)
        dy = array_module(dy).moveaxis(dy, 1, -1) if channels_first else dy
        return (dy[tuple(x.indices.T)],)

    return y, vjp


def _from_dense(array: ArrayLike, channels_first: bool = False) -> TensorAndVjp:
    y = SparseTensor.from_dense(array, channels_first)
    shape = _shape(array)

    def vjp(dy: Any) -> tuple[Any, ...]:
        dy = _gradient_of(y.features, dy)
        xp = array_module(dy)
        out = xp.zeros(shape, dy.dtype)
        (xp.moveaxis(out, 1, -1) if channels_first else out)[tuple(y.indices.T)] = dy
        return (out,)

    return y, vjp


_RULES: dict[Callable[..., Any], Callable[..., tuple[Any, Vjp]]] = {
    subm_conv: _conv_rule(subm_plan),
    conv: _conv_rule(conv_plan),
    inverse_conv: _conv_rule(inverse_plan),
    conv_transpose: _conv_rule(transpose_plan),
    max_pool: _max_pool,
    sum_pool: _sum_pool,
    avg_pool: _avg_pool,
    unpool: _unpool,
    pool_on: _pool_on,
    global_max_pool: _global_max_pool,
    global_sum_pool: _global_sum_pool,
    global_avg_pool: _global_avg_pool,
    add: _add,
    concat: _concat,
    prune: _prune,
    voxelize: _voxelize,
    devoxelize: _devoxelize,
    SparseTensor.to_dense: _to_dense,
    SparseTensor.from_dense: _from_dense,
}
