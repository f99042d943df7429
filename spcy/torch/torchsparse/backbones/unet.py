"""Residual U-Nets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from ..operators import cat
from ..tensor import SparseTensor
from .modules import SparseConvBlock, SparseConvTransposeBlock, SparseResBlock

__all__ = ["SparseResUNet", "SparseResUNet42"]

_LEVELS = 4


class SparseResUNet(nn.Module):
    """A U-Net of four levels.

    Parameters
    ----------
    stem_channels : int
    encoder_channels, decoder_channels : sequence of 4 ints
    in_channels : int
    width_multiplier : float
        Of the channels.
    """

    def __init__(
        self,
        stem_channels: int,
        encoder_channels: Sequence[int],
        decoder_channels: Sequence[int],
        *,
        in_channels: int = 4,
        width_multiplier: float = 1.0,
    ):
        super().__init__()
        for name, channels in (("encoder", encoder_channels), ("decoder", decoder_channels)):
            if len(channels) != _LEVELS:
                raise ValueError(f"{name}_channels must be {_LEVELS} ints, one per level, got {channels!r}")
        self.stem_channels, self.in_channels = stem_channels, in_channels
        self.encoder_channels, self.decoder_channels = encoder_channels, decoder_channels
        self.width_multiplier = width_multiplier
        encoder = [int(width_multiplier * c) for c in (stem_channels, *encoder_channels)]
        decoder = [encoder[-1], *(int(width_multiplier * c) for c in decoder_channels)]
        self.stem = nn.Sequential(
            *SparseConvBlock(in_channels, encoder[0], 3), *SparseConvBlock(encoder[0], encoder[0], 3)
        )
        self.encoders = nn.ModuleList(
            nn.Sequential(
                SparseConvBlock(fine, fine, 2, stride=2),
                SparseResBlock(fine, coarse, 3),
                SparseResBlock(coarse, coarse, 3),
            )
            for fine, coarse in pairwise(encoder)
        )
        self.decoders = nn.ModuleList(
            nn.ModuleDict(
                {
                    "upsample": SparseConvTransposeBlock(coarse, fine, 2, stride=2),
                    "fuse": nn.Sequential(
                        SparseResBlock(fine + beside, fine, 3), SparseResBlock(fine, fine, 3)
                    ),
                }
            )
            for coarse, fine, beside in zip(decoder[:-1], decoder[1:], encoder[-2::-1], strict=True)
        )

    def forward(self, x: SparseTensor) -> list[SparseTensor]:
        """Return the outputs of the stem, of each encoder and of each decoder."""
        outputs = [self.stem(x)]
        for encoder in self.encoders:
            outputs.append(encoder(outputs[-1]))
        for beside, decoder in zip(outputs[_LEVELS - 1 :: -1], self.decoders, strict=True):
            up = decoder.get_submodule("upsample")(outputs[-1])
            outputs.append(decoder.get_submodule("fuse")(cat([up, beside])))
        return outputs


class SparseResUNet42(SparseResUNet):
    """The U-Net of 42 convolutions; keywords as for `SparseResUNet`."""

    def __init__(self, *, in_channels: int = 4, width_multiplier: float = 1.0):
        super().__init__(
            32,
            [32, 64, 128, 256],
            [256, 128, 96, 96],
            in_channels=in_channels,
            width_multiplier=width_multiplier,
        )
