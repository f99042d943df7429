"""Weights to begin with."""

from __future__ import annotations

import math
from typing import Literal

import torch

Nonlinearity = Literal[
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "selu",
]


def kaiming_normal_(
    tensor: torch.Tensor,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
) -> torch.Tensor:
    """Fill a kernel, (K, C_in, C_out), with normal numbers as He et al. do [1]_.

    Parameters
    ----------
    tensor : torch.Tensor
        A matrix is taken as PyTorch's are, (C_out, C_in).
    a : float
        The slope of a leaky ReLU behind the layer.
    mode : {"fan_in", "fan_out"}
    nonlinearity : str
        As of `torch.nn.init.calculate_gain`.

    Returns
    -------
    torch.Tensor
        The same tensor.

    Raises
    ------
    ValueError
        If the tensor has fewer than two axes, or `mode` is another.

    References
    ----------
    .. [1] K. He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    if tensor.dim() < 2:
        raise ValueError(f"tensor must have at least two axes, got shape {tuple(tensor.shape)}")
    if tensor.dim() == 2:
        fan_out, fan_in = tensor.shape
    else:
        fan_in, fan_out = (channels * tensor.shape[0] for channels in tensor.shape[1:3])
    gain = torch.nn.init.calculate_gain(nonlinearity, a)
    with torch.no_grad():
        return tensor.normal_(0, gain / math.sqrt(fan_in if mode == "fan_in" else fan_out))
