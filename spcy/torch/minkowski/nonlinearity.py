"""Non-linearities: PyTorch's, on the features."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .conv import MinkowskiModuleBase
from .tensor import Kind, wrapped


class MinkowskiNonlinearityBase(MinkowskiModuleBase):
    """A module of PyTorch on the features, with its arguments."""

    MODULE: type[nn.Module]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self.module = self.MODULE(*args, **kwargs)

    def forward(self, input: Kind) -> Kind:
        """Return the tensor or field with the module's output."""
        return wrapped(input, self.module)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiELU(MinkowskiNonlinearityBase):
    """`torch.nn.ELU` on the features."""

    MODULE = nn.ELU


class MinkowskiHardshrink(MinkowskiNonlinearityBase):
    """`torch.nn.Hardshrink` on the features."""

    MODULE = nn.Hardshrink


class MinkowskiHardsigmoid(MinkowskiNonlinearityBase):
    """`torch.nn.Hardsigmoid` on the features."""

    MODULE = nn.Hardsigmoid


class MinkowskiHardtanh(MinkowskiNonlinearityBase):
    """`torch.nn.Hardtanh` on the features."""

    MODULE = nn.Hardtanh


class MinkowskiHardswish(MinkowskiNonlinearityBase):
    """`torch.nn.Hardswish` on the features."""

    MODULE = nn.Hardswish


class MinkowskiLeakyReLU(MinkowskiNonlinearityBase):
    """`torch.nn.LeakyReLU` on the features."""

    MODULE = nn.LeakyReLU


class MinkowskiLogSigmoid(MinkowskiNonlinearityBase):
    """`torch.nn.LogSigmoid` on the features."""

    MODULE = nn.LogSigmoid


class MinkowskiPReLU(MinkowskiNonlinearityBase):
    """`torch.nn.PReLU` on the features."""

    MODULE = nn.PReLU


class MinkowskiReLU(MinkowskiNonlinearityBase):
    """`torch.nn.ReLU` on the features."""

    MODULE = nn.ReLU


class MinkowskiReLU6(MinkowskiNonlinearityBase):
    """`torch.nn.ReLU6` on the features."""

    MODULE = nn.ReLU6


class MinkowskiRReLU(MinkowskiNonlinearityBase):
    """`torch.nn.RReLU` on the features."""

    MODULE = nn.RReLU


class MinkowskiSELU(MinkowskiNonlinearityBase):
    """`torch.nn.SELU` on the features."""

    MODULE = nn.SELU


class MinkowskiCELU(MinkowskiNonlinearityBase):
    """`torch.nn.CELU` on the features."""

    MODULE = nn.CELU


class MinkowskiGELU(MinkowskiNonlinearityBase):
    """`torch.nn.GELU` on the features."""

    MODULE = nn.GELU


class MinkowskiSigmoid(MinkowskiNonlinearityBase):
    """`torch.nn.Sigmoid` on the features."""

    MODULE = nn.Sigmoid


class MinkowskiSiLU(MinkowskiNonlinearityBase):
    """`torch.nn.SiLU` on the features."""

    MODULE = nn.SiLU


class MinkowskiSoftplus(MinkowskiNonlinearityBase):
    """`torch.nn.Softplus` on the features."""

    MODULE = nn.Softplus


class MinkowskiSoftshrink(MinkowskiNonlinearityBase):
    """`torch.nn.Softshrink` on the features."""

    MODULE = nn.Softshrink


class MinkowskiSoftsign(MinkowskiNonlinearityBase):
    """`torch.nn.Softsign` on the features."""

    MODULE = nn.Softsign


class MinkowskiTanh(MinkowskiNonlinearityBase):
    """`torch.nn.Tanh` on the features."""

    MODULE = nn.Tanh


class MinkowskiTanhshrink(MinkowskiNonlinearityBase):
    """`torch.nn.Tanhshrink` on the features."""

    MODULE = nn.Tanhshrink


class MinkowskiThreshold(MinkowskiNonlinearityBase):
    """`torch.nn.Threshold` on the features."""

    MODULE = nn.Threshold


class MinkowskiSoftmin(MinkowskiNonlinearityBase):
    """`torch.nn.Softmin` on the features."""

    MODULE = nn.Softmin


class MinkowskiSoftmax(MinkowskiNonlinearityBase):
    """`torch.nn.Softmax` on the features."""

    MODULE = nn.Softmax


class MinkowskiLogSoftmax(MinkowskiNonlinearityBase):
    """`torch.nn.LogSoftmax` on the features."""

    MODULE = nn.LogSoftmax


class MinkowskiAdaptiveLogSoftmaxWithLoss(MinkowskiNonlinearityBase):
    """`torch.nn.AdaptiveLogSoftmaxWithLoss` on the features."""

    MODULE = nn.AdaptiveLogSoftmaxWithLoss


class MinkowskiDropout(MinkowskiNonlinearityBase):
    """`torch.nn.Dropout` on the features."""

    MODULE = nn.Dropout


class MinkowskiAlphaDropout(MinkowskiNonlinearityBase):
    """`torch.nn.AlphaDropout` on the features."""

    MODULE = nn.AlphaDropout


class MinkowskiSinusoidal(MinkowskiModuleBase):
    """``sin(x @ kernel + bias) * coef``.

    Parameters
    ----------
    in_channel, out_channel : int
    """

    def __init__(self, in_channel: int, out_channel: int):
        super().__init__()
        self.in_channel, self.out_channel = in_channel, out_channel
        self.kernel = nn.Parameter(torch.rand(in_channel, out_channel))
        self.bias = nn.Parameter(torch.rand(1, out_channel))
        self.coef = nn.Parameter(torch.rand(1, out_channel))

    def forward(self, input: Kind) -> Kind:
        """Return the tensor or field with the layer's output."""
        return wrapped(input, lambda x: torch.sin(x.mm(self.kernel) + self.bias) * self.coef)
