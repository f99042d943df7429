"""Convolutions, with TorchSparse's parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..... import _check
from ...tensor import Sparse
from ...utils.utils import make_ntuple
from .. import functional
from ..functional.conv_config import complete

__all__ = ["Conv3d"]


class Conv3d(nn.Module):
    """Sparse convolution, as ``torchsparse.nn.Conv3d`` 2.1.

    With stride 1 the outputs are the inputs' sites: cell r of the window of output u is
    ``u + dilation * (r - (kernel_size - 1) // 2)`` where all sizes are odd, else ``u + dilation * r``. With
    a stride it is ``u * stride - padding + dilation * r``, and the outputs are all that an input reaches,
    inside of the tensor's spatial range if it has one, else not negative where no input is.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride : int or sequence of 3 ints
    padding : int or sequence of 3 ints
        An axis of odd size and stride 1 is padded so that its extent stays, whatever stands here.
    dilation : int or sequence of 3 ints
        Distance of a window's cells. TorchSparse ignores it.
    bias : bool
    transposed : bool
        Go back to the sites that the input's were made from, along the kernel map of the layer with the
        same kernel_size, stride and dilation.
    generative : bool
        With `transposed`: make all sites that an input reaches,
        ``c * stride + dilation * (r - (kernel_size - 1) // 2)``, where all sizes are odd with the weight's
        cells mirrored, as in TorchSparse.
    config : dict, optional
        With "downsample_mode": "minkowski" the outputs of a strided layer are ``floor(c / stride)`` of the
        inputs c, and windows begin at ``u * stride - dilation * ((kernel_size - 1) // 2)``; with "kmap_mode":
        "hashmap" only these windows are so. What else stands there has no effect.

    Attributes
    ----------
    kernel : Parameter of shape (K, in_channels, out_channels)
        x fastest where K is odd, else z; (in_channels, out_channels) for one cell and stride 1.
    bias : Parameter of shape (out_channels,), or None

    Examples
    --------
    >>> import torch
    >>> from spcy.torch.torchsparse import SparseTensor, nn as spnn
    >>> net = torch.nn.Sequential(spnn.Conv3d(1, 8, 3), spnn.BatchNorm(8), spnn.ReLU(True))
    >>> coords = torch.tensor([[0, 4, 4, 0], [0, 4, 5, 0]], dtype=torch.int32)
    >>> net(SparseTensor(torch.ones(2, 1), coords)).F.shape
    torch.Size([2, 8])
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        bias: bool = False,
        transposed: bool = False,
        generative: bool = False,
        config: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.in_channels = _check.per_axis(in_channels, 1, "in_channels", 1)[0]
        self.out_channels = _check.per_axis(out_channels, 1, "out_channels", 1)[0]
        self.kernel_size = make_ntuple(kernel_size, 3, "kernel_size", 1)
        self.stride = make_ntuple(stride, 3, "stride", 1)
        self.dilation = dilation
        self.padding = self._padding(make_ntuple(padding, 3, "padding", 0))
        if generative and not transposed:
            raise ValueError("generative must come with transposed=True, got transposed=False")
        self.transposed, self.generative = transposed, generative
        self._config = None if config is None else complete(config)
        self.kernel_volume = math.prod(self.kernel_size)
        shape = (self.kernel_volume, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape if self._has_cells() else shape[1:]))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    def _padding(self, padding: tuple[int, ...]) -> tuple[int, ...]:
        """Return the padding of each axis."""
        each = zip(
            self.kernel_size, self.stride, padding, make_ntuple(self.dilation, 3, "dilation", 1), strict=True
        )
        return tuple((k - 1) // 2 * d if k % 2 and s == 1 else p for k, s, p, d in each)

    def _has_cells(self) -> bool:
        """Return whether the kernel has an axis of cells."""
        return self.kernel_volume > 1 or self.stride != (1, 1, 1)

    def extra_repr(self) -> str:
        """Return the arguments that a repr has."""
        said = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        said += f", stride={self.stride}" if self.stride != (1, 1, 1) else ""
        said += f", dilation={self.dilation}" if self.dilation != 1 else ""
        said += ", bias=False" if self.bias is None else ""
        return said + ", transposed=True" * self.transposed + ", generative=True" * self.generative

    def reset_parameters(self) -> None:
        """Draw the parameters as TorchSparse does."""
        channels = self.out_channels if self.transposed else self.in_channels
        bound = 1 / math.sqrt(channels * self.kernel_volume)
        for parameter in (self.kernel, self.bias):
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)

    def forward(self, input: Sparse) -> Sparse:
        """Return the layer's output."""
        return functional.conv3d(
            input,
            self.kernel,
            self.kernel_size,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self._config,
            self.transposed,
            self.generative,
        )
