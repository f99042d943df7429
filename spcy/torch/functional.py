"""The operations of spcy on PyTorch's tensors, with autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

import spcy

from .. import grad, pool, tensor, voxel
from .._backend import array_module
from ..conv import Plan, conv_plan, execute, inverse_plan, plan_on, subm_plan, transpose_plan
from ..coords import Coords
from ..pointwise import activation_of
from ..rulebook import Rulebook
from ._bridge import array_of, check_tensor, contiguous_array, entering, on_device, opaque, tensor_of
from .tensor import SparseTensor, array_tensor

_COLUMNS = 64


class Voxels(NamedTuple):
    """What `voxelize` returns.

    Attributes
    ----------
    tensor : SparseTensor
        A site for each cell that holds a point, in ascending key order.
    rows : torch.Tensor of shape (M,), int32
        The row of each point's site, -1 for points outside the bounds.
    counts : torch.Tensor of shape (N,), int32
        How many points each site's features were reduced from.
    """

    tensor: SparseTensor
    rows: torch.Tensor
    counts: torch.Tensor


def _like(operation: Callable) -> Callable[[Callable], Callable]:
    """Give a function the signature of spcy's own, and a docstring that leads there."""

    def decorate(function: Callable) -> Callable:
        name = operation.__name__
        function.__name__ = function.__qualname__ = name
        function.__doc__ = f"""{function.__doc__ or operation.__doc__.splitlines()[0]}

    `spcy.{name}` on PyTorch's tensors, with autograd: arguments, results and errors are that's, with
    `torch.Tensor` for arrays and `spcy.torch.SparseTensor` for sparse tensors.
    """
        signature = inspect.signature(operation)
        function.__signature__ = signature.replace(return_annotation=inspect.Signature.empty)
        return opaque(function)

    return decorate


@_like(spcy.subm_conv)
def subm_conv(x, weight, bias=None, *, residual=None, activation=None, **geometry):
    """Submanifold convolution: the output sites are the input sites."""
    return convolve(subm_plan, x, weight, bias, residual, activation, **geometry)


@_like(spcy.conv)
def conv(x, weight, bias=None, *, residual=None, activation=None, **geometry):
    """Regular sparse convolution: the output sites are all that an input site reaches."""
    return convolve(conv_plan, x, weight, bias, residual, activation, **geometry)


@_like(spcy.inverse_conv)
def inverse_conv(x, weight, bias=None, *, to=None, residual=None, activation=None, **geometry):
    """Inverse convolution: restores exactly the sites that x's level was made from."""
    to = to.coords if isinstance(to, SparseTensor) else to
    return convolve(inverse_plan, x, weight, bias, residual, activation, to=to, **geometry)


@_like(spcy.conv_transpose)
def conv_transpose(x, weight, bias=None, *, residual=None, activation=None, **geometry):
    """Transposed convolution: generates sites."""
    return convolve(transpose_plan, x, weight, bias, residual, activation, **geometry)


def convolve(
    plan_of: Callable[..., Plan],
    x: SparseTensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: SparseTensor | None = None,
    activation: Any = None,
    channels_first: bool = False,
    **geometry: Any,
) -> SparseTensor:
    r"""Return a convolution's output, by the function that plans it.

    With `channels_first` the weight is (C_out, \*kernel_size, C_in), as spconv keeps it.
    """
    features = _features_of(x)
    device = features.device
    check_tensor(weight, "weight", features)
    if bias is not None:
        check_tensor(bias, "bias", features)
    added = None if residual is None else _features_of(residual, "residual")
    if torch.is_autocast_enabled(device.type):
        features, weight, bias, added = _autocast(features, weight, bias, added)
    needs_grad = _in_forward_mode() or (
        torch.is_grad_enabled()
        and (
            features.requires_grad
            or weight.requires_grad
            or (bias is not None and bias.requires_grad)
            or (added is not None and added.requires_grad)
        )
    )
    with on_device(device):
        array = tensor.SparseTensor._of(x.coords, contiguous_array(features))
        plan = plan_of(
            array, _copied(_box(weight, channels_first)), None if bias is None else array_of(bias), **geometry
        )
        if residual is not None:
            residual = tensor.SparseTensor._of(residual.coords, contiguous_array(added))
        if not needs_grad:
            out = tensor_of(execute(array, plan, residual, activation).features)
        else:
            work = array, plan, residual, channels_first
            out = _Convolution.apply(work, features, weight, bias, added)
    if needs_grad and activation is not None:
        out = _activate(out, activation)
    return SparseTensor._of(plan.coords, out)


