"""Convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import Module, Parameter

from .. import functional
from .._bridge import opaque
from .kernels import KernelGenerator, require_dimension
from .manager import CoordinateManager, CoordinateMapKey
from .modes import ConvolutionMode, RegionType
from .tensor import SparseTensor, require_same_manager, require_sparse

Coordinates = torch.Tensor | CoordinateMapKey | SparseTensor


class MinkowskiModuleBase(Module):
    """What the layers share."""


def out_key_of(
    x: SparseTensor, coordinates: Coordinates | None, stride: Sequence[int], transposed: bool = False
) -> CoordinateMapKey:
    """Return the key of the coordinates that a layer is given, or one that it is to set."""
    if coordinates is None:
        return CoordinateMapKey(x.D + 1)
    if isinstance(coordinates, CoordinateMapKey):
        return coordinates
    if isinstance(coordinates, SparseTensor):
        require_same_manager(x, coordinates)
        return coordinates.coordinate_map_key
    if not isinstance(coordinates, torch.Tensor):
        raise TypeError(
            f"coordinates must be a torch.Tensor, a CoordinateMapKey or a SparseTensor, got "
            f"{type(coordinates).__name__}"
        )
    pairs = zip(x.tensor_stride, stride, strict=True)
    tensor_stride = [t // s if transposed else t * s for t, s in pairs]
    return x._manager.insert_and_map(coordinates, tensor_stride)[0]


class _ConvolutionFunction:
    """A convolution between coordinates that a manager has."""

    _transposed: bool

    @classmethod
    @opaque
    def apply(
        cls,
        input_features: torch.Tensor,
        kernel_weights: torch.Tensor,
        kernel_generator: KernelGenerator,
        convolution_mode: ConvolutionMode,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the features of the outputs, on `out_coordinate_map_key`, which is set if it is not."""
        keys = in_coordinate_map_key, out_coordinate_map_key
        plan = require_manager(coordinate_manager).convolution(*keys, kernel_generator, cls._transposed)
        return functional.convolve_on(input_features, *plan, kernel_weights, bias)


class MinkowskiConvolutionFunction(_ConvolutionFunction):
    """A convolution between coordinates that a manager has."""

    _transposed = False


class MinkowskiConvolutionTransposeFunction(_ConvolutionFunction):
    """A transposed convolution between coordinates that a manager has."""

    _transposed = True


