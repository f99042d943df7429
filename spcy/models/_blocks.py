"""Pieces that several networks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..nn import BatchNorm, Concat, Identity, Module, ReLU, Residual, Sequential, SubMConv
from ..nn.conv import Seed
from .network import Composed


class BasicBlock(Composed):
    """Two submanifold convolutions and a shortcut; `norm` names the norms' attributes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: str = "norm",
        bias: bool = False,
        ndim: int = 3,
        rng: Seed = None,
        **norm_args: Any,
    ):
        args: dict[str, Any] = {"ndim": ndim, "rng": rng}
        self._norms = (f"{norm}1", f"{norm}2")
        self.conv1 = SubMConv(in_channels, out_channels, 3, bias=bias, **args)
        setattr(self, self._norms[0], BatchNorm(out_channels, **norm_args))
        self.conv2 = SubMConv(out_channels, out_channels, 3, bias=bias, **args)
        setattr(self, self._norms[1], BatchNorm(out_channels, **norm_args))
        if in_channels != out_channels:
            shortcut = SubMConv(in_channels, out_channels, 1, bias=False, **args)
            self.downsample = Sequential(shortcut, BatchNorm(out_channels, **norm_args))

    def _layers(self) -> Module:
        norm1, norm2 = (getattr(self, name) for name in self._norms)
        body = Sequential(self.conv1, norm1, ReLU(), self.conv2, norm2)
        return Sequential(Residual(body, getattr(self, "downsample", None)), ReLU())


def u_net(
    stem: Module, downs: Sequence[Module], ups: Sequence[Module], blocks: Sequence[Module], head: Module
) -> Module:
    """Return a U-Net: `ups` and `blocks` are in the order in which they run, as `downs`.

    Each up's output comes before what it meets, in the channels of the concatenation.
    """
    inner: list[Module] = []
    for down, up, block in zip(reversed(downs), ups, blocks, strict=True):
        inner = [Concat(Sequential(down, *inner, up), Identity()), block]
    return Sequential(stem, *inner, head)
