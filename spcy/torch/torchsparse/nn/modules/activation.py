"""Activations."""

from torch import nn

from ..utils.apply import OnFeats

__all__ = ["LeakyReLU", "ReLU", "SiLU"]


class ReLU(OnFeats, nn.ReLU):
    """`torch.nn.ReLU` of sparse tensors."""


class LeakyReLU(OnFeats, nn.LeakyReLU):
    """`torch.nn.LeakyReLU` of sparse tensors."""


class SiLU(OnFeats, nn.SiLU):
    """`torch.nn.SiLU` of sparse tensors."""