class MinkowskiConvolutionBase(MinkowskiModuleBase):
    """What the convolutions share.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or sequence of ints
        Odd kernels are centred, even ones begin at the output's site.
    bias : bool
    kernel_generator : KernelGenerator, optional
        Instead of the three.
    is_transpose, expand_coordinates : bool
    convolution_mode : ConvolutionMode
        Accepted, without effect.
    dimension : int
        Number of spatial axes.

    Attributes
    ----------
    kernel : Parameter of shape (K, C_in, C_out), or (C_in, C_out) for one cell and stride 1
        The first axis is fastest in K.
    bias : Parameter of shape (1, C_out), or None
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = -1,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        expand_coordinates: bool = False,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = -1,
    ):
        super().__init__()
        self.dimension = require_dimension(dimension)
        self.kernel_generator = generator_of(
            kernel_generator, kernel_size, stride, dilation, self.dimension, expand_coordinates
        )
        self.is_transpose, self.convolution_mode = is_transpose, convolution_mode
        self.in_channels = in_channels = _require_channels(in_channels, "in_channels")
        self.out_channels = out_channels = _require_channels(out_channels, "out_channels")
        volume = self.kernel_generator.kernel_volume
        self.use_mm = volume == 1 and self.kernel_generator.requires_strided_coordinates
        shape = (in_channels, out_channels) if self.use_mm else (volume, in_channels, out_channels)
        self.kernel = Parameter(torch.empty(shape))
        self.bias = Parameter(torch.empty(1, out_channels)) if bias else None
        self.conv = MinkowskiConvolutionTransposeFunction if is_transpose else MinkowskiConvolutionFunction

    def forward(self, input: SparseTensor, coordinates: Coordinates | None = None) -> SparseTensor:
        """Return the convolution's output.

        Parameters
        ----------
        input : SparseTensor
        coordinates : torch.Tensor, CoordinateMapKey or SparseTensor, optional
            The output's sites. A tensor's are of the tensor stride that the layer gives its output.

        Returns
        -------
        SparseTensor
        """
        _require_input(input, self.dimension, self.in_channels)
        kernel, manager = self.kernel_generator, input._manager
        if self.use_mm and coordinates is None:
            features = input._F.mm(self.kernel)
            features = features if self.bias is None else features + self.bias
            return SparseTensor._on(features, input.coordinate_map_key, manager)
        key = out_key_of(input, coordinates, kernel.kernel_stride, self.is_transpose)
        features = self.conv.apply(
            input._F,
            self.kernel if self.kernel.dim() == 3 else self.kernel[None],
            kernel,
            self.convolution_mode,
            input.coordinate_map_key,
            key,
            manager,
            None if self.bias is None else self.bias[0],
        )
        return SparseTensor._on(features, key, manager)

    def reset_parameters(self, is_transpose: bool = False) -> None:
        """Draw the weights uniformly from what the number of summands gives."""
        channels = self.out_channels if is_transpose else self.in_channels
        _draw(channels * self.kernel_generator.kernel_volume, self.kernel, self.bias)

    def __repr__(self) -> str:
        kernel = self.kernel_generator
        size = f"kernel_size={kernel.kernel_size}"
        if kernel.region_type is RegionType.CUSTOM:
            size = f"region_type={kernel.region_type}, kernel_volume={kernel.kernel_volume}"
        return (
            f"{type(self).__name__}(in={self.in_channels}, out={self.out_channels}, {size}, "
            f"stride={kernel.kernel_stride}, dilation={kernel.kernel_dilation})"
        )


class _Convolution(MinkowskiConvolutionBase):
    """A convolution of a direction, with the arguments that MinkowskiEngine gives it."""

    _transposed: bool

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = -1,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation,
            bias,
            kernel_generator,
            is_transpose=self._transposed,
            expand_coordinates=expand_coordinates,
            convolution_mode=convolution_mode,
            dimension=dimension,
        )
        self.reset_parameters(self._transposed)


class MinkowskiConvolution(_Convolution):
    """Convolution: ``y[u] = sum_k x[u + offset_k] @ kernel[k]`` at the input's sites, coarser with a stride.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, dilation, bias, kernel_generator
    convolution_mode, dimension
        As of `MinkowskiConvolutionBase`.
    expand_coordinates : bool
        Whether the output has all sites that the kernel reaches.
    """

    _transposed = False


class MinkowskiConvolutionTranspose(_Convolution):
    """Transposed convolution, to the finer sites that the manager has; to those it reaches if it has none.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, dilation, bias, kernel_generator
    convolution_mode, dimension
        As of `MinkowskiConvolutionBase`.
    expand_coordinates : bool
        Whether the output has all sites that the kernel reaches, whatever the manager has.
    """

    _transposed = True


class MinkowskiGenerativeConvolutionTranspose(MinkowskiConvolutionTranspose):
    """Transposed convolution to all sites that its kernel reaches.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, dilation, bias, kernel_generator
    convolution_mode, dimension
        As of `MinkowskiConvolutionBase`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = -1,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation,
            bias,
            kernel_generator,
            expand_coordinates=True,
            convolution_mode=convolution_mode,
            dimension=dimension,
        )


