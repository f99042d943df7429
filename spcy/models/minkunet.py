"""The U-Nets of MinkowskiEngine and of TorchSparse."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from .. import _check
from ..nn import BatchNorm, Conv, InverseConv, Linear, Module, ReLU, Residual, Sequential, SubMConv
from ..nn.conv import Seed
from ._blocks import BasicBlock, u_net
from .network import Composed, Network

_DEPTHS = {
    "14": (1, 1, 1, 1, 1, 1, 1, 1),
    "18": (2, 2, 2, 2, 2, 2, 2, 2),
    "34": (2, 3, 4, 6, 2, 2, 2, 2),
}
_PLANES = {
    "14A": (128, 128, 96, 96),
    "14B": (128, 128, 128, 128),
    "14C": (192, 192, 128, 128),
    "14D": (384, 384, 384, 384),
    "18A": (128, 128, 96, 96),
    "18B": (128, 128, 128, 128),
    "18D": (384, 384, 384, 384),
    "34A": (256, 128, 64, 64),
    "34B": (256, 128, 64, 32),
    "34C": (256, 128, 96, 96),
}
_STEM = 32


class MinkUNet(Composed, Network):
    """MinkUNet14, 18 and 34, as MinkowskiEngine's examples name them.

    Four steps down with 2 x .. x 2 kernels and four up, residual blocks, and a class for every site. See
    Choy, Gwak & Savarese, "4D spatio-temporal ConvNets: Minkowski convolutional neural networks", CVPR
    2019.

    Parameters
    ----------
    in_channels, out_channels : int
    variant : {"14A", "14B", "14C", "14D", "18A", "18B", "18D", "34A", "34B", "34C"}
    stem_kernel_size : int
        Of the first convolution; some published networks have 3.
    ndim : int
    rng : int or numpy.random.Generator, optional
        Draws the weights, where they are not loaded.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> net = spcy.models.MinkUNet(3, 20, "14A", rng=0).eval()
    >>> x = spcy.SparseTensor([[0, 4, -4, 9], [0, 4, -4, 8]], np.ones((2, 3), np.float32))
    >>> y = net(x)
    >>> y.coords is x.coords, y.num_channels
    (True, 20)
    """

    sources: ClassVar[tuple[str, ...]] = ("minkowski", "torchsparse")
    _stem = "conv0p1s1"
    _head = "final"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        variant: str,
        stem_kernel_size: int = 5,
        ndim: int = 3,
        *,
        rng: Seed = None,
    ):
        _check.choice(variant, tuple(_PLANES), "variant")
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "variant": variant,
            "stem_kernel_size": stem_kernel_size,
            "ndim": ndim,
        }
        args: dict[str, Any] = {"bias": False, "ndim": ndim, "rng": np.random.default_rng(rng)}
        depths, planes = _DEPTHS[variant[:2]], (32, 64, 128, 256, *_PLANES[variant])
        self.conv0p1s1: SubMConv = SubMConv(in_channels, _STEM, stem_kernel_size, **args)
        self.bn0: BatchNorm = BatchNorm(_STEM)
        channels = _STEM
        for i in range(4):
            setattr(self, self._down(i), Conv(channels, channels, 2, 2, **args))
            setattr(self, f"bn{i + 1}", BatchNorm(channels))
            setattr(self, f"block{i + 1}", _blocks(channels, planes[i], depths[i], args))
            channels = planes[i]
        for i, skip in zip(range(4, 8), (*planes[2::-1], _STEM), strict=True):
            setattr(self, self._up(i), InverseConv(channels, planes[i], 2, **args))
            setattr(self, f"bntr{i}", BatchNorm(planes[i]))
            setattr(self, f"block{i + 1}", _blocks(planes[i] + skip, planes[i], depths[i], args))
            channels = planes[i]
        self.final: SubMConv = SubMConv(channels, out_channels, 1, **{**args, "bias": True})

    @staticmethod
    def _down(i: int) -> str:
        return f"conv{i + 1}p{2**i}s2"

    @staticmethod
    def _up(i: int) -> str:
        return f"convtr{i}p{2 ** (8 - i)}s2"

    def _layers(self) -> Module:
        downs, ups = [], []
        for i in range(4):
            step = getattr(self, self._down(i)), getattr(self, f"bn{i + 1}"), ReLU()
            downs.append(Sequential(*step, getattr(self, f"block{i + 1}")))
        for i in range(4, 8):
            ups.append(Sequential(getattr(self, self._up(i)), getattr(self, f"bntr{i}"), ReLU()))
        blocks = [getattr(self, f"block{i + 1}") for i in range(4, 8)]
        return u_net(Sequential(self.conv0p1s1, self.bn0, ReLU()), downs, ups, blocks, self.final)


def _blocks(in_channels: int, out_channels: int, depth: int, args: dict[str, Any]) -> Sequential:
    channels = (in_channels, *[out_channels] * depth)
    return Sequential(*(BasicBlock(a, b, **args) for a, b in pairwise(channels)))


class _NetBlock(Composed):
    """A convolution, its norm and ReLU, in the attribute that SPVNAS gives them."""

    def __init__(self, conv: Conv | InverseConv):
        self.net = Sequential(conv, BatchNorm(conv.out_channels), ReLU())

    def _layers(self) -> Module:
        return self.net


class _NetResidual(Composed):
    """A residual block with SPVNAS's names."""

    def __init__(self, in_channels: int, out_channels: int, args: dict[str, Any]):
        conv1 = SubMConv(in_channels, out_channels, 3, **args)
        conv2 = SubMConv(out_channels, out_channels, 3, **args)
        self.net = Sequential(conv1, BatchNorm(out_channels), ReLU(), conv2, BatchNorm(out_channels))
        if in_channels != out_channels:
            shortcut = SubMConv(in_channels, out_channels, 1, **args)
            self.downsample = Sequential(shortcut, BatchNorm(out_channels))

    def _layers(self) -> Module:
        return Sequential(Residual(self.net, getattr(self, "downsample", None)), ReLU())


