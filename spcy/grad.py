"""Gradients: a vector-Jacobian product for every operation, in plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _check
from ._backend import array_module, is_bfloat16, kernels_for
from ._threads import threads_for
from .conv import (
    Plan,
    conv,
    conv_plan,
    conv_transpose,
    execute,
    inverse_conv,
    inverse_plan,
    subm_conv,
    subm_plan,
    tile_size_for,
    transpose_plan,
)
from .pool import SUM, segment_reduce
from .rulebook import Rulebook
from .tensor import SparseTensor

Vjp = Callable[[Any], tuple]
# Fixed, so that threads change no bit:
_BLOCK = 2048  # rows that have a sum of their own in a column's
_CHUNK_PAIRS = 2048  # pairs of an offset that have sums of their own in a weight's gradient ..
_CHUNKS_BYTES = 1 << 25  # .. as far as memory allows


def vjp(function: Callable, /, *args: Any, **kwargs: Any) -> tuple[Any, Vjp]:
    """Run an operation, and return its result and what turns a gradient of it into gradients of its inputs.

    Parameters
    ----------
    function : callable
        `subm_conv`, `conv`, `inverse_conv` or `conv_transpose`; or an object with a method ``vjp``, which
        is called with the arguments.
    *args, **kwargs
        The operation's own.

    Returns
    -------
    y
        What ``function(*args, **kwargs)`` returns.
    vjp : callable
        ``vjp(dy)``, for the gradient dy of a scalar with respect to y's features (an array of their shape
        and dtype), returns a tuple: the gradients with respect to

        - of a convolution: x's features, the weight, the bias (None if there is none), and the
          residual's features if one was given.

        Each has the shape and dtype of what it belongs to, and may be dy itself: do not write to it.

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


def _conv_rule(plan_of: Callable[..., Plan]) -> Callable:
    def rule(x, weight, bias=None, *, residual=None, activation=None, **geometry):
        plan = plan_of(x, weight, bias, **geometry)
        y = execute(x, plan, residual, activation)

        def vjp(dy):
            dy = _gradient_of(y.features, dy)
            if activation == "relu":
                dy = array_module(dy).where(y.features <= 0, dy.dtype.type(0), dy)
            dx = execute(SparseTensor._of(plan.coords, dy), _backward(plan, x.coords), None, None).features
            dweight = _weight_gradient(x.features, dy, plan).reshape(np.shape(weight))
            dbias = None if bias is None else _column_sums(dy)
            return (dx, dweight, dbias) if residual is None else (dx, dweight, dbias, dy)

        return y, vjp

    return rule


def _gradient_of(features: np.ndarray, dy: Any) -> np.ndarray:
    """Return a checked gradient of features."""
    return _check.gradient(dy, features.shape, features.dtype)


def _backward(plan: Plan, coords) -> Plan:
    """Return the plan that takes a gradient of the output to one of the input."""
    cells, c_in, c_out = plan.weight.shape
    grouped = plan.weight.reshape(cells, c_in, plan.groups, c_out // plan.groups)
    weight = grouped.transpose(0, 3, 2, 1).reshape(cells, c_out // plan.groups, plan.groups * c_in)
    weight = array_module(weight).ascontiguousarray(weight)
    return plan._replace(rulebook=plan.rulebook.transposed(), coords=coords, weight=weight, bias=None)


def _weight_gradient(features: np.ndarray, dy: np.ndarray, plan: Plan) -> np.ndarray:
    """Return the sums of ``x[in]^T dy[out]`` over the pairs of every offset, by group."""
    rulebook, (cells, c_in, c_out) = plan.rulebook, plan.weight.shape
    xp = array_module(features, dy)
    out = xp.empty(plan.weight.shape, dy.dtype)
    if not rulebook.num_pairs:
        out[:] = 0
        return out
    kernels = kernels_for(features, dy).grad
    tile_ptr = rulebook._tiles(tile_size_for(c_out, rulebook.num_out, 1))
    chunks = _chunks(rulebook, out.nbytes, tile_ptr.shape[1] - 1)
    threads = threads_for(rulebook.num_pairs * c_in * (c_out + 15) / 32)
    shape = cells, c_in, c_out // plan.groups, plan.groups
    scratch = xp.empty(kernels.scratch_bytes(dy.dtype.itemsize, *shape, chunks, threads), np.int8)
    arrays = features, dy, out
    if is_bfloat16(dy.dtype):
        arrays = (array.view(np.uint16) for array in arrays)
    x, gradient, sums = arrays
    rows = rulebook.in_rows, rulebook.out_rows, tile_ptr
    kernels.weight_gradient(x, gradient, *rows, plan.groups, chunks, sums, scratch, threads)
    return out


def _chunks(rulebook: Rulebook, weight_bytes: int, tiles: int) -> int:
    """Return how many sums of their own the pairs get: for any threads the same, so that the bits are."""
    pairs = rulebook.num_pairs // (_CHUNK_PAIRS * rulebook.num_offsets)
    return max(1, min(pairs, _CHUNKS_BYTES // weight_bytes, 64, tiles))


def _column_sums(dy: np.ndarray) -> np.ndarray:
    """Return the sum of each column, in double precision."""
    blocks = segment_reduce(dy, None, np.append(np.arange(0, len(dy), _BLOCK), len(dy)), SUM)
    return segment_reduce(blocks, None, np.array([0, len(blocks)]), SUM)[0].astype(dy.dtype)


_RULES: dict[Callable, Callable] = {
    subm_conv: _conv_rule(subm_plan),
    conv: _conv_rule(conv_plan),
    inverse_conv: _conv_rule(inverse_plan),
    conv_transpose: _conv_rule(transpose_plan),
}
