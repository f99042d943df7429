"""Layers over the functions of `spcy`, their gradients, and what trains them.

Names are PyTorch's and spconv's where they say the same thing: ``SparseConv3d(16, 32, 3, stride=2)`` is
``Conv(16, 32, 3, stride=2)``, ``SparseSequential`` is `Sequential`, and there are no indice keys. Weights are
``(*kernel_size, C_in // groups, C_out)`` as everywhere in `spcy`.
"""

from . import optim
from .container import Concat, Residual, Sequential
from .conv import Conv, ConvTranspose, InverseConv, SubMConv
from .loss import softmax_cross_entropy
from .module import Buffer, LoadReport, Module, Parameter
from .norm import BatchNorm, LayerNorm
from .pointwise import GELU, Dropout, Identity, LeakyReLU, Linear, ReLU, SiLU
from .pool import AvgPool, GlobalPool, MaxPool
from .summary import LayerSummary, Summary, summary

__all__ = [
    "GELU",
    "AvgPool",
    "BatchNorm",
    "Buffer",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Dropout",
    "GlobalPool",
    "Identity",
    "InverseConv",
    "LayerNorm",
    "LayerSummary",
    "LeakyReLU",
    "Linear",
    "LoadReport",
    "MaxPool",
    "Module",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "SubMConv",
    "Summary",
    "optim",
    "softmax_cross_entropy",
    "summary",
]