class MinkUNet42(Composed, Network):
    """The MinkUNet of SPVNAS and TorchSparse: 42 layers, with a stem of two convolutions.

    Parameters
    ----------
    in_channels, out_channels : int
    width : float
        Times 32, 32, 64, 128, 256, 256, 128, 96, 96 channels; 1 and 0.5 were published for SemanticKITTI.
    ndim : int
    rng : int or numpy.random.Generator, optional
        Draws the weights, where they are not loaded.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> net = spcy.models.MinkUNet42(4, 19, width=0.5, rng=0).eval()
    >>> x = spcy.SparseTensor([[0, 4, 4, 9], [0, 4, 4, 8]], np.ones((2, 4), np.float32))
    >>> net(x).num_channels
    19
    """

    sources: ClassVar[tuple[str, ...]] = ("torchsparse",)
    _stem = "stem.0"
    _head = "classifier.0"
    _head_linear = True
    _unused = ("point_transforms.",)  # which its forward never calls

    def __init__(
        self, in_channels: int, out_channels: int, width: float = 1.0, ndim: int = 3, *, rng: Seed = None
    ):
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "ndim": ndim,
        }
        channels = [int(width * c) for c in (32, 32, 64, 128, 256, 256, 128, 96, 96)]
        rng = np.random.default_rng(rng)
        args: dict[str, Any] = {"bias": False, "ndim": ndim, "rng": rng}
        self.stem: Sequential = Sequential(
            SubMConv(in_channels, channels[0], 3, **args),
            BatchNorm(channels[0]),
            ReLU(),
            SubMConv(channels[0], channels[0], 3, **args),
            BatchNorm(channels[0]),
            ReLU(),
        )
        for i in range(4):
            a, b = channels[i : i + 2]
            layers = _NetBlock(Conv(a, a, 2, 2, **args)), _NetResidual(a, b, args), _NetResidual(b, b, args)
            setattr(self, f"stage{i + 1}", Sequential(*layers))
        for i in range(4):
            a, b = channels[i + 4 : i + 6]
            blocks = Sequential(_NetResidual(b + channels[3 - i], b, args), _NetResidual(b, b, args))
            setattr(self, f"up{i + 1}", [_NetBlock(InverseConv(a, b, 2, **args)), blocks])
        self.classifier: Sequential = Sequential(Linear(channels[8], out_channels, rng=rng))

    def _layers(self) -> Module:
        stages = [getattr(self, f"stage{i}") for i in range(1, 5)]
        ups, blocks = zip(*(getattr(self, f"up{i}") for i in range(1, 5)), strict=True)
        return u_net(self.stem, stages, list(ups), list(blocks), self.classifier)