def _in_forward_mode() -> bool:
    """Return whether tensors may have tangents, which a `Function` refuses and arrays would lose."""
    return forward_ad._current_level >= 0


def convolve_on(
    features: torch.Tensor,
    rulebook: Rulebook,
    coords: Coords,
    out_coords: Coords,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    groups: int = 1,
) -> torch.Tensor:
    """Return the features of a convolution over a rulebook between two sets of sites.

    The weight is (K, C_in // groups, C_out), a matrix for each offset of the rulebook.
    """

    def plan(x, weight, bias):
        return plan_on(x, rulebook, out_coords, weight, bias, groups, box=False)

    return convolve(plan, SparseTensor(coords, features), weight, bias).features


def pool_on(
    features: torch.Tensor, rulebook: Rulebook, coords: Coords, out_coords: Coords, operation: int
) -> torch.Tensor:
    """Return the features that `spcy.pool.pool_on` gives."""
    x = SparseTensor(coords, features)
    call = lambda do: do(array_tensor(x), rulebook, out_coords, operation)  # noqa: E731
    return _run(pool.pool_on, [features], call, reads=operation == pool.MAX)[0]


def take_rows(features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return features by row, zeros for the row -1; `rows` int32."""
    return _TakeRows.apply(features, rows)


def add_rows(features: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return the sums of the features of each row; those of -1 go nowhere. `rows` int32."""
    return _AddRows.apply(features, rows, num_rows)


def max_rows(features: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return the greatest of the features of each row, -inf where there are none; those of -1 go nowhere."""
    return _MaxRows.apply(features, rows, num_rows)


class _TakeRows(torch.autograd.Function):
    """Rows of features, taken to other places."""

    @staticmethod
    def forward(ctx, features, rows):
        ctx.save_for_backward(rows)
        ctx.num_rows = len(features)
        with on_device(features.device):
            return tensor_of(spcy.rows.take_rows(contiguous_array(features), array_of(rows)))

    @staticmethod
    def backward(ctx, dy):
        return add_rows(dy, *ctx.saved_tensors, ctx.num_rows), None


class _AddRows(torch.autograd.Function):
    """Sums of features that have the same row."""

    @staticmethod
    def forward(ctx, features, rows, num_rows):
        ctx.save_for_backward(rows)
        with on_device(features.device):
            return tensor_of(grad.add_rows(contiguous_array(features), array_of(rows), num_rows))

    @staticmethod
    def backward(ctx, dy):
        return take_rows(dy, *ctx.saved_tensors), None, None


class _MaxRows(torch.autograd.Function):
    """The greatest of the features that have the same row; of equal ones the first has the gradient."""

    @staticmethod
    def forward(ctx, features, rows, num_rows):
        with on_device(features.device):
            array = contiguous_array(features)
            ctx.order, ctx.starts = grad.in_segments(array_of(rows), num_rows)
            out = tensor_of(pool.segment_reduce(array, ctx.order, ctx.starts, pool.MAX, array.dtype))
        ctx.save_for_backward(features, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        features, out = map(contiguous_array, ctx.saved_tensors)
        with on_device(dy.device):
            dx = grad.return_maxima(features, out, contiguous_array(dy), ctx.order, ctx.starts)
        return tensor_of(dx), None, None


def _box(weight: torch.Tensor, channels_first: bool) -> Any:
    """Return a weight as spcy has it, C_out last: a view."""
    array = array_of(weight)
    return array.transpose(*range(1, array.ndim), 0) if channels_first else array


def _copied(box: Any) -> Any:
    """Return a wide view of `_box` as an array of its own, 64 channels at a time: more spoil the cache."""
    if box.flags.c_contiguous or box.shape[-1] <= _COLUMNS:
        return box  # what checks it copies it
    out = array_module(box).empty(box.shape, box.dtype)
    for first in range(0, box.shape[-1], _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        out[..., columns] = box[..., columns]
    return out


class _Convolution(torch.autograd.Function):
    """A convolution that is planned already."""

    @staticmethod
    def forward(ctx, work, features, weight, bias, added):
        array, plan, residual, ctx.channels_first = work
        ctx.rulebook, ctx.coords, ctx.groups, ctx.shape = (
            plan.rulebook,
            plan.coords,
            plan.groups,
            weight.shape,
        )
        ctx.in_coords = array.coords
        _, needs_dx, needs_dweight, _, _ = ctx.needs_input_grad
        ctx.save_for_backward(features if needs_dweight else None, weight if needs_dx else None)
        return tensor_of(execute(array, plan, residual, None).features)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        features, weight = ctx.saved_tensors
        _, needs_dx, needs_dweight, needs_dbias, needs_added = ctx.needs_input_grad
        cells = (*ctx.shape[1:], ctx.shape[0]) if ctx.channels_first else tuple(ctx.shape)
        shape = ctx.rulebook.num_offsets, *cells[-2:]
        box = _box(weight, ctx.channels_first).reshape(shape) if needs_dx else None
        plan = Plan(ctx.rulebook, ctx.coords, box, None, ctx.groups)
        dx = dweight = dbias = None
        with on_device(dy.device):
            gradient = contiguous_array(dy)
            if needs_dx:
                dx = tensor_of(grad.input_gradient(gradient, plan, ctx.in_coords))
            if needs_dweight:
                array = contiguous_array(features)
                dweight = tensor_of(grad.weight_gradient(array, gradient, plan, shape)).view(cells)
                dweight = dweight.movedim(-1, 0) if ctx.channels_first else dweight
            if needs_dbias:
                dbias = tensor_of(grad.column_sums(gradient))
        return None, dx, dweight, dbias, dy if needs_added else None


class _Operation(torch.autograd.Function):
    """An operation of the table of `spcy.vjp`."""

    @staticmethod
    def forward(ctx, run, reads, *tensors):
        y, ctx.pull = run()
        y = tensor_of(y)
        if reads:  # what the gradient reads must stay as it is: PyTorch checks what is saved
            ctx.save_for_backward(*tensors, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        _ = ctx.saved_tensors
        _, _, *needed = ctx.needs_input_grad
        with on_device(dy.device):
            array = contiguous_array(dy)
            gradients = ctx.pull(array) if len(needed) == 1 else ctx.pull(array, needed)
            return None, None, *(None if g is None else _own(g, array, dy) for g in gradients)


def _own(gradient: Any, array: Any, dy: torch.Tensor) -> torch.Tensor:
    """Return a gradient as a tensor; one that is dy itself as dy, so that PyTorch knows it shares memory."""
    return dy if gradient is array else tensor_of(gradient)


def _run(operation: Callable, inputs: Sequence[torch.Tensor], call: Callable, reads: bool = False):
    """Run an operation on tensors; return its features or array, and all else that it returned.

    `call` takes the operation, or what runs it under `spcy.vjp`, and calls it.
    """
    (first, *_) = inputs
    kept: list[Any] = []

    def run():
        y, pull = call(partial(grad.vjp, operation))
        kept.append(y)
        return _features(y), pull

    with on_device(first.device):
        if _in_forward_mode() or (torch.is_grad_enabled() and any(t.requires_grad for t in inputs)):
            out = _Operation.apply(run, reads, *inputs)
        else:
            kept.append(call(operation))
            out = tensor_of(_features(kept[0]))
    return out, kept[0]


def _features(y: Any) -> Any:
    """Return the array of an operation's result that has a gradient."""
    y = y.tensor if isinstance(y, voxel.Voxels) else y
    return y.features if isinstance(y, tensor.SparseTensor) else y


def _of_sites(operation: Callable, reads: bool = False) -> Callable:
    """Return an operation from a sparse tensor to one, or to an array."""

    @_like(operation)
    def function(x, *args, **kwargs):
        features = _features_of(x)
        if isinstance(kwargs.get("to"), SparseTensor):
            kwargs["to"] = kwargs["to"].coords
        out, y = _run(operation, [features], lambda do: do(array_tensor(x), *args, **kwargs), reads)
        return SparseTensor._of(y.coords, out) if isinstance(y, tensor.SparseTensor) else out

    return function


max_pool = _of_sites(pool.max_pool, reads=True)
sum_pool = _of_sites(pool.sum_pool)
avg_pool = _of_sites(pool.avg_pool)
unpool = _of_sites(pool.unpool)
global_max_pool = _of_sites(pool.global_max_pool, reads=True)
global_sum_pool = _of_sites(pool.global_sum_pool)
global_avg_pool = _of_sites(pool.global_avg_pool)


@_like(tensor.prune)
def prune(x, mask):
    """Return the tensor with only the sites where a mask is True."""
    features = _features_of(x)
    check_tensor(mask, "mask", features)
    out, y = _run(tensor.prune, [features], lambda do: do(array_tensor(x), array_of(mask)))
    return SparseTensor._of(y.coords, out)


@_like(tensor.add)
def add(x, y):
    """Return the sum of two tensors over the union of their sites."""
    inputs = _features_of(x), _features_of(y, "y")
    check_tensor(inputs[1], "y", inputs[0])
    out, total = _run(tensor.add, inputs, lambda do: do(array_tensor(x), array_tensor(y)))
    return SparseTensor._of(total.coords, out)


@_like(tensor.concat)
def concat(tensors):
    """Return tensors joined along their channels, over the union of their sites."""
    tensors = [] if isinstance(tensors, SparseTensor) else list(tensors)
    if not tensors:
        raise TypeError("tensors must be a sequence of at least one SparseTensor")
    inputs = [_features_of(t, f"tensors[{place}]") for place, t in enumerate(tensors)]
    for place, features in enumerate(inputs):
        check_tensor(features, f"tensors[{place}]", inputs[0])
    out, joined = _run(tensor.concat, inputs, lambda do: do([array_tensor(t) for t in tensors]))
    return SparseTensor._of(joined.coords, out)


@_like(tensor.SparseTensor.to_dense)
def to_dense(x, channels_first=False):
    """Return the dense tensor, zero where there is no site."""
    dense = tensor.SparseTensor.to_dense
    return _run(dense, [_features_of(x)], lambda do: do(array_tensor(x), channels_first))[0]


@_like(voxel.voxelize)
def voxelize(points, voxel_size, *, features=None, batch=None, reduce="mean", **options):
    """Return the sites that points occupy, with the points' features reduced."""
    check_tensor(points, "points")
    inputs = points if features is None else features
    check_tensor(inputs, "features", points)
    if batch is not None:
        check_tensor(batch, "batch", points)
        options["batch"] = array_of(batch)

    def call(do):
        values = None if features is None else array_of(features)
        with entering(points.device):
            return do(array_of(points), voxel_size, features=values, reduce=reduce, **options)

    out, voxels = _run(voxel.voxelize, [inputs], call, reads=reduce == "max")
    coords = voxels.tensor.coords
    return Voxels(SparseTensor._of(coords, out), tensor_of(voxels.rows), tensor_of(voxels.counts))


@_like(voxel.devoxelize)
def devoxelize(x, points, mode="nearest", *, batch=None, **options):
    """Return the features of a tensor, at any level, at points."""
    features = _features_of(x)
    check_tensor(points, "points", features)
    if batch is not None:
        check_tensor(batch, "batch", features)
        options["batch"] = array_of(batch)
    call = lambda do: do(array_tensor(x), array_of(points), mode, **options)  # noqa: E731
    return _run(voxel.devoxelize, [features], call)[0]


def _features_of(x: Any, name: str = "x") -> torch.Tensor:
    """Return a sparse tensor's features, checked."""
    if not isinstance(x, SparseTensor):
        raise TypeError(f"{name} must be a spcy.torch.SparseTensor, got {type(x).__name__}")
    return x.features


def _autocast(*tensors: torch.Tensor | None) -> Sequence[torch.Tensor | None]:
    """Return tensors in the dtype of the autocast region that runs."""
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return [t if t is None or t.dtype is torch.float64 else t.to(dtype) for t in tensors]


def _activate(features: torch.Tensor, activation: Any) -> torch.Tensor:
    """Return an activation's output, with autograd."""
    kind = activation_of(activation)
    return _ACTIVATIONS[kind.name](features, kind.slope)


_ACTIVATIONS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "relu": lambda x, _: torch.relu(x),
    "leaky_relu": torch.nn.functional.leaky_relu,
    "gelu": lambda x, _: torch.nn.functional.gelu(x),
    "gelu_tanh": lambda x, _: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": lambda x, _: torch.nn.functional.silu(x),
}
