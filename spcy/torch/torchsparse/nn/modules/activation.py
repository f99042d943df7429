"""Activations."""

from torch import nn

from ...tensor import SparseTensor
from ..utils import fapply

__all__ = ["LeakyReLU", "ReLU", "SiLU"]


class ReLU(nn.ReLU):
    """`torch.nn.ReLU` of sparse tensors."""

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the layer's output."""
        return fapply(input, super().forward)


class LeakyReLU(nn.LeakyReLU):
    """`torch.nn.LeakyReLU` of sparse tensors."""

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the layer's output."""
        return fapply(input, super().forward)


class SiLU(nn.SiLU):
    """`torch.nn.SiLU` of sparse tensors."""

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the layer's output."""
        return fapply(input, super().forward)
