"""Blocks of the networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ... import nn as spnn
from ...tensor import SparseTensor

__all__ = ["SparseConvBlock", "SparseConvTransposeBlock", "SparseResBlock"]


class SparseConvBlock(nn.Sequential):
    """A convolution, its norm and ReLU.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride : int or sequence of 3 ints
    dilation : int
    """

    _transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int = 1,
    ):
        super().__init__(
            spnn.Conv3d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                dilation=dilation,
                transposed=self._transposed,
            ),
            spnn.BatchNorm(out_channels),
            spnn.ReLU(True),
        )


class SparseConvTransposeBlock(SparseConvBlock):
    """A transposed convolution, its norm and ReLU; parameters as for `SparseConvBlock`."""

    _transposed = True


class SparseResBlock(nn.Module):
    """Two convolutions beside a shortcut; parameters as for `SparseConvBlock`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int = 1,
    ):
        super().__init__()
        first = spnn.Conv3d(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)
        self.main = nn.Sequential(
            first,
            spnn.BatchNorm(out_channels),
            spnn.ReLU(True),
            spnn.Conv3d(out_channels, out_channels, kernel_size, dilation=dilation),
            spnn.BatchNorm(out_channels),
        )
        self.shortcut: nn.Module
        if in_channels == out_channels and first.stride == (1, 1, 1):
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                spnn.Conv3d(in_channels, out_channels, 1, stride=stride), spnn.BatchNorm(out_channels)
            )
        self.relu = spnn.ReLU(True)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the block's output."""
        return self.relu(self.main(x) + self.shortcut(x))
