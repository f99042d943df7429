"""The lidar detectors' backbones: SECOND, PV-RCNN, Voxel R-CNN and CenterPoint in OpenPCDet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..nn import BatchNorm, Conv, Module, ReLU, Sequential, SubMConv
from ..nn.conv import Seed
from ..tensor import SparseTensor
from ._blocks import BasicBlock
from .network import Network

_NORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}


class BackboneFeatures(NamedTuple):
    """What a backbone returns.

    Attributes
    ----------
    output : SparseTensor
        128 channels, for the detection head: an eighth of the grid, along z half of that.
    x_conv1, x_conv2, x_conv3, x_conv4 : SparseTensor
        The levels at 1, 1/2, 1/4 and 1/8 of the grid.
    """

    output: SparseTensor
    x_conv1: SparseTensor
    x_conv2: SparseTensor
    x_conv3: SparseTensor
    x_conv4: SparseTensor


class _BackBone8x(Network):
    """What both backbones share: four levels, and a last step down along z."""

    sources: ClassVar[tuple[str, ...]] = ("spconv1", "spconv2.0", "spconv2", "openpcdet")
    zyx = True
    _stem = "conv_input.0"

    def __init__(self, in_channels: int, channels: tuple[int, ...], rng: Seed):
        rng = np.random.default_rng(rng)
        self.arguments: dict[str, Any] = {"in_channels": in_channels}
        self.conv_input: Sequential = _block(SubMConv(in_channels, 16, 3, bias=False, rng=rng))
        self.conv1: Sequential = self._level(16, 16, None, rng)
        self.conv2: Sequential = self._level(16, channels[0], 1, rng)
        self.conv3: Sequential = self._level(channels[0], channels[1], 1, rng)
        self.conv4: Sequential = self._level(channels[1], channels[2], (0, 1, 1), rng)
        self.conv_out: Sequential = _block(Conv(channels[2], 128, (3, 1, 1), (2, 1, 1), bias=False, rng=rng))

    def _level(
        self, in_channels: int, out_channels: int, padding: int | Sequence[int] | None, rng: Seed
    ) -> Sequential:
        """Return a level: a step down, unless it is the first, and submanifold convolutions."""
        raise NotImplementedError

    def forward(self, x: SparseTensor) -> BackboneFeatures:
        """Return the backbone's output and its levels.

        Parameters
        ----------
        x : SparseTensor
            The mean of each voxel's points, on coordinates (batch, z, y, x). OpenPCDet's grids have one
            cell more along z than their range holds: 41 for 4 m of 0.1 m.

        Returns
        -------
        BackboneFeatures
        """
        x_conv1 = self.conv1(self.conv_input(x))
        x_conv2 = self.conv2(x_conv1)
        x_conv3 = self.conv3(x_conv2)
        x_conv4 = self.conv4(x_conv3)
        return BackboneFeatures(self.conv_out(x_conv4), x_conv1, x_conv2, x_conv3, x_conv4)

    def vjp(self, x: SparseTensor) -> tuple[BackboneFeatures, Any]:
        """Return the output and the levels, and their vjp.

        Parameters
        ----------
        x : SparseTensor

        Returns
        -------
        y : BackboneFeatures
        vjp : callable
            ``vjp(dy)``, for a gradient of each of them or None where there is none, as
            `spcy.nn.Module.vjp`.
        """
        outputs, pulls = [], []
        for layer in (
            Sequential(self.conv_input, self.conv1),
            self.conv2,
            self.conv3,
            self.conv4,
            self.conv_out,
        ):
            x, pull = layer.vjp(x)
            outputs.append(x)
            pulls.append(pull)

        def vjp(dy: Any) -> tuple[Any, ...]:
            output, *levels = dy
            total = None
            for pull, gradient in zip(reversed(pulls), (output, *reversed(levels)), strict=True):
                if total is None or gradient is None:
                    total = gradient if total is None else total
                else:
                    total = total + gradient
                total = None if total is None else pull(total)[0]
            return (total,)

        return BackboneFeatures(outputs[-1], *outputs[:-1]), vjp


class VoxelBackBone8x(_BackBone8x):
    """The backbone of SECOND, PV-RCNN and Voxel R-CNN, as OpenPCDet names it.

    Parameters
    ----------
    in_channels : int
        x, y, z and intensity for KITTI.
    rng : int or numpy.random.Generator, optional
        Draws the weights, where they are not loaded.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> net = spcy.models.VoxelBackBone8x(4, rng=0).eval()
    >>> list(net.parameters())[:3]
    ['conv_input.0.weight', 'conv_input.1.weight', 'conv_input.1.bias']
    >>> x = spcy.SparseTensor([[0, 20, 8, 8]], np.ones((1, 4), np.float32), shape=(41, 16, 16))
    >>> y = net(x)
    >>> y.output.shape, y.output.num_channels, y.x_conv3.shape
    ((2, 2, 2), 128, (11, 4, 4))
    """

    def __init__(self, in_channels: int = 4, *, rng: Seed = None):
        super().__init__(in_channels, (32, 64, 64), rng)

    def _level(
        self, in_channels: int, out_channels: int, padding: int | Sequence[int] | None, rng: Seed
    ) -> Sequential:
        convs: list[SubMConv | Conv] = [SubMConv(out_channels, out_channels, 3, bias=False, rng=rng)]
        if padding is not None:
            convs = [
                Conv(in_channels, out_channels, 3, 2, padding, bias=False, rng=rng),
                *convs,
                SubMConv(out_channels, out_channels, 3, bias=False, rng=rng),
            ]
        return Sequential(*map(_block, convs))


class VoxelResBackBone8x(_BackBone8x):
    """The residual backbone of CenterPoint and PV-RCNN++, as OpenPCDet names it.

    Parameters
    ----------
    in_channels : int
        5 for nuScenes: x, y, z, intensity and time.
    rng : int or numpy.random.Generator, optional
        Draws the weights, where they are not loaded.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> net = spcy.models.VoxelResBackBone8x(5, rng=0).eval()
    >>> x = spcy.SparseTensor([[0, 20, 8, 8]], np.ones((1, 5), np.float32), shape=(41, 16, 16))
    >>> net(x).x_conv4.num_channels
    128
    """

    def __init__(self, in_channels: int = 4, *, rng: Seed = None):
        super().__init__(in_channels, (32, 64, 128), rng)

    def _level(
        self, in_channels: int, out_channels: int, padding: int | Sequence[int] | None, rng: Seed
    ) -> Sequential:
        blocks: list[Module] = [
            BasicBlock(out_channels, out_channels, "bn", bias=True, rng=rng, **_NORM) for _ in range(2)
        ]
        if padding is not None:
            blocks.insert(0, _block(Conv(in_channels, out_channels, 3, 2, padding, bias=False, rng=rng)))
        return Sequential(*blocks)


def _block(conv: SubMConv | Conv) -> Sequential:
    """Return a convolution, its norm and ReLU."""
    return Sequential(conv, BatchNorm(conv.out_channels, **_NORM), ReLU())
