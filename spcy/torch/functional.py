"""The operations of spcy on PyTorch's tensors, with autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from numpy.typing import ArrayLike
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

import spcy

from .. import grad, pool, tensor, voxel
from ..conv import Plan, conv_plan, execute, inverse_plan, plan_on, subm_plan, transpose_plan
from ..coords import Coords
from ..pointwise import Activation, ActivationLike, activation_of
from ..pool import Count, Empty
from ..rulebook import Outputs, Rulebook
from ..voxel import Mode, Reduction
from ._bridge import array_of, check_tensor, contiguous_array, entering, on_device, opaque, tensor_of
from .tensor import SparseTensor, array_tensor

Function = TypeVar("Function", bound=Callable[..., Any])


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


def _like(operation: Callable[..., Any]) -> Callable[[Function], Function]:
    """Lead from a function's docstring to spcy's own."""

    def decorate(function: Function) -> Function:
        function.__doc__ = f"""{function.__doc__}

    `spcy.{operation.__name__}` on PyTorch's tensors, with autograd: arguments, results and errors are that's,
    with `torch.Tensor` for arrays and `spcy.torch.SparseTensor` for sparse tensors.
    """
        return opaque(function)

    return decorate


@_like(spcy.subm_conv)
def subm_conv(
    x: SparseTensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    offsets: ArrayLike | None = None,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    residual: SparseTensor | None = None,
    activation: ActivationLike | None = None,
) -> SparseTensor:
    """Submanifold convolution: the output sites are the input sites."""
    geometry: dict[str, Any] = {"offsets": offsets, "dilation": dilation, "groups": groups}
    return convolve(subm_plan, x, weight, bias, residual, activation, **geometry)


@_like(spcy.conv)
def conv(
    x: SparseTensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
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
    """Regular sparse convolution: the output sites are all that an input site reaches."""
    windows = {"stride": stride, "padding": padding, "dilation": dilation, "sites": sites}
    geometry: dict[str, Any] = {"offsets": offsets, "groups": groups, **windows}
    return convolve(conv_plan, x, weight, bias, residual, activation, **geometry)


@_like(spcy.inverse_conv)
def inverse_conv(
    x: SparseTensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    to: SparseTensor | Coords | None = None,
    groups: int = 1,
    residual: SparseTensor | None = None,
    activation: ActivationLike | None = None,
) -> SparseTensor:
    """Inverse convolution: restores exactly the sites that x's level was made from."""
    return convolve(inverse_plan, x, weight, bias, residual, activation, to=_coords_of(to), groups=groups)


@_like(spcy.conv_transpose)
def conv_transpose(
    x: SparseTensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
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
    """Transposed convolution: generates sites."""
    windows = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    geometry: dict[str, Any] = {"offsets": offsets, "groups": groups, **windows}
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
        features, weight, bias, added = autocast(features, weight, bias, added)
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
            array, _box(weight, channels_first), None if bias is None else array_of(bias), **geometry
        )
        more = None
        if residual is not None and added is not None:
            more = tensor.SparseTensor._of(residual.coords, contiguous_array(added))
        if not needs_grad:
            out = tensor_of(execute(array, plan, more, activation).features)
        else:
            work = array, plan, more, channels_first
            out = _Convolution.apply(work, features, weight, bias, added)
    kind = activation_of(activation)
    if needs_grad and kind is not None:
        out = activate(out, kind)
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

    def plan(x: Any, weight: Any, bias: Any) -> Plan:
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


