"""Residual encoders."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..tensor import SparseTensor
from .modules import SparseConvBlock, SparseResBlock

__all__ = ["SparseResNet", "SparseResNet21D"]

Size = int | tuple[int, ...]


class SparseResNet(nn.ModuleList):
    """Stages of a convolution block and residual blocks.

    Parameters
    ----------
    blocks : sequence of (int, int, kernel_size, stride)
        For each stage how many blocks it has, how many channels, and of its first block kernel and stride.
    in_channels : int
    width_multiplier : float
        Of the channels.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[int, int, Size, Size]],
        *,
        in_channels: int = 4,
        width_multiplier: float = 1.0,
    ):
        super().__init__()
        self.blocks, self.in_channels, self.width_multiplier = blocks, in_channels, width_multiplier
        for number, channels, kernel_size, stride in blocks:
            width = int(channels * width_multiplier)
            first = SparseConvBlock(in_channels, width, kernel_size, stride=stride)
            others = [SparseResBlock(width, width, kernel_size) for _ in range(number - 1)]
            self.append(nn.Sequential(first, *others))
            in_channels = width

    def forward(self, x: SparseTensor) -> list[SparseTensor]:
        """Return the output of each stage."""
        outputs = []
        for stage in self:
            x = stage(x)
            outputs.append(x)
        return outputs


class SparseResNet21D(SparseResNet):
    """The encoder of detectors: 5 stages, 21 convolutions; keywords as for `SparseResNet`."""

    def __init__(self, *, in_channels: int = 4, width_multiplier: float = 1.0):
        stages = [(3, 16, 3, 1), (3, 32, 3, 2), (3, 64, 3, 2), (3, 128, 3, 2)]
        super().__init__(
            [*stages, (1, 128, (1, 3, 1), (1, 2, 1))],
            in_channels=in_channels,
            width_multiplier=width_multiplier,
        )
