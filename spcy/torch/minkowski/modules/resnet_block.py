"""Blocks of residual networks [1]_, with MinkowskiEngine's names of parameters.

.. [1] K. He et al., "Deep residual learning for image recognition", CVPR 2016.
"""

from __future__ import annotations

from torch.nn import Module

from ..conv import MinkowskiConvolution
from ..nonlinearity import MinkowskiReLU
from ..norm import MinkowskiBatchNorm
from ..tensor import SparseTensor


class BasicBlock(Module):
    """Two convolutions of size 3, and what goes past them.

    Parameters
    ----------
    inplanes, planes, stride, dilation : int
    downsample : torch.nn.Module, optional
        What the input goes through beside the convolutions.
    bn_momentum : float
    dimension : int
        Number of spatial axes.
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: Module | None = None,
        bn_momentum: float = 0.1,
        dimension: int = -1,
    ):
        super().__init__()
        self._make(inplanes, planes, stride, dilation, bn_momentum, dimension)
        self.relu = MinkowskiReLU(inplace=True)
        self.downsample = downsample

    def _make(
        self, inplanes: int, planes: int, stride: int, dilation: int, momentum: float, dimension: int
    ) -> None:
        self.conv1 = MinkowskiConvolution(inplanes, planes, 3, stride, dilation, dimension=dimension)
        self.norm1 = MinkowskiBatchNorm(planes, momentum=momentum)
        self.conv2 = MinkowskiConvolution(planes, planes, 3, 1, dilation, dimension=dimension)
        self.norm2 = MinkowskiBatchNorm(planes, momentum=momentum)

    def _branch(self, x: SparseTensor) -> SparseTensor:
        out = self.relu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(out))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the block's output."""
        out = self._branch(x)
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(BasicBlock):
    """A convolution of size 3 between two of size 1, and what goes past them.

    Parameters
    ----------
    inplanes, planes, stride, dilation, downsample, bn_momentum, dimension
        As of `BasicBlock`.
    """

    expansion = 4

    def _make(
        self, inplanes: int, planes: int, stride: int, dilation: int, momentum: float, dimension: int
    ) -> None:
        wide = planes * self.expansion
        self.conv1 = MinkowskiConvolution(inplanes, planes, 1, dimension=dimension)
        self.norm1 = MinkowskiBatchNorm(planes, momentum=momentum)
        self.conv2 = MinkowskiConvolution(planes, planes, 3, stride, dilation, dimension=dimension)
        self.norm2 = MinkowskiBatchNorm(planes, momentum=momentum)
        self.conv3 = MinkowskiConvolution(planes, wide, 1, dimension=dimension)
        self.norm3 = MinkowskiBatchNorm(wide, momentum=momentum)

    def _branch(self, x: SparseTensor) -> SparseTensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.relu(self.norm2(self.conv2(out)))
        return self.norm3(self.conv3(out))