def mean_rows(features: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return the means of the features of each row, 0 where there are none; those of -1 go nowhere."""
    counts = torch.bincount(rows + 1, minlength=num_rows + 1)[1:].clamp(min=1)
    return add_rows(features, rows, num_rows) / counts[:, None].to(features.dtype)


def max_rows(features: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return the greatest of the features of each row, -inf where there are none; those of -1 go nowhere."""
    return _MaxRows.apply(features, rows, num_rows)


class _TakeRows(torch.autograd.Function):
    """Rows of features, taken to other places."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows)
        ctx.num_rows = len(features)
        with on_device(features.device):
            return tensor_of(spcy.rows.take_rows(contiguous_array(features), array_of(rows)))

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return add_rows(dy, rows, ctx.num_rows), None


class _AddRows(torch.autograd.Function):
    """Sums of features that have the same row."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
        ctx.save_for_backward(rows)
        with on_device(features.device):
            return tensor_of(grad.add_rows(contiguous_array(features), array_of(rows), num_rows))

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return take_rows(dy, rows), None, None


class _MaxRows(torch.autograd.Function):
    """The greatest of the features that have the same row; of equal ones the first has the gradient."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
        with on_device(features.device):
            array = contiguous_array(features)
            ctx.order, ctx.starts = grad.in_segments(array_of(rows), num_rows)
            out = tensor_of(pool.segment_reduce(array, ctx.order, ctx.starts, pool.MAX, array.dtype))
        ctx.save_for_backward(features, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, out = map(contiguous_array, ctx.saved_tensors)
        with on_device(dy.device):
            dx = grad.return_maxima(features, out, contiguous_array(dy), ctx.order, ctx.starts)
        return tensor_of(dx), None, None


def _box(weight: torch.Tensor, channels_first: bool) -> Any:
    """Return a weight as spcy has it, C_out last: a view."""
    array = array_of(weight)
    return array.transpose(*range(1, array.ndim), 0) if channels_first else array


class _Convolution(torch.autograd.Function):
    """A convolution that is planned already."""

    @staticmethod
    def forward(
        ctx: Any,
        work: tuple[Any, ...],
        features: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        added: torch.Tensor | None,
    ) -> torch.Tensor:
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
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        _, needs_dx, needs_dweight, needs_dbias, needs_added = ctx.needs_input_grad
        cells = (*ctx.shape[1:], ctx.shape[0]) if ctx.channels_first else tuple(ctx.shape)
        shape = ctx.rulebook.num_offsets, *cells[-2:]
        box: Any = _box(weight, ctx.channels_first).reshape(shape) if needs_dx else None
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
    def forward(
        ctx: Any, run: Callable[[], tuple[Any, grad.Vjp]], reads: bool, *tensors: torch.Tensor
    ) -> torch.Tensor:
        y, ctx.pull = run()
        y = tensor_of(y)
        if reads:  # what the gradient reads must stay as it is: PyTorch checks what is saved
            ctx.save_for_backward(*tensors, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _ = ctx.saved_tensors
        _, _, *needed = ctx.needs_input_grad
        with on_device(dy.device):
            array = contiguous_array(dy)
            gradients = ctx.pull(array) if len(needed) == 1 else ctx.pull(array, needed)
            return None, None, *(None if g is None else _own(g, array, dy) for g in gradients)


def _own(gradient: Any, array: Any, dy: torch.Tensor) -> torch.Tensor:
    """Return a gradient as a tensor; one that is dy itself as dy, so that PyTorch knows it shares memory."""
    return dy if gradient is array else tensor_of(gradient)


def _run(
    operation: Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    call: Callable[[Callable[..., Any]], Any],
    reads: bool = False,
) -> tuple[torch.Tensor, Any]:
    """Run an operation on tensors; return its features or array, and all else that it returned.

    `call` takes the operation, or what runs it under `spcy.vjp`, and calls it.
    """
    (first, *_) = inputs
    kept: list[Any] = []

    def run() -> tuple[Any, grad.Vjp]:
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


def _of_sites(
    operation: Callable[..., Any], x: SparseTensor, *args: Any, reads: bool = False, **kwargs: Any
) -> Any:
    """Run an operation from a sparse tensor to one, or to an array."""
    features = _features_of(x)
    out, y = _run(operation, [features], lambda do: do(array_tensor(x), *args, **kwargs), reads)
    return SparseTensor._of(y.coords, out) if isinstance(y, tensor.SparseTensor) else out


@_like(pool.max_pool)
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
    """Return the greatest feature of each window's occupied sites."""
    geometry = kernel_size, stride, padding, dilation
    return _of_sites(pool.max_pool, x, *geometry, sites=sites, empty=empty, reads=True)


@_like(pool.sum_pool)
def sum_pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    sites: Outputs = "reached",
) -> SparseTensor:
    """Return the sum of the features of each window's occupied sites."""
    return _of_sites(pool.sum_pool, x, kernel_size, stride, padding, dilation, sites=sites)


@_like(pool.avg_pool)
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
    """Return the mean of the features of each window."""
    geometry = kernel_size, stride, padding, dilation
    return _of_sites(pool.avg_pool, x, *geometry, sites=sites, count=count)


@_like(pool.unpool)
def unpool(x: SparseTensor, *, to: SparseTensor | Coords | None = None) -> SparseTensor:
    """Return features at the level that x's was made from."""
    return _of_sites(pool.unpool, x, to=_coords_of(to))


@_like(pool.global_max_pool)
def global_max_pool(x: SparseTensor) -> torch.Tensor:
    """Return the greatest feature of each batch, by channel."""
    return _of_sites(pool.global_max_pool, x, reads=True)


@_like(pool.global_sum_pool)
def global_sum_pool(x: SparseTensor) -> torch.Tensor:
    """Return the sum of the features of each batch, by channel."""
    return _of_sites(pool.global_sum_pool, x)


