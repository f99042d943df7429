"""The U-Net of SparseConvNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..nn import (
    BatchNorm,
    Concat,
    Conv,
    Identity,
    InverseConv,
    Linear,
    Module,
    ReLU,
    Residual,
    Sequential,
    SubMConv,
)
from ..nn.conv import Seed
from .network import Composed, Network


class SparseConvNetUNet(Composed, Network):
    """The U-Net of SparseConvNet's segmentation examples: a class for every site.

    See Graham, Engelcke & van der Maaten, "3D semantic segmentation with submanifold sparse convolutional
    networks", CVPR 2018.

    Parameters
    ----------
    in_channels, out_channels : int
    channels : sequence of int
        Of each level: ``[m, 2 * m, .., 7 * m]`` in the examples, with m = 16 or 32.
    reps : int
        Blocks at each level, on the way down and up.
    residual_blocks : bool
    ndim : int
    rng : int or numpy.random.Generator, optional
        Draws the weights, where they are not loaded.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> net = spcy.models.SparseConvNetUNet(3, 20, [16, 32, 48], rng=0).eval()
    >>> list(net.parameters())[:2]
    ['sparseModel.1.weight', 'sparseModel.2.0.0.weight']
    >>> net(spcy.SparseTensor([[0, 4, 4, 9], [0, 4, 4, 8]], np.ones((2, 3), np.float32))).num_channels
    20
    """

    sources: ClassVar[tuple[str, ...]] = ("sparseconvnet",)
    _stem = "sparseModel.1"
    _head = "linear"
    _head_linear = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        reps: int = 1,
        residual_blocks: bool = False,
        ndim: int = 3,
        *,
        rng: Seed = None,
    ):
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": list(channels),
            "reps": reps,
            "residual_blocks": residual_blocks,
            "ndim": ndim,
        }
        rng = np.random.default_rng(rng)
        args: dict[str, Any] = {"bias": False, "ndim": ndim, "rng": rng}
        stem = SubMConv(in_channels, channels[0], 3, **args)
        levels = _level(list(channels), reps, residual_blocks, args)
        self.sparseModel: Sequential = _numbered(None, stem, levels, _norm(channels[0]), None)
        self.linear: Linear = Linear(channels[0], out_channels, rng=rng)

    def _layers(self) -> Module:
        return Sequential(self.sparseModel, self.linear)


def _level(channels: list[int], reps: int, residual_blocks: bool, args: dict[str, Any]) -> Sequential:
    """Return the U-Net from a level on."""
    block = _residual if residual_blocks else _plain
    own = channels[0]
    layers = [layer for _ in range(reps) for layer in block(own, own, args)]
    if channels[1:]:
        down = Conv(own, channels[1], 2, 2, **args)
        up = InverseConv(channels[1], own, 2, **args)
        below = _level(channels[1:], reps, residual_blocks, args)
        layers += [Concat(Identity(), _numbered(_norm(own), down, below, _norm(channels[1]), up)), None]
        for rep in range(reps):
            layers += block(own if rep else 2 * own, own, args)
    return _numbered(*layers)


def _plain(a: int, b: int, args: dict[str, Any]) -> list[Module | None]:
    return [_numbered(_norm(a), SubMConv(a, b, 3, **args))]


def _residual(a: int, b: int, args: dict[str, Any]) -> list[Module | None]:
    shortcut = Identity() if a == b else SubMConv(a, b, 1, **args)
    body = _numbered(_norm(a), SubMConv(a, b, 3, **args), _norm(b), SubMConv(b, b, 3, **args))
    return [_Sum(shortcut, body), None]


class _Sum(Residual):
    """A residual block whose parts have the numbers that SparseConvNet's ConcatTable gives them."""

    def __init__(self, shortcut: Module, body: Module):
        setattr(self, "0", shortcut)
        setattr(self, "1", body)

    @property
    def shortcut(self) -> Module:  # type: ignore[override]  # there is nothing to write: the table has it
        """The first of the table."""
        return getattr(self, "0")

    @property
    def body(self) -> Module:  # type: ignore[override]  # as above
        """The second."""
        return getattr(self, "1")


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, eps=1e-4)


def _numbered(*layers: Module | None) -> Sequential:
    """Return layers under their numbers in SparseConvNet, where a norm has its ReLU in it.

    None is a layer without parameters that has a number there: tables that join or add, input and output.
    """
    sequential = Sequential()
    for place, layer in enumerate(layers):
        if layer is not None:
            setattr(sequential, str(place), layer)
        if isinstance(layer, BatchNorm):
            setattr(sequential, f"{place}_relu", ReLU())
    return sequential
