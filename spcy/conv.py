"""Convolutions: execute a rulebook with a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import _check
from ._backend import array_beside, array_module, as_bits, kernels_for
from ._memory import empty
from ._stencil import Stencil, box_stencil, stencil_of
from ._threads import threads_for
from .coords import Coords, describe, same_sites
from .pointwise import Activation, ActivationLike, activation_of
from .rulebook import Outputs, Rulebook, generative, submanifold, windows
from .tensor import SparseTensor, require_tensor


class Plan(NamedTuple):
    """What a convolution executes: its checked arguments, and the pairs that they stand for."""

    rulebook: Rulebook
    coords: Coords  # of the output
    weight: np.ndarray  # (K, C_in // groups, C_out)
    bias: np.ndarray | None
    groups: int


def subm_conv(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    offsets: ArrayLike | None = None,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    residual: SparseTensor | None = None,
    activation: ActivationLike | None = None,
) -> SparseTensor:
    r"""Submanifold convolution: the output sites are the input sites.

    ``y[u] = bias + sum_k x[u + (k - kernel_size // 2) * dilation] @ weight[k]`` over the occupied sites:
    a dense cross-correlation with zero padding, computed and kept only where x has sites. See Graham,
    Engelcke & van der Maaten, "3D semantic segmentation with submanifold sparse convolutional
    networks", CVPR 2018.

    Parameters
    ----------
    x : SparseTensor
        With C_in channels.
    weight : array_like of shape (\*kernel_size, C_in // groups, C_out)
        Of x's dtype; kernel sizes must be odd. With `offsets` of shape (K, C_in // groups, C_out).
    bias : array_like of shape (C_out,), optional
        Of x's dtype.
    offsets : array_like of shape (K, D), integer, optional
        The kernel's cells, instead of a box: ``y[u] = bias + sum_k x[u + offsets[k]] @ weight[k]``. Any
        stencil: a cross, a box that starts at 0, one that looks to one side.
    dilation : int or sequence of D ints
        Distance between the cells of a box.
    groups : int
        Cut the channels into so many equal parts that do not mix: output channel j reads the inputs of
        group ``j // (C_out // groups)``. ``groups == C_in == C_out`` is a depthwise convolution,
        ``y[u, c] = bias[c] + sum_k x[.., c] * weight[k, 0, c]``, at the speed of memory.
    residual : SparseTensor, optional
        Added to the output before the activation: C_out channels of x's dtype, on the output's sites.
    activation : {None, "relu", ("leaky_relu", slope), "gelu", "gelu_tanh", "silu"}
        Bias, residual and activation are applied, in this order, as each output row is written: they
        take no pass over memory of their own. For what each computes see `spcy.nn`.

    Returns
    -------
    SparseTensor
        With C_out channels, on x's own coords.

    Raises
    ------
    ValueError
        If a kernel size is even, or weight or bias do not fit x, the offsets or the groups.
    TypeError
        If their dtype is not x's.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.ones((3, 1)))
    >>> spcy.subm_conv(x, np.ones((3, 1, 1))).features[:, 0]
    array([2., 2., 1.])
    """
    plan = subm_plan(x, weight, bias, offsets=offsets, dilation=dilation, groups=groups)
    return execute(x, plan, residual, activation)


def conv(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    offsets: ArrayLike | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    sites: Outputs = "reached",
    residual: SparseTensor | None = None,
    activation: ActivationLike | None = None,
) -> SparseTensor:
    r"""Regular sparse convolution: the output sites are all that an input site reaches.

    ``y[u] = bias + sum_k x[u * stride - padding + k * dilation] @ weight[k]``: a dense
    cross-correlation, kept where its window holds at least one site.

    Parameters
    ----------
    x : SparseTensor
        With C_in channels.
    weight : array_like of shape (\*kernel_size, C_in // groups, C_out)
        Of x's dtype; any kernel size. With `offsets` of shape (K, C_in // groups, C_out).
    bias : array_like of shape (C_out,), optional
        Added on the output sites.
    offsets : array_like of shape (K, D), integer, optional
        The kernel's cells, instead of a box: ``x[u * stride - padding + offsets[k]]``.
    stride, padding, dilation : int or sequence of D ints
    groups : int
        As in `subm_conv`.
    sites : {"reached", "floor"}
        The output sites: all whose window holds a site, or ``floor(c / stride)`` of every input site c,
        as in MinkowskiEngine. These are fewer, and a window of theirs may be empty: its output is
        the bias alone. Sums are the same by both.
    residual, activation : optional
        As in `subm_conv`.

    Returns
    -------
    SparseTensor
        With C_out channels, on a child level of x's coords, in ascending key order; its shape is that
        of a dense convolution's output, for floor sites ``ceil(shape / stride)``. The same geometry
        gives the same coords. With a 1 x .. x 1 kernel, stride 1 and no padding they are x's own, and
        so are all floor sites of stride 1.

    Raises
    ------
    ValueError
        If the kernel is larger than the padded shape, or weight or bias do not fit x, the offsets or
        the groups.
    TypeError
        If their dtype is not x's.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.ones((3, 1)), shape=(10,))
    >>> y = spcy.conv(x, np.ones((2, 1, 1)), stride=2)
    >>> y.indices[:, 1], y.features[:, 0], y.shape
    (array([2, 4], dtype=int32), array([2., 1.]), (5,))
    """
    geometry: dict[str, Any] = {
        "offsets": offsets,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }
    plan = conv_plan(x, weight, bias, groups=groups, sites=sites, **geometry)
    return execute(x, plan, residual, activation)


def inverse_conv(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    to: SparseTensor | Coords | None = None,
    groups: int = 1,
    residual: SparseTensor | None = None,
    activation: ActivationLike | None = None,
) -> SparseTensor:
    r"""Inverse convolution: restores exactly the sites that x's level was made from.

    Runs the rulebook between x's level and its parent backwards: for every pair (i, j) of kernel
    offset k, ``y[i] += x[j] @ weight[k]``. Parent sites that no pair holds get the bias alone.

    Parameters
    ----------
    x : SparseTensor
        On coords made by `conv`, `conv_transpose` or a pool.
    weight : array_like of shape (\*kernel_size, C_in // groups, C_out)
        Of x's dtype, with the kernel size of the step that made x's level. Of shape
        (K, C_in // groups, C_out) where `offsets` made it.
    bias : array_like of shape (C_out,), optional
    to : SparseTensor or Coords, optional
        The level to restore, checked to be the parent of x's.
    groups : int
        As in `subm_conv`.
    residual, activation : optional
        As in `subm_conv`.

    Returns
    -------
    SparseTensor
        On the parent's coords: the same sites in the same rows.

    Raises
    ------
    ValueError
        If x's coords have no parent, `to` is not it, or the kernel size is another.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 9], [0, 4], [0, 5]], np.ones((3, 1)))
    >>> y = spcy.conv(x, np.ones((2, 1, 1)), stride=2)
    >>> spcy.inverse_conv(y, np.ones((2, 1, 1))).coords is x.coords
    True
    """
    return execute(x, inverse_plan(x, weight, bias, to=to, groups=groups), residual, activation)


def conv_transpose(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    offsets: ArrayLike | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    residual: SparseTensor | None = None,
    activation: ActivationLike | None = None,
) -> SparseTensor:
    r"""Transposed convolution: generates sites.

    ``y[c * stride - padding + k * dilation] += x[c] @ weight[k]``: the dense transposed convolution's
    output on the sites that an input site reaches.

    Parameters
    ----------
    x : SparseTensor
        With C_in channels.
    weight : array_like of shape (\*kernel_size, C_in // groups, C_out)
        Of x's dtype. With `offsets` of shape (K, C_in // groups, C_out).
    bias : array_like of shape (C_out,), optional
    offsets : array_like of shape (K, D), integer, optional
        The kernel's cells, instead of a box: ``y[c * stride - padding + offsets[k]]``.
    stride, padding, output_padding, dilation : int or sequence of D ints
    groups : int
        As in `subm_conv`.
    residual, activation : optional
        As in `subm_conv`.

    Returns
    -------
    SparseTensor
        On a child level of x's coords, with the shape of the dense transposed convolution,
        ``(n - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1``.

    Raises
    ------
    ValueError, TypeError
        As for `conv`.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 3]], np.ones((1, 1)), shape=(4,))
    >>> y = spcy.conv_transpose(x, np.array([5.0, 7.0]).reshape(2, 1, 1), stride=2)
    >>> y.indices[:, 1], y.features[:, 0], y.shape
    (array([6, 7], dtype=int32), array([5., 7.]), (8,))
    """
    geometry: dict[str, Any] = {
        "offsets": offsets,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }
    plan = transpose_plan(x, weight, bias, output_padding=output_padding, groups=groups, **geometry)
    return execute(x, plan, residual, activation)


def subm_plan(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    offsets: ArrayLike | None = None,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Plan:
    """Return the plan of `subm_conv`."""
    weight, bias, groups = _parameters(x, weight, bias, groups, offsets is None)
    kernel_size = weight.shape[:-2]
    if offsets is None and any(k % 2 == 0 for k in kernel_size):
        raise ValueError(
            f"weight must have odd kernel sizes in a submanifold convolution, got {kernel_size}; "
            f"conv takes even ones, and so do offsets"
        )
    rulebook = submanifold(x.coords, _stencil(x, weight, offsets, dilation, centred=True))
    return _plan(rulebook, x.coords, weight, bias, groups)


def conv_plan(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    offsets: ArrayLike | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    sites: Outputs = "reached",
) -> Plan:
    """Return the plan of `conv`."""
    weight, bias, groups = _parameters(x, weight, bias, groups, offsets is None)
    stride = _check.per_axis(stride, x.ndim, "stride", 1)
    padding = _check.per_axis(padding, x.ndim, "padding", 0)
    rulebook, coords = windows(x.coords, _stencil(x, weight, offsets, dilation), stride, padding, sites)
    return _plan(rulebook, coords, weight, bias, groups)


def inverse_plan(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    to: SparseTensor | Coords | None = None,
    groups: int = 1,
) -> Plan:
    """Return the plan of `inverse_conv`."""
    parent, rulebook, kernel_size = parent_level(x, to)
    weight = array_beside(weight, "weight", x.backend)
    box = kernel_size is not None and weight.ndim != 3
    weight, bias, groups = _parameters(x, weight, bias, groups, box or x.ndim == 1)
    if box and weight.shape[:-2] != kernel_size:
        raise ValueError(
            f"weight must have the kernel size that made the level of x, {kernel_size}, "
            f"got {weight.shape[:-2]}"
        )
    if not box and len(weight) != rulebook.num_offsets:
        raise ValueError(
            f"weight must have {rulebook.num_offsets} cells, one for each offset that made the level of x, "
            f"got shape {weight.shape}"
        )
    return _plan(rulebook.transposed(), parent, weight, bias, groups)


def transpose_plan(
    x: SparseTensor,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    offsets: ArrayLike | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Plan:
    """Return the plan of `conv_transpose`."""
    weight, bias, groups = _parameters(x, weight, bias, groups, offsets is None)
    stride = _check.per_axis(stride, x.ndim, "stride", 1)
    padding = _check.per_axis(padding, x.ndim, "padding", 0)
    output_padding = _check.per_axis(output_padding, x.ndim, "output_padding", 0)
    stencil = _stencil(x, weight, offsets, dilation)
    rulebook, coords = generative(x.coords, stencil, stride, padding, output_padding)
    return _plan(rulebook, coords, weight, bias, groups)


def plan_on(
    x: SparseTensor,
    rulebook: Rulebook,
    coords: Coords,
    weight: ArrayLike,
    bias: ArrayLike | None,
    groups: int,
    box: bool = True,
) -> Plan:
    """Return the plan of a box, or of a list of offsets, over a rulebook whose outputs are on some coords."""
    return _plan(rulebook, coords, *_parameters(x, weight, bias, groups, box))


def parent_level(
    x: SparseTensor, to: SparseTensor | Coords | None
) -> tuple[Coords, Rulebook, tuple[int, ...] | None]:
    """Return the level that x's was made from, the rulebook between them and its kernel size."""
    require_tensor(x, "x")
    child, parent = x.coords._child, x.coords.parent
    if child is None or parent is None:
        raise ValueError(
            "x must be on a level that conv, conv_transpose or a pool made; its coords have no parent"
        )
    if to is not None:
        target = to.coords if isinstance(to, SparseTensor) else to
        if not isinstance(target, Coords):
            raise TypeError(f"to must be a SparseTensor or Coords, got {type(to).__name__}")
        if not same_sites(target, parent):
            raise ValueError(f"to must be the level that x was made from, {parent!r}, got {target!r}")
        parent = target
    return parent, child.rulebook, child.kernel_size


def _parameters(
    x: SparseTensor, weight: ArrayLike, bias: ArrayLike | None, groups: int, box: bool
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return the checked weight, of a box or of a list of offsets, bias and groups."""
    require_tensor(x, "x")
    groups = _check.per_axis(groups, 1, "groups", 1)[0]
    dtype, backend = x.dtype, x.backend
    weight = _check.weight(weight, x.ndim, x.num_channels, groups, dtype, backend, box)
    return weight, _check.bias(bias, weight.shape[-1], dtype, backend), groups


def _stencil(
    x: SparseTensor,
    weight: np.ndarray,
    offsets: ArrayLike | None,
    dilation: int | Sequence[int],
    centred: bool = False,
) -> Stencil:
    """Return the stencil of a weight: a box of its leading axes, or the offsets given."""
    dilation = _check.per_axis(dilation, x.ndim, "dilation", 1)
    if offsets is None:
        return box_stencil(weight.shape[:-2], dilation, centred)
    if {*dilation} != {1}:
        raise ValueError(f"dilation must be left out with offsets, which say where cells lie, got {dilation}")
    stencil = stencil_of(offsets, x.ndim)
    if len(stencil.offsets) != len(weight):
        raise ValueError(
            f"weight must have {len(stencil.offsets)} cells, one for each of the offsets, "
            f"got shape {weight.shape}"
        )
    return stencil


def _plan(
    rulebook: Rulebook, coords: Coords, weight: np.ndarray, bias: np.ndarray | None, groups: int
) -> Plan:
    weight = weight.reshape(-1, *weight.shape[-2:])
    if len(weight) != rulebook.num_offsets:  # the kernels would read beyond the tiles
        raise ValueError(f"weight must have {rulebook.num_offsets} kernel cells, got {len(weight)}")
    return Plan(rulebook, coords, weight, bias, groups)


def execute(
    x: SparseTensor,
    plan: Plan,
    residual: SparseTensor | None,
    activation: ActivationLike | Activation | None,
) -> SparseTensor:
    """Run a plan: ``y[out] += x[in] @ weight[k]`` over the pairs of every offset k."""
    rulebook, coords, weight, bias, groups = plan
    c_in, c_out = x.num_channels, weight.shape[2]
    kind = activation_of(activation)
    added = None if residual is None else _residual(residual, coords, c_out, x.dtype)
    xp, kernels = array_module(x.features), kernels_for(x.features)
    out = empty(xp, (rulebook.num_out, c_out), x.dtype)
    if len(out):
        threads = threads_for(rulebook.num_pairs * weight.shape[1] * (c_out + 15) / 32)
        tiles = rulebook._conv_tiles(kernels.builders.tile_size_for(c_out, len(out), threads))
        arrays = as_bits(x.features, weight, bias, added, out)
        scratch_bytes = tiles.scratch_bytes(arrays[0].dtype, c_in, c_out, groups, threads)
        scratch = empty(xp, scratch_bytes, np.int8) if scratch_bytes else None
        kernels.conv.conv(tiles, *arrays, *(kind or (0, 0.0)), scratch, groups, threads)
    return SparseTensor._of(coords, out)


def _residual(residual: SparseTensor, coords: Coords, channels: int, dtype: np.dtype) -> np.ndarray:
    require_tensor(residual, "residual")
    if not same_sites(residual.coords, coords):
        raise ValueError(
            f"residual must be on the output's sites in the same rows, {describe(coords)}, got "
            f"{describe(residual.coords)} with other rows or grids"
        )
    if residual.num_channels != channels:
        raise ValueError(
            f"residual must have {channels} channels, as the output, got {residual.num_channels}"
        )
    return _check.like_features(residual.features, "residual", dtype)
