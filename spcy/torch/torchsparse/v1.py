"""What is otherwise in version 1.4: the batch is the last column, coordinates keep the scale of the input."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import tensor
from .nn import functional
from .nn.modules import conv

__all__ = ["Conv3d", "SparseTensor", "calc_ti_weights", "conv3d"]


class SparseTensor(tensor.SparseTensor):
    """Features on sites, as ``torchsparse.SparseTensor`` 1.4.

    Parameters
    ----------
    feats : torch.Tensor of shape (N, C)
    coords : torch.Tensor of shape (N, 4), int32
        x, y, z, multiples of the stride, then the batch.
    stride : int or sequence of 3 ints

    Examples
    --------
    >>> import torch
    >>> from spcy.torch.torchsparse.v1 import Conv3d, SparseTensor
    >>> coords = torch.tensor([[4, 4, 0, 0], [4, 5, 0, 0]], dtype=torch.int32)
    >>> Conv3d(1, 16, 2, stride=2)(SparseTensor(torch.ones(2, 1), coords)).C
    tensor([[4, 4, 0, 0]], dtype=torch.int32)
    """

    batch_last = True


class Conv3d(conv.Conv3d):
    """Sparse convolution, as ``torchsparse.nn.Conv3d`` 1.4.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, dilation, bias, transposed
        As for `nn.Conv3d`; windows are centred, ``u * stride + dilation * (r - (kernel_size - 1) // 2)``.

    Attributes
    ----------
    kernel : Parameter of shape (K, in_channels, out_channels)
        (in_channels, out_channels) for one cell.
    bias : Parameter of shape (out_channels,), or None
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        bias: bool = False,
        transposed: bool = False,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation=dilation,
            bias=bias,
            transposed=transposed,
        )

    def _has_cells(self) -> bool:
        return self.kernel_volume > 1


def conv3d(
    input: SparseTensor,
    weight: torch.Tensor,
    kernel_size: int | Sequence[int],
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    transposed: bool = False,
) -> SparseTensor:
    """Return a convolution of a sparse tensor, with the arguments of version 1.4."""
    return functional.conv3d(
        input, weight, kernel_size, bias, stride, dilation=dilation, transposed=transposed
    )


def calc_ti_weights(coords: torch.Tensor, idx_query: torch.Tensor, scale: float = 1) -> torch.Tensor:
    """Return the trilinear weights of the 8 voxels around each point; points are the last axis, (8, N)."""
    return functional.calc_ti_weights(coords, idx_query.t(), scale).t().contiguous()
