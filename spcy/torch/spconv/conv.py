"""Sparse convolutions, with spconv's parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import Parameter

from ... import _check
from ...conv import Plan, conv_plan, inverse_plan, plan_on, subm_plan
from ...coords import Coords
from ...pointwise import activation_of
from ...rulebook import Rulebook
from .._bridge import opaque
from ..functional import activate, convolve
from ..tensor import SparseTensor
from . import constants
from .core import (
    ConvAlgo,
    IndiceData,
    SparseConvTensor,
    expand_nd,
    require_level,
    require_same_rows,
    require_sparse,
)
from .functional import convolve_pairs
from .layer import MAX_NUM_VOXELS, WindowLayer
from .tensorview import Activation

_ACTIVATIONS = {Activation.ReLU: "relu", Activation.LeakyReLU: "leaky_relu"}


class SparseConvolution(WindowLayer):
    r"""What the convolutions of all kinds and dimensions are, as in spconv.

    Parameters
    ----------
    ndim, in_channels, out_channels : int
    kernel_size, stride, padding, dilation, output_padding : int or sequence of ndim ints
        A submanifold convolution has no stride and no padding: they are ignored, as in spconv.
    groups : int
        Cut the channels into so many equal parts that do not mix; spconv refuses all but 1.
    bias, subm, transposed, inverse : bool
    indice_key : str, optional
        What an inverse convolution finds its level by. Submanifold convolutions that share one must have
        the same kernel and sites.
    act_type, act_alpha : tensorview.Activation, float
        Applied to the output; not in training.
    record_voxel_count : bool
        Keep the greatest number of output sites in a buffer.
    algo, fp32_accum, act_beta, large_kernel_fast_algo, name
        Accepted, without effect.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    weight : Parameter of shape (out_channels, \*kernel_size, in_channels // groups)
        The matrix of a kernel of one cell with stride 1 is its memory as (in_channels, out_channels): that
        is what spconv computes with.
    bias : Parameter of shape (out_channels,), or None
    """

    bias: Parameter | None
    act_type: Activation
    act_alpha: float
    act_beta: float

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        subm: bool = False,
        output_padding: int | Sequence[int] = 0,
        transposed: bool = False,
        inverse: bool = False,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        act_type: Activation = Activation.None_,
        act_alpha: float = 0,
        act_beta: float = 0,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(
            ndim,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            subm=subm,
            transposed=transposed,
            inverse=inverse,
            indice_key=indice_key,
            algo=algo,
            record_voxel_count=record_voxel_count,
            name=name,
            device=device,
        )
        if not isinstance(act_type, Activation):
            raise TypeError(f"act_type must be a tensorview.gemm.Activation, got {act_type!r}")
        self.in_channels: int = expand_nd(1, in_channels, "in_channels", 1)[0]
        self.out_channels: int = expand_nd(1, out_channels, "out_channels", 1)[0]
        self.groups: int = _check.groups(groups, self.in_channels, self.out_channels)
        self.fp32_accum = fp32_accum
        self.act_type, self.act_alpha, self.act_beta = act_type, act_alpha, act_beta
        even = len(set(self.dilation)) == 1  # an int is checked faster than a sequence
        steps = self.dilation[0] if even else tuple(self.dilation)
        self._subm_plan = partial(subm_plan, dilation=steps, groups=groups)
        self.conv1x1: bool = math.prod(self.kernel_size) == 1 and (subm or math.prod(self.stride) == 1)
        if self.conv1x1 and not subm and any(self.padding):
            raise ValueError(f"padding must be 0 for a kernel of one cell and stride 1, got {padding}")
        self.weight_shape: list[int] = [out_channels, *self.kernel_size, in_channels // groups]
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight: Parameter = Parameter(torch.empty(*self.weight_shape, **options))
        self.register_parameter("bias", Parameter(torch.empty(out_channels, **options)) if bias else None)
        self.reset_parameters()
        self.register_load_state_dict_pre_hook(_load_other_layout)

    def reset_parameters(self) -> None:
        """Draw the parameters as PyTorch and spconv do: uniform within 1 / sqrt(fan in)."""
        bound = 1 / math.sqrt(math.prod(self.weight_shape[1:]))
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        """Return the arguments that a repr has."""
        said = f"{self.in_channels}, {self.out_channels}, {self._geometry_repr()}"
        said += f", groups={self.groups}" if self.groups != 1 else ""
        return said + (", bias=False" if self.bias is None else "")

    def is_inverseable(self) -> bool:
        """Return whether an inverse convolution can restore the sites before this layer."""
        return self.indice_key is not None and not self.subm

    @opaque
    def forward(self, input: SparseConvTensor, add_input: SparseConvTensor | None = None) -> SparseConvTensor:
        """Return the layer's output, plus that of another if one is given.

        Parameters
        ----------
        input : SparseConvTensor
        add_input : SparseConvTensor, optional
            On the output's sites.

        Returns
        -------
        SparseConvTensor
            Rows ascend by batch and coordinates where the layer makes sites.
        """
        if self.act_type is Activation.None_:
            return self._run(input, self.weight, self.bias, add_input)
        if self.training:
            raise ValueError("act_type must be None_ in training: a fused activation has no gradient here")
        if self.act_type is Activation.Sigmoid:
            y = self._run(input, self.weight, self.bias, add_input)
            return y.replace_feature(torch.sigmoid(y.features))
        name = _ACTIVATIONS[self.act_type]
        activation = name if name == "relu" else (name, float(self.act_alpha))
        return self._run(input, self.weight, self.bias, add_input, activation)

    @opaque
    def run_fused(self, x: SparseConvTensor, norm: Any, activation: Any) -> SparseConvTensor:
        """Return what the layer, a norm in eval mode and an activation give, in one call."""
        weight: torch.Tensor = self.weight
        bias: torch.Tensor | None = self.bias
        if norm is not None:
            scale = torch.rsqrt(norm.running_var + norm.eps)
            scale = scale if norm.weight is None else scale * norm.weight
            shift = -norm.running_mean * scale
            shift = shift if norm.bias is None else shift + norm.bias
            bias = shift if bias is None else shift + bias * scale
            weight = self._scaled(weight, scale)
            bias = bias.to(weight.dtype)
        return self._run(x, weight, bias, None, activation)

    def _scaled(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return the weight times a factor for each output channel."""
        if not self.conv1x1:
            return (weight * scale.view(-1, *[1] * (weight.dim() - 1))).to(weight.dtype)
        matrix = weight.reshape(self.in_channels // self.groups, self.out_channels) * scale
        return matrix.to(weight.dtype).reshape(self.weight_shape)

    def _run(
        self,
        x: SparseConvTensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        added: SparseConvTensor | None = None,
        activation: Any = None,
    ) -> SparseConvTensor:
        """Return the output, with some weight and bias."""
        require_sparse(x, "input")
        if x.features.dim() != 2:
            raise ValueError(f"features must have shape (N, C), got {tuple(x.features.shape)}")
        if x.features.shape[1] != self.in_channels:
            raise ValueError(f"input must have {self.in_channels} channels, got {x.features.shape[1]}")
        if len(x._shape()) != self.ndim:
            raise ValueError(f"input must have {self.ndim} spatial axes, got {len(x.spatial_shape)}")
        tensor, channels_first = x.as_spcy(), not self.conv1x1
        if self.conv1x1:
            weight = weight.reshape(*self.kernel_size, self.in_channels // self.groups, self.out_channels)
            plan_of = partial(conv_plan, groups=self.groups)
        elif self.inverse:
            data = self._level_to_restore(x)
            if data.given is not None:
                return self._restore(x, data, data.given, weight, bias, added, activation)
            child = data.plan()[1]
            require_level(x, child, self.indice_key, "an inverse convolution takes those that its layer made")
            tensor = SparseTensor._of(child, x.features)
            plan_of = partial(inverse_plan, groups=self.groups)
        elif self.subm:
            plan_of = self._subm_plan
            self._check_shared_key(x)
        else:
            self._require_new_key(x)
            plan_of = partial(_plan_over, self._rulebook, self.groups)
        more = None
        if added is not None:
            require_sparse(added, "add_input")
            more = added.as_spcy()
        y = convolve(plan_of, tensor, weight, bias, more, activation, channels_first)
        if not (self.conv1x1 or self.inverse or self.subm):
            return self._onto_new_level(x, y)
        out = x.with_features(y.features)
        if self.conv1x1:
            return out
        if self.inverse:
            out.spatial_shape, out._level = list(data.spatial_shape), data._in_level
        else:
            self._leave_key(x, out)
        return out

    def _restore(
        self,
        x: SparseConvTensor,
        data: IndiceData,
        pairs: tuple[torch.Tensor, torch.Tensor],
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        added: SparseConvTensor | None,
        activation: Any,
    ) -> SparseConvTensor:
        """Return the output of an inverse convolution over pairs that a layer of other code left."""
        if self.groups != 1:
            raise ValueError(f"groups must be 1 over pairs of other code's layers, got {self.groups}")
        behind = data._out_level.coords(data.out_spatial_shape, x._num_batches())
        require_level(x, behind, self.indice_key, "an inverse convolution takes those that its layer made")
        y = convolve_pairs(x.features, weight, *pairs, len(data.indices), True, bias)
        out = x.with_features(y)
        out.spatial_shape, out._level = list(data.spatial_shape), data._in_level
        if added is not None:
            require_same_rows(out, added, "add_input")
            y = y + added.features
        kind = activation_of(activation)
        return out.with_features(y if kind is None else activate(y, kind))

    def _level_to_restore(self, x: SparseConvTensor) -> IndiceData:
        data = x.data_of(self.indice_key)
        if data is None or data.is_subm:
            what = "is that of a submanifold convolution" if data is not None else "is none of them"
            known = [key for key in x.indice_dict if (d := x.data_of(key)) is not None and not d.is_subm]
            raise ValueError(
                f"indice_key must be that of a regular convolution or a pool that the input came through, "
                f"{known}, got {self.indice_key!r}, which {what}"
            )
        if data.ksize != self.kernel_size:
            raise ValueError(
                f"kernel_size must be that of the layer with indice_key {self.indice_key!r}, {data.ksize}, "
                f"got {self.kernel_size}"
            )
        return data

    def _check_shared_key(self, x: SparseConvTensor) -> None:
        data = x.data_of(self.indice_key)
        if data is None:
            return
        if not data.is_subm:
            raise ValueError(
                f"indice_key {self.indice_key!r} must be new, got that of a regular convolution or a pool"
            )
        for name, mine, theirs in (
            ("kernel_size", self.kernel_size, data.ksize),
            ("dilation", self.dilation, data.dilation),
        ):
            if mine != theirs:
                raise ValueError(
                    f"{name} must be that of the other layer with indice_key {self.indice_key!r}, {theirs}, "
                    f"got {mine}"
                )
        if data._in_level is not x._level:
            coords = data.coords_of(x)
            require_level(x, coords, self.indice_key, "layers that share one must be on the same")


def _plan_over(
    pairs_of: Callable[[Coords], tuple[Rulebook, Coords]], groups: int, x: Any, weight: Any, bias: Any
) -> Plan:
    """Return the plan of a weight over the rulebook that a layer has for some coords."""
    rulebook, coords = pairs_of(x.coords)
    return plan_on(x, rulebook, coords, weight, bias, groups)


def _load_other_layout(
    module: SparseConvolution, state_dict: dict[str, torch.Tensor], prefix: str, *_: Any
) -> None:
    """Bring a weight of another layout, named by ``SPCONV_SAVED_WEIGHT_LAYOUT``, into the module's."""
    name = prefix + MAX_NUM_VOXELS
    if module.get_max_num_voxels() is not None and name not in state_dict:
        state_dict[name] = torch.zeros(1, dtype=torch.int32)
    layout, key = constants.SAVED_WEIGHT_LAYOUT, prefix + "weight"
    if layout not in ("RSKC", "RSCK") or key not in state_dict:
        return
    weight, ndim = state_dict[key], module.ndim
    if module.conv1x1 and layout == "RSCK":  # the matrix is the memory as it is
        state_dict[key] = weight.reshape(module.weight_shape)
    elif layout == "RSKC":
        state_dict[key] = weight.movedim(ndim, 0).contiguous()
    else:
        state_dict[key] = weight.movedim(ndim + 1, 0).contiguous()


class _Of(SparseConvolution):
    """A convolution of a kind and a dimension, with the arguments that spconv gives it."""

    _ndim: int
    _kind: dict[str, Any]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ):
        shape = kernel_size, stride, padding, dilation, groups, bias
        super().__init__(
            self._ndim,
            in_channels,
            out_channels,
            *shape,
            indice_key=indice_key,
            algo=algo,
            fp32_accum=fp32_accum,
            record_voxel_count=record_voxel_count,
            large_kernel_fast_algo=large_kernel_fast_algo,
            name=name,
            **self._kind,
        )


class _Inverse(SparseConvolution):
    """An inverse convolution of a dimension."""

    _ndim: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        indice_key: str,
        bias: bool = True,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ):
        super().__init__(
            self._ndim,
            in_channels,
            out_channels,
            kernel_size,
            bias=bias,
            inverse=True,
            indice_key=indice_key,
            algo=algo,
            fp32_accum=fp32_accum,
            large_kernel_fast_algo=large_kernel_fast_algo,
            name=name,
        )


class SubMConv1d(_Of):
    """Submanifold convolution: the output sites are the input sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 1, {"subm": True}


class SubMConv2d(_Of):
    """Submanifold convolution: the output sites are the input sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 2, {"subm": True}


class SubMConv3d(_Of):
    """Submanifold convolution: the output sites are the input sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 3, {"subm": True}


class SubMConv4d(_Of):
    """Submanifold convolution: the output sites are the input sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 4, {"subm": True}


class SparseConv1d(_Of):
    """Regular sparse convolution: the output sites are all that an input site reaches.

    See `SparseConvolution`.
    """

    _ndim, _kind = 1, {}


class SparseConv2d(_Of):
    """Regular sparse convolution: the output sites are all that an input site reaches.

    See `SparseConvolution`.
    """

    _ndim, _kind = 2, {}


class SparseConv3d(_Of):
    """Regular sparse convolution: the output sites are all that an input site reaches.

    See `SparseConvolution`.
    """

    _ndim, _kind = 3, {}


class SparseConv4d(_Of):
    """Regular sparse convolution: the output sites are all that an input site reaches.

    See `SparseConvolution`.
    """

    _ndim, _kind = 4, {}


class SparseConvTranspose1d(_Of):
    """Transposed convolution: generates sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 1, {"transposed": True}


class SparseConvTranspose2d(_Of):
    """Transposed convolution: generates sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 2, {"transposed": True}


class SparseConvTranspose3d(_Of):
    """Transposed convolution: generates sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 3, {"transposed": True}


class SparseConvTranspose4d(_Of):
    """Transposed convolution: generates sites.

    See `SparseConvolution`.
    """

    _ndim, _kind = 4, {"transposed": True}


class SparseInverseConv1d(_Inverse):
    """Inverse convolution: restores the sites before the layer with its `indice_key`.

    See `SparseConvolution`.
    """

    _ndim = 1


class SparseInverseConv2d(_Inverse):
    """Inverse convolution: restores the sites before the layer with its `indice_key`.

    See `SparseConvolution`.
    """

    _ndim = 2


class SparseInverseConv3d(_Inverse):
    """Inverse convolution: restores the sites before the layer with its `indice_key`.

    See `SparseConvolution`.
    """

    _ndim = 3


class SparseInverseConv4d(_Inverse):
    """Inverse convolution: restores the sites before the layer with its `indice_key`.

    See `SparseConvolution`.
    """

    _ndim = 4


DEFAULT_SPARSE_CONV_TYPES: set[type[SparseConvolution]] = {*_Of.__subclasses__(), *_Inverse.__subclasses__()}
