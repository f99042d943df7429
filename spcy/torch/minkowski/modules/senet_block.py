"""Residual blocks that weigh their channels [1]_, with MinkowskiEngine's names of parameters.

.. [1] J. Hu et al., "Squeeze-and-excitation networks", CVPR 2018.
"""

from __future__ import annotations

from torch.nn import Module, Sequential

from ..nonlinearity import MinkowskiReLU, MinkowskiSigmoid
from ..ops import MinkowskiLinear
from ..pool import MinkowskiBroadcastMultiplication, MinkowskiGlobalPooling
from ..tensor import SparseTensor
from .resnet_block import BasicBlock, Bottleneck


class SELayer(Module):
    """Weighs the channels of each batch by what two linear layers make of their means.

    Parameters
    ----------
    channel, reduction : int
    D : int
        Accepted, without effect.
    """

    def __init__(self, channel: int, reduction: int = 16, D: int = -1):
        super().__init__()
        self.fc = Sequential(
            MinkowskiLinear(channel, channel // reduction),
            MinkowskiReLU(inplace=True),
            MinkowskiLinear(channel // reduction, channel),
            MinkowskiSigmoid(),
        )
        self.pooling = MinkowskiGlobalPooling()
        self.broadcast_mul = MinkowskiBroadcastMultiplication()

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the tensor with its channels weighed."""
        return self.broadcast_mul(x, self.fc(self.pooling(x)))


class _Weighed(BasicBlock):
    """A residual block whose channels are weighed before what goes past them is added."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        dilation: int = 1,
        downsample: Module | None = None,
        reduction: int = 16,
        D: int = -1,
    ):
        super().__init__(inplanes, planes, stride, dilation, downsample, dimension=D)
        self.se = SELayer(planes * self.expansion, reduction, D)

    def _branch(self, x: SparseTensor) -> SparseTensor:
        return self.se(super()._branch(x))


class SEBasicBlock(_Weighed, BasicBlock):
    """`BasicBlock` with its channels weighed.

    Parameters
    ----------
    inplanes, planes, stride, dilation, downsample
        As of `BasicBlock`.
    reduction : int
    D : int
        Number of spatial axes.
    """


class SEBottleneck(_Weighed, Bottleneck):
    """`Bottleneck` with its channels weighed.

    Parameters
    ----------
    inplanes, planes, stride, dilation, downsample
        As of `BasicBlock`.
    reduction : int
    D : int
        Number of spatial axes.
    """