@_like(pool.global_avg_pool)
def global_avg_pool(x: SparseTensor) -> torch.Tensor:
    """Return the mean of the features of each batch's sites, by channel."""
    return _of_sites(pool.global_avg_pool, x)


def _coords_of(to: Any) -> Any:
    """Return the coords of a tensor; what is none is left to spcy's own checks."""
    return to.coords if isinstance(to, SparseTensor) else to


@_like(tensor.prune)
def prune(x: SparseTensor, mask: torch.Tensor) -> SparseTensor:
    """Return the tensor with only the sites where a mask is True."""
    features = _features_of(x)
    check_tensor(mask, "mask", features)
    out, y = _run(tensor.prune, [features], lambda do: do(array_tensor(x), array_of(mask)))
    return SparseTensor._of(y.coords, out)


@_like(tensor.add)
def add(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Return the sum of two tensors over the union of their sites."""
    inputs = _features_of(x), _features_of(y, "y")
    check_tensor(inputs[1], "y", inputs[0])
    out, total = _run(tensor.add, inputs, lambda do: do(array_tensor(x), array_tensor(y)))
    return SparseTensor._of(total.coords, out)


@_like(tensor.concat)
def concat(tensors: Iterable[SparseTensor]) -> SparseTensor:
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
def to_dense(x: SparseTensor, channels_first: bool = False) -> torch.Tensor:
    """Return the dense tensor, zero where there is no site."""
    dense = tensor.SparseTensor.to_dense
    return _run(dense, [_features_of(x)], lambda do: do(array_tensor(x), channels_first))[0]


@_like(voxel.voxelize)
def voxelize(
    points: torch.Tensor,
    voxel_size: ArrayLike,
    *,
    features: torch.Tensor | None = None,
    batch: torch.Tensor | None = None,
    batch_size: int | None = None,
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    reduce: Reduction = "mean",
    max_points: int | None = None,
    invalid: Literal["raise", "drop"] = "raise",
) -> Voxels:
    """Return the sites that points occupy, with the points' features reduced."""
    check_tensor(points, "points")
    inputs = points if features is None else features
    check_tensor(inputs, "features", points)
    options: dict[str, Any] = {"batch_size": batch_size, "bounds": bounds, "reduce": reduce}
    options |= {"max_points": max_points, "invalid": invalid}
    if batch is not None:
        check_tensor(batch, "batch", points)
        options["batch"] = array_of(batch)

    def call(do: Callable[..., Any]) -> Any:
        values = None if features is None else array_of(features)
        with entering(points.device):
            return do(array_of(points), voxel_size, features=values, **options)

    out, voxels = _run(voxel.voxelize, [inputs], call, reads=reduce == "max")
    coords = voxels.tensor.coords
    return Voxels(SparseTensor._of(coords, out), tensor_of(voxels.rows), tensor_of(voxels.counts))


@_like(voxel.devoxelize)
def devoxelize(
    x: SparseTensor,
    points: torch.Tensor,
    mode: Mode = "nearest",
    *,
    batch: torch.Tensor | None = None,
    renormalize: bool = True,
) -> torch.Tensor:
    """Return the features of a tensor, at any level, at points."""
    features = _features_of(x)
    check_tensor(points, "points", features)
    if batch is not None:
        check_tensor(batch, "batch", features)
    options = {"batch": None if batch is None else array_of(batch), "renormalize": renormalize}
    call = lambda do: do(array_tensor(x), array_of(points), mode, **options)  # noqa: E731
    return _run(voxel.devoxelize, [features], call)[0]


def _features_of(x: Any, name: str = "x") -> torch.Tensor:
    """Return a sparse tensor's features, checked."""
    if not isinstance(x, SparseTensor):
        raise TypeError(f"{name} must be a spcy.torch.SparseTensor, got {type(x).__name__}")
    return x.features


def autocast(features: torch.Tensor, *others: torch.Tensor | None) -> Sequence[Any]:
    """Return tensors in the dtype of the autocast region that runs."""
    dtype = torch.get_autocast_dtype(features.device.type)
    return [t if t is None or t.dtype is torch.float64 else t.to(dtype) for t in (features, *others)]


def activate(features: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Return an activation's output, with autograd."""
    return _ACTIVATIONS[activation.name](features, activation.slope)


_ACTIVATIONS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "relu": lambda x, _: torch.relu(x),
    "leaky_relu": torch.nn.functional.leaky_relu,
    "gelu": lambda x, _: torch.nn.functional.gelu(x),
    "gelu_tanh": lambda x, _: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": lambda x, _: torch.nn.functional.silu(x),
}