class MinkowskiChannelwiseConvolution(MinkowskiModuleBase):
    """Depthwise convolution: ``y[u, c] = sum_k x[u + offset_k, c] * kernel[k, c]``.

    Parameters
    ----------
    in_channels, kernel_size, stride, dilation, bias, kernel_generator, dimension
        As of `MinkowskiConvolutionBase`.

    Attributes
    ----------
    kernel : Parameter of shape (K, C)
    bias : Parameter of shape (1, C), or None
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | Sequence[int] = -1,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        dimension: int = -1,
    ):
        super().__init__()
        self.dimension = require_dimension(dimension)
        self.kernel_generator = generator_of(kernel_generator, kernel_size, stride, dilation, dimension)
        self.in_channels = in_channels = _require_channels(in_channels, "in_channels")
        self.kernel_shape = self.kernel_generator.kernel_volume, in_channels
        self.kernel = Parameter(torch.empty(self.kernel_shape))
        self.bias = Parameter(torch.empty(1, in_channels)) if bias else None
        self.reset_parameters()

    @opaque
    def forward(self, input: SparseTensor, coords: Coordinates | None = None) -> SparseTensor:
        """Return the convolution's output, on sites as of `MinkowskiConvolution`."""
        _require_input(input, self.dimension, self.in_channels)
        kernel, manager = self.kernel_generator, input._manager
        key = out_key_of(input, coords, kernel.kernel_stride)
        plan = manager.convolution(input.coordinate_map_key, key, kernel)
        bias = None if self.bias is None else self.bias[0]
        weight = self.kernel[:, None, :]
        features = functional.convolve_on(input._F, *plan, weight, bias, groups=self.in_channels)
        return SparseTensor._on(features, key, manager)

    def reset_parameters(self, is_transpose: bool = False) -> None:
        """Draw the weights uniformly from what the number of summands gives."""
        _draw(self.in_channels * self.kernel_generator.kernel_volume, self.kernel, self.bias)

    def __repr__(self) -> str:
        kernel = self.kernel_generator
        return (
            f"{type(self).__name__}(in={self.in_channels}, region_type={kernel.region_type}, "
            f"kernel_size={kernel.kernel_size}, stride={kernel.kernel_stride}, "
            f"dilation={kernel.kernel_dilation})"
        )


def generator_of(
    generator: KernelGenerator | None,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    dimension: int,
    expand_coordinates: bool = False,
) -> KernelGenerator:
    """Return the kernel generator of a layer: the one that it is given, or one of its arguments."""
    if generator is None:
        return KernelGenerator(
            kernel_size, stride, dilation, expand_coordinates=expand_coordinates, dimension=dimension
        )
    if not isinstance(generator, KernelGenerator):
        raise TypeError(f"kernel_generator must be a KernelGenerator, got {type(generator).__name__}")
    if generator.dimension != dimension:
        raise ValueError(
            f"kernel_generator must have {dimension} axes, the dimension of the layer, "
            f"got {generator.dimension}"
        )
    generator.expand_coordinates = expand_coordinates
    return generator


def require_manager(manager: Any) -> CoordinateManager:
    """Return a coordinate manager, checked."""
    if not isinstance(manager, CoordinateManager):
        raise TypeError(f"a CoordinateManager must be given, got {type(manager).__name__}")
    return manager


def _require_channels(channels: Any, name: str) -> int:
    """Return a number of channels, checked."""
    if not isinstance(channels, (int, np.integer)) or channels < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {channels!r}")
    return int(channels)


def _require_input(x: Any, dimension: int, channels: int) -> None:
    """Raise unless a layer's input has its axes and channels."""
    require_sparse(x, dimension)
    if x.shape[1] != channels:
        raise ValueError(f"input must have {channels} channels, in_channels of the layer, got {x.shape[1]}")


def _draw(num_summands: int, *parameters: Parameter | None) -> None:
    """Draw parameters uniformly from what the number of summands gives."""
    reach = 1.0 / math.sqrt(num_summands)
    with torch.no_grad():
        for each in parameters:
            if each is not None:
                each.uniform_(-reach, reach)
